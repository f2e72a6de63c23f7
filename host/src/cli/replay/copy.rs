//! Publishes records of a topic into another one.
//!
//! A replay is a member of a group of its own: each batch is published in one transaction with the
//! offset behind it. So the group's commits say how far the replay has come, whatever gets lost, and
//! whoever joins as the same member fences an earlier run that is still at work.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressDrawTarget};
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::range::{Part, Range};
use crate::cli::client::Client;
use crate::cli::output::{CliError, Output, cell, items, say, table};
use crate::cli::publish::hex;
use crate::cli::tail::offset_in;
use crate::name::TopicName;

/// Records and bytes of a batch: as many as `stream publish` sends at once.
const BATCH_RECORDS: u64 = 1_000;
const BATCH_BYTES: u64 = 4 << 20;
/// Partitions that are read and published side by side.
const PARTITIONS_AT_ONCE: usize = 8;
/// How long the server keeps a silent run's partitions for it; a repeat has them at once all the same.
const SESSION: Duration = Duration::from_secs(60);
/// What every run of a replay joins as.
const INSTANCE: &str = "replay";

/// A replay into another topic.
pub(super) struct Copy {
    pub(super) client: Client,
    pub(super) range: Range,
    pub(super) to: TopicName,
    pub(super) id: String,
}

/// A topic, as far as it matters here.
#[derive(Deserialize)]
struct Topic {
    partitions: u32,
    created_at: String,
}

/// The member that this run is.
#[derive(Deserialize)]
struct Member {
    member: String,
    assignment: Vec<Owned>,
}

#[derive(Clone, Copy, Deserialize)]
struct Owned {
    partition: u32,
    generation: u64,
}

/// A record as it is read, with all that it was published with; and the event that is made of it.
#[derive(Deserialize, Serialize)]
struct Record<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<u32>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    key: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    time: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    headers: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    encoding: Option<&'a RawValue>,
    #[serde(borrow)]
    value: &'a RawValue,
}

/// The body of a transaction.
#[derive(Serialize)]
struct Transaction<'a> {
    publish: [Publish<'a>; 1],
    offsets: Value,
}

#[derive(Serialize)]
struct Publish<'a> {
    topic: &'a str,
    events: &'a [Record<'a>],
}

/// A run that has begun.
struct Run<'a> {
    copy: &'a Copy,
    group: String,
    member: String,
    /// Partitions of the topic that is published into.
    partitions: u32,
    progress: ProgressBar,
    /// One partition has failed: the others stop too.
    has_failed: Cell<bool>,
}

/// What is left of one partition.
struct Lane {
    part: Part,
    generation: u64,
    /// Where an earlier run has ended, or the start.
    from: u64,
}

/// What became of one partition.
struct Done {
    part: Part,
    /// Events that earlier runs have published.
    before: u64,
    published: u64,
    outcome: Result<(), CliError>,
}

impl Copy {
    /// Publishes what is left of the range. What was published is told also if it did not all go well.
    pub(super) async fn run(self, output: Output) -> Result<(), CliError> {
        if self.to == self.range.topic {
            let problem =
                "a topic is not replayed into itself: `--group` lets a group read it again";
            return Err(CliError::Usage(problem.to_owned()));
        }
        let started = Instant::now();
        let parts = self.range.parts(&self.client).await?;
        let (from, to) = (self.topic(&self.range.topic).await?, self.topic(&self.to).await?);
        let group = self.group(&from, &to);
        match self.committed(&group).await {
            Err(error) if error.has_code("group-not-found") => {
                parts.iter().try_for_each(Part::check_start)?;
            }
            known => drop(known?),
        }
        // Said before anything is published: who is killed can go on with it.
        say(&format!("replay id {}\n", self.id));
        let Member { member, assignment } = self.join(&group).await?;
        let lanes = self.lanes(&group, parts, &assignment).await?;
        let left = lanes.iter().map(|lane| lane.part.end - lane.from).sum();
        let run = Run {
            copy: &self,
            group,
            member,
            partitions: to.partitions,
            progress: ProgressBar::with_draw_target(Some(left), ProgressDrawTarget::stderr()),
            has_failed: Cell::new(false),
        };
        let done = stream::iter(lanes).map(|lane| run.publish_all(lane));
        let mut done: Vec<Done> = done.buffer_unordered(PARTITIONS_AT_ONCE).collect().await;
        run.progress.finish_and_clear();
        run.leave().await;
        done.sort_by_key(|done| done.part.partition);
        output.show(&self.summary(&done, started.elapsed()), human)?;
        done.into_iter().try_for_each(|done| done.outcome)
    }

