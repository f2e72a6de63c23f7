//! The journals of fjall, read without fjall: how far one is whole, and the rows it holds.
//!
//! Owns fjall's journal format (3.1); knows nothing of what the rows mean. Integers are
//! little-endian. A journal, `<number>.jnl`, is a row of batches, then zeros, as it is allocated
//! ahead. The one with the highest number is written; the others are sealed, and fjall synced each
//! of them before it began the next.
//!
//! | part of a batch | bytes |
//! | --- | --- |
//! | start | tag 1, entry count 4, sequence number 8 |
//! | each entry, a row | tag 1, value type 1, compression 1, keyspace 8, key length 2, value length 4, stored value length 4, key, value |
//! | each entry, a clear | tag 1, keyspace 8 |
//! | end | tag 1, xxh3-64 of all entries 8, `FJL\x03` |
//!
//! A compressed value does not count as whole: the engine opens fjall without journal compression.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Buf;
use xxhash_rust::xxh3::Xxh3;

const START: u8 = 1;
const ROW: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: [u8; 4] = *b"FJL\x03";
/// Values, tombstones and weak tombstones; fjall writes no other type to a journal.
const VALUE_TYPE_MAX: u8 = 2;
const NOT_COMPRESSED: u8 = 0;

/// Large enough that a read costs what copying costs.
const BUFFER_BYTES: usize = 1 << 20;
/// A block of this size is told to be zeros by one comparison.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
/// A batch's start, then its first row up to the compression.
const OPENING: usize = 16;

/// A journal's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Journal {
    /// Its place among the journals.
    pub(super) number: u64,
    /// Where it lies.
    pub(super) path: PathBuf,
}

/// How far a journal is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// Its whole batches are `0..whole`.
    pub(super) whole: u64,
    /// Behind this there are only zeros; never less than `whole`.
    pub(super) content: u64,
}

impl Extent {
    /// What follows the whole batches and is not only zeros.
    pub(super) fn torn(self) -> Option<Range<u64>> {
        (self.whole < self.content).then_some(self.whole..self.content)
    }
}

/// The journals in `folder`, in the order of their numbers.
///
/// # Errors
///
/// The folder cannot be read.
pub(super) fn list(folder: &Path) -> io::Result<Vec<Journal>> {
    let mut journals = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(Ok(number)) = name.strip_suffix(".jnl").map(str::parse) {
            journals.push(Journal { number, path });
        }
    }
    journals.sort_by_key(|journal| journal.number);
    Ok(journals)
}

/// Reads the journal at `path`, and gives `visit` the start of each whole batch that has a row with
/// `key`, and that row's value.
///
/// # Errors
///
/// The file cannot be read; damage is no error.
pub(super) fn scan(
    path: &Path,
    key: &[u8],
    mut visit: impl FnMut(u64, &[u8]),
) -> io::Result<Extent> {
    let mut reader = Reader::open(path, 0)?;
    let mut found: Option<Vec<u8>> = None;
    loop {
        let start = reader.position;
        let whole = reader.batch(|row_key, value| {
            if row_key == key {
                found = Some(value.to_vec());
            }
        })?;
        if !whole {
            return Ok(Extent { whole: start, content: content_end(path, start)? });
        }
        if let Some(value) = found.take() {
            visit(start, &value);
        }
    }
}

/// Where the first whole batch that begins within `range` lies; one that begins with a clear is
/// passed over.
///
/// # Errors
///
/// The file cannot be read.
pub(super) fn find_batch(path: &Path, range: Range<u64>) -> io::Result<Option<u64>> {
    let mut file = File::open(path)?;
    let mut block = Vec::new();
    let mut start = range.start;
    while start < range.end {
        block.clear();
        file.seek(SeekFrom::Start(start))?;
        file.by_ref().take(BUFFER_BYTES as u64).read_to_end(&mut block)?;
        for (offset, opening) in (start..range.end).zip(block.windows(OPENING)) {
            let plausible = matches!(opening, [START, .., ROW, 0..=VALUE_TYPE_MAX, NOT_COMPRESSED]);
            if plausible && Reader::open(path, offset)?.batch(|_, _| {})? {
                return Ok(Some(offset));
            }
        }
        start += (BUFFER_BYTES - OPENING + 1) as u64;
    }
    Ok(None)
}

/// The end of the last byte from `start` on that is not zero; `start` if there is none.
fn content_end(path: &Path, start: u64) -> io::Result<u64> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut block = vec![0; ZEROS.len()];
    let mut position = start;
    let mut end = start;
    loop {
        let count = file.read(&mut block)?;
        if count == 0 {
            return Ok(end);
        }
        if block.get(..count) != ZEROS.get(..count) {
            let last = block.iter().take(count).rposition(|byte| *byte != 0);
            end = position + last.map_or(0, |last| last as u64 + 1);
        }
        position += count as u64;
    }
}

