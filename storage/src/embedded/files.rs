//! fjall's files as the system has them: the memory that it keeps of journals, and the space of what is
//! deleted.
//!
//! A journal is written once and read by nobody before the next start, so its pages in the page cache
//! only push out others, and each new one has to be found, in a virtual machine often by asking the
//! host. Given back as soon as they are on the disk, few of them serve for the whole journal, and stay
//! in the processor's caches.
//!
//! To delete a large file takes the system tens of milliseconds, and fjall does it under locks that
//! writes wait for. But the space of a file comes back when nobody has it open any more: so those that
//! are deleted next, the journals and the oldest blob files, are kept open, and given back here, where
//! nobody waits. Not all at once: what is freed together the file system notes, and tells the disk
//! (discard), in one piece, and the next syncs wait behind it, for as much as a quarter of a second. And
//! not one piece after the other: most of the time the disk is there for syncs alone, or each of the
//! several that a flush makes in a row waits for a piece.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Advice, SeekFrom, fadvise, seek};

use super::asks::Asks;
use super::shared::Shared;
use super::{journal, open};
use crate::Clock;

/// A look is asked for after so many bytes of records: seldom enough to cost nothing, and often enough
/// that what is not given back is no burden.
pub(super) const LOOK_BYTES: u64 = 4 << 20;
/// The least between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// What is open is looked at in this interval though nobody asks: it may be deleted.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many looks pass by before blob files are listed again: there may be thousands.
const BLOB_LOOKS: u32 = 20;
/// Blob files of each keyspace that are kept open; the oldest are deleted first. A turn of housekeeping
/// deletes about twenty at 300 MB/s.
const BLOBS_MAX: usize = 32;
/// So much of a deleted file is given back at once, …
const CUT_BYTES: u64 = 1 << 20;
/// … and then the disk is others' for so many times as long, …
const REST_TIMES: f64 = 3.0;
/// … or for less if more than this is left to be given back.
const RESTED_BYTES: u64 = 128 << 20;
/// A page that will be written on stays, and with it all that the system keeps in one piece with it:
/// else it had to be read back.
const TAIL_BYTES: u64 = 64 << 10;

/// Looks whenever it is asked for, until the store is closed. A failure costs memory, or time in which
/// writes wait.
pub(super) fn run(shared: &Shared) {
    let mut files = Files::new(open::database(&shared.config.path));
    let (looks, clock) = (&shared.looks, shared.clock.as_ref());
    while files.wait(looks) {
        for done in [files.look(), files.cut(looks, clock, PAUSE)] {
            if let Err(error) = done {
                tracing::debug!(%error, "cannot look after the files");
            }
        }
    }
}

/// Files that are kept open.
struct Files {
    folder: PathBuf,
    /// By inode.
    held: BTreeMap<u64, File>,
    /// What is given back, and how long it is yet; the last comes first.
    deleted: Vec<(File, u64)>,
    /// Until blob files are listed again.
    blob_looks: u32,
}

impl Files {
    /// Those of the database in `folder`; none yet.
    fn new(folder: PathBuf) -> Self {
        Self { folder, held: BTreeMap::new(), deleted: Vec::new(), blob_looks: 0 }
    }

    fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Waits for the next look; `false` if there is none.
    fn wait(&self, looks: &Asks) -> bool {
        if self.deleted.is_empty() {
            looks.wait(self.is_holding().then_some(INTERVAL)) && looks.pause(PAUSE)
        } else {
            looks.pause(Duration::ZERO)
        }
    }

