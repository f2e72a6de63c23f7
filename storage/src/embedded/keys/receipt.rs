//! The receipts of a producer's last sequences, one row a slot: sequence modulo 64.

use bytes::Bytes;

use super::cursor::Cursor;
use crate::{
    Appended, CommitNumber, DecodeError, Partition, ProducerStep, ProjectName, Receipt, Timestamp,
    TopicId,
};

/// How many of a producer's receipts are kept.
pub(in crate::embedded) const KEPT: u64 = 64;

/// A receipt and what it was given for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::embedded) struct StoredReceipt {
    pub(in crate::embedded) epoch: u64,
    pub(in crate::embedded) sequence: u64,
    pub(in crate::embedded) payload_digest: Option<[u8; 32]>,
    /// As it was given, not a duplicate and durable.
    pub(in crate::embedded) receipt: Receipt,
}

/// The receipt's row.
pub(in crate::embedded) fn key(project: &ProjectName, id: &str, sequence: u64) -> Vec<u8> {
    let mut key = super::producer::prefix(project, id);
    key.push(1);
    // The remainder is below 64.
    key.push((sequence % KEPT).to_le_bytes().first().copied().unwrap_or_default());
    key
}

/// What all receipts of a producer start with, from the key of its row.
pub(in crate::embedded) fn prefix_of(producer_key: &[u8]) -> Vec<u8> {
    let mut prefix = producer_key.to_vec();
    if let Some(last) = prefix.last_mut() {
        *last = 1;
    }
    prefix
}

impl StoredReceipt {
    pub(in crate::embedded) fn new(step: &ProducerStep, receipt: Receipt) -> Self {
        let ProducerStep { epoch, sequence, payload_digest, .. } = *step;
        Self { epoch, sequence, payload_digest, receipt }
    }

    pub(in crate::embedded) fn encode(&self) -> Vec<u8> {
        let Receipt { commit, timestamp, ref appends, ref note, .. } = self.receipt;
        let mut out = Vec::with_capacity(80 + 32 * appends.len() + note.len());
        for field in [self.epoch, self.sequence, commit.0, timestamp.0] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        match &self.payload_digest {
            None => out.push(0),
            Some(digest) => {
                out.push(1);
                out.extend_from_slice(digest);
            }
        }
        // A transaction has at most 8,192 appends.
        let count = u32::try_from(appends.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_le_bytes());
        for appended in appends {
            out.extend_from_slice(&appended.topic.0.to_le_bytes());
            out.extend_from_slice(&appended.partition.0.to_le_bytes());
            out.extend_from_slice(&appended.base_offset.to_le_bytes());
            out.extend_from_slice(&appended.count.to_le_bytes());
            out.extend_from_slice(&appended.timestamp.0.to_le_bytes());
        }
        out.extend_from_slice(note);
        out
    }

    pub(in crate::embedded) fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(value, "receipt");
        let (epoch, sequence) = (cursor.u64()?, cursor.u64()?);
        let (commit, timestamp) = (CommitNumber(cursor.u64()?), Timestamp(cursor.u64()?));
        let payload_digest = cursor.optional_digest()?;
        let count = cursor.u32()?;
        let mut appends = Vec::new();
        for _ in 0..count {
            appends.push(Appended {
                topic: TopicId(cursor.u64()?),
                partition: Partition(cursor.u32()?),
                base_offset: cursor.u64()?,
                count: cursor.u32()?,
                timestamp: Timestamp(cursor.u64()?),
            });
        }
        let note = Bytes::copy_from_slice(cursor.rest());
        let receipt = Receipt { commit, timestamp, appends, duplicate: false, durable: true, note };
        Ok(Self { epoch, sequence, payload_digest, receipt })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_reads_back() {
        let appended = Appended {
            topic: TopicId(1),
            partition: Partition(2),
            base_offset: 3,
            count: 4,
            timestamp: Timestamp(5),
        };
        for (appends, payload_digest, note) in [
            (vec![], None, Bytes::new()),
            (vec![appended, appended], Some([7; 32]), Bytes::from_static(b"note")),
        ] {
            let receipt = Receipt {
                commit: CommitNumber(8),
                timestamp: Timestamp(9),
                appends,
                duplicate: false,
                durable: true,
                note,
            };
            let stored = StoredReceipt { epoch: 10, sequence: 11, payload_digest, receipt };
            assert_eq!(StoredReceipt::decode(&stored.encode()), Ok(stored));
        }
    }

    #[test]
    fn sequences_64_apart_share_a_slot() {
        let project = ProjectName::parse("p").unwrap();
        assert_eq!(key(&project, "id", 1), key(&project, "id", 65));
        assert_ne!(key(&project, "id", 1), key(&project, "id", 2));
        let producer = super::super::producer::key(&project, "id");
        assert!(key(&project, "id", 1).starts_with(&prefix_of(&producer)));
    }
}
