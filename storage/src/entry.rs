//! What the store keeps: records of one partition as one entry.
//!
//! # Layout
//!
//! All integers are little-endian.
//!
//! | field | bytes |
//! | --- | --- |
//! | version | 1: the value 1, or 2 if records are packed |
//! | flags | 1, none defined, must be 0 |
//! | section count | 2 |
//! | record count | 4 |
//! | base offset | 8 |
//! | bytes of records in the partition before this entry, ever | 8 |
//! | sections | each: commit number 8, timestamp 8, record count 4; in version 2 then bytes as stored 4, bytes of records 4 |
//! | records, by section | each record: length 4, then the encoding of [`Record`](crate::Record) |
//!
//! A section is what one transaction appended; small transactions that share a commit and a
//! partition share an entry. In version 2 the records of a section whose two lengths differ are an
//! LZ4 block. All other bytes of records that the store tells of or is told of are those before
//! packing.

use bytes::{Buf, Bytes};
use lz4::block::{self, CompressionMode};

use crate::batch::{LENGTH, RECORD_BYTES_MAX, record_length};
use crate::{CommitNumber, DecodeError, Segment, Timestamp};

const PLAIN: u8 = 1;
const PACKED: u8 = 2;
const HEADER: usize = 24;
const PLAIN_SECTION: usize = 20;
const PACKED_SECTION: usize = 28;
/// The room for a header that each batch of records begins with, so that the usual entry, of one
/// section, is finished in place, without a copy.
pub(crate) const ROOM: usize = HEADER + PLAIN_SECTION;
const PACKED_ROOM: usize = HEADER + PACKED_SECTION;

/// Less is not worth the time.
const PACK_BYTES_MIN: usize = 2 << 10;
/// LZ4 skips places sooner where nothing repeats: events half random take it 0.6 times as long as with
/// its usual 1, and real ones are 4 % longer.
const PACKING: CompressionMode = CompressionMode::FAST(4);
/// Whether records can be packed well is told by so many bytes of them.
const SAMPLE_BYTES: usize = 4 << 10;
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

/// An entry without its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) place: Place,
    pub(crate) sections: Vec<Section>,
    /// Bytes of its records.
    pub(crate) bytes: u64,
    /// Of each section, if records are packed.
    packed: Option<Vec<Lengths>>,
    /// Where the records begin.
    body: usize,
}

/// Bytes of a section's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lengths {
    stored: u32,
    records: u32,
}

/// Records that become a section of an entry, as they will be stored.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Room for the header of an entry of this part alone, then the records.
    bytes: Vec<u8>,
    count: u32,
    /// Bytes of the records, if they are packed.
    unpacked: Option<usize>,
}

impl Part {
    /// Records of a batch, behind [`ROOM`].
    pub(crate) fn plain(bytes: Vec<u8>, count: u32) -> Self {
        Self { bytes, count, unpacked: None }
    }

    /// Whether it is long enough to be packed at all.
    pub(crate) fn is_long(&self) -> bool {
        self.byte_len() >= PACK_BYTES_MIN
    }

    /// Whether its first records can be packed well. Takes a few microseconds.
    pub(crate) fn packs_well(&self) -> bool {
        let records = self.body();
        pack(records.get(..SAMPLE_BYTES).unwrap_or(records)).is_some()
    }

    /// The same, packed if that makes it two thirds as long at most. Takes about 1 ms a MiB.
    pub(crate) fn pack(self) -> Self {
        match (self.unpacked, pack(self.body())) {
            (None, Some(bytes)) => {
                Self { bytes, count: self.count, unpacked: Some(self.body().len()) }
            }
            _ => self,
        }
    }

    /// How many records there are.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of the records.
    pub(crate) fn byte_len(&self) -> usize {
        self.unpacked.unwrap_or_else(|| self.body().len())
    }

    /// The records as they will be stored.
    pub(crate) fn body(&self) -> &[u8] {
        let room = if self.unpacked.is_some() { PACKED_ROOM } else { ROOM };
        self.bytes.get(room..).unwrap_or_default()
    }

    fn lengths(&self) -> Lengths {
        let length = |bytes| u32::try_from(bytes).unwrap_or(u32::MAX);
        Lengths { stored: length(self.body().len()), records: length(self.byte_len()) }
    }

