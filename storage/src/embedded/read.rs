//! Reading: records below the durable end, state, producers and the index.

use std::ops::Bound;

use bytes::Bytes;

use super::engine::{Engine, View};
use super::keys::end::End;
use super::keys::producer::Producer;
use super::keys::receipt::StoredReceipt;
use super::keys::trim::TrimPoint;
use super::keys::{PartitionKey, index, log, producer, receipt, state};
use super::search::{entry_at, first_entry, first_offset};
use super::shared::Shared;
use crate::batch::KeepFirst;
use crate::entry::parse_entry;
use crate::{
    Bounds, CommitNumber, Position, ProducerState, ProjectName, ReadError, ReadRequest, ReadStart,
    Receipt, Records, StateEntry, StoreError, TopicId, Trim, TrimError, Versioned,
};

impl Shared {
    /// What a partition holds, without a look at the disk.
    pub(super) fn bounds(&self, partition: PartitionKey) -> Bounds {
        // Before the end, which only grows: so the start never lies beyond it.
        let trim = self.trim_of(partition);
        bounds_between(trim, self.ends.get(partition))
    }

    /// The trim point of a partition; `None` if its topic is dropped.
    fn trim_of(&self, partition: PartitionKey) -> Option<TrimPoint> {
        let point = self.gone.point(partition);
        (!self.gone.is_dropped(partition.0)).then_some(point)
    }

    pub(super) fn read(
        &self,
        engine: &Engine,
        request: &ReadRequest,
    ) -> Result<Records, ReadError> {
        let partition = (request.topic, request.partition);
        let bounds = self.bounds(partition);
        let start = self
            .resolve(engine, partition, &bounds, request.start)
            .map_err(|error| self.gone_or(request.topic, error))?;
        let mut records =
            Records { segments: Vec::new(), next_offset: start, end_offset: bounds.end };
        if start < bounds.end && request.records_max > 0 {
            let range = log::key(partition, start)..=log::key(partition, bounds.end - 1);
            let entries = engine.log(partition).range(range);
            let entries = entries.map(|guard| Ok(Bytes::from(guard.value()?)));
            collect(entries, request, &mut records)
                .map_err(|error| self.gone_or(request.topic, error))?;
        }
        // What was read may have been trimmed or dropped, and reclaimed, meanwhile.
        let earliest = self.bounds(partition).start;
        if start < earliest || !self.gone.is_live(request.topic) {
            return Err(self.gone_or(request.topic, ReadError::Trimmed { earliest }));
        }
        Ok(records)
    }

    /// As [`read`](Self::read), if the answer is in memory. Does not block.
    pub(super) fn read_tail(&self, request: &ReadRequest) -> Option<Result<Records, ReadError>> {
        let ReadStart::Offset(start) = request.start else { return None };
        let partition = (request.topic, request.partition);
        let bounds = self.bounds(partition);
        // What is refused is told by the one that looks at the disk.
        if !(bounds.start..=bounds.end).contains(&start) || !self.engine.is_open() {
            return None;
        }
        let (segments, end_offset) = (Vec::new(), bounds.end);
        let mut records = Records { segments, next_offset: start, end_offset };
        if start < bounds.end && request.records_max > 0 {
            let end = bounds.end.min(start.saturating_add(request.records_max as u64));
            let entries = self.tail.read(partition, start..end, request.bytes_max)?;
            if let Err(error) = collect(entries.into_iter().map(Ok), request, &mut records) {
                return Some(Err(self.gone_or(request.topic, error)));
            }
        }
        // What was read may have been trimmed or dropped meanwhile.
        let is_there = start >= self.bounds(partition).start && self.gone.is_live(request.topic);
        is_there.then_some(Ok(records))
    }

    /// `error`, unless it comes of the topic being gone.
    fn gone_or(&self, topic: TopicId, error: ReadError) -> ReadError {
        if self.gone.is_live(topic) { error } else { ReadError::TopicGone { topic } }
    }

    fn resolve(
        &self,
        engine: &Engine,
        partition: PartitionKey,
        bounds: &Bounds,
        start: ReadStart,
    ) -> Result<u64, ReadError> {
        match start {
            ReadStart::Offset(offset) if offset < bounds.start => {
                Err(ReadError::Trimmed { earliest: bounds.start })
            }
            ReadStart::Offset(offset) if offset > bounds.end => {
                Err(ReadError::BeyondEnd { end: bounds.end })
            }
            ReadStart::Offset(offset) => Ok(offset),
            ReadStart::Time(time) => {
                Ok(first_offset(engine, partition, bounds.range(), |section| {
                    section.timestamp >= time
                })?)
            }
            ReadStart::AfterCommit(commit) => {
                if commit >= bounds.last_commit {
                    return Ok(bounds.end);
                }
                if commit < self.gone.point(partition).commit {
                    return Err(ReadError::Trimmed { earliest: bounds.start });
                }
                Ok(first_offset(engine, partition, bounds.range(), |section| {
                    section.commit > commit
                })?)
            }
        }
    }

