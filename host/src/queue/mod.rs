//! The delivery queue: jobs that are leased, tried, tried again, and end done or dead.
//!
//! Worker's jobs and Hooks' deliveries are jobs of it. Putting jobs in and ending them are parts of a
//! transaction, which may do more: a connector's cursor moves with the jobs it makes, a worker's
//! results are published with the end of its job. Whoever takes a job holds a [`Lease`]; when that has
//! ended, another may take it, and the first one is refused.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `job` | what a job is |
//! | `rows` | the stored rows and their keys |
//! | `settings`, `backoff` | how a queue works; when what failed is tried again |
//! | `front` | the window on the jobs that come next: a state machine without a store |
//! | `live` | one queue in memory |
//! | `enqueue` | jobs go in |
//! | `claim` | jobs are taken |
//! | `finish` | jobs end, or come again |
//! | `dead`, `letter` | jobs that were given up; what is kept and for how long, and is told |
//! | `alongside` | jobs go in, and end, with the transaction of a publish |
//! | `purge` | what is deleted: whole queues, and what was kept long enough |
//! | `view` | how queues and jobs stand |
//! | `metrics` | what is counted |

mod alongside;
mod backoff;
mod claim;
mod dead;
mod enqueue;
mod error;
mod finish;
mod front;
mod job;
mod letter;
mod live;
mod metrics;
mod purge;
mod rows;
mod settings;
#[cfg(test)]
mod tests;
mod view;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use stream_storage::{Clock, Expected, ProjectName, Store, Timestamp, Transaction};

use crate::drain::Drain;
use crate::lock::lock;
use crate::name::QueueName;
use crate::project::Projects;
use crate::publish::DeadLetters;
use crate::state::{self, Attempts, PageRequest};
use front::Effect;
use job::JobIds;
use live::{Changes, Queue};
use metrics::Counters;
use rows::{Row, StoredLease};

pub use alongside::{Enqueuing, Finishing};
pub use backoff::{Backoff, Delays, jittered};
pub use claim::{CLAIM_MAX, Claim, Claiming};
pub use enqueue::{Enqueued, JobPlace};
pub use error::QueueError;
pub use finish::{Fate, Finish, Finished, Outcome, RESULT_BYTES_MAX};
pub use job::{Claimed, InvalidJobId, Job, JobId, JobState, JobView, Lease, NewJob, Retry, Source};
pub use metrics::QueueMetrics;
pub(crate) use rows::digest;
pub use settings::{BackoffSettings, InvalidSettings, LONGEST, QueueSettings};
pub use view::{COUNT_MAX, Listed, QueueView};

/// Jobs put into a queue in one transaction, so that it stays within an engine's limits.
pub const ENQUEUE_MAX: usize = 1_000;

/// Queues that nobody waits for are forgotten when there are more in memory.
const IDLE_MAX: usize = 1_000;

/// How often what was kept long enough is looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// All queues.
pub struct Queues {
    parts: QueuesParts,
    ids: JobIds,
    random: Mutex<StdRng>,
    live: Mutex<HashMap<(ProjectName, QueueName), Arc<Queue>>>,
    counters: Arc<Counters>,
}

/// What queues are made of.
pub struct QueuesParts {
    /// Where jobs are.
    pub store: Arc<dyn Store>,
    /// When jobs are due.
    pub clock: Arc<dyn Clock>,
    /// Whose jobs there are.
    pub projects: Arc<Projects>,
    /// Where those that are given up are told of.
    pub dead_letters: Arc<DeadLetters>,
    /// Ends waiting.
    pub drain: Drain,
}

impl Queues {
    /// Reads nothing yet.
    pub fn new(parts: QueuesParts, mut random: StdRng) -> Self {
        let ids = JobIds::new(random.random());
        Self {
            parts,
            ids,
            random: Mutex::new(random),
            live: Mutex::default(),
            counters: Arc::default(),
        }
    }

    /// Deletes what was kept long enough, now and then until the drain begins.
    pub async fn run(&self) {
        loop {
            if let Err(error) = self.sweep_all().await {
                tracing::warn!(%error, "finished jobs remain");
            }
            tokio::select! {
                () = self.parts.drain.begun() => return,
                () = tokio::time::sleep(SWEEP_INTERVAL) => {}
            }
        }
    }

    async fn sweep_all(&self) -> Result<(), QueueError> {
        for project in self.parts.projects.list(&PageRequest::default()).await?.items {
            self.sweep(&project.name).await?;
        }
        Ok(())
    }

    /// Sets a queue up, or changes how it works. Durable on return.
    ///
    /// # Errors
    ///
    /// The settings are refused, or the store did not take them.
    pub async fn configure(
        &self,
        project: &ProjectName,
        name: &QueueName,
        settings: &QueueSettings,
    ) -> Result<(), QueueError> {
        settings.check()?;
        let mut transaction = Transaction::new(project.clone());
        Self::add_settings(&mut transaction, name, settings);
        self.parts.store.commit(transaction).await?;
        self.configured(project, name);
        Ok(())
    }

