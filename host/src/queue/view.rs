//! How queues and jobs stand.

use std::sync::Arc;

use bytes::Bytes;
use stream_storage::{Expected, ProjectName, StateEntry, Store, StoreError, Timestamp};

use super::job::{JobId, JobState, JobView};
use super::rows::{self, Behind, Dead, Done, Row, StoredLease, Ticket};
use super::settings::QueueSettings;
use super::{QueueError, Queues};
use crate::name::QueueName;
use crate::state::{self, Page, PageRequest};

/// Rows are counted up to here.
pub const COUNT_MAX: usize = 100_000;

/// What an answer has around a job and its payload, about.
pub(super) const ENVELOPE_BYTES: usize = 512;

/// Rows read at once when they are counted.
const COUNT_STEP: usize = 1_000;

/// How a queue stands.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueView {
    /// Its name.
    pub name: QueueName,
    /// How it works.
    pub settings: QueueSettings,
    /// Jobs that wait for their time or their turn, counted up to [`COUNT_MAX`].
    pub waiting: usize,
    /// Jobs that are held.
    pub leased: usize,
    /// Jobs that were given up, counted up to [`COUNT_MAX`].
    pub dead: usize,
    /// When the first one is due that waits for its time.
    pub next_due: Option<Timestamp>,
}

/// Jobs of which a list is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// Those that wait for their time, the first due first.
    Waiting,
    /// Those that are held.
    Leased,
    /// Those that were given up.
    Dead,
}

impl Queues {
    /// How a queue stands.
    ///
    /// # Errors
    ///
    /// There is no such queue, or the store could not be read.
    pub async fn describe(
        &self,
        project: &ProjectName,
        name: &QueueName,
    ) -> Result<QueueView, QueueError> {
        let settings = self.get(project, name).await?;
        let store = self.parts.store.as_ref();
        let waiting = count(store, project, &Row::Due.of(name)).await?;
        let behind = count(store, project, &Row::Behind.of(name)).await?;
        let prefix = Row::Due.of(name);
        let first = store.scan(project, prefix.as_bytes(), None, 1).await?;
        let first = first.first().and_then(|row| {
            rows::parse_due(&state::name_in(&row.key, &prefix)).map(|(due, _)| due)
        });
        Ok(QueueView {
            name: name.clone(),
            settings: QueueSettings::clone(&settings),
            waiting: (waiting + behind).min(COUNT_MAX),
            leased: count(store, project, &Row::Lease.of(name)).await?,
            dead: count(store, project, &Row::Dead.of(name)).await?,
            next_due: first,
        })
    }

    /// Checks that a queue was set up, by what is known of it.
    ///
    /// # Errors
    ///
    /// There is no such queue, or the store could not be read.
    pub async fn check(&self, project: &ProjectName, name: &QueueName) -> Result<(), QueueError> {
        let queue = self.queue(project, name);
        match queue.setup(self.parts.store.as_ref()).await?.expected {
            Expected::Absent => Err(QueueError::NotFound { queue: name.clone() }),
            Expected::Version(_) => Ok(()),
        }
    }

