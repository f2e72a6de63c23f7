//! `/projects`: list and make.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::App;
use super::answer::{self, Answer};
use super::auth::{Caller, Manage, ManageNew};
use super::params::Params;
use crate::project::Project;
use crate::timestamp;

fn told(project: &Project) -> Value {
    json!({
        "name": project.name.as_str(),
        "created_at": timestamp::format(project.created_at),
    })
}

pub(crate) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller<Manage>,
    params: Params,
) -> Answer {
    let projects = &app.node.projects;
    let (items, next) = match &caller.key.project {
        Some(own) => (vec![projects.get(own).await?], None),
        None => {
            let page = projects.list(&params.page()?).await?;
            (page.items, page.next)
        }
    };
    let items: Vec<_> = items.iter().map(told).collect();
    Ok(answer::json(StatusCode::OK, &answer::page("projects", &items, next)))
}

pub(crate) async fn put(State(app): State<Arc<App>>, caller: Caller<ManageNew>) -> Answer {
    let (project, made) = app.node.projects.ensure(&caller.project).await?;
    Ok(answer::made(made, &told(&project)))
}
