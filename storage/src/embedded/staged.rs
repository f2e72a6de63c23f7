//! A transaction as the committer takes it: with all done to it that can be done by whoever commits,
//! beside others.

use super::entries::ENTRY_BYTES_MAX;
use crate::entry::Part;
use crate::{Append, IndexEntry, Partition, TopicId, Transaction};

/// A valid transaction, its records in the form that is stored.
#[derive(Debug)]
pub(super) struct Staged {
    /// Without its appends.
    pub(super) transaction: Transaction,
    pub(super) appends: Vec<StagedAppend>,
}

/// Records for one partition.
#[derive(Debug)]
pub(super) struct StagedAppend {
    pub(super) topic: TopicId,
    pub(super) partition: Partition,
    /// None longer than an entry, unless it is one record.
    pub(super) parts: Vec<Part>,
    pub(super) index: Vec<IndexEntry>,
}

impl Staged {
    /// Packs the records if that is worth it: about 1 ms a MiB. The first ones tell, as those of one
    /// transaction are usually alike.
    pub(super) fn new(mut transaction: Transaction) -> Self {
        let mut is_worth_it = None;
        let mut pack = |part: Part| {
            let pack = part.is_long() && *is_worth_it.get_or_insert_with(|| part.packs_well());
            if pack { part.pack() } else { part }
        };
        let appends = std::mem::take(&mut transaction.appends).into_iter();
        let appends = appends.map(|Append { topic, partition, batch, index }| {
            let parts = batch.into_parts(ENTRY_BYTES_MAX).into_iter().map(&mut pack).collect();
            StagedAppend { topic, partition, parts, index }
        });
        let appends = appends.collect();
        Self { transaction, appends }
    }
}

impl StagedAppend {
    /// How many records there are.
    pub(super) fn count(&self) -> u32 {
        self.parts.iter().map(Part::count).sum()
    }

    /// Bytes of the records.
    pub(super) fn byte_len(&self) -> usize {
        self.parts.iter().map(Part::byte_len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::noise;
    use crate::entry::{Place, Section, parse_header};
    use crate::{CommitNumber, ProjectName, Record, RecordBatch, Timestamp};

    /// For each append the bytes that its entry takes, and those of its records.
    fn lengths(values: &[Vec<u8>]) -> Vec<(usize, u64)> {
        let mut transaction = Transaction::new(ProjectName::system());
        for (partition, value) in (0..).zip(values) {
            let mut batch = RecordBatch::default();
            batch.push(&Record { value, ..Record::default() }).unwrap();
            transaction.append(TopicId(1), Partition(partition), batch);
        }
        let staged = Staged::new(transaction);
        let mut lengths = Vec::new();
        for append in staged.appends {
            assert_eq!(append.count(), 1);
            let byte_len = append.byte_len() as u64;
            let [part] = <[Part; 1]>::try_from(append.parts).unwrap();
            let place = Place { base_offset: 0, bytes_before: 0 };
            let section = Section { commit: CommitNumber(1), timestamp: Timestamp(1), count: 1 };
            let entry = part.into_entry(place, section);
            assert_eq!(parse_header(&entry).unwrap().bytes, byte_len);
            lengths.push((entry.len(), byte_len));
        }
        lengths
    }

    #[test]
    fn the_first_records_that_are_long_enough_tell_whether_to_pack() {
        let (short, even, random) = (vec![7; 100], vec![7; 10_000], noise(10_000));
        let packed = lengths(&[short.clone(), even.clone(), random.clone(), even.clone()]);
        assert_eq!(packed.iter().map(|lengths| lengths.1).sum::<u64>(), 30_120);
        let small: Vec<bool> = packed.iter().map(|lengths| lengths.0 < 1000).collect();
        assert_eq!(small, [true, true, false, true]);
        let plain = lengths(&[short, random, even]);
        assert!(plain.iter().skip(1).all(|lengths| lengths.0 > 10_000), "{plain:?}");
    }
}
