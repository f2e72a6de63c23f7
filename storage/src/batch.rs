//! A batch of records: what a publisher builds, what the store keeps as one entry, and what a
//! reader gets back.
//!
//! # Layout of a stored entry, version 1
//!
//! All integers are little-endian.
//!
//! | field | bytes |
//! | --- | --- |
//! | version | 1, the value 1 |
//! | flags | 1, none defined, must be 0 |
//! | section count | 2 |
//! | record count | 4 |
//! | base offset | 8 |
//! | bytes of records in the partition before this entry, ever | 8 |
//! | sections | 20 each: commit number 8, timestamp 8, record count 4 |
//! | records | each: length 4, then the encoding of [`Record`] |
//!
//! A section is what one transaction appended; small transactions that share a commit and a
//! partition share an entry. A publisher's batch leaves room for a header with one section, so that
//! the usual entry is finished in place, without a copy.

use bytes::{Buf, Bytes};

use crate::{CommitNumber, DecodeError, Record, Timestamp};

const VERSION: u8 = 1;
const HEADER: usize = 24;
const SECTION: usize = 20;
const LENGTH: usize = 4;
/// The longest encoded record: what a transaction may hold in all, so never the tighter bound.
const RECORD_BYTES_MAX: usize = 64 << 20;

/// Records for one partition, encoded as they are pushed.
#[derive(Debug, Clone)]
pub struct RecordBatch {
    /// Room for the header of an entry with one section, then the records.
    bytes: Vec<u8>,
    count: u32,
}

/// A record longer than any store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("record takes `{got}` bytes, at most {RECORD_BYTES_MAX} allowed")]
pub struct RecordTooLarge {
    /// The length of the encoded record.
    pub got: usize,
}

impl Default for RecordBatch {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl RecordBatch {
    /// An empty batch with room for `bytes` of encoded records.
    pub fn with_capacity(bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(HEADER + SECTION + bytes);
        buffer.resize(HEADER + SECTION, 0);
        Self { bytes: buffer, count: 0 }
    }

    /// Adds a record.
    ///
    /// # Errors
    ///
    /// It takes more than 64 MiB; the batch is as it was.
    pub fn push(&mut self, record: &Record<'_>) -> Result<(), RecordTooLarge> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; LENGTH]);
        record.encode(&mut self.bytes);
        let got = self.bytes.len() - start - LENGTH;
        let length = u32::try_from(got).ok().filter(|_| got <= RECORD_BYTES_MAX);
        let (Some(length), Some(count)) = (length, self.count.checked_add(1)) else {
            self.bytes.truncate(start);
            return Err(RecordTooLarge { got });
        };
        if let Some(prefix) = self.bytes.get_mut(start..start + LENGTH) {
            prefix.copy_from_slice(&length.to_le_bytes());
        }
        self.count = count;
        Ok(())
    }

    /// How many records it holds.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of encoded records.
    pub fn byte_len(&self) -> usize {
        self.bytes.len() - HEADER - SECTION
    }

    /// The records, as they were pushed; offsets count from 0.
    pub fn records(&self) -> SegmentRecords<'_> {
        SegmentRecords { offset: 0, rest: self.body() }
    }

    /// The same records in batches of at most `bytes_max`, but at least one record each.
    pub(crate) fn split(self, bytes_max: usize) -> Vec<Self> {
        let mut parts = Vec::with_capacity(self.byte_len() / bytes_max.max(1) + 1);
        let mut part = Self::default();
        let mut rest = self.body();
        // A batch holds whole records only: it was made of them.
        while let Ok(length) = record_length(rest) {
            let (record, behind) = rest.split_at(LENGTH + length);
            if part.count > 0 && part.byte_len() + record.len() > bytes_max {
                parts.push(std::mem::take(&mut part));
            }
            if part.count == 0 {
                part.bytes.reserve_exact(bytes_max.min(rest.len()));
            }
            part.bytes.extend_from_slice(record);
            part.count += 1;
            rest = behind;
        }
        parts.push(part);
        parts
    }

    fn body(&self) -> &[u8] {
        self.bytes.get(HEADER + SECTION..).unwrap_or_default()
    }

