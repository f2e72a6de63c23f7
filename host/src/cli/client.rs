//! The HTTP client that all commands but `serve` go through: errors as the server tells them, and when
//! to try again.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Certificate, Method, RequestBuilder, Response, Url};
use serde_json::Value;
use stream_storage::ProjectName;
use tokio::time::{Instant, sleep};

use super::options::ClientOptions;
use super::output::{CliError, say};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// No answer is silent for longer: reads wait at most 20 s for records, commits for seconds.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// The wait before the second attempt; doubled from then on.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// More of an answer that is not the API's is of no help.
const MESSAGE_CHARS_MAX: usize = 200;

/// An error as the server tells it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ServerError {
    /// The HTTP status.
    pub(super) status: u16,
    /// The stable word for what is wrong; empty if something else than the API answered.
    pub(super) code: String,
    /// What is wrong, for people.
    pub(super) message: String,
    /// Whether the same request may succeed later.
    is_retryable: bool,
    /// When to try again.
    retry_after: Option<Duration>,
    request_id: Option<String>,
    /// The whole error, with what a program may want to know.
    pub(super) details: Value,
}

impl ServerError {
    pub(super) fn new(status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let mut body: Value = serde_json::from_slice(body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()));
        let details = body.get_mut("error").map(Value::take).unwrap_or_default();
        let told = |name: &str| details.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
        let is_usually_retryable = matches!(status, 408 | 429 | 500..);
        Self {
            status,
            code: told("code").unwrap_or_default(),
            message: told("message").unwrap_or_else(|| {
                let body: String =
                    body.as_str().unwrap_or_default().chars().take(MESSAGE_CHARS_MAX).collect();
                format!("the server answered {status}: {}", body.replace(char::is_control, " "))
            }),
            is_retryable: details
                .get("retryable")
                .and_then(Value::as_bool)
                .unwrap_or(is_usually_retryable),
            retry_after: text(RETRY_AFTER.as_str())
                .and_then(|seconds| seconds.parse().ok())
                .map(Duration::from_secs),
            request_id: text("x-request-id").map(ToOwned::to_owned),
            details,
        }
    }

    /// Whether the fault is the request's.
    pub(super) fn is_refusal(&self) -> bool {
        (400..500).contains(&self.status)
    }

    /// A line that says where to look further.
    pub(super) fn origin(&self) -> String {
        let code = if self.code.is_empty() { "-" } else { &self.code };
        let id = self.request_id.as_deref().unwrap_or("-");
        format!("  code `{code}`, status {}, request {id}\n", self.status)
    }
}

impl CliError {
    /// How long the server asks to wait; `None` if trying again is of no use.
    fn retry_wait(&self, backoff: Duration) -> Option<Duration> {
        match self {
            Self::Server(error) if error.is_retryable => Some(error.retry_after.unwrap_or(backoff)),
            Self::Unreachable { .. } => Some(backoff),
            _ => None,
        }
    }
}

/// Calls of one project of one server.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    url: Url,
    key: Option<String>,
    project: ProjectName,
    ca_cert: Option<PathBuf>,
    /// How long to go on trying after the first failure.
    retry_for: Duration,
    /// Whether it is known that calls fail for now.
    has_warned: AtomicBool,
}

impl Client {
    /// A client that tries each call once.
    pub(super) fn new(options: ClientOptions) -> Result<Self, CliError> {
        let url = options.url();
        let ClientOptions { key, project, ca_cert, .. } = options;
        Ok(Self {
            http: http(&url, ca_cert.as_deref(), READ_TIMEOUT)?,
            url,
            key: key.filter(|key| !key.is_empty()),
            project,
            ca_cert,
            retry_for: Duration::ZERO,
            has_warned: AtomicBool::new(false),
        })
    }

    /// The same client, but it waits this long for an answer, from when it begins to send.
    pub(super) fn patient(self, read_timeout: Duration) -> Result<Self, CliError> {
        let http = http(&self.url, self.ca_cert.as_deref(), read_timeout)?;
        Ok(Self { http, ..self })
    }

    /// The same client, but [`fetch`](Self::fetch) goes on trying for this long.
    pub(super) fn retrying(self, retry_for: Duration) -> Self {
        Self { retry_for, ..self }
    }

    /// A client of another address; the key goes along only to the same server.
    pub(super) fn at(&self, url: Url) -> Result<Self, CliError> {
        let key = self.key.clone().filter(|_| url.origin() == self.url.origin());
        let (ca_cert, project) = (self.ca_cert.clone(), self.project.clone());
        Self::new(ClientOptions { url: Some(url), key, project, json: false, ca_cert })
    }

