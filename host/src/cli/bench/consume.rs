//! `stream bench consume`: how fast what is stored is read again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Told;
use super::figures::{Measured, Times};
use super::load::{self, End, Plan, Shot, Turn};
use super::payload::{self, Body, Shape};
use super::progress::{self, Progress};
use super::publish::pick;
use super::site::{Place, Site};
use super::wire::{Endpoint, NDJSON};
use crate::cli::output::CliError;

/// What the server reads at most at once.
const RECORDS: usize = 10_000;

/// Read what is stored, from its start to its end
///
/// Publishes the events first, which is not counted.
#[derive(Debug, Clone, Args)]
pub(super) struct ConsumeBench {
    /// Events to read
    #[arg(long, value_name = "N", default_value_t = 4_000_000)]
    pub(super) events: u64,

    /// Partitions that they lie in
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(super) partitions: u32,

    /// Bytes of each event's value
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    pub(super) size: usize,

    /// Groups, each of which reads all
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) groups: usize,

    /// Connections of each group, which share the partitions
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(super) connections: usize,

    /// Bytes of records in an answer
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    pub(super) page: usize,

    /// How answers are written
    #[arg(long, value_name = "FORMAT", default_value = "ndjson", value_parser = ["ndjson", "json"])]
    pub(super) format: String,
}

impl ConsumeBench {
    /// So many events, otherwise as it is unless told.
    pub(super) fn of(events: u64) -> Self {
        Self {
            events,
            partitions: 8,
            size: 256,
            groups: 1,
            connections: 2,
            page: 1 << 20,
            format: "ndjson".to_owned(),
        }
    }

    pub(super) async fn run(self, place: &Place) -> Result<Told, CliError> {
        if self.groups == 0 || self.connections == 0 || self.events == 0 {
            let problem = "`--events`, `--groups` and `--connections` are at least 1";
            return Err(CliError::Usage(problem.to_owned()));
        }
        let measured = place.with(async |site| {
            let topic = self.fill(site).await?;
            Ok((self.measure(site, &topic).await?, site.memory()))
        });
        let (measured, memory) = measured.await?;
        let told = measured.json_with(memory);
        Ok(Told { figures: json!({ "consume": told }), text: measured.human() })
    }

    /// Publishes what is to be read.
    pub(super) async fn fill(&self, site: &Site) -> Result<String, CliError> {
        let topic = site.topic("consume", self.partitions, &[]).await?;
        let shape = Shape { size: self.size, keys: 1_000, batch: 1_000, seed: 1 };
        fill(site, &topic, self.events, &shape).await?;
        Ok(topic)
    }

    /// Reads the whole topic, as each group does.
    pub(super) async fn measure(&self, site: &Site, topic: &str) -> Result<Measured, CliError> {
        let read = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        let started = Instant::now();
        for _ in 0..self.groups {
            for connection in 0..self.connections {
                let reader = Reading {
                    endpoint: site.endpoint.clone(),
                    topic: topic.to_owned(),
                    partitions: (0..self.partitions)
                        .skip(connection)
                        .step_by(self.connections)
                        .collect(),
                    page: self.page,
                    lines: self.format == "ndjson",
                    read: Arc::clone(&read),
                };
                tasks.spawn(reader.run());
            }
        }
        let progress = Progress::new("consume");
        let mut shown = tokio::time::interval(progress::INTERVAL);
        let mut measured = Measured::default();
        while !tasks.is_empty() {
            tokio::select! {
                ended = tasks.join_next() => match ended {
                    None => break,
                    Some(Ok(ended)) => measured.merge(&ended?),
                    Some(Err(panic)) => return Err(std::io::Error::other(panic).into()),
                },
                _ = shown.tick() => progress.show(read.load(Ordering::Relaxed), started.elapsed()),
            }
        }
        progress.clear();
        measured.span = started.elapsed();
        let expected = self.events * self.groups as u64;
        if measured.events != expected {
            let reason = format!("{expected} events are stored, {} were read", measured.events);
            return Err(CliError::Answer { reason });
        }
        Ok(measured)
    }
}