    /// Gives back what journals hold of the memory, opens what will be deleted, and finds what is.
    fn look(&mut self) -> io::Result<()> {
        self.find_deleted()?;
        for journal in journal::list(&self.folder)? {
            if let Some(file) = self.hold(&journal.path)? {
                give_back(file)?;
            }
        }
        match self.blob_looks.checked_sub(1) {
            Some(left) => self.blob_looks = left,
            None => {
                self.blob_looks = BLOB_LOOKS;
                for keyspace in list(&self.folder.join("keyspaces"))? {
                    let mut blobs = list(&keyspace.join("blobs"))?;
                    blobs.sort_by_key(|path| number(path));
                    for path in blobs.iter().take(BLOBS_MAX) {
                        self.hold(path)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Keeps a file open; `None` if it is deleted already.
    fn hold(&mut self, path: &Path) -> io::Result<Option<&File>> {
        let Some(metadata) = found(fs::metadata(path))? else { return Ok(None) };
        let inode = metadata.ino();
        if !self.held.contains_key(&inode)
            && let Some(file) = found(File::options().write(true).open(path))?
        {
            // By then the path may be another file's.
            self.held.insert(file.metadata()?.ino(), file);
        }
        Ok(self.held.get(&inode))
    }

    fn find_deleted(&mut self) -> io::Result<()> {
        let mut deleted = Vec::new();
        for (&inode, file) in &self.held {
            let metadata = file.metadata()?;
            if metadata.nlink() == 0 {
                deleted.push((inode, metadata.len()));
            }
        }
        for (inode, length) in deleted {
            self.deleted.extend(self.held.remove(&inode).map(|file| (file, length)));
        }
        Ok(())
    }

    /// Gives back the space of files that nobody finds any more, a piece at a time from their ends, for
    /// about so long. What is left at the end of the thread goes when they are closed.
    fn cut(&mut self, looks: &Asks, clock: &dyn Clock, time: Duration) -> io::Result<()> {
        let started = clock.monotonic();
        while let Some((file, length)) = self.deleted.last_mut() {
            let cutting = clock.monotonic();
            *length = length.saturating_sub(1) / CUT_BYTES * CUT_BYTES;
            file.set_len(*length)?;
            let now = clock.monotonic();
            if *length == 0 {
                self.deleted.pop();
            }
            let left = self.deleted.iter().map(|(_, length)| length).sum();
            let rest = rest(now.saturating_sub(cutting), left);
            if !looks.pause(rest) || now.saturating_sub(started) >= time {
                break;
            }
        }
        Ok(())
    }
}

/// How long the disk is others' after something was given back, with so many bytes left.
fn rest(took: Duration, left: u64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "a quotient, and bytes are far below 2^53")]
    let part = (RESTED_BYTES as f64 / left.max(1) as f64).min(1.0);
    took.mul_f64(REST_TIMES * part)
}

/// Gives back the memory that the system keeps of a journal, as far as it is on the disk.
fn give_back(journal: &File) -> io::Result<()> {
    // Journals are allocated ahead: what is written ends where the hole begins.
    let end = seek(journal, SeekFrom::Hole(0))?;
    if let Some(length) = end.checked_sub(TAIL_BYTES).and_then(NonZeroU64::new) {
        fadvise(journal, 0, Some(length), Advice::DontNeed)?;
    }
    Ok(())
}

/// What is in a folder; nothing if there is none.
fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let Some(entries) = found(fs::read_dir(folder))? else { return Ok(Vec::new()) };
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// A blob file's name is its number.
fn number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.parse().ok()
}

/// fjall deletes files at any time.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{IoSliceMut, Write};

    use rustix::io::{Errno, ReadWriteFlags, preadv2};

    use super::*;
    use crate::{ManualClock, Timestamp};

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
        file.write_all(&vec![7; 4 << 20]).unwrap();
        file.sync_data().unwrap();
        assert!(is_cached(&file, 0));
        Files::new(folder.path().to_owned()).look().unwrap();
        assert!(!is_cached(&file, 0));
        assert!(
            is_cached(&file, (4 << 20) - 1),
            "it would have to be read before it is written on"
        );
    }

    /// How many files are held.
    fn held(files: &mut Files) -> usize {
        files.look().unwrap();
        files.held.len()
    }

