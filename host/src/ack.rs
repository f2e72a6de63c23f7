//! The words for an acknowledgement: `durable` and `memory`.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};
use stream_storage::Ack;

/// The word on the wire.
pub fn as_str(ack: Ack) -> &'static str {
    match ack {
        Ack::Durable => "durable",
        Ack::Memory => "memory",
    }
}

/// The acknowledgement that a word means.
pub fn parse(word: &str) -> Option<Ack> {
    [Ack::Durable, Ack::Memory].into_iter().find(|ack| as_str(*ack) == word)
}

pub(crate) fn serialize<S: Serializer>(ack: &Ack, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(as_str(*ack))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ack, D::Error> {
    let word = String::deserialize(deserializer)?;
    parse(&word).ok_or_else(|| D::Error::custom("expected `durable` or `memory`"))
}
