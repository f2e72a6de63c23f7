//! `…/queues/{queue}/jobs`: jobs go in, are taken, and end.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use stream_storage::{ProjectName, Timestamp};

use super::answer::{self, Answer};
use super::auth::{Caller, Consume, Publish};
use super::error::ApiError;
use super::events::of_topic;
use super::fields::{Fields, elements, required};
use super::observe::Presence;
use super::params::{
    BYTES_DEFAULT, BYTES_MAX, JobParam, OwnQueueParam, Params, QueueParam, WAIT_MILLIS_MAX,
};
use super::room::Room;
use super::{App, body, identity, job_json};
use crate::ack;
use crate::auth::Scope;
use crate::consume::Amount;
use crate::decode::{self, Addressed, DecodeError, DecodedJob, Due};
use crate::heavy::heavy;
use crate::name::{QueueName, TopicName};
use crate::publish::{Destination, Identity, OnReject, PublishRequest, Published};
use crate::queue::{
    CLAIM_MAX, Claim, ENQUEUE_MAX, Enqueuing, Fate, Finish, Finishing, JobId, JobPlace, LONGEST,
    Lease, Listed, NewJob, Outcome, RESULT_BYTES_MAX, Retry,
};

/// Jobs in a list unless the request says otherwise.
const LIST_DEFAULT: usize = 100;

/// The shortest lease: below it, a job is another's before its first heartbeat.
const LEASE_MILLIS_MIN: u64 = 100;

/// The longest name that a worker has for itself, in bytes.
const WORKER_BYTES_MAX: usize = 128;

pub(crate) async fn enqueue(
    State(app): State<Arc<App>>,
    caller: Caller<Publish>,
    OwnQueueParam(queue): OwnQueueParam,
    request: Request,
) -> Answer {
    let headers = request.headers().clone();
    let body = body::with_events(&app, &caller.project, request).await?;
    let identity = identity::identity(&headers, &format!("queue/{queue}/jobs"), &body.bytes)?;
    let decoded =
        heavy(body.bytes.len(), || decode::jobs(&body.bytes, &app.node.limits, ENQUEUE_MAX));
    let now = app.node.clock.now();
    let jobs: Vec<NewJob> =
        decoded.map_err(of_job)?.into_iter().map(|job| new_job(job, now)).collect();
    let queues = &app.node.queues;
    let (places, is_repeat) = match identity {
        None => (queues.enqueue_alone(&caller.project, &queue, &jobs).await?, false),
        Some(identity) => {
            let enqueuing = Enqueuing::new(queues, &queue, &jobs);
            let mut request = nothing(&caller.project, Some(identity));
            request.alongside = Some(&enqueuing);
            let published = app.node.publisher.publish(request).await?;
            let places = published.alongside.as_deref().map(Enqueuing::places).transpose()?;
            (places.unwrap_or_default(), published.duplicate)
        }
    };
    let of_place =
        |place: &JobPlace| json!({ "id": place.id.to_string(), "duplicate": place.is_duplicate });
    let told = json!({
        "queue": queue.as_str(),
        "jobs": places.iter().map(of_place).collect::<Vec<_>>(),
        "duplicate": is_repeat,
    });
    Ok(answer::json(StatusCode::OK, &told))
}

/// A publish of nothing but what is stored alongside.
fn nothing(project: &ProjectName, identity: Option<Identity>) -> PublishRequest<'_> {
    PublishRequest {
        project,
        destination: Destination::Each(&[]),
        events: &[],
        identity,
        ack: None,
        on_reject: OnReject::Refuse,
        alongside: None,
    }
}

fn new_job(job: DecodedJob<'_>, now: Timestamp) -> NewJob {
    let DecodedJob { event, unique, due } = job;
    let millis = |delay: Duration| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    NewJob {
        key: event.key.map(Into::into),
        unique: unique.map(Into::into),
        payload: event.value.into_owned().into(),
        content_type: event.content_type.map(Into::into),
        headers: event
            .headers
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        source: None,
        due: match due {
            Due::Now => None,
            Due::At(time) => Some(time),
            Due::In(delay) => Some(Timestamp(now.0.saturating_add(millis(delay)))),
        },
    }
}

/// What is wrong with a job, by its field.
fn of_job(error: DecodeError) -> ApiError {
    match error {
        DecodeError::Malformed { index, byte, field, message } => {
            let at = byte.map(|byte| format!(", byte `{byte}`")).unwrap_or_default();
            let field = field.unwrap_or_else(|| "body".to_owned());
            ApiError::invalid(field, format!("job `{index}`{at}: {message}"))
        }
        DecodeError::Empty => ApiError::invalid("jobs", "expected at least one job"),
        DecodeError::TooManyEvents { max } => {
            ApiError::invalid("jobs", format!("expected at most {max} jobs"))
        }
        error => error.into(),
    }
}

