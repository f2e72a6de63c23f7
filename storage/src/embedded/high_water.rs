//! A commit number in a file of its own, beside the journals: `high-water`, up to which commits
//! were synced.
//!
//! The file may lag behind the store by up to 1 s and never leads it. Nobody waits for it: what is
//! lost within the lag looks like a torn tail of the journal. It must not know what the number is
//! compared with.
//!
//! | bytes | field |
//! | --- | --- |
//! | 4 | version, 1 |
//! | 8 | commit number |
//! | 8 | xxh3-64 of the bytes before |
//!
//! Integers are little-endian. A file is replaced whole: written beside, synced, renamed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Buf;
use xxhash_rust::xxh3::xxh3_64;

use crate::CommitNumber;

/// The file's name in the data folder.
pub(super) const FILE_NAME: &str = "high-water";

const VERSION: u32 = 1;
const RECORD: usize = 20;
/// The checksum's place in the record.
const CHECKSUM: usize = 12;

/// Between two writes: with a slow sync on top of it, the file still lags less than 1 s.
const INTERVAL: Duration = Duration::from_millis(500);

/// A file of this kind could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum HighWaterError {
    /// An I/O error.
    #[error("cannot read `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// It is not what was once written.
    #[error("`{}` is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// It was written by a later version.
    #[error("`{}` has version `{got}`, expected `{VERSION}`", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        got: u32,
    },
}

/// The commit number in the file at `path`; `None` if there is no such file, or it is empty.
///
/// # Errors
///
/// See [`HighWaterError`].
pub(super) fn read(path: &Path) -> Result<Option<CommitNumber>, HighWaterError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(HighWaterError::Io { path: path.to_owned(), source }),
    };
    if bytes.is_empty() {
        return Ok(None);
    }
    let damaged = || HighWaterError::Damaged { path: path.to_owned() };
    let record = <[u8; RECORD]>::try_from(bytes).map_err(|_| damaged())?;
    let (content, mut checksum) = record.split_at(CHECKSUM);
    if checksum.get_u64_le() != xxh3_64(content) {
        return Err(damaged());
    }
    let mut fields = content;
    match fields.get_u32_le() {
        VERSION => Ok(Some(CommitNumber(fields.get_u64_le()))),
        got => Err(HighWaterError::Version { path: path.to_owned(), got }),
    }
}

/// Replaces the file at `path`. When this returns, it is safe against power loss.
///
/// # Errors
///
/// The file cannot be written; it is as it was.
pub(super) fn write(path: &Path, commit: CommitNumber) -> io::Result<()> {
    let mut record = Vec::with_capacity(RECORD);
    record.extend_from_slice(&VERSION.to_le_bytes());
    record.extend_from_slice(&commit.0.to_le_bytes());
    record.extend_from_slice(&xxh3_64(&record).to_le_bytes());

    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(&record)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Makes what was created, renamed or removed in `folder` safe against power loss.
///
/// # Errors
///
/// The folder cannot be synced.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    let here = Path::new(".");
    File::open(if folder.as_os_str().is_empty() { here } else { folder })?.sync_all()
}

/// Keeps the file at the last commit that was synced, from a thread of its own.
#[derive(Debug)]
pub(super) struct HighWater {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl HighWater {
    /// Starts the thread. It writes nothing before the first [`advance`](Self::advance).
    ///
    /// # Errors
    ///
    /// There is no room for a thread.
    pub(super) fn spawn(path: PathBuf) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writer = Writer { shared: Arc::clone(&shared), path, failing: false };
        let thread = thread::Builder::new()
            .name("stream-high-water".to_owned())
            .spawn(move || writer.run())?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Says that all commits up to `commit` are synced. Waits for no I/O; the file follows within
    /// 1 s.
    pub(super) fn advance(&self, commit: CommitNumber) {
        let mut state = self.shared.lock();
        state.commit = state.commit.max(commit);
        if state.idle {
            self.shared.changed.notify_one();
        }
    }

    /// Writes what the file lacks, and ends the thread. Closing again does nothing.
    pub(super) fn close(&self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that writes the high-water file panicked");
        }
    }
}

impl Drop for HighWater {
    fn drop(&mut self) {
        self.close();
    }
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// All commits up to here are synced.
    commit: CommitNumber,
    /// The thread waits for a commit; while it pauses between writes, none wakes it.
    idle: bool,
    closing: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a commit after `written`; `None` when closing without one.
    fn next(&self, written: CommitNumber) -> Option<CommitNumber> {
        let mut state = self.lock();
        while state.commit <= written {
            if state.closing {
                return None;
            }
            state.idle = true;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle = false;
        }
        Some(state.commit)
    }

    /// Waits for `time`, or until closing.
    fn pause(&self, time: Duration) {
        let wait = self.changed.wait_timeout_while(self.lock(), time, |state| !state.closing);
        drop(wait);
    }

    fn is_closing(&self) -> bool {
        self.lock().closing
    }
}

