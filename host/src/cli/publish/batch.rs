//! Cuts lines into batches.
//!
//! Where a batch ends is decided by the lines alone, never by time or by how reads fall: the same
//! input gives the same batches under the same sequence numbers, which is what makes it safe to
//! publish it again after a crash.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, Read};

use serde::Deserialize;
use stream_storage::InvalidName;

use crate::name::TopicName;

/// A request's body unless a single line is longer; a quarter of what a server takes by default.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Lines of all topics that wait for their batches to fill. Beyond it all are cut.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// No server takes a longer line; more is not worth holding in memory.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Why the input cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// A line is malformed: neither it nor what follows it was sent.
    #[error("line {line}: {reason}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// The input cannot be read.
    #[error("cannot read the input: {0}")]
    Read(#[from] io::Error),
}

/// Which topic a line goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    /// The same for all.
    Topic(TopicName),
    /// The one that its `type` names.
    ByType,
}

/// How to cut.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    pub(super) destination: Destination,
    /// Events in a batch, at least 1.
    pub(super) events_max: usize,
}

impl Cut {
    /// Differs where the same lines are cut differently.
    pub(super) fn fingerprint(&self) -> String {
        let by = match self.destination {
            Destination::Topic(_) => "topic",
            Destination::ByType => "type",
        };
        let Self { events_max, .. } = self;
        format!("{by}/{events_max}/{BATCH_BYTES_MAX}/{WAITING_BYTES_MAX}")
    }
}

/// Events of one topic, for one request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) topic: TopicName,
    /// Counts the batches of the topic from 0.
    pub(super) sequence: u64,
    /// NDJSON.
    pub(super) body: Vec<u8>,
    /// The number in the input of each line of the body.
    pub(super) lines: Vec<u64>,
}

/// The batches of an input. It ends with the first error.
pub(super) struct Batches<R> {
    input: R,
    cut: Cut,
    waiting: Waiting,
    /// The number of the line read last.
    line: u64,
    buffer: Vec<u8>,
    is_done: bool,
}

impl<R: BufRead> Batches<R> {
    pub(super) fn new(input: R, cut: Cut) -> Self {
        let waiting = Waiting::new(cut.events_max);
        Self { input, cut, waiting, line: 0, buffer: Vec::new(), is_done: false }
    }

    /// Takes in the next line, or what waits at the end of the input.
    fn advance(&mut self) -> Result<(), InputError> {
        self.buffer.clear();
        let mut limited = self.input.by_ref().take(LINE_BYTES_MAX + 1);
        let count = limited.read_until(b'\n', &mut self.buffer)?;
        self.line += 1;
        if count == 0 {
            self.is_done = true;
            self.waiting.cut_all();
            return Ok(());
        }
        self.take_line().map_err(|reason| InputError::Line { line: self.line, reason })
    }

    /// Puts the line in the buffer with its topic's; an error is what is wrong with it.
    fn take_line(&mut self) -> Result<(), String> {
        if self.buffer.len() as u64 > LINE_BYTES_MAX {
            return Err(format!("expected at most {LINE_BYTES_MAX} bytes"));
        }
        let line = self.buffer.trim_ascii_end();
        if line.is_empty() {
            return Ok(());
        }
        let kind = kind(line)?;
        let topic = match (&self.cut.destination, &kind) {
            (Destination::Topic(topic), _) => topic.as_str(),
            (Destination::ByType, Some(kind)) => kind,
            (Destination::ByType, None) => {
                return Err("expected a `type` that names the topic".to_owned());
            }
        };
        self.waiting.push(topic, line, self.line).map_err(|error| error.to_string())
    }
}

impl<R: BufRead> Iterator for Batches<R> {
    type Item = Result<Batch, InputError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(batch) = self.waiting.ready.pop_front() {
                return Some(Ok(batch));
            }
            if self.is_done {
                return None;
            }
            if let Err(error) = self.advance() {
                self.is_done = true;
                return Some(Err(error));
            }
        }
    }
}

/// The `type` of an event, of which nothing else is looked at but that it is JSON.
fn kind(line: &[u8]) -> Result<Option<Cow<'_, str>>, String> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        r#type: Option<Text<'a>>,
    }

    let text = std::str::from_utf8(line)
        .map_err(|error| format!("expected UTF-8 at column {}", error.valid_up_to() + 1))?;
    // An array would do as well for what follows.
    if !text.trim_ascii_start().starts_with('{') {
        return Err("expected a JSON object".to_owned());
    }
    let event: Event<'_> = serde_json::from_str(text).map_err(|error| {
        let message = error.to_string();
        // It always names the first line: there is only one.
        let what = message.rsplit_once(" at line ").map_or(&*message, |(what, _)| what);
        format!("{what} at column {}", error.column())
    })?;
    Ok(event.r#type.map(|Text(text)| text))
}