pub(crate) async fn claim(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    OwnQueueParam(queue): OwnQueueParam,
    Extension(presence): Extension<Presence>,
    request: Request,
) -> Answer {
    let fields = body::fields_if_any(&app, &caller.project, request).await?;
    let (claim, bytes_max) = claim_of(fields)?;
    let queues = &app.node.queues;
    queues.check(&caller.project, &queue).await?;
    let amount = Amount { records_max: claim.max, bytes_max, wait: claim.wait };
    let mut claiming = queues.claiming(&caller.project, &queue, &claim);
    let mut room = Room::take(&app, &caller, amount)?;
    loop {
        let claimed = claiming.take(room.amount().bytes_max).await?;
        if presence.has_ended() {
            give_back(&app, &caller.project, &queue, &claimed).await?;
            return Ok(answer::no_content());
        }
        let is_over = !claimed.is_empty() || room.leave().is_none() || {
            tokio::select! {
                again = claiming.wait() => !again?,
                () = presence.ended() => true,
            }
        };
        if is_over {
            let out = job_json::claimed(&queue, &claimed);
            let permit = room.into_permit(&out);
            return Ok(answer::held("application/json", out, permit));
        }
        room.enter(&app, &caller)?;
        // Deleted meanwhile.
        queues.check(&caller.project, &queue).await?;
    }
}

/// Jobs that were taken for somebody who is gone: they were not tried.
async fn give_back(
    app: &App,
    project: &ProjectName,
    queue: &QueueName,
    claimed: &[crate::queue::Claimed],
) -> Result<(), ApiError> {
    let outcome = Outcome::Snoozed { delay: Duration::ZERO };
    let end = |claimed: &crate::queue::Claimed| Finish {
        id: claimed.job.id,
        lease: claimed.lease,
        outcome: outcome.clone(),
    };
    let ends: Vec<Finish> = claimed.iter().map(end).collect();
    app.node.queues.finish_each(project, queue, &ends).await?;
    Ok(())
}

fn claim_of(mut fields: Fields) -> Result<(Claim, usize), ApiError> {
    let max = fields.number("max")?.unwrap_or(1);
    if !(1..=CLAIM_MAX).contains(&max) {
        return Err(ApiError::invalid("max", format!("expected 1 to {CLAIM_MAX}")));
    }
    let wait = fields.number("wait_ms")?.unwrap_or(0);
    if wait > WAIT_MILLIS_MAX {
        return Err(ApiError::invalid("wait_ms", format!("expected at most {WAIT_MILLIS_MAX}")));
    }
    let bytes_max = fields.number("max_bytes")?.unwrap_or(BYTES_DEFAULT);
    if !(1..=BYTES_MAX).contains(&bytes_max) {
        return Err(ApiError::invalid("max_bytes", format!("expected 1 to {BYTES_MAX}")));
    }
    let holder = fields.text("worker")?;
    if holder.as_ref().is_some_and(|name| name.is_empty() || name.len() > WORKER_BYTES_MAX) {
        let expected = format!("expected 1 to {WORKER_BYTES_MAX} bytes");
        return Err(ApiError::invalid("worker", expected));
    }
    let lease = lease(&mut fields)?;
    fields.finish()?;
    let wait = Duration::from_millis(wait);
    Ok((Claim { max, lease, wait, holder, even_spent: false }, bytes_max))
}

/// `lease_ms`.
fn lease(fields: &mut Fields) -> Result<Option<Duration>, ApiError> {
    let Some(lease) = delay(fields, "lease_ms")? else { return Ok(None) };
    if lease < Duration::from_millis(LEASE_MILLIS_MIN) {
        return Err(ApiError::invalid("lease_ms", format!("expected {LEASE_MILLIS_MIN} or more")));
    }
    Ok(Some(lease))
}

/// A time in milliseconds, of at most 30 days.
fn delay(fields: &mut Fields, name: &'static str) -> Result<Option<Duration>, ApiError> {
    let delay = fields.number(name)?.map(Duration::from_millis);
    if delay.is_some_and(|delay| delay > LONGEST) {
        let expected = format!("expected at most {}, which is 30 days", LONGEST.as_millis());
        return Err(ApiError::invalid(name, expected));
    }
    Ok(delay)
}

fn shown_lease(fields: &mut Fields) -> Result<Lease, ApiError> {
    Ok(Lease(required("lease", fields.number("lease")?)?))
}

