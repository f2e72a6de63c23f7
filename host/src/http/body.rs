//! A request's body, read whole and unpacked within its limits.

use std::io::Read;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName};
use flate2::bufread::MultiGzDecoder;
use http_body_util::BodyExt;
use serde_json::Value;
use stream_storage::ProjectName;
use tokio::time::Instant;

use super::App;
use super::error::ApiError;
use super::fields::{self, Fields};
use crate::budget::{Budget, Permit};
use crate::decode;
use crate::heavy::heavy;

/// The largest body of a call that is not a publish: names, figures and a description.
const CONTROL_BYTES_MAX: usize = 256 << 10;

/// What a body has to bring for its time to begin anew: a byte now and then does not do.
pub(crate) const PROGRESS_BYTES: usize = 16 << 10;

/// Room that is made at once for a body that says how long it is, and how many times what has come:
/// growing into it copies what is there.
const ROOM_BYTES: usize = 1 << 20;
const ROOM_TIMES: usize = 16;

/// How much is unpacked at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// Windows of zstd are at most 8 MiB over HTTP (RFC 9659): a frame may ask for more memory.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// A body in memory, and the permit for its bytes.
#[derive(Debug)]
pub(crate) struct HeldBody {
    pub(crate) bytes: Vec<u8>,
    permit: Permit,
    limit: Limit,
    /// About how many bytes are to come.
    expected: usize,
}

/// What bounds a body, packed and unpacked.
#[derive(Debug, Clone, Copy)]
struct Limit {
    name: &'static str,
    max: usize,
}

/// How a body is packed.
#[derive(Debug, Clone, Copy)]
enum Packing {
    Gzip,
    Zstd,
}

impl HeldBody {
    fn new(budget: &Arc<Budget>, project: &ProjectName, limit: Limit) -> Self {
        Self { bytes: Vec::new(), permit: budget.permit(project.clone()), limit, expected: 0 }
    }

    /// The bytes, and their permit, which is to be kept as long as they are.
    pub(crate) fn into_bytes(self) -> (Bytes, Permit) {
        (self.bytes.into(), self.permit)
    }

