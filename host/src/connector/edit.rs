//! Making, changing, pausing and sending back connectors. What is returned is durable, and the
//! connector works by it.

use std::collections::BTreeMap;

use stream_storage::{Expected, ProjectName, Transaction};

pub(super) use super::delete::remove;
use super::rows::{self, Found, Stored, StoredState};
use super::spec::{From, Kind, Spec};
use super::target::{self, Target};
use super::view::ConnectorView;
use super::{CONNECTORS_MAX, ConnectorError, Connectors, State};
use crate::consume::Start;
use crate::name::{ConnectorName, TopicName};
use crate::project::Made;
use crate::queue::{JobId, Queues};
use crate::slot::Slot;
use crate::state::{self, Attempts, PageRequest};
use crate::topic::Topic;

/// Places written in one transaction.
pub(super) const PLACES_MAX: usize = 4_000;

/// What is read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replay {
    /// All that matches.
    All(From),
    /// One topic; all its partitions if `partition` is `None`.
    Topic {
        /// The topic.
        topic: TopicName,
        /// The partition of it.
        partition: Option<u32>,
        /// From where.
        from: From,
    },
    /// One partition, from this offset.
    Offset {
        /// The topic.
        topic: TopicName,
        /// The partition of it.
        partition: u32,
        /// The offset.
        offset: u64,
    },
}

/// What a put has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Put {
    Created,
    Changed,
    Same,
}

impl Connectors {
    /// Makes a connector, or changes it: then it goes on from where it is, and begins as `from` says
    /// only in topics that it did not match before. Without a secret, the one before is kept, for the
    /// same service; an empty one is none.
    ///
    /// # Errors
    ///
    /// A field is refused, the address is forbidden, there are too many connectors, this one is on
    /// its way out, or the store refused.
    pub async fn put(
        &self,
        project: &ProjectName,
        name: &ConnectorName,
        spec: &Spec,
    ) -> Result<(ConnectorView, Made), ConnectorError> {
        spec.check()?;
        if let Some(url) = &spec.url {
            self.parts.egress.check(url).await?;
        }
        if let Some((role, binding)) = &spec.plugin {
            self.parts.pipelines.check_plugged(project, *role, binding).await?;
        }
        if spec.url.is_none() && spec.kind == Kind::Ledger {
            target::ledger_of(name, spec)?;
        }
        let _editing = self.edit(project, name).await;
        let mut attempts = Attempts::default();
        let put = loop {
            match self.put_once(project, name, spec).await {
                Ok(put) => break put,
                Err(ConnectorError::Commit(error)) => attempts.again(error)?,
                Err(error) => return Err(error),
            }
        };
        if put == Put::Created {
            // What one of this name did before is none of its doing.
            self.forget(project, name);
        }
        // What it needs is there when this returns: a queue or a ledger of its own.
        Target::open(&self.parts, project, name, spec).await?;
        // What is under way is not cut off for nothing.
        if put != Put::Same {
            self.restart(project, name).await;
        }
        let made = if put == Put::Created { Made::Created } else { Made::Existed };
        Ok((self.view(project, name).await?, made))
    }

    async fn put_once(
        &self,
        project: &ProjectName,
        name: &ConnectorName,
        spec: &Spec,
    ) -> Result<Put, ConnectorError> {
        let store = self.parts.store.as_ref();
        let now = self.parts.clock.now().0;
        let mut stored = Stored::new(spec, &self.parts.sealer, (project, name), now)?;
        let before = rows::find(store, project, name).await?;
        let (expected, put) = match &before {
            Some(Found { stored: before, expected }) => {
                if matches!(before.state, StoredState::Draining { .. }) {
                    return Err(ConnectorError::Draining { name: name.clone() });
                }
                check_same(&before.spec()?, spec)?;
                stored.follow(before, spec)?;
                (*expected, Put::Changed)
            }
            None => {
                self.check_room(project).await?;
                (Expected::Absent, Put::Created)
            }
        };
        let known = before.as_ref().map(|before| before.stored.spec()).transpose()?;
        let mut places = self.first_places(project, name, (spec, known.as_ref())).await?;
        if before.as_ref().is_some_and(|before| places.is_empty() && stored.is(&before.stored)) {
            return Ok(Put::Same);
        }
        // Those of an earlier connector of this name are none of this one's.
        let mut garbage = Vec::new();
        if before.is_none() {
            let old = rows::all_places(store, project, name).await?;
            garbage.extend(old.into_keys().filter(|slot| !places.contains_key(slot)));
            garbage.truncate(PLACES_MAX);
        }
        // A connector is made with the last of its places: before, it reads nothing.
        while let Some(next) = places.keys().nth(PLACES_MAX).copied() {
            let rest = places.split_off(&next);
            let mut transaction = Transaction::new(project.clone());
            transaction.expect(rows::key(name), expected);
            put_places(&mut transaction, name, &places);
            store.commit(transaction).await?;
            places = rest;
        }
        let mut transaction = Transaction::new(project.clone());
        transaction.expect(rows::key(name), expected);
        transaction.put(rows::key(name), state::encode(&stored));
        put_places(&mut transaction, name, &places);
        for slot in garbage {
            transaction.delete(rows::place(name, slot));
        }
        let uses = before.as_ref().and_then(|found| found.stored.plugin_use(name));
        let use_now = stored.plugin_use(name);
        if let Some(before) = uses.filter(|before| Some(before) != use_now.as_ref()) {
            transaction.delete(before);
        }
        if let Some(key) = use_now {
            transaction.put(key, "{}");
        }
        let queue = rows::queue(name)?;
        if spec.url.is_some() {
            Queues::add_settings(&mut transaction, &queue, &spec.settings.queue_settings());
        }
        store.commit(transaction).await?;
        self.parts.queues.configured(project, &queue);
        Ok(put)
    }