    /// A request in the project, at a path of these parts.
    pub(super) fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let parts: Vec<&str> =
            ["projects", self.project.as_str()].iter().chain(path).copied().collect();
        self.request_outside(method, &parts)
    }

    /// A request outside of the project.
    pub(super) fn request_outside(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.url.clone();
        // It fails for addresses without a host, which are refused on the command line.
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty().extend(path);
        }
        let request = self.http.request(method, url);
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Sends a request once; an answer that is no success is an error.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, CliError> {
        let response = request.send().await.map_err(|error| self.no_answer(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let headers = response.headers().clone();
        let body = response.bytes().await.map_err(|error| self.no_answer(&error))?;
        Err(CliError::Server(Box::new(ServerError::new(status.as_u16(), &headers, &body))))
    }

    /// Sends a request once and reads the JSON of its answer; null if it has no body.
    pub(super) async fn json(&self, request: RequestBuilder) -> Result<Value, CliError> {
        let response = self.send(request).await?;
        self.read_json(response).await
    }

    /// Reads the JSON of an answer; null if it has no body.
    pub(super) async fn read_json(&self, response: Response) -> Result<Value, CliError> {
        let body = response.bytes().await.map_err(|error| self.no_answer(&error))?;
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body)
            .map_err(|error| CliError::Answer { reason: error.to_string() })
    }

    /// Reads a list of the project, page by page.
    pub(super) async fn list(&self, name: &str) -> Result<Value, CliError> {
        self.pages(name, || self.request(Method::GET, &[name])).await
    }

    /// Reads a list, page by page, each page by a request of its own.
    pub(super) async fn pages(
        &self,
        name: &str,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<Value, CliError> {
        let mut items = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let request = request().query(&after.as_ref().map(|after| [("after", after)]));
            let mut page = self.json(request).await?;
            if let Some(Value::Array(page)) = page.get_mut(name) {
                items.append(page);
            }
            match page.get("next").and_then(Value::as_str) {
                Some(next) => after = Some(next.to_owned()),
                None => return Ok(serde_json::json!({ name: items })),
            }
        }
    }

    /// Calls until it succeeds, fails for good, or the time is up. The call must be safe to repeat.
    pub(super) async fn fetch<T, F>(&self, call: impl Fn() -> F) -> Result<T, CliError>
    where
        F: Future<Output = Result<T, CliError>>,
    {
        let answer = retry(self.retry_for, call, |error| self.warn(error)).await?;
        self.has_warned.store(false, Ordering::Relaxed);
        Ok(answer)
    }

    /// Says that a call is tried again; once, however many calls there are.
    fn warn(&self, error: &CliError) {
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            let patience = humantime::format_duration(self.retry_for);
            say(&format!("warning: {error}; trying again for up to {patience}\n"));
        }
    }

    /// The error for a request that got no answer, or an answer that broke off.
    pub(super) fn no_answer(&self, error: &reqwest::Error) -> CliError {
        let reason = root_cause(error);
        if error.is_builder() {
            return CliError::Usage(reason);
        }
        let url = self.url.origin().ascii_serialization();
        CliError::Unreachable { url, reason }
    }
}

fn http(
    url: &Url,
    ca_cert: Option<&Path>,
    read_timeout: Duration,
) -> Result<reqwest::Client, CliError> {
    // It fails if one is installed already: then that one is used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder =
        reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(read_timeout);
    if let Some(path) = ca_cert {
        builder = builder.tls_certs_only(read_certificates(path)?);
    } else if url.scheme() == "http" {
        // Spares loading the system's, which a small container may not have.
        builder = builder.tls_certs_only([]);
    }
    if is_loopback(url) {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| CliError::Usage(root_cause(&error)))
}

fn read_certificates(path: &Path) -> Result<Vec<Certificate>, CliError> {
    let failed = |reason| CliError::File { path: path.into(), reason };
    let pem = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let certificates =
        Certificate::from_pem_bundle(&pem).map_err(|error| failed(root_cause(&error)))?;
    if certificates.is_empty() {
        return Err(failed("expected at least one certificate".to_owned()));
    }
    Ok(certificates)
}

