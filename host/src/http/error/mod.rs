//! The one map from what went wrong to what the client is told.
//!
//! Whose fault decides the status: the caller's 4xx, ours 5xx. What is inside of an error of ours
//! goes to the log only. `code` is stable; `message` is for people and may change; `retryable` says
//! whether the same request may succeed later.

mod connector;
mod group;
mod hooks;
mod ledger;
mod queue;
mod stage;
mod store;

use std::borrow::Cow;
use std::time::Duration;

use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use stream_storage::{InvalidName, ProjectName, StoreError, TrimError};

use super::answer;
use super::body::PROGRESS_BYTES;
use crate::auth::{KeyError, Scope};
use crate::budget::BudgetExhausted;
use crate::catalog::CatalogError;
use crate::connector::ConnectorError;
use crate::consume::ConsumeError;
use crate::decode::DecodeError;
use crate::group::GroupError;
use crate::hooks::HooksError;
use crate::ledger::LedgerError;
use crate::live::FeedError;
use crate::pattern::InvalidPattern;
use crate::pipeline::PipelineError;
use crate::project::ProjectError;
use crate::publish::PublishError;
use crate::queue::{InvalidJobId, QueueError};
use crate::registry::RegistryError;
use crate::topic::{InvalidConfig, NoSuchPartition, NotIndexed};
use crate::trial::TrialError;
use connector::of_connector;
use group::of_group;
use hooks::of_hooks;
use ledger::of_ledger;
use queue::of_queue;
use stage::{of_pipeline, of_publish, of_registry};
use store::{of_commit, of_store, of_trim};

/// What the log is told about an error of ours, carried from where it was met to where requests
/// are logged.
#[derive(Debug, Clone)]
pub(crate) struct Inside(pub(crate) String);

