//! The last commit number: written with every lot, and chained to the lot before it, so that a lot
//! that is missing among the journals is noticed.

use super::cursor::Cursor;
use crate::{CommitNumber, DecodeError};

/// The row's key; no other keyspace has a key of one byte.
pub(in crate::embedded) const KEY: [u8; 1] = [super::COMMIT];

/// The row's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::embedded) struct LastCommit {
    /// The lot's last commit.
    pub(in crate::embedded) last: CommitNumber,
    /// The last commit of the lot before.
    pub(in crate::embedded) previous: CommitNumber,
}

impl LastCommit {
    pub(in crate::embedded) fn encode(self) -> [u8; 16] {
        let mut value = [0; 16];
        let (last, previous) = value.split_at_mut(8);
        last.copy_from_slice(&self.last.0.to_le_bytes());
        previous.copy_from_slice(&self.previous.0.to_le_bytes());
        value
    }

    pub(in crate::embedded) fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(value, "last commit");
        let last = CommitNumber(cursor.u64()?);
        let previous = CommitNumber(cursor.u64()?);
        cursor.end()?;
        Ok(Self { last, previous })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_commit_reads_back() {
        let row = LastCommit { last: CommitNumber(7), previous: CommitNumber(5) };
        assert_eq!(LastCommit::decode(&row.encode()), Ok(row));
    }
}