    async fn check_room(&self, project: &ProjectName) -> Result<(), ConnectorError> {
        let some = PageRequest { after: None, limit: Some(CONNECTORS_MAX) };
        let store = self.parts.store.as_ref();
        let there = state::page(store, project, rows::PREFIX, &some).await?;
        if there.items.len() >= CONNECTORS_MAX {
            return Err(ConnectorError::TooMany { max: CONNECTORS_MAX });
        }
        Ok(())
    }

    /// Where to begin in topics that are there, and that the connector did not match `before`: of
    /// those, one without a place was made later, and is read from its first record.
    async fn first_places(
        &self,
        project: &ProjectName,
        name: &ConnectorName,
        (spec, before): (&Spec, Option<&Spec>),
    ) -> Result<BTreeMap<Slot, u64>, ConnectorError> {
        let from = spec.settings.from()?;
        let known = match before {
            Some(_) => rows::all_places(self.parts.store.as_ref(), project, name).await?,
            None => BTreeMap::new(),
        };
        let mut places = BTreeMap::new();
        for topic in self.matching(project, spec).await? {
            if before.is_some_and(|before| before.pattern.matches(&topic.name)) {
                continue;
            }
            for partition in topic.partitions() {
                let slot = Slot::new(topic.id, partition);
                if !known.contains_key(&slot) {
                    places.insert(slot, self.place(slot, from).await?);
                }
            }
        }
        Ok(places)
    }

    pub(super) async fn matching(
        &self,
        project: &ProjectName,
        spec: &Spec,
    ) -> Result<Vec<Topic>, ConnectorError> {
        let all = PageRequest::default();
        let listed = self.parts.catalog.list(project, &all).await?.items;
        Ok(listed.into_iter().filter(|topic| spec.pattern.matches(&topic.name)).collect())
    }

    async fn place(&self, slot: Slot, from: From) -> Result<u64, ConnectorError> {
        let bounds = self.parts.store.bounds(slot.topic, slot.partition).await?;
        Ok(match from {
            From::Earliest => bounds.start,
            From::Latest => bounds.end,
            From::Time(time) => {
                self.parts.reader.place(slot.topic, slot.partition, Start::Time(time)).await?
            }
        })
    }

    /// Lets a connector rest, or work again.
    ///
    /// # Errors
    ///
    /// It does not exist or is on its way out, or the store refused.
    pub async fn set_paused(
        &self,
        project: &ProjectName,
        name: &ConnectorName,
        is_paused: bool,
    ) -> Result<ConnectorView, ConnectorError> {
        let state = if is_paused { StoredState::Paused } else { StoredState::Running };
        let _editing = self.edit(project, name).await;
        if self.find(project, name).await?.stored.state == state {
            return self.view(project, name).await;
        }
        self.change(project, name, |stored| {
            if matches!(stored.state, StoredState::Draining { .. }) {
                return Err(ConnectorError::Draining { name: name.clone() });
            }
            stored.state = state;
            Ok(())
        })
        .await?;
        self.restart(project, name).await;
        self.view(project, name).await
    }

    pub(super) async fn change(
        &self,
        project: &ProjectName,
        name: &ConnectorName,
        change: impl Fn(&mut Stored) -> Result<(), ConnectorError> + Send,
    ) -> Result<(), ConnectorError> {
        let store = self.parts.store.as_ref();
        let mut attempts = Attempts::default();
        loop {
            let Found { mut stored, expected } = self.find(project, name).await?;
            change(&mut stored)?;
            stored.updated_at = self.parts.clock.now().0;
            let mut transaction = Transaction::new(project.clone());
            let key = rows::key(name);
            transaction.expect(key.clone(), expected).put(key, state::encode(&stored));
            match store.commit(transaction).await {
                Ok(_) => return Ok(()),
                Err(error) => attempts.again(error)?,
            }
        }
    }

    pub(super) async fn find(
        &self,
        project: &ProjectName,
        name: &ConnectorName,
    ) -> Result<Found, ConnectorError> {
        let found = rows::find(self.parts.store.as_ref(), project, name).await?;
        found.ok_or_else(|| ConnectorError::NotFound { name: name.clone() })
    }

