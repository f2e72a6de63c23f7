//! `stream schema`: set, show and delete a topic's schema.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use super::client::Client;
use super::output::{CliError, Output, cell, fields};
use super::publish::InputError;
use crate::name::TopicName;

/// Set, show and delete a topic's schema, which its values have to match
#[derive(Debug, Args)]
pub(super) struct SchemaArgs {
    #[command(subcommand)]
    command: SchemaCommand,
}

#[derive(Debug, Subcommand)]
enum SchemaCommand {
    /// Set the schema that values published from now on have to match
    Set {
        /// The topic
        #[arg(value_parser = TopicName::parse)]
        topic: TopicName,
        /// A file with a JSON Schema; `-` is standard input
        file: PathBuf,
    },
    /// Print the schema
    Get {
        /// The topic
        #[arg(value_parser = TopicName::parse)]
        topic: TopicName,
    },
    /// Accept any value from now on
    Delete {
        /// The topic
        #[arg(value_parser = TopicName::parse)]
        topic: TopicName,
    },
}

impl SchemaArgs {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        let request = |method, topic: &TopicName| {
            client.request(method, &["topics", topic.as_str(), "schema"])
        };
        match self.command {
            SchemaCommand::Set { topic, file } => {
                let set = set(client, request(Method::PUT, &topic), &file).await?;
                output.show(&set, human_set)?;
            }
            SchemaCommand::Get { topic } => {
                output.show(&client.json(request(Method::GET, &topic)).await?, human)?;
            }
            SchemaCommand::Delete { topic } => {
                client.send(request(Method::DELETE, &topic)).await?;
                output.done(&format!("deleted the schema of `{topic}`"))?;
            }
        }
        Ok(())
    }
}

async fn set(client: &Client, request: RequestBuilder, file: &Path) -> Result<Value, CliError> {
    let request = request.header(CONTENT_TYPE, "application/json").body(read(file)?);
    client.json(request).await
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes).map_err(InputError::Read)?;
        return Ok(bytes);
    }
    fs::read(path).map_err(|error| CliError::unreadable(path, error))
}

fn human_set(set: &Value) -> String {
    fields([
        ("topic", cell(set, "topic")),
        ("version", cell(set, "version")),
        ("created", cell(set, "created_at")),
    ])
}

/// The schema itself below what is known of it, so that it can be read.
fn human(set: &Value) -> String {
    let schema = set.get("schema").unwrap_or(&Value::Null);
    format!("{}\n{schema:#}\n", human_set(set))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::tests::serve;
    use crate::cli::{Cli, Command};
    use axum::body::Bytes;
    use axum::http::HeaderMap;
    use axum::routing::put;
    use clap::Parser;
    use serde_json::json;

    fn parse(args: &[&str]) -> Result<SchemaArgs, clap::Error> {
        let cli = Cli::try_parse_from(["stream", "schema"].iter().chain(args))?;
        match cli.command {
            Command::Schema(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_schema_is_a_topics() {
        let cases: [(&[&str], bool); 5] = [
            (&["set", "t", "f.json"], true),
            (&["set", "t"], false),
            (&["get", "t"], true),
            (&["get", "a..b"], false),
            (&["delete", "t"], true),
        ];
        for (args, is_valid) in cases {
            assert_eq!(parse(args).is_ok(), is_valid, "{args:?}");
        }
    }

    #[tokio::test]
    async fn a_schema_is_sent_byte_for_byte() {
        let answer = |headers: HeaderMap, body: Bytes| async move {
            assert_eq!(headers["content-type"], "application/json");
            assert_eq!(body, "{ \"minimum\": 1.0 }\n");
            axum::Json(json!({}))
        };
        let router = axum::Router::new().route("/projects/p/topics/t/schema", put(answer));
        let client = serve(router).await;
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "{ \"minimum\": 1.0 }\n").unwrap();
        let request = || client.request(Method::PUT, &["topics", "t", "schema"]);
        assert_eq!(set(&client, request(), file.path()).await.unwrap(), json!({}));
        let gone = set(&client, request(), Path::new("gone")).await.unwrap_err();
        assert_eq!(gone.exit_code(), 4);
    }

    #[test]
    fn a_schema_is_shown_below_its_version() {
        let set = json!({
            "topic": "t", "version": 2, "created_at": "T", "schema": { "type": "object" },
        });
        let expected = "topic    t\nversion  2\ncreated  T\n\n{\n  \"type\": \"object\"\n}\n";
        assert_eq!(human(&set), expected);
        assert_eq!(human_set(&set), "topic    t\nversion  2\ncreated  T\n");
    }
}
