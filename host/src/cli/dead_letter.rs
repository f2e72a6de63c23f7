//! `stream dead-letter`: the events that plugins, routes, groups or queues have given up.
//!
//! They are records of a topic of the server's own, which is there once it has one.

use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand};
use reqwest::Method;
use reqwest::header::ACCEPT;
use serde_json::Value;

use super::client::Client;
use super::output::{CliError, Output, cell, items, table};
use super::plugin::versioned;
use super::tail::offset_in;
use crate::publish::DEAD_LETTER;

/// Show events that plugins, routes, groups or queues have given up
#[derive(Debug, Args)]
pub(super) struct DeadLetterArgs {
    #[command(subcommand)]
    command: DeadLetterCommand,
}

#[derive(Debug, Subcommand)]
enum DeadLetterCommand {
    /// List the newest dead letters, the newest last; with --json as records, one a line
    List {
        /// At most so many
        #[arg(
            long,
            value_name = "N",
            default_value = "20",
            value_parser = RangedU64ValueParser::<usize>::new().range(1..=10_000)
        )]
        limit: usize,
    },
}

impl DeadLetterArgs {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        let DeadLetterCommand::List { limit } = self.command;
        let letters = newest(client, limit).await?;
        let text = if output.is_json() {
            letters.iter().map(|letter| format!("{}\n", letter.line)).collect()
        } else {
            human(&letters)
        };
        output.write(text.as_bytes())?;
        Ok(())
    }
}

/// A record: as it was served, and read.
#[derive(Debug)]
struct Letter {
    line: String,
    record: Value,
}

impl Letter {
    fn parse(line: &str) -> Result<Self, CliError> {
        let record = serde_json::from_str(line)
            .map_err(|error| CliError::Answer { reason: error.to_string() })?;
        Ok(Self { line: line.to_owned(), record })
    }

    /// By time, and in each partition by offset.
    fn age(&self) -> (String, u64, u64) {
        let number = |field| self.record.get(field).and_then(Value::as_u64).unwrap_or_default();
        (cell(&self.record, "timestamp"), number("partition"), number("offset"))
    }
}

/// The newest records of all partitions; none if the topic is not there.
async fn newest(client: &Client, limit: usize) -> Result<Vec<Letter>, CliError> {
    let path = ["topics", DEAD_LETTER, "partitions"];
    let partitions = match client.json(client.request(Method::GET, &path)).await {
        Err(error) if error.has_code("topic-not-found") => return Ok(Vec::new()),
        answer => answer?,
    };
    let mut letters = Vec::new();
    for partition in items(&partitions, "partitions") {
        letters.append(&mut tail(client, &cell(partition, "partition"), limit).await?);
    }
    letters.sort_by_key(Letter::age);
    let surplus = letters.len().saturating_sub(limit);
    letters.drain(..surplus);
    Ok(letters)
}

/// The last records of a partition; an answer has as many of them as its bytes allow.
async fn tail(client: &Client, partition: &str, limit: usize) -> Result<Vec<Letter>, CliError> {
    let path = ["topics", DEAD_LETTER, "partitions", partition, "records"];
    let mut letters = Vec::new();
    let mut at = ("tail", limit as u64);
    let mut end = None;
    loop {
        let request = client
            .request(Method::GET, &path)
            .header(ACCEPT, "application/x-ndjson")
            .query(&[at, ("limit", limit as u64)]);
        let response = client.send(request).await?;
        let next = offset_in(response.headers(), "stream-next-offset")?;
        // What comes meanwhile would make this endless.
        let end = *end.get_or_insert(offset_in(response.headers(), "stream-end-offset")?);
        let lines = response.text().await.map_err(|error| client.no_answer(&error))?;
        for line in lines.lines() {
            letters.push(Letter::parse(line)?);
        }
        if next >= end || at == ("offset", next) {
            return Ok(letters);
        }
        at = ("offset", next);
    }
}

fn human(letters: &[Letter]) -> String {
    if letters.is_empty() {
        return "there are no dead letters\n".to_owned();
    }
    let part = |object: &Value, field: &str| object.get(field).cloned().unwrap_or_default();
    let row = |letter: &Letter| {
        let value = part(&letter.record, "value");
        let reason = format!("{}: {}", cell(&value, "cause"), cell(&value, "reason"));
        let key = cell(&part(&value, "event"), "key");
        let [partition, offset, time] =
            ["partition", "offset", "timestamp"].map(|field| cell(&letter.record, field));
        let at = format!("{partition}:{offset}");
        [at, time, whence(&value), who(&value), key, reason]
    };
    let rows: Vec<_> = letters.iter().map(row).collect();
    table(["OFFSET", "TIME", "TOPIC", "GIVEN UP BY", "KEY", "REASON"], &rows)
}

/// The topic, with the place in it if the event is stored there.
fn whence(value: &Value) -> String {
    let topic = cell(value, "topic");
    match value.get("offset") {
        Some(offset) => format!("{topic} {}:{offset}", cell(value, "partition")),
        None => topic,
    }
}

