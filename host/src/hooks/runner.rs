//! One endpoint's task: takes its deliveries as they are due, posts them, and hands on how they ended.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use stream_storage::ProjectName;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::deliver::EVENT_ID;
use super::delivery::Attempt;
use super::endpoint::{Endpoint, Known};
use super::executor::Lanes;
use super::health::Health;
use super::outcome::{Judged, judge, ours};
use super::record::{End, Tried};
use super::sign::signatures;
use super::{Hooks, HooksError};
use crate::drain::Drain;
use crate::egress::Outbound;
use crate::lock::lock;
use crate::queue::{Claim, Claimed, Finish, Outcome};

/// Who holds the jobs that this server posts.
pub(super) const HOLDER: &str = "hooks";

/// Bytes of an answer that are kept.
const ANSWER_BYTES_MAX: usize = 1_024;
/// How long a look into an empty queue takes.
const CLAIM_WAIT: Duration = Duration::from_secs(30);
/// The wait after the store could not be read or written.
const PAUSE: Duration = Duration::from_secs(1);
/// Ends of attempts that wait to be written down.
const ENDS_MAX: usize = 1_024;

/// What one endpoint's task has.
pub(super) struct Runner {
    pub(super) hooks: Arc<Hooks>,
    pub(super) project: ProjectName,
    /// The endpoint as it was when this began.
    pub(super) endpoint: Arc<Known>,
    pub(super) lanes: Arc<Lanes>,
    /// Begins when the server stops, or the endpoint is deleted.
    pub(super) stop: Drain,
}

/// What the requests of an endpoint share.
#[derive(Default)]
struct Pace {
    health: Mutex<Health>,
    /// A request has ended.
    ended: Notify,
}

/// A job on its way out.
struct Post {
    hooks: Arc<Hooks>,
    endpoint: Arc<Known>,
    claimed: Claimed,
    pace: Arc<Pace>,
    ends: mpsc::Sender<Tried>,
    _permit: OwnedSemaphorePermit,
}

impl Runner {
    /// Posts until the stop begins and what is under way has ended.
    pub(super) async fn run(self) {
        self.release().await;
        let (ends, ended) = mpsc::channel(ENDS_MAX);
        tokio::join!(self.post_all(ends), self.record_all(ended));
    }

    /// Frees the jobs that this server held when it was last ended without a word.
    async fn release(&self) {
        while !self.stop.has_begun() {
            let released = async {
                let queue = self.endpoint.endpoint.queue()?;
                self.hooks.parts.queues.release(&self.project, &queue, HOLDER).await?;
                Ok::<(), HooksError>(())
            };
            match released.await {
                Ok(()) => return,
                Err(error) => self.pause(&error).await,
            }
        }
    }

    async fn post_all(&self, ends: mpsc::Sender<Tried>) {
        let pace = Arc::new(Pace::default());
        let mut posts = JoinSet::new();
        while let Some(room) = self.room(&pace).await {
            // What has ended is forgotten.
            while posts.try_join_next().is_some() {}
            match self.claim(room).await {
                Ok(claimed) => {
                    // Whoever has changed it sees that change in all that is taken from then on.
                    let endpoint = self.current().await;
                    for claimed in claimed {
                        self.post(&mut posts, (&endpoint, &pace, &ends), claimed).await;
                    }
                }
                Err(error) => self.pause(&error).await,
            }
        }
        while posts.join_next().await.is_some() {}
    }

    /// How many requests may begin now; waits for one to end. `None` if there are to be no more.
    async fn room(&self, pace: &Pace) -> Option<usize> {
        loop {
            let ended = pace.ended.notified();
            if self.stop.has_begun() {
                return None;
            }
            let concurrency = self.current().await.endpoint.settings.concurrency;
            let concurrency = usize::try_from(concurrency).unwrap_or(usize::MAX);
            let now = Instant::now();
            let (room, resumes) = {
                let health = lock(&pace.health);
                (health.room(now, concurrency), health.resumes())
            };
            if room > 0 {
                return Some(room);
            }
            // Whoever pauses goes on at a time; whoever is full, when a request ends.
            let resumes = resumes.filter(|resumes| *resumes > now).unwrap_or(now + CLAIM_WAIT);
            tokio::select! {
                () = self.stop.begun() => return None,
                () = tokio::time::sleep_until(resumes) => {}
                () = ended => {}
            }
        }
    }

    /// The endpoint as it is now; as it was, if that is not known.
    async fn current(&self) -> Arc<Known> {
        let was = &self.endpoint;
        let known = self.hooks.directory.known(&self.project).await.unwrap_or_default();
        let now = known.iter().find(|known| known.endpoint.id == was.endpoint.id);
        Arc::clone(now.unwrap_or(was))
    }

    async fn claim(&self, max: usize) -> Result<Vec<Claimed>, HooksError> {
        let holder = Some(HOLDER.to_owned());
        // Of those, too, the end belongs into the endpoint's log.
        let claim = Claim { max, lease: None, wait: CLAIM_WAIT, holder, even_spent: true };
        let queue = self.endpoint.endpoint.queue()?;
        tokio::select! {
            biased;
            claimed = self.hooks.parts.queues.claim(&self.project, &queue, &claim) => Ok(claimed?),
            // The endpoint is deleted, and its queue with it; or the server stops: then what was
            // taken and not seen is freed at the next start.
            () = self.stop.begun() => Ok(Vec::new()),
        }
    }

