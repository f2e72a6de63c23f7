//! What is checked and mended before fjall opens a folder that a crash may have left, and once it
//! is open.
//!
//! Left to itself, fjall refuses to open with a hole in the last batch, and with a hole among
//! synced batches it opens and drops all that follow. Here a tail that may be torn is told from
//! synced data that is missing:
//!
//! | found | means | then |
//! | --- | --- | --- |
//! | the last journal ends in something else than zeros | a torn tail, never acknowledged, unless the high water says more | it is set aside and cut off |
//! | a sealed journal does | synced data is missing | refused |
//! | a lot does not follow the lot before it | synced data is missing | refused |
//! | the store ends below the high water | synced data is missing | refused |
//! | the store ends above the journals | synced data is missing | refused |
//! | a partition holds something beyond its end | synced data is missing | refused |
//!
//! What is refused starts when its loss is accepted. Up to which commit losses were accepted is
//! kept in the file `accepted-loss`, so that the next start needs no leave. Nothing is changed on
//! disk before all journals are read and found good or their loss accepted. After an accepted loss
//! commit numbers go on behind the highest that is known, also of a commit that is lost: a cursor
//! that was taken before stays good.
//!
//! It must not know what a lot holds beyond its last commit number.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::high_water::{self, HighWaterError};
use super::journal::{self, Journal};
use super::keys::commit::{self, LastCommit};
use crate::CommitNumber;

/// Up to which commit losses were accepted; a file like the high water.
const ACCEPTED_LOSS: &str = "accepted-loss";
/// The folder for what is cut off.
const SET_ASIDE: &str = "set-aside";

/// fjall's own lock.
const LOCK: &str = "lock";
/// What fjall writes last when it makes a database, and its length.
const MARKER: (&str, u64) = ("version", 4);
/// Where fjall's tables lie.
const TABLES: &str = "keyspaces";

/// What was found and done before fjall opens.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// The last commit among the journals; `None` if no lot is left in them.
    pub(super) last_commit: Option<CommitNumber>,
    /// Up to which commit losses were accepted.
    pub(super) accepted: CommitNumber,
    /// What was cut off the journals.
    pub(super) set_aside: Vec<SetAside>,
}

impl Prepared {
    fn warn(&self) {
        for tail in &self.set_aside {
            let (journal, offset, file) = (tail.journal, tail.range.start, tail.file.display());
            let (bytes, whole_batch) = (tail.range.end - offset, tail.whole_batch);
            tracing::warn!(journal, offset, bytes, whole_batch, %file, "set a torn tail aside");
        }
    }
}

/// A tail that was cut off a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SetAside {
    /// The journal's number.
    pub(super) journal: u64,
    /// Where the tail lay in it. What follows in the journal is zeros.
    pub(super) range: Range<u64>,
    /// Where a whole batch begins within the tail, if one does: then it is not just torn.
    pub(super) whole_batch: Option<u64>,
    /// The file that has the tail now.
    pub(super) file: PathBuf,
}

/// Synced data that is missing among the journals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loss {
    /// The journal.
    pub(super) journal: PathBuf,
    /// Where it was noticed.
    pub(super) offset: u64,
    /// The last commit before it; `None` if the journals begin with it.
    pub(super) after: Option<CommitNumber>,
    /// The last commit that is missing; `None` if no later lot tells.
    pub(super) up_to: Option<CommitNumber>,
}

impl Loss {
    fn missing(&self) -> String {
        match (self.after, self.up_to) {
            (Some(after), Some(up_to)) if after == up_to => "writes between commits".to_owned(),
            (Some(after), Some(up_to)) => format!("commits after `{after}` up to `{up_to}`"),
            (Some(after), None) => format!("commits after `{after}`"),
            (None, Some(up_to)) => format!("commits up to `{up_to}`"),
            (None, None) => "commits".to_owned(),
        }
    }
}