    /// The entry of this batch alone, made in place.
    pub(crate) fn into_entry(mut self, place: Place, section: Section) -> Bytes {
        let mut header = Vec::with_capacity(HEADER + SECTION);
        put_header(&mut header, place, &[section]);
        if let Some(room) = self.bytes.get_mut(..HEADER + SECTION) {
            room.copy_from_slice(&header);
        }
        Bytes::from(self.bytes)
    }
}

/// The entry of several batches that share a commit and a partition, in their order.
pub(crate) fn merge_entry(place: Place, batches: &[(RecordBatch, Section)]) -> Bytes {
    let body: usize = batches.iter().map(|(batch, _)| batch.byte_len()).sum();
    let mut bytes = Vec::with_capacity(HEADER + SECTION * batches.len() + body);
    let sections: Vec<Section> = batches.iter().map(|(_, section)| *section).collect();
    put_header(&mut bytes, place, &sections);
    for (batch, _) in batches {
        bytes.extend_from_slice(batch.body());
    }
    Bytes::from(bytes)
}

/// How many sections an entry can have.
pub(crate) const SECTIONS_MAX: usize = u16::MAX as usize;

/// Where an entry starts in its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The offset of its first record.
    pub(crate) base_offset: u64,
    /// Bytes of encoded records ever appended before it.
    pub(crate) bytes_before: u64,
}

/// What one transaction appended to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) commit: CommitNumber,
    pub(crate) timestamp: Timestamp,
    pub(crate) count: u32,
}

fn put_header(out: &mut Vec<u8>, place: Place, sections: &[Section]) {
    let section_count = u16::try_from(sections.len()).unwrap_or(u16::MAX);
    let record_count: u32 = sections.iter().map(|section| section.count).sum();
    out.extend_from_slice(&[VERSION, 0]);
    out.extend_from_slice(&section_count.to_le_bytes());
    out.extend_from_slice(&record_count.to_le_bytes());
    out.extend_from_slice(&place.base_offset.to_le_bytes());
    out.extend_from_slice(&place.bytes_before.to_le_bytes());
    for section in sections {
        out.extend_from_slice(&section.commit.0.to_le_bytes());
        out.extend_from_slice(&section.timestamp.0.to_le_bytes());
        out.extend_from_slice(&section.count.to_le_bytes());
    }
}

/// A run of records that one transaction appended to one partition.
#[derive(Debug, Clone)]
pub struct Segment {
    base_offset: u64,
    commit: CommitNumber,
    timestamp: Timestamp,
    count: u32,
    body: Bytes,
}

impl Segment {
    /// The first record's offset.
    pub fn base_offset(&self) -> u64 {
        self.base_offset
    }

    /// The offset after the last record.
    pub fn end_offset(&self) -> u64 {
        self.base_offset + u64::from(self.count)
    }

    /// The transaction.
    pub fn commit(&self) -> CommitNumber {
        self.commit
    }

    /// The records' timestamp.
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// How many records there are, at least one.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of encoded records.
    pub fn byte_len(&self) -> usize {
        self.body.len()
    }

    /// The records in order, decoded one by one.
    pub fn records(&self) -> SegmentRecords<'_> {
        SegmentRecords { offset: self.base_offset, rest: &self.body }
    }

    /// Drops all records below `offset`.
    pub(crate) fn skip_to(&mut self, offset: u64) -> Result<(), DecodeError> {
        while self.base_offset < offset && self.count > 0 {
            let length = record_length(&self.body)?;
            self.body.advance(LENGTH + length);
            self.base_offset += 1;
            self.count -= 1;
        }
        Ok(())
    }

    /// Keeps at most `records` records and stops before `bytes` are passed; at least one stays if
    /// `keep_first`.
    pub(crate) fn cut(
        &mut self,
        records: usize,
        bytes: usize,
        keep_first: KeepFirst,
    ) -> Result<(), DecodeError> {
        let mut kept = 0_u32;
        let mut end = 0;
        while kept < self.count && (kept as usize) < records {
            let rest = self.body.get(end..).unwrap_or_default();
            let next = end + LENGTH + record_length(rest)?;
            if next > bytes && !(kept == 0 && keep_first == KeepFirst::Yes) {
                break;
            }
            end = next;
            kept += 1;
        }
        self.body.truncate(end);
        self.count = kept;
        Ok(())
    }
}

