//! Jobs that go into a queue, or end, in the transaction of a publish: so that a repeat is known by its
//! key, and results are published with the end of the job that they come from, or not at all.

use std::collections::BTreeSet;
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

/// What a repeat is told: kept with each request, so in few bytes.
#[derive(Serialize, Deserialize)]
struct Places {
    /// Ids that follow each other: the first, and how many.
    runs: Vec<(JobId, u64)>,
    /// The places of jobs that were there already.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    duplicates: BTreeSet<usize>,
}

impl Places {
    fn new(places: &[JobPlace]) -> Self {
        let mut runs: Vec<(JobId, u64)> = Vec::new();
        for JobPlace { id, .. } in places {
            match runs.last_mut() {
                Some((first, count)) if first.after(*count) == *id => *count += 1,
                _ => runs.push((*id, 1)),
            }
        }
        let repeated = places.iter().enumerate().filter(|(_, place)| place.is_duplicate);
        Self { runs, duplicates: repeated.map(|(place, _)| place).collect() }
    }

    fn all(&self) -> Vec<JobPlace> {
        let ids = self.runs.iter().flat_map(|(first, count)| (0..*count).map(|n| first.after(n)));
        let place = |(place, id)| JobPlace { id, is_duplicate: self.duplicates.contains(&place) };
        ids.enumerate().map(place).collect()
    }
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
        let places: Places = serde_json::from_str(told.get()).map_err(corrupt)?;
        Ok(places.all())
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
        let places = Places::new(enqueued.places());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::job::JobIds;
    use stream_storage::Timestamp;

    #[test]
    fn places_take_few_bytes_and_read_back() {
        let ids = JobIds::new(7);
        let mut places: Vec<JobPlace> = (0..1_000)
            .map(|_| JobPlace { id: ids.next(Timestamp(9)), is_duplicate: false })
            .collect();
        let told = to_raw_value(&Places::new(&places)).unwrap();
        assert!(told.get().len() < 100, "{told}");
        assert_eq!(Enqueuing::places(&told).unwrap(), places);
        // Others come between, and some were there already: the most that there can be.
        for (place, one) in places.iter_mut().enumerate() {
            (one.id, one.is_duplicate) = (ids.next(Timestamp(9 + 2 * place as u64)), true);
        }
        let told = to_raw_value(&Places::new(&places)).unwrap();
        assert!(told.get().len() < 48 << 10, "{}", told.get().len());
        assert_eq!(Enqueuing::places(&told).unwrap(), places);
    }
}
