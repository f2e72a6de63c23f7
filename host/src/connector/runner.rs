//! One connector at work.
//!
//! It reads, leads what it read through its plugin, adds to one transaction what becomes of it and
//! where it reads next, and commits. The transaction is conditioned on the connector's row and on its
//! places: whoever changes them ends what was under way, and it begins anew from what is stored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use stream_storage::{
    CommitError, Expected, ProjectName, StoreError, Timestamp, TopicId, Transaction,
};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::health::{Health, LostRecords};
use super::pace::Pace;
use super::remote::{HOLDER, Sender};
use super::rows::{self, Found, StoredPlace, StoredState};
use super::sift::{Taken, sift};
use super::spec::Spec;
use super::target::Target;
use super::{ConnectorError, ConnectorsParts, Place};
use crate::consume::{Amount, ConsumeError, News, PartitionRecords, SlotRecords, TrimmedStart};
use crate::event::Event;
use crate::name::{ConnectorName, TopicName};
use crate::pipeline::Plugged;
use crate::queue::jittered;
use crate::slot::Slot;
use crate::state::{self, PageRequest};

/// Bytes of records taken in one transaction, about.
const BYTES_MAX: usize = 2 << 20;

/// How long to wait for records before looking around.
const WAIT: Duration = Duration::from_secs(30);

/// Conflicts in a row after which a connector steps back.
const CONFLICTS_MAX: u32 = 3;

/// The first pause after something failed; doubled each time.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest pause.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Sets a connector to work; if it is paused or gone, the tasks end at once.
pub(super) fn start(
    tasks: &mut JoinSet<()>,
    parts: &Arc<ConnectorsParts>,
    (project, name): Place,
    (health, pace): (Arc<Health>, Arc<Pace>),
) {
    let runner = Runner { parts: Arc::clone(parts), project, name, health, pace };
    let sender = runner.clone();
    tasks.spawn(async move { runner.run().await });
    tasks.spawn(async move { sender.send().await });
}

#[derive(Clone)]
struct Runner {
    parts: Arc<ConnectorsParts>,
    project: ProjectName,
    name: ConnectorName,
    health: Arc<Health>,
    pace: Arc<Pace>,
}

/// A connector as it is stored, ready to work.
struct Ready {
    expected: Expected,
    spec: Spec,
    state: StoredState,
    target: Target,
    plugin: Option<Plugged>,
    places: BTreeMap<Slot, u64>,
}

/// What a look at the log has shown.
enum Looked {
    /// Records of some partitions.
    Found(Vec<PartitionRecords>),
    /// Nothing new; there will be news.
    Nothing,
}

impl Runner {
    /// Works until it is told to stop, the drain begins, or the connector is gone.
    async fn run(self) {
        let mut conflicts = 0_u32;
        loop {
            let taken = self.health.look().taken;
            let ended = self.work().await;
            let error = match ended {
                Ok(()) => return,
                // It was changed: what is stored says what to do. Or another one adds to the same
                // target, and who meets it often steps back.
                Err(ConnectorError::Commit(CommitError::Conflict { .. })) => {
                    let is_first = self.health.look().taken > taken;
                    conflicts = if is_first { 1 } else { conflicts.saturating_add(1) };
                    if conflicts > CONFLICTS_MAX && !self.pause(conflicts - CONFLICTS_MAX).await {
                        return;
                    }
                    continue;
                }
                Err(error) => error,
            };
            let now = self.parts.clock.now();
            let failures = self.health.failed(now, &error.to_string());
            tracing::warn!(%error, connector = %self.name, project = %self.project, "connector waits");
            if !self.pause(failures).await {
                return;
            }
        }
    }