/// Whether a cut leaves a record that is larger than what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeepFirst {
    Yes,
    No,
}

/// Records of a [`Segment`] with their offsets.
#[derive(Debug, Clone)]
pub struct SegmentRecords<'a> {
    offset: u64,
    rest: &'a [u8],
}

impl<'a> Iterator for SegmentRecords<'a> {
    type Item = Result<(u64, Record<'a>), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let offset = self.offset;
        self.offset += 1;
        let record = record_length(self.rest).and_then(|length| {
            let (record, rest) = self.rest.split_at(LENGTH + length);
            self.rest = rest;
            Record::decode(record.get(LENGTH..).unwrap_or_default())
        });
        if record.is_err() {
            self.rest = &[];
        }
        Some(record.map(|record| (offset, record)))
    }
}

/// The length of the record at the start of `body`, which holds it whole.
fn record_length(body: &[u8]) -> Result<usize, DecodeError> {
    const CUT: DecodeError = DecodeError { what: "record length" };
    let (prefix, rest) = body.split_first_chunk::<LENGTH>().ok_or(CUT)?;
    let length = u32::from_le_bytes(*prefix) as usize;
    if length > rest.len() { Err(CUT) } else { Ok(length) }
}

/// The sections of an entry, without its records: for searches by time and by commit.
pub(crate) fn parse_header(entry: &[u8]) -> Result<(Place, Vec<Section>), DecodeError> {
    const CUT: DecodeError = DecodeError { what: "entry header" };
    let (header, rest) = entry.split_first_chunk::<HEADER>().ok_or(CUT)?;
    let [version, flags, s0, s1, r0, r1, r2, r3, b0, b1, b2, b3, b4, b5, b6, b7, before @ ..] =
        *header;
    if version != VERSION || flags != 0 {
        return Err(DecodeError { what: "entry version" });
    }
    let section_count = usize::from(u16::from_le_bytes([s0, s1]));
    let record_count = u32::from_le_bytes([r0, r1, r2, r3]);
    let sections = rest.get(..section_count * SECTION).ok_or(CUT)?;
    let sections: Vec<Section> = sections.as_chunks::<SECTION>().0.iter().map(section).collect();
    let total: u64 = sections.iter().map(|section| u64::from(section.count)).sum();
    if total != u64::from(record_count) {
        return Err(DecodeError { what: "entry record count" });
    }
    let place = Place {
        base_offset: u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]),
        bytes_before: u64::from_le_bytes(before),
    };
    Ok((place, sections))
}

/// Bytes of encoded records in an entry with this many sections.
pub(crate) fn body_len(entry: &[u8], sections: usize) -> u64 {
    entry.len().saturating_sub(HEADER + SECTION * sections) as u64
}

fn section(bytes: &[u8; SECTION]) -> Section {
    let [c0, c1, c2, c3, c4, c5, c6, c7, t0, t1, t2, t3, t4, t5, t6, t7, count @ ..] = *bytes;
    Section {
        commit: CommitNumber(u64::from_le_bytes([c0, c1, c2, c3, c4, c5, c6, c7])),
        timestamp: Timestamp(u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7])),
        count: u32::from_le_bytes(count),
    }
}

/// The segments of an entry; they share its bytes.
pub(crate) fn parse_entry(entry: &Bytes) -> Result<Vec<Segment>, DecodeError> {
    let (Place { mut base_offset, .. }, sections) = parse_header(entry)?;
    let mut body = entry.slice(HEADER + SECTION * sections.len()..);
    let mut segments = Vec::with_capacity(sections.len());
    let last = sections.len().saturating_sub(1);
    for (place, Section { commit, timestamp, count }) in sections.into_iter().enumerate() {
        // The last section is what is left, so that the usual entry is not walked.
        let length = if place == last { body.len() } else { section_length(&body, count)? };
        let body = body.split_to(length);
        segments.push(Segment { base_offset, commit, timestamp, count, body });
        base_offset += u64::from(count);
    }
    Ok(segments)
}

