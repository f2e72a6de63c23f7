//! Finding a place in a partition: entries are ordered by offset, time, commit and bytes alike, so
//! every search is a binary search over offsets.

use super::engine::Engine;
use super::keys::{PartitionKey, log};
use crate::StoreError;
use crate::entry::{Header, Place, Section, parse_header};

/// An entry without its records.
#[derive(Debug, Clone)]
pub(super) struct EntryHeader {
    pub(super) place: Place,
    pub(super) sections: Vec<Section>,
    pub(super) last_offset: u64,
    /// Bytes of its records.
    pub(super) bytes: u64,
}

impl EntryHeader {
    /// The offset of the first record for which `holds` is true of its section.
    fn first_where(&self, holds: impl Fn(&Section) -> bool) -> u64 {
        let before = self.sections.iter().take_while(|section| !holds(section));
        self.place.base_offset + before.map(|section| u64::from(section.count)).sum::<u64>()
    }
}

/// The entry that holds `offset`, or the next one if there is a gap.
pub(super) fn entry_at(
    engine: &Engine,
    partition: PartitionKey,
    offset: u64,
) -> Result<Option<(EntryHeader, bytes::Bytes)>, StoreError> {
    let range = log::key(partition, offset)..=log::key(partition, u64::MAX);
    let Some(guard) = engine.log(partition).range(range).next() else { return Ok(None) };
    let (key, value) = guard.into_inner()?;
    let entry = bytes::Bytes::from(value);
    let (_, last_offset) = log::parse_key(&key)?;
    let Header { place, sections, bytes, .. } = parse_header(&entry)?;
    Ok(Some((EntryHeader { place, sections, last_offset, bytes }, entry)))
}

/// The first entry within `range` for which `holds` is true, if it is false for all before.
pub(super) fn first_entry(
    engine: &Engine,
    partition: PartitionKey,
    range: std::ops::Range<u64>,
    holds: impl Fn(&EntryHeader) -> bool,
) -> Result<Option<EntryHeader>, StoreError> {
    let (mut low, mut high) = (range.start, range.end);
    let mut found = None;
    // Often the first one is it: retention looks again and again.
    if low < high
        && let Some((first, _)) = entry_at(engine, partition, low)?
        && holds(&first)
    {
        return Ok(Some(first));
    }
    while low < high {
        let middle = low + (high - low) / 2;
        match entry_at(engine, partition, middle)? {
            Some((header, _)) if header.place.base_offset < high => {
                if holds(&header) {
                    // A gap may lie before the entry: nothing is to be found in it.
                    high = header.place.base_offset.min(middle);
                    found = Some(header);
                } else {
                    low = header.last_offset + 1;
                }
            }
            _ => high = middle,
        }
    }
    Ok(found)
}

/// The first offset within `range` for whose section `holds` is true; the end of `range` if there
/// is none.
pub(super) fn first_offset(
    engine: &Engine,
    partition: PartitionKey,
    range: std::ops::Range<u64>,
    holds: impl Fn(&Section) -> bool,
) -> Result<u64, StoreError> {
    let end = range.end;
    let start = range.start;
    let found =
        first_entry(engine, partition, range, |header| header.sections.last().is_some_and(&holds))?;
    Ok(found.map_or(end, |header| header.first_where(&holds)).clamp(start, end))
}