/// Publishes so many events on some connections at once.
pub(super) async fn fill(
    site: &Site,
    topic: &str,
    events: u64,
    shape: &Shape,
) -> Result<(), CliError> {
    let bodies: Arc<[Body]> = payload::made(shape).into();
    let rest = payload::made(&Shape { batch: 1, ..shape.clone() });
    let plan = Plan {
        connections: 8,
        warm_up: Duration::ZERO,
        end: End::Requests(events / shape.batch as u64),
        rate: None,
    };
    let post = site.endpoint.post(&format!("/topics/{topic}/events"), NDJSON);
    let of_shots = post.clone();
    let shot = move |turn: Turn| {
        let body = pick(&bodies, turn.number);
        let request = of_shots.with(body.lines.clone());
        Shot { request, events: body.events, bytes: body.value_bytes }
    };
    load::run(&site.endpoint, &plan, &Progress::new("fill"), shot).await?;
    let mut wire = site.endpoint.connect().await?;
    for _ in 0..events % shape.batch as u64 {
        wire.insist(&post.with(pick(&rest, 0).lines.clone())).await?;
    }
    Ok(())
}

/// What one connection reads.
struct Reading {
    endpoint: Endpoint,
    topic: String,
    partitions: Vec<u32>,
    page: usize,
    lines: bool,
    read: Arc<AtomicU64>,
}

impl Reading {
    async fn run(self) -> Result<Measured, CliError> {
        let mut wire = self.endpoint.connect().await?;
        let mut measured = Measured { times: Times::default(), ..Measured::default() };
        for partition in &self.partitions {
            let mut offset = 0;
            loop {
                let path = format!(
                    "/topics/{}/partitions/{partition}/records?offset={offset}&limit={RECORDS}&max_bytes={}",
                    self.topic, self.page
                );
                let started = Instant::now();
                let request = self.endpoint.get(&path, self.lines.then_some(NDJSON));
                let (answer, refusals) = wire.insist(&request).await?;
                measured.refusals += refusals;
                measured.requests += 1;
                measured.times.record(started.elapsed());
                measured.bytes += answer.body.len() as u64;
                let next = match answer.next_offset {
                    Some(next) => next,
                    None => next_of(&answer.body)?,
                };
                if self.lines {
                    let lines = count_lines(&answer.body);
                    if lines != next - offset {
                        let reason = format!("{lines} records came, of {offset}..{next}");
                        return Err(CliError::Answer { reason });
                    }
                }
                if next == offset {
                    break;
                }
                measured.events += next - offset;
                self.read.fetch_add(next - offset, Ordering::Relaxed);
                offset = next;
            }
        }
        Ok(measured)
    }
}

fn count_lines(body: &[u8]) -> u64 {
    let count = |chunk: &[u8]| chunk.iter().map(|byte| u8::from(*byte == b'\n')).sum::<u8>();
    body.chunks(usize::from(u8::MAX)).map(|chunk| u64::from(count(chunk))).sum()
}

/// `next_offset`, which stands behind the records.
fn next_of(body: &[u8]) -> Result<u64, CliError> {
    const NAME: &[u8] = b"\"next_offset\":";
    let tail = body.get(body.len().saturating_sub(200)..).unwrap_or_default();
    let at = tail.windows(NAME.len()).rposition(|window| window == NAME);
    let digits = at.and_then(|at| tail.get(at + NAME.len()..)).unwrap_or_default();
    let digits: String = digits
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .map(|byte| char::from(*byte))
        .collect();
    let missing = || CliError::Answer { reason: "no `next_offset`".to_owned() };
    digits.parse().map_err(|_| missing())
}

/// How long the first page of each partition takes.
pub(super) async fn first_pages(
    site: &Site,
    topic: &str,
    partitions: u32,
    records: usize,
) -> Result<Times, CliError> {
    let mut wire = site.endpoint.connect().await?;
    let mut times = Times::default();
    for partition in 0..partitions {
        for _ in 0..10 {
            let path =
                format!("/topics/{topic}/partitions/{partition}/records?offset=0&limit={records}");
            let started = Instant::now();
            wire.insist(&site.endpoint.get(&path, Some(NDJSON))).await?;
            times.record(started.elapsed());
        }
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_in_long_bodies_too() {
        let body = "ab\n".repeat(1_000);
        assert_eq!(count_lines(body.as_bytes()), 1_000);
        assert_eq!(count_lines(&[b'\n'; 700]), 700);
    }

    #[test]
    fn the_next_offset_is_found_behind_the_records() {
        let body = br#"{"records":[{"value":{"next_offset":1}}],"next_offset":27,"end_offset":30}"#;
        assert!(next_of(b"{}").is_err());
        assert_eq!(next_of(br#"{"records":[],"next_offset":27,"x":1}"#).unwrap(), 27);
        assert_eq!(next_of(body).unwrap(), 27);
    }
}
