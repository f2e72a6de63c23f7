//! `stream key`: make, list and revoke API keys.

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::client::Client;
use super::output::{CliError, Output, cell, fields, items, table};
use crate::auth::Scope;

/// Make, list and revoke API keys
#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key and print it, once: only a hash of it is kept
    Create {
        /// What the key is for
        #[arg(long)]
        name: Option<String>,
        /// What the key may do; may be given more than once
        #[arg(
            long,
            default_values = [Scope::Publish, Scope::Consume].map(Scope::as_str),
            value_parser = PossibleValuesParser::new(Scope::ALL.map(Scope::as_str))
        )]
        scope: Vec<String>,
        /// Open all projects, not only this one
        #[arg(long)]
        all_projects: bool,
    },
    /// List the keys, without their secrets
    List,
    /// Revoke a key: it opens nothing from then on
    Revoke {
        /// The key's id, as `key list` shows it
        id: String,
    },
}

impl KeyArgs {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        match self.command {
            KeyCommand::Create { name, scope, all_projects } => {
                let body = json!({ "name": name, "scopes": scope, "all_projects": all_projects });
                let request = client.request(Method::POST, &["keys"]).json(&body);
                output.show(&client.json(request).await?, human)?;
            }
            KeyCommand::List => output.show(&client.list("keys").await?, human_list)?,
            KeyCommand::Revoke { id } => {
                client.send(client.request(Method::DELETE, &["keys", &id])).await?;
                output.done(&format!("revoked `{id}`"))?;
            }
        }
        Ok(())
    }
}

fn human(key: &Value) -> String {
    let about = fields([
        ("id", cell(key, "id")),
        ("name", cell(key, "name")),
        ("project", project(key)),
        ("scopes", cell(key, "scopes")),
        ("key", cell(key, "key")),
    ]);
    format!("{about}\nThe key is shown only now.\n")
}

fn human_list(list: &Value) -> String {
    let row = |key| {
        let [id, name, scopes, created] =
            ["id", "name", "scopes", "created_at"].map(|field| cell(key, field));
        [id, name, project(key), scopes, created]
    };
    let rows: Vec<_> = items(list, "keys").iter().map(row).collect();
    table(["ID", "NAME", "PROJECT", "SCOPES", "CREATED"], &rows)
}

/// The project that the key opens; a key without one opens all.
fn project(key: &Value) -> String {
    if key.get("project").is_some_and(Value::is_null) {
        return "(all)".to_owned();
    }
    cell(key, "project")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    #[test]
    fn a_key_publishes_and_consumes_unless_told() {
        let cases: [(&[&str], Option<&[&str]>); 4] = [
            (&[], Some(&["publish", "consume"])),
            (&["--scope", "manage"], Some(&["manage"])),
            (&["--scope", "deploy", "--scope", "manage"], Some(&["deploy", "manage"])),
            (&["--scope", "everything"], None),
        ];
        for (args, expected) in cases {
            let parsed = Cli::try_parse_from(["stream", "key", "create"].iter().chain(args));
            let scopes = parsed.ok().map(|cli| match cli.command {
                Command::Key(KeyArgs { command: KeyCommand::Create { scope, .. } }) => scope,
                other => panic!("{other:?}"),
            });
            let expected = expected.map(|words| words.iter().map(ToString::to_string).collect());
            assert_eq!(scopes, expected, "{args:?}");
        }
    }

    #[test]
    fn a_key_without_a_project_opens_all() {
        let list = json!({ "keys": [
            { "id": "a", "project": null, "scopes": ["publish", "manage"] },
            { "id": "b", "project": "p", "scopes": [] },
        ]});
        let text = human_list(&list);
        assert!(text.contains("a   -     (all)    publish,manage  -\n"), "{text}");
        assert!(text.contains("b   -     p        -               -\n"), "{text}");
    }
}