/// A plugin with its version, or a route, a group or a queue.
fn who(value: &Value) -> String {
    let named = |kind: &str| Some(format!("{kind} {}", value.get(kind)?.as_str()?));
    let plugin = value.get("plugin").filter(|plugin| !plugin.is_null());
    match plugin {
        Some(plugin) => versioned("name", plugin),
        None => ["route", "group", "queue"]
            .into_iter()
            .find_map(named)
            .unwrap_or_else(|| versioned("name", &Value::Null)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use crate::cli::client::tests::serve;
    use axum::extract::{Path, RawQuery};
    use axum::http::StatusCode;
    use axum::response::IntoResponse;
    use axum::routing::get;
    use axum::{Json, Router};
    use clap::Parser;
    use serde_json::json;

    #[test]
    fn a_list_has_a_limit() {
        let cases: [(&[&str], bool); 4] = [
            (&["list"], true),
            (&["list", "--limit", "10000"], true),
            (&["list", "--limit", "0"], false),
            (&["list", "--limit", "10001"], false),
        ];
        for (args, is_valid) in cases {
            let parsed = Cli::try_parse_from(["stream", "dead-letter"].iter().chain(args));
            assert_eq!(parsed.is_ok(), is_valid, "{args:?}");
        }
    }

    const TOPIC: &str = "/projects/p/topics/_dead-letter/partitions";

    #[tokio::test]
    async fn without_the_topic_there_are_none() {
        let told = json!({ "error": { "code": "topic-not-found", "message": "m" } });
        let answer = || async { (StatusCode::NOT_FOUND, Json(told)) };
        let client = serve(Router::new().route(TOPIC, get(answer))).await;
        let letters = newest(&client, 5).await.unwrap();
        assert_eq!(human(&letters), "there are no dead letters\n");
    }

    /// Two partitions of four records each, a second apart by turns; two records in an answer.
    async fn records(Path(partition): Path<u64>, RawQuery(query): RawQuery) -> impl IntoResponse {
        let query = query.unwrap();
        let (at, limit) = query.split_once('&').unwrap();
        assert_eq!(limit, "limit=3");
        let start: u64 = match at.split_once('=').unwrap() {
            ("tail", count) => 4 - count.parse::<u64>().unwrap(),
            (_, offset) => offset.parse().unwrap(),
        };
        let next = (start + 2).min(4);
        let line = |offset| {
            let second = 2 * offset + partition;
            format!(
                "{{\"partition\":{partition},\"offset\":{offset},\"timestamp\":\"T{second}\"}}\n"
            )
        };
        let lines: String = (start..next).map(line).collect();
        let next = next.to_string();
        ([("stream-next-offset", next), ("stream-end-offset", "4".to_owned())], lines)
    }

    #[tokio::test]
    async fn the_newest_of_all_partitions_come_last() {
        let all = json!({ "partitions": [{ "partition": 0 }, { "partition": 1 }] });
        let router = Router::new()
            .route(TOPIC, get(|| async { Json(all) }))
            .route(&format!("{TOPIC}/{{partition}}/records"), get(records));
        let letters = newest(&serve(router).await, 3).await.unwrap();
        let times: Vec<_> = letters.iter().map(|letter| letter.age().0).collect();
        assert_eq!(times, ["T5", "T6", "T7"]);
    }

    #[test]
    fn a_letter_shows_what_broke_on_which_event() {
        let letter = |value: Value| {
            let record = json!({ "partition": 0, "offset": 7, "timestamp": "T", "value": value });
            Letter { line: String::new(), record }
        };
        let plugin = json!({
            "topic": "orders", "plugin": { "name": "p", "version": 3 }, "cause": "timeout",
            "reason": "over 100 ms", "attempt": 1, "event": { "key": "k", "value": 1 },
        });
        let route = json!({
            "topic": "orders", "plugin": null, "route": "r", "cause": "missing-target",
            "reason": "no\ntopic", "event": { "key": null, "value_base64": "/w==" },
        });
        let group = json!({
            "kind": "group", "topic": "orders", "partition": 1, "offset": 3, "plugin": null,
            "route": null, "group": "g", "cause": "nack", "reason": "no", "event": { "key": "k" },
        });
        let queue = json!({ "kind": "queue", "queue": "q", "topic": null, "cause": "dead" });
        let expected = "OFFSET  TIME  TOPIC       GIVEN UP BY  KEY  REASON\n\
                        0:7     T     orders      p@3          k    timeout: over 100 ms\n\
                        0:7     T     orders      route r      -    missing-target: no topic\n\
                        0:7     T     orders 1:3  group g      k    nack: no\n\
                        0:7     T     -           queue q      -    dead: -\n\
                        0:7     T     -           -            -    -: -\n";
        let letters = [plugin, route, group, queue, json!("not one")].map(letter);
        assert_eq!(human(&letters), expected);
    }
}