struct Writer {
    shared: Arc<Shared>,
    path: PathBuf,
    failing: bool,
}

impl Writer {
    fn run(mut self) {
        let mut written = CommitNumber::default();
        while let Some(commit) = self.shared.next(written) {
            // Told before the write: the last try comes after closing was asked for.
            let last_try = self.shared.is_closing();
            if self.write(commit) {
                written = commit;
            } else if last_try {
                return;
            }
            self.shared.pause(INTERVAL);
        }
    }

    /// Whether the file now has `commit`. A failure is logged when it is the first in a row.
    fn write(&mut self, commit: CommitNumber) -> bool {
        let result = write(&self.path, commit);
        if let Err(error) = &result
            && !self.failing
        {
            let path = self.path.display();
            tracing::error!(%path, %error, "cannot write the high-water file, trying again");
        }
        self.failing = result.is_err();
        result.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn file() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        (folder, path)
    }

    /// Waits for the writing thread, without a sleep; false after 10 s.
    fn eventually(mut condition: impl FnMut() -> bool) -> bool {
        let (_sender, never) = mpsc::channel::<()>();
        (0..10_000).any(|_| {
            let _ = never.recv_timeout(Duration::from_millis(1));
            condition()
        })
    }

    #[test]
    fn a_commit_number_reads_back() {
        let (_folder, path) = file();
        for commit in [0, 1, 255, 256, u64::MAX] {
            write(&path, CommitNumber(commit)).unwrap();
            assert_eq!(read(&path).unwrap(), Some(CommitNumber(commit)));
        }
    }

    #[test]
    fn a_missing_or_empty_file_says_nothing() {
        let (_folder, path) = file();
        assert_eq!(read(&path).unwrap(), None);
        fs::write(&path, b"").unwrap();
        assert_eq!(read(&path).unwrap(), None);
    }

    #[test]
    fn any_flipped_bit_is_damage() {
        let (_folder, path) = file();
        write(&path, CommitNumber(77)).unwrap();
        let whole = fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bytes).unwrap();
            assert!(matches!(read(&path), Err(HighWaterError::Damaged { .. })), "bit {bit}");
        }
    }

    #[test]
    fn any_other_length_is_damage() {
        let (_folder, path) = file();
        write(&path, CommitNumber(77)).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes.push(0);
        for len in (1..=bytes.len()).filter(|len| *len != RECORD) {
            fs::write(&path, &bytes[..len]).unwrap();
            assert!(matches!(read(&path), Err(HighWaterError::Damaged { .. })), "length {len}");
        }
    }

    #[test]
    fn a_later_version_is_told_from_damage() {
        let (_folder, path) = file();
        let mut record = 2_u32.to_le_bytes().to_vec();
        record.extend_from_slice(&7_u64.to_le_bytes());
        record.extend_from_slice(&xxh3_64(&record).to_le_bytes());
        fs::write(&path, record).unwrap();
        assert!(matches!(read(&path), Err(HighWaterError::Version { got: 2, .. })));
    }

    #[test]
    fn closing_writes_the_last_commit() {
        let (_folder, path) = file();
        let high_water = HighWater::spawn(path.clone()).unwrap();
        for commit in 1..=1000 {
            high_water.advance(CommitNumber(commit));
        }
        high_water.close();
        assert_eq!(read(&path).unwrap(), Some(CommitNumber(1000)));
        high_water.close();
    }

    #[test]
    fn without_a_commit_nothing_is_written() {
        let (_folder, path) = file();
        HighWater::spawn(path.clone()).unwrap().close();
        assert!(!path.exists());
    }

    #[test]
    fn the_file_follows_and_never_leads() {
        let (_folder, path) = file();
        let high_water = HighWater::spawn(path.clone()).unwrap();
        for commit in 1..=3 {
            for step in 0..100 {
                high_water.advance(CommitNumber(commit * 100 + step));
                assert!(read(&path).unwrap().unwrap_or_default().0 <= commit * 100 + step);
            }
            let last = CommitNumber(commit * 100 + 99);
            assert!(eventually(|| {
                let written = read(&path).unwrap();
                assert!(written <= Some(last));
                written == Some(last)
            }));
        }
    }

    #[test]
    fn a_file_that_could_not_be_written_is_written_later() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("absent");
        let path = absent.join(FILE_NAME);
        let high_water = HighWater::spawn(path.clone()).unwrap();
        high_water.advance(CommitNumber(5));
        let (_sender, never) = mpsc::channel::<()>();
        // Long enough for the first try to fail; were it not, the test would still hold.
        let _ = never.recv_timeout(Duration::from_millis(50));
        fs::create_dir(absent).unwrap();
        assert!(eventually(|| read(&path).unwrap() == Some(CommitNumber(5))));
    }

    #[test]
    fn closing_ends_although_the_file_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let high_water = HighWater::spawn(folder.path().join("absent").join(FILE_NAME)).unwrap();
        high_water.advance(CommitNumber(5));
        high_water.close();
    }
}
