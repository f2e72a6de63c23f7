//! How far a live reader has come: one place in the order of all of a project's records.

use std::fmt;
use std::str::FromStr;

use stream_storage::{CommitNumber, Partition, ReadStart, TopicId};

use crate::slot::Slot;

/// The last record that a live reader has got. All that comes before it in the order of commit
/// number, topic id, partition and offset, it has got too: so this resumes any number of partitions,
/// of topics made later as well. Written as `commit.topic.partition.offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// The record's commit.
    pub commit: CommitNumber,
    /// Its partition.
    pub slot: Slot,
    /// Its offset there.
    pub offset: u64,
}

/// A text that is no cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected the `id` of an event as it was sent, got `{text}`")]
pub struct InvalidCursor {
    /// The input, cut at 64 characters.
    pub text: String,
}

impl Cursor {
    /// Behind all of this commit and before the next one.
    pub(super) fn behind(commit: CommitNumber) -> Self {
        let last = Slot::new(TopicId(u64::MAX), Partition(u32::MAX));
        Self { commit, slot: last, offset: u64::MAX }
    }

    /// Where a partition is read next.
    pub(crate) fn start(self, slot: Slot) -> ReadStart {
        match slot.cmp(&self.slot) {
            // Of this commit it has got what lies in partitions before the cursor's, and no more.
            std::cmp::Ordering::Less => ReadStart::AfterCommit(self.commit),
            std::cmp::Ordering::Equal => ReadStart::Offset(self.offset.saturating_add(1)),
            std::cmp::Ordering::Greater => {
                ReadStart::AfterCommit(CommitNumber(self.commit.0.saturating_sub(1)))
            }
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { commit, slot, offset } = self;
        write!(f, "{}.{}.{}.{offset}", commit.0, slot.topic.0, slot.partition.0)
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let parse = || {
            let mut parts = text.split('.');
            let cursor = Self {
                commit: CommitNumber(number(parts.next()?)?),
                slot: Slot::new(TopicId(number(parts.next()?)?), Partition(number(parts.next()?)?)),
                offset: number(parts.next()?)?,
            };
            parts.next().is_none().then_some(cursor)
        };
        parse().ok_or_else(|| InvalidCursor { text: text.chars().take(64).collect() })
    }
}

/// Digits alone: what was written is read, and nothing else.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cursor(commit: u64, topic: u64, partition: u32, offset: u64) -> Cursor {
        let slot = Slot::new(TopicId(topic), Partition(partition));
        Cursor { commit: CommitNumber(commit), slot, offset }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(parts in any::<(u64, u64, u32, u64)>()) {
            let written = cursor(parts.0, parts.1, parts.2, parts.3);
            prop_assert_eq!(written.to_string().parse(), Ok(written));
        }
    }

    #[test]
    fn what_was_never_written_is_refused() {
        for text in
            ["", "1", "1.2.3", "1.2.3.4.5", "1.2.3.", "a.2.3.4", "+1.2.3.4", "1.2.4294967296.4"]
        {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }

    #[test]
    fn behind_a_commit_every_partition_is_read_after_it() {
        let slot = Slot::new(TopicId(7), Partition(3));
        let behind = Cursor::behind(CommitNumber(9));
        assert_eq!(behind.start(slot), ReadStart::AfterCommit(CommitNumber(9)));
        assert_eq!(behind.to_string().parse(), Ok(behind));
    }

    #[test]
    fn a_commit_is_read_on_behind_the_cursors_partition_and_not_before_it() {
        let cursor = cursor(9, 2, 1, 5);
        let cases = [
            ((1, 7), ReadStart::AfterCommit(CommitNumber(9))),
            ((2, 0), ReadStart::AfterCommit(CommitNumber(9))),
            ((2, 1), ReadStart::Offset(6)),
            ((2, 2), ReadStart::AfterCommit(CommitNumber(8))),
            ((3, 0), ReadStart::AfterCommit(CommitNumber(8))),
        ];
        for ((topic, partition), expected) in cases {
            let slot = Slot::new(TopicId(topic), Partition(partition));
            assert_eq!(cursor.start(slot), expected, "{slot:?}");
        }
    }
}