    /// The group of this replay. Its name says all that must be the same for a repeat to mean the same
    /// records: topics are told from earlier ones of their names by when they were made.
    fn group(&self, from: &Topic, to: &Topic) -> String {
        let Self { range, to: name, id, .. } = self;
        let same = format!(
            "{}\n{}\n{name}\n{}\n{:?}\n{:?}\n{:?}",
            range.topic, from.created_at, to.created_at, range.partition, range.start, range.end
        );
        let digest = hex(&Sha256::digest(same));
        let short: String = digest.chars().take(16).collect();
        format!("replay-{id}-{short}")
    }

    async fn topic(&self, name: &TopicName) -> Result<Topic, CliError> {
        let path = ["topics", name.as_str()];
        let call = || self.client.json(self.client.request(Method::GET, &path));
        read(self.client.fetch(call).await?)
    }

    /// Joins, which fences an earlier run.
    async fn join(&self, group: &str) -> Result<Member, CliError> {
        let body = json!({
            "subscriptions": [self.range.topic.as_str()],
            "instance_id": INSTANCE,
            "session_timeout_ms": SESSION.as_secs() * 1_000,
        });
        let path = ["groups", group, "members"];
        let call = || self.client.json(self.client.request(Method::POST, &path).json(&body));
        read(self.client.fetch(call).await?)
    }

    /// What is left of each part: once this run has joined, no other one commits.
    async fn lanes(
        &self,
        group: &str,
        parts: Vec<Part>,
        owned: &[Owned],
    ) -> Result<Vec<Lane>, CliError> {
        let committed = self.committed(group).await?;
        let lane = |part: Part| {
            let owned = owned.iter().find(|owned| owned.partition == part.partition);
            let reason = format!("partition {} was not assigned to this run", part.partition);
            let generation = owned.ok_or(CliError::Answer { reason })?.generation;
            let from = part.resume(committed.get(&part.partition).copied());
            Ok(Lane { part, generation, from })
        };
        parts.into_iter().map(lane).collect()
    }

    /// How far earlier runs have come, by partition.
    async fn committed(&self, group: &str) -> Result<BTreeMap<u32, u64>, CliError> {
        #[derive(Deserialize)]
        struct Group {
            partitions: Vec<Place>,
        }

        #[derive(Deserialize)]
        struct Place {
            partition: u32,
            committed: Option<u64>,
        }

        let path = ["groups", group];
        let call = || self.client.json(self.client.request(Method::GET, &path));
        let Group { partitions } = read(self.client.fetch(call).await?)?;
        let places = partitions.into_iter();
        Ok(places.filter_map(|place| Some((place.partition, place.committed?))).collect())
    }

    fn summary(&self, done: &[Done], elapsed: Duration) -> Value {
        let published: u64 = done.iter().map(|done| done.published).sum();
        let seconds = elapsed.as_secs_f64();
        let partition = |done: &Done| {
            json!({
                "partition": done.part.partition,
                "start": done.part.start,
                "end": done.part.end,
                "published": done.published,
                "before": done.before,
            })
        };
        json!({
            "replay_id": self.id,
            "published": published,
            "before": done.iter().map(|done| done.before).sum::<u64>(),
            "seconds": seconds,
            "events_per_second": published as f64 / seconds.max(f64::MIN_POSITIVE),
            "partitions": done.iter().map(partition).collect::<Vec<_>>(),
        })
    }
}

