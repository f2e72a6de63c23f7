//! Requests to a service elsewhere: what they say, and sending them.
//!
//! A request is a job of the connector's own queue, made with its body in the transaction that moves
//! the cursor. It is sent at least once, always with the same `Idempotency-Key`.
//!
//! | kind | request |
//! | --- | --- |
//! | worker | `POST {url}/projects/{project}/queues/{queue}/jobs` `{"jobs": […]}`, a batch of a partition |
//! | hooks | `POST {url}/projects/{project}/webhooks` `{"event_type", "payload"}`, one an event |
//! | ledger | `POST {url}` `{"entries": […]}`, a batch of a partition |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;
use serde_json::value::RawValue;
use stream_storage::ProjectName;
use tokio::task::JoinSet;

use super::ConnectorsParts;
use super::health::Health;
use super::sift::Taken;
use super::spec::{Kind, Secret, Spec};
use super::target::stable_id;
use crate::egress::Outbound;
use crate::event::Event;
use crate::ledger::entry;
use crate::name::{ConnectorName, QueueName};
use crate::queue::{Claim, Claimed, Finish, NewJob, Outcome, QueueError, Retry, Source};
use crate::stage::{Breaker, BreakerConfig};

/// Who holds jobs here: after a restart nobody else does.
pub(super) const HOLDER: &str = "host";

/// Bytes of a request's body, about.
const BODY_BYTES: usize = 1 << 20;

/// Events in one request.
const EVENTS_MAX: usize = 100;

/// Bytes of an answer that are kept.
const ANSWER_BYTES: usize = 1_024;

/// How long to wait for a job before looking around.
const CLAIM_WAIT: Duration = Duration::from_secs(30);

/// How long requests may take to end once the server is told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Of a part of a path all but what RFC 3986 reserves nothing for.
const PATH: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'/').add(b'?');

/// The path of a job's request, behind the connector's URL.
const PATH_HEADER: &str = "path";

/// The key under which a repeat is recognised.
const KEY_HEADER: &str = "idempotency-key";

/// Makes requests of events.
pub(super) struct Requests {
    kind: Kind,
    name: ConnectorName,
    path: String,
}

impl Requests {
    pub(super) fn new(project: &ProjectName, name: &ConnectorName, spec: &Spec) -> Self {
        let part = |text: &str| utf8_percent_encode(text, PATH).to_string();
        let project = part(spec.settings.project.as_deref().unwrap_or(project.as_str()));
        let path = match spec.kind {
            Kind::Worker => format!("/projects/{project}/queues/{}/jobs", part(&spec.queue(name))),
            Kind::Hooks => format!("/projects/{project}/webhooks"),
            Kind::Ledger => String::new(),
        };
        Self { kind: spec.kind, name: name.clone(), path }
    }

    /// The requests for these events, in their order.
    pub(super) fn jobs(&self, taken: &[Taken<'_>]) -> Vec<NewJob> {
        let mut jobs = Vec::new();
        let mut rest = taken;
        while let Some((first, _)) = rest.split_first() {
            let most = if self.kind == Kind::Hooks { 1 } else { EVENTS_MAX };
            let mut bytes = 0;
            let fits = |taken: &&Taken<'_>| {
                bytes += taken.event.byte_len();
                taken.slot == first.slot && bytes <= BODY_BYTES
            };
            // One that is larger than a body should be goes alone.
            let count = rest.iter().take(most).take_while(fits).count().max(1);
            let (batch, behind) = rest.split_at(count);
            rest = behind;
            jobs.push(self.job(first, batch));
        }
        jobs
    }

    fn job(&self, first: &Taken<'_>, batch: &[Taken<'_>]) -> NewJob {
        let body = match self.kind {
            Kind::Worker => {
                let jobs = batch.iter().map(WorkerJob::new).collect();
                crate::state::encode(&Jobs { jobs })
            }
            Kind::Hooks => hook(first),
            Kind::Ledger => ledger(batch),
        };
        let last = batch.last().map_or(first.offset, |last| last.offset);
        let (name, id) = (&self.name, stable_id(first));
        let key = if self.kind == Kind::Hooks {
            format!("{name}-{id}")
        } else {
            format!("{name}-{id}-{last}")
        };
        let headers = [(PATH_HEADER, self.path.clone()), (KEY_HEADER, key)];
        NewJob {
            // In an ordered queue those of a partition follow each other.
            key: Some(format!("{}/{}", first.slot.topic, first.slot.partition)),
            payload: body.into(),
            headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
            source: Some(Source::new(first.topic.as_str(), first.slot, first.offset)),
            ..NewJob::default()
        }
    }
}

