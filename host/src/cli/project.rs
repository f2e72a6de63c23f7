//! `stream project`: make and list projects.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;
use stream_storage::ProjectName;

use super::client::Client;
use super::output::{CliError, Output, cell, fields, items, table};

/// Make and list projects
#[derive(Debug, Args)]
pub(super) struct ProjectArgs {
    #[command(subcommand)]
    command: ProjectCommand,
}

#[derive(Debug, Subcommand)]
enum ProjectCommand {
    /// Make a project; one that is there is left as it is
    Create {
        /// The project
        #[arg(value_parser = ProjectName::parse)]
        name: ProjectName,
    },
    /// List the projects that the key opens
    List,
}

impl ProjectArgs {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        match self.command {
            ProjectCommand::Create { name } => {
                let request = client.request_outside(Method::PUT, &["projects", name.as_str()]);
                output.show(&client.json(request).await?, human)?;
            }
            ProjectCommand::List => {
                let request = || client.request_outside(Method::GET, &["projects"]);
                output.show(&client.pages("projects", request).await?, human_list)?;
            }
        }
        Ok(())
    }
}

fn human(project: &Value) -> String {
    fields([("name", cell(project, "name")), ("created", cell(project, "created_at"))])
}

fn human_list(list: &Value) -> String {
    let row = |project| ["name", "created_at"].map(|field| cell(project, field));
    let rows: Vec<_> = items(list, "projects").iter().map(row).collect();
    table(["NAME", "CREATED"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::tests::serve;
    use axum::extract::RawQuery;
    use axum::routing::get;
    use serde_json::json;

    #[tokio::test]
    async fn a_list_is_read_page_by_page() {
        let page = |RawQuery(query): RawQuery| async move {
            let page = match query.as_deref() {
                None => json!({ "projects": [{ "name": "a" }], "next": "a" }),
                Some("after=a") => json!({ "projects": [{ "name": "b" }] }),
                other => panic!("{other:?}"),
            };
            axum::Json(page)
        };
        let client = serve(axum::Router::new().route("/projects", get(page))).await;
        let request = || client.request_outside(Method::GET, &["projects"]);
        let all = client.pages("projects", request).await.unwrap();
        assert_eq!(all, json!({ "projects": [{ "name": "a" }, { "name": "b" }] }));
    }
}