/// Reads one batch after the other.
struct Reader {
    file: BufReader<File>,
    position: u64,
    len: u64,
    /// The key and the value of the row just read.
    body: Vec<u8>,
}

impl Reader {
    fn open(path: &Path, position: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(position))?;
        let file = BufReader::with_capacity(BUFFER_BYTES, file);
        Ok(Self { file, position, len, body: Vec::new() })
    }

    /// Whether a whole batch follows. Its rows are visited before that is known; after `false` the
    /// reader stands nowhere in particular.
    fn batch(&mut self, visit: impl FnMut(&[u8], &[u8])) -> io::Result<bool> {
        match self.try_batch(visit) {
            Ok(()) => Ok(true),
            Err(Stop::NotWhole) => Ok(false),
            Err(Stop::Io(error)) => Err(error),
        }
    }

    fn try_batch(&mut self, mut visit: impl FnMut(&[u8], &[u8])) -> Result<(), Stop> {
        let start: [u8; 13] = self.bytes()?;
        let mut fields = start.as_slice();
        if fields.get_u8() != START {
            return Err(Stop::NotWhole);
        }
        let mut hasher = Xxh3::new();
        for _ in 0..fields.get_u32_le() {
            self.entry(&mut hasher, &mut visit)?;
        }
        let end: [u8; 13] = self.bytes()?;
        let mut fields = end.as_slice();
        let whole = fields.get_u8() == END
            && fields.get_u64_le() == hasher.digest()
            && fields == TRAILER.as_slice();
        if whole { Ok(()) } else { Err(Stop::NotWhole) }
    }

    fn entry(
        &mut self,
        hasher: &mut Xxh3,
        visit: &mut impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Stop> {
        let tag: [u8; 1] = self.bytes()?;
        hasher.update(&tag);
        match tag {
            [ROW] => self.row(hasher, visit),
            [CLEAR] => {
                hasher.update(&self.bytes::<8>()?);
                Ok(())
            }
            _ => Err(Stop::NotWhole),
        }
    }

    fn row(&mut self, hasher: &mut Xxh3, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<(), Stop> {
        let header: [u8; 20] = self.bytes()?;
        hasher.update(&header);
        let mut fields = header.as_slice();
        let (value_type, compression) = (fields.get_u8(), fields.get_u8());
        let _keyspace = fields.get_u64_le();
        let key_bytes = usize::from(fields.get_u16_le());
        let (value_bytes, stored_bytes) = (fields.get_u32_le(), fields.get_u32_le());
        if value_type > VALUE_TYPE_MAX
            || compression != NOT_COMPRESSED
            || value_bytes != stored_bytes
        {
            return Err(Stop::NotWhole);
        }
        let body_bytes = key_bytes + value_bytes as usize;
        self.advance(body_bytes)?;
        self.body.resize(body_bytes, 0);
        self.file.read_exact(&mut self.body)?;
        hasher.update(&self.body);
        let (key, value) = self.body.split_at_checked(key_bytes).ok_or(Stop::NotWhole)?;
        visit(key, value);
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        self.advance(N)?;
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Moves the position before a read, so that damage never allocates more than the file holds.
    fn advance(&mut self, count: usize) -> Result<(), Stop> {
        let position = self.position + count as u64;
        if position > self.len {
            return Err(Stop::NotWhole);
        }
        self.position = position;
        Ok(())
    }
}

/// Why a batch ended early.
enum Stop {
    NotWhole,
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

#[cfg(test)]
mod tests {
    use fjall::{Database, KeyspaceCreateOptions, PersistMode};

    use super::*;

    const WANTED: [u8; 1] = [0];

    /// A journal of three batches: with a wanted row, without one, and with one after a clear.
    fn journal() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::builder(folder.path()).worker_threads(1).open().unwrap();
        let keyspace = database.keyspace("rows", KeyspaceCreateOptions::default).unwrap();
        let mut batch = database.batch();
        batch.insert(&keyspace, WANTED, "first");
        batch.insert(&keyspace, "empty", "");
        batch.remove(&keyspace, "removed");
        batch.insert(&keyspace, "long", vec![7; 10_000]);
        batch.commit().unwrap();
        keyspace.insert("other", "unwanted").unwrap();
        keyspace.clear().unwrap();
        keyspace.insert(WANTED, "last").unwrap();
        database.persist(PersistMode::SyncAll).unwrap();
        let path = folder.path().join("0.jnl");
        (folder, path)
    }

    /// What a scan visits, and how far the journal is whole.
    fn scanned(path: &Path) -> (Vec<(u64, Vec<u8>)>, Extent) {
        let mut rows = Vec::new();
        let extent =
            scan(path, &WANTED, |offset, value| rows.push((offset, value.to_vec()))).unwrap();
        (rows, extent)
    }

    /// The bytes of the journal up to its zeros.
    fn content(path: &Path) -> Vec<u8> {
        let (_, extent) = scanned(path);
        assert_eq!(extent.torn(), None);
        let mut bytes = fs::read(path).unwrap();
        bytes.truncate(usize::try_from(extent.whole).unwrap());
        bytes
    }

    #[test]
    fn a_scan_visits_the_wanted_rows_of_a_journal_of_fjall() {
        let (_folder, path) = journal();
        let (rows, extent) = scanned(&path);
        let values: Vec<&[u8]> = rows.iter().map(|(_, value)| value.as_slice()).collect();
        assert_eq!(values, [b"first".as_slice(), b"last"]);
        assert_eq!(rows[0].0, 0);
        assert_eq!(extent.torn(), None);
        assert!(extent.whole > 10_000);
        assert!(extent.whole < fs::metadata(&path).unwrap().len());
    }

    #[test]
    fn a_cut_batch_is_not_visited_and_not_whole() {
        let (_folder, path) = journal();
        let bytes = content(&path);
        let (rows, _) = scanned(&path);
        let last = usize::try_from(rows[1].0).unwrap();
        for cut in last + 1..bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            let (rows, extent) = scanned(&path);
            assert_eq!(rows.len(), 1, "cut at {cut}");
            assert_eq!(extent.whole, last as u64, "cut at {cut}");
            assert!(extent.content <= cut as u64, "cut at {cut}");
        }
    }

    #[test]
    fn a_flipped_bit_ends_what_is_whole() {
        let (_folder, path) = journal();
        let bytes = content(&path);
        let (rows, _) = scanned(&path);
        let last = usize::try_from(rows[1].0).unwrap();
        // fjall's checksum leaves out the sequence number.
        let sequence = last + 5..last + 13;
        for byte in (last..bytes.len()).filter(|byte| !sequence.contains(byte)) {
            let mut damaged = bytes.clone();
            damaged[byte] ^= 0x10;
            fs::write(&path, damaged).unwrap();
            assert_eq!(scanned(&path).1.whole, last as u64, "byte {byte}");
        }
    }

    #[test]
    fn zeros_behind_a_journal_are_not_content() {
        let (_folder, path) = journal();
        let mut bytes = content(&path);
        let whole = bytes.len() as u64;
        for (behind, content) in [
            (vec![], 0),
            (vec![0; 1], 0),
            (vec![0; 200_000], 0),
            (vec![9], 1),
            ([vec![0; 150_000], vec![9], vec![0; 150_000]].concat(), 150_001),
        ] {
            bytes.truncate(usize::try_from(whole).unwrap());
            bytes.extend_from_slice(&behind);
            fs::write(&path, &bytes).unwrap();
            let extent = Extent { whole, content: whole + content };
            assert_eq!(scanned(&path).1, extent, "{} bytes behind", behind.len());
        }
    }

    #[test]
    fn a_length_beyond_the_file_is_not_whole() {
        let (_folder, path) = journal();
        let mut bytes = content(&path);
        bytes.truncate(34);
        bytes[26..34].fill(0xff);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(scanned(&path).1, Extent { whole: 0, content: 34 });
    }

    #[test]
    fn a_whole_batch_is_found_behind_damage() {
        let (_folder, path) = journal();
        let mut bytes = content(&path);
        let (rows, extent) = scanned(&path);
        bytes[100..200].fill(0);
        fs::write(&path, &bytes).unwrap();
        let found = find_batch(&path, 1..extent.whole).unwrap().unwrap();
        assert!(found > 10_000 && found < rows[1].0);
        assert_eq!(find_batch(&path, rows[1].0 + 1..extent.whole).unwrap(), None);
    }

    #[test]
    fn a_whole_batch_is_found_wherever_a_block_ends() {
        let (_folder, path) = journal();
        let bytes = content(&path);
        let start = usize::try_from(scanned(&path).0[1].0).unwrap();
        for zeros in BUFFER_BYTES - 20..BUFFER_BYTES + 2 {
            let behind = [vec![0; zeros], bytes[start..].to_vec()].concat();
            fs::write(&path, &behind).unwrap();
            let found = find_batch(&path, 0..behind.len() as u64).unwrap();
            assert_eq!(found, Some(zeros as u64));
        }
    }

    #[test]
    fn journals_come_in_the_order_of_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["10.jnl", "9.jnl", "x.jnl", "11.txt", "version"] {
            fs::write(folder.path().join(name), b"").unwrap();
        }
        let numbers: Vec<u64> =
            list(folder.path()).unwrap().iter().map(|journal| journal.number).collect();
        assert_eq!(numbers, [9, 10]);
    }
}