pub(crate) async fn heartbeat(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    OwnQueueParam(queue): OwnQueueParam,
    JobParam(id): JobParam,
    request: Request,
) -> Answer {
    let mut fields = body::fields(&app, &caller.project, request).await?;
    let shown = shown_lease(&mut fields)?;
    let outcome = Outcome::Extended { lease: lease(&mut fields)? };
    fields.finish()?;
    finish(&app, &caller, &queue, Finish { id, lease: shown, outcome }).await
}

pub(crate) async fn fail(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    OwnQueueParam(queue): OwnQueueParam,
    JobParam(id): JobParam,
    request: Request,
) -> Answer {
    let mut fields = body::fields(&app, &caller.project, request).await?;
    let lease = shown_lease(&mut fields)?;
    let reason = fields.text("reason")?.unwrap_or_default();
    let is_last = fields.has("retry") && !fields.flag("retry")?;
    let retry = match (is_last, delay(&mut fields, "delay_ms")?) {
        (true, Some(_)) => {
            return Err(ApiError::invalid("delay_ms", "without a retry there is no delay"));
        }
        (true, None) => Retry::Never,
        (false, Some(delay)) => Retry::After(delay),
        (false, None) => Retry::Backoff,
    };
    fields.finish()?;
    let outcome = Outcome::Failed { reason, retry };
    finish(&app, &caller, &queue, Finish { id, lease, outcome }).await
}

pub(crate) async fn snooze(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    OwnQueueParam(queue): OwnQueueParam,
    JobParam(id): JobParam,
    request: Request,
) -> Answer {
    let mut fields = body::fields(&app, &caller.project, request).await?;
    let lease = shown_lease(&mut fields)?;
    let delay = required("delay_ms", delay(&mut fields, "delay_ms")?)?;
    fields.finish()?;
    let outcome = Outcome::Snoozed { delay };
    finish(&app, &caller, &queue, Finish { id, lease, outcome }).await
}

async fn finish(app: &App, caller: &Caller<Consume>, queue: &QueueName, end: Finish) -> Answer {
    let id = end.id;
    let fates = app.node.queues.finish_alone(&caller.project, queue, &[end]).await?;
    let told: Vec<Map<String, Value>> = fates.into_iter().map(|fate| of_fate(id, fate)).collect();
    Ok(answer::json(StatusCode::OK, &told.first()))
}

fn of_fate(id: JobId, fate: Fate) -> Map<String, Value> {
    let (state, time) = job_json::fate(fate);
    let mut told = Map::new();
    told.insert("id".to_owned(), id.to_string().into());
    told.insert("state".to_owned(), state.into());
    if let Some((name, time)) = time {
        told.insert(name.to_owned(), time.into());
    }
    told
}

pub(crate) async fn complete(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    OwnQueueParam(queue): OwnQueueParam,
    JobParam(id): JobParam,
    request: Request,
) -> Answer {
    let headers = request.headers().clone();
    let body = body::with_events(&app, &caller.project, request).await?;
    let scope = format!("queue/{queue}/jobs/{id}/complete");
    let identity = identity::identity(&headers, &scope, &body.bytes)?;
    let (mut fields, [given, publish]) = Fields::parse_raw(&body.bytes, ["result", "publish"])?;
    let lease = shown_lease(&mut fields)?;
    fields.finish()?;
    let outcome = Outcome::Done { result: result(given)? };
    let end = Finish { id, lease, outcome };
    let (topics, events) = match publish.filter(|publish| publish.get() != "null") {
        Some(publish) => heavy(body.bytes.len(), || events(publish, &app))?,
        None => Default::default(),
    };
    if events.is_empty() && identity.is_none() {
        return finish(&app, &caller, &queue, end).await;
    }
    if !events.is_empty() {
        caller.check_scope(&[Scope::Publish])?;
    }
    let finishing = Finishing::new(&app.node.queues, &queue, end);
    let request = PublishRequest {
        destination: Destination::Each(&topics),
        events: &events,
        alongside: Some(&finishing),
        ..nothing(&caller.project, identity)
    };
    let published = app.node.publisher.publish(request).await?;
    let mut told = of_fate(id, Fate::Done);
    told.insert("published".to_owned(), of_published(&published));
    Ok(answer::json(StatusCode::OK, &told))
}

fn of_published(published: &Published) -> Value {
    json!({
        "count": published.count,
        "topics": published.topics.iter().map(of_topic).collect::<Vec<_>>(),
        "dead_lettered": published.dead_lettered,
        "dropped": published.dropped,
        "ack": ack::as_str(published.ack),
        "duplicate": published.duplicate,
    })
}