    /// Whether a queue has no job that is not finished.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn is_empty(
        &self,
        project: &ProjectName,
        name: &QueueName,
    ) -> Result<bool, QueueError> {
        for row in [Row::Due, Row::Lease, Row::Behind] {
            let prefix = row.of(name);
            if !self.parts.store.scan(project, prefix.as_bytes(), None, 1).await?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// One job.
    ///
    /// # Errors
    ///
    /// There is none, or it is done and had no result; or the store could not be read.
    pub async fn job(
        &self,
        project: &ProjectName,
        name: &QueueName,
        id: JobId,
    ) -> Result<JobView, QueueError> {
        let store = self.parts.store.as_ref();
        let key = Row::Job.key(name, id);
        let Some(job) = store.get(project, key.as_bytes()).await? else {
            return Err(QueueError::NoSuchJob { queue: name.clone(), id });
        };
        let job = rows::decode_job(id, &job.value)?;
        let view = |state, attempts, last_error| JobView {
            job: job.clone(),
            state,
            attempts,
            last_error,
            result: None,
        };
        let key = Row::Lease.key(name, id);
        let found = store.get(project, key.as_bytes()).await?;
        if let Some(lease) = rows::decode::<StoredLease>(&key, found.as_ref())? {
            let state = JobState::Leased { until: Timestamp(lease.until) };
            return Ok(view(state, lease.ticket.attempts, lease.ticket.error));
        }
        let key = Row::Dead.key(name, id);
        let found = store.get(project, key.as_bytes()).await?;
        if let Some(dead) = rows::decode::<Dead>(&key, found.as_ref())? {
            let state = JobState::Dead { at: Timestamp(dead.at) };
            return Ok(view(state, dead.attempts, Some(dead.reason)));
        }
        let key = Row::Done.key(name, id);
        let found = store.get(project, key.as_bytes()).await?;
        if let Some(done) = rows::decode::<Done>(&key, found.as_ref())? {
            let result = done.result.get().to_owned().into();
            let state = JobState::Done { at: Timestamp(done.at) };
            return Ok(JobView { result: Some(result), ..view(state, done.attempts, None) });
        }
        if let Some(digest) = job.key.as_deref().map(rows::digest) {
            let key = rows::behind(name, &digest, id);
            let found = store.get(project, key.as_bytes()).await?;
            if let Some(behind) = rows::decode::<Behind>(&key, found.as_ref())? {
                return Ok(view(JobState::Behind, behind.ticket.attempts, None));
            }
        }
        // Most wait where they were put.
        let key = rows::due(name, job.enqueued_at, id);
        let found = store.get(project, key.as_bytes()).await?;
        if let Some(ticket) = rows::decode::<Ticket>(&key, found.as_ref())? {
            let state = JobState::Waiting { due: job.enqueued_at };
            return Ok(view(state, ticket.attempts, ticket.error));
        }
        match self.due_of(project, name, id).await? {
            Some((due, ticket)) => {
                Ok(view(JobState::Waiting { due }, ticket.attempts, ticket.error))
            }
            // It came to its end between two looks.
            None => Err(QueueError::NoSuchJob { queue: name.clone(), id }),
        }
    }

    /// What a job is to do, however it stands; `None` if it is not kept. Far cheaper than
    /// [`job`](Self::job), which has to find where the job waits.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn payload(
        &self,
        project: &ProjectName,
        name: &QueueName,
        id: JobId,
    ) -> Result<Option<Bytes>, QueueError> {
        let key = Row::Job.key(name, id);
        let found = self.parts.store.get(project, key.as_bytes()).await?;
        let payload = found.map(|row| rows::decode_job(id, &row.value).map(|job| job.payload));
        Ok(payload.transpose()?)
    }

    /// Where a job waits: a search among all that do, for people.
    async fn due_of(
        &self,
        project: &ProjectName,
        name: &QueueName,
        id: JobId,
    ) -> Result<Option<(Timestamp, Ticket)>, StoreError> {
        let prefix = Row::Due.of(name);
        let mut request = PageRequest { after: None, limit: Some(1_000) };
        loop {
            let store = self.parts.store.as_ref();
            let page = state::page(store, project, &prefix, &request).await?;
            for row in &page.items {
                let place = rows::parse_due(&state::name_in(&row.key, &prefix));
                if let Some((due, _)) = place.filter(|(_, found)| *found == id) {
                    return Ok(Some((due, state::decode(&row.key, &row.versioned)?)));
                }
            }
            if page.next.is_none() {
                return Ok(None);
            }
            request.after = page.next;
        }
    }

    /// Jobs of a queue, page by page.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn jobs(
        &self,
        project: &ProjectName,
        name: &QueueName,
        listed: Listed,
        request: &PageRequest,
    ) -> Result<Page<JobView>, QueueError> {
        self.jobs_within(project, name, (listed, usize::MAX), request).await
    }

    /// As [`jobs`](Self::jobs), of at most so many bytes, but at least one.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn jobs_within(
        &self,
        project: &ProjectName,
        name: &QueueName,
        (listed, bytes_max): (Listed, usize),
        request: &PageRequest,
    ) -> Result<Page<JobView>, QueueError> {
        let store = self.parts.store.as_ref();
        let row = match listed {
            Listed::Waiting => Row::Due,
            Listed::Leased => Row::Lease,
            Listed::Dead => Row::Dead,
        };
        let prefix = row.of(name);
        let page = state::page(store, project, &prefix, request).await?;
        let mut items = Vec::with_capacity(page.items.len());
        let (mut bytes, mut last) = (0_usize, None);
        for row in page.items {
            let word = state::name_in(&row.key, &prefix);
            let before = last.replace(word.clone());
            let Some((id, state, attempts, last_error)) = standing(listed, &word, &row)? else {
                continue;
            };
            let key = Row::Job.key(name, id);
            // Finished since the rows were read.
            let Some(job) = store.get(project, key.as_bytes()).await? else { continue };
            bytes = bytes.saturating_add(job.value.len()).saturating_add(ENVELOPE_BYTES);
            if bytes > bytes_max && !items.is_empty() {
                return Ok(Page { items, next: before });
            }
            let job = rows::decode_job(id, &job.value)?;
            items.push(JobView { job, state, attempts, last_error, result: None });
        }
        Ok(Page { items, next: page.next })
    }

    /// All queues that were set up, with those of the server's own only if asked for.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn list(
        &self,
        project: &ProjectName,
        request: &PageRequest,
    ) -> Result<Page<(QueueName, QueueSettings)>, QueueError> {
        let store = self.parts.store.as_ref();
        let page = state::page(store, project, rows::SETTINGS, request).await?;
        let page = page.try_map(|row| {
            let name = QueueName::parse(&state::name_in(&row.key, rows::SETTINGS))
                .map_err(|error| StoreError::Corrupt { reason: error.to_string() })?;
            Ok::<_, StoreError>((name, state::decode(&row.key, &row.versioned)?))
        })?;
        Ok(page)
    }

    /// The settings of a queue that was set up.
    ///
    /// # Errors
    ///
    /// There is no such queue, or the store could not be read.
    pub async fn get(
        &self,
        project: &ProjectName,
        name: &QueueName,
    ) -> Result<Arc<QueueSettings>, QueueError> {
        let key = rows::settings(name);
        let found = self.parts.store.get(project, key.as_bytes()).await?;
        match rows::decode(&key, found.as_ref())? {
            Some(settings) => Ok(Arc::new(settings)),
            None => Err(QueueError::NotFound { queue: name.clone() }),
        }
    }
}

