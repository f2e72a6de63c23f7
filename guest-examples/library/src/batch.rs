//! Columns become events; and, for tests, events become columns.
//!
//! The host makes the columns, and makes them well. Should one be malformed all the same, what it
//! does not have is missing: nothing here panics.

use std::iter::{FusedIterator, Peekable};
use std::slice;

use crate::bindings::types::{Batch, Column, Event as OwnedEvent, HeaderColumns};
use crate::event::{Event, Headers};

impl Batch {
    /// The events, in order. A step allocates nothing, and costs as much in a large batch as in a
    /// small one.
    #[must_use]
    pub fn events(&self) -> Events<'_> {
        Events {
            index: 0,
            count: self.count,
            ids: Cursor::new(self.ids.as_ref()),
            keys: Cursor::new(self.keys.as_ref()),
            times: Cursor::new(self.times.as_ref()),
            content_types: Cursor::new(self.content_types.as_ref()),
            headers: self.headers.as_ref(),
            values: Cursor::new(Some(&self.values)),
        }
    }
}

/// An iterator over the events of a [`Batch`].
#[derive(Clone, Debug)]
pub struct Events<'a> {
    index: u32,
    count: u32,
    ids: Cursor<'a>,
    keys: Cursor<'a>,
    times: Cursor<'a>,
    content_types: Cursor<'a>,
    headers: Option<&'a HeaderColumns>,
    values: Cursor<'a>,
}

impl<'a> Iterator for Events<'a> {
    type Item = Event<'a>;

    fn next(&mut self) -> Option<Event<'a>> {
        if self.index == self.count {
            return None;
        }
        let index = self.index;
        self.index += 1;
        Some(Event {
            id: self.ids.field(index),
            key: self.keys.field(index),
            time: self.times.field(index),
            content_type: self.content_types.field(index),
            headers: self.headers.and_then(|columns| columns.of(index)).unwrap_or_default(),
            value: self.values.field(index).unwrap_or_default(),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.count - self.index) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Events<'_> {}
impl FusedIterator for Events<'_> {}

/// Walks a column, and its nulls beside it.
#[derive(Clone, Debug)]
struct Cursor<'a> {
    column: Option<&'a Column>,
    nulls: Peekable<slice::Iter<'a, u32>>,
}

impl<'a> Cursor<'a> {
    fn new(column: Option<&'a Column>) -> Self {
        let nulls = column.map_or(&[][..], |column| &column.nulls);
        Self { column, nulls: nulls.iter().peekable() }
    }

    /// The field of the event with this index: the one after that of the call before.
    fn field(&mut self, index: u32) -> Option<&'a [u8]> {
        let column = self.column?;
        if self.nulls.next_if_eq(&&index).is_some() { None } else { column.get(index) }
    }
}

impl Column {
    /// The bytes with this index, empty if they are null.
    pub(crate) fn get(&self, index: u32) -> Option<&[u8]> {
        let (start, end) = bounds(&self.ends, index)?;
        self.bytes.get(start as usize..end as usize)
    }
}

impl HeaderColumns {
    fn of(&self, index: u32) -> Option<Headers<'_>> {
        let (next, end) = bounds(&self.ends, index)?;
        Some(Headers { columns: Some(self), next, end })
    }
}

fn bounds(ends: &[u32], index: u32) -> Option<(u32, u32)> {
    let index = index as usize;
    let start = match index.checked_sub(1) {
        Some(before) => *ends.get(before)?,
        None => 0,
    };
    Some((start, *ends.get(index)?))
}

/// The columns that the host would make: for tests of plugins.
///
/// # Panics
///
/// If a column has 4 GiB or more.
impl FromIterator<OwnedEvent> for Batch {
    fn from_iter<I: IntoIterator<Item = OwnedEvent>>(events: I) -> Self {
        let events: Vec<OwnedEvent> = events.into_iter().collect();
        let texts = |field: fn(&OwnedEvent) -> &Option<String>| {
            let column: Column =
                events.iter().map(|event| field(event).as_deref().map(str::as_bytes)).collect();
            (column.nulls.len() < events.len()).then_some(column)
        };
        let headers = || events.iter().flat_map(|event| &event.headers);
        Self {
            count: length(events.len()),
            ids: texts(|event| &event.id),
            keys: texts(|event| &event.key),
            times: texts(|event| &event.time),
            content_types: texts(|event| &event.content_type),
            headers: headers().next().is_some().then(|| HeaderColumns {
                ends: ends(events.iter().map(|event| event.headers.len())),
                names: headers().map(|(name, _)| Some(name.as_bytes())).collect(),
                values: headers().map(|(_, value)| Some(value.as_bytes())).collect(),
            }),
            values: events.iter().map(|event| Some(&*event.value)).collect(),
        }
    }
}

