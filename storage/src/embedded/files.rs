//! Gives back the memory that the file system keeps of the journals.
//!
//! A journal is written once and read by nobody before the next start, so its pages in the page cache
//! only push out others, and each new one has to be found, in a virtual machine often by asking the
//! host. Given back as soon as they are on the disk, few of them serve for the whole journal, and stay
//! in the processor's caches.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::path::PathBuf;

use rustix::fs::{Advice, SeekFrom, fadvise, seek};

use super::journal;

/// Seldom enough to cost nothing, and little enough to be no burden.
const STEP_BYTES: u64 = 4 << 20;
/// A page that will be written on stays, and with it all that the system keeps in one piece with it:
/// else it had to be read back.
const TAIL_BYTES: u64 = 64 << 10;

/// The journals' part of the page cache.
pub(super) struct JournalPages {
    folder: PathBuf,
    /// Bytes written to the journals since pages were given back.
    written: u64,
}

impl JournalPages {
    /// Those of the journals in `folder`.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, written: 0 }
    }

    /// Says that `bytes` more were written to a journal.
    pub(super) fn wrote(&mut self, bytes: u64) {
        self.written += bytes;
    }

    /// Says that all is synced, and gives pages back if it is time. A failure costs memory only.
    pub(super) fn synced(&mut self) {
        if self.written >= STEP_BYTES {
            self.written = 0;
            if let Err(error) = self.give_back() {
                tracing::debug!(%error, "the journals stay in the page cache");
            }
        }
    }

    fn give_back(&self) -> io::Result<()> {
        for journal in journal::list(&self.folder)? {
            let file = match File::open(journal.path) {
                // Deleted, as all of it is flushed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            // Journals are allocated ahead: what is written ends where the hole begins.
            let end = seek(&file, SeekFrom::Hole(0))?;
            if let Some(length) = end.checked_sub(TAIL_BYTES).and_then(NonZeroU64::new) {
                fadvise(&file, 0, Some(length), Advice::DontNeed)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{IoSliceMut, Write};

    use rustix::io::{Errno, ReadWriteFlags, preadv2};

    use super::*;

    /// Whether a byte of a file is in memory.
    fn is_cached(file: &File, offset: u64) -> bool {
        let mut byte = [0];
        let read = preadv2(file, &mut [IoSliceMut::new(&mut byte)], offset, ReadWriteFlags::NOWAIT);
        match read {
            Ok(read) => read == 1,
            Err(error) => {
                assert_eq!(error, Errno::AGAIN);
                false
            }
        }
    }

    #[test]
    fn what_is_synced_of_a_journal_leaves_the_memory_and_its_tail_stays() {
        // Beside the sources: the usual place may itself be in memory.
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = folder.path().join("0.jnl");
        let mut file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
        file.set_len(64 << 20).unwrap();
        let mut pages = JournalPages::new(folder.path().to_owned());
        let (half, last) = (STEP_BYTES / 2, STEP_BYTES - 1);
        for is_full in [false, true] {
            file.write_all(&vec![7; usize::try_from(half).unwrap()]).unwrap();
            file.sync_data().unwrap();
            pages.wrote(half);
            pages.synced();
            assert_eq!(is_cached(&file, 0), !is_full);
        }
        assert!(is_cached(&file, last), "it would have to be read before it is written on");
    }
}
