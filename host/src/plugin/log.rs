//! What plugins write to standard output and error: kept in memory, bounded, the newest last.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use stream_storage::Timestamp;

use crate::lock::lock;

/// Lines kept of one version of a plugin.
const LINES_MAX: usize = 1_000;
/// Bytes kept of one version of a plugin.
const BYTES_MAX: usize = 64 << 10;
/// Bytes that one call may add; what is more is dropped and counted.
const CALL_BYTES_MAX: usize = 16 << 10;
/// A longer line is cut into several.
const LINE_BYTES_MAX: usize = 4 << 10;

/// A line that a guest wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When the call began that wrote it.
    pub time: Timestamp,
    /// The text, without its end of line.
    pub text: String,
}

/// The log of one version of a plugin.
#[derive(Debug, Default)]
pub struct GuestLog {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<LogLine>,
    bytes: usize,
    dropped: u64,
}

impl GuestLog {
    /// The newest lines, at most `limit`, the oldest of them first; and how many bytes were written
    /// and not kept.
    pub fn tail(&self, limit: usize) -> (Vec<LogLine>, u64) {
        let kept = lock(&self.kept);
        let skipped = kept.lines.len().saturating_sub(limit);
        (kept.lines.iter().skip(skipped).cloned().collect(), kept.dropped)
    }

    fn push(&self, line: LogLine) {
        let mut kept = lock(&self.kept);
        kept.bytes += line.text.len();
        kept.lines.push_back(line);
        while kept.lines.len() > LINES_MAX || kept.bytes > BYTES_MAX {
            let Some(oldest) = kept.lines.pop_front() else { break };
            kept.bytes -= oldest.text.len();
            kept.dropped += oldest.text.len() as u64;
        }
    }
}

/// The log as one instance writes to it. Clones write to the same.
#[derive(Debug, Clone)]
pub(super) struct CallLog {
    log: Arc<GuestLog>,
    call: Arc<Mutex<Call>>,
}

#[derive(Debug, Default)]
struct Call {
    began: Timestamp,
    written: usize,
    line: Vec<u8>,
}

impl CallLog {
    pub(super) fn new(log: Arc<GuestLog>) -> Self {
        Self { log, call: Arc::default() }
    }

    /// A call begins.
    pub(super) fn begin(&self, now: Timestamp) {
        let mut call = lock(&self.call);
        (call.began, call.written) = (now, 0);
    }

    /// A call is over: what it wrote last is a line.
    pub(super) fn end(&self) {
        self.finish_line(&mut lock(&self.call));
    }

    pub(super) fn push(&self, bytes: &[u8]) {
        let mut call = lock(&self.call);
        let room = CALL_BYTES_MAX.saturating_sub(call.written).min(bytes.len());
        let (taken, dropped) = bytes.split_at(room);
        call.written += taken.len();
        for part in taken.split_inclusive(|byte| *byte == b'\n') {
            for part in part.chunks(LINE_BYTES_MAX) {
                if call.line.len() + part.len() > LINE_BYTES_MAX {
                    self.finish_line(&mut call);
                }
                call.line.extend_from_slice(part);
            }
            if part.ends_with(b"\n") {
                self.finish_line(&mut call);
            }
        }
        if !dropped.is_empty() {
            lock(&self.log.kept).dropped += dropped.len() as u64;
        }
    }

    fn finish_line(&self, call: &mut Call) {
        if call.line.is_empty() {
            return;
        }
        let text = String::from_utf8_lossy(&call.line);
        let text = text.trim_end_matches(['\n', '\r']).replace(char::is_control, "\u{fffd}");
        call.line.clear();
        self.log.push(LogLine { time: call.began, text });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(log: &GuestLog, limit: usize) -> Vec<String> {
        log.tail(limit).0.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn writes_become_lines_with_the_time_of_their_call() {
        let log = Arc::new(GuestLog::default());
        let call = CallLog::new(Arc::clone(&log));
        call.begin(Timestamp(7));
        call.push(b"a");
        call.push(b"b\r\n\nc\x1b[1m");
        assert_eq!(texts(&log, 9), ["ab", ""]);
        call.end();
        assert_eq!(texts(&log, 9), ["ab", "", "c\u{fffd}[1m"]);
        assert_eq!(log.tail(1).0[0].time, Timestamp(7));
    }

    #[test]
    fn a_flood_is_bounded_by_call_and_in_all_and_counted() {
        let log = Arc::new(GuestLog::default());
        let call = CallLog::new(Arc::clone(&log));
        for round in 0..100 {
            call.begin(Timestamp(round));
            (0..100).for_each(|_| call.push(&[b'x'; 1_000]));
            call.end();
        }
        let (lines, dropped) = log.tail(usize::MAX);
        let kept: usize = lines.iter().map(|line| line.text.len()).sum();
        assert!(kept <= BYTES_MAX, "{kept}");
        assert_eq!(kept as u64 + dropped, 100 * 100 * 1_000);
        assert_eq!(lines.last().unwrap().time, Timestamp(99));
        assert_eq!(log.tail(3).0.len(), 3);
    }
}
