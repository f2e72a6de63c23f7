//! Where the events come from, and by which name the server knows them again.

use std::fmt::Write;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::batch::{Batch, Batches, Cut, InputError};
use crate::cli::output::CliError;

/// Batches that are ready while others are on their way: they hold at most 4 MiB each.
const READY_MAX: usize = 2;

/// Who publishes, as far as the input tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Producer {
    pub(super) name: String,
    /// Whether the same input has the same name in the next run, which then goes on where this one
    /// ended.
    pub(super) resumes: bool,
}

impl Producer {
    /// One that no other run has.
    fn fresh() -> Self {
        Self { name: hex(&rand::random::<[u8; 16]>()), resumes: false }
    }
}

/// Which name to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Naming {
    /// A file's content, else a fresh one.
    ByContent,
    /// The one given.
    Given(String),
    /// A fresh one.
    Fresh,
}

/// An input that is ready to be read.
pub(super) struct Source {
    reader: Box<dyn Read + Send>,
    /// How much there is to read, if that is known.
    pub(super) byte_len: Option<u64>,
    pub(super) producer: Producer,
}

impl Source {
    /// Opens a file, or standard input if there is none.
    ///
    /// A regular file is read to its end first: so that no event is sent of a file with a malformed
    /// line, and to name it by its content. Blocks for as long as that takes.
    pub(super) fn open(path: Option<&Path>, naming: Naming, cut: &Cut) -> Result<Self, CliError> {
        let Some(path) = path else {
            return Ok(Self::stream(io::stdin(), naming));
        };
        let failed =
            |error: io::Error| CliError::File { path: path.into(), reason: error.to_string() };
        let file = File::open(path).map_err(failed)?;
        // A pipe can be read only once.
        if !file.metadata().map_err(failed)?.is_file() {
            return Ok(Self::stream(file, naming));
        }
        let (digest, byte_len) = check(file, cut.clone())?;
        let producer = match naming {
            Naming::ByContent => Producer { name: hex(&digest), resumes: true },
            Naming::Given(name) => Producer { name, resumes: true },
            Naming::Fresh => Producer::fresh(),
        };
        // What is appended meanwhile is not part of what was checked.
        let file = File::open(path).map_err(failed)?.take(byte_len);
        Ok(Self { reader: Box::new(file), byte_len: Some(byte_len), producer })
    }

    fn stream(reader: impl Read + Send + 'static, naming: Naming) -> Self {
        let producer = match naming {
            Naming::Given(name) => Producer { name, resumes: true },
            Naming::ByContent | Naming::Fresh => Producer::fresh(),
        };
        Self { reader: Box::new(reader), byte_len: None, producer }
    }

    /// Reads on a thread of its own, for as long as the batches are received. The thread is left
    /// behind if it then still waits for input: it holds nothing that has to be closed.
    pub(super) fn read(self, cut: Cut) -> mpsc::Receiver<Result<Batch, InputError>> {
        let (sender, receiver) = mpsc::channel(READY_MAX);
        std::thread::spawn(move || {
            for batch in Batches::new(BufReader::new(self.reader), cut) {
                if sender.blocking_send(batch).is_err() {
                    return;
                }
            }
        });
        receiver
    }
}

/// Reads all lines of a file: the digest of its bytes, and how many there are.
fn check(input: impl Read, cut: Cut) -> Result<([u8; 32], u64), InputError> {
    let mut input = Digesting { input, digest: Sha256::new(), byte_len: 0 };
    Batches::new(BufReader::new(&mut input), cut).try_for_each(|batch| batch.map(drop))?;
    Ok((input.digest.finalize().into(), input.byte_len))
}

/// Digests what is read through it.
struct Digesting<R> {
    input: R,
    digest: Sha256,
    byte_len: u64,
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.digest.update(buffer.get(..count).unwrap_or_default());
        self.byte_len += count as u64;
        Ok(count)
    }
}

pub(in crate::cli) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    use crate::cli::publish::batch::Destination;
    use crate::name::TopicName;

    fn cut() -> Cut {
        let destination = Destination::Topic(TopicName::parse("t").unwrap());
        Cut { destination, events_max: 1 }
    }

    fn file(content: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.ndjson");
        std::fs::write(&path, content).unwrap();
        (folder, path)
    }

    fn producer(content: &str, naming: Naming) -> Producer {
        let (_folder, path) = file(content);
        Source::open(Some(&path), naming, &cut()).unwrap().producer
    }

    #[test]
    fn a_file_is_named_by_its_content() {
        let name = |content| producer(content, Naming::ByContent);
        assert_eq!(name("{}\n"), name("{}\n"));
        assert_ne!(name("{}\n"), name("{}\n\n"));
        assert!(name("{}\n").resumes);
        let expected = "ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356";
        assert_eq!(name("{}\n").name, expected);
    }

    #[test]
    fn a_fresh_name_is_new_each_time_and_a_given_one_is_kept() {
        assert_ne!(producer("{}", Naming::Fresh), producer("{}", Naming::Fresh));
        assert!(!producer("{}", Naming::Fresh).resumes);
        let given = Producer { name: "p".to_owned(), resumes: true };
        assert_eq!(producer("{}", Naming::Given("p".to_owned())), given);
    }

    #[test]
    fn what_can_be_read_only_once_resumes_only_under_a_given_name() {
        let stream = |naming| Source::stream(io::empty(), naming).producer;
        assert!(!stream(Naming::ByContent).resumes);
        assert_ne!(stream(Naming::ByContent), stream(Naming::ByContent));
        assert!(stream(Naming::Given("p".to_owned())).resumes);
    }

    #[test]
    fn a_file_with_a_bad_line_is_refused_before_anything_is_read_from_it() {
        let (_folder, path) = file("{}\n{}\n{\n");
        let error = Source::open(Some(&path), Naming::ByContent, &cut()).err().unwrap();
        assert!(error.to_string().starts_with("line 3: "), "{error}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let path = Path::new("/nowhere/events.ndjson");
        let error = Source::open(Some(path), Naming::ByContent, &cut()).err().unwrap();
        assert!(error.to_string().contains("`/nowhere/events.ndjson`"), "{error}");
        assert_eq!(error.exit_code(), 4);
    }

    #[tokio::test]
    async fn what_is_appended_after_the_check_is_not_read() {
        let (_folder, path) = file("{}\n{}\n");
        let source = Source::open(Some(&path), Naming::ByContent, &cut()).unwrap();
        std::fs::write(&path, "{}\n{}\n{}\n").unwrap();
        let mut batches = source.read(cut());
        let mut count = 0;
        while let Some(batch) = batches.recv().await {
            batch.unwrap();
            count += 1;
        }
        assert_eq!(count, 2);
    }
}
