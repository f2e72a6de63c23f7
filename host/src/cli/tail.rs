//! `stream tail`: prints records as they come.
//!
//! Each partition has a cursor; a read of each is under way at any time and waits at the server for
//! records. Records of a partition are printed in order, partitions as their answers come. What a
//! pattern matches is printed in the order of its commits.

use std::borrow::Cow;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderMap};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::Client;
use super::follow::follow;
use super::output::{CliError, Output};
use crate::name::TopicName;
use crate::pattern::Pattern;
use crate::timestamp;

/// How long a read waits for records: longer and proxies may cut it.
const WAIT: Duration = Duration::from_secs(20);
/// Records in a read: enough that reading a backlog is not about round trips.
const READ_RECORDS_MAX: u64 = 1_000;

/// Print records as they come, one a line
///
/// Records of a topic's partition come in order; partitions that are added meanwhile are not noticed.
/// Records of a pattern come in the order of their commits, from topics made meanwhile too.
#[derive(Debug, Args)]
pub(super) struct TailArgs {
    /// The topic, or a pattern such as `order.**`
    #[arg(value_parser = Pattern::parse)]
    topic: Pattern,

    /// Only this partition
    #[arg(long, value_name = "N")]
    partition: Option<u32>,

    /// Where to start: `earliest`, `latest`, an offset, or a time such as `2026-01-02T03:04:05Z`
    #[arg(long, value_name = "START", default_value = "latest")]
    from: Start,

    /// Stop after so many records
    #[arg(long, value_name = "N")]
    limit: Option<u64>,

    /// Go on at the end and wait for records, which is the default
    #[arg(short, long, conflicts_with = "no_follow")]
    follow: bool,

    /// Stop at the end, as it is at the start of this command
    #[arg(long)]
    no_follow: bool,

    /// How long to try again when the server cannot be reached
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    retry_for: Duration,
}

/// Where to start.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Start {
    Earliest,
    Latest,
    Offset(u64),
    Time(String),
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            _ => match (text.parse(), timestamp::parse(text)) {
                (Ok(offset), _) => Ok(Self::Offset(offset)),
                (_, Ok(time)) => Ok(Self::Time(timestamp::format(time))),
                _ => Err("expected `earliest`, `latest`, an offset or an RFC 3339 time".to_owned()),
            },
        }
    }
}

/// What a partition holds.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Bounds {
    pub(super) partition: u32,
    pub(super) start_offset: u64,
    pub(super) end_offset: u64,
}

/// The next read of a partition.
#[derive(Debug)]
struct Cursor {
    partition: u32,
    /// Name and value of the parameter that says where to read.
    at: (&'static str, String),
    /// Where to stop; `None` to follow.
    end: Option<u64>,
}

impl Cursor {
    fn new(bounds: Bounds, from: &Start, follow: bool) -> Self {
        let at = match from {
            Start::Earliest => ("offset", bounds.start_offset.to_string()),
            Start::Latest => ("offset", bounds.end_offset.to_string()),
            Start::Offset(offset) => ("offset", offset.to_string()),
            Start::Time(time) => ("timestamp", time.clone()),
        };
        let end = if follow { None } else { Some(bounds.end_offset) };
        Self { partition: bounds.partition, at, end }
    }
}

/// What a read brought.
struct Page {
    /// The read after this one; `None` at the end.
    next: Option<Cursor>,
    /// Records, one a line.
    lines: Bytes,
}

impl TailArgs {
    pub(super) async fn run(self, client: Client, output: Output) -> Result<(), CliError> {
        let client = client.retrying(self.retry_for);
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
            done = self.print(&client, |lines| self.show(output, lines)) => done,
        }
    }

    /// Prints what matches, until there is an end.
    async fn print(
        &self,
        client: &Client,
        print: impl FnMut(&[&[u8]]) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        if let Some(topic) = self.topic.as_topic() {
            return self.print_topic(client, &topic, print).await;
        }
        let from = match &self.from {
            Start::Earliest => "earliest",
            Start::Latest => "latest",
            Start::Time(time) => time,
            Start::Offset(_) => return Err(only_of_a_topic("an offset")),
        };
        if self.partition.is_some() {
            return Err(only_of_a_topic("`--partition`"));
        }
        if self.no_follow {
            return Err(only_of_a_topic("`--no-follow`"));
        }
        follow(client, (&self.topic, from), self.limit.unwrap_or(u64::MAX), print).await
    }

    /// Prints records: as served for scripts, else as [`human`] shows them.
    fn show(&self, output: Output, lines: &[&[u8]]) -> Result<(), CliError> {
        let names_topic = self.topic.as_topic().is_none();
        let mut text = Vec::new();
        for line in lines {
            if output.is_json() {
                text.extend_from_slice(line);
            } else {
                text.extend_from_slice(human(line, names_topic)?.as_bytes());
            }
            text.push(b'\n');
        }
        if !text.is_empty() {
            output.write(&text)?;
        }
        Ok(())
    }

