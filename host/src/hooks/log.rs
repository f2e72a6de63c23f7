//! What became of deliveries: for people to look at, bounded by age and count.

use std::collections::BTreeMap;

use bytes::Bytes;
use stream_storage::{ProjectName, StateEntry, StoreError, Timestamp, Transaction};

use super::delivery::{ATTEMPTS_KEPT, Attempt, Delivery, DeliveryId, DeliveryStatus};
use super::endpoint::Endpoint;
use super::stats::EndpointStats;
use super::{Hooks, HooksError, rows};
use crate::name::EndpointName;
use crate::queue::QueueError;
use crate::state::{self, Page, PageRequest};

/// Deliveries read at once.
pub(super) const STEP: usize = 500;

/// Which deliveries are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeliveryFilter {
    /// Those that stand so.
    pub status: Option<DeliveryStatus>,
    /// Made at this time or later.
    pub since: Option<Timestamp>,
    /// Made before this time.
    pub until: Option<Timestamp>,
}

impl DeliveryFilter {
    fn holds(&self, id: DeliveryId, delivery: &Delivery) -> bool {
        self.status.is_none_or(|status| status == delivery.status)
            && self.since.is_none_or(|since| id.made_at() >= since)
            && self.until.is_none_or(|until| id.made_at() < until)
    }
}

/// A delivery with all that is kept of it.
#[derive(Debug, Clone)]
pub struct DeliveryView {
    /// Its id.
    pub id: DeliveryId,
    /// How it stands.
    pub delivery: Delivery,
    /// Its attempts with their numbers, from 1, the oldest first.
    pub attempts: Vec<(u32, Attempt)>,
    /// What is sent.
    pub body: Option<Bytes>,
}

impl Hooks {
    /// Deliveries of an endpoint, the newest first. `after` of the page is a delivery's id.
    ///
    /// # Errors
    ///
    /// There is no such endpoint, or the store could not be read.
    pub async fn deliveries(
        &self,
        project: &ProjectName,
        name: &EndpointName,
        filter: DeliveryFilter,
        request: &PageRequest,
    ) -> Result<Page<(DeliveryId, Delivery)>, HooksError> {
        let endpoint = self.load(project, name).await?.endpoint;
        self.deliveries_of(project, &endpoint, filter, request).await
    }

    pub(super) async fn deliveries_of(
        &self,
        project: &ProjectName,
        endpoint: &Endpoint,
        filter: DeliveryFilter,
        request: &PageRequest,
    ) -> Result<Page<(DeliveryId, Delivery)>, HooksError> {
        let prefix = rows::deliveries(&endpoint.id);
        let wanted = request.limit.unwrap_or(usize::MAX);
        let mut items: Vec<(DeliveryId, Delivery)> = Vec::new();
        // Ids are those of times: what is newer is not even read.
        let first = filter.until.map(|until| DeliveryId::first_until(before(until)).to_string());
        let mut after = request.after.clone().max(first);
        loop {
            let step = PageRequest { after, limit: Some(STEP) };
            let page = state::page(self.parts.store.as_ref(), project, &prefix, &step).await?;
            for row in &page.items {
                let (id, delivery) = parse(row, &prefix)?;
                if filter.since.is_some_and(|since| id.made_at() < since) {
                    return Ok(Page { items, next: None });
                }
                if !filter.holds(id, &delivery) {
                    continue;
                }
                if items.len() == wanted {
                    let next = items.last().map(|(id, _)| id.to_string());
                    return Ok(Page { items, next });
                }
                items.push((id, delivery));
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(Page { items, next: None }),
            }
        }
    }

    /// One delivery with its attempts.
    ///
    /// # Errors
    ///
    /// There is no such endpoint or delivery, or the store could not be read.
    pub async fn delivery(
        &self,
        project: &ProjectName,
        name: &EndpointName,
        id: &str,
    ) -> Result<DeliveryView, HooksError> {
        let endpoint = self.load(project, name).await?.endpoint;
        let missing = || HooksError::DeliveryNotFound {
            endpoint: name.clone(),
            delivery: id.chars().take(64).collect(),
        };
        let id = DeliveryId::parse(id).ok_or_else(missing)?;
        let key = rows::delivery(&endpoint.id, id);
        let delivery = self.row::<Delivery>(project, &key).await?.0.ok_or_else(missing)?;
        let prefix = rows::attempts(&endpoint.id, id);
        let all = PageRequest::default();
        let found = state::page(self.parts.store.as_ref(), project, &prefix, &all).await?.items;
        let attempt = |row: &StateEntry| {
            let number = u32::from_str_radix(&state::name_in(&row.key, &prefix), 16);
            let number = number.map_err(|error| StoreError::Corrupt { reason: error.to_string() });
            Ok::<_, StoreError>((number?, state::decode(&row.key, &row.versioned)?))
        };
        let attempts = found.iter().map(attempt).collect::<Result<_, _>>()?;
        let body = self.body(project, &endpoint, id, &delivery).await?;
        Ok(DeliveryView { id, delivery, attempts, body })
    }