    /// Waits before the next try; `false` if the drain has begun.
    async fn pause(&self, failures: u32) -> bool {
        let doubled = PAUSE.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
        let pause = jittered(doubled.min(PAUSE_MAX), &mut rand::rng());
        tokio::select! {
            () = self.parts.drain.begun() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }

    /// Works from what is stored; `Ok` if there is nothing to do any more.
    async fn work(&self) -> Result<(), ConnectorError> {
        let store = self.parts.store.as_ref();
        let Some(found) = rows::find(store, &self.project, &self.name).await? else {
            return Ok(());
        };
        if found.stored.state == StoredState::Paused {
            return Ok(());
        }
        let mut ready = self.ready(found).await?;
        let mut batch = ready.spec.settings.batch();
        let mut changed = self.parts.catalog.changed();
        let mut topics = self.topics(&mut ready).await?;
        let mut news = self.parts.reader.watch(topics.keys().copied());
        loop {
            if changed.has_changed().unwrap_or(false) || self.parts.catalog.is_making() {
                changed.mark_unchanged();
                topics = self.topics(&mut ready).await?;
                news = self.parts.reader.watch(topics.keys().copied());
            }
            news.seen();
            let turn = self.pace.turn().await;
            match self.look(&ready, &topics, batch).await? {
                Looked::Found(found) => match self.take(&mut ready, &topics, &found).await {
                    Ok(()) => {
                        batch = (batch * 2).min(ready.spec.settings.batch());
                        turn.rest().await;
                    }
                    Err(ConnectorError::Commit(CommitError::TooLarge { .. })) if batch > 1 => {
                        batch /= 2;
                    }
                    Err(error) => return Err(error),
                },
                Looked::Nothing if matches!(ready.state, StoredState::Draining { .. }) => {
                    // What it waits for may take long: others have their turns meanwhile.
                    drop(turn);
                    return self.drained(&ready).await;
                }
                Looked::Nothing => {
                    drop(turn);
                    self.wait(&mut news, &mut changed).await;
                }
            }
            if self.parts.drain.has_begun() {
                return Ok(());
            }
        }
    }

    async fn wait(&self, news: &mut News, changed: &mut tokio::sync::watch::Receiver<u64>) {
        let mut changed = changed.clone();
        tokio::select! {
            _ = self.parts.reader.news(news, Instant::now() + WAIT) => {}
            _ = changed.changed() => {}
        }
    }

    async fn ready(&self, found: Found) -> Result<Ready, ConnectorError> {
        let spec = found.stored.spec()?;
        let target = Target::open(&self.parts, &self.project, &self.name, &spec).await?;
        let plugin = match spec.plugin.clone() {
            Some((role, binding)) => {
                Some(self.parts.pipelines.plugged(&self.project, role, &binding).await?)
            }
            None => None,
        };
        let store = self.parts.store.as_ref();
        let places = rows::all_places(store, &self.project, &self.name).await?;
        let state = found.stored.state;
        Ok(Ready { expected: found.expected, spec, state, target, plugin, places })
    }

    /// The topics that match, each partition of which has a place from here on.
    async fn topics(
        &self,
        ready: &mut Ready,
    ) -> Result<BTreeMap<TopicId, Arc<TopicName>>, ConnectorError> {
        let all = PageRequest::default();
        let listed = self.parts.catalog.list(&self.project, &all).await?.items;
        let mut topics = BTreeMap::new();
        for topic in listed.iter().filter(|topic| ready.spec.pattern.matches(&topic.name)) {
            topics.insert(topic.id, Arc::new(topic.name.clone()));
            for partition in topic.partitions() {
                // What was there when the connector was made has a place.
                ready.places.entry(Slot::new(topic.id, partition)).or_insert(0);
            }
        }
        ready.places.retain(|slot, _| topics.contains_key(&slot.topic));
        Ok(topics)
    }

    /// Reads what is new.
    async fn look(
        &self,
        ready: &Ready,
        topics: &BTreeMap<TopicId, Arc<TopicName>>,
        batch: usize,
    ) -> Result<Looked, ConnectorError> {
        let mut starts = BTreeMap::new();
        let mut lost = Vec::new();
        for (&slot, &offset) in &ready.places {
            let bounds = self.parts.store.bounds(slot.topic, slot.partition).await?;
            if offset < bounds.start {
                lost.push(TrimmedStart { slot, offset, earliest: bounds.start });
            } else if offset < bounds.end {
                starts.insert(slot, offset);
            }
        }
        let amount = Amount { records_max: batch, bytes_max: BYTES_MAX, wait: Duration::ZERO };
        let read = self.parts.reader.read_slots(&starts, amount).await;
        let SlotRecords { mut found, trimmed } = match read {
            // Deleted a moment ago: the next look sees it.
            Err(ConsumeError::TopicGone) => SlotRecords::default(),
            read => read?,
        };
        // In a gap, of which the bounds know nothing, or trimmed a moment ago.
        lost.extend(trimmed);
        let lost = lost.into_iter().filter_map(|TrimmedStart { slot, offset, earliest }| {
            let topic = TopicName::clone(topics.get(&slot.topic)?);
            Some(LostRecords { topic, partition: slot.partition, next_offset: offset, earliest })
        });
        self.health.lost(lost.collect());
        if let StoredState::Draining { until } = ready.state {
            found.iter_mut().for_each(|part| part.segments.retain(|s| s.timestamp().0 <= until));
            found.retain(|part| !part.segments.is_empty());
            for part in &mut found {
                let last = part.segments.last().map(stream_storage::Segment::end_offset);
                part.next_offset = last.unwrap_or(part.next_offset);
            }
        }
        Ok(if found.is_empty() { Looked::Nothing } else { Looked::Found(found) })
    }

    /// Hands over what was read and moves on, in one transaction.
    async fn take(
        &self,
        ready: &mut Ready,
        topics: &BTreeMap<TopicId, Arc<TopicName>>,
        found: &[PartitionRecords],
    ) -> Result<(), ConnectorError> {
        let parts = &self.parts;
        let taken = events(found, topics)?;
        let count = taken.len() as u64;
        let sifted = sift(ready.plugin.as_ref(), parts.clock.as_ref(), taken).await?;
        let mut transaction = Transaction::new(self.project.clone());
        transaction.expect(rows::key(&self.name), ready.expected);
        for part in found {
            self.move_on(&mut transaction, ready, part).await?;
        }
        parts.dead_letters.add(&mut transaction, &sifted.letters()).await?;
        let added = ready.target.add(&mut transaction, &sifted.kept).await?;
        match parts.store.commit(transaction).await {
            Ok(receipt) => {
                parts.dead_letters.count(&receipt);
                added.done();
            }
            // Nobody knows: what is stored does.
            Err(error @ CommitError::Unknown { .. }) => return Err(error.into()),
            Err(error) => {
                added.abandon();
                return Err(error.into());
            }
        }
        for part in found {
            ready.places.insert(part.slot, part.next_offset);
        }
        let faulted = sifted.faulted.len() as u64;
        self.health.took(parts.clock.now(), count, sifted.dropped, faulted);
        Ok(())
    }

    /// Adds where to read next in a partition, if it is still where it was.
    async fn move_on(
        &self,
        transaction: &mut Transaction,
        ready: &Ready,
        part: &PartitionRecords,
    ) -> Result<(), ConnectorError> {
        let key = rows::place(&self.name, part.slot);
        let row = self.parts.store.get(&self.project, key.as_bytes()).await?;
        let stored: Option<StoredPlace> =
            row.as_ref().map(|row| state::decode(key.as_bytes(), row)).transpose()?;
        let known = ready.places.get(&part.slot).copied().unwrap_or_default();
        if stored.is_some_and(|stored| stored.offset != known) {
            return Err(CommitError::Conflict { key: key.into() }.into());
        }
        let expected = row.map_or(Expected::Absent, |row| Expected::Version(row.version));
        transaction.expect(key, expected);
        rows::put_place(transaction, &self.name, part.slot, part.next_offset);
        Ok(())
    }

    /// Everything was taken that was there when the connector was told to go: once its requests are
    /// sent, it is deleted.
    async fn drained(&self, ready: &Ready) -> Result<(), ConnectorError> {
        let queue = rows::queue(&self.name)?;
        while !self.parts.queues.is_empty(&self.project, &queue).await? {
            tokio::select! {
                () = self.parts.drain.begun() => return Ok(()),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
        let store = self.parts.store.as_ref();
        let Some(found) = rows::find(store, &self.project, &self.name).await? else {
            return Ok(());
        };
        if found.expected != ready.expected {
            return Err(CommitError::Conflict { key: rows::key(&self.name).into() }.into());
        }
        super::edit::remove(&self.parts, &self.project, &self.name, &found).await
    }

    /// Sends requests to a service elsewhere, if that is the target.
    async fn send(self) {
        let mut failures = 0;
        loop {
            match self.sender().await {
                Ok(Some(sender)) => return sender.run().await,
                Ok(None) => return,
                Err(error) => {
                    failures += 1;
                    self.health.failed(self.parts.clock.now(), &error.to_string());
                }
            }
            if !self.pause(failures).await {
                return;
            }
        }
    }

    async fn sender(&self) -> Result<Option<Sender>, ConnectorError> {
        let parts = &self.parts;
        let store = parts.store.as_ref();
        let Some(Found { stored, .. }) = rows::find(store, &self.project, &self.name).await? else {
            return Ok(None);
        };
        let spec = stored.spec()?;
        let Some(url) = spec.url.clone().filter(|_| stored.state != StoredState::Paused) else {
            return Ok(None);
        };
        let queue = rows::queue(&self.name)?;
        parts.queues.release(&self.project, &queue, HOLDER).await?;
        let settings = spec.settings.queue_settings();
        Ok(Some(Sender {
            secret: stored.secret(&parts.sealer, (&self.project, &self.name))?,
            parts: Arc::clone(parts),
            project: self.project.clone(),
            name: self.name.clone(),
            queue,
            url,
            timeout: spec.settings.timeout(),
            concurrency: settings.concurrency.unwrap_or(1) as usize,
            health: Arc::clone(&self.health),
            breaker: Sender::breaker(),
        }))
    }
}

/// The records as events, in the order of each partition.
fn events<'a>(
    found: &'a [PartitionRecords],
    topics: &BTreeMap<TopicId, Arc<TopicName>>,
) -> Result<Vec<Taken<'a>>, StoreError> {
    let mut taken = Vec::new();
    for part in found {
        let Some(topic) = topics.get(&part.slot.topic) else { continue };
        for segment in &part.segments {
            let timestamp: Timestamp = segment.timestamp();
            for record in segment.records() {
                let (offset, record) = record.map_err(|error| StoreError::Corrupt {
                    reason: format!("topic `{topic}`, partition {}: {error}", part.slot.partition),
                })?;
                let event = Event::of(record);
                let (topic, slot) = (Arc::clone(topic), part.slot);
                taken.push(Taken { topic, slot, offset, timestamp, event });
            }
        }
    }
    Ok(taken)
}