    /// Reads until all cursors are at their end or the limit is reached.
    async fn print_topic(
        &self,
        client: &Client,
        topic: &TopicName,
        mut print: impl FnMut(&[&[u8]]) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let mut left = self.limit.unwrap_or(u64::MAX);
        let cursors = self.cursors(client, topic).await?;
        let mut reads: FuturesUnordered<_> =
            cursors.into_iter().map(|cursor| read(client, topic, cursor)).collect();
        while left > 0
            && let Some(page) = reads.next().await
        {
            let page = page?;
            let lines = page.lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let lines: Vec<&[u8]> =
                lines.take(usize::try_from(left).unwrap_or(usize::MAX)).collect();
            left = left.saturating_sub(lines.len() as u64);
            print(&lines)?;
            if let Some(next) = page.next {
                reads.push(read(client, topic, next));
            }
        }
        Ok(())
    }

    async fn cursors(&self, client: &Client, topic: &TopicName) -> Result<Vec<Cursor>, CliError> {
        let all = partitions(client, topic, self.partition).await?;
        if matches!(self.from, Start::Offset(_)) {
            of_one_partition(&all)?;
        }
        let cursor = |bounds| Cursor::new(bounds, &self.from, !self.no_follow);
        Ok(all.into_iter().map(cursor).collect())
    }
}

/// What the partitions of a topic hold, or the only one that is meant.
pub(super) async fn partitions(
    client: &Client,
    topic: &TopicName,
    only: Option<u32>,
) -> Result<Vec<Bounds>, CliError> {
    #[derive(Deserialize)]
    struct Answer {
        partitions: Vec<Bounds>,
    }

    let path = ["topics", topic.as_str(), "partitions"];
    let answer = client.fetch(|| client.json(client.request(Method::GET, &path))).await?;
    let Answer { mut partitions } = serde_json::from_value(answer)
        .map_err(|error| CliError::Answer { reason: error.to_string() })?;
    if let Some(only) = only {
        partitions.retain(|bounds| bounds.partition == only);
        if partitions.is_empty() {
            return Err(CliError::Usage(format!("topic `{topic}` has no partition {only}")));
        }
    }
    Ok(partitions)
}

/// Refuses an offset where several partitions are meant.
pub(super) fn of_one_partition(partitions: &[Bounds]) -> Result<(), CliError> {
    if partitions.len() > 1 {
        let problem = "an offset is one partition's: say which with `--partition`";
        return Err(CliError::Usage(problem.to_owned()));
    }
    Ok(())
}

async fn read(client: &Client, topic: &TopicName, cursor: Cursor) -> Result<Page, CliError> {
    let Cursor { partition, at, end } = cursor;
    let number = partition.to_string();
    let path = ["topics", topic.as_str(), "partitions", &number, "records"];
    let wait = if end.is_none() { WAIT } else { Duration::ZERO };
    let call = async || {
        let request = client
            .request(Method::GET, &path)
            .header(ACCEPT, "application/x-ndjson")
            .query(&[(at.0, at.1.as_str())])
            .query(&[("limit", READ_RECORDS_MAX), ("wait_ms", wait.as_secs() * 1000)]);
        let response = client.send(request).await?;
        let next = offset_in(response.headers(), "stream-next-offset")?;
        let lines = response.bytes().await.map_err(|error| client.no_answer(&error))?;
        Ok((next, lines))
    };
    let (next, lines) = client.fetch(call).await?;
    let is_at_end = end.is_some_and(|end| next >= end);
    let next = Cursor { partition, at: ("offset", next.to_string()), end };
    Ok(Page { next: (!is_at_end).then_some(next), lines })
}

/// The offset in a header of an answer.
pub(super) fn offset_in(headers: &HeaderMap, name: &str) -> Result<u64, CliError> {
    let offset = headers.get(name).and_then(|value| value.to_str().ok()?.parse().ok());
    offset.ok_or_else(|| CliError::Answer { reason: format!("expected an offset in `{name}`") })
}

fn only_of_a_topic(what: &str) -> CliError {
    CliError::Usage(format!("{what} is for one topic, not for a pattern"))
}

