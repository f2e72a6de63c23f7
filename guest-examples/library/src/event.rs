//! One event, as the functions of a plugin see it: borrowed from the columns of its batch.

use std::fmt;

use crate::bindings::types::{Event as OwnedEvent, HeaderColumns};

/// An event, borrowed from its batch.
#[derive(Clone)]
pub struct Event<'a> {
    pub(crate) id: Option<&'a [u8]>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) time: Option<&'a [u8]>,
    pub(crate) content_type: Option<&'a [u8]>,
    pub(crate) headers: Headers<'a>,
    pub(crate) value: &'a [u8],
}

impl<'a> Event<'a> {
    /// An event with nothing but a value: for tests of plugins.
    #[must_use]
    pub fn from_value(value: &'a [u8]) -> Self {
        Self {
            id: None,
            key: None,
            time: None,
            content_type: None,
            headers: Headers::default(),
            value,
        }
    }

    /// The publisher's identity of the event, as its source gave it.
    #[must_use]
    pub fn id(&self) -> Option<&'a str> {
        text(self.id)
    }

    /// What orders the event: events of one key share a partition.
    #[must_use]
    pub fn key(&self) -> Option<&'a str> {
        text(self.key)
    }

    /// When it happened, RFC 3339, as the publisher wrote it.
    #[must_use]
    pub fn time(&self) -> Option<&'a str> {
        text(self.time)
    }

    /// The media type of the value. Without one it is JSON, or unknown.
    #[must_use]
    pub fn content_type(&self) -> Option<&'a str> {
        text(self.content_type)
    }

    /// Names and values of the headers, in the order in which they were published.
    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        self.headers.clone()
    }

    /// The value of the header with exactly this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers().find(|(its_name, _)| *its_name == name).map(|(_, value)| value)
    }

    /// The payload, byte for byte as it was published.
    #[must_use]
    pub fn value(&self) -> &'a [u8] {
        self.value
    }

    /// A copy to change and to answer with, in an [`Outcome::Replace`](crate::Outcome::Replace).
    #[must_use]
    pub fn to_owned(&self) -> OwnedEvent {
        OwnedEvent {
            id: self.id().map(str::to_owned),
            key: self.key().map(str::to_owned),
            time: self.time().map(str::to_owned),
            content_type: self.content_type().map(str::to_owned),
            headers: self.headers().map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
            value: self.value.to_vec(),
        }
    }
}

impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_owned().fmt(f)
    }
}

/// An iterator over the headers of an [`Event`]: names and values.
#[derive(Clone, Debug, Default)]
pub struct Headers<'a> {
    pub(crate) columns: Option<&'a HeaderColumns>,
    pub(crate) next: u32,
    pub(crate) end: u32,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        let columns = self.columns?;
        let header = (text(columns.names.get(self.next))?, text(columns.values.get(self.next))?);
        self.next += 1;
        Some(header)
    }
}

fn text(bytes: Option<&[u8]>) -> Option<&str> {
    str::from_utf8(bytes?).ok()
}

#[cfg(test)]
mod tests {
    use crate::{Batch, Event, OwnedEvent};

    #[test]
    fn a_header_is_found_by_its_exact_name() {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let with = |headers| OwnedEvent { headers, ..OwnedEvent::default() };
        let batch = Batch::from_iter([
            with(vec![header("a", "1"), header("b", "")]),
            with(vec![]),
            with(vec![header("b", "3")]),
        ]);
        let events: Vec<Event> = batch.events().collect();
        let found = |name| events.iter().map(|event| event.header(name)).collect::<Vec<_>>();
        assert_eq!(found("a"), [Some("1"), None, None]);
        assert_eq!(found("b"), [Some(""), None, Some("3")]);
        assert_eq!(found("A"), [None, None, None]);
    }

    #[test]
    fn text_that_is_not_utf8_is_missing() {
        let event = Event { key: Some(b"\xff"), ..Event::from_value(b"\xff") };
        assert_eq!((event.key(), event.value()), (None, &b"\xff"[..]));
    }
}
