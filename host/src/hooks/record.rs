//! What happened, written down: the ends of attempts, in one transaction for as many as there are.

use std::collections::HashSet;

use bytes::Bytes;
use stream_storage::{CommitError, Expected, ProjectName, Transaction};

use super::deliver::{DELIVERY, EVENT_ID, EVENT_TYPE, fresh};
use super::delivery::{ATTEMPTS_KEPT, Attempt, Delivery, DeliveryId, DeliveryStatus};
use super::endpoint::{Disabled, DisabledReason, Endpoint, Known};
use super::news::News;
use super::outcome::Judged;
use super::stats::EndpointStats;
use super::{Hooks, HooksError, rows};
use crate::queue::{Claimed, Fate, Finish, Job, Outcome, QueueError};
use crate::state::{self, Attempts};

/// Attempts, and bytes of bodies, written down in one transaction.
const TRIED_MAX: usize = 256;
const BYTES_MAX: usize = 8 << 20;

/// A job that the executor has held.
#[derive(Debug)]
pub(super) struct Tried {
    pub(super) claimed: Claimed,
    pub(super) end: End,
}

/// How that ended.
#[derive(Debug)]
pub(super) enum End {
    /// It was sent, or could not be.
    Attempted(Judged, Attempt),
    /// It was not even tried: the server stops.
    Returned,
}

/// What a transaction of ends is made of.
struct Writing<'a> {
    hooks: &'a Hooks,
    endpoint: &'a Endpoint,
    transaction: Transaction,
    stats: EndpointStats,
    news: Vec<News<'a>>,
    /// Whether an attempt went well, whether one did not, and whether one was answered 410.
    has_success: bool,
    has_failure: bool,
    is_gone: bool,
}

impl Hooks {
    /// Writes down how jobs of an endpoint have ended. What cannot be written is tried again when
    /// its lease has ended: it was sent, and is sent once more.
    pub(super) async fn record(
        &self,
        project: &ProjectName,
        endpoint: &Endpoint,
        mut tried: Vec<Tried>,
    ) {
        while !tried.is_empty() {
            let rest = tried.split_off(lot(&tried));
            let written = self.try_record(project, endpoint, &tried).await;
            if is_refused(&written) && tried.len() > 1 {
                // Somebody else has one of them: the others are written by themselves.
                for one in &tried {
                    let written = self.try_record(project, endpoint, std::slice::from_ref(one));
                    warn(endpoint, written.await);
                }
            } else {
                warn(endpoint, written);
            }
            tried = rest;
        }
    }

    async fn try_record(
        &self,
        project: &ProjectName,
        endpoint: &Endpoint,
        tried: &[Tried],
    ) -> Result<(), HooksError> {
        let queue = endpoint.queue()?;
        let ends: Vec<Finish> = tried.iter().map(Tried::finish).collect();
        let mut attempts = Attempts::default();
        loop {
            let mut transaction = Transaction::new(project.clone());
            let finished = self.parts.queues.finish(&mut transaction, &queue, &ends).await?;
            let key = rows::stats(&endpoint.id);
            let (stats, expected) = self.row::<EndpointStats>(project, &key).await?;
            let mut writing = Writing {
                hooks: self,
                endpoint,
                transaction,
                stats: stats.unwrap_or_default(),
                news: Vec::new(),
                has_success: false,
                has_failure: false,
                is_gone: false,
            };
            for (tried, fate) in tried.iter().zip(finished.fates()) {
                if let End::Attempted(judged, attempt) = &tried.end {
                    writing.add(&tried.claimed.job, *fate, (judged, attempt)).await?;
                }
            }
            let is_disabled = writing.settle().await?;
            let Writing { mut transaction, stats, news, .. } = writing;
            transaction.expect(key.clone(), expected).put(key, state::encode(&stats));
            self.tell(&mut transaction, &news).await?;
            match self.parts.store.commit(transaction).await {
                Ok(_) => {
                    finished.done();
                    if is_disabled {
                        self.parts.queues.configured(project, &queue);
                        self.directory.changed(project);
                    }
                    return Ok(());
                }
                Err(error @ CommitError::Unknown { .. }) => return Err(error.into()),
                Err(error) => {
                    finished.abandon();
                    attempts.again(error)?;
                }
            }
        }
    }
}

impl Tried {
    fn finish(&self) -> Finish {
        let outcome = match &self.end {
            End::Returned => Outcome::Snoozed { delay: std::time::Duration::ZERO },
            End::Attempted(judged, _) => match judged.retry {
                None => Outcome::Done { result: None },
                Some(retry) => {
                    Outcome::Failed { reason: judged.error.clone().unwrap_or_default(), retry }
                }
            },
        };
        Finish { id: self.claimed.job.id, lease: self.claimed.lease, outcome }
    }
}

