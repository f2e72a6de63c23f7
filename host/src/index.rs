//! What the records of a topic can be looked up by, and the entries that events get for it.
//!
//! Entries are stored in the same commit as their records. Only this module knows how an id or a key
//! becomes an entry's key.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use stream_storage::IndexEntry;

use crate::event::Event;

/// The longest text that is an entry's key itself, in bytes: what every engine takes.
const VERBATIM_BYTES_MAX: usize = 1_024;

/// Comes before a hash that stands for a longer text. No text begins with it: it is not UTF-8.
const HASHED: u8 = 0xff;

/// What records are looked up by. Events without it get no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IndexKind {
    /// The id that the publisher gave: `id` of an event or a CloudEvent.
    Id,
    /// The key.
    Key,
}

impl IndexKind {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Id, Self::Key];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Key => "key",
        }
    }

    /// The kind that a word means.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// The number that it is stored under; never given another meaning.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Id => 0,
            Self::Key => 1,
        }
    }

    fn text<'e>(self, event: &'e Event<'_>) -> Option<&'e str> {
        match self {
            Self::Id => event.id.as_deref(),
            Self::Key => event.key.as_deref(),
        }
    }
}

/// The entries of an event that is record number `record` of its batch.
pub(crate) fn entries<'a>(
    kinds: &'a BTreeSet<IndexKind>,
    event: &'a Event<'_>,
    record: u32,
) -> impl Iterator<Item = IndexEntry> + 'a {
    kinds.iter().filter_map(move |kind| {
        Some(IndexEntry { kind: kind.number(), key: entry_key(kind.text(event)?), record })
    })
}

/// The entry's key that a text is found under: itself, or its hash if it is long, so that what an
/// entry takes is bounded.
pub(crate) fn entry_key(text: &str) -> Bytes {
    if text.len() <= VERBATIM_BYTES_MAX {
        return Bytes::copy_from_slice(text.as_bytes());
    }
    std::iter::once(HASHED).chain(Sha256::digest(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_an_entry_for_each_thing_that_it_brings() {
        let both = BTreeSet::from(IndexKind::ALL);
        let id = BTreeSet::from([IndexKind::Id]);
        let full = Event { id: Some("i".into()), key: Some("k".into()), ..Event::default() };
        let of = |kinds: &BTreeSet<IndexKind>, event: &Event<'_>| {
            let entries = entries(kinds, event, 7);
            entries.map(|entry| (entry.kind, entry.key, entry.record)).collect::<Vec<_>>()
        };
        assert_eq!(of(&both, &full), [(0, "i".into(), 7), (1, "k".into(), 7)]);
        assert_eq!(of(&id, &full), [(0, "i".into(), 7)]);
        assert_eq!(of(&both, &Event::default()), []);
        assert_eq!(of(&BTreeSet::new(), &full), []);
    }

    #[test]
    fn a_long_text_is_hashed_and_met_by_no_other() {
        let longest = "k".repeat(VERBATIM_BYTES_MAX);
        assert_eq!(entry_key(&longest), longest.as_bytes());
        let (one, other) = (entry_key(&format!("{longest}1")), entry_key(&format!("{longest}2")));
        assert_ne!(one, other);
        assert_eq!(one.len(), 33);
        assert!(std::str::from_utf8(&one).is_err());
    }
}