/// Why the store does not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecoveryError {
    /// An I/O error.
    #[error("cannot recover `{}`: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The folder is in use.
    #[error("`{}` is locked: another server uses this data folder", path.display())]
    Locked {
        /// The lock.
        path: PathBuf,
    },
    /// The journals have a hole.
    #[error(
        "synced data is missing: {} are not in the journals, seen at byte `{}` of `{}`; restore a \
         backup, or start without them with `--accept-loss`",
        loss.missing(), loss.offset, loss.journal.display()
    )]
    Hole {
        /// What is missing; the first if there is more.
        loss: Loss,
    },
    /// The tables of fjall hold more than its journals.
    #[error(
        "synced data is missing: the store ends at commit `{store}`, its journals at `{journals}`; \
         restore a backup, or start without what is missing with `--accept-loss`"
    )]
    JournalsEndEarly {
        /// The store's last commit.
        store: CommitNumber,
        /// The journals' last commit.
        journals: CommitNumber,
    },
    /// More was synced than the store holds.
    #[error(
        "synced data is missing: commits up to `{synced}` were synced, the store ends at \
         `{store}`; restore a backup, or start with `--accept-loss`"
    )]
    BelowHighWater {
        /// The high water.
        synced: CommitNumber,
        /// The store's last commit.
        store: CommitNumber,
    },
    /// Partitions hold more than their ends say.
    #[error(
        "synced data is missing: the store holds records up to commit `{commit}` beyond the ends of \
         their partitions; restore a backup, or start without what is missing with `--accept-loss`"
    )]
    BeyondEnds {
        /// The last commit among these records.
        commit: CommitNumber,
    },
    /// A file that says what was synced cannot be understood.
    #[error("{0}; restore a backup, or start without its word with `--accept-loss`")]
    HighWater(#[from] HighWaterError),
}

impl RecoveryError {
    /// The last commit that it tells of and that the store itself may not know.
    fn last_commit(&self) -> Option<CommitNumber> {
        match self {
            Self::BelowHighWater { synced: commit, .. } | Self::BeyondEnds { commit } => {
                Some(*commit)
            }
            Self::Io { .. }
            | Self::Locked { .. }
            | Self::Hole { .. }
            | Self::JournalsEndEarly { .. }
            | Self::HighWater(_) => None,
        }
    }
}

/// Makes the fjall folder `path` fit to be opened, or says why it must not be. A folder that does
/// not exist is fit. Beside `path` lie the files and folders named on this page.
///
/// # Errors
///
/// See [`RecoveryError`]. With `accept_loss` only I/O errors and a foreign lock are left.
pub(super) fn prepare(path: &Path, accept_loss: bool) -> Result<Prepared, RecoveryError> {
    let lock_path = path.join(LOCK);
    if !lock_path.try_exists().map_err(at(&lock_path))? {
        return Ok(Prepared::default());
    }
    // Held until this returns: the journals of a running server must not be cut. Then fjall takes it.
    let _lock = lock(&lock_path)?;
    discard_half_made(path).map_err(at(path))?;

    let data = parent(path);
    let history = History::read(path, read_accepted(data, accept_loss)?)?;
    if let Some(loss) = history.losses.first()
        && !accept_loss
    {
        return Err(RecoveryError::Hole { loss: loss.clone() });
    }
    for loss in &history.losses {
        let (journal, offset) = (loss.journal.display(), loss.offset);
        tracing::warn!(%journal, offset, "starting without {}", loss.missing());
    }
    let set_aside =
        history.torn.iter().map(|torn| torn.set_aside(data)).collect::<Result<Vec<_>, _>>()?;
    let mut prepared =
        Prepared { last_commit: history.last, accepted: history.accepted, set_aside };
    prepared.warn();
    if let Some(last) = history.last
        && !history.losses.is_empty()
    {
        write_accepted(data, last)?;
        prepared.accepted = last;
    }
    Ok(prepared)
}

/// The loss if the journals ended before the opened store: fjall syncs a journal before it writes
/// tables from it, so that tables which know more mean a journal that lost something.
pub(super) fn find_early_end(prepared: &Prepared, store: CommitNumber) -> Option<RecoveryError> {
    let journals = prepared.last_commit.filter(|last| *last < store)?;
    (prepared.accepted < store).then_some(RecoveryError::JournalsEndEarly { store, journals })
}

/// The loss if the opened store ends below the high water, or if that is damaged. Without a
/// high-water file there is nothing to say. `data` is the data folder.
///
/// # Errors
///
/// An I/O error.
pub(super) fn find_below_high_water(
    data: &Path,
    store: CommitNumber,
) -> Result<Option<RecoveryError>, RecoveryError> {
    match high_water::read(&data.join(high_water::FILE_NAME)) {
        Ok(Some(synced)) if synced > store => {
            Ok(Some(RecoveryError::BelowHighWater { synced, store }))
        }
        Ok(_) => Ok(None),
        Err(error @ HighWaterError::Io { .. }) => Err(error.into()),
        Err(error) => Ok(Some(error.into())),
    }
}