impl Writing<'_> {
    async fn add(
        &mut self,
        job: &Job,
        fate: Fate,
        (judged, attempt): (&Judged, &Attempt),
    ) -> Result<(), HooksError> {
        let now = self.hooks.parts.clock.now().0;
        let header = |name| job.headers.get(name).map(String::as_str).unwrap_or_default();
        // Each job has one that was made here.
        let Some(id) = DeliveryId::parse(header(DELIVERY)) else { return Ok(()) };
        let endpoint = &self.endpoint.id;
        let key = rows::delivery(endpoint, id);
        let project = self.transaction.project.clone();
        let (found, _) = self.hooks.row::<Delivery>(&project, &key).await?;
        let new = || {
            let (event_id, event_type) = (header(EVENT_ID), header(EVENT_TYPE));
            fresh(event_id.to_owned(), event_type.to_owned(), job.id, job.enqueued_at.0)
        };
        let mut delivery = found.unwrap_or_else(new);
        delivery.attempts = delivery.attempts.saturating_add(1);
        delivery.status_code = attempt.status_code;
        delivery.duration_ms = Some(attempt.duration_ms);
        delivery.error.clone_from(&attempt.error);
        delivery.job = job.id;
        delivery.next_attempt_at = None;
        self.stats.attempts += 1;
        self.stats.duration_ms += attempt.duration_ms;
        match fate {
            Fate::Done => {
                delivery.status = DeliveryStatus::Success;
                self.stats.successful += 1;
            }
            Fate::Dead => {
                delivery.status = DeliveryStatus::Failed;
                self.stats.failed += 1;
            }
            Fate::Again { due } | Fate::Held { until: due } => {
                delivery.status = DeliveryStatus::Pending;
                delivery.next_attempt_at = Some(due.0);
            }
        }
        delivery.finished_at = (delivery.status != DeliveryStatus::Pending).then_some(now);
        if delivery.finished_at.is_some() {
            self.transaction.put(rows::body(endpoint, id), Bytes::clone(&job.payload));
        }
        let number = delivery.attempts;
        self.transaction.put(rows::attempt(endpoint, id, number), state::encode(attempt));
        if let Some(oldest) = number.checked_sub(ATTEMPTS_KEPT).filter(|oldest| *oldest > 0) {
            self.transaction.delete(rows::attempt(endpoint, id, oldest));
        }
        self.transaction.put(key, state::encode(&delivery));
        if fate == Fate::Dead {
            self.news.push(News::Failed { endpoint: self.endpoint, id, delivery });
        }
        self.has_success |= judged.retry.is_none();
        self.has_failure |= judged.retry.is_some() && !judged.is_ours;
        self.is_gone |= judged.is_gone;
        Ok(())
    }

    /// Counts failures in a row, and disables the endpoint when there is no use in going on. Returns
    /// whether it did.
    async fn settle(&mut self) -> Result<bool, HooksError> {
        let now = self.hooks.parts.clock.now().0;
        if self.has_success {
            self.stats.last_success_at = Some(now);
            self.stats.failing_since = None;
        } else if self.has_failure {
            self.stats.failing_since.get_or_insert(now);
        }
        let failing_for = self.stats.failing_since.map(|since| now.saturating_sub(since));
        let allowed = self.endpoint.settings.disable_after_ms;
        let is_failing =
            self.has_failure && failing_for.zip(allowed).is_some_and(|(time, max)| time >= max);
        let reason = match (self.is_gone, is_failing) {
            (true, _) => DisabledReason::Gone,
            (false, true) => DisabledReason::Failing,
            (false, false) => return Ok(false),
        };
        let project = self.transaction.project.clone();
        let found = match self.hooks.load(&project, &self.endpoint.name).await {
            Err(HooksError::NotFound { .. }) => return Ok(false),
            found => found?,
        };
        let Known { mut endpoint, version } = found;
        if endpoint.id != self.endpoint.id || !endpoint.is_enabled() {
            return Ok(false);
        }
        endpoint.disabled = Some(Disabled { reason, at: now });
        Hooks::put_in(&mut self.transaction, &endpoint, Expected::Version(version))?;
        let failing_since = self.stats.failing_since;
        self.news.push(News::Disabled { endpoint: self.endpoint, reason, failing_since });
        tracing::info!(%project, endpoint = %endpoint.name, reason = reason.as_str(), "disabled");
        Ok(true)
    }
}

/// How many go into one transaction: as many as fit, each delivery once.
fn lot(tried: &[Tried]) -> usize {
    let (mut seen, mut bytes) = (HashSet::new(), 0);
    for one in tried.iter().take(TRIED_MAX) {
        let job = &one.claimed.job;
        bytes += job.payload.len();
        let is_full = bytes > BYTES_MAX && !seen.is_empty();
        if is_full || !seen.insert(job.headers.get(DELIVERY)) {
            break;
        }
    }
    seen.len()
}

fn is_refused(written: &Result<(), HooksError>) -> bool {
    let is_over = |error: &QueueError| {
        matches!(error, QueueError::StaleLease { .. } | QueueError::NoSuchJob { .. })
    };
    matches!(written, Err(HooksError::Queue(error)) if is_over(error))
}

fn warn(endpoint: &Endpoint, written: Result<(), HooksError>) {
    if is_refused(&written) {
        // It was cancelled, or took longer than its lease: then somebody else writes down how it ends.
        tracing::debug!(endpoint = %endpoint.name, "an attempt came too late to be counted");
    } else if let Err(error) = written {
        tracing::warn!(%error, endpoint = %endpoint.name, "attempts could not be written down");
    }
}