    fn push(&mut self, chunk: &[u8]) -> Result<(), ApiError> {
        let length = self.bytes.len().saturating_add(chunk.len());
        self.limit.check(length)?;
        self.permit.grow_to(length)?;
        if self.bytes.capacity() < length {
            // In proportion to what has come: who only announces a body gets little memory.
            let room = self.expected.min(ROOM_TIMES * length).max(length);
            self.bytes.reserve(room - self.bytes.len());
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }
}

impl Limit {
    fn check(self, length: usize) -> Result<(), ApiError> {
        let Self { name, max } = self;
        if length > max { Err(ApiError::RequestTooLarge { limit: name, max }) } else { Ok(()) }
    }
}

/// Reads the body of a publish: at most `request_bytes_max` bytes, packed and unpacked, counted as
/// they come against what `project` may have in flight. Nothing is read of a body that says that it
/// is too large.
///
/// # Errors
///
/// It is too large, its encoding is unknown, it comes too slowly, it ends early, or too many bytes
/// are in flight.
pub(crate) async fn read(
    app: &App,
    project: &ProjectName,
    headers: &HeaderMap,
    body: Body,
) -> Result<HeldBody, ApiError> {
    let limit = Limit { name: "request_bytes", max: app.node.limits.request_bytes_max };
    read_within(app, &app.node.budget, project, headers, body, limit).await
}

/// Reads an upload: at most `upload_bytes_max` bytes of WebAssembly, packed and unpacked, counted
/// against a budget of its own, so that uploads hold up no publisher.
///
/// # Errors
///
/// As [`read`]; it is of another type.
pub(crate) async fn upload(
    app: &App,
    project: &ProjectName,
    request: Request,
) -> Result<HeldBody, ApiError> {
    let (head, body) = request.into_parts();
    decode::expect_wasm(&head.headers)?;
    let limit = Limit { name: "upload_bytes", max: app.node.plugins.config().upload_bytes_max };
    read_within(app, &app.node.upload_budget, project, &head.headers, body, limit).await
}

/// Reads a JSON document that is no object of known fields: a schema.
///
/// # Errors
///
/// As [`read`]; it is of another type, or not JSON.
pub(crate) async fn document(
    app: &App,
    project: &ProjectName,
    request: Request,
) -> Result<Value, ApiError> {
    let (head, body) = request.into_parts();
    decode::expect_json(&head.headers)?;
    let body = read_control(app, project, &head.headers, body).await?;
    serde_json::from_slice(&body.bytes).map_err(|error| ApiError::MalformedJson {
        byte: fields::byte_of(&body.bytes, &error),
        message: error.to_string(),
    })
}

/// Reads the body of any other call: a small JSON object, whose fields these are.
///
/// # Errors
///
/// As [`read`]; it is of another type, or not a JSON object.
pub(crate) async fn fields(
    app: &App,
    project: &ProjectName,
    request: Request,
) -> Result<Fields, ApiError> {
    let (head, body) = request.into_parts();
    decode::expect_json(&head.headers)?;
    let body = read_control(app, project, &head.headers, body).await?;
    Fields::parse(&body.bytes)
}

/// As [`fields`], of a call that may come without a body.
///
/// # Errors
///
/// As [`fields`].
pub(crate) async fn fields_if_any(
    app: &App,
    project: &ProjectName,
    request: Request,
) -> Result<Fields, ApiError> {
    let (head, body) = request.into_parts();
    let of_json = decode::expect_json(&head.headers);
    let body = read_control(app, project, &head.headers, body).await?;
    if body.bytes.is_empty() {
        return Ok(Fields::default());
    }
    of_json?;
    Fields::parse(&body.bytes)
}

/// Reads the body of a call that holds events: as large as a publish.
///
/// # Errors
///
/// As [`read`]; it is of another type.
pub(crate) async fn with_events(
    app: &App,
    project: &ProjectName,
    request: Request,
) -> Result<HeldBody, ApiError> {
    let (head, body) = request.into_parts();
    decode::expect_json(&head.headers)?;
    read(app, project, &head.headers, body).await
}

async fn read_control(
    app: &App,
    project: &ProjectName,
    headers: &HeaderMap,
    body: Body,
) -> Result<HeldBody, ApiError> {
    read_within(app, &app.node.budget, project, headers, body, control_limit(app)).await
}

fn control_limit(app: &App) -> Limit {
    let of_request = app.node.limits.request_bytes_max;
    if of_request < CONTROL_BYTES_MAX {
        Limit { name: "request_bytes", max: of_request }
    } else {
        Limit { name: "control_bytes", max: CONTROL_BYTES_MAX }
    }
}

async fn read_within(
    app: &App,
    budget: &Arc<Budget>,
    project: &ProjectName,
    headers: &HeaderMap,
    body: Body,
    limit: Limit,
) -> Result<HeldBody, ApiError> {
    expect_one(headers, CONTENT_TYPE)?;
    let packing = packing(headers)?;
    let length = content_length(headers).unwrap_or(0);
    limit.check(length)?;
    let mut held = HeldBody::new(budget, project, limit);
    held.expected = length.min(ROOM_BYTES);
    receive(app, body, &mut held).await?;
    let Some(packing) = packing else { return Ok(held) };
    let mut unpacked = HeldBody::new(budget, project, limit);
    // Few bytes may be many once they are unpacked.
    heavy(limit.max, || unpack(packing, &held.bytes, &mut unpacked))?;
    Ok(unpacked)
}

async fn receive(app: &App, mut body: Body, held: &mut HeldBody) -> Result<(), ApiError> {
    let mut deadline = Instant::now() + app.body_timeout;
    let mut progress = PROGRESS_BYTES;
    loop {
        let frame = tokio::time::timeout_at(deadline, body.frame()).await;
        let frame = frame.map_err(|_| ApiError::BodyTimeout { waited: app.body_timeout })?;
        let Some(frame) = frame else { return Ok(()) };
        let frame = frame.map_err(|error| ApiError::BrokenBody { reason: error.to_string() })?;
        // Trailers say nothing here.
        let Ok(chunk) = frame.into_data() else { continue };
        held.push(&chunk)?;
        if held.bytes.len() >= progress {
            deadline = Instant::now() + app.body_timeout;
            progress = held.bytes.len() + PROGRESS_BYTES;
        }
    }
}

/// Unpacks all members or frames; what comes after the last has to be one, too.
fn unpack(packing: Packing, mut packed: &[u8], unpacked: &mut HeldBody) -> Result<(), ApiError> {
    let broken = |error: std::io::Error| ApiError::BrokenPacking { reason: error.to_string() };
    let mut reader: Box<dyn Read> = match packing {
        Packing::Gzip => Box::new(MultiGzDecoder::new(&mut packed)),
        Packing::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(&mut packed).map_err(broken)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(broken)?;
            Box::new(decoder)
        }
    };
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = reader.read(&mut chunk).map_err(broken)?;
        match chunk.get(..length) {
            None | Some([]) => return Ok(()),
            Some(bytes) => unpacked.push(bytes)?,
        }
    }
}

fn packing(headers: &HeaderMap) -> Result<Option<Packing>, ApiError> {
    let mut given = headers.get_all(CONTENT_ENCODING).iter();
    let (first, more) = (given.next(), given.next());
    let Some(first) = first else { return Ok(None) };
    match first.as_bytes().to_ascii_lowercase().as_slice() {
        b"identity" if more.is_none() => Ok(None),
        b"gzip" if more.is_none() => Ok(Some(Packing::Gzip)),
        b"zstd" if more.is_none() => Ok(Some(Packing::Zstd)),
        _ => {
            let all = headers.get_all(CONTENT_ENCODING).iter().map(|value| value.as_bytes());
            let got = all.map(String::from_utf8_lossy).collect::<Vec<_>>().join(", ");
            Err(ApiError::UnsupportedEncoding { got })
        }
    }
}

/// Refuses a header that is given twice and differs: each reader would take another one.
fn expect_one(headers: &HeaderMap, name: HeaderName) -> Result<(), ApiError> {
    let mut given = headers.get_all(&name).iter();
    let first = given.next();
    if given.all(|other| Some(other) == first) {
        return Ok(());
    }
    Err(ApiError::invalid(name.as_str().to_owned(), "it is given twice and differs"))
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
