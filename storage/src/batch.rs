//! A batch of records: what a publisher builds, and what a reader gets back of it.

use bytes::{Buf, Bytes};

use crate::entry::{Part, ROOM};
use crate::{CommitNumber, DecodeError, Record, Timestamp};

/// What each record begins with: the length of its encoding.
pub(crate) const LENGTH: usize = 4;
/// The longest encoded record: what a transaction may hold in all, so never the tighter bound.
pub(crate) const RECORD_BYTES_MAX: usize = 64 << 20;

/// Records for one partition, encoded as they are pushed.
#[derive(Debug, Clone)]
pub struct RecordBatch {
    /// Room for the header of an entry, then the records.
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
        let mut buffer = Vec::with_capacity(ROOM + bytes);
        buffer.resize(ROOM, 0);
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
        self.bytes.len() - ROOM
    }

    /// The records, as they were pushed; offsets count from 0.
    pub fn records(&self) -> SegmentRecords<'_> {
        SegmentRecords { offset: 0, rest: self.body() }
    }

    /// The records in parts of at most `bytes_max`, but at least one record each.
    pub(crate) fn into_parts(self, bytes_max: usize) -> Vec<Part> {
        if self.byte_len() <= bytes_max {
            return vec![Part::plain(self.bytes, self.count)];
        }
        let mut parts = Vec::with_capacity(self.byte_len() / bytes_max.max(1) + 1);
        let mut part = Self::default();
        let mut rest = self.body();
        // A batch holds whole records only: it was made of them.
        while let Ok(length) = record_length(rest) {
            let (record, behind) = rest.split_at(LENGTH + length);
            if part.count > 0 && part.byte_len() + record.len() > bytes_max {
                let Self { bytes, count } = std::mem::take(&mut part);
                parts.push(Part::plain(bytes, count));
            }
            if part.count == 0 {
                part.bytes.reserve_exact(bytes_max.min(rest.len()));
            }
            part.bytes.extend_from_slice(record);
            part.count += 1;
            rest = behind;
        }
        parts.push(Part::plain(part.bytes, part.count));
        parts
    }

    fn body(&self) -> &[u8] {
        self.bytes.get(ROOM..).unwrap_or_default()
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
    /// `body` holds `count` records.
    pub(crate) fn new(
        base_offset: u64,
        commit: CommitNumber,
        timestamp: Timestamp,
        count: u32,
        body: Bytes,
    ) -> Self {
        Self { base_offset, commit, timestamp, count, body }
    }

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

    /// The same records in memory of their own. As it is read, a segment may share the memory of its
    /// whole entry, up to 1 MiB, however little of it was asked for.
    #[must_use]
    pub fn detached(self) -> Self {
        Self { body: Bytes::copy_from_slice(&self.body), ..self }
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
pub(crate) fn record_length(body: &[u8]) -> Result<usize, DecodeError> {
    const CUT: DecodeError = DecodeError { what: "record length" };
    let (prefix, rest) = body.split_first_chunk::<LENGTH>().ok_or(CUT)?;
    let length = u32::from_le_bytes(*prefix) as usize;
    if length > rest.len() { Err(CUT) } else { Ok(length) }
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

    fn segment(values: &[Vec<u8>]) -> Segment {
        let batch = batch(values);
        let body = Bytes::copy_from_slice(batch.body());
        Segment::new(0, CommitNumber(1), Timestamp(10), batch.count(), body)
    }

    fn values(segment: &Segment) -> Vec<(u64, Vec<u8>)> {
        segment.records().map(Result::unwrap).map(|(at, r)| (at, r.value.to_vec())).collect()
    }

    #[test]
    fn a_detached_segment_leaves_its_entry() {
        let entry = segment(&[vec![1; 9], vec![2; 9]]).body;
        let mut segment = Segment::new(0, CommitNumber(1), Timestamp(10), 2, entry.clone());
        segment.cut(1, 100, KeepFirst::Yes).unwrap();
        assert!(!entry.is_unique());
        let segment = segment.detached();
        assert!(entry.is_unique());
        assert_eq!(values(&segment), [(0, vec![1; 9])]);
    }

    proptest! {
        #[test]
        fn a_segment_is_cut_on_both_sides(
            count in 1_u8..30,
            from in 0_u8..30,
            records in 0_usize..30,
            bytes in 0_usize..300,
        ) {
            let all: Vec<Vec<u8>> = (0..count).map(|n| vec![n; usize::from(n)]).collect();
            let mut segment = segment(&all);
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
            prop_assert_eq!(values(&segment), expected);
        }

        #[test]
        fn a_batch_in_parts_keeps_its_records_in_order(
            all in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..30),
            bytes_max in 1_usize..200,
        ) {
            let parts = batch(&all).into_parts(bytes_max);
            let mut found = Vec::new();
            for part in parts {
                prop_assert!(part.byte_len() <= bytes_max || part.count() == 1);
                let body = Bytes::copy_from_slice(part.body());
                let segment = Segment::new(0, CommitNumber(1), Timestamp(10), part.count(), body);
                found.extend(values(&segment).into_iter().map(|(_, value)| value));
            }
            prop_assert_eq!(found, all);
        }
    }
}
