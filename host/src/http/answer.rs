//! How answers are written.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use serde_json::{Value, json};

use super::error::ApiError;
use crate::budget::Permit;
use crate::project::Made;

pub(crate) type Answer = Result<Response, ApiError>;

/// An answer with a JSON body.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => with_type("application/json", (status, bytes).into_response()),
        Err(error) => ApiError::Internal { inside: error.to_string() }.into_response(),
    }
}

/// 201 for what is new, 200 for what was there.
pub(crate) fn made(made: Made, body: &impl Serialize) -> Response {
    let status = match made {
        Made::Created => StatusCode::CREATED,
        Made::Existed => StatusCode::OK,
    };
    json(status, body)
}

/// A page of a list, under the name of what it lists.
pub(crate) fn page(name: &'static str, items: &impl Serialize, next: Option<String>) -> Value {
    let mut page = json!({ name: items });
    if let (Some(next), Some(page)) = (next, page.as_object_mut()) {
        page.insert("next".to_owned(), next.into());
    }
    page
}

/// 204.
pub(crate) fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// An answer that holds on to its bytes' permit until they are sent.
pub(crate) fn held(content_type: &'static str, bytes: Vec<u8>, permit: Permit) -> Response {
    with_type(content_type, Response::new(Body::from(chunk(bytes, permit))))
}

/// Bytes that hold on to their permit until they are sent.
pub(crate) fn chunk(bytes: Vec<u8>, permit: Permit) -> Bytes {
    Bytes::from_owner(Held { bytes, _permit: permit })
}

/// Server-Sent Events, as they come.
pub(crate) fn events<S>(chunks: S) -> Response
where
    S: Stream<Item = Bytes> + Send + 'static,
{
    let body = Body::from_stream(chunks.map(Ok::<_, Infallible>));
    let mut response = with_type("text/event-stream", Response::new(body));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn with_type(content_type: &'static str, mut response: Response) -> Response {
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

struct Held {
    bytes: Vec<u8>,
    _permit: Permit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
