//! `GET /subscribe` and `/records`: the records of all topics that a pattern matches, as Server-Sent
//! Events and by long-poll; and what a member owns, as events.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use serde_json::json;

use super::App;
use super::answer::{self, Answer};
use super::auth::{Caller, Consume};
use super::error::ApiError;
use super::members::{of_assigned, of_lost};
use super::params::{GroupParam, MemberParam, Params};
use super::record_json::{Layout, RecordWriter};
use super::room::Room;
use super::sse::{self, Client, Source};
use crate::group::{Followed, MemberId, MemberRecords};
use crate::heavy::heavy;
use crate::live::{Begin, Cursor, Feed, FeedParts, InvalidCursor, Piece};
use crate::name::GroupName;
use crate::pattern::Pattern;
use crate::slot::Slot;
use crate::timestamp;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

pub(crate) async fn subscribe(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    params: Params,
    headers: HeaderMap,
) -> Answer {
    let last = headers.get(LAST_EVENT_ID).map(|id| id.to_str().unwrap_or("?"));
    let begin = begin(&params, ("Last-Event-ID", last))?;
    let feed = open(&app, &caller, &params, begin).await?;
    Ok(sse::answer(Client { app, caller }, feed))
}

/// The same by long-poll: one page.
pub(crate) async fn poll(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    params: Params,
) -> Answer {
    let begin = begin(&params, ("after", params.text("after")))?;
    let mut room = Room::take(&app, &caller, params.amount()?)?;
    let mut feed = open(&app, &caller, &params, begin).await?;
    let mut pieces = feed.read(room.amount()).await?;
    if pieces.is_empty()
        && let Some(first) = room.leave()
    {
        feed.wait(first.wait).await?;
        room.enter(&app, &caller)?;
        pieces = feed.read(room.amount()).await?;
    }
    let bytes = bytes(&pieces);
    let mut out = heavy(bytes, || array(&pieces, bytes))?;
    let next = match (pieces.last(), begin) {
        (Some(last), _) => Some(last.cursor(last.segment.end_offset().saturating_sub(1))),
        (None, Begin::After(cursor)) => Some(cursor),
        (None, _) => feed.begun(),
    };
    let next = next.map(|cursor| cursor.to_string());
    out.extend_from_slice(format!(",\"next\":{}}}", json!(next)).as_bytes());
    let permit = room.into_permit(&out);
    Ok(answer::held("application/json", out, permit))
}

async fn open(
    app: &App,
    caller: &Caller<Consume>,
    params: &Params,
    begin: Begin,
) -> Result<Feed, ApiError> {
    let pattern = params.text("pattern");
    let pattern = pattern.ok_or_else(|| ApiError::invalid("pattern", "it is missing"))?;
    let node = &app.node;
    let parts = FeedParts {
        store: node.store.clone(),
        catalog: node.catalog.clone(),
        reader: node.reader.clone(),
    };
    Ok(Feed::open(parts, caller.project.clone(), Pattern::parse(pattern)?, begin).await?)
}

fn bytes(pieces: &[Piece]) -> usize {
    pieces.iter().map(|piece| piece.segment.byte_len()).sum()
}

/// `{"records":[…]`, to be gone on with.
fn array(pieces: &[Piece], bytes: usize) -> Result<Vec<u8>, ApiError> {
    let mut out = Vec::with_capacity(bytes);
    out.extend_from_slice(b"{\"records\":[");
    for (place, piece) in pieces.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        let mut writer = RecordWriter::new(piece.topic.as_str(), Layout::Array, out);
        writer.write(piece.slot.partition, &piece.segment)?;
        out = writer.finish();
    }
    out.push(b']');
    Ok(out)
}

impl Source for Feed {
    fn begun(&self) -> Option<Cursor> {
        Self::begun(self)
    }

    async fn next(&mut self, _: &Client) -> Result<Vec<u8>, ApiError> {
        let pieces = self.read(sse::AMOUNT).await?;
        let bytes = bytes(&pieces);
        heavy(bytes, || written(&pieces, bytes, |_| None))
    }
}

/// A member that is sent what it owns.
struct Following {
    group: GroupName,
    member: MemberId,
    followed: Followed,
}

pub(crate) async fn as_member(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    GroupParam(group): GroupParam,
    MemberParam(member): MemberParam,
) -> Answer {
    // Who is not a member is told so by the status.
    app.node.groups.heartbeat(&caller.project, &group, &member, &[]).await?;
    let following = Following { group, member, followed: Followed::default() };
    Ok(sse::answer(Client { app, caller }, following))
}

impl Source for Following {
    async fn next(&mut self, of: &Client) -> Result<Vec<u8>, ApiError> {
        let place = (&of.caller.project, &self.group);
        let groups = &of.app.node.groups;
        let read = groups.follow(place, &self.member, &mut self.followed, sse::AMOUNT).await?;
        let (MemberRecords { found, lost, view }, is_news) = read;
        let mut out = Vec::new();
        if is_news {
            let told = json!({
                "assignment": view.assignment.iter().map(of_assigned).collect::<Vec<_>>(),
                "lost": lost.iter().map(of_lost).collect::<Vec<_>>(),
            });
            out.extend_from_slice(format!("event: assignment\ndata: {told}\n\n").as_bytes());
        }
        let pieces: Vec<Piece> = found
            .into_iter()
            .filter_map(|part| {
                let topic = &view.assignment.iter().find(|held| held.slot == part.slot)?.topic;
                let topic = Arc::new(topic.clone());
                let of = move |segment| Piece { topic: topic.clone(), slot: part.slot, segment };
                Some(part.segments.into_iter().map(of))
            })
            .flatten()
            .collect();
        let bytes = bytes(&pieces);
        let tried = |slot| view.assignment.iter().find(|held| held.slot == slot)?.tried();
        out.extend(heavy(bytes, || written(&pieces, bytes, tried))?);
        Ok(out)
    }
}

/// `tried` says which record of a partition has failed before, and which attempt it is now.
fn written(
    pieces: &[Piece],
    bytes: usize,
    tried: impl Fn(Slot) -> Option<(u64, u32)>,
) -> Result<Vec<u8>, ApiError> {
    let mut out = Vec::with_capacity(2 * bytes);
    for piece in pieces {
        let writer = RecordWriter::new(piece.topic.as_str(), Layout::Lines, out);
        let mut writer = writer.with_tried(tried(piece.slot));
        let id = |offset| piece.cursor(offset);
        writer.write_events(piece.slot.partition, &piece.segment, id)?;
        out = writer.finish();
    }
    Ok(out)
}

/// Where a client has come to, as `field` says, or else where it wants to begin.
fn begin(params: &Params, (field, last): (&'static str, Option<&str>)) -> Result<Begin, ApiError> {
    if let Some(last) = last.filter(|last| !last.is_empty()) {
        let cursor = last.parse();
        let cursor =
            cursor.map_err(|error: InvalidCursor| ApiError::invalid(field, error.to_string()))?;
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
