//! `/ledgers`: how they fare, their files, receipts and consistency proofs.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderValue, StatusCode};
use serde_json::{Value, json};
use stream_storage::Partition;

use super::App;
use super::answer::{self, Answer};
use super::auth::{Caller, Consume};
use super::error::ApiError;
use super::params::{LedgerParam, Params, PathParam};
use crate::ledger::{Health, LedgerStatus, Tile, Wanted};
use crate::name::TopicName;
use crate::timestamp;

const TEXT: &str = "text/plain; charset=utf-8";
const BINARY: &str = "application/octet-stream";
/// What never changes may be kept for a year; by nobody who does not have the key.
const FOREVER: &str = "private, max-age=31536000, immutable";
const NEVER: &str = "no-cache";

fn told(ledger: &LedgerStatus) -> Value {
    let (state, error) = match &ledger.health {
        Health::Ok => ("ok", None),
        Health::Retrying { reason } => ("retrying", Some(reason)),
        Health::Stopped { reason } => ("stopped", Some(reason)),
    };
    json!({
        "name": ledger.name.as_str(),
        "origin": ledger.origin,
        "vkey": ledger.vkey,
        "size": ledger.size,
        "integrated": ledger.published.size,
        "root": ledger.published.root,
        "state": state,
        "error": error,
        "created_at": timestamp::format(ledger.created_at),
    })
}

/// A file, whose bytes are in memory until they are sent.
fn file(
    app: &App,
    caller: &Caller<Consume>,
    (content_type, cache): (&'static str, &'static str),
    bytes: impl Into<Vec<u8>>,
) -> Answer {
    let bytes = bytes.into();
    let mut permit = app.node.answer_budget.permit(caller.project.clone());
    // More would never fit, and be refused for ever.
    permit.grow_to(bytes.len().min(app.node.limits.project_bytes_max))?;
    let mut response = answer::held(content_type, bytes, permit);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    Ok(response)
}

pub(crate) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    params: Params,
) -> Answer {
    let page = app.node.ledgers.list(&caller.project, &params.page()?).await?;
    let items: Vec<_> = page.items.iter().map(told).collect();
    Ok(answer::json(StatusCode::OK, &answer::page("ledgers", &items, page.next)))
}

pub(crate) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    LedgerParam(name): LedgerParam,
) -> Answer {
    let ledger = app.node.ledgers.status(&caller.project, &name).await?;
    Ok(answer::json(StatusCode::OK, &told(&ledger)))
}

pub(crate) async fn checkpoint(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    LedgerParam(name): LedgerParam,
) -> Answer {
    let note = app.node.ledgers.checkpoint(&caller.project, &name).await?;
    file(&app, &caller, (TEXT, NEVER), note)
}

pub(crate) async fn tile(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    LedgerParam(name): LedgerParam,
    PathParam(path): PathParam,
) -> Answer {
    let expected = "expected `<level>/<index>[.p/<width>]` or `entries/<index>[.p/<width>]`";
    let tile = Tile::parse(&format!("tile/{path}"));
    let tile = tile.ok_or_else(|| ApiError::invalid("tile", expected))?;
    let bytes = app.node.ledgers.tile(&caller.project, &name, tile).await?;
    file(&app, &caller, (BINARY, FOREVER), bytes)
}

pub(crate) async fn data(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    LedgerParam(name): LedgerParam,
    PathParam(digest): PathParam,
) -> Answer {
    let bytes = app.node.ledgers.data(&caller.project, &name, &digest).await?;
    file(&app, &caller, ("application/json", FOREVER), bytes)
}

pub(crate) async fn proof(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    LedgerParam(name): LedgerParam,
    params: Params,
) -> Answer {
    let wanted = wanted(&params)?;
    let receipt = app.node.ledgers.receipt(&caller.project, &name, &wanted).await?;
    file(&app, &caller, (TEXT, NEVER), receipt.to_string())
}

pub(crate) async fn consistency(
    State(app): State<Arc<App>>,
    caller: Caller<Consume>,
    LedgerParam(name): LedgerParam,
    params: Params,
) -> Answer {
    let from = params.number("from", 0..=u64::MAX)?;
    let from = from.ok_or_else(|| ApiError::invalid("from", "it is missing"))?;
    let to = params.number("to", from..=u64::MAX)?;
    let proof = app.node.ledgers.consistency(&caller.project, &name, from, to).await?;
    let body = json!({
        "from": proof.from.size,
        "from_root": proof.from.root,
        "to": proof.to.size,
        "to_root": proof.to.root,
        "proof": proof.proof,
    });
    Ok(answer::json(StatusCode::OK, &body))
}

/// `id`, or `topic`, `partition` and `offset`.
fn wanted(params: &Params) -> Result<Wanted, ApiError> {
    let topic = params.text("topic");
    match (params.text("id"), topic) {
        (Some(id), None) => Ok(Wanted::Id(id.to_owned())),
        (None, Some(topic)) => {
            let missing = |name| ApiError::invalid(name, "it is missing");
            let partition = params.number("partition", 0..=u32::MAX)?;
            let offset = params.number("offset", 0..=u64::MAX)?;
            Ok(Wanted::Place {
                topic: TopicName::parse(topic)?,
                partition: Partition(partition.ok_or_else(|| missing("partition"))?),
                offset: offset.ok_or_else(|| missing("offset"))?,
            })
        }
        _ => {
            let message = "expected `topic`, `partition` and `offset`, or `id`";
            Err(ApiError::invalid("query", message))
        }
    }
}
