//! How connectors stand.

use stream_storage::{Partition, ProjectName, StateEntry, StoreError, Timestamp};

use super::health::{LostRecords, Vitals};
use super::rows::{self, Found};
use super::spec::{Kind, Spec};
use super::{ConnectorError, Connectors, State};
use crate::name::{ConnectorName, QueueName, TopicName};
use crate::queue::{JobView, Listed, QueueError, QueueView};
use crate::slot::Slot;
use crate::state::{self, Page, PageRequest};

/// How a connector stands.
#[derive(Debug, Clone)]
pub struct ConnectorView {
    /// Its name.
    pub name: ConnectorName,
    /// What it is to do, without its secret.
    pub spec: Spec,
    /// Whether there is a secret.
    pub has_secret: bool,
    /// Whether it works.
    pub state: State,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
    /// How many topics match now.
    pub topics: usize,
    /// Where it reads next.
    pub places: Vec<PlaceView>,
    /// Requests to a service elsewhere, or jobs of this server that it makes.
    pub queue: Option<QueueView>,
    /// How it does.
    pub vitals: Vitals,
}

/// Where a connector stands in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceView {
    /// The topic.
    pub topic: TopicName,
    /// The partition of it.
    pub partition: Partition,
    /// Where it reads next.
    pub next_offset: u64,
    /// The log end.
    pub log_end: u64,
}

impl ConnectorView {
    /// Records that it has not read.
    pub fn lag(&self) -> u64 {
        self.places.iter().map(|place| place.log_end.saturating_sub(place.next_offset)).sum()
    }
}

impl Connectors {
    /// How a connector stands.
    ///
    /// # Errors
    ///
    /// It does not exist, or the store could not be read.
    pub async fn view(
        &self,
        project: &ProjectName,
        name: &ConnectorName,
    ) -> Result<ConnectorView, ConnectorError> {
        let Found { stored, .. } = self.find(project, name).await?;
        let store = self.parts.store.as_ref();
        let spec = stored.spec()?;
        // Before the rest: what is counted here, that shows.
        let mut vitals = self.health(project, name).look();
        let known = rows::all_places(store, project, name).await?;
        let matching = self.matching(project, &spec).await?;
        let mut places = Vec::new();
        // Also of one that rests, and before it has looked again. Of gaps it knows itself.
        let told = std::mem::take(&mut vitals.lost);
        for topic in &matching {
            for partition in topic.partitions() {
                let bounds = store.bounds(topic.id, partition).await?;
                let next = known.get(&Slot::new(topic.id, partition)).copied();
                let next_offset = next.unwrap_or_default();
                let (topic, log_end) = (topic.name.clone(), bounds.end);
                if next_offset < bounds.start {
                    let (topic, earliest) = (topic.clone(), bounds.start);
                    vitals.lost.push(LostRecords { topic, partition, next_offset, earliest });
                } else {
                    let place = (&topic, partition, next_offset);
                    vitals.lost.extend(told.iter().find(|lost| lost.place() == place).cloned());
                }
                places.push(PlaceView { topic, partition, next_offset, log_end });
            }
        }
        Ok(ConnectorView {
            name: name.clone(),
            has_secret: stored.has_secret(),
            state: stored.state.state(),
            created_at: Timestamp(stored.created_at),
            updated_at: Timestamp(stored.updated_at),
            topics: matching.len(),
            places,
            queue: self.queue_of(project, name, &spec).await?,
            vitals,
            spec,
        })
    }

    async fn queue_of(
        &self,
        project: &ProjectName,
        name: &ConnectorName,
        spec: &Spec,
    ) -> Result<Option<QueueView>, ConnectorError> {
        let Some(queue) = queue_name(name, spec)? else { return Ok(None) };
        match self.parts.queues.describe(project, &queue).await {
            Ok(view) => Ok(Some(view)),
            Err(QueueError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Connectors in the order of their names.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn list(
        &self,
        project: &ProjectName,
        request: &PageRequest,
    ) -> Result<Page<ConnectorView>, ConnectorError> {
        let store = self.parts.store.as_ref();
        let page = state::page(store, project, rows::PREFIX, request).await?;
        let name = |row: &StateEntry| {
            ConnectorName::parse(&state::name_in(&row.key, rows::PREFIX))
                .map_err(|error| StoreError::Corrupt { reason: error.to_string() })
        };
        let mut items = Vec::with_capacity(page.items.len());
        for row in &page.items {
            match self.view(project, &name(row)?).await {
                Ok(view) => items.push(view),
                // Deleted since the rows were read.
                Err(ConnectorError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Page { items, next: page.next })
    }

    /// Requests or jobs that were given up.
    ///
    /// # Errors
    ///
    /// The connector does not exist, or the store could not be read.
    pub async fn dead(
        &self,
        project: &ProjectName,
        name: &ConnectorName,
        request: &PageRequest,
    ) -> Result<Page<JobView>, ConnectorError> {
        let spec = self.find(project, name).await?.stored.spec()?;
        match queue_name(name, &spec)? {
            Some(queue) => {
                Ok(self.parts.queues.jobs(project, &queue, Listed::Dead, request).await?)
            }
            None => Ok(Page { items: Vec::new(), next: None }),
        }
    }
}

/// The queue that a connector fills, if there is one.
fn queue_name(name: &ConnectorName, spec: &Spec) -> Result<Option<QueueName>, ConnectorError> {
    if spec.url.is_some() {
        return Ok(Some(rows::queue(name)?));
    }
    if spec.kind != Kind::Worker {
        return Ok(None);
    }
    let queue = QueueName::parse(&spec.queue(name));
    queue.map(Some).map_err(|error| ConnectorError::invalid("settings.queue", error.to_string()))
}
