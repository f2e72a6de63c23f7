//! `stream event`: records by the id of their event, and by their key.

use clap::{Args, Subcommand};
use reqwest::{Method, RequestBuilder};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::Client;
use super::output::{CliError, Output};
use super::tail;
use crate::name::TopicName;

/// Records in a request.
const PAGE_MAX: u64 = 1_000;

/// Look records up by the id of their event, or by their key
///
/// The topic keeps the index that `stream topic create --index` gave it. Records are shown as `tail`
/// shows them; with --json whole, one a line.
#[derive(Debug, Args)]
pub(super) struct EventArgs {
    #[command(subcommand)]
    command: EventCommand,
}

#[derive(Debug, Subcommand)]
enum EventCommand {
    /// Show the record of an event; the newest if several have the id
    Get {
        /// The topic
        #[arg(value_parser = TopicName::parse)]
        topic: TopicName,
        /// The id
        id: String,
    },
    /// List the records of a key, newest first
    List {
        /// The topic
        #[arg(value_parser = TopicName::parse)]
        topic: TopicName,
        /// The key
        #[arg(value_name = "KEY")]
        record_key: String,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u64,
    },
}

/// A page of records, as they are served.
#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    records: Vec<&'a RawValue>,
    next: Option<String>,
}

impl EventArgs {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        match self.command {
            EventCommand::Get { topic, id } => {
                let request =
                    client.request(Method::GET, &["topics", topic.as_str(), "events", &id]);
                print(output, &bytes(client, request).await?)
            }
            EventCommand::List { topic, record_key, limit } => {
                let path = ["topics", topic.as_str(), "keys", &record_key];
                list(client, output, &path, limit).await
            }
        }
    }
}

/// Prints page after page until there are no more, or as many as wanted.
async fn list(client: &Client, output: Output, path: &[&str], limit: u64) -> Result<(), CliError> {
    let (mut left, mut before) = (limit, None::<String>);
    while left > 0 {
        let request = client.request(Method::GET, path).query(&[("limit", left.min(PAGE_MAX))]);
        let request = request.query(&before.map(|before| [("before", before)]));
        let body = bytes(client, request).await?;
        let page: Page<'_> = serde_json::from_slice(&body)
            .map_err(|error| CliError::Answer { reason: error.to_string() })?;
        for record in &page.records {
            print(output, record.get().as_bytes())?;
        }
        left = left.saturating_sub(page.records.len() as u64);
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    Ok(())
}

async fn bytes(client: &Client, request: RequestBuilder) -> Result<Vec<u8>, CliError> {
    let response = client.send(request).await?;
    let body = response.bytes().await.map_err(|error| client.no_answer(&error))?;
    Ok(body.to_vec())
}

/// Prints a record on a line. A line break in it is white space between its parts: in a string it is
/// escaped.
fn print(output: Output, record: &[u8]) -> Result<(), CliError> {
    let is_break = |byte: &u8| matches!(byte, b'\n' | b'\r');
    let mut line: Vec<u8> =
        record.iter().map(|byte| if is_break(byte) { b' ' } else { *byte }).collect();
    if !output.is_json() {
        line = tail::human(&line, false)?.into_bytes();
    }
    line.push(b'\n');
    Ok(output.write(&line)?)
}
