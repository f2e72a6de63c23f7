//! Jobs that go into a queue, or end, in the transaction of a publish: so that a repeat is known by its
//! key, and results are published with the end of the job that they come from, or not at all.

use std::sync::Mutex;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use stream_storage::{StoreError, Transaction};

use super::{Enqueued, Finish, Finished, JobId, JobPlace, NewJob, QueueError, Queues};
use crate::lock::lock;
use crate::name::QueueName;
use crate::publish::{Alongside, AlongsideError};

/// Jobs on their way into a queue, which is made if it is not there.
pub struct Enqueuing<'a> {
    queues: &'a Queues,
    name: &'a QueueName,
    jobs: &'a [NewJob],
    state: Mutex<Option<Enqueued>>,
}

/// What a repeat is told.
#[derive(Serialize, Deserialize)]
struct Places {
    ids: Vec<JobId>,
    /// The places in `ids` of jobs that were there already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    duplicates: Vec<usize>,
}

impl<'a> Enqueuing<'a> {
    /// Nothing is read yet.
    pub fn new(queues: &'a Queues, name: &'a QueueName, jobs: &'a [NewJob]) -> Self {
        Self { queues, name, jobs, state: Mutex::default() }
    }

    /// Where the jobs are, by what was told of them.
    ///
    /// # Errors
    ///
    /// What was told is damaged.
    pub fn places(told: &RawValue) -> Result<Vec<JobPlace>, StoreError> {
        let corrupt = |error: serde_json::Error| StoreError::Corrupt { reason: error.to_string() };
        let Places { ids, duplicates } = serde_json::from_str(told.get()).map_err(corrupt)?;
        let place = |(place, id)| JobPlace { id, is_duplicate: duplicates.contains(&place) };
        Ok(ids.into_iter().enumerate().map(place).collect())
    }

    fn abandon(&self) {
        if let Some(enqueued) = lock(&self.state).take() {
            enqueued.abandon();
        }
    }
}

#[async_trait]
impl Alongside for Enqueuing<'_> {
    async fn add(
        &self,
        transaction: &mut Transaction,
    ) -> Result<Option<Box<RawValue>>, AlongsideError> {
        // It holds on to the keys' locks.
        self.abandon();
        let enqueued = self.queues.enqueue(transaction, self.name, self.jobs.to_vec()).await?;
        let places = enqueued.places();
        let repeated = places.iter().enumerate().filter(|(_, place)| place.is_duplicate);
        let places = Places {
            ids: places.iter().map(|place| place.id).collect(),
            duplicates: repeated.map(|(place, _)| place).collect(),
        };
        *lock(&self.state) = Some(enqueued);
        let told = to_raw_value(&places);
        told.map(Some).map_err(|error| {
            QueueError::Store(StoreError::Corrupt { reason: error.to_string() }).into()
        })
    }

    async fn done(&self) {
        let enqueued = lock(&self.state).take();
        if let Some(enqueued) = enqueued {
            enqueued.done();
        }
    }

    async fn repeated(&self) {
        self.abandon();
    }

    async fn refused(&self) {
        self.abandon();
    }

    fn scope(&self) -> Option<String> {
        Some(format!("queue/{}", self.name))
    }
}

/// The end of a job on its way.
pub struct Finishing<'a> {
    queues: &'a Queues,
    name: &'a QueueName,
    end: Finish,
    state: Mutex<Option<Finished>>,
}

impl<'a> Finishing<'a> {
    /// Nothing is read yet.
    pub fn new(queues: &'a Queues, name: &'a QueueName, end: Finish) -> Self {
        Self { queues, name, end, state: Mutex::default() }
    }

    fn abandon(&self) {
        if let Some(finished) = lock(&self.state).take() {
            finished.abandon();
        }
    }
}

#[async_trait]
impl Alongside for Finishing<'_> {
    async fn add(
        &self,
        transaction: &mut Transaction,
    ) -> Result<Option<Box<RawValue>>, AlongsideError> {
        // It holds on to the key's lock.
        self.abandon();
        let ends = std::slice::from_ref(&self.end);
        let finished = self.queues.finish(transaction, self.name, ends).await?;
        *lock(&self.state) = Some(finished);
        Ok(None)
    }

    async fn done(&self) {
        let finished = lock(&self.state).take();
        if let Some(finished) = finished {
            finished.done();
        }
    }

    async fn repeated(&self) {
        self.abandon();
    }

    async fn refused(&self) {
        self.abandon();
    }

    fn scope(&self) -> Option<String> {
        Some(format!("queue/{}", self.name))
    }
}