/// Goes on after losses of an opened store, if that is accepted. Returns the last commit that they
/// tell of.
///
/// # Errors
///
/// The first loss, unless `accept_loss` is given.
pub(super) fn accept(
    losses: Vec<RecoveryError>,
    accept_loss: bool,
) -> Result<CommitNumber, RecoveryError> {
    let mut last = CommitNumber::default();
    for loss in losses {
        if !accept_loss {
            return Err(loss);
        }
        tracing::warn!("starting although {loss}");
        last = last.max(loss.last_commit().unwrap_or_default());
    }
    Ok(last)
}

/// Keeps that losses up to `last` were accepted, and sets the high water to it: the store must know
/// it as its last commit before. `data` is the data folder.
///
/// # Errors
///
/// An I/O error; then the next start may need leave again.
pub(super) fn keep_accepted(data: &Path, last: CommitNumber) -> Result<(), RecoveryError> {
    write_accepted(data, last)?;
    let path = data.join(high_water::FILE_NAME);
    high_water::write(&path, last).map_err(at(&path))
}

/// Up to which commit losses were accepted before.
fn read_accepted(data: &Path, accept_loss: bool) -> Result<CommitNumber, RecoveryError> {
    match high_water::read(&data.join(ACCEPTED_LOSS)) {
        Ok(accepted) => Ok(accepted.unwrap_or_default()),
        Err(HighWaterError::Damaged { .. } | HighWaterError::Version { .. }) if accept_loss => {
            Ok(CommitNumber::default())
        }
        Err(error) => Err(error.into()),
    }
}

fn write_accepted(data: &Path, commit: CommitNumber) -> Result<(), RecoveryError> {
    let path = data.join(ACCEPTED_LOSS);
    high_water::write(&path, commit).map_err(at(&path))
}