    /// Sends a connector back, or forth: it reads from there on, and hands over again what it finds. A
    /// ledger of this server takes nothing twice. Returns where it reads next, by partition.
    ///
    /// # Errors
    ///
    /// The connector or topic does not exist, is not matched, or the offset is not there; or the store
    /// refused.
    pub async fn replay(
        &self,
        project: &ProjectName,
        name: &ConnectorName,
        replay: &Replay,
    ) -> Result<ConnectorView, ConnectorError> {
        let store = self.parts.store.as_ref();
        let _editing = self.edit(project, name).await;
        let mut attempts = Attempts::default();
        loop {
            let Found { mut stored, expected } = self.find(project, name).await?;
            let places = self.replayed(project, &stored.spec()?, replay).await?;
            stored.updated_at = self.parts.clock.now().0;
            let places: Vec<(Slot, u64)> = places.into_iter().collect();
            let (last, first) = places.split_at(places.len().min(PLACES_MAX));
            // A runner that meets one of these begins anew; the last is written with the row.
            for some in first.chunks(PLACES_MAX) {
                let mut transaction = Transaction::new(project.clone());
                some.iter()
                    .for_each(|(slot, at)| rows::put_place(&mut transaction, name, *slot, *at));
                store.commit(transaction).await?;
            }
            let mut transaction = Transaction::new(project.clone());
            let key = rows::key(name);
            transaction.expect(key.clone(), expected).put(key, state::encode(&stored));
            last.iter().for_each(|(slot, at)| rows::put_place(&mut transaction, name, *slot, *at));
            match store.commit(transaction).await {
                Ok(_) => break,
                Err(error) => attempts.again(error)?,
            }
        }
        self.restart(project, name).await;
        self.view(project, name).await
    }

    async fn replayed(
        &self,
        project: &ProjectName,
        spec: &Spec,
        replay: &Replay,
    ) -> Result<BTreeMap<Slot, u64>, ConnectorError> {
        let mut places = BTreeMap::new();
        match replay {
            Replay::All(from) => {
                for topic in self.matching(project, spec).await? {
                    for partition in topic.partitions() {
                        let slot = Slot::new(topic.id, partition);
                        places.insert(slot, self.place(slot, *from).await?);
                    }
                }
            }
            Replay::Topic { topic, partition, from } => {
                let topic = self.matched(project, spec, topic).await?;
                let partitions = match partition {
                    Some(partition) => vec![topic.partition(*partition)?],
                    None => topic.partitions().collect(),
                };
                for partition in partitions {
                    let slot = Slot::new(topic.id, partition);
                    places.insert(slot, self.place(slot, *from).await?);
                }
            }
            Replay::Offset { topic, partition, offset } => {
                let topic = self.matched(project, spec, topic).await?;
                let slot = Slot::new(topic.id, topic.partition(*partition)?);
                // Refused if it is trimmed or beyond the end.
                let start = Start::Offset(*offset);
                let at = self.parts.reader.place(slot.topic, slot.partition, start).await?;
                places.insert(slot, at);
            }
        }
        Ok(places)
    }

    async fn matched(
        &self,
        project: &ProjectName,
        spec: &Spec,
        name: &TopicName,
    ) -> Result<std::sync::Arc<Topic>, ConnectorError> {
        if !spec.pattern.matches(name) {
            let message = format!("`{}` does not match `{name}`", spec.pattern.as_str());
            return Err(ConnectorError::invalid("topic", message));
        }
        Ok(self.parts.catalog.get(project, name).await?)
    }

    /// Tries dead requests or jobs again: these, or all. Returns how many.
    ///
    /// # Errors
    ///
    /// The connector does not exist, its target keeps its dead elsewhere, or the store refused.
    pub async fn redrive(
        &self,
        project: &ProjectName,
        name: &ConnectorName,
        ids: Option<&[JobId]>,
    ) -> Result<usize, ConnectorError> {
        let spec = self.find(project, name).await?.stored.spec()?;
        match Target::open(&self.parts, project, name, &spec).await? {
            Target::Worker { queue, .. } | Target::Remote { queue, .. } => {
                Ok(self.parts.queues.redrive(project, &queue, ids).await?)
            }
            Target::Hooks { .. } => {
                let message = "its deliveries are tried again by endpoint: see `hooks redeliver`";
                Err(ConnectorError::invalid("kind", message))
            }
            Target::Ledger { .. } => Ok(0),
        }
    }

    /// Whether a connector works.
    ///
    /// # Errors
    ///
    /// It does not exist, or the store could not be read.
    pub async fn state(
        &self,
        project: &ProjectName,
        name: &ConnectorName,
    ) -> Result<State, ConnectorError> {
        Ok(self.find(project, name).await?.stored.state.state())
    }
}

fn put_places(transaction: &mut Transaction, name: &ConnectorName, places: &BTreeMap<Slot, u64>) {
    for (slot, at) in places {
        rows::put_place(transaction, name, *slot, *at);
    }
}

/// What waits was made for a target of that kind: another kind is another connector.
fn check_same(before: &Spec, now: &Spec) -> Result<(), ConnectorError> {
    let other = "it cannot change: delete the connector and make another";
    if before.kind != now.kind {
        return Err(ConnectorError::invalid("kind", other));
    }
    if before.url.is_some() != now.url.is_some() {
        return Err(ConnectorError::invalid("url", other));
    }
    Ok(())
}