#[derive(Serialize)]
struct Jobs<'a> {
    jobs: Vec<WorkerJob<'a>>,
}

#[derive(Serialize)]
struct WorkerJob<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    payload: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    headers: BTreeMap<&'a str, String>,
}

impl<'a> WorkerJob<'a> {
    fn new(taken: &'a Taken<'_>) -> Self {
        let given = taken.event.headers.iter().map(|(name, value)| (&**name, value.to_string()));
        let mut headers: BTreeMap<&str, String> = given.collect();
        headers.insert("stream-topic", taken.topic.to_string());
        headers.insert("stream-partition", taken.slot.partition.to_string());
        headers.insert("stream-offset", taken.offset.to_string());
        for (name, value) in [("event-id", &taken.event.id), ("event-time", &taken.event.time)] {
            if let Some(value) = value {
                headers.insert(name, value.to_string());
            }
        }
        let event = &taken.event;
        Self {
            key: event.key.as_deref(),
            payload: raw(event),
            encoding: (!event.value_is_json).then_some("base64"),
            content_type: event.content_type.as_deref(),
            headers,
        }
    }
}

fn hook(taken: &Taken<'_>) -> Vec<u8> {
    let mut body = b"{\"event_type\":".to_vec();
    body.extend_from_slice(&crate::state::encode(&taken.topic.as_str()));
    body.extend_from_slice(b",\"payload\":");
    body.extend_from_slice(raw(&taken.event).get().as_bytes());
    body.push(b'}');
    body
}

fn ledger(batch: &[Taken<'_>]) -> Vec<u8> {
    let mut body = b"{\"entries\":[".to_vec();
    for (place, taken) in batch.iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        let Taken { topic, slot, offset, timestamp, event } = taken;
        let record = event.record();
        body.extend_from_slice(&entry::of(&record, topic, slot.partition, *offset, *timestamp));
    }
    body.extend_from_slice(b"]}");
    body
}

/// An event's value as JSON: what is not JSON is a base64 text.
fn raw(event: &Event<'_>) -> Box<RawValue> {
    let text = std::str::from_utf8(&event.value).ok().filter(|_| event.value_is_json);
    let raw = text.and_then(|text| RawValue::from_string(text.to_owned()).ok());
    raw.unwrap_or_else(|| {
        let quoted = format!("\"{}\"", BASE64_STANDARD.encode(&event.value));
        RawValue::from_string(quoted).unwrap_or_else(|_| RawValue::NULL.to_owned())
    })
}

/// Sends the requests of one connector.
pub(super) struct Sender {
    pub(super) parts: Arc<ConnectorsParts>,
    pub(super) project: ProjectName,
    pub(super) name: ConnectorName,
    pub(super) queue: QueueName,
    pub(super) url: String,
    pub(super) secret: Option<Secret>,
    pub(super) timeout: Duration,
    pub(super) concurrency: usize,
    pub(super) health: Arc<Health>,
    pub(super) breaker: Breaker,
}

impl Sender {
    /// A breaker that pauses when most requests fail.
    pub(super) fn breaker() -> Breaker {
        Breaker::new(BreakerConfig::default())
    }