/// Lines that wait until their batch is full, and batches that are.
struct Waiting {
    events_max: usize,
    topics: BTreeMap<TopicName, Lines>,
    byte_len: usize,
    ready: VecDeque<Batch>,
}

impl Waiting {
    fn new(events_max: usize) -> Self {
        Self { events_max, topics: BTreeMap::new(), byte_len: 0, ready: VecDeque::new() }
    }

    fn push(&mut self, topic: &str, line: &[u8], number: u64) -> Result<(), InvalidName> {
        if !self.topics.contains_key(topic) {
            let name = TopicName::parse(topic)?;
            self.topics.insert(name.clone(), Lines::new(name));
        }
        let Some(lines) = self.topics.get_mut(topic) else { return Ok(()) };
        let before = lines.body.len();
        let byte_len = line.len() + 1;
        if before + byte_len > BATCH_BYTES_MAX {
            self.ready.extend(lines.cut());
        }
        lines.body.extend_from_slice(line);
        lines.body.push(b'\n');
        lines.numbers.push(number);
        if lines.numbers.len() >= self.events_max {
            self.ready.extend(lines.cut());
        }
        self.byte_len = self.byte_len - before + lines.body.len();
        if self.byte_len > WAITING_BYTES_MAX {
            self.cut_all();
        }
        Ok(())
    }

    fn cut_all(&mut self) {
        self.ready.extend(self.topics.values_mut().filter_map(Lines::cut));
        self.byte_len = 0;
    }
}

/// Lines of one topic.
struct Lines {
    topic: TopicName,
    /// Of the next batch.
    sequence: u64,
    body: Vec<u8>,
    numbers: Vec<u64>,
}

impl Lines {
    fn new(topic: TopicName) -> Self {
        Self { topic, sequence: 0, body: Vec::new(), numbers: Vec::new() }
    }