fn lock(path: &Path) -> Result<File, RecoveryError> {
    let file = File::open(path).map_err(at(path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(RecoveryError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(at(path)(error)),
    }
}

/// Removes what a crash left of a database that was never made whole: fjall neither opens it nor
/// makes it anew.
fn discard_half_made(path: &Path) -> io::Result<()> {
    let (marker, marker_bytes) = MARKER;
    let marker = path.join(marker);
    let is_made = fs::metadata(&marker).is_ok_and(|marker| marker.len() >= marker_bytes);
    let has_tables =
        fs::read_dir(path.join(TABLES)).is_ok_and(|mut tables| tables.next().is_some());
    if is_made || has_tables {
        return Ok(());
    }
    let journals = journal::list(path)?;
    for journal in &journals {
        if journal::scan(&journal.path, &[], |_, _| {})?.content > 0 {
            return Ok(());
        }
    }
    for journal in journals {
        fs::remove_file(journal.path)?;
    }
    if marker.try_exists()? {
        fs::remove_file(marker)?;
    }
    Ok(())
}

/// What the journals say, read in their order.
struct History {
    accepted: CommitNumber,
    last: Option<CommitNumber>,
    losses: Vec<Loss>,
    torn: Vec<Torn>,
}

impl History {
    fn read(path: &Path, accepted: CommitNumber) -> Result<Self, RecoveryError> {
        let mut history = Self { accepted, last: None, losses: Vec::new(), torn: Vec::new() };
        let mut journals = journal::list(path).map_err(at(path))?.into_iter().peekable();
        while let Some(journal) = journals.next() {
            history.journal(journal, journals.peek().is_some())?;
        }
        Ok(history)
    }

    fn journal(&mut self, journal: Journal, sealed: bool) -> Result<(), RecoveryError> {
        let path = &journal.path;
        let extent = journal::scan(path, &commit::KEY, |offset, value| {
            if let Ok(row) = LastCommit::decode(value) {
                self.lot(path, offset, row);
            }
        });
        let Some(range) = extent.map_err(at(path))?.torn() else { return Ok(()) };
        let whole_batch =
            journal::find_batch(path, range.start + 1..range.end).map_err(at(path))?;
        if sealed {
            self.losses.push(Loss {
                journal: path.clone(),
                offset: range.start,
                after: self.last,
                up_to: None,
            });
        }
        self.torn.push(Torn { journal, range, whole_batch });
        Ok(())
    }

    /// A lot follows: it says which one should be before it.
    fn lot(&mut self, path: &Path, offset: u64, row: LastCommit) {
        if let Some(loss) = self.losses.last_mut()
            && loss.up_to.is_none()
        {
            loss.up_to = Some(row.previous);
        } else if self.last.is_some_and(|last| last != row.previous) && row.previous > self.accepted
        {
            self.losses.push(Loss {
                journal: path.to_owned(),
                offset,
                after: self.last,
                up_to: Some(row.previous),
            });
        }
        self.last = Some(row.last);
    }
}

/// What is to be cut off a journal.
struct Torn {
    journal: Journal,
    range: Range<u64>,
    whole_batch: Option<u64>,
}

impl Torn {
    fn set_aside(&self, data: &Path) -> Result<SetAside, RecoveryError> {
        let path = &self.journal.path;
        let file = self.copy(&data.join(SET_ASIDE))?;
        high_water::sync_folder(data).map_err(at(data))?;
        let journal = File::options().write(true).open(path).map_err(at(path))?;
        journal.set_len(self.range.start).map_err(at(path))?;
        journal.sync_all().map_err(at(path))?;
        Ok(SetAside {
            journal: self.journal.number,
            range: self.range.clone(),
            whole_batch: self.whole_batch,
            file,
        })
    }

    fn copy(&self, folder: &Path) -> Result<PathBuf, RecoveryError> {
        fs::create_dir_all(folder).map_err(at(folder))?;
        let source = &self.journal.path;
        let mut journal = File::open(source).map_err(at(source))?;
        journal.seek(SeekFrom::Start(self.range.start)).map_err(at(source))?;
        let mut tail = journal.take(self.range.end - self.range.start);

        let (path, mut file) = self.create(folder)?;
        io::copy(&mut tail, &mut file).map_err(at(&path))?;
        file.sync_all().map_err(at(&path))?;
        high_water::sync_folder(folder).map_err(at(folder))?;
        Ok(path)
    }

    /// A new file: a journal may be torn at the same place again, and nothing set aside is lost.
    fn create(&self, folder: &Path) -> Result<(PathBuf, File), RecoveryError> {
        let stem = format!("journal-{}-{}", self.journal.number, self.range.start);
        let mut path = folder.join(format!("{stem}.bin"));
        for again in 2_u64.. {
            match File::create_new(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    path = folder.join(format!("{stem}-{again}.bin"));
                }
                created => return created.map(|file| (path.clone(), file)).map_err(at(&path)),
            }
        }
        Err(at(folder)(io::ErrorKind::AlreadyExists.into()))
    }
}

/// The folder that `path` lies in.
fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// Gives an I/O error its place.
fn at(path: &Path) -> impl FnOnce(io::Error) -> RecoveryError {
    move |source| RecoveryError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

    use super::*;

    const PAGE: usize = 4096;

    /// A data folder with a fjall database `db`, to which lots are written as the engine does.
    struct Data {
        folder: tempfile::TempDir,
    }

    impl Data {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap() }
        }

        /// A closed database with the lots `1..=lots`, its journal not allocated ahead.
        fn with_lots(lots: u64) -> Self {
            let data = Self::new();
            drop(data.open());
            data.write(1..=lots);
            data
        }

        fn path(&self) -> &Path {
            self.folder.path()
        }

        fn database(&self) -> PathBuf {
            self.path().join("db")
        }

        fn journal(&self, number: u64) -> PathBuf {
            self.database().join(format!("{number}.jnl"))
        }

        fn open(&self) -> (Database, Keyspace) {
            let database = Database::builder(self.database()).worker_threads(1).open().unwrap();
            let keyspace = database.keyspace("meta", KeyspaceCreateOptions::default).unwrap();
            (database, keyspace)
        }

        fn prepare(&self) -> Result<Prepared, RecoveryError> {
            prepare(&self.database(), false)
        }

        fn accept_loss(&self) -> Prepared {
            prepare(&self.database(), true).unwrap()
        }

        /// Writes lots, each with one commit, a row for it of about 1,000 bytes, and its head.
        fn write(&self, commits: std::ops::RangeInclusive<u64>) {
            let (database, keyspace) = self.open();
            for commit in commits {
                let previous = keyspace.get(commit::KEY).unwrap();
                let previous = previous.map(|row| LastCommit::decode(&row).unwrap().last);
                let head = LastCommit {
                    last: CommitNumber(commit),
                    previous: previous.unwrap_or_default(),
                };
                let mut batch = database.batch().durability(Some(PersistMode::SyncData));
                batch.insert(&keyspace, row_key(commit), vec![0xab; 1000]);
                batch.insert(&keyspace, commit::KEY, head.encode());
                batch.commit().unwrap();
            }
        }

        /// The commits whose rows a reopened database has, and the one that its head says.
        fn read(&self) -> (Vec<u64>, u64) {
            let (_database, keyspace) = self.open();
            let commits =
                (1..=200).filter(|commit| keyspace.contains_key(row_key(*commit)).unwrap());
            let head = keyspace.get(commit::KEY).unwrap();
            let last = head.map_or(0, |row| LastCommit::decode(&row).unwrap().last.0);
            (commits.collect(), last)
        }

        /// Where each lot begins in the journal, and where the last one ends.
        fn lots(&self, number: u64) -> Vec<usize> {
            let mut starts = Vec::new();
            let extent = journal::scan(&self.journal(number), &commit::KEY, |offset, _| {
                starts.push(usize::try_from(offset).unwrap());
            });
            starts.push(usize::try_from(extent.unwrap().whole).unwrap());
            starts
        }

        /// Splits journal 0 before lot `at`, so that it becomes a sealed one and journal 1.
        fn seal_before(&self, at: usize) {
            let bytes = fs::read(self.journal(0)).unwrap();
            let (sealed, active) = bytes.split_at(self.lots(0)[at - 1]);
            fs::write(self.journal(0), sealed).unwrap();
            fs::write(self.journal(1), active).unwrap();
        }

        fn damage(&self, number: u64, range: Range<usize>) {
            let mut bytes = fs::read(self.journal(number)).unwrap();
            bytes[range].fill(0);
            fs::write(self.journal(number), bytes).unwrap();
        }

        fn set_high_water(&self, commit: u64) {
            high_water::write(&self.path().join(high_water::FILE_NAME), CommitNumber(commit))
                .unwrap();
        }

        fn below_high_water(&self) -> Option<RecoveryError> {
            let (_, last) = self.read();
            find_below_high_water(self.path(), CommitNumber(last)).unwrap()
        }
    }

    fn row_key(commit: u64) -> [u8; 9] {
        let mut key = [1; 9];
        key[1..].copy_from_slice(&commit.to_be_bytes());
        key
    }

    fn up_to(last: u64) -> (Vec<u64>, u64) {
        ((1..=last).collect(), last)
    }

    fn hole(result: Result<Prepared, RecoveryError>) -> Loss {
        match result {
            Err(RecoveryError::Hole { loss }) => loss,
            other => panic!("expected a hole, got {other:?}"),
        }
    }

    #[test]
    fn a_folder_without_a_database_is_fit() {
        let data = Data::new();
        let prepared = data.prepare().unwrap();
        assert_eq!(prepared.last_commit, None);
        assert!(!data.database().exists());
    }

    #[test]
    fn a_whole_journal_is_left_as_it_is() {
        let data = Data::new();
        data.write(1..=3);
        let len = fs::metadata(data.journal(0)).unwrap().len();
        let prepared = data.prepare().unwrap();
        assert_eq!(prepared.last_commit, Some(CommitNumber(3)));
        assert_eq!(prepared.set_aside, []);
        assert_eq!(fs::metadata(data.journal(0)).unwrap().len(), len);
        assert!(!data.path().join(SET_ASIDE).exists());
        assert_eq!(data.read(), up_to(3));
    }

    #[test]
    fn a_journal_cut_anywhere_in_its_last_lot_keeps_the_lots_before() {
        let data = Data::with_lots(3);
        let bytes = fs::read(data.journal(0)).unwrap();
        let [.., last, end] = data.lots(0)[..] else { panic!("three lots expected") };
        let entries = [1, 5, 12, 13, 14, 34, 43, 44, 1042, 1043, 1044, 1064];
        let entries = entries.map(|offset| last + offset);
        for cut in entries.into_iter().chain((last + 60..end).step_by(97)).chain(end - 14..end) {
            let allocated = [&bytes[..cut], &[0; 100]].concat();
            fs::write(data.journal(0), allocated).unwrap();
            let prepared = data.prepare().unwrap();
            assert_eq!(prepared.last_commit, Some(CommitNumber(2)), "cut at {cut}");
            assert_eq!(fs::metadata(data.journal(0)).unwrap().len(), last as u64, "cut at {cut}");
            let [set_aside] = &prepared.set_aside[..] else { panic!("cut at {cut}") };
            let mut tail = fs::read(&set_aside.file).unwrap();
            tail.resize(cut - last, 0);
            assert_eq!(tail, &bytes[last..cut], "cut at {cut}");
        }
    }

    #[test]
    fn fjall_goes_on_behind_a_cut_journal() {
        let data = Data::with_lots(1);
        for lot in 2..10 {
            data.write(lot..=lot);
            let [.., last, end] = data.lots(0)[..] else { panic!("two lots expected") };
            let cut = last
                + [1, 13, 14, 500, 1043, 1044, end - last - 1, end - last - 4]
                    [usize::try_from(lot).unwrap() - 2];
            let bytes = fs::read(data.journal(0)).unwrap();
            fs::write(data.journal(0), &bytes[..cut]).unwrap();

            assert_eq!(data.prepare().unwrap().set_aside.len(), 1, "lot {lot}");
            assert_eq!(data.read(), up_to(lot - 1));
            data.write(lot..=lot);
            assert_eq!(data.prepare().unwrap().set_aside, [], "lot {lot}");
            assert_eq!(data.read(), up_to(lot));
        }
    }

    #[test]
    fn garbage_is_set_aside_byte_for_byte() {
        let data = Data::with_lots(2);
        let whole = fs::read(data.journal(0)).unwrap();
        let garbage: Vec<u8> = (1..=u8::MAX).rev().cycle().take(300_000).collect();
        fs::write(data.journal(0), [whole.clone(), garbage.clone()].concat()).unwrap();
        let prepared = data.prepare().unwrap();
        let [set_aside] = &prepared.set_aside[..] else { panic!("{prepared:?}") };
        assert_eq!(set_aside.journal, 0);
        assert_eq!(set_aside.range, whole.len() as u64..(whole.len() + garbage.len()) as u64);
        assert_eq!(set_aside.whole_batch, None);
        assert_eq!(
            set_aside.file,
            data.path().join(format!("set-aside/journal-0-{}.bin", whole.len()))
        );
        assert_eq!(fs::read(&set_aside.file).unwrap(), garbage);
        assert_eq!(fs::read(data.journal(0)).unwrap(), whole);
    }

    #[test]
    fn a_second_tail_from_the_same_place_replaces_nothing() {
        let data = Data::with_lots(1);
        let whole = fs::read(data.journal(0)).unwrap();
        for garbage in [b"first", b"other", b"third"] {
            fs::write(data.journal(0), [whole.as_slice(), garbage].concat()).unwrap();
            let prepared = data.prepare().unwrap();
            assert_eq!(fs::read(&prepared.set_aside[0].file).unwrap(), garbage);
        }
        assert_eq!(fs::read_dir(data.path().join(SET_ASIDE)).unwrap().count(), 3);
    }

    #[test]
    fn a_zeroed_page_among_synced_lots_is_refused_by_the_high_water() {
        let data = Data::with_lots(20);
        data.set_high_water(20);
        data.damage(0, PAGE..2 * PAGE);
        let prepared = data.prepare().unwrap();
        assert!(prepared.set_aside[0].whole_batch.is_some());
        let loss = data.below_high_water().unwrap();
        assert!(matches!(
            loss,
            RecoveryError::BelowHighWater { synced: CommitNumber(20), store: CommitNumber(3) }
        ));
        assert_eq!(
            loss.to_string(),
            "synced data is missing: commits up to `20` were synced, the store ends at `3`; \
             restore a backup, or start with `--accept-loss`"
        );
        assert_eq!(data.read(), up_to(3));
    }

    #[test]
    fn a_zeroed_page_at_the_end_of_synced_lots_is_refused_by_the_high_water() {
        let data = Data::with_lots(20);
        data.set_high_water(20);
        let end = *data.lots(0).last().unwrap();
        data.damage(0, end / PAGE * PAGE..end);
        data.prepare().unwrap();
        assert!(matches!(
            data.below_high_water(),
            Some(RecoveryError::BelowHighWater { synced: CommitNumber(20), .. })
        ));
    }

    #[test]
    fn a_hole_in_a_sealed_journal_is_refused_and_nothing_is_changed() {
        let data = Data::with_lots(20);
        data.seal_before(11);
        data.damage(0, PAGE..2 * PAGE);
        let before = [fs::read(data.journal(0)).unwrap(), fs::read(data.journal(1)).unwrap()];
        let loss = hole(data.prepare());
        assert_eq!(loss.journal, data.journal(0));
        assert!(loss.offset <= PAGE as u64);
        assert_eq!((loss.after, loss.up_to), (Some(CommitNumber(3)), Some(CommitNumber(10))));
        assert_eq!(
            RecoveryError::Hole { loss: loss.clone() }.to_string(),
            format!(
                "synced data is missing: commits after `3` up to `10` are not in the journals, \
                 seen at byte `{}` of `{}`; restore a backup, or start without them with \
                 `--accept-loss`",
                loss.offset,
                data.journal(0).display()
            )
        );
        let after = [fs::read(data.journal(0)).unwrap(), fs::read(data.journal(1)).unwrap()];
        assert_eq!(before, after);
        assert!(!data.path().join(SET_ASIDE).exists());
    }

    #[test]
    fn an_accepted_hole_in_a_sealed_journal_is_no_hole_at_the_next_start() {
        let data = Data::with_lots(20);
        data.seal_before(11);
        data.damage(0, PAGE..2 * PAGE);
        let prepared = data.accept_loss();
        assert_eq!(prepared.last_commit, Some(CommitNumber(20)));
        assert_eq!(prepared.set_aside.len(), 1);
        let left = ((1..=3).chain(11..=20).collect::<Vec<_>>(), 20);
        assert_eq!(data.read(), left);
        data.prepare().unwrap();
        data.write(21..=21);
        assert_eq!(data.prepare().unwrap().last_commit, Some(CommitNumber(21)));
    }

    #[test]
    fn a_cut_sealed_journal_is_refused() {
        let data = Data::with_lots(6);
        data.seal_before(4);
        let sealed = fs::read(data.journal(0)).unwrap();
        fs::write(data.journal(0), &sealed[..data.lots(0)[1]]).unwrap();
        let loss = hole(data.prepare());
        assert_eq!((loss.journal, loss.offset), (data.journal(1), 0));
        assert_eq!((loss.after, loss.up_to), (Some(CommitNumber(1)), Some(CommitNumber(3))));
    }

    #[test]
    fn zeros_behind_a_sealed_journal_are_no_hole() {
        let data = Data::with_lots(6);
        data.seal_before(4);
        let sealed = fs::read(data.journal(0)).unwrap();
        fs::write(data.journal(0), [sealed, vec![0; 100_000]].concat()).unwrap();
        assert_eq!(data.prepare().unwrap().last_commit, Some(CommitNumber(6)));
        assert_eq!(data.read(), up_to(6));
    }

    #[test]
    fn a_lot_that_is_cut_out_is_refused_until_its_loss_is_accepted() {
        let data = Data::with_lots(6);
        let lots = data.lots(0);
        let mut bytes = fs::read(data.journal(0)).unwrap();
        bytes.drain(lots[2]..lots[4]);
        fs::write(data.journal(0), bytes).unwrap();
        let loss = hole(data.prepare());
        assert_eq!(loss.offset, lots[2] as u64);
        assert_eq!((loss.after, loss.up_to), (Some(CommitNumber(2)), Some(CommitNumber(4))));
        data.accept_loss();
        data.prepare().unwrap();
        assert_eq!(data.read(), (vec![1, 2, 5, 6], 6));
    }

    #[test]
    fn a_new_hole_is_refused_though_an_older_one_was_accepted() {
        let data = Data::with_lots(6);
        data.seal_before(4);
        fs::write(data.journal(0), b"").unwrap();
        data.accept_loss();
        data.write(7..=10);
        let lots = data.lots(1);
        let mut bytes = fs::read(data.journal(1)).unwrap();
        bytes.drain(lots[4]..lots[5]);
        fs::write(data.journal(1), bytes).unwrap();
        let loss = hole(data.prepare());
        assert_eq!((loss.after, loss.up_to), (Some(CommitNumber(7)), Some(CommitNumber(8))));
    }

    #[test]
    fn a_missing_journal_is_refused() {
        let data = Data::with_lots(6);
        data.seal_before(3);
        let active = fs::read(data.journal(1)).unwrap();
        fs::write(data.journal(2), &active[data.lots(1)[2]..]).unwrap();
        fs::remove_file(data.journal(1)).unwrap();
        let loss = hole(data.prepare());
        assert_eq!((loss.journal, loss.offset), (data.journal(2), 0));
        assert_eq!((loss.after, loss.up_to), (Some(CommitNumber(2)), Some(CommitNumber(4))));
    }

    #[test]
    fn journals_that_end_below_the_store_are_a_loss_until_accepted() {
        let cases = [
            (None, 0, false),
            (Some(8), 0, false),
            (Some(9), 0, false),
            (Some(7), 0, true),
            (Some(7), 7, true),
            (Some(7), 8, false),
        ];
        for (journals, accepted, is_loss) in cases {
            let prepared = Prepared {
                last_commit: journals.map(CommitNumber),
                accepted: CommitNumber(accepted),
                set_aside: Vec::new(),
            };
            let found = find_early_end(&prepared, CommitNumber(8));
            assert_eq!(found.is_some(), is_loss, "{journals:?}, accepted {accepted}");
        }
    }

    #[test]
    fn losses_are_accepted_together_or_refused() {
        let losses = || {
            let store = CommitNumber(3);
            vec![
                RecoveryError::JournalsEndEarly { store, journals: CommitNumber(2) },
                RecoveryError::BelowHighWater { synced: CommitNumber(9), store },
                RecoveryError::BeyondEnds { commit: CommitNumber(7) },
            ]
        };
        assert!(matches!(accept(losses(), false), Err(RecoveryError::JournalsEndEarly { .. })));
        assert_eq!(accept(losses(), true).unwrap(), CommitNumber(9));
    }

    #[test]
    fn tables_that_outlive_their_journal_do_not_break_the_chain_once_accepted() {
        let data = Data::with_lots(4);
        let (database, keyspace) = data.open();
        keyspace.rotate_memtable_and_wait().unwrap();
        drop((database, keyspace));
        data.damage(0, data.lots(0)[2]..data.lots(0)[3]);

        let prepared = data.prepare().unwrap();
        assert_eq!(prepared.last_commit, Some(CommitNumber(2)));
        let store = CommitNumber(data.read().1);
        assert_eq!(store, CommitNumber(4));
        assert!(find_early_end(&prepared, store).is_some());
        keep_accepted(data.path(), store).unwrap();
        data.write(5..=5);
        assert_eq!(data.prepare().unwrap().last_commit, Some(CommitNumber(5)));
    }

    #[test]
    fn a_high_water_up_to_the_last_commit_or_none_is_no_loss() {
        let data = Data::new();
        let is_loss =
            |store| find_below_high_water(data.path(), CommitNumber(store)).unwrap().is_some();
        assert!(!is_loss(0));
        data.set_high_water(5);
        assert_eq!([4, 5, 6].map(is_loss), [true, false, false]);
    }

    #[test]
    fn a_damaged_high_water_is_a_loss_until_accepted() {
        let data = Data::new();
        let path = data.path().join(high_water::FILE_NAME);
        fs::write(&path, b"damaged").unwrap();
        let loss = find_below_high_water(data.path(), CommitNumber(6)).unwrap().unwrap();
        assert!(loss.to_string().contains("high-water` is damaged; restore a backup"), "{loss}");
        keep_accepted(data.path(), CommitNumber(6)).unwrap();
        assert!(find_below_high_water(data.path(), CommitNumber(6)).unwrap().is_none());
        assert_eq!(high_water::read(&path).unwrap(), Some(CommitNumber(6)));
    }

    #[test]
    fn a_database_in_use_is_refused() {
        let data = Data::new();
        let _open = data.open();
        assert!(matches!(data.prepare(), Err(RecoveryError::Locked { .. })));
    }

    #[test]
    fn a_database_that_was_never_made_whole_is_made_anew() {
        for marker in [None, Some(b"".as_slice()), Some(b"FJL")] {
            let data = Data::new();
            fs::create_dir_all(data.database().join(TABLES)).unwrap();
            fs::write(data.database().join(LOCK), b"").unwrap();
            fs::write(data.journal(0), vec![0; 1000]).unwrap();
            if let Some(marker) = marker {
                fs::write(data.database().join(MARKER.0), marker).unwrap();
            }
            data.prepare().unwrap();
            data.write(1..=1);
            assert_eq!(data.read(), up_to(1));
        }
    }

    #[test]
    fn a_database_without_its_marker_is_not_made_anew() {
        let data = Data::with_lots(1);
        fs::remove_file(data.database().join(MARKER.0)).unwrap();
        data.prepare().unwrap();
        assert_eq!(data.lots(0).len(), 2);
    }
}