type Standing = (JobId, JobState, u32, Option<String>);

fn standing(listed: Listed, word: &str, row: &StateEntry) -> Result<Option<Standing>, StoreError> {
    let id = || JobId::parse(word).ok();
    Ok(match listed {
        Listed::Waiting => {
            let ticket: Ticket = state::decode(&row.key, &row.versioned)?;
            rows::parse_due(word)
                .map(|(due, id)| (id, JobState::Waiting { due }, ticket.attempts, ticket.error))
        }
        Listed::Leased => {
            let lease: StoredLease = state::decode(&row.key, &row.versioned)?;
            let state = JobState::Leased { until: Timestamp(lease.until) };
            id().map(|id| (id, state, lease.ticket.attempts, lease.ticket.error))
        }
        Listed::Dead => {
            let dead: Dead = state::decode(&row.key, &row.versioned)?;
            let state = JobState::Dead { at: Timestamp(dead.at) };
            id().map(|id| (id, state, dead.attempts, Some(dead.reason)))
        }
    })
}

/// Counts rows, without keeping them.
async fn count(
    store: &dyn Store,
    project: &ProjectName,
    prefix: &str,
) -> Result<usize, StoreError> {
    let (mut after, mut count): (Option<Vec<u8>>, usize) = (None, 0);
    loop {
        let rows = store.scan(project, prefix.as_bytes(), after.as_deref(), COUNT_STEP).await?;
        count += rows.len();
        match rows.last() {
            Some(last) if rows.len() == COUNT_STEP && count < COUNT_MAX => {
                after = Some(last.key.to_vec());
            }
            _ => return Ok(count.min(COUNT_MAX)),
        }
    }
}
