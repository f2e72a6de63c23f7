//! What a lot appends to one partition, as entries of its log.

use super::keys::end::End;
use super::tail::TailEntry;
use crate::RecordBatch;
use crate::batch::{Place, SECTIONS_MAX, Section, merge_entry};

/// Small batches are merged into one entry until it has this many bytes.
const MERGED_BYTES_MAX: usize = 256 << 10;
/// A larger batch becomes several entries: an entry is what a read loads, however little it wants.
const ENTRY_BYTES_MAX: usize = 1 << 20;

/// Batches of one partition, in order, and where they begin.
pub(super) struct PartitionAppends {
    end: End,
    batches: Vec<(RecordBatch, Section)>,
}

impl PartitionAppends {
    /// Nothing yet, behind `start`.
    pub(super) fn new(start: End) -> Self {
        Self { end: start, batches: Vec::new() }
    }

    pub(super) fn push(&mut self, batch: RecordBatch, section: Section) {
        if batch.byte_len() <= ENTRY_BYTES_MAX {
            self.batches.push((batch, section));
            return;
        }
        let parts = batch.split(ENTRY_BYTES_MAX).into_iter();
        self.batches.extend(parts.map(|part| {
            let count = part.count();
            (part, Section { count, ..section })
        }));
    }

    /// The entries, in order.
    pub(super) fn into_entries(mut self) -> Vec<TailEntry> {
        let mut entries = Vec::new();
        let mut group = Vec::new();
        let mut group_bytes = 0;
        for (records, section) in std::mem::take(&mut self.batches) {
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

    /// One entry of a group of batches; the usual one batch is finished in place.
    fn entry(&mut self, mut group: Vec<(RecordBatch, Section)>) -> TailEntry {
        let place = Place { base_offset: self.end.offset, bytes_before: self.end.bytes };
        for (records, _) in &group {
            self.end.offset += u64::from(records.count());
            self.end.bytes += records.byte_len() as u64;
        }
        let bytes = match (group.pop(), group.is_empty()) {
            (Some((records, section)), true) => records.into_entry(place, section),
            (last, _) => {
                group.extend(last);
                merge_entry(place, &group)
            }
        };
        TailEntry { start: place.base_offset, end: self.end.offset, bytes }
    }
}