    /// The entry of this part alone, made in place.
    pub(crate) fn into_entry(mut self, place: Place, section: Section) -> Bytes {
        let mut header = Vec::with_capacity(PACKED_ROOM);
        let lengths = self.unpacked.map(|_| self.lengths());
        put_header(&mut header, place, &[section], lengths.as_slice());
        if let Some(room) = self.bytes.get_mut(..header.len()) {
            room.copy_from_slice(&header);
        }
        Bytes::from(self.bytes)
    }
}

/// The records packed, behind room for a header; `None` if that is more than two thirds of them.
fn pack(records: &[u8]) -> Option<Vec<u8>> {
    let mut room = vec![0; PACKED_ROOM + records.len() / 3 * 2];
    let packed =
        block::compress_to_buffer(records, Some(PACKING), false, room.get_mut(PACKED_ROOM..)?);
    // A copy: what is kept for long must not keep room that it does not need.
    packed.ok().and_then(|packed| room.get(..PACKED_ROOM + packed)).map(<[u8]>::to_vec)
}

/// The entry of several parts that share a commit and a partition, in their order.
pub(crate) fn merge_entry(place: Place, parts: &[(Part, Section)]) -> Bytes {
    let body: usize = parts.iter().map(|(part, _)| part.body().len()).sum();
    let mut bytes = Vec::with_capacity(HEADER + PACKED_SECTION * parts.len() + body);
    let sections: Vec<Section> = parts.iter().map(|(_, section)| *section).collect();
    let is_packed = parts.iter().any(|(part, _)| part.unpacked.is_some());
    let lengths: Vec<Lengths> =
        if is_packed { parts.iter().map(|(part, _)| part.lengths()).collect() } else { Vec::new() };
    put_header(&mut bytes, place, &sections, &lengths);
    for (part, _) in parts {
        bytes.extend_from_slice(part.body());
    }
    Bytes::from(bytes)
}

/// Without `lengths` nothing is packed.
fn put_header(out: &mut Vec<u8>, place: Place, sections: &[Section], lengths: &[Lengths]) {
    let section_count = u16::try_from(sections.len()).unwrap_or(u16::MAX);
    let record_count: u32 = sections.iter().map(|section| section.count).sum();
    out.extend_from_slice(&[if lengths.is_empty() { PLAIN } else { PACKED }, 0]);
    out.extend_from_slice(&section_count.to_le_bytes());
    out.extend_from_slice(&record_count.to_le_bytes());
    out.extend_from_slice(&place.base_offset.to_le_bytes());
    out.extend_from_slice(&place.bytes_before.to_le_bytes());
    let mut lengths = lengths.iter();
    for section in sections {
        out.extend_from_slice(&section.commit.0.to_le_bytes());
        out.extend_from_slice(&section.timestamp.0.to_le_bytes());
        out.extend_from_slice(&section.count.to_le_bytes());
        if let Some(lengths) = lengths.next() {
            out.extend_from_slice(&lengths.stored.to_le_bytes());
            out.extend_from_slice(&lengths.records.to_le_bytes());
        }
    }
}

/// An entry without its records: for searches by time and by commit.
pub(crate) fn parse_header(entry: &[u8]) -> Result<Header, DecodeError> {
    const CUT: DecodeError = DecodeError { what: "entry header" };
    let mut fields = entry.get(..HEADER).ok_or(CUT)?;
    let (version, flags) = (fields.get_u8(), fields.get_u8());
    let section_length = match version {
        PLAIN => PLAIN_SECTION,
        PACKED => PACKED_SECTION,
        _ => return Err(DecodeError { what: "entry version" }),
    };
    if flags != 0 {
        return Err(DecodeError { what: "entry version" });
    }
    let section_count = usize::from(fields.get_u16_le());
    let record_count = fields.get_u32_le();
    let place = Place { base_offset: fields.get_u64_le(), bytes_before: fields.get_u64_le() };
    let body = HEADER + section_length * section_count;
    let mut fields = entry.get(HEADER..body).ok_or(CUT)?;
    let mut sections = Vec::with_capacity(section_count);
    let mut packed = (version == PACKED).then(|| Vec::with_capacity(section_count));
    for _ in 0..section_count {
        sections.push(Section {
            commit: CommitNumber(fields.get_u64_le()),
            timestamp: Timestamp(fields.get_u64_le()),
            count: fields.get_u32_le(),
        });
        if let Some(lengths) = &mut packed {
            lengths.push(Lengths { stored: fields.get_u32_le(), records: fields.get_u32_le() });
        }
    }
    let total: u64 = sections.iter().map(|section| u64::from(section.count)).sum();
    if total != u64::from(record_count) {
        return Err(DecodeError { what: "entry record count" });
    }
    let bytes = match &packed {
        None => (entry.len() - body) as u64,
        Some(lengths) => lengths.iter().map(|lengths| u64::from(lengths.records)).sum(),
    };
    Ok(Header { place, sections, bytes, packed, body })
}