/// Whether the address is this machine's own: no proxy stands before it.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What an error comes from: the errors above it only say what was attempted.
pub(super) fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Calls until it succeeds, fails for good, or the time since the first failure is up.
async fn retry<T, F>(
    retry_for: Duration,
    call: impl Fn() -> F,
    warn: impl Fn(&CliError),
) -> Result<T, CliError>
where
    F: Future<Output = Result<T, CliError>>,
{
    let mut backoff = BACKOFF_FIRST;
    let mut end = None;
    loop {
        let error = match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let now = Instant::now();
        let end = *end.get_or_insert(now + retry_for);
        let wait = match error.retry_wait(backoff) {
            Some(wait) if now + wait <= end => wait,
            _ => return Err(error),
        };
        warn(&error);
        sleep(wait).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cli::options::parse_url;
    use std::cell::Cell;

    /// A client for a server on this machine.
    pub(in crate::cli) fn client(url: &str) -> Client {
        let options = ClientOptions {
            url: Some(parse_url(url).unwrap()),
            key: Some("sk_test".to_owned()),
            project: ProjectName::parse("p").unwrap(),
            json: false,
            ca_cert: None,
        };
        Client::new(options).unwrap()
    }

    /// Serves `router` on a free port for as long as the test runs.
    pub(in crate::cli) async fn serve(router: axum::Router) -> Client {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        client(&format!("http://{address}"))
    }

    fn answered(status: u16, retry_after: Option<&str>, body: &str) -> CliError {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(RETRY_AFTER, value.parse().unwrap());
        }
        CliError::Server(Box::new(ServerError::new(status, &headers, body.as_bytes())))
    }

    /// How long it takes until a call succeeds that fails so often; `None` if it is given up.
    async fn time_to_success(
        retry_for: Duration,
        failures: usize,
        error: impl Fn() -> CliError,
    ) -> Option<Duration> {
        let (started, calls) = (Instant::now(), Cell::new(0));
        let call = || {
            calls.set(calls.get() + 1);
            let outcome = if calls.get() > failures { Ok(()) } else { Err(error()) };
            std::future::ready(outcome)
        };
        let outcome = retry(retry_for, call, |_| ());
        outcome.await.ok().map(|()| started.elapsed())
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_obeyed() {
        for status in [429, 503] {
            let took = time_to_success(MINUTE, 2, || answered(status, Some("7"), "")).await;
            assert_eq!(took, Some(Duration::from_secs(14)), "{status}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_doubles_without_retry_after() {
        let took = time_to_success(MINUTE, 3, || answered(500, None, "")).await;
        assert_eq!(took, Some(Duration::from_millis(700)));
    }

    #[tokio::test(start_paused = true)]
    async fn trying_again_ends_with_its_time() {
        let unreachable =
            || CliError::Unreachable { url: String::new(), reason: "refused".to_owned() };
        let started = Instant::now();
        assert_eq!(time_to_success(MINUTE, usize::MAX, unreachable).await, None);
        let took = started.elapsed();
        assert!(took <= MINUTE && took > MINUTE - BACKOFF_MAX, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_beyond_the_time_is_not_begun() {
        let started = Instant::now();
        let took = time_to_success(MINUTE, 1, || answered(429, Some("61"), "")).await;
        assert_eq!((took, started.elapsed()), (None, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_may_pass_later_is_tried_again() {
        let told = |retryable: bool| {
            format!(r#"{{"error":{{"code":"c","message":"m","retryable":{retryable}}}}}"#)
        };
        let (yes, no) = (told(true), told(false));
        let cases = [
            (400, "", false),
            (404, no.as_str(), false),
            (408, "", true),
            (409, yes.as_str(), true),
            (429, "", true),
            (500, "", true),
            (503, no.as_str(), false),
            (507, yes.as_str(), true),
        ];
        for (status, body, is_retried) in cases {
            let took = time_to_success(MINUTE, 1, || answered(status, None, body)).await;
            assert_eq!(took.is_some(), is_retried, "{status} {body}");
        }
    }

    #[test]
    fn an_error_that_is_not_the_apis_is_shown_in_short() {
        let body = format!("<html>\n{}", "x".repeat(1000));
        let error = ServerError::new(502, &HeaderMap::new(), body.as_bytes());
        assert!(error.message.starts_with("the server answered 502: <html> x"), "{error}");
        assert!(error.message.len() < 300);
    }

    #[test]
    fn parts_of_a_path_are_escaped_behind_the_address() {
        for (address, expected) in [
            ("http://h:1", "http://h:1/projects/p/producers/a%2Fb%20c"),
            ("https://h/stream/", "https://h/stream/projects/p/producers/a%2Fb%20c"),
        ] {
            let request = client(address).request(Method::GET, &["producers", "a/b c"]);
            assert_eq!(request.build().unwrap().url().as_str(), expected);
        }
    }

    #[test]
    fn other_schemes_are_refused() {
        for text in ["127.0.0.1:4404", "ftp://h", "h", ""] {
            assert!(parse_url(text).is_err(), "{text}");
        }
    }
}
