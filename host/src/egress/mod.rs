//! Everything that this server sends to addresses that its users name goes out here.
//!
//! A tenant names an URL and the server opens it: without a guard that reaches whatever the server
//! can reach. So a name is resolved once, every address that it has is checked, and the connection is
//! made to one of those checked, with no second resolution. Redirects are not followed, proxies of
//! the environment are not used, and of an answer only so many bytes are taken, in so much time.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `address` | which addresses are nobody's to reach; pure |
//! | `allow` | the exceptions that the server's owner makes |
//! | `resolve` | names to addresses, checked |
//! | `retry_after` | when a receiver wants to be asked again |
//!
//! Connections are kept for a while and used again for the same host: each is bound to an address
//! that was checked when it was made, and what is refused does not change while the server runs.

mod address;
mod allow;
mod error;
mod resolve;
mod retry_after;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};
use stream_storage::Clock;
use tokio::time::{Instant, timeout, timeout_at};

pub use allow::{AllowList, InvalidCidr};
pub use error::EgressError;
pub use resolve::{Resolver, SystemResolver};

use resolve::{Checked, Guard};

/// A receiver that is there takes a connection within this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that nobody uses are closed: a receiver's own limit is often a minute.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections kept for each host; one endpoint has rarely more requests at once.
const IDLE_MAX: usize = 32;
/// Longer ones are refused elsewhere, too, and kept in state.
const URL_BYTES_MAX: usize = 2_048;
/// How long the rest of an answer's body is waited for once its status is known: it is kept for
/// people to read, and what drips holds up the deliveries behind it.
const BODY_TIMEOUT: Duration = Duration::from_secs(3);

/// A request to somebody else's address.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// The method.
    pub method: Method,
    /// The address, checked again here.
    pub url: String,
    /// Sent as they are.
    pub headers: HeaderMap,
    /// Sent as it is.
    pub body: Bytes,
    /// From here to the answer's status, all of it.
    pub timeout: Duration,
    /// Bytes of the answer's body that are wanted.
    pub answer_bytes_max: usize,
}

/// What came back, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// How long the receiver wants to be left alone, if it says so.
    pub retry_after: Option<Duration>,
    /// The first bytes of the body, packed if the receiver has packed them: nothing is unpacked.
    pub body: Bytes,
    /// Whether there was more, or it did not come in time.
    pub is_cut: bool,
    /// From the request to the end of what was read.
    pub duration: Duration,
}

/// Sends requests to addresses that users name.
pub struct Egress {
    client: Client,
    guard: Arc<Guard>,
    clock: Arc<dyn Clock>,
}

impl Egress {
    /// Sends to public addresses, and to those of `allow`.
    ///
    /// # Errors
    ///
    /// The TLS library cannot be set up.
    pub fn new(allow: AllowList, clock: Arc<dyn Clock>) -> Result<Self, EgressError> {
        Self::with_resolver(allow, clock, Arc::new(SystemResolver::default()))
    }