/// The segments of an entry; they share its bytes as far as those are not packed.
pub(crate) fn parse_entry(entry: &Bytes) -> Result<Vec<Segment>, DecodeError> {
    let Header { place, sections, packed, body, .. } = parse_header(entry)?;
    let mut base_offset = place.base_offset;
    let mut body = entry.slice(body..);
    let mut segments = Vec::with_capacity(sections.len());
    let last = sections.len().saturating_sub(1);
    let mut packed = packed.map(Vec::into_iter);
    for (number, Section { commit, timestamp, count }) in sections.into_iter().enumerate() {
        let records = match packed.as_mut().and_then(Iterator::next) {
            Some(lengths) => take_section(&mut body, lengths)?,
            // The last section is what is left, so that the usual entry is not walked.
            None if number == last => body.split_off(0),
            None => {
                let length = records_length(&body, count)?;
                body.split_to(length)
            }
        };
        segments.push(Segment::new(base_offset, commit, timestamp, count, records));
        base_offset += u64::from(count);
    }
    Ok(segments)
}

/// The records of the first section of `body`.
fn take_section(body: &mut Bytes, lengths: Lengths) -> Result<Bytes, DecodeError> {
    const CUT: DecodeError = DecodeError { what: "packed records" };
    let (stored, records) = (lengths.stored as usize, lengths.records as usize);
    if stored > body.len() || records > LENGTH + RECORD_BYTES_MAX {
        return Err(CUT);
    }
    let section = body.split_to(stored);
    if stored == records {
        return Ok(section);
    }
    match block::decompress(&section, Some(i32::try_from(records).map_err(|_| CUT)?)) {
        Ok(unpacked) if unpacked.len() == records => Ok(unpacked.into()),
        _ => Err(CUT),
    }
}

