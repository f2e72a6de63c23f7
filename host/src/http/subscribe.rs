//! `GET /subscribe`: the records of all topics that a pattern matches, as Server-Sent Events.
//!
//! The next records are read when the connection has taken those before: what a client does not take
//! is not read.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use bytes::Bytes;
use futures_util::stream;

use super::App;
use super::answer::{self, Answer};
use super::auth::{Caller, Consume};
use super::error::ApiError;
use super::params::Params;
use super::record_json::{Layout, RecordWriter};
use crate::consume::Amount;
use crate::heavy::heavy;
use crate::live::{Begin, Feed, FeedParts, Piece};
use crate::pattern::Pattern;
use crate::timestamp;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Silence for longer and proxies may cut a connection; shorter and idle ones cost something.
pub(super) const PING: Duration = Duration::from_secs(15);
/// What is sent at once: a slow client holds no more than this.
const CHUNK_BYTES: usize = 64 << 10;
const CHUNK_RECORDS: usize = 1_000;
/// Sent first, so that a client knows that it is heard; with the milliseconds before it tries again.
pub(super) const HELLO: &[u8] = b"retry: 1000\n: subscribed\n\n";
const PING_LINE: &[u8] = b": ping\n\n";

pub(crate) async fn subscribe(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    params: Params,
    headers: HeaderMap,
) -> Answer {
    let pattern = params.text("pattern");
    let pattern = pattern.ok_or_else(|| ApiError::invalid("pattern", "it is missing"))?;
    let pattern = Pattern::parse(pattern)?;
    let begin = begin(&params, &headers)?;
    let node = &app.node;
    let parts = FeedParts {
        store: node.store.clone(),
        catalog: node.catalog.clone(),
        reader: node.reader.clone(),
    };
    let feed = Feed::open(parts, caller.project.clone(), pattern, begin).await?;
    let first = Bytes::from_static(HELLO);
    let state = Some(Subscription { app, caller, feed, first: Some(first) });
    Ok(answer::events(stream::unfold(state, |state| async {
        let mut subscription = state?;
        if let Some(first) = subscription.first.take() {
            return Some((first, Some(subscription)));
        }
        match subscription.next().await {
            Ok(Some(chunk)) => Some((chunk, Some(subscription))),
            Ok(None) => None,
            Err(error) => Some((error_event(&error), None)),
        }
    })))
}

/// What one subscriber holds between two chunks.
struct Subscription {
    app: Arc<App>,
    caller: Caller<Consume>,
    feed: Feed,
    first: Option<Bytes>,
}

impl Subscription {
    /// The next chunk; `None` when the server is about to stop.
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        let amount =
            Amount { records_max: CHUNK_RECORDS, bytes_max: CHUNK_BYTES, wait: PING };
        let pieces = self.feed.next(amount).await?;
        if self.app.node.drain.has_begun() {
            return Ok(None);
        }
        self.caller.check_key(&self.app.node.keys)?;
        if pieces.is_empty() {
            return Ok(Some(Bytes::from_static(PING_LINE)));
        }
        let bytes: usize = pieces.iter().map(|piece| piece.segment.byte_len()).sum();
        let mut permit = self.app.node.answer_budget.permit(self.caller.project.clone());
        permit.grow_to(bytes)?;
        let out = heavy(bytes, || written(&pieces, bytes))?;
        permit.set_to(out.len());
        Ok(Some(answer::chunk(out, permit)))
    }
}

fn written(pieces: &[Piece], bytes: usize) -> Result<Vec<u8>, ApiError> {
    let mut out = Vec::with_capacity(2 * bytes);
    for piece in pieces {
        let mut writer = RecordWriter::new(piece.topic.as_str(), Layout::Lines, out);
        let id = |offset| piece.cursor(offset);
        writer.write_events(piece.slot.partition, &piece.segment, id)?;
        out = writer.finish();
    }
    Ok(out)
}

/// The last event of a subscription that cannot go on.
pub(super) fn error_event(error: &ApiError) -> Bytes {
    format!("event: error\ndata: {}\n\n", error.body()).into()
}

/// Where a client has come to, or else where it wants to begin.
fn begin(params: &Params, headers: &HeaderMap) -> Result<Begin, ApiError> {
    if let Some(id) = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) {
        let cursor = id.to_str().unwrap_or_default().parse();
        let cursor =
            cursor.map_err(|error: crate::live::InvalidCursor| {
                ApiError::invalid("Last-Event-ID", error.to_string())
            })?;
        return Ok(Begin::After(cursor));
    }
    match params.text("from") {
        None | Some("latest") => Ok(Begin::Latest),
        Some("earliest") => Ok(Begin::Earliest),
        Some(text) => timestamp::parse(text).map(Begin::Time).map_err(|error| {
            ApiError::invalid("from", format!("expected `earliest`, `latest` or a time: {error}"))
        }),
    }
}