    #[test]
    fn journals_and_the_oldest_blob_files_are_held_until_they_are_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Files::new(folder.path().to_owned());
        assert_eq!(held(&mut files), 0);
        let write = |name: &str| fs::write(folder.path().join(name), "x").unwrap();
        let delete = |name: &str| fs::remove_file(folder.path().join(name)).unwrap();
        fs::create_dir_all(folder.path().join("keyspaces/3/blobs")).unwrap();
        let newest = BLOBS_MAX + 5;
        (0..=newest).for_each(|number| write(&format!("keyspaces/3/blobs/{number}")));
        write("0.jnl");
        write("1.jnl");
        let journals = 2;
        for _ in 0..BLOB_LOOKS - 1 {
            assert_eq!(held(&mut files), journals, "blob files are not listed each time");
        }
        assert_eq!(held(&mut files), journals);
        assert_eq!(held(&mut files), journals + BLOBS_MAX);

        delete("0.jnl");
        delete("keyspaces/3/blobs/9");
        delete(&format!("keyspaces/3/blobs/{newest}"));
        assert_eq!(held(&mut files), journals + BLOBS_MAX - 2, "the newest was not held");
        assert_eq!(files.deleted.len(), 2);
        (0..9).for_each(|number| delete(&format!("keyspaces/3/blobs/{number}")));
        (10..newest).for_each(|number| delete(&format!("keyspaces/3/blobs/{number}")));
        assert_eq!(held(&mut files), 1, "the other journal");
        delete("1.jnl");
        assert_eq!(held(&mut files), 0);
        assert!(!files.is_holding());
        assert_eq!(files.deleted.len(), journals + BLOBS_MAX);
    }

    /// A clock that stands still.
    fn clock() -> ManualClock {
        ManualClock::new(Timestamp(1))
    }

    /// Deleted files of so many bytes, as they are held.
    fn deleted(lengths: &[u64]) -> Files {
        let mut files = Files::new(PathBuf::new());
        for &length in lengths {
            let file = tempfile::tempfile().unwrap();
            file.set_len(length).unwrap();
            files.held.insert(file.metadata().unwrap().ino(), file);
        }
        files.find_deleted().unwrap();
        assert!(!files.is_holding());
        files
    }

    #[test]
    fn deleted_files_are_cut_to_nothing() {
        let mut files = deleted(&[0, 1, CUT_BYTES, 5 * CUT_BYTES / 2]);
        assert_eq!(files.deleted.len(), 4);
        let again: Vec<File> =
            files.deleted.iter().map(|(file, _)| file.try_clone().unwrap()).collect();
        files.cut(&Asks::default(), &clock(), Duration::MAX).unwrap();
        assert!(files.deleted.is_empty());
        assert!(again.iter().all(|file| file.metadata().unwrap().len() == 0));
    }

    #[test]
    fn files_are_cut_a_piece_at_a_time() {
        let mut files = deleted(&[5 * CUT_BYTES / 2]);
        for left in [2 * CUT_BYTES, CUT_BYTES] {
            files.cut(&Asks::default(), &clock(), Duration::ZERO).unwrap();
            let (file, length) = &files.deleted[0];
            assert_eq!((*length, file.metadata().unwrap().len()), (left, left));
        }
        assert!(files.wait(&Asks::default()), "the next is not waited for");
        let looks = Asks::default();
        looks.close();
        files.cut(&looks, &clock(), Duration::MAX).unwrap();
        assert!(files.deleted.is_empty(), "that was the last piece");
        assert!(!files.wait(&looks));
    }

    #[test]
    fn a_thread_that_is_to_end_cuts_no_more() {
        let looks = Asks::default();
        looks.close();
        let mut files = deleted(&[1 << 40]);
        files.cut(&looks, &clock(), Duration::MAX).unwrap();
        assert_eq!(files.deleted[0].1, (1 << 40) - CUT_BYTES);
    }

    #[test]
    fn the_disk_rests_less_the_more_is_left() {
        let took = Duration::from_millis(2);
        let mut lefts = [0, RESTED_BYTES, 2 * RESTED_BYTES, 12 * RESTED_BYTES].into_iter();
        assert!(lefts.by_ref().take(2).all(|left| rest(took, left) == took * 3));
        assert_eq!(
            lefts.map(|left| rest(took, left)).collect::<Vec<_>>(),
            [took * 3 / 2, took / 4]
        );
    }
}
