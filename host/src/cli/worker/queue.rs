//! `stream worker queue`: how a queue works and stands.

use std::time::Duration;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::cli::client::Client;
use crate::cli::output::{CliError, Output, cell, confirm, fields, items, table};
use crate::name::QueueName;

#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    Set(Set),
    /// Show how a queue works and stands
    Show {
        /// The queue
        #[arg(value_parser = QueueName::parse)]
        name: QueueName,
    },
    /// Give out no jobs until the queue is resumed
    Pause {
        /// The queue
        #[arg(value_parser = QueueName::parse)]
        name: QueueName,
    },
    /// Give out jobs again
    Resume {
        /// The queue
        #[arg(value_parser = QueueName::parse)]
        name: QueueName,
    },
    /// Delete a queue and all its jobs
    Delete {
        /// The queue
        #[arg(value_parser = QueueName::parse)]
        name: QueueName,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// Set a queue up, or change how it works; what is not given stays
#[derive(Debug, Args)]
pub(super) struct Set {
    /// The queue
    #[arg(value_parser = QueueName::parse)]
    name: QueueName,

    /// How often a job is tried, the first time included
    #[arg(long, value_name = "N")]
    attempts: Option<u32>,

    /// The times before new tries, the last for all that follow: `5s,5m,1h`
    #[arg(
        long,
        value_name = "TIMES",
        value_delimiter = ',',
        value_parser = humantime::parse_duration
    )]
    backoff: Option<Vec<Duration>>,

    /// How long a job is held by who took it, unless that one asks for more
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    lease: Option<Duration>,

    /// How many jobs may be held at once
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,

    /// How many jobs may be taken a second
    #[arg(long, value_name = "N")]
    rate: Option<f64>,

    /// Whether jobs of one key are taken one after the other
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    ordered: Option<bool>,
}

impl Set {
    /// The settings as they are to be.
    fn over(&self, settings: &mut Map<String, Value>) {
        let millis = |time: &Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let delays = self.backoff.as_ref().map(|delays| {
            let delays: Vec<u64> = delays.iter().map(millis).collect();
            json!({ "delays_ms": delays })
        });
        let given = [
            ("attempts_max", self.attempts.map(Value::from)),
            ("backoff", delays),
            ("lease_ms", self.lease.as_ref().map(millis).map(Value::from)),
            ("concurrency", self.concurrency.map(Value::from)),
            ("rate_per_second", self.rate.map(Value::from)),
            ("ordered", self.ordered.map(Value::from)),
        ];
        for (name, value) in given {
            if let Some(value) = value {
                settings.insert(name.to_owned(), value);
            }
        }
    }
}

impl QueueCommand {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        match self {
            Self::Set(set) => {
                let settings = change(client, &set.name, |settings| set.over(settings)).await?;
                output.show(&settings, human_settings)?;
            }
            Self::Show { name } => {
                let request = client.request(Method::GET, &["queues", name.as_str()]);
                output.show(&client.json(request).await?, human)?;
            }
            Self::Pause { name } => pause(client, &name, true).await?,
            Self::Resume { name } => pause(client, &name, false).await?,
            Self::Delete { name, yes } => {
                let question = format!("delete the queue `{name}` with all its jobs?");
                if !yes && !confirm(name.as_str(), &question)? {
                    return Ok(());
                }
                client.send(client.request(Method::DELETE, &["queues", name.as_str()])).await?;
                output.done(&format!("deleted `{name}`"))?;
            }
        }
        Ok(())
    }
}

async fn pause(client: &Client, name: &QueueName, is_paused: bool) -> Result<(), CliError> {
    let path = ["queues", name.as_str()];
    // A queue that is not there is not made by this.
    client.json(client.request(Method::GET, &path)).await?;
    let set = |settings: &mut Map<String, Value>| {
        settings.insert("paused".to_owned(), is_paused.into());
    };
    change(client, name, set).await.map(drop)
}

/// Changes some of the settings.
async fn change(
    client: &Client,
    name: &QueueName,
    change: impl FnOnce(&mut Map<String, Value>),
) -> Result<Value, CliError> {
    let path = ["queues", name.as_str()];
    let queue = match client.json(client.request(Method::GET, &path)).await {
        Err(error) if error.has_code("queue-not-found") => Value::Null,
        queue => queue?,
    };
    let settings = queue.get("settings").and_then(Value::as_object);
    let mut settings = settings.cloned().unwrap_or_default();
    change(&mut settings);
    client.json(client.request(Method::PUT, &path).json(&settings)).await
}

pub(super) fn human_list(list: &Value) -> String {
    let row = |queue: &Value| {
        let settings = queue.get("settings").unwrap_or(&Value::Null);
        let [attempts, lease, ordered, paused] =
            ["attempts_max", "lease_ms", "ordered", "paused"].map(|field| cell(settings, field));
        [cell(queue, "queue"), attempts, lease, ordered, paused]
    };
    let rows: Vec<_> = items(list, "queues").iter().map(row).collect();
    table(["NAME", "ATTEMPTS", "LEASE MS", "ORDERED", "PAUSED"], &rows)
}

fn human_settings(queue: &Value) -> String {
    let settings = queue.get("settings").unwrap_or(&Value::Null);
    let of = |field| cell(settings, field);
    fields([
        ("queue", cell(queue, "queue")),
        ("attempts", of("attempts_max")),
        ("backoff", of("backoff")),
        ("lease ms", of("lease_ms")),
        ("concurrency", of("concurrency")),
        ("rate", of("rate_per_second")),
        ("ordered", of("ordered")),
        ("paused", of("paused")),
    ])
}

fn human(queue: &Value) -> String {
    let of = |field| cell(queue, field);
    let standing = fields([
        ("waiting", of("waiting")),
        ("leased", of("leased")),
        ("dead", of("dead")),
        ("next due", of("next_due")),
    ]);
    format!("{}\n{standing}", human_settings(queue))
}