    /// Sends until the drain begins. Cut off, what was under way is sent again after a restart.
    pub(super) async fn run(self) {
        let sender = Arc::new(self);
        let mut sending = JoinSet::new();
        loop {
            while sending.try_join_next().is_some() {}
            let free = sender.concurrency.saturating_sub(sending.len());
            if free == 0 {
                sending.join_next().await;
                continue;
            }
            let pause = match sender.claim(free).await {
                Ok(claimed) => {
                    for claimed in claimed {
                        let sender = Arc::clone(&sender);
                        sending.spawn(async move { sender.deliver(claimed).await });
                    }
                    None
                }
                Err(pause) => Some(pause),
            };
            if sender.parts.drain.has_begun() {
                break;
            }
            if let Some(pause) = pause {
                tokio::select! {
                    () = sender.parts.drain.begun() => break,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
        let ended = async { while sending.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_TIMEOUT, ended).await.is_err() {
            tracing::warn!("requests are cut off, and sent again at the next start");
        }
    }

    /// Takes jobs, or says how long to wait before the next look.
    async fn claim(&self, free: usize) -> Result<Vec<Claimed>, Duration> {
        let now = self.parts.clock.now();
        if let Some(paused) = self.breaker.paused(now) {
            self.health.pause(&paused.reason);
            return Err(paused.retry_after);
        }
        // One that probes goes alone.
        let max = if self.breaker.is_open() { 1 } else { free };
        let holder = Some(HOLDER.to_owned());
        let claim = Claim { max, lease: None, wait: CLAIM_WAIT, holder, even_spent: true };
        let claimed = self.parts.queues.claim(&self.project, &self.queue, &claim).await;
        claimed.map_err(|error| {
            self.health.failed(self.parts.clock.now(), &error.to_string());
            Duration::from_secs(1)
        })
    }

    async fn deliver(&self, claimed: Claimed) {
        if let Err(paused) = self.breaker.enter(self.parts.clock.now()) {
            // It opened since the claim: this was no try.
            let outcome = Outcome::Snoozed { delay: paused.retry_after };
            return self.finish(&claimed, outcome).await;
        }
        let sent = self.send(&claimed).await;
        let now = self.parts.clock.now();
        let outcome = match sent {
            Ok(()) => {
                self.breaker.passed(1, now);
                self.health.sent(now);
                Outcome::Done { result: None }
            }
            Err((reason, retry, is_theirs)) => {
                if is_theirs {
                    self.breaker.failed(1, now, &reason);
                } else {
                    self.breaker.passed(1, now);
                }
                self.health.failed(now, &reason);
                Outcome::Failed { reason, retry }
            }
        };
        self.finish(&claimed, outcome).await;
    }

    async fn finish(&self, claimed: &Claimed, outcome: Outcome) {
        let end = Finish { id: claimed.job.id, lease: claimed.lease, outcome };
        let ended = self.parts.queues.finish_alone(&self.project, &self.queue, &[end]).await;
        match ended {
            // Somebody emptied the queue, or the lease was over: it is sent again, with the same key.
            Ok(_) | Err(QueueError::NoSuchJob { .. } | QueueError::StaleLease { .. }) => {}
            Err(error) => {
                self.health.failed(self.parts.clock.now(), &error.to_string());
            }
        }
    }

    /// Sends one request; or says why not, when again, and whether the service is to blame.
    async fn send(&self, claimed: &Claimed) -> Result<(), (String, Retry, bool)> {
        let header = |name: &str| claimed.job.headers.get(name).map(String::as_str);
        let path = header(PATH_HEADER).unwrap_or_default();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = header(KEY_HEADER).and_then(|key| HeaderValue::from_str(key).ok()) {
            headers.insert(HeaderName::from_static(KEY_HEADER), key);
        }
        if let Some(Secret(secret)) = &self.secret
            && let Ok(mut bearer) = HeaderValue::from_str(&format!("Bearer {secret}"))
        {
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let outbound = Outbound {
            method: Method::POST,
            url: format!("{}{path}", self.url.trim_end_matches('/')),
            headers,
            body: claimed.job.payload.clone(),
            timeout: self.timeout,
            answer_bytes_max: ANSWER_BYTES,
        };
        let answer = match self.parts.egress.send(outbound).await {
            Ok(answer) => answer,
            Err(error) => {
                let retry = if error.is_retryable() { Retry::Backoff } else { Retry::Never };
                return Err((error.to_string(), retry, true));
            }
        };
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let reason = format!("{} answered {}: {text}", self.name, answer.status);
        match answer.status {
            200..=299 => Ok(()),
            408 | 409 | 425 | 429 | 500..=599 => {
                let retry = answer.retry_after.map_or(Retry::Backoff, Retry::After);
                Err((reason, retry, answer.status != 409))
            }
            // A redirect is not followed; who may not call now may later.
            300..=399 | 401 | 403 | 404 => Err((reason, Retry::Backoff, true)),
            // This request will never be taken; others may.
            _ => Err((reason, Retry::Never, false)),
        }
    }
}
