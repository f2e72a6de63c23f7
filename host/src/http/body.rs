//! A request's body, read whole within its limits.

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body_util::BodyExt;
use stream_storage::ProjectName;

use super::App;
use super::error::ApiError;
use crate::budget::Permit;

/// A body in memory, and the permit for its bytes.
#[derive(Debug)]
pub(crate) struct HeldBody {
    pub(crate) bytes: Vec<u8>,
    _permit: Permit,
}

/// Reads a body: at most `request_bytes_max` bytes, counted after unpacking and against what
/// `project` may have in flight. Nothing is read of a body that says that it is too large.
///
/// # Errors
///
/// It is too large, its encoding is unknown, it brings nothing for too long, it ends early, or too
/// many bytes are in flight.
pub(crate) async fn read(
    app: &App,
    project: &ProjectName,
    request: Request,
) -> Result<HeldBody, ApiError> {
    let node = &app.node;
    let max = node.limits.request_bytes_max;
    // What could be unpacked has lost this header on the way here.
    if let Some(encoding) = request.headers().get(CONTENT_ENCODING)
        && encoding != "identity"
    {
        let got = String::from_utf8_lossy(encoding.as_bytes()).into_owned();
        return Err(ApiError::UnsupportedEncoding { got });
    }
    let mut permit = node.budget.permit(project.clone());
    let announced = content_length(request.headers()).unwrap_or(0);
    if announced > max {
        return Err(ApiError::RequestTooLarge { max });
    }
    permit.grow_to(announced)?;
    let mut bytes = Vec::with_capacity(announced);
    let mut body = request.into_body();
    loop {
        let frame = tokio::time::timeout(app.body_timeout, body.frame()).await;
        let frame = frame.map_err(|_| ApiError::BodyTimeout { waited: app.body_timeout })?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| ApiError::BrokenBody { reason: error.to_string() })?;
        // Trailers say nothing here.
        let Ok(chunk) = frame.into_data() else { continue };
        let length = bytes.len().saturating_add(chunk.len());
        if length > max {
            return Err(ApiError::RequestTooLarge { max });
        }
        permit.grow_to(length)?;
        bytes.extend_from_slice(&chunk);
    }
    Ok(HeldBody { bytes, _permit: permit })
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