impl Run<'_> {
    async fn publish_all(&self, lane: Lane) -> Done {
        let Lane { part, from, .. } = lane;
        let mut next = from;
        let outcome = self.publish(&lane, &mut next).await;
        if outcome.is_err() {
            self.has_failed.set(true);
            say(&format!("partition {}: stopped at offset {next}\n", part.partition));
        }
        Done { part, before: from.saturating_sub(part.start), published: next - from, outcome }
    }

    /// Publishes batch after batch; all before `next` is published.
    async fn publish(&self, lane: &Lane, next: &mut u64) -> Result<(), CliError> {
        while *next < lane.part.end && !self.has_failed.get() {
            let (lines, end) = self.read(lane, *next).await?;
            if end <= *next {
                let reason = format!("expected records from offset {next} on");
                return Err(CliError::Answer { reason });
            }
            self.transact(lane, &lines, *next, end).await?;
            self.progress.inc(end - *next);
            *next = end;
        }
        Ok(())
    }

    /// Records from an offset on, one a line, and the offset behind them.
    async fn read(&self, lane: &Lane, offset: u64) -> Result<(Bytes, u64), CliError> {
        let client = &self.copy.client;
        let number = lane.part.partition.to_string();
        let path = ["topics", self.copy.range.topic.as_str(), "partitions", &number, "records"];
        let call = async || {
            let request =
                client.request(Method::GET, &path).header(ACCEPT, "application/x-ndjson").query(&[
                    ("offset", offset),
                    ("end_offset", lane.part.end),
                    ("limit", BATCH_RECORDS),
                    ("max_bytes", BATCH_BYTES),
                ]);
            let response = client.send(request).await?;
            let next = offset_in(response.headers(), "stream-next-offset")?;
            let lines = response.bytes().await.map_err(|error| client.no_answer(&error))?;
            Ok((lines, next))
        };
        client.fetch(call).await
    }

    /// Publishes a batch and commits the offset behind it, together.
    async fn transact(
        &self,
        lane: &Lane,
        lines: &[u8],
        start: u64,
        end: u64,
    ) -> Result<(), CliError> {
        let Copy { client, range, to, .. } = self.copy;
        let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let events: Result<Vec<Record<'_>>, _> = lines.map(|line| self.event(line)).collect();
        let transaction = Transaction {
            publish: [Publish { topic: to.as_str(), events: &events? }],
            offsets: json!({ "group": self.group, "member": self.member, "partitions": [{
                "topic": range.topic.as_str(),
                "partition": lane.part.partition,
                "generation": lane.generation,
                "next_offset": end,
            }] }),
        };
        let body = Bytes::from(serde_json::to_vec(&transaction).map_err(not_understood)?);
        // A batch whose answer got lost is answered as it was, not refused as committed before.
        let once = format!("{}/{}/{start}", self.member, lane.part.partition);
        let call = || {
            let request = client
                .request(Method::POST, &["transactions"])
                .header(CONTENT_TYPE, "application/json")
                .header("idempotency-key", &once)
                .body(body.clone());
            client.json(request)
        };
        client.fetch(call).await.map(drop)
    }

    /// The event that a record is published as. Its key says where it goes; without one it stays with
    /// those of its partition.
    fn event<'l>(&self, line: &'l [u8]) -> Result<Record<'l>, CliError> {
        let mut record: Record<'l> = serde_json::from_slice(line).map_err(not_understood)?;
        let is_free = record.key.is_none();
        record.partition = record.partition.filter(|_| is_free);
        record.partition = record.partition.map(|partition| partition % self.partitions.max(1));
        Ok(record)
    }

    /// Lets go of the partitions. If that fails, the session ends by itself.
    async fn leave(&self) {
        let path = ["groups", self.group.as_str(), "members", self.member.as_str()];
        let client = &self.copy.client;
        let _ = client.send(client.request(Method::DELETE, &path)).await;
    }
}

fn read<T: DeserializeOwned>(answer: Value) -> Result<T, CliError> {
    serde_json::from_value(answer).map_err(not_understood)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
fn not_understood(error: serde_json::Error) -> CliError {
    CliError::Answer { reason: error.to_string() }
}

fn human(summary: &Value) -> String {
    let row =
        |part| ["partition", "start", "end", "published", "before"].map(|field| cell(part, field));
    let rows: Vec<_> = items(summary, "partitions").iter().map(row).collect();
    let parts = table(["PARTITION", "START", "END", "PUBLISHED", "PUBLISHED BEFORE"], &rows);
    let [published, seconds, rate, id] = ["published", "seconds", "events_per_second", "replay_id"]
        .map(|field| cell(summary, field));
    format!(
        "{parts}\n{published} events published in {seconds} s, {rate} a second; replay id {id}\n"
    )
}
