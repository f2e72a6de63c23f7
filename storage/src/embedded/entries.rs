//! What a lot appends to one partition, as entries of its log.

use super::keys::end::End;
use super::tail::TailEntry;
use crate::entry::{Part, Place, SECTIONS_MAX, Section, merge_entry};

/// Small parts are merged into one entry until it has this many bytes of records.
const MERGED_BYTES_MAX: usize = 256 << 10;
/// A larger batch becomes several entries: an entry is what a read loads, however little it wants.
/// In bytes of records.
pub(super) const ENTRY_BYTES_MAX: usize = 1 << 20;

/// Records of one partition, in order, and where they begin.
pub(super) struct PartitionAppends {
    end: End,
    parts: Vec<(Part, Section)>,
}

impl PartitionAppends {
    /// Nothing yet, behind `start`.
    pub(super) fn new(start: End) -> Self {
        Self { end: start, parts: Vec::new() }
    }

    /// Adds what one transaction appends; `section` tells of all of it.
    pub(super) fn push(&mut self, parts: Vec<Part>, section: Section) {
        self.parts.extend(parts.into_iter().map(|part| {
            let count = part.count();
            (part, Section { count, ..section })
        }));
    }

    /// The entries, in order.
    pub(super) fn into_entries(mut self) -> Vec<TailEntry> {
        let mut entries = Vec::new();
        let mut group = Vec::new();
        let mut group_bytes = 0;
        for (records, section) in std::mem::take(&mut self.parts) {
            let bytes = records.byte_len();
            let is_full = group_bytes + bytes > MERGED_BYTES_MAX || group.len() == SECTIONS_MAX;
            if is_full && !group.is_empty() {
                entries.push(self.entry(std::mem::take(&mut group)));
                group_bytes = 0;
            }
            group_bytes += bytes;
            group.push((records, section));
        }
        if !group.is_empty() {
            entries.push(self.entry(group));
        }
        entries
    }

    /// One entry of a group of parts; the usual one is finished in place.
    fn entry(&mut self, mut group: Vec<(Part, Section)>) -> TailEntry {
        let place = Place { base_offset: self.end.offset, bytes_before: self.end.bytes };
        let mut record_bytes = 0;
        for (records, _) in &group {
            self.end.offset += u64::from(records.count());
            record_bytes += records.byte_len();
        }
        self.end.bytes += record_bytes as u64;
        let bytes = match (group.pop(), group.is_empty()) {
            (Some((records, section)), true) => records.into_entry(place, section),
            (last, _) => {
                group.extend(last);
                merge_entry(place, &group)
            }
        };
        TailEntry { start: place.base_offset, end: self.end.offset, record_bytes, bytes }
    }
}