fn records_length(body: &[u8], count: u32) -> Result<usize, DecodeError> {
    let mut end = 0;
    for _ in 0..count {
        end += LENGTH + record_length(body.get(end..).unwrap_or_default())?;
    }
    Ok(end)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{Record, RecordBatch};
    use proptest::prelude::*;

    fn batch(values: &[Vec<u8>]) -> RecordBatch {
        let mut batch = RecordBatch::default();
        for value in values {
            batch.push(&Record { value, ..Record::default() }).unwrap();
        }
        batch
    }

    fn part(values: &[Vec<u8>]) -> Part {
        let parts: [Part; 1] = batch(values).into_parts(usize::MAX).try_into().unwrap();
        let [part] = parts;
        part
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

    /// Bytes that cannot be packed.
    pub(crate) fn noise(length: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn the_bytes_of_version_1_do_not_change() {
        let entry = part(&[b"{}".to_vec()]).into_entry(place(7), section(3, 1));
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
    fn the_bytes_of_version_2_do_not_change() {
        let (short, long) = (vec![b'x'; 2], vec![b'y'; 3000]);
        let parts = [(part(&[short]), section(3, 1)), (part(&[long]).pack(), section(4, 1))];
        let entry = merge_entry(place(7), &parts);
        let header = [
            &[2, 0][..],
            &[2, 0],
            &[2, 0, 0, 0],
            &[7, 0, 0, 0, 0, 0, 0, 0],
            &[9, 0, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0, 0, 0, 0, 0, 30, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
            &[7, 0, 0, 0, 7, 0, 0, 0],
            &[4, 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
        ]
        .concat();
        let (got, rest) = entry.split_at(header.len());
        assert_eq!(got, header);
        let mut rest = rest;
        let (stored, records) = (rest.get_u32_le() as usize, rest.get_u32_le());
        assert_eq!(records, 3005);
        assert_eq!(rest.split_at(7).0, [3, 0, 0, 0, 0, b'x', b'x']);
        // An LZ4 block: its form is not ours to choose, what comes out of it is.
        let unpacked = block::decompress(rest.split_at(7).1, Some(3005)).unwrap();
        assert_eq!(rest.len(), 7 + stored);
        assert_eq!(unpacked, part(&[vec![b'y'; 3000]]).body());
    }

    #[test]
    fn an_entry_of_a_later_version_is_refused() {
        let mut entry = part(&[vec![1]]).into_entry(place(0), section(1, 1)).to_vec();
        entry[0] = 3;
        assert_eq!(parse_header(&entry), Err(DecodeError { what: "entry version" }));
    }

    #[test]
    fn what_packing_hardly_shortens_is_kept_as_it_is() {
        for (value, is_packed) in [
            (vec![b'x'; 1000], false),
            (vec![b'x'; 3000], true),
            (noise(3000), false),
            (noise(100_000), false),
            ([noise(4096), vec![b'x'; 100_000]].concat(), false),
            ([vec![b'x'; 4096], noise(100_000)].concat(), false),
            ([vec![b'x'; 40_000], noise(60_000)].concat(), true),
            ([vec![b'x'; 30_000], noise(70_000)].concat(), false),
        ] {
            let plain = part(std::slice::from_ref(&value));
            let length = plain.byte_len();
            let is_worth_it = plain.is_long() && plain.packs_well();
            let part = if is_worth_it { plain.pack() } else { plain };
            assert_eq!(part.unpacked.is_some(), is_packed, "{length}");
            assert_eq!(part.byte_len(), length);
            let entry = part.into_entry(place(5), section(1, 1));
            assert_eq!(parse_header(&entry).unwrap().bytes, length as u64);
            assert_eq!(values(&parse_entry(&entry).unwrap()), [(5, value)]);
        }
    }

    proptest! {
        #[test]
        fn parts_that_share_an_entry_read_back_in_order(
            base in 0_u64..1 << 60,
            batches in proptest::collection::vec(
                (
                    any::<bool>(),
                    proptest::collection::vec(
                        prop_oneof![
                            proptest::collection::vec(any::<u8>(), 0..40),
                            (any::<u8>(), 0_usize..3000).prop_map(|(byte, length)| vec![byte; length]),
                        ],
                        1..8,
                    ),
                ),
                1..6,
            ),
        ) {
            let parts: Vec<_> = batches
                .iter()
                .zip(1..)
                .map(|((pack, values), commit)| {
                    let part = part(values);
                    let section = section(commit, part.count());
                    (if *pack { part.pack() } else { part }, section)
                })
                .collect();
            let entry = merge_entry(place(base), &parts);
            let expected: Vec<_> =
                (base..).zip(batches.iter().flat_map(|(_, values)| values.clone())).collect();
            let segments = parse_entry(&entry).unwrap();
            prop_assert_eq!(values(&segments), expected);
            let header = parse_header(&entry).unwrap();
            let bytes: usize = segments.iter().map(Segment::byte_len).sum();
            prop_assert_eq!(header.bytes, bytes as u64);
            let sections: Vec<_> = parts.iter().map(|(_, section)| *section).collect();
            prop_assert_eq!(header.sections, sections);
            if let [(only, section)] = &parts[..] {
                prop_assert_eq!(only.clone().into_entry(place(base), *section), entry);
            }
        }

        #[test]
        fn damaged_entries_never_panic(
            version in PLAIN..=PACKED,
            bytes in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = version;
            }
            for segment in parse_entry(&Bytes::from(bytes)).unwrap_or_default() {
                let _ = segment.records().count();
            }
        }

        #[test]
        fn packed_records_that_are_damaged_never_panic(
            at in 0_usize..200,
            byte in any::<u8>(),
        ) {
            let value: Vec<u8> = (0..30_u8).flat_map(|n| [n; 100]).collect();
            let packed = part(&[value]).pack();
            let mut entry = packed.into_entry(place(0), section(1, 1)).to_vec();
            if let Some(at) = entry.get_mut(at) {
                *at = byte;
            }
            for segment in parse_entry(&Bytes::from(entry)).unwrap_or_default() {
                let _ = segment.records().count();
            }
        }
    }
}