    /// Adds a queue's settings to `transaction`, which have been checked; call
    /// [`configured`](Self::configured) after its commit.
    pub fn add_settings(transaction: &mut Transaction, name: &QueueName, settings: &QueueSettings) {
        transaction.put(rows::settings(name), state::encode(settings));
    }

    /// The settings of a queue were committed.
    pub fn configured(&self, project: &ProjectName, name: &QueueName) {
        self.queue(project, name).forget_settings();
    }

    /// Sets a queue up as usual, if nobody has.
    ///
    /// # Errors
    ///
    /// The store could not be read or written.
    pub async fn ensure(&self, project: &ProjectName, name: &QueueName) -> Result<(), QueueError> {
        let mut attempts = Attempts::default();
        loop {
            let mut transaction = Transaction::new(project.clone());
            if !self.require(&mut transaction, &self.queue(project, name)).await? {
                return Ok(());
            }
            match self.parts.store.commit(transaction).await {
                Ok(_) => {
                    self.configured(project, name);
                    return Ok(());
                }
                Err(error) => {
                    attempts.again(error)?;
                    self.configured(project, name);
                }
            }
        }
    }

    /// Adds to `transaction` that the queue is there: as it is, or set up as usual. What is known of
    /// it is to be forgotten after a conflict, and if it was set up, which is returned.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    async fn require(
        &self,
        transaction: &mut Transaction,
        queue: &Queue,
    ) -> Result<bool, QueueError> {
        let setup = queue.setup(self.parts.store.as_ref()).await?;
        let key = rows::settings(&queue.name);
        if transaction.state.iter().any(|write| write.key == key) {
            // The same transaction sets it up.
            return Ok(true);
        }
        transaction.expect(key.clone(), setup.expected);
        let is_new = setup.expected == Expected::Absent;
        if is_new {
            transaction.put(key, state::encode(&QueueSettings::default()));
        }
        Ok(is_new)
    }

    /// Whether somebody waits for a job of a queue.
    #[cfg(test)]
    pub(crate) fn has_waiting(&self, project: &ProjectName, name: &QueueName) -> bool {
        self.queue(project, name).is_watched()
    }

    /// What happened since the start, of all queues.
    pub fn metrics(&self) -> QueueMetrics {
        self.counters.now()
    }

    /// Deletes a queue and all its jobs.
    ///
    /// # Errors
    ///
    /// There is no such queue, or the store could not be read or written.
    pub async fn delete(&self, project: &ProjectName, name: &QueueName) -> Result<(), QueueError> {
        self.get(project, name).await?;
        let until = self.ids.next(self.parts.clock.now());
        let mut transaction = Transaction::new(project.clone());
        transaction.delete(rows::settings(name));
        self.parts.store.commit(transaction).await?;
        self.configured(project, name);
        self.purge_until(project, name, until).await
    }

    /// Ends the leases of one holder: it is gone, as a server's own executors are after a restart.
    /// What it held counts as not tried: else a job would be dead of a few restarts.
    ///
    /// # Errors
    ///
    /// The store could not be read or written.
    pub async fn release(
        &self,
        project: &ProjectName,
        name: &QueueName,
        holder: &str,
    ) -> Result<(), QueueError> {
        let store = self.parts.store.as_ref();
        let queue = self.queue(project, name);
        let mut attempts = Attempts::default();
        loop {
            let mut transaction = Transaction::new(project.clone());
            let mut changes = Changes::new(Arc::clone(&queue), Vec::new());
            let prefix = Row::Lease.of(name);
            let all = PageRequest::default();
            for row in state::page(store, project, &prefix, &all).await?.items {
                if transaction.state.len() == ENQUEUE_MAX {
                    break;
                }
                let mut lease: StoredLease = state::decode(&row.key, &row.versioned)?;
                if lease.holder.as_deref() == Some(holder) && lease.until > 0 {
                    lease.until = 0;
                    lease.ticket.attempts = lease.ticket.attempts.saturating_sub(1);
                    let expected = Expected::Version(row.versioned.version);
                    let id = JobId::parse(&state::name_in(&row.key, &prefix));
                    changes.effects.extend(id.ok().map(|id| Effect::Held((Timestamp(0), id))));
                    let key = row.key;
                    transaction.expect(key.clone(), expected).put(key, state::encode(&lease));
                }
            }
            if transaction.state.is_empty() {
                changes.abandon();
                return Ok(());
            }
            match store.commit(transaction).await {
                // Until none is left.
                Ok(_) => changes.done(),
                Err(error) => {
                    attempts.again(error)?;
                    changes.abandon();
                }
            }
        }
    }

    fn queue(&self, project: &ProjectName, name: &QueueName) -> Arc<Queue> {
        let mut live = lock(&self.live);
        if live.len() > IDLE_MAX {
            live.retain(|_, queue| Arc::strong_count(queue) > 1 || queue.is_watched());
        }
        let queue = live.entry((project.clone(), name.clone())).or_insert_with(|| {
            let counters = Arc::clone(&self.counters);
            Arc::new(Queue::new(project.clone(), name.clone(), counters))
        });
        Arc::clone(queue)
    }
}
