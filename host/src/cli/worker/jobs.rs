//! `stream worker enqueue`, `jobs`, `redrive`, `discard`.

use std::io::Read;
use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use reqwest::Method;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::cli::client::Client;
use crate::cli::output::{CliError, Output, cell, confirm, items, table};
use crate::name::QueueName;

/// How long to go on trying: what is enqueued is enqueued once.
const RETRY_FOR: Duration = Duration::from_secs(60);

/// Put a job into a queue, which is made if it is not there
#[derive(Debug, Args)]
pub(super) struct Enqueue {
    /// The queue
    #[arg(value_parser = QueueName::parse)]
    queue: QueueName,

    /// The payload, JSON; standard input unless it is given
    payload: Option<String>,

    /// In an ordered queue, jobs of one key are taken one after the other
    #[arg(long)]
    job_key: Option<String>,

    /// While an unfinished job of the queue has this word, there is no second one
    #[arg(long, value_name = "WORD")]
    unique: Option<String>,

    /// Not before so much time has passed: `10m`
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    delay: Option<Duration>,

    /// Not before this time: `2026-01-02T03:04:05Z`
    #[arg(long, value_name = "TIME", conflicts_with = "delay")]
    due_at: Option<String>,

    /// A header of the job; may be given more than once
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
}

fn header(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').ok_or("expected `NAME=VALUE`")?;
    Ok((parts.0.to_owned(), parts.1.to_owned()))
}

impl Enqueue {
    pub(super) async fn run(self, client: Client, output: Output) -> Result<(), CliError> {
        let client = client.retrying(RETRY_FOR);
        let body = self.body()?;
        let key = format!("cli-{:032x}", rand::random::<u128>());
        let path = ["queues", self.queue.as_str(), "jobs"];
        let call = || async {
            let request = client.request(Method::POST, &path).header("idempotency-key", &key);
            let request = request.header("content-type", "application/json");
            client.json(request.body(body.clone())).await
        };
        Ok(output.show(&client.fetch(call).await?, human_enqueued)?)
    }

    /// The payload goes into it as it is.
    fn body(&self) -> Result<String, CliError> {
        let payload = match &self.payload {
            Some(payload) => payload.clone(),
            None => {
                let mut payload = String::new();
                std::io::stdin().lock().read_to_string(&mut payload)?;
                payload
            }
        };
        let raw: &RawValue = serde_json::from_str(payload.trim()).map_err(|error| {
            CliError::Usage(format!(
                "the payload is not JSON: {error}; a text has quotes around it"
            ))
        })?;
        let millis = |delay: Duration| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        let headers: Map<String, Value> = self
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().into()))
            .collect();
        let rest = json!({
            "key": self.job_key,
            "unique": self.unique,
            "delay_ms": self.delay.map(millis),
            "due_at": self.due_at,
            "headers": headers,
        });
        let rest = rest.to_string();
        Ok(format!("{{\"payload\":{},{}", raw.get(), rest.trim_start_matches('{')))
    }
}

fn human_enqueued(answer: &Value) -> String {
    let line = |job: &Value| {
        let was_there = job.get("duplicate") == Some(&Value::Bool(true));
        let note = if was_there { " (was there already)" } else { "" };
        format!("{}{note}\n", cell(job, "id"))
    };
    items(answer, "jobs").iter().map(line).collect()
}

/// List jobs
#[derive(Debug, Args)]
pub(super) struct Jobs {
    /// The queue
    #[arg(value_parser = QueueName::parse)]
    queue: QueueName,

    /// How they stand
    #[arg(long, value_name = "STATE", default_value = "waiting", value_parser = ["waiting", "leased", "dead"])]
    state: String,

    /// At most so many
    #[arg(
        long,
        value_name = "N",
        default_value = "20",
        value_parser = RangedU64ValueParser::<u64>::new().range(1..=1_000)
    )]
    limit: u64,
}

impl Jobs {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        let path = ["queues", self.queue.as_str(), "jobs"];
        let request = client.request(Method::GET, &path);
        let request = request.query(&[("state", self.state.as_str())]);
        let request = request.query(&[("limit", self.limit)]);
        Ok(output.show(&client.json(request).await?, human_jobs)?)
    }
}