fn section_length(body: &[u8], count: u32) -> Result<usize, DecodeError> {
    let mut end = 0;
    for _ in 0..count {
        end += LENGTH + record_length(body.get(end..).unwrap_or_default())?;
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn batch(values: &[Vec<u8>]) -> RecordBatch {
        let mut batch = RecordBatch::default();
        for value in values {
            batch.push(&Record { value, ..Record::default() }).unwrap();
        }
        batch
    }

    fn place(base_offset: u64) -> Place {
        Place { base_offset, bytes_before: 9 }
    }

    fn section(commit: u64, count: u32) -> Section {
        Section { commit: CommitNumber(commit), timestamp: Timestamp(commit * 10), count }
    }

    fn values(segments: &[Segment]) -> Vec<(u64, Vec<u8>)> {
        let records = segments.iter().flat_map(Segment::records);
        records.map(|record| record.unwrap()).map(|(at, r)| (at, r.value.to_vec())).collect()
    }

    #[test]
    fn the_bytes_of_version_1_do_not_change() {
        let entry = batch(&[b"{}".to_vec()]).into_entry(place(7), section(3, 1));
        let expected = [
            &[1, 0][..],
            &[1, 0],
            &[1, 0, 0, 0],
            &[7, 0, 0, 0, 0, 0, 0, 0],
            &[9, 0, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0, 0, 0, 0, 0, 30, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
            &[3, 0, 0, 0, 0, b'{', b'}'],
        ]
        .concat();
        assert_eq!(entry, expected);
    }

    #[test]
    fn an_entry_of_a_later_version_is_refused() {
        let mut entry = batch(&[vec![1]]).into_entry(place(0), section(1, 1)).to_vec();
        entry[0] = 2;
        assert_eq!(parse_header(&entry), Err(DecodeError { what: "entry version" }));
    }

    proptest! {
        #[test]
        fn batches_that_share_an_entry_read_back_in_order(
            base in 0_u64..1 << 60,
            batches in proptest::collection::vec(
                proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..8),
                1..6,
            ),
        ) {
            let parts: Vec<_> = batches
                .iter()
                .zip(1..)
                .map(|(values, commit)| {
                    let batch = batch(values);
                    let section = section(commit, batch.count());
                    (batch, section)
                })
                .collect();
            let entry = merge_entry(place(base), &parts);
            let expected: Vec<_> = (base..).zip(batches.concat()).collect();
            let segments = parse_entry(&entry).unwrap();
            prop_assert_eq!(values(&segments), expected);
            if let [(only, section)] = &parts[..] {
                prop_assert_eq!(only.clone().into_entry(place(base), *section), entry);
            }
        }

        #[test]
        fn a_segment_is_cut_on_both_sides(
            count in 1_u8..30,
            from in 0_u8..30,
            records in 0_usize..30,
            bytes in 0_usize..300,
        ) {
            let all: Vec<Vec<u8>> = (0..count).map(|n| vec![n; usize::from(n)]).collect();
            let entry = batch(&all).into_entry(place(0), section(1, count.into()));
            let mut segment = parse_entry(&entry).unwrap().remove(0);
            segment.skip_to(from.into()).unwrap();
            segment.cut(records, bytes, KeepFirst::No).unwrap();
            let mut room = bytes;
            let expected: Vec<_> = (0..).zip(all).skip(from.into()).take(records).take_while(
                |(_, value)| {
                    let size = LENGTH + 1 + value.len();
                    let fits = size <= room;
                    room = room.saturating_sub(if fits { size } else { room });
                    fits
                },
            ).collect();
            prop_assert_eq!(values(&[segment]), expected);
        }

        #[test]
        fn a_batch_that_is_split_keeps_its_records_in_order(
            all in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..30),
            bytes_max in 1_usize..200,
        ) {
            let parts = batch(&all).split(bytes_max);
            let records = parts.iter().flat_map(RecordBatch::records);
            let found: Vec<Vec<u8>> =
                records.map(|record| record.unwrap().1.value.to_vec()).collect();
            prop_assert_eq!(found, all);
            for part in parts {
                prop_assert!(part.byte_len() <= bytes_max || part.count() == 1);
            }
        }

        #[test]
        fn damaged_entries_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let mut bytes = bytes;
            if let Some(version) = bytes.first_mut() {
                *version = VERSION;
            }
            for segment in parse_entry(&Bytes::from(bytes)).unwrap_or_default() {
                let _ = segment.records().count();
            }
        }
    }
}