    /// The trim point that is asked for; `None` if it is not beyond the one that is there.
    pub(super) fn trim_point(
        &self,
        engine: &Engine,
        partition: PartitionKey,
        trim: Trim,
    ) -> Result<Option<TrimPoint>, TrimError> {
        let end = self.ends.get(partition);
        let bounds = self.bounds(partition);
        let offset = match trim {
            Trim::Before(offset) if offset > end.offset => {
                return Err(TrimError::BeyondEnd { end: end.offset });
            }
            Trim::Before(offset) => offset,
            Trim::OlderThan(time) => first_offset(engine, partition, bounds.range(), |section| {
                section.timestamp >= time
            })?,
            Trim::KeepBytes(keep) => {
                let surplus = end.bytes.saturating_sub(keep);
                let kept = first_entry(engine, partition, bounds.range(), |header| {
                    header.place.bytes_before + header.bytes > surplus
                })?;
                kept.map_or(end.offset, |header| header.place.base_offset)
            }
        };
        if offset <= bounds.start {
            return Ok(None);
        }
        if offset == end.offset {
            return Ok(Some(TrimPoint { offset, bytes: end.bytes, commit: end.commit }));
        }
        point_before(engine, partition, offset).map(Some).map_err(TrimError::from)
    }

    pub(super) fn scan(
        engine: &Engine,
        project: &ProjectName,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<StateEntry>, StoreError> {
        let own = state::prefix_len(project);
        let prefix = state::key(project, prefix);
        let after = after.map(|after| state::key(project, after)).filter(|after| *after >= prefix);
        let start = match &after {
            Some(after) => Bound::Excluded(after.as_slice()),
            None => Bound::Included(prefix.as_slice()),
        };
        let mut entries = Vec::new();
        for guard in engine.view().meta_from(start).take(limit) {
            let (key, value) = guard.into_inner()?;
            if !key.starts_with(&prefix) {
                break;
            }
            let versioned = state::decode(&Bytes::from(value))?;
            entries.push(StateEntry { key: Bytes::from(key).slice(own..), versioned });
        }
        Ok(entries)
    }

    pub(super) fn producer(
        &self,
        engine: &Engine,
        project: &ProjectName,
        id: &str,
    ) -> Result<Option<ProducerState>, StoreError> {
        self.producer_in(&engine.view(), project, id)
    }

    fn producer_in(
        &self,
        view: &View<'_>,
        project: &ProjectName,
        id: &str,
    ) -> Result<Option<ProducerState>, StoreError> {
        let stored = view.meta(&producer::key(project, id))?;
        let producer = stored.as_deref().map(Producer::decode).transpose()?;
        let now = self.clock.now();
        Ok(producer.filter(|producer| !producer.is_expired(now)).map(|producer| producer.state))
    }

    pub(super) fn receipt(
        &self,
        engine: &Engine,
        project: &ProjectName,
        id: &str,
        (epoch, sequence): (u64, u64),
    ) -> Result<Option<Receipt>, StoreError> {
        let view = engine.view();
        let state = self.producer_in(&view, project, id)?;
        if state.is_none_or(|state| state.epoch != epoch || sequence > state.last_sequence) {
            return Ok(None);
        }
        let stored = view.meta(&receipt::key(project, id, sequence))?;
        let stored = stored.as_deref().map(StoredReceipt::decode).transpose()?;
        Ok(stored
            .filter(|row| row.epoch == epoch && row.sequence == sequence)
            .map(|row| Receipt { duplicate: true, ..row.receipt }))
    }

    pub(super) fn lookup(
        &self,
        engine: &Engine,
        topic: TopicId,
        (kind, key): (u8, &[u8]),
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Position>, StoreError> {
        let prefix = index::prefix(topic, kind, key);
        let from = match after {
            None => Bound::Included(prefix.clone()),
            Some(after) => Bound::Excluded(index::entry(prefix.clone(), after)),
        };
        let mut positions = Vec::new();
        let from = from.as_ref().map(Vec::as_slice);
        for guard in engine.view().index_between(from, Bound::Unbounded) {
            let entry = guard.key()?;
            if positions.len() == limit || !entry.starts_with(&prefix) {
                break;
            }
            let ((topic, partition), offset) = index::parse(&entry)?;
            if self.bounds((topic, partition)).range().contains(&offset) {
                positions.push(Position { partition, offset });
            }
        }
        Ok(positions)
    }

    pub(super) fn lookup_back(
        &self,
        engine: &Engine,
        prefix: &[u8],
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Position>, StoreError> {
        let view = engine.view();
        let at = |position| index::entry(prefix.to_vec(), position);
        let mut positions = Vec::new();
        let mut end = before
            .map_or(Bound::Included(at(Position::LAST)), |before| Bound::Excluded(at(before)));
        'partitions: loop {
            let to = end.as_ref().map(Vec::as_slice);
            for guard in view.index_between(Bound::Included(prefix), to).rev() {
                if positions.len() == limit {
                    return Ok(positions);
                }
                let ((topic, partition), offset) = index::parse(&guard.key()?)?;
                let bounds = self.bounds((topic, partition));
                if bounds.range().contains(&offset) {
                    positions.push(Position { partition, offset });
                } else if offset < bounds.start {
                    // All that is left of the partition is trimmed too: however much it is, it is
                    // jumped over.
                    end = Bound::Excluded(at(Position { partition, offset: 0 }));
                    continue 'partitions;
                }
            }
            return Ok(positions);
        }
    }

    pub(super) fn state(
        engine: &Engine,
        project: &ProjectName,
        key: &[u8],
    ) -> Result<Option<Versioned>, StoreError> {
        let row = engine.view().meta(&state::key(project, key))?;
        Ok(row.as_ref().map(state::decode).transpose()?)
    }
}

/// What lies between a trim point and an end; nothing if all is dropped.
fn bounds_between(trim: Option<TrimPoint>, end: End) -> Bounds {
    let start = trim.map_or(end.offset, |trim| trim.offset);
    let trimmed = trim.filter(|_| start < end.offset).map_or(end.bytes, |trim| trim.bytes);
    Bounds {
        start,
        end: end.offset,
        bytes: end.bytes.saturating_sub(trimmed),
        last_timestamp: (end.offset > 0).then_some(end.timestamp),
        last_commit: end.commit,
    }
}

/// Takes entries, of which the first holds `records.next_offset`, until a bound of the request is
/// reached.
fn collect(
    entries: impl Iterator<Item = Result<Bytes, StoreError>>,
    request: &ReadRequest,
    records: &mut Records,
) -> Result<(), ReadError> {
    let start = records.next_offset;
    let (mut records_left, mut bytes_left) = (request.records_max, request.bytes_max);
    for entry in entries {
        for mut segment in parse_entry(&entry?).map_err(StoreError::from)? {
            segment.skip_to(start).map_err(StoreError::from)?;
            if segment.count() == 0 {
                continue;
            }
            if segment.base_offset() != records.next_offset {
                return gap(records, segment.base_offset());
            }
            let whole = segment.count();
            let keep_first =
                if records.segments.is_empty() { KeepFirst::Yes } else { KeepFirst::No };
            segment.cut(records_left, bytes_left, keep_first).map_err(StoreError::from)?;
            let kept = segment.count();
            records_left -= kept as usize;
            bytes_left = bytes_left.saturating_sub(segment.byte_len());
            if kept > 0 {
                records.next_offset = segment.end_offset();
                records.segments.push(segment);
            }
            if kept < whole || records_left == 0 || bytes_left == 0 {
                return Ok(());
            }
        }
    }
    if records.next_offset < records.end_offset { gap(records, records.end_offset) } else { Ok(()) }
}

/// Records are missing up to `next`, after an accepted loss: what was read before them is the
/// answer, and the next read starts in the gap and is told so.
fn gap(records: &Records, next: u64) -> Result<(), ReadError> {
    if records.segments.is_empty() { Err(ReadError::Trimmed { earliest: next }) } else { Ok(()) }
}

/// The trim point that leaves `offset` as the earliest.
fn point_before(
    engine: &Engine,
    partition: PartitionKey,
    offset: u64,
) -> Result<TrimPoint, StoreError> {
    let Some((header, entry)) = entry_at(engine, partition, offset - 1)? else {
        return Err(StoreError::Corrupt { reason: format!("no entry holds offset `{offset}`") });
    };
    // If the entry lies behind a gap: all that is gone was committed before its first record was.
    let first = header.sections.first().map_or(0, |section| section.commit.0);
    let commit = CommitNumber(first.saturating_sub(1));
    let mut point = TrimPoint { offset, bytes: header.place.bytes_before, commit };
    for mut segment in parse_entry(&entry)? {
        let whole = segment.byte_len() as u64;
        if segment.base_offset() >= offset {
            break;
        }
        point.commit = segment.commit();
        segment.skip_to(offset)?;
        point.bytes += whole - segment.byte_len() as u64;
    }
    Ok(point)
}