    /// What waits as a batch; `None` if nothing does.
    fn cut(&mut self) -> Option<Batch> {
        if self.numbers.is_empty() {
            return None;
        }
        let sequence = self.sequence;
        self.sequence += 1;
        Some(Batch {
            topic: self.topic.clone(),
            sequence,
            body: std::mem::take(&mut self.body),
            lines: std::mem::take(&mut self.numbers),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::BufReader;

    /// Gives its bytes in pieces of these sizes, in turn.
    struct Pieces<'a> {
        bytes: &'a [u8],
        sizes: std::iter::Cycle<std::vec::IntoIter<usize>>,
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let size = self.sizes.next().unwrap().min(buffer.len()).min(self.bytes.len());
            let (piece, rest) = self.bytes.split_at(size);
            buffer[..size].copy_from_slice(piece);
            self.bytes = rest;
            Ok(size)
        }
    }

    fn by_type(events_max: usize) -> Cut {
        Cut { destination: Destination::ByType, events_max }
    }

    fn to_topic(events_max: usize) -> Cut {
        Cut { destination: Destination::Topic(TopicName::parse("t").unwrap()), events_max }
    }

    fn batches(input: impl Read, cut: Cut) -> Result<Vec<Batch>, InputError> {
        Batches::new(BufReader::new(input), cut).collect()
    }

    /// Topic, sequence, line numbers.
    fn outline(input: &str, cut: Cut) -> Vec<(String, u64, Vec<u64>)> {
        let batches = batches(input.as_bytes(), cut).unwrap();
        batches.into_iter().map(|b| (b.topic.to_string(), b.sequence, b.lines)).collect()
    }

    proptest! {
        #[test]
        fn the_same_bytes_are_cut_the_same_however_they_are_read(
            kinds in prop::collection::vec(0..4_u8, 0..60),
            events_max in 1..8_usize,
            sizes in prop::collection::vec(1..50_usize, 1..10),
        ) {
            let lines: String =
                kinds.iter().map(|kind| format!("{{\"type\":\"t.{kind}\",\"value\":1}}\r\n")).collect();
            let whole = batches(lines.as_bytes(), by_type(events_max)).unwrap();
            let pieces = Pieces { bytes: lines.as_bytes(), sizes: sizes.into_iter().cycle() };
            prop_assert_eq!(&whole, &batches(pieces, by_type(events_max)).unwrap());
            for topic in whole.iter().map(|batch| &batch.topic) {
                let of_topic = || whole.iter().filter(|batch| batch.topic == *topic);
                prop_assert!(of_topic().map(|batch| batch.sequence).eq(0..of_topic().count() as u64));
                let numbers: Vec<_> = of_topic().flat_map(|batch| &batch.lines).collect();
                prop_assert!(numbers.is_sorted());
            }
            let mut numbers: Vec<_> = whole.iter().flat_map(|batch| batch.lines.clone()).collect();
            numbers.sort_unstable();
            prop_assert!(numbers.into_iter().eq(1..=kinds.len() as u64));
        }
    }

    #[test]
    fn a_batch_is_full_at_its_number_of_events() {
        let t = |sequence, lines| ("t".to_owned(), sequence, lines);
        assert_eq!(outline("{}\n{}\n{}\n", to_topic(2)), [t(0, vec![1, 2]), t(1, vec![3])]);
        assert_eq!(outline("{}\n{}\n", to_topic(2)), [t(0, vec![1, 2])]);
        assert_eq!(outline("", to_topic(2)), []);
    }

    #[test]
    fn blank_lines_are_skipped_but_counted() {
        let t = |sequence, lines| ("t".to_owned(), sequence, lines);
        assert_eq!(outline("\n{}\n \r\n\n{}", to_topic(9)), [t(0, vec![2, 5])]);
    }

    #[test]
    fn a_line_is_sent_as_it_stands() {
        let line = r#" {"value": 1.50,  "key":"\u00e9"}"#;
        let batch = batches(format!("{line}\r\n").as_bytes(), to_topic(9)).unwrap().remove(0);
        assert_eq!(String::from_utf8(batch.body).unwrap(), format!("{line}\n"));
    }

    #[test]
    fn a_batch_is_full_at_its_bytes_and_a_longer_line_goes_alone() {
        // Two of them and their line ends are just a batch.
        let half = format!("{{\"value\":\"{}\"}}\n", "x".repeat(BATCH_BYTES_MAX / 2 - 13));
        assert_eq!(half.len() * 2, BATCH_BYTES_MAX);
        let long = format!("{{\"value\":\"{}\"}}\n", "x".repeat(BATCH_BYTES_MAX));
        let input = format!("{half}{half}{half}{long}{half}");
        let t = |sequence, lines| ("t".to_owned(), sequence, lines);
        let expected = [t(0, vec![1, 2]), t(1, vec![3]), t(2, vec![4]), t(3, vec![5])];
        assert_eq!(outline(&input, to_topic(9)), expected);
    }

    #[test]
    fn all_topics_are_cut_when_much_waits() {
        let line = |topic: usize| {
            let value = "x".repeat(BATCH_BYTES_MAX * 3 / 4);
            format!("{{\"type\":\"t{topic:02}\",\"value\":\"{value}\"}}\n")
        };
        let topics = WAITING_BYTES_MAX / line(0).len() + 1;
        let input: String = (0..=topics).map(line).collect();
        let cut = outline(&input, by_type(9));
        assert_eq!(cut.len(), topics + 1);
        assert_eq!(cut.last().unwrap().2, [topics as u64 + 1]);
    }

    #[test]
    fn a_bad_line_is_named_and_ends_the_batches() {
        let cases = [
            (r#"{"value":1}"#, "line 3: expected a `type` that names the topic"),
            (r#"{"type":null,"value":1}"#, "line 3: expected a `type` that names the topic"),
            (r#"{"type":7}"#, "line 3: invalid type: integer `7`, expected a string at column 9"),
            (r#"{"type":"a..b"}"#, "line 3: invalid topic `a..b`"),
            (r#"["a"]"#, "line 3: expected a JSON object"),
            (r#"{"type":"a","value":}"#, "line 3: expected value at column 21"),
            (r#"{"type":"a""#, "line 3: EOF while parsing an object at column 11"),
            (r#"{"type":"a"} {}"#, "line 3: trailing characters at column 14"),
        ];
        for (line, expected) in cases {
            let input = format!("{{\"type\":\"a\"}}\n\n{line}\n{{\"type\":\"a\"}}\n");
            let mut all = Batches::new(input.as_bytes(), by_type(1));
            assert_eq!(all.next().unwrap().unwrap().lines, [1], "{line}");
            let error = all.next().unwrap().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
            assert!(all.next().is_none(), "{line}");
        }
    }

    #[test]
    fn bytes_that_are_not_text_are_named() {
        let error = batches(&b"{}\n{\"value\":\"\xff\"}\n"[..], to_topic(9)).unwrap_err();
        assert_eq!(error.to_string(), "line 2: expected UTF-8 at column 11");
    }

    #[test]
    fn to_one_topic_no_line_needs_a_type() {
        let t = |sequence, lines| ("t".to_owned(), sequence, lines);
        let input = "{\"type\":\"other\"}\n{\"type\":null}\n{\"value\":{\"type\":7}}\n";
        assert_eq!(outline(input, to_topic(9)), [t(0, vec![1, 2, 3])]);
    }

    #[test]
    fn each_way_to_cut_has_its_fingerprint() {
        let all = [by_type(1), by_type(2), to_topic(1), to_topic(2)].map(|cut| cut.fingerprint());
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len(), "{all:?}");
    }
}
