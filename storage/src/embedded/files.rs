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
//! (discard), in one piece, and the next syncs wait behind it, for as much as a quarter of a second.

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

/// A look is asked for after so many bytes of records: seldom enough to cost nothing, and often enough
/// that what is not given back is no burden.
pub(super) const LOOK_BYTES: u64 = 4 << 20;
/// The least between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// What is open is looked at in this interval though nobody asks: it may be deleted.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many looks pass by before blob files are listed again: there may be thousands.
const BLOB_LOOKS: u32 = 20;
/// Blob files of each keyspace that are kept open; the oldest are deleted first.
const BLOBS_MAX: usize = 8;
/// So much of a deleted file is given back at once, …
const CUT_BYTES: u64 = 4 << 20;
/// … and the disk is others' for so long before the next.
const CUT_PAUSE: Duration = Duration::from_millis(1);
/// A page that will be written on stays, and with it all that the system keeps in one piece with it:
/// else it had to be read back.
const TAIL_BYTES: u64 = 64 << 10;

/// Looks whenever it is asked for, until the store is closed. A failure costs memory, or time in which
/// writes wait.
pub(super) fn run(shared: &Shared) {
    let mut files = Files::new(open::database(&shared.config.path));
    let looks = &shared.looks;
    while looks.wait(files.is_holding().then_some(INTERVAL)) && looks.pause(PAUSE) {
        if let Err(error) = files.look(looks) {
            tracing::debug!(%error, "cannot look after the files");
        }
    }
}

/// Files that are kept open.
struct Files {
    folder: PathBuf,
    /// By inode.
    held: BTreeMap<u64, File>,
    /// Until blob files are listed again.
    blob_looks: u32,
}

impl Files {
    /// Those of the database in `folder`; none yet.
    fn new(folder: PathBuf) -> Self {
        Self { folder, held: BTreeMap::new(), blob_looks: 0 }
    }

    fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Gives back what journals hold of the memory, opens what will be deleted, and gives back what is.
    fn look(&mut self, looks: &Asks) -> io::Result<()> {
        // First: there may be no room on the disk until then.
        self.close_deleted(looks)?;
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

    fn close_deleted(&mut self, looks: &Asks) -> io::Result<()> {
        let mut deleted = Vec::new();
        for (&inode, file) in &self.held {
            if file.metadata()?.nlink() == 0 {
                deleted.push(inode);
            }
        }
        for file in deleted.iter().filter_map(|inode| self.held.remove(inode)) {
            cut(&file, looks)?;
        }
        Ok(())
    }
}

/// Gives back the space of a file that nobody finds any more, a piece at a time from its end; at the end
/// of the thread what is left goes when it is closed.
fn cut(file: &File, looks: &Asks) -> io::Result<()> {
    let mut left = file.metadata()?.len();
    while left > 0 && looks.pause(CUT_PAUSE) {
        left = (left - 1) / CUT_BYTES * CUT_BYTES;
        file.set_len(left)?;
    }
    Ok(())
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
        Files::new(folder.path().to_owned()).look(&Asks::default()).unwrap();
        assert!(!is_cached(&file, 0));
        assert!(
            is_cached(&file, (4 << 20) - 1),
            "it would have to be read before it is written on"
        );
    }

    /// How many files are held.
    fn held(files: &mut Files) -> usize {
        files.look(&Asks::default()).unwrap();
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
        (0..20).for_each(|number| write(&format!("keyspaces/3/blobs/{number}")));
        write("0.jnl");
        write("1.jnl");
        let journals = 2;
        for _ in 0..BLOB_LOOKS - 1 {
            assert_eq!(held(&mut files), journals, "blob files are not listed each time");
        }
        assert_eq!(held(&mut files), journals);
        assert_eq!(held(&mut files), journals + BLOBS_MAX);

        delete("0.jnl");
        delete("keyspaces/3/blobs/7");
        delete("keyspaces/3/blobs/9");
        assert_eq!(
            held(&mut files),
            journals + BLOBS_MAX - 2,
            "9 comes after 0 to 7: it was not held"
        );
        (0..7).for_each(|number| delete(&format!("keyspaces/3/blobs/{number}")));
        assert_eq!(held(&mut files), 1, "the other journal");
        delete("1.jnl");
        assert_eq!(held(&mut files), 0);
        assert!(!files.is_holding());
    }

    /// A deleted file of so many bytes, as it is held.
    fn deleted(bytes: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes).unwrap();
        file
    }

    #[test]
    fn a_deleted_file_is_cut_to_nothing() {
        for bytes in [0, 1, CUT_BYTES, 5 * CUT_BYTES / 2] {
            let file = deleted(bytes);
            cut(&file, &Asks::default()).unwrap();
            assert_eq!(file.metadata().unwrap().len(), 0, "of {bytes}");
        }
    }

    #[test]
    fn a_thread_that_is_to_end_cuts_no_more() {
        let looks = Asks::default();
        looks.close();
        let file = deleted(1 << 40);
        cut(&file, &looks).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 1 << 40);
    }
}