/// Events, each with its topic.
fn events<'b>(
    publish: &'b RawValue,
    app: &App,
) -> Result<(Vec<TopicName>, Vec<crate::event::Event<'b>>), ApiError> {
    let text = publish.get();
    if text == "[]" {
        return Ok(Default::default());
    }
    let (topics, events): Addressed<'b> = decode::addressed(text.as_bytes(), &app.node.limits)?;
    let topics = topics.iter().map(|topic| TopicName::parse(topic)).collect::<Result<_, _>>()?;
    Ok((topics, events))
}

/// What a job ended with; nothing if it is absent or null.
fn result(given: Option<&RawValue>) -> Result<Option<Box<RawValue>>, ApiError> {
    let Some(given) = given.filter(|given| given.get() != "null") else { return Ok(None) };
    if given.get().len() > RESULT_BYTES_MAX {
        let expected = format!("expected at most {RESULT_BYTES_MAX} bytes; publish what is larger");
        return Err(ApiError::invalid("result", expected));
    }
    decode::check_value(given.get()).map_err(|problem| ApiError::invalid("result", problem))?;
    Ok(Some(given.to_owned()))
}

pub(crate) async fn complete_many(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    OwnQueueParam(queue): OwnQueueParam,
    request: Request,
) -> Answer {
    let body = body::with_events(&app, &caller.project, request).await?;
    let ends = heavy(body.bytes.len(), || ends(&body.bytes))?;
    let fates = app.node.queues.finish_each(&caller.project, &queue, &ends).await?;
    let of_end = |(end, fate): (&Finish, Result<Fate, _>)| match fate {
        Ok(fate) => Value::Object(of_fate(end.id, fate)),
        Err(error) => {
            let mut told = ApiError::Queue(error).body();
            if let Some(told) = told.as_object_mut() {
                told.insert("id".to_owned(), end.id.to_string().into());
            }
            told
        }
    };
    let jobs: Vec<Value> = ends.iter().zip(fates).map(of_end).collect();
    Ok(answer::json(StatusCode::OK, &json!({ "jobs": jobs })))
}

/// `jobs`: those that are done.
fn ends(body: &[u8]) -> Result<Vec<Finish>, ApiError> {
    let (fields, [jobs]) = Fields::parse_raw(body, ["jobs"])?;
    fields.finish()?;
    let jobs = elements("jobs", required("jobs", jobs)?, CLAIM_MAX)?;
    let mut ends = Vec::with_capacity(jobs.len());
    let mut seen = std::collections::HashSet::new();
    for job in jobs {
        let (mut fields, [given]) = Fields::parse_raw(job.get().as_bytes(), ["result"])?;
        let id = JobId::parse(&required("id", fields.text("id")?)?)?;
        let lease = shown_lease(&mut fields)?;
        fields.finish()?;
        if !seen.insert(id) {
            return Err(ApiError::invalid("jobs", format!("job `{id}` is given twice")));
        }
        ends.push(Finish { id, lease, outcome: Outcome::Done { result: result(given)? } });
    }
    Ok(ends)
}

pub(crate) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    QueueParam(queue): QueueParam,
    params: Params,
) -> Answer {
    let listed = match params.text("state") {
        None | Some("waiting") => Listed::Waiting,
        Some("leased") => Listed::Leased,
        Some("dead") => Listed::Dead,
        Some(_) => {
            let expected = "expected `waiting`, `leased` or `dead`";
            return Err(ApiError::invalid("state", expected));
        }
    };
    let mut page = params.page()?;
    page.limit.get_or_insert(LIST_DEFAULT);
    let bytes_max = params.number("max_bytes", 1..=BYTES_MAX)?.unwrap_or(BYTES_DEFAULT);
    let queues = &app.node.queues;
    queues.check(&caller.project, &queue).await?;
    let amount = Amount { records_max: LIST_DEFAULT, bytes_max, wait: Duration::ZERO };
    let room = Room::take(&app, &caller, amount)?;
    let within = (listed, room.amount().bytes_max);
    let jobs = queues.jobs_within(&caller.project, &queue, within, &page).await?;
    let out = job_json::page(&queue, &jobs.items, jobs.next.as_deref());
    let permit = room.into_permit(&out);
    Ok(answer::held("application/json", out, permit))
}

pub(crate) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    QueueParam(queue): QueueParam,
    JobParam(id): JobParam,
) -> Answer {
    let wait = Duration::ZERO;
    let room =
        Room::take(&app, &caller, Amount { records_max: 1, bytes_max: BYTES_DEFAULT, wait })?;
    let view = app.node.queues.job(&caller.project, &queue, id).await?;
    let out = job_json::one(&queue, &view);
    let permit = room.into_permit(&out);
    Ok(answer::held("application/json", out, permit))
}
