//! Newline-delimited JSON: one event a line. Blank lines are skipped, lines may end in CRLF, and
//! the last one needs no end.

use super::error::Fault;
use super::{Batch, json, line};

/// Reads all events of the body into `batch`.
pub(super) fn read<'a>(batch: &mut Batch<'a, '_>) -> Result<(), Fault<'a>> {
    let json::Utf8 { text, fault } = json::utf8(batch.body);
    // A line with a fault is not read: the fault is about its event, the one after those before.
    let whole_lines = match fault {
        None => text,
        Some(_) => text.rsplit_once('\n').map_or("", |(lines, _)| lines),
    };
    batch.reserve();
    let is_blank = |line: &str| line.trim_ascii().is_empty();
    for line in lines(whole_lines).filter(|line| !is_blank(line)) {
        batch.decode(line, line::event)?;
    }
    fault.map_or(Ok(()), Err)
}

/// What stands between line ends, found with the widest instructions that the processor has.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let ends = memchr::memchr_iter(b'\n', text.as_bytes()).chain([text.len()]);
    ends.scan(0, |start, end| {
        let line = text.get(*start..end);
        *start = end + 1;
        line
    })
}