    /// As [`new`](Self::new), with names from `resolver`.
    ///
    /// # Errors
    ///
    /// The TLS library cannot be set up.
    pub fn with_resolver(
        allow: AllowList,
        clock: Arc<dyn Clock>,
        resolver: Arc<dyn Resolver>,
    ) -> Result<Self, EgressError> {
        let guard = Arc::new(Guard { allow, resolver });
        // It fails if it is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = match builder(&guard).build() {
            Ok(client) => client,
            // A machine without certificates: plain HTTP still goes out, HTTPS is refused by name.
            Err(error) => {
                tracing::warn!(%error, "no certificate is trusted: nothing goes out over HTTPS");
                builder(&guard).tls_certs_only([]).build().map_err(|error| setup(&error))?
            }
        };
        Ok(Self { client, guard, clock })
    }

    /// Checks an address when it is told, so that whoever tells it hears what is wrong: that it may
    /// be sent to now says nothing about later, and [`send`](Self::send) checks again.
    ///
    /// # Errors
    ///
    /// It is refused for good, or its name does not resolve now, which may change.
    pub async fn check(&self, url: &str) -> Result<Url, EgressError> {
        let url = self.parse(url)?;
        if let Some(name) = url.domain() {
            let resolving = self.guard.resolve(name);
            timeout(CONNECT_TIMEOUT, resolving).await.unwrap_or_else(|_| {
                Err(EgressError::Resolve { host: name.to_owned(), reason: "no answer".to_owned() })
            })?;
        }
        Ok(url)
    }

    /// Sends a request and reads the beginning of its answer. Cancel safe: the request may have been
    /// sent.
    ///
    /// # Errors
    ///
    /// The address is refused, or no answer came. An answer of any status is none.
    pub async fn send(&self, request: Outbound) -> Result<Answer, EgressError> {
        let url = self.parse(&request.url)?;
        let start = Instant::now();
        let sending = self
            .client
            .request(request.method, url)
            .headers(request.headers)
            .body(request.body)
            .send();
        let response = match timeout(request.timeout, sending).await {
            Ok(sent) => sent.map_err(|error| EgressError::of(&error))?,
            Err(_) => return Err(EgressError::Timeout { after: request.timeout }),
        };
        let status = response.status().as_u16();
        let retry_after = retry_after::of(response.headers(), self.clock.now());
        let deadline = (start + request.timeout).min(Instant::now() + BODY_TIMEOUT);
        let (body, is_cut) = first_bytes(response, request.answer_bytes_max, deadline).await;
        Ok(Answer { status, retry_after, body, is_cut, duration: start.elapsed() })
    }

    /// All that can be said about an address without asking anybody.
    fn parse(&self, text: &str) -> Result<Url, EgressError> {
        let invalid = |reason: &str| EgressError::Url { reason: reason.to_owned() };
        if text.len() > URL_BYTES_MAX {
            return Err(invalid("expected at most 2048 bytes"));
        }
        // The parser takes them out, or reads `\` as `/`: others that read the same text may not.
        if text.contains(|sign: char| sign.is_control() || sign.is_whitespace() || sign == '\\') {
            return Err(invalid("expected no spaces, control characters or `\\`"));
        }
        let url = Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid("expected `http://` or `https://`"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("expected no user name and no password"));
        }
        if url.port() == Some(0) {
            return Err(invalid("expected a port above 0"));
        }
        let Some(host) = url.host_str() else {
            return Err(invalid("expected a host"));
        };
        // Numbers in any notation have become an address by now.
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse();
        if let Ok(address) = literal {
            self.guard.check(host, address)?;
        } else if url.domain().is_none() {
            return Err(invalid("expected a host"));
        }
        Ok(url)
    }
}

fn builder(guard: &Arc<Guard>) -> reqwest::ClientBuilder {
    Client::builder()
        .dns_resolver(Checked(Arc::clone(guard)))
        .no_proxy()
        .redirect(Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .no_gzip()
        .no_brotli()
        .no_deflate()
        .no_zstd()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_MAX)
        .user_agent(concat!("stream/", env!("CARGO_PKG_VERSION")))
}

fn setup(error: &reqwest::Error) -> EgressError {
    EgressError::Setup { reason: error.to_string() }
}

/// At most `bytes_max` of the body, and whether that is not all. The status is known: a body that
/// breaks or does not end changes nothing about it.
async fn first_bytes(mut response: Response, bytes_max: usize, deadline: Instant) -> (Bytes, bool) {
    let mut body = BytesMut::new();
    loop {
        match timeout_at(deadline, response.chunk()).await {
            Ok(Ok(Some(chunk))) => {
                let room = bytes_max - body.len();
                body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
                if chunk.len() > room {
                    return (body.freeze(), true);
                }
            }
            Ok(Ok(None)) => return (body.freeze(), false),
            Ok(Err(_)) | Err(_) => return (body.freeze(), true),
        }
    }
}
