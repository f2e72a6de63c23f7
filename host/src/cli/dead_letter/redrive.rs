//! `stream dead-letter redrive`: events of dead letters are published again to their topics.
//!
//! Each is a request of its own, with a key made of the letter's place: as long as the server
//! remembers that, a repeat stores nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use stream_storage::Timestamp;

use super::{Place, queue_of};
use crate::cli::client::Client;
use crate::cli::output::{CliError, Output, cell, items, table};
use crate::cli::tail::offset_in;
use crate::name::TopicName;
use crate::publish::DEAD_LETTER;
use crate::timestamp;

/// Letters read at once.
const PAGE: u64 = 500;

/// How long a server that is busy or starts anew is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who gives events up.
const KINDS: [&str; 4] = ["plugin", "route", "group", "queue"];

/// Publish events of dead letters again to their topics
///
/// All that reads a topic gets the event, whoever has given it up. The same command again publishes
/// nothing twice within 24 hours. Requests and jobs of queues are not published: it says how these are
/// tried again.
#[derive(Debug, Args)]
pub(super) struct Redrive {
    /// Only these letters, as `list` shows them; all unless given
    #[arg(value_name = "PARTITION:OFFSET", value_parser = Place::parse)]
    places: Vec<Place>,

    /// Only events of this topic
    #[arg(long, value_name = "TOPIC", value_parser = TopicName::parse)]
    topic: Option<TopicName>,

    /// Only what this kind has given up
    #[arg(long, value_parser = PossibleValuesParser::new(KINDS))]
    kind: Option<String>,

    /// Only letters of this time or later, such as `2026-01-02T03:04:05Z`
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Timestamp>,

    /// Publish nothing, say what would be
    #[arg(long)]
    dry_run: bool,
}

fn parse_time(text: &str) -> Result<Timestamp, &'static str> {
    timestamp::parse(text).map_err(|_| "expected a time such as `2026-01-02T03:04:05Z`")
}

/// A letter as it is stored.
#[derive(Deserialize)]
struct Letter<'a> {
    kind: &'a str,
    topic: Option<&'a str>,
    partition: Option<u32>,
    offset: Option<u64>,
    queue: Option<&'a str>,
    #[serde(borrow)]
    event: Event<'a>,
}

/// An event as a letter keeps it, or as a record is read; and as it is published.
#[derive(Deserialize, Serialize)]
struct Event<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    key: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    time: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    headers: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "whatever")]
    value: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<u32>,
    #[serde(borrow, skip_serializing)]
    value_base64: Option<&'a RawValue>,
    #[serde(default, skip_serializing)]
    value_omitted: bool,
}

/// A value may be `null`.
fn whatever<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

impl Event<'_> {
    /// The line that is published. Without a key it stays in its partition.
    fn line(mut self, partition: Option<u32>) -> Result<Vec<u8>, CliError> {
        self.partition = partition.filter(|_| self.key.is_none());
        if let Some(text) = self.value_base64 {
            (self.value, self.encoding) = (Some(text), Some("base64"));
        }
        serde_json::to_vec(&self).map_err(|error| not_understood(&error))
    }
}

/// What became of the events of a topic.
#[derive(Default, Serialize)]
struct Counts {
    published: u64,
    duplicates: u64,
    dead_lettered: u64,
    dropped: u64,
}

/// What was done.
#[derive(Default)]
struct Done {
    topics: BTreeMap<String, Counts>,
    /// Letters of queues, by queue.
    queues: BTreeMap<String, u64>,
    /// What was not published, and why.
    failed: Vec<Value>,
    first: Option<CliError>,
}

impl Redrive {
    pub(super) async fn run(self, client: Client, output: Output) -> Result<(), CliError> {
        let client = client.retrying(PATIENCE);
        let mut done = Done::default();
        let path = ["topics", DEAD_LETTER, "partitions"];
        let partitions = match client.json(client.request(Method::GET, &path)).await {
            Err(error) if error.has_code("topic-not-found") => Value::Null,
            answer => answer?,
        };
        for partition in items(&partitions, "partitions") {
            let number = partition.get("partition").and_then(Value::as_u64).unwrap_or_default();
            let is_named = |place: &Place| u64::from(place.partition) == number;
            if self.places.is_empty() || self.places.iter().any(is_named) {
                self.partition(&client, number, &mut done).await?;
            }
        }
        output.show(&done.told(), |told| human(told, self.dry_run))?;
        done.first.map_or(Ok(()), Err)
    }

