//! `…/keys`: make, list and revoke API keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde::Serialize;

use super::answer::{self, Answer};
use super::auth::{Caller, Manage};
use super::error::ApiError;
use super::fields::required;
use super::params::{IdParam, Params};
use super::{App, body};
use crate::auth::{ApiKey, NewKey, Scope};
use crate::timestamp;

#[derive(Serialize)]
struct KeyBody<'a> {
    id: &'a str,
    /// The key itself: only in the answer to its making.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    project: Option<&'a str>,
    scopes: &'a BTreeSet<Scope>,
    name: Option<&'a str>,
    created_at: String,
}

impl<'a> KeyBody<'a> {
    fn of(key: &'a ApiKey) -> Self {
        Self {
            id: &key.id,
            key: None,
            project: key.project.as_ref().map(|project| project.as_str()),
            scopes: &key.scopes,
            name: key.name.as_deref(),
            created_at: timestamp::format(key.created_at),
        }
    }
}

pub(crate) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    request: Request,
) -> Answer {
    let mut fields = body::fields(&app, &caller.project, request).await?;
    let name = fields.text("name")?;
    let scopes = scopes(&required("scopes", fields.texts("scopes")?)?)?;
    let project = if fields.flag("all_projects")? { None } else { Some(caller.project) };
    fields.finish()?;
    let new = NewKey { name, project, scopes };
    let (key, secret) = app.node.keys.create(&caller.key, new).await?;
    let told = KeyBody { key: Some(&secret), ..KeyBody::of(&key) };
    Ok(answer::json(StatusCode::CREATED, &told))
}

pub(crate) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    params: Params,
) -> Answer {
    let page = app.node.keys.list(&caller.key, &caller.project, &params.page()?);
    let keys: Vec<_> = page.items.iter().map(|key| KeyBody::of(key)).collect();
    Ok(answer::json(StatusCode::OK, &answer::page("keys", &keys, page.next)))
}

pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    IdParam(id): IdParam,
) -> Answer {
    app.node.keys.revoke(&caller.key, &caller.project, &id).await?;
    Ok(answer::no_content())
}

fn scopes(words: &[String]) -> Result<BTreeSet<Scope>, ApiError> {
    let parse = |word: &String| {
        Scope::ALL.into_iter().find(|scope| scope.as_str() == word).ok_or_else(|| {
            let all = Scope::ALL.map(Scope::as_str).join("`, `");
            let word: String = word.chars().take(64).collect();
            ApiError::invalid("scopes", format!("expected `{all}`, got `{word}`"))
        })
    };
    words.iter().map(parse).collect()
}
