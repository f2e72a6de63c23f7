//! Events as the columns in which they cross to a guest: see `wit/types.wit`.

use std::sync::Arc;

use wasmtime::component::{ComponentType, Lift, Lower};

use crate::event::Event;
use crate::stage::Context;

/// The batch of a call: owned and shared, so that it can wait for its turn, and go through one plugin
/// after the other.
#[derive(Debug, Default, ComponentType, Lower)]
#[component(record)]
pub(super) struct Columns {
    count: u32,
    ids: Option<Column>,
    keys: Option<Column>,
    times: Option<Column>,
    #[component(name = "content-types")]
    content_types: Option<Column>,
    headers: Option<Headers>,
    values: Column,
}

#[derive(Debug, Default, ComponentType, Lower)]
#[component(record)]
pub(super) struct Column {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    nulls: Vec<u32>,
}

#[derive(Debug, Default, ComponentType, Lower)]
#[component(record)]
pub(super) struct Headers {
    ends: Vec<u32>,
    names: Column,
    values: Column,
}

/// The context of a call.
#[derive(Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct WireContext {
    topic: String,
    partitions: u32,
    config: Arc<str>,
}

/// A whole event, as a transform gives it back.
#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct WireEvent {
    pub(super) id: Option<String>,
    pub(super) key: Option<String>,
    pub(super) time: Option<String>,
    #[component(name = "content-type")]
    pub(super) content_type: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) value: Vec<u8>,
}

/// What a validator says.
#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(super) enum WireVerdict {
    #[component(name = "accept")]
    Accept,
    #[component(name = "reject")]
    Reject(String),
}

/// What a transform makes of an event.
#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(super) enum WireOutcome {
    #[component(name = "keep")]
    Keep,
    #[component(name = "replace")]
    Replace(WireEvent),
    #[component(name = "drop")]
    Drop,
}

impl Columns {
    /// The columns of `events`, which are of one request: its limits bound them far below the 4 GiB
    /// that a column may have.
    pub(super) fn of(events: &[&Event<'_>]) -> Self {
        let text = |field: for<'e> fn(&'e Event<'_>) -> Option<&'e str>| {
            Column::of_texts(events, |event| field(event))
        };
        Self {
            count: place(events.len()),
            ids: text(|event| event.id.as_deref()),
            keys: text(|event| event.key.as_deref()),
            times: text(|event| event.time.as_deref()),
            content_types: text(|event| event.content_type.as_deref()),
            headers: Headers::of(events),
            values: Column::of_values(events),
        }
    }

    /// How many events there are.
    pub(super) fn count(&self) -> usize {
        self.count as usize
    }

    /// The bytes that cross.
    pub(super) fn byte_len(&self) -> usize {
        let texts = [&self.ids, &self.keys, &self.times, &self.content_types];
        let texts: usize = texts.into_iter().flatten().map(Column::byte_len).sum();
        let headers = self.headers.as_ref().map_or(0, |headers| {
            headers.names.byte_len() + headers.values.byte_len() + 4 * headers.ends.len()
        });
        texts + headers + self.values.byte_len()
    }

    /// A number that is a function of the events, for guests that ask for random ones.
    pub(super) fn seed(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&self.values.bytes)
    }
}

impl Column {
    /// The texts of a field; `None` if no event has one.
    fn of_texts<'e, 'b: 'e>(
        events: &'e [&'e Event<'b>],
        field: impl Fn(&'e Event<'b>) -> Option<&'e str>,
    ) -> Option<Self> {
        if events.iter().all(|event| field(event).is_none()) {
            return None;
        }
        let bytes = events.iter().filter_map(|event| field(event)).map(str::len).sum();
        let mut column = Self::with_capacity(bytes, events.len());
        for (index, event) in (0..).zip(events) {
            match field(event) {
                Some(text) => column.bytes.extend_from_slice(text.as_bytes()),
                None => column.nulls.push(index),
            }
            column.ends.push(place(column.bytes.len()));
        }
        Some(column)
    }

    fn of_values(events: &[&Event<'_>]) -> Self {
        let bytes = events.iter().map(|event| event.value.len()).sum();
        let mut column = Self::with_capacity(bytes, events.len());
        for event in events {
            column.push(&event.value);
        }
        column
    }

    fn with_capacity(bytes: usize, count: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            ends: Vec::with_capacity(count),
            nulls: Vec::new(),
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(place(self.bytes.len()));
    }

    fn byte_len(&self) -> usize {
        self.bytes.len() + 4 * (self.ends.len() + self.nulls.len())
    }
}

impl Headers {
    fn of(events: &[&Event<'_>]) -> Option<Self> {
        if events.iter().all(|event| event.headers.is_empty()) {
            return None;
        }
        let mut headers = Self::default();
        for event in events {
            for (name, value) in &event.headers {
                headers.names.push(name.as_bytes());
                headers.values.push(value.as_bytes());
            }
            headers.ends.push(place(headers.names.ends.len()));
        }
        Some(headers)
    }
}

impl WireContext {
    /// The context of a call with a binding's config.
    pub(super) fn new(context: &Context, config: &Arc<str>) -> Self {
        let Context { topic, partitions } = context;
        Self { topic: topic.to_string(), partitions: *partitions, config: Arc::clone(config) }
    }
}

/// A place in a column.
fn place(length: usize) -> u32 {
    // Requests are far smaller; were one not, its guest would see too little and not too much.
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(key: Option<&'static str>, value: &'static str) -> Event<'static> {
        Event { key: key.map(Into::into), value: value.as_bytes().into(), ..Event::default() }
    }

    #[test]
    fn a_field_that_no_event_has_is_no_column() {
        let event = event(None, "1");
        let columns = Columns::of(&[&event]);
        assert!(columns.keys.is_none() && columns.ids.is_none() && columns.headers.is_none());
        assert_eq!(columns.values.bytes, b"1");
    }

    #[test]
    fn events_without_a_field_are_its_nulls() {
        let events =
            [event(None, "1"), event(Some("ab"), ""), event(Some(""), "22"), event(None, "")];
        let columns = Columns::of(&events.iter().collect::<Vec<_>>());
        let keys = columns.keys.unwrap();
        assert_eq!(
            (keys.bytes.as_slice(), keys.ends, keys.nulls),
            (&b"ab"[..], vec![0, 2, 2, 2], vec![0, 3])
        );
        assert_eq!(
            (columns.values.bytes.as_slice(), columns.values.ends),
            (&b"122"[..], vec![1, 1, 3, 3])
        );
        assert!(columns.values.nulls.is_empty());
    }

    #[test]
    fn texts_that_are_all_empty_are_a_column() {
        let event = event(Some(""), "1");
        assert!(Columns::of(&[&event]).keys.unwrap().nulls.is_empty());
    }

    #[test]
    fn headers_end_where_the_next_events_begin() {
        let with = |headers: &[(&'static str, &'static str)]| Event {
            headers: headers.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
            ..Event::default()
        };
        let events = [with(&[("a", "1"), ("b", "22")]), with(&[]), with(&[("c", "")])];
        let headers = Columns::of(&events.iter().collect::<Vec<_>>()).headers.unwrap();
        assert_eq!(headers.ends, [2, 2, 3]);
        assert_eq!(
            (headers.names.bytes.as_slice(), headers.names.ends),
            (&b"abc"[..], vec![1, 2, 3])
        );
        assert_eq!(
            (headers.values.bytes.as_slice(), headers.values.ends),
            (&b"122"[..], vec![1, 3, 3])
        );
    }
}