    /// Goes through the letters of a partition that are there now.
    async fn partition(
        &self,
        client: &Client,
        partition: u64,
        done: &mut Done,
    ) -> Result<(), CliError> {
        let number = partition.to_string();
        let path = ["topics", DEAD_LETTER, "partitions", number.as_str(), "records"];
        let since = timestamp::format(self.since.unwrap_or(Timestamp(0)));
        let (mut at, mut end) = (("timestamp", since), None);
        loop {
            let response = client
                .fetch(|| {
                    let limit = PAGE.to_string();
                    let query = [(at.0, at.1.as_str()), ("limit", limit.as_str())];
                    let request = client.request(Method::GET, &path).query(&query);
                    client.send(request.header(ACCEPT, "application/x-ndjson"))
                })
                .await?;
            let next = offset_in(response.headers(), "stream-next-offset")?;
            // What is given up meanwhile, perhaps because of this, is left for another time.
            let end = *end.get_or_insert(offset_in(response.headers(), "stream-end-offset")?);
            let lines = response.text().await.map_err(|error| client.no_answer(&error))?;
            for line in lines.lines() {
                self.record(client, line, end, done).await?;
            }
            let before = std::mem::replace(&mut at, ("offset", next.to_string()));
            if next >= end || before == at {
                return Ok(());
            }
        }
    }

    async fn record(
        &self,
        client: &Client,
        line: &str,
        end: u64,
        done: &mut Done,
    ) -> Result<(), CliError> {
        #[derive(Deserialize)]
        struct Record<'a> {
            partition: u32,
            offset: u64,
            #[serde(borrow)]
            value: &'a RawValue,
        }
        let record: Record<'_> =
            serde_json::from_str(line).map_err(|error| not_understood(&error))?;
        let place = Place { partition: record.partition, offset: record.offset };
        if place.offset >= end || !(self.places.is_empty() || self.places.contains(&place)) {
            return Ok(());
        }
        let letter: Letter<'_> = match serde_json::from_str(record.value.get()) {
            Ok(letter) => letter,
            // Only a server writes there, perhaps one of another version.
            Err(error) => {
                done.fail(place, None, not_understood(&error));
                return Ok(());
            }
        };
        if !self.is_meant(&letter) {
            return Ok(());
        }
        let Some(topic) = letter.topic.filter(|_| letter.kind != "queue") else {
            *done.queues.entry(letter.queue.unwrap_or("-").to_owned()).or_default() += 1;
            return Ok(());
        };
        if self.dry_run {
            done.topics.entry(topic.to_owned()).or_default().published += 1;
            return Ok(());
        }
        match publish(client, place, topic, letter).await {
            Ok(answer) => done.count(topic, &answer),
            Err(error) if is_of_one(&error) => done.fail(place, Some(topic), error),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn is_meant(&self, letter: &Letter<'_>) -> bool {
        let topic = self.topic.as_ref().map(TopicName::as_str);
        topic.is_none_or(|topic| letter.topic == Some(topic))
            && self.kind.as_deref().is_none_or(|kind| letter.kind == kind)
    }
}

/// Whether others may pass: a topic is gone, an event is refused still, a plugin breaks on it.
fn is_of_one(error: &CliError) -> bool {
    matches!(error.status(), Some(400 | 404 | 409 | 410 | 413 | 416 | 422 | 502))
}

/// Publishes the event of a letter.
async fn publish(
    client: &Client,
    place: Place,
    topic: &str,
    letter: Letter<'_>,
) -> Result<Value, CliError> {
    let line = match letter.partition.zip(letter.offset) {
        Some(at) if letter.event.value_omitted => stored(client, topic, at).await?,
        _ => letter.event.line(letter.partition)?,
    };
    let key = format!("dead-letter-{}-{}", place.partition, place.offset);
    let call = || {
        let request = client.request(Method::POST, &["topics", topic, "events"]);
        let request = request.header(CONTENT_TYPE, "application/x-ndjson");
        client.json(request.header("idempotency-key", &key).body(line.clone()))
    };
    client.fetch(call).await
}

