//! `stream hooks deliveries` and `redeliver`: what became of deliveries, and once more.

use clap::Args;
use clap::builder::RangedU64ValueParser;
use reqwest::Method;
use serde_json::{Value, json};
use stream_storage::Timestamp;

use super::put;
use crate::cli::client::Client;
use crate::cli::output::{CliError, Output, cell, fields, items, table};
use crate::name::EndpointName;
use crate::timestamp;

/// List an endpoint's deliveries, the newest first, or show one with its attempts
#[derive(Debug, Args)]
pub(super) struct Deliveries {
    /// The endpoint
    #[arg(value_parser = EndpointName::parse)]
    endpoint: EndpointName,

    /// This delivery, with what came back each time
    #[arg(value_name = "DELIVERY", conflicts_with_all = ["status", "limit"])]
    delivery: Option<String>,

    /// Only those that stand so
    #[arg(long, value_parser = ["pending", "success", "failed", "cancelled"])]
    status: Option<String>,

    /// At most so many
    #[arg(
        long,
        value_name = "N",
        default_value = "50",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000)
    )]
    limit: usize,
}

/// Deliver once more: one delivery, or all of a range
#[derive(Debug, Args)]
pub(super) struct Redeliver {
    /// The endpoint
    #[arg(value_parser = EndpointName::parse)]
    endpoint: EndpointName,

    /// This delivery
    #[arg(value_name = "DELIVERY", required_unless_present = "all")]
    delivery: Option<String>,

    /// All that failed, within the time given
    #[arg(long, conflicts_with = "delivery")]
    all: bool,

    /// With --all: those that stand so
    #[arg(long, requires = "all", value_parser = ["failed", "success", "cancelled"])]
    status: Option<String>,

    /// With --all: made at this time or later, such as `2026-01-02T03:04:05Z`
    #[arg(long, requires = "all", value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,

    /// With --all: made before this time
    #[arg(long, requires = "all", value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
}

fn time(text: &str) -> Result<Timestamp, timestamp::InvalidTimestamp> {
    timestamp::parse(text)
}

impl Deliveries {
    pub(super) async fn run(&self, client: &Client, output: Output) -> Result<(), CliError> {
        let path = ["webhooks", "endpoints", self.endpoint.as_str(), "deliveries"];
        if let Some(id) = &self.delivery {
            let request = client.request(Method::GET, &[&path[..], &[id]].concat());
            return Ok(output.show(&client.json(request).await?, human)?);
        }
        let request = client.request(Method::GET, &path).query(&[("limit", self.limit)]);
        let request = match &self.status {
            Some(status) => request.query(&[("status", status)]),
            None => request,
        };
        Ok(output.show(&client.json(request).await?, human_list)?)
    }
}

impl Redeliver {
    pub(super) async fn run(&self, client: &Client, output: Output) -> Result<(), CliError> {
        let path = ["webhooks", "endpoints", self.endpoint.as_str()];
        if let Some(id) = &self.delivery {
            let path = [&path[..], &["deliveries", id, "redeliver"]].concat();
            let answer = client.json(client.request(Method::POST, &path)).await?;
            return Ok(output.show(&answer, about)?);
        }
        let path = [&path[..], &["redeliver"]].concat();
        let request = client.request(Method::POST, &path).json(&self.range());
        let human = |told: &Value| format!("redelivered {}\n", cell(told, "redelivered"));
        Ok(output.show(&client.json(request).await?, human)?)
    }

    fn range(&self) -> Value {
        let mut body = json!({});
        if let Some(status) = &self.status {
            put(&mut body, "status", status.as_str().into());
        }
        for (name, time) in [("since", self.since), ("until", self.until)] {
            if let Some(time) = time {
                put(&mut body, name, timestamp::format(time).into());
            }
        }
        body
    }
}

fn about(delivery: &Value) -> String {
    fields([
        ("delivery", cell(delivery, "delivery_id")),
        ("event", cell(delivery, "event_id")),
        ("type", cell(delivery, "event_type")),
        ("status", cell(delivery, "status")),
        ("retries", cell(delivery, "retry_count")),
        ("created", cell(delivery, "created_at")),
        ("next attempt", cell(delivery, "next_attempt_at")),
        ("error", cell(delivery, "error_message")),
    ])
}

fn human(delivery: &Value) -> String {
    let row = |attempt| {
        ["number", "at", "duration_ms", "response_status_code", "error_message", "response_body"]
            .map(|field| cell(attempt, field))
    };
    let rows: Vec<_> = items(delivery, "attempts").iter().map(row).collect();
    let attempts = table(["ATTEMPT", "AT", "MS", "STATUS", "ERROR", "ANSWER"], &rows);
    format!("{}\n{attempts}\n{}\n", about(delivery), cell(delivery, "body"))
}

fn human_list(list: &Value) -> String {
    let row = |delivery| {
        [
            "delivery_id",
            "event_type",
            "status",
            "retry_count",
            "response_status_code",
            "created_at",
            "error_message",
        ]
        .map(|field| cell(delivery, field))
    };
    let rows: Vec<_> = items(list, "deliveries").iter().map(row).collect();
    table(["DELIVERY", "TYPE", "STATUS", "RETRIES", "ANSWER", "CREATED", "ERROR"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command, hooks};
    use clap::Parser;

    fn range(args: &[&str]) -> Option<Value> {
        let args = ["stream", "hooks", "redeliver", "e"].iter().chain(args);
        let Command::Hooks(args) = Cli::try_parse_from(args).ok()?.command else { panic!() };
        let hooks::HooksCommand::Redeliver(args) = args.command else { panic!("{args:?}") };
        Some(args.range())
    }

    #[test]
    fn a_range_has_to_be_asked_for() {
        let times = ["--since", "2026-01-02T03:04:05Z", "--until", "2026-01-03T03:04:05Z"];
        let all = [&["--all"][..], &times].concat();
        let expected = json!({
            "since": "2026-01-02T03:04:05.000Z", "until": "2026-01-03T03:04:05.000Z",
        });
        assert_eq!(range(&all), Some(expected));
        assert_eq!(range(&["--all", "--status", "success"]), Some(json!({ "status": "success" })));
        assert_eq!(range(&["dlv_1"]), Some(json!({})));
        for args in [&[][..], &times, &["dlv_1", "--all"], &["--all", "--status", "pending"]] {
            assert_eq!(range(args), None, "{args:?}");
        }
    }
}