pub(super) async fn show(
    client: &Client,
    output: Output,
    queue: &QueueName,
    id: &str,
) -> Result<(), CliError> {
    let request = client.request(Method::GET, &["queues", queue.as_str(), "jobs", id]);
    let pretty = |job: &Value| format!("{job:#}\n");
    Ok(output.show(&client.json(request).await?, pretty)?)
}

fn human_jobs(page: &Value) -> String {
    let row = |job: &Value| {
        let time = ["due_at", "leased_until", "dead_at"].map(|field| cell(job, field));
        let time = time.into_iter().find(|time| time != "-").unwrap_or_else(|| "-".to_owned());
        let [id, key, attempts, error] =
            ["id", "key", "attempts", "last_error"].map(|field| cell(job, field));
        [id, key, attempts, time, error]
    };
    let rows: Vec<_> = items(page, "jobs").iter().map(row).collect();
    let jobs = table(["ID", "KEY", "ATTEMPTS", "TIME", "LAST ERROR"], &rows);
    match page.get("next") {
        Some(_) => format!("{jobs}and more\n"),
        None => jobs,
    }
}

/// Try dead jobs again
#[derive(Debug, Args)]
pub(super) struct Redrive {
    /// The queue
    #[arg(value_parser = QueueName::parse)]
    queue: QueueName,

    /// The jobs; all that are dead unless some are named
    ids: Vec<String>,
}

impl Redrive {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        let answer = about(client, &self.queue, "redrive", &self.ids).await?;
        Ok(output.show(&answer, |told| format!("{} are tried again\n", cell(told, "redriven")))?)
    }
}

/// Delete dead jobs
#[derive(Debug, Args)]
pub(super) struct Discard {
    /// The queue
    #[arg(value_parser = QueueName::parse)]
    queue: QueueName,

    /// The jobs; all that are dead unless some are named
    ids: Vec<String>,

    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Discard {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        let question = format!("delete dead jobs of `{}`?", self.queue);
        if !self.yes && !confirm(self.queue.as_str(), &question)? {
            return Ok(());
        }
        let answer = about(client, &self.queue, "discard", &self.ids).await?;
        Ok(output.show(&answer, |told| format!("{} are deleted\n", cell(told, "discarded")))?)
    }
}

async fn about(
    client: &Client,
    queue: &QueueName,
    what: &str,
    ids: &[String],
) -> Result<Value, CliError> {
    let body = if ids.is_empty() { json!({}) } else { json!({ "ids": ids }) };
    let request = client.request(Method::POST, &["queues", queue.as_str(), what]);
    client.json(request.json(&body)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    fn enqueue(args: &[&str]) -> Result<Value, String> {
        #[derive(Parser)]
        struct Alone {
            #[command(flatten)]
            enqueue: Enqueue,
        }
        let alone = Alone::try_parse_from(["enqueue", "q"].iter().chain(args));
        let body = alone.map_err(|error| error.to_string())?.enqueue.body();
        let body = body.map_err(|error| error.to_string())?;
        assert!(body.contains(args[0].trim()), "{body} holds the payload as it is");
        Ok(serde_json::from_str(&body).unwrap())
    }

    #[test]
    fn a_job_goes_with_its_payload_as_given() {
        let args = [" { \"a\": 1.50 }", "--job-key", "k", "--delay", "1m", "--header", "h=1=2"];
        let body = enqueue(&args).unwrap();
        assert_eq!((&body["key"], &body["delay_ms"]), (&json!("k"), &json!(60_000)));
        assert_eq!(body["headers"], json!({ "h": "1=2" }));
        assert!(enqueue(&["text"]).unwrap_err().contains("not JSON"));
        assert!(enqueue(&["1", "--delay", "1s", "--due-at", "2026-01-01T00:00:00Z"]).is_err());
    }

    #[test]
    fn states_and_limits_are_checked() {
        let cases: [(&[&str], bool); 4] = [
            (&["q"], true),
            (&["q", "--state", "dead", "--limit", "1000"], true),
            (&["q", "--state", "done"], false),
            (&["q", "--limit", "0"], false),
        ];
        for (args, is_valid) in cases {
            let parsed = Cli::try_parse_from(["stream", "worker", "jobs"].iter().chain(args));
            assert_eq!(parsed.is_ok(), is_valid, "{args:?}");
        }
    }
}
