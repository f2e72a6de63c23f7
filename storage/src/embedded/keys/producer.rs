//! How far a producer has come.

use super::cursor::Cursor;
use super::project_prefix;
use crate::{DecodeError, ProducerState, ProjectName, Timestamp};

/// What is known of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::embedded) struct Producer {
    pub(in crate::embedded) state: ProducerState,
    /// When it is forgotten; never, if there is none.
    pub(in crate::embedded) expires: Option<Timestamp>,
}

impl Producer {
    /// Whether it counts as never seen.
    pub(in crate::embedded) fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    pub(in crate::embedded) fn encode(self) -> Vec<u8> {
        // 0 is no time at which anything expires.
        let expires = self.expires.map_or(0, |expires| expires.0);
        [self.state.epoch, self.state.last_sequence, expires]
            .iter()
            .flat_map(|field| field.to_le_bytes())
            .collect()
    }

    pub(in crate::embedded) fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(value, "producer");
        let state = ProducerState { epoch: cursor.u64()?, last_sequence: cursor.u64()? };
        let expires = Some(Timestamp(cursor.u64()?)).filter(|expires| expires.0 != 0);
        cursor.end()?;
        Ok(Self { state, expires })
    }
}

/// What the producer's row and its receipts start with. `id` has at most 255 bytes.
pub(super) fn prefix(project: &ProjectName, id: &str) -> Vec<u8> {
    let mut key = project_prefix(super::PRODUCER, project);
    key.push(u8::try_from(id.len()).unwrap_or(u8::MAX));
    key.extend_from_slice(id.as_bytes());
    key
}

/// The producer's row.
pub(in crate::embedded) fn key(project: &ProjectName, id: &str) -> Vec<u8> {
    let mut key = prefix(project, id);
    key.push(0);
    key
}

/// The row by which an expired producer is found.
pub(in crate::embedded) fn expiry_key(expires: Timestamp, producer_key: &[u8]) -> Vec<u8> {
    let mut key = vec![super::EXPIRY];
    key.extend_from_slice(&expires.0.to_be_bytes());
    key.extend_from_slice(producer_key.get(1..).unwrap_or_default());
    key
}

/// What all expiry rows start with.
pub(in crate::embedded) const EXPIRY_PREFIX: [u8; 1] = [super::EXPIRY];

/// When a producer expires, and its row's key.
pub(in crate::embedded) fn parse_expiry_key(
    key: &[u8],
) -> Result<(Timestamp, Vec<u8>), DecodeError> {
    let mut cursor = Cursor::new(key, "expiry key");
    cursor.bytes(1)?;
    let expires = Timestamp(cursor.u64_be()?);
    let mut producer_key = vec![super::PRODUCER];
    producer_key.extend_from_slice(cursor.rest());
    Ok((expires, producer_key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_reads_back() {
        for expires in [None, Some(Timestamp(5))] {
            let state = ProducerState { epoch: 1, last_sequence: u64::MAX };
            let producer = Producer { state, expires };
            assert_eq!(Producer::decode(&producer.encode()), Ok(producer));
        }
    }

    #[test]
    fn an_expiry_row_leads_to_its_producer() {
        let key = key(&ProjectName::parse("p").unwrap(), "id");
        let expiry = expiry_key(Timestamp(9), &key);
        assert_eq!(parse_expiry_key(&expiry), Ok((Timestamp(9), key)));
    }
}