/// Everything that a request can fail with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("no API key is given; send `Authorization: Bearer <key>`")]
    NoKey,
    #[error("the API key is unknown or revoked")]
    InvalidKey,
    #[error("the key lacks scope {}", words(scopes))]
    MissingScope { scopes: &'static [Scope] },
    #[error("the key does not open project `{project}`")]
    ForeignProject { project: ProjectName },
    #[error("there is no such path")]
    NoRoute,
    #[error("the path does not take this method")]
    MethodNotAllowed,
    #[error("there is no {what} `{name}`")]
    NotFound { what: &'static str, name: String },
    #[error("invalid {field}: {message}")]
    Invalid { field: Cow<'static, str>, message: String },
    #[error("malformed JSON at byte {byte}: {message}")]
    MalformedJson { byte: usize, message: String },
    #[error("content encoding `{got}` is not supported, expected `gzip` or `zstd`")]
    UnsupportedEncoding { got: String },
    #[error("the request takes more than {max} bytes")]
    RequestTooLarge { limit: &'static str, max: usize },
    #[error("the request's body brought less than {PROGRESS_BYTES} bytes in {waited:?}")]
    BodyTimeout { waited: Duration },
    #[error("the request's body ended early: {reason}")]
    BrokenBody { reason: String },
    #[error("the request's body cannot be unpacked: {reason}")]
    BrokenPacking { reason: String },
    #[error("{inside}")]
    Internal { inside: String },
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Budget(#[from] BudgetExhausted),
    #[error(transparent)]
    NoSuchPartition(#[from] NoSuchPartition),
    #[error(transparent)]
    NotIndexed(#[from] NotIndexed),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Project(#[from] ProjectError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    #[error(transparent)]
    Feed(#[from] FeedError),
    #[error(transparent)]
    Group(#[from] GroupError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Hooks(#[from] HooksError),
    #[error(transparent)]
    Connector(#[from] ConnectorError),
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    JobId(#[from] InvalidJobId),
    #[error(transparent)]
    Pattern(#[from] InvalidPattern),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    #[error(transparent)]
    Trial(#[from] TrialError),
    #[error(transparent)]
    Trim(#[from] TrimError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ApiError {
    /// A field, parameter or header that breaks its rule.
    pub(crate) fn invalid(field: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), message: message.into() }
    }
}

/// What the client is told.
pub(super) struct Told {
    status: StatusCode,
    code: Cow<'static, str>,
    retryable: bool,
    retry_after: Option<Duration>,
    details: Value,
    /// Takes the place of the error's own message, which then goes to the log.
    message: Option<&'static str>,
    /// Not the server's fault though it is a 5xx: the log hears nothing of it.
    is_guests: bool,
}

impl Told {
    pub(super) fn new(status: StatusCode, code: impl Into<Cow<'static, str>>) -> Self {
        let code = code.into();
        let details = Value::Null;
        Self {
            status,
            code,
            retryable: false,
            retry_after: None,
            details,
            message: None,
            is_guests: false,
        }
    }

    /// Adds what a program may want to know.
    pub(super) fn with(mut self, details: Value) -> Self {
        self.details = details;
        self
    }

    /// Adds one more detail.
    fn and(mut self, name: &str, value: &str) -> Self {
        if let Value::Object(details) = &mut self.details {
            details.insert(name.to_owned(), value.into());
        }
        self
    }

    pub(super) fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    pub(super) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self.retryable()
    }

    /// A guest's fault: whoever bound it sees it in its figures, and a flood of it fills no log.
    pub(super) fn of_guest(mut self) -> Self {
        self.is_guests = true;
        self
    }

    /// Tells the client only this.
    pub(super) fn hidden(mut self, message: &'static str) -> Self {
        self.message = Some(message);
        self
    }
}

/// The code of a field's error is `invalid-` and its name.
pub(super) fn of_field(field: &str) -> Told {
    let word = field.to_ascii_lowercase().replace(['_', '.'], "-");
    Told::new(StatusCode::BAD_REQUEST, format!("invalid-{word}")).with(json!({ "field": field }))
}

pub(super) fn too_large(limit: &'static str, max: impl Into<Value>) -> Told {
    let details = json!({ "limit": limit, "max": max.into() });
    Told::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large").with(details)
}

pub(super) fn not_found(code: &'static str) -> Told {
    Told::new(StatusCode::NOT_FOUND, code)
}

pub(super) fn conflict(code: &'static str) -> Told {
    Told::new(StatusCode::CONFLICT, code)
}

pub(super) fn forbidden(code: &'static str) -> Told {
    Told::new(StatusCode::FORBIDDEN, code)
}

pub(super) fn bad_request(code: &'static str) -> Told {
    Told::new(StatusCode::BAD_REQUEST, code)
}

pub(super) fn unavailable(code: &'static str) -> Told {
    Told::new(StatusCode::SERVICE_UNAVAILABLE, code)
}

pub(super) fn unsupported(code: &'static str) -> Told {
    Told::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, code)
}

pub(super) fn internal() -> Told {
    Told::new(StatusCode::INTERNAL_SERVER_ERROR, "internal-error")
        .retryable()
        .hidden("something went wrong in the server; its log has more under the request id")
}

fn of(error: &ApiError) -> Told {
    match error {
        ApiError::NoKey | ApiError::InvalidKey => {
            Told::new(StatusCode::UNAUTHORIZED, "invalid-key")
        }
        ApiError::MissingScope { scopes } => {
            let scopes: Vec<_> = scopes.iter().map(|scope| scope.as_str()).collect();
            forbidden("missing-scope").with(json!({ "scopes": scopes }))
        }
        ApiError::ForeignProject { .. } => forbidden("foreign-project"),
        ApiError::NoRoute => not_found("not-found"),
        ApiError::MethodNotAllowed => {
            Told::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed")
        }
        ApiError::NotFound { what, .. } => {
            Told::new(StatusCode::NOT_FOUND, format!("{what}-not-found"))
        }
        ApiError::Invalid { field, .. } => of_field(field),
        ApiError::MalformedJson { byte, .. } => {
            bad_request("malformed-json").with(json!({ "byte": byte }))
        }
        ApiError::UnsupportedEncoding { .. } => unsupported("unsupported-encoding"),
        ApiError::RequestTooLarge { limit, max } => too_large(limit, *max),
        ApiError::BodyTimeout { .. } => {
            Told::new(StatusCode::REQUEST_TIMEOUT, "request-timeout").retryable()
        }
        ApiError::BrokenBody { .. } => bad_request("broken-body").retryable(),
        ApiError::BrokenPacking { .. } => bad_request("broken-body"),
        ApiError::Internal { .. } => internal(),
        ApiError::Name(error) => of_field(error.what),
        ApiError::Decode(error) => of_decode(error),
        ApiError::Budget(BudgetExhausted { limit, max }) => {
            Told::new(StatusCode::TOO_MANY_REQUESTS, "too-many-bytes")
                .with(json!({ "limit": limit, "max": max }))
                .retry_after(Duration::from_secs(1))
        }
        ApiError::NoSuchPartition(_) => of_field("partition"),
        ApiError::NotIndexed(error) => conflict("not-indexed").with(json!({ "field": error.kind })),
        ApiError::Catalog(error) => of_catalog(error),
        ApiError::Project(error) => of_project(error),
        ApiError::Key(error) => of_key(error),
        ApiError::Publish(error) => of_publish(error),
        ApiError::Consume(error) => of_consume(error),
        ApiError::Feed(FeedError::Of { topic, error }) => {
            of_consume(error).and("topic", topic.as_str())
        }
        ApiError::Feed(FeedError::Store(error)) => of_store(error),
        ApiError::Group(error) => of_group(error),
        ApiError::Ledger(error) => of_ledger(error),
        ApiError::Hooks(error) => of_hooks(error),
        ApiError::Connector(error) => of_connector(error),
        ApiError::Queue(error) => of_queue(error),
        ApiError::JobId(_) => of_field("id"),
        ApiError::Pattern(error) => {
            of_field("pattern").with(json!({ "field": "pattern", "byte": error.at }))
        }
        ApiError::Registry(error) => of_registry(error),
        ApiError::Pipeline(error) => of_pipeline(error),
        ApiError::Trial(TrialError::Role { .. }) => of_field("role"),
        ApiError::Trial(TrialError::Registry(error)) => of_registry(error),
        ApiError::Trial(TrialError::Pipeline(error)) => of_pipeline(error),
        ApiError::Trim(error) => of_trim(error),
        ApiError::Store(error) => of_store(error),
    }
}

fn of_decode(error: &DecodeError) -> Told {
    match error {
        DecodeError::UnsupportedMediaType { .. } => unsupported("unsupported-media-type"),
        DecodeError::Empty => bad_request("empty-batch"),
        DecodeError::Malformed { index, byte, field, message } => bad_request("malformed-event")
            .with(json!({ "index": index, "byte": byte, "field": field, "reason": message })),
        DecodeError::EventTooLarge { index, max, got } => {
            let details = json!({ "limit": "event_bytes", "max": max, "index": index, "got": got });
            too_large("event_bytes", *max).with(details)
        }
        DecodeError::TooManyHeaders { index, max } => {
            let details = json!({ "limit": "headers", "max": max, "index": index });
            too_large("headers", *max).with(details)
        }
        DecodeError::TooManyEvents { max } => too_large("request_events", *max),
    }
}

pub(super) fn of_catalog(error: &CatalogError) -> Told {
    match error {
        CatalogError::NotFound(_) => not_found("topic-not-found"),
        CatalogError::Exists { .. } => conflict("topic-exists"),
        CatalogError::Reserved { .. } => of_field("topic"),
        CatalogError::Config(InvalidConfig::Field { field, .. }) => of_field(field),
        CatalogError::Config(InvalidConfig::KeyMoves) => conflict("key-moves"),
        CatalogError::Commit(error) => of_commit(error),
        CatalogError::Store(error) => of_store(error),
    }
}

fn of_project(error: &ProjectError) -> Told {
    match error {
        ProjectError::NotFound { .. } => not_found("project-not-found"),
        ProjectError::Commit(error) => of_commit(error),
        ProjectError::Store(error) => of_store(error),
    }
}

fn of_key(error: &KeyError) -> Told {
    match error {
        KeyError::NotFound { .. } => not_found("key-not-found"),
        KeyError::Invalid { field, .. } => of_field(field),
        KeyError::ScopeNotHeld { scope } => {
            forbidden("missing-scope").with(json!({ "scopes": [scope.as_str()] }))
        }
        KeyError::AllProjectsNotHeld => forbidden("foreign-project"),
        KeyError::Commit(error) => of_commit(error),
        KeyError::Store(error) => of_store(error),
    }
}

pub(super) fn of_consume(error: &ConsumeError) -> Told {
    match error {
        ConsumeError::Trimmed { partition, earliest, .. } => {
            Told::new(StatusCode::GONE, "offset-trimmed")
                .with(json!({ "partition": partition.0, "earliest": earliest }))
        }
        ConsumeError::BeyondEnd { partition, log_end, .. } => {
            Told::new(StatusCode::RANGE_NOT_SATISFIABLE, "offset-beyond-end")
                .with(json!({ "partition": partition.0, "log_end": log_end }))
        }
        ConsumeError::TopicGone => not_found("topic-not-found"),
        ConsumeError::Store(error) => of_store(error),
    }
}

impl ApiError {
    /// The body that tells of it, where an answer has begun already.
    pub(crate) fn body(&self) -> Value {
        let told = of(self);
        if told.status.is_server_error() && !told.is_guests {
            tracing::error!(inside = %self, "a stream failed");
        }
        self.told(&told)
    }

    fn told(&self, told: &Told) -> Value {
        let mut error = Map::new();
        error.insert("code".to_owned(), told.code.as_ref().into());
        let message = told.message.map_or_else(|| self.to_string(), ToOwned::to_owned);
        error.insert("message".to_owned(), message.into());
        error.insert("retryable".to_owned(), told.retryable.into());
        if let Value::Object(details) = &told.details {
            let details = details.iter().filter(|(_, value)| !value.is_null());
            error.extend(details.map(|(name, value)| (name.clone(), value.clone())));
        }
        json!({ "error": error })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let told = of(&self);
        let mut response = answer::json(told.status, &self.told(&told));
        if let Some(wait) = told.retry_after {
            // Rounded up: who comes back early is refused again.
            let seconds = wait.as_millis().div_ceil(1_000).max(1);
            let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if told.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if told.status.is_server_error() && !told.is_guests {
            response.extensions_mut().insert(Inside(self.to_string()));
        }
        response
    }
}

fn words(scopes: &[Scope]) -> String {
    let words: Vec<_> = scopes.iter().map(|scope| format!("`{}`", scope.as_str())).collect();
    words.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use stream_storage::CommitError;

    async fn told(error: impl Into<ApiError>) -> (u16, String, Option<u64>, String) {
        let (parts, body) = error.into().into_response().into_parts();
        let text = body.collect().await.unwrap().to_bytes();
        let json: Value = serde_json::from_slice(&text).unwrap();
        let code = json["error"]["code"].as_str().unwrap().to_owned();
        let wait = parts.headers.get(RETRY_AFTER).map(|wait| wait.to_str().unwrap());
        let wait = wait.map(|wait| wait.parse().unwrap());
        (parts.status.as_u16(), code, wait, json["error"]["message"].to_string())
    }

    fn reason() -> String {
        "/secret/path".to_owned()
    }

    #[tokio::test]
    async fn failures_of_the_store_have_their_status() {
        let wait = Duration::from_millis(1_500);
        let cases: [(CommitError, u16, &str, Option<u64>); 8] = [
            (CommitError::DiskFull { free: 1, reserve: 2 }, 507, "disk-full", None),
            (CommitError::Poisoned { reason: reason() }, 503, "store-poisoned", None),
            (CommitError::ShuttingDown, 503, "shutting-down", Some(1)),
            (CommitError::Unknown { reason: reason() }, 503, "commit-unknown", None),
            (CommitError::Busy { retry_after: wait }, 429, "too-many-bytes", Some(2)),
            (CommitError::Conflict { key: "k".into() }, 409, "conflict", Some(1)),
            (CommitError::TooLarge { limit: "l", got: 2, max: 1 }, 413, "too-large", None),
            (CommitError::Invalid { reason: "/secret/path" }, 500, "internal-error", None),
        ];
        for (error, status, code, wait) in cases {
            let answer = told(PublishError::from(error.clone())).await;
            let expected = (status, code.to_owned(), wait);
            assert_eq!((answer.0, answer.1, answer.2), expected, "{error:?}");
            assert!(!answer.3.contains("secret"), "{error:?}: {}", answer.3);
        }
    }

    #[tokio::test]
    async fn what_is_inside_goes_to_the_log_only() {
        let cases = [
            (StoreError::Io { reason: reason() }, "store-unreadable"),
            (StoreError::Corrupt { reason: reason() }, "store-corrupt"),
        ];
        for (error, code) in cases {
            let response = ApiError::from(error.clone()).into_response();
            let inside = response.extensions().get::<Inside>().unwrap();
            assert!(inside.0.contains("secret"), "{inside:?}");
            let answer = told(error).await;
            assert_eq!((answer.0, answer.1.as_str()), (500, code));
            assert!(!answer.3.contains("secret"), "{}", answer.3);
        }
    }
}
