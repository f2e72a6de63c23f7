//! Which topics live, which are dropped and still take space, and which have been.

use super::cursor::Cursor;
use crate::{DecodeError, TopicId};

/// What all topic rows start with.
pub(in crate::embedded) const PREFIX: [u8; 1] = [super::TOPIC];

/// Whether a topic takes appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::embedded) enum Life {
    Live,
    /// Until its records are gone from the disk.
    Dropped,
    /// For good, so that the id is never accepted again.
    Reclaimed,
}

pub(in crate::embedded) fn key(topic: TopicId) -> [u8; 9] {
    tagged(super::TOPIC, topic)
}

/// A tag and a topic.
pub(super) fn tagged(tag: u8, topic: TopicId) -> [u8; 9] {
    let mut key = [tag; 9];
    let (_, rest) = key.split_at_mut(1);
    rest.copy_from_slice(&topic.0.to_be_bytes());
    key
}

pub(in crate::embedded) fn parse_key(key: &[u8]) -> Result<TopicId, DecodeError> {
    let mut cursor = Cursor::new(key, "topic key");
    cursor.bytes(1)?;
    let topic = TopicId(cursor.u64_be()?);
    cursor.end()?;
    Ok(topic)
}

impl Life {
    pub(in crate::embedded) fn encode(self) -> [u8; 1] {
        match self {
            Self::Live => [0],
            Self::Dropped => [1],
            Self::Reclaimed => [2],
        }
    }

    pub(in crate::embedded) fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        match value {
            [0] => Ok(Self::Live),
            [1] => Ok(Self::Dropped),
            [2] => Ok(Self::Reclaimed),
            _ => Err(DecodeError { what: "topic" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_row_reads_back() {
        assert_eq!(parse_key(&key(TopicId(9))), Ok(TopicId(9)));
        for life in [Life::Live, Life::Dropped, Life::Reclaimed] {
            assert_eq!(Life::decode(&life.encode()), Ok(life));
        }
    }
}