/// `partition:offset timestamp key value`, behind the topic if that is not plain.
pub(super) fn human(line: &[u8], names_topic: bool) -> Result<String, CliError> {
    #[derive(Deserialize)]
    struct Record<'a> {
        topic: &'a str,
        partition: u32,
        offset: u64,
        timestamp: &'a str,
        key: Option<Cow<'a, str>>,
        #[serde(borrow)]
        value: &'a RawValue,
    }

    let record: Record<'_> = serde_json::from_slice(line)
        .map_err(|error| CliError::Answer { reason: error.to_string() })?;
    // A key with control characters could write anywhere on a terminal.
    let key = record.key.map_or("-".to_owned(), |key| key.replace(char::is_control, " "));
    let Record { topic, partition, offset, timestamp, value, .. } = record;
    let topic = if names_topic { format!("{topic} ") } else { String::new() };
    Ok(format!("{topic}{partition}:{offset} {timestamp} {key} {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use crate::cli::client::tests::serve;
    use axum::extract::{Path, RawQuery};
    use axum::http::StatusCode;
    use axum::response::{IntoResponse, Response};
    use axum::routing::get;
    use clap::Parser;
    use serde_json::json;

    #[test]
    fn a_start_is_a_word_an_offset_or_a_time() {
        let time = |text: &str| Some(Start::Time(text.to_owned()));
        let cases = [
            ("earliest", Some(Start::Earliest)),
            ("latest", Some(Start::Latest)),
            ("0", Some(Start::Offset(0))),
            ("18446744073709551615", Some(Start::Offset(u64::MAX))),
            ("2026-01-02T03:04:05Z", time("2026-01-02T03:04:05.000Z")),
            ("2026-01-02T04:04:05+01:00", time("2026-01-02T03:04:05.000Z")),
            ("-1", None),
            ("18446744073709551616", None),
            ("2026-01-02", None),
            ("Earliest", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Start>().ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_cursor_starts_where_it_is_told() {
        let bounds = Bounds { partition: 1, start_offset: 3, end_offset: 9 };
        let cases = [
            (Start::Earliest, ("offset", "3")),
            (Start::Latest, ("offset", "9")),
            (Start::Offset(5), ("offset", "5")),
            (Start::Time("t".to_owned()), ("timestamp", "t")),
        ];
        for (from, (name, value)) in cases {
            let cursor = Cursor::new(bounds, &from, true);
            assert_eq!(cursor.at, (name, value.to_owned()), "{from:?}");
            assert_eq!(cursor.end, None);
            assert_eq!(Cursor::new(bounds, &from, false).end, Some(9));
        }
    }

    #[test]
    fn a_record_is_shown_on_a_line() {
        let start = r#"{"topic":"t","partition":2,"offset":7,"timestamp":"T""#;
        let cases = [
            (r#","key":"k","value":{ "a": 1.50 }}"#, r#"2:7 T k { "a": 1.50 }"#),
            (r#","value":"v"}"#, r#"2:7 T - "v""#),
            (r#","key":"\u001b[2J","value":null}"#, "2:7 T  [2J null"),
        ];
        for (rest, expected) in cases {
            let line = format!("{start}{rest}");
            assert_eq!(human(line.as_bytes(), false).unwrap(), expected);
            assert_eq!(human(line.as_bytes(), true).unwrap(), format!("t {expected}"));
        }
    }

    /// Two partitions with the offsets 2..5 and 0..1; two records in an answer.
    async fn records(
        Path((_, _, partition)): Path<(String, String, u32)>,
        query: RawQuery,
    ) -> Response {
        let query = query.0.unwrap();
        let mut at = query.strip_prefix("offset=").unwrap().split('&');
        let offset: u64 = at.next().unwrap().parse().unwrap();
        let end = if partition == 0 { 5 } else { 1 };
        if offset < 2 && partition == 0 {
            let error = json!({ "error": { "code": "offset-trimmed", "message": "m" } });
            return (StatusCode::GONE, axum::Json(error)).into_response();
        }
        let next = (offset + 2).min(end);
        let lines: String =
            (offset..next).map(|offset| format!("{partition}:{offset}\n")).collect();
        ([("stream-next-offset", next.to_string())], lines).into_response()
    }

    async fn tail(args: &[&str]) -> Result<Vec<String>, CliError> {
        let bounds = json!({ "partitions": [
            { "partition": 0, "start_offset": 2, "end_offset": 5 },
            { "partition": 1, "start_offset": 0, "end_offset": 1 },
        ]});
        let topic = "/projects/{project}/topics/{topic}/partitions";
        let router = axum::Router::new()
            .route(topic, get(|| async { axum::Json(bounds) }))
            .route(&format!("{topic}/{{partition}}/records"), get(records));
        let client = serve(router).await;
        let cli = Cli::try_parse_from(["stream", "tail", "t"].iter().chain(args)).unwrap();
        let crate::cli::Command::Tail(args) = cli.command else { panic!("{cli:?}") };
        let mut printed = Vec::new();
        args.print(&client, |lines| {
            printed.extend(lines.iter().map(|line| String::from_utf8(line.to_vec()).unwrap()));
            Ok(())
        })
        .await?;
        printed.sort();
        Ok(printed)
    }

    #[tokio::test]
    async fn all_partitions_are_read_to_their_ends() {
        let all = tail(&["--from", "earliest", "--no-follow"]).await.unwrap();
        assert_eq!(all, ["0:2", "0:3", "0:4", "1:0"]);
    }

    #[tokio::test]
    async fn a_limit_stops_a_tail_that_follows() {
        let some = tail(&["--from", "earliest", "--limit", "3", "--partition", "0"]).await.unwrap();
        assert_eq!(some, ["0:2", "0:3", "0:4"]);
        assert!(tail(&["--from", "earliest", "--limit", "0"]).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_an_error() {
        let cases: [(&[&str], u8); 3] = [
            (&["--from", "3"], 2),
            (&["--partition", "2"], 2),
            (&["--from", "1", "--partition", "0"], 1),
        ];
        for (args, code) in cases {
            assert_eq!(tail(args).await.unwrap_err().exit_code(), code, "{args:?}");
        }
    }
}
