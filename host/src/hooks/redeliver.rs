//! Finished deliveries are made again, and waiting ones cancelled.

use stream_storage::{ProjectName, Transaction};

use super::deliver::job;
use super::delivery::{Delivery, DeliveryId, DeliveryStatus};
use super::endpoint::Known;
use super::log::{DeliveryFilter, STEP};
use super::stats::EndpointStats;
use super::{Hooks, HooksError, rows};
use crate::name::EndpointName;
use crate::state::{self, Attempts, PageRequest};

/// Which finished deliveries are made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedeliverRange {
    /// Those that stand so, and were made within a time.
    pub filter: DeliveryFilter,
}

impl Hooks {
    /// Sends a finished delivery once more, under the same `webhook-id`, with all its attempts before
    /// it. Durable on return.
    ///
    /// # Errors
    ///
    /// There is no such endpoint or delivery, the endpoint is disabled, the delivery is not finished,
    /// or the store refused.
    pub async fn redeliver(
        &self,
        project: &ProjectName,
        name: &EndpointName,
        id: &str,
    ) -> Result<Delivery, HooksError> {
        let view = self.delivery(project, name, id).await?;
        if view.delivery.status == DeliveryStatus::Pending {
            return Err(HooksError::Pending { delivery: view.id });
        }
        let made = self.redeliver_these(project, name, &[view.id]).await?;
        made.into_iter().next().ok_or(HooksError::DeliveryNotFound {
            endpoint: name.clone(),
            delivery: view.id.to_string(),
        })
    }

    /// Sends finished deliveries once more, those of a range. Returns how many.
    ///
    /// # Errors
    ///
    /// There is no such endpoint, it is disabled, or the store refused: then some may be on their
    /// way.
    pub async fn redeliver_range(
        &self,
        project: &ProjectName,
        name: &EndpointName,
        range: RedeliverRange,
    ) -> Result<usize, HooksError> {
        let mut request = PageRequest { after: None, limit: Some(STEP / 10) };
        let mut count = 0;
        loop {
            let page = self.deliveries(project, name, range.filter, &request).await?;
            let ids: Vec<DeliveryId> = page.items.iter().map(|(id, _)| *id).collect();
            count += self.redeliver_these(project, name, &ids).await?.len();
            match page.next {
                Some(next) => request.after = Some(next),
                None => return Ok(count),
            }
        }
    }

    /// Those of them that are finished and whose body is kept.
    async fn redeliver_these(
        &self,
        project: &ProjectName,
        name: &EndpointName,
        ids: &[DeliveryId],
    ) -> Result<Vec<Delivery>, HooksError> {
        let mut attempts = Attempts::default();
        loop {
            let Known { endpoint, version } = self.load(project, name).await?;
            if !endpoint.is_enabled() {
                return Err(HooksError::Disabled { endpoint: name.clone() });
            }
            let now = self.parts.clock.now();
            let mut transaction = Transaction::new(project.clone());
            let expected = stream_storage::Expected::Version(version);
            transaction.expect(rows::endpoint(name), expected);
            let (mut jobs, mut found, mut dead) = (Vec::new(), Vec::new(), Vec::new());
            for id in ids {
                let key = rows::delivery(&endpoint.id, *id);
                let (delivery, expected) = self.row::<Delivery>(project, &key).await?;
                let is_finished = |delivery: &Delivery| delivery.status != DeliveryStatus::Pending;
                let Some(delivery) = delivery.filter(is_finished) else { continue };
                let body = self.body(project, &endpoint, *id, &delivery).await?;
                let Some(body) = body else { continue };
                let event = (delivery.event_id.as_str(), delivery.event_type.as_str());
                jobs.push(job(*id, event, body, None));
                transaction.expect(key.clone(), expected);
                dead.push(delivery.job);
                found.push((key, delivery));
            }
            if jobs.is_empty() {
                return Ok(Vec::new());
            }
            let queue = endpoint.queue()?;
            let enqueued = self.parts.queues.enqueue(&mut transaction, &queue, jobs).await?;
            let mut made = Vec::with_capacity(found.len());
            for ((key, delivery), place) in found.into_iter().zip(enqueued.places()) {
                let delivery = Delivery {
                    status: DeliveryStatus::Pending,
                    finished_at: None,
                    next_attempt_at: Some(now.0),
                    job: place.id,
                    ..delivery
                };
                transaction.put(key, state::encode(&delivery));
                made.push(delivery);
            }
            match self.parts.store.commit(transaction).await {
                Ok(_) => {
                    enqueued.done();
                    // Where they were given up, they are no longer to be tried again.
                    self.parts.queues.discard(project, &queue, Some(&dead)).await?;
                    return Ok(made);
                }
                Err(error) => {
                    attempts.again(error)?;
                    enqueued.abandon();
                }
            }
        }
    }

    /// Cancels all deliveries of an endpoint that are not finished. What is under way may still
    /// arrive. Returns how many.
    ///
    /// # Errors
    ///
    /// There is no such endpoint, or the store refused.
    pub async fn cancel(
        &self,
        project: &ProjectName,
        name: &EndpointName,
    ) -> Result<usize, HooksError> {
        let endpoint = self.load(project, name).await?.endpoint;
        let filter =
            DeliveryFilter { status: Some(DeliveryStatus::Pending), ..DeliveryFilter::default() };
        // Emptied first: whoever holds a job from here on is refused, and writes nothing.
        self.parts.queues.purge(project, &endpoint.queue()?).await?;
        let mut request = PageRequest { after: None, limit: Some(STEP) };
        let mut count = 0;
        loop {
            let page = self.deliveries_of(project, &endpoint, filter, &request).await?;
            count += self.cancel_these(project, &endpoint, &page.items).await?;
            match page.next {
                Some(next) => request.after = Some(next),
                None => return Ok(count),
            }
        }
    }

    async fn cancel_these(
        &self,
        project: &ProjectName,
        endpoint: &super::Endpoint,
        deliveries: &[(DeliveryId, Delivery)],
    ) -> Result<usize, HooksError> {
        let mut attempts = Attempts::default();
        loop {
            let now = self.parts.clock.now();
            let mut transaction = Transaction::new(project.clone());
            let mut count = 0;
            for (id, seen) in deliveries {
                let key = rows::delivery(&endpoint.id, *id);
                let (delivery, expected) = self.row::<Delivery>(project, &key).await?;
                // One that was made since has another job, which is not cancelled.
                let is_same = |delivery: &Delivery| {
                    delivery.status == DeliveryStatus::Pending && delivery.job == seen.job
                };
                let Some(delivery) = delivery.filter(is_same) else { continue };
                // One that was made after the queue was emptied is on its way.
                if self.parts.queues.job(project, &endpoint.queue()?, delivery.job).await.is_ok() {
                    continue;
                }
                let status = DeliveryStatus::Cancelled;
                let (finished_at, next_attempt_at) = (Some(now.0), None);
                let delivery = Delivery { status, finished_at, next_attempt_at, ..delivery };
                transaction.expect(key.clone(), expected).put(key, state::encode(&delivery));
                count += 1;
            }
            if count == 0 {
                return Ok(0);
            }
            let key = rows::stats(&endpoint.id);
            let (stats, expected) = self.row::<EndpointStats>(project, &key).await?;
            let mut stats = stats.unwrap_or_default();
            stats.cancelled += u64::try_from(count).unwrap_or(u64::MAX);
            transaction.expect(key.clone(), expected).put(key, state::encode(&stats));
            match self.parts.store.commit(transaction).await {
                Ok(_) => return Ok(count),
                Err(error) => attempts.again(error)?,
            }
        }
    }
}