impl<'a> FromIterator<Option<&'a [u8]>> for Column {
    fn from_iter<I: IntoIterator<Item = Option<&'a [u8]>>>(fields: I) -> Self {
        let fields: Vec<Option<&[u8]>> = fields.into_iter().collect();
        let nulls = (0..).zip(&fields).filter(|(_, field)| field.is_none());
        Self {
            ends: ends(fields.iter().map(|field| field.unwrap_or_default().len())),
            nulls: nulls.map(|(index, _)| index).collect(),
            bytes: fields.into_iter().flatten().flatten().copied().collect(),
        }
    }
}

fn ends(lengths: impl Iterator<Item = usize>) -> Vec<u32> {
    let sum = |end: &mut u32, more| {
        *end = end.checked_add(length(more)).expect("a column has less than 4 GiB");
        Some(*end)
    };
    lengths.scan(0, sum).collect()
}

fn length(length: usize) -> u32 {
    u32::try_from(length).expect("a column has less than 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> OwnedEvent {
        OwnedEvent {
            id: Some("1".to_owned()),
            key: Some("N318US".to_owned()),
            time: Some("2013-01-01T18:25:00Z".to_owned()),
            content_type: Some("text/plain".to_owned()),
            headers: vec![
                ("a".to_owned(), "1".to_owned()),
                ("ce-source".to_owned(), String::new()),
            ],
            value: b"JFK".to_vec(),
        }
    }

    fn bare(value: &[u8]) -> OwnedEvent {
        OwnedEvent { value: value.to_vec(), ..OwnedEvent::default() }
    }

    fn round_trip(events: &[OwnedEvent]) {
        let batch: Batch = events.iter().cloned().collect();
        assert_eq!(batch.events().len(), events.len());
        assert_eq!(batch.events().map(|event| event.to_owned()).collect::<Vec<_>>(), events);
    }

    #[test]
    fn events_come_back_as_they_were() {
        let empty_key = OwnedEvent { key: Some(String::new()), ..bare(b"") };
        round_trip(&[full()]);
        round_trip(&[bare(b"{}"), full(), bare(b""), empty_key.clone(), full(), bare(b"\xff")]);
        round_trip(&[empty_key, bare(b""), bare(b"")]);
    }

    #[test]
    fn a_column_is_none_if_no_event_has_the_field() {
        let batch: Batch = [bare(b"1"), bare(b"2")].into_iter().collect();
        let columns = [&batch.ids, &batch.keys, &batch.times, &batch.content_types];
        assert!(columns.iter().all(|column| column.is_none()) && batch.headers.is_none());
    }

    #[test]
    fn a_batch_without_events_has_none() {
        assert!(Batch::default().events().next().is_none());
    }

    #[test]
    fn an_empty_field_is_not_a_missing_one() {
        let batch = Batch {
            count: 3,
            keys: Some(Column { bytes: Vec::new(), ends: vec![0, 0, 0], nulls: vec![0, 2] }),
            ..Batch::default()
        };
        let keys: Vec<_> = batch.events().map(|event| event.key().map(str::to_owned)).collect();
        assert_eq!(keys, [None, Some(String::new()), None]);
    }

    #[test]
    fn what_a_malformed_column_lacks_is_missing() {
        let columns = [
            Column::default(),
            Column { bytes: b"ab".to_vec(), ends: vec![1], nulls: vec![] },
            Column { bytes: b"ab".to_vec(), ends: vec![9, 1], nulls: vec![] },
            Column { bytes: b"ab".to_vec(), ends: vec![2, 1], nulls: vec![7, 1] },
            Column { bytes: b"\xff\xfe".to_vec(), ends: vec![1, 2], nulls: vec![] },
        ];
        for column in columns {
            let headers = HeaderColumns {
                ends: vec![u32::MAX, 3],
                names: column.clone(),
                values: column.clone(),
            };
            let batch = Batch {
                count: 2,
                keys: Some(column.clone()),
                headers: Some(headers),
                values: column.clone(),
                ..Batch::default()
            };
            let last = batch.events().last().expect("there are two events");
            assert_eq!((last.key(), last.headers().count()), (None, 0), "{column:?}");
        }
    }
}
