//! A light HTTP/1.1 connection: what a load generator spends on a request, the server beside it cannot
//! have.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use reqwest::Url;
use stream_storage::ProjectName;
use tokio::net::TcpStream;

use crate::cli::client::ServerError;
use crate::cli::output::CliError;

pub(super) const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Answers are read into pieces of this size: more of them at once costs fewer wake-ups.
const READ_BUFFER_BYTES: usize = 512 << 10;

/// What requests go to, and as whom.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// `host:port`.
    address: String,
    host: HeaderValue,
    authorization: Option<HeaderValue>,
    /// The project's path.
    prefix: String,
}

/// One connection, on which requests follow each other.
pub(super) struct Wire {
    sender: SendRequest<Full<Bytes>>,
    address: String,
}

/// An answer, read whole.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    /// `Stream-Next-Offset`.
    pub(super) next_offset: Option<u64>,
}

impl Endpoint {
    /// # Errors
    ///
    /// The address is none that can be connected to without TLS.
    pub(super) fn new(
        url: &Url,
        key: Option<&str>,
        project: &ProjectName,
    ) -> Result<Self, CliError> {
        let (Some(host), "http") = (url.host_str(), url.scheme()) else {
            let problem = "the benchmark speaks plain HTTP: give an `http://` address";
            return Err(CliError::Usage(problem.to_owned()));
        };
        let address = format!("{host}:{}", url.port_or_known_default().unwrap_or(80));
        let header = |text: &str| {
            HeaderValue::from_str(text).map_err(|error| CliError::Usage(error.to_string()))
        };
        Ok(Self {
            host: header(&address)?,
            authorization: key.map(|key| header(&format!("Bearer {key}"))).transpose()?,
            prefix: format!("{}/projects/{project}", url.path().trim_end_matches('/')),
            address,
        })
    }

    /// A request of the project.
    pub(super) fn get(&self, path: &str, accept: Option<HeaderValue>) -> Request<Full<Bytes>> {
        self.request(Method::GET, path, accept.map(|accept| (ACCEPT, accept)), Bytes::new())
    }

    /// A request of the project with events, a line each.
    pub(super) fn lines(&self, path: &str, lines: Bytes) -> Request<Full<Bytes>> {
        self.request(Method::POST, path, Some((CONTENT_TYPE, NDJSON)), lines)
    }

    /// A request of the project with a JSON document.
    pub(super) fn json(&self, path: &str, body: Bytes) -> Request<Full<Bytes>> {
        self.request(Method::POST, path, Some((CONTENT_TYPE, JSON)), body)
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        header: Option<(HeaderName, HeaderValue)>,
        body: Bytes,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        // Paths are made of names of topics and of numbers.
        *request.uri_mut() = format!("{}{path}", self.prefix).parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.extend(self.authorization.clone().map(|key| (AUTHORIZATION, key)));
        headers.extend(header);
        request
    }

    /// Opens a connection.
    pub(super) async fn connect(&self) -> Result<Wire, CliError> {
        let unreachable =
            |reason: String| CliError::Unreachable { url: self.address.clone(), reason };
        let stream = TcpStream::connect(&self.address).await;
        let stream = stream.map_err(|error| unreachable(error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(READ_BUFFER_BYTES);
        let handshake = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| unreachable(error.to_string()))?;
        // How it ends is told to who sends on it.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Wire { sender, address: self.address.clone() })
    }
}

impl Wire {
    /// Sends a request, and returns when the answer begins.
    pub(super) async fn open(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, CliError> {
        self.sender.ready().await.map_err(|error| self.broken(&error))?;
        self.sender.send_request(request).await.map_err(|error| self.broken(&error))
    }

    /// Sends a request and reads the answer, whatever its status.
    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, CliError> {
        let response = self.open(request).await?;
        let (head, body) = response.into_parts();
        let next_offset = head.headers.get("stream-next-offset");
        let next_offset = next_offset.and_then(|offset| offset.to_str().ok()?.parse().ok());
        let body = body.collect().await.map_err(|error| self.broken(&error))?.to_bytes();
        Ok(Answer { status: head.status, body, next_offset })
    }

    /// As [`send`](Self::send), but a refusal is an error; who is told to wait tries again. Says how
    /// often it was told so.
    pub(super) async fn insist(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Answer, u64), CliError> {
        let mut refusals = 0;
        loop {
            let answer = self.send(request.clone()).await?;
            if answer.status.is_success() {
                return Ok((answer, refusals));
            }
            if answer.status != StatusCode::TOO_MANY_REQUESTS {
                return Err(refused(answer.status, &answer.body));
            }
            refusals += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(super) fn broken(&self, error: &hyper::Error) -> CliError {
        CliError::Unreachable { url: self.address.clone(), reason: error.to_string() }
    }
}

/// The error that the server told.
pub(super) fn refused(status: StatusCode, body: &[u8]) -> CliError {
    let error = ServerError::new(status.as_u16(), &reqwest::header::HeaderMap::new(), body);
    CliError::Server(Box::new(error))
}