    /// What a delivery sends: kept by the log once it is finished, by its job until then.
    pub(super) async fn body(
        &self,
        project: &ProjectName,
        endpoint: &Endpoint,
        id: DeliveryId,
        delivery: &Delivery,
    ) -> Result<Option<Bytes>, HooksError> {
        let key = rows::body(&endpoint.id, id);
        if let Some(row) = self.parts.store.get(project, key.as_bytes()).await? {
            return Ok(Some(row.value));
        }
        let queue = endpoint.queue()?;
        match self.parts.queues.job(project, &queue, delivery.job).await {
            Ok(view) => Ok(Some(view.job.payload)),
            Err(QueueError::NoSuchJob { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What became of the deliveries of each endpoint, by name.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn stats(
        &self,
        project: &ProjectName,
    ) -> Result<BTreeMap<EndpointName, EndpointStats>, HooksError> {
        let mut all = BTreeMap::new();
        for known in self.directory.known(project).await?.iter() {
            let endpoint = &known.endpoint;
            all.insert(endpoint.name.clone(), self.stats_of(project, endpoint).await?);
        }
        Ok(all)
    }

    /// What became of the deliveries of one endpoint.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn stats_of(
        &self,
        project: &ProjectName,
        endpoint: &Endpoint,
    ) -> Result<EndpointStats, HooksError> {
        let key = rows::stats(&endpoint.id);
        let stats = self.row::<EndpointStats>(project, &key).await?.0.unwrap_or_default();
        let pending = match self.parts.queues.describe(project, &endpoint.queue()?).await {
            Ok(queue) => queue.waiting + queue.leased,
            Err(QueueError::NotFound { .. }) => 0,
            Err(error) => return Err(error.into()),
        };
        Ok(EndpointStats { pending: u64::try_from(pending).unwrap_or(u64::MAX), ..stats })
    }

    /// Deletes what the logs of a project no longer keep, and what is left of deleted endpoints.
    ///
    /// # Errors
    ///
    /// The store could not be read or written.
    pub async fn sweep(&self, project: &ProjectName) -> Result<(), HooksError> {
        self.clear_gone(project).await?;
        for known in self.directory.known(project).await?.iter() {
            self.sweep_log(project, &known.endpoint).await?;
        }
        Ok(())
    }

    async fn sweep_log(
        &self,
        project: &ProjectName,
        endpoint: &Endpoint,
    ) -> Result<(), HooksError> {
        let store = self.parts.store.as_ref();
        let now = self.parts.clock.now();
        let oldest = now.0.saturating_sub(endpoint.settings.log_age_ms);
        let prefix = rows::deliveries(&endpoint.id);
        let (mut kept, mut after) = (0, None);
        loop {
            let step = PageRequest { after, limit: Some(STEP) };
            let page = state::page(store, project, &prefix, &step).await?;
            for rows in page.items.chunks(STEP / 10) {
                let mut transaction = Transaction::new(project.clone());
                for row in rows {
                    let (id, delivery) = parse(row, &prefix)?;
                    let Some(finished_at) = delivery.finished_at else { continue };
                    if kept < endpoint.settings.log_deliveries_max && finished_at >= oldest {
                        kept += 1;
                        continue;
                    }
                    let expected = stream_storage::Expected::Version(row.versioned.version);
                    transaction.expect(row.key.clone(), expected).delete(row.key.clone());
                    transaction.delete(rows::body(&endpoint.id, id));
                    let first = delivery.attempts.saturating_sub(ATTEMPTS_KEPT);
                    for number in first..delivery.attempts {
                        transaction.delete(rows::attempt(&endpoint.id, id, number + 1));
                    }
                }
                if !transaction.state.is_empty() {
                    store.commit(transaction).await?;
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }
}

fn before(time: Timestamp) -> Timestamp {
    Timestamp(time.0.saturating_sub(1))
}

fn parse(row: &StateEntry, prefix: &str) -> Result<(DeliveryId, Delivery), StoreError> {
    let name = state::name_in(&row.key, prefix);
    let id = DeliveryId::parse(&name).ok_or_else(|| StoreError::Corrupt {
        reason: format!("state key `{prefix}{name}` is no delivery's"),
    })?;
    Ok((id, state::decode(&row.key, &row.versioned)?))
}