    /// Lets a job go out when it is its turn among all endpoints.
    async fn post(
        &self,
        posts: &mut JoinSet<()>,
        (endpoint, pace, ends): (&Arc<Known>, &Arc<Pace>, &mpsc::Sender<Tried>),
        claimed: Claimed,
    ) {
        let is_troubled = lock(&pace.health).is_troubled();
        let permit = tokio::select! {
            biased;
            permit = self.lanes.enter(is_troubled) => permit,
            () = self.stop.begun() => None,
        };
        let Some(permit) = permit else {
            // Nobody listens if the task was ended by force: then its lease ends.
            let _ = ends.send(Tried { claimed, end: End::Returned }).await;
            return;
        };
        let Some(claimed) = self.hold(&endpoint.endpoint, claimed).await else { return };
        lock(&pace.health).begin();
        let (hooks, endpoint) = (Arc::clone(&self.hooks), Arc::clone(endpoint));
        let (pace, ends) = (Arc::clone(pace), ends.clone());
        posts.spawn(Post { hooks, endpoint, claimed, pace, ends, _permit: permit }.run());
    }

    /// A job that has waited long for its turn is held for longer, if it is still ours.
    async fn hold(&self, endpoint: &Endpoint, claimed: Claimed) -> Option<Claimed> {
        let needed = endpoint.settings.timeout_ms.saturating_add(1_000);
        let now = self.hooks.parts.clock.now().0;
        if claimed.leased_until.0 >= now.saturating_add(needed) {
            return Some(claimed);
        }
        let outcome = Outcome::Extended { lease: None };
        let end = Finish { id: claimed.job.id, lease: claimed.lease, outcome };
        let queue = endpoint.queue().ok()?;
        match self.hooks.parts.queues.finish_alone(&self.project, &queue, &[end]).await {
            Ok(_) => Some(claimed),
            Err(error) => {
                tracing::debug!(%error, endpoint = %endpoint.name, "a delivery is left to others");
                None
            }
        }
    }

    async fn record_all(&self, mut ended: mpsc::Receiver<Tried>) {
        let mut lot = Vec::new();
        while ended.recv_many(&mut lot, ENDS_MAX).await > 0 {
            let known = self.current().await;
            self.hooks.record(&self.project, &known.endpoint, std::mem::take(&mut lot)).await;
        }
    }

    async fn pause(&self, error: &HooksError) {
        tracing::warn!(%error, endpoint = %self.endpoint.endpoint.name, "deliveries wait");
        tokio::select! {
            () = self.stop.begun() => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

impl Post {
    async fn run(self) {
        let (judged, attempt) = self.attempt().await;
        lock(&self.pace.health).end(judged.seen, Instant::now());
        self.pace.ended.notify_one();
        let tried = Tried { claimed: self.claimed, end: End::Attempted(judged, attempt) };
        // Nobody listens if the task was ended by force: then its lease ends.
        let _ = self.ends.send(tried).await;
    }

    async fn attempt(&self) -> (Judged, Attempt) {
        let parts = &self.hooks.parts;
        let at = parts.clock.now();
        let mut attempt = Attempt {
            at: at.0,
            duration_ms: 0,
            status_code: None,
            error: None,
            answer: None,
            answer_is_cut: false,
        };
        let endpoint = &self.endpoint.endpoint;
        let settings = &endpoint.settings;
        let headers = match self.headers(at.0 / 1_000) {
            Ok(headers) => headers,
            Err(error) => {
                tracing::error!(error, endpoint = %endpoint.name, "nothing can be signed");
                let judged = ours(error);
                attempt.error.clone_from(&judged.error);
                return (judged, attempt);
            }
        };
        let start = Instant::now();
        let sent = parts.egress.send(Outbound {
            method: Method::POST,
            url: endpoint.url.clone(),
            headers,
            body: self.claimed.job.payload.clone(),
            timeout: Duration::from_millis(settings.timeout_ms),
            answer_bytes_max: ANSWER_BYTES_MAX,
        });
        let result = sent.await;
        let ladder =
            self.hooks.with_random(|random| settings.backoff().next(self.claimed.attempt, random));
        let judged = judge(&result, ladder);
        attempt.duration_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        attempt.error.clone_from(&judged.error);
        if let Ok(answer) = result {
            attempt.status_code = Some(answer.status);
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            attempt.answer = Some(text).filter(|text| !text.is_empty());
            attempt.answer_is_cut = answer.is_cut;
        }
        (judged, attempt)
    }

    /// The three headers of Standard Webhooks, and the body's type.
    fn headers(&self, timestamp: u64) -> Result<HeaderMap, String> {
        let parts = &self.hooks.parts;
        let job = &self.claimed.job;
        let id = job.headers.get(EVENT_ID).map(String::as_str).unwrap_or_default();
        let secrets = self.endpoint.endpoint.open(&parts.sealer, parts.clock.now());
        let secrets = secrets.map_err(|error| error.to_string())?;
        let signed = signatures(&secrets, id, timestamp, &job.payload);
        let value = |text: &str| HeaderValue::try_from(text).map_err(|error| error.to_string());
        Ok(HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (HeaderName::from_static("webhook-id"), value(id)?),
            (HeaderName::from_static("webhook-timestamp"), HeaderValue::from(timestamp)),
            (HeaderName::from_static("webhook-signature"), value(&signed)?),
        ]))
    }
}