/// The event of a record that is too large for a letter, as it lies in its topic.
async fn stored(
    client: &Client,
    topic: &str,
    (partition, offset): (u32, u64),
) -> Result<Vec<u8>, CliError> {
    let number = partition.to_string();
    let path = ["topics", topic, "partitions", number.as_str(), "records"];
    let request = client.request(Method::GET, &path).header(ACCEPT, "application/x-ndjson");
    let response = client.send(request.query(&[("offset", offset), ("limit", 1)])).await?;
    let line = response.text().await.map_err(|error| client.no_answer(&error))?;
    let event: Event<'_> = serde_json::from_str(&line).map_err(|error| not_understood(&error))?;
    event.line(Some(partition))
}

fn not_understood(error: &serde_json::Error) -> CliError {
    CliError::Answer { reason: error.to_string() }
}

impl Done {
    fn count(&mut self, topic: &str, answer: &Value) {
        let counts = self.topics.entry(topic.to_owned()).or_default();
        let number = |field| answer.get(field).and_then(Value::as_u64).unwrap_or_default();
        if answer.get("duplicate") == Some(&Value::Bool(true)) {
            counts.duplicates += 1;
        } else if items(answer, "dead_lettered").is_empty() {
            counts.published += number("count");
            counts.dropped += number("dropped");
        } else {
            counts.dead_lettered += 1;
        }
    }

    fn fail(&mut self, place: Place, topic: Option<&str>, error: CliError) {
        self.failed.push(json!({
            "partition": place.partition,
            "offset": place.offset,
            "topic": topic,
            "reason": error.to_string(),
        }));
        self.first.get_or_insert(error);
    }

    fn told(&self) -> Value {
        let topic = |(topic, counts): (&String, &Counts)| {
            let mut told = json!(counts);
            if let Some(told) = told.as_object_mut() {
                told.insert("topic".to_owned(), topic.as_str().into());
            }
            told
        };
        let queue = |(queue, letters): (&String, &u64)| json!({ "queue": queue, "letters": letters, "redrive": queue_of(queue).1 });
        json!({
            "topics": self.topics.iter().map(topic).collect::<Vec<_>>(),
            "queues": self.queues.iter().map(queue).collect::<Vec<_>>(),
            "failed": self.failed,
        })
    }
}

fn human(told: &Value, is_dry: bool) -> String {
    let mut text = String::new();
    let topics = items(told, "topics");
    if topics.is_empty() && items(told, "queues").is_empty() && items(told, "failed").is_empty() {
        return "there are no such dead letters\n".to_owned();
    }
    if is_dry && !topics.is_empty() {
        let row = |topic| [cell(topic, "topic"), cell(topic, "published")];
        let rows: Vec<_> = topics.iter().map(row).collect();
        text.push_str(&table(["TOPIC", "WOULD BE PUBLISHED"], &rows));
    } else if !topics.is_empty() {
        let row = |topic| {
            ["topic", "published", "duplicates", "dead_lettered", "dropped"]
                .map(|field| cell(topic, field))
        };
        let rows: Vec<_> = topics.iter().map(row).collect();
        let titles = ["TOPIC", "PUBLISHED", "PUBLISHED BEFORE", "DEAD AGAIN", "DROPPED"];
        text.push_str(&table(titles, &rows));
    }
    for failed in items(told, "failed") {
        let [partition, offset, topic, reason] =
            ["partition", "offset", "topic", "reason"].map(|field| cell(failed, field));
        text.push_str(&format!("not published: {partition}:{offset} to {topic}: {reason}\n"));
    }
    for queue in items(told, "queues") {
        let [letters, command] = ["letters", "redrive"].map(|field| cell(queue, field));
        let (who, _) = queue_of(&cell(queue, "queue"));
        text.push_str(&format!("not events: {letters} of {who}; `{command}` tries them again\n"));
    }
    text
}
