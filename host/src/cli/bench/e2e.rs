//! `stream bench e2e`: how soon an event that is published reaches who waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use reqwest::{Method, Response};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Told;
use super::figures::{Times, human};
use super::load::{self, End, Plan, Shot, Turn};
use super::own_server::sync_alone;
use super::progress::Progress;
use super::site::{Place, Site};
use super::wire::{Endpoint, NDJSON};
use crate::cli::client::root_cause;
use crate::cli::output::CliError;

/// How long consumers may take for what is left when the last event is acknowledged.
const PATIENCE: Duration = Duration::from_secs(10);

/// Publish at a fixed rate, and tell how soon events reach consumers that wait
///
/// Events are due at fixed times, whether or not those before are answered; what counts is the time
/// from when an event was due until a consumer has it, so that a stall shows in all that it delays.
#[derive(Debug, Clone, Args)]
pub(super) struct E2eBench {
    /// Events a second
    #[arg(long, value_name = "N", default_value_t = 10_000.0)]
    pub(super) rate: f64,

    /// Events in a request
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) batch: u32,

    /// Connections that publish
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(super) connections: usize,

    /// Partitions of the topic
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) partitions: u32,

    /// Bytes of each event's value
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    pub(super) size: usize,

    /// How long to measure
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(super) duration: Duration,

    /// How long to send before it counts
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    pub(super) warm_up: Duration,
}

/// What came of it.
pub(super) struct Latencies {
    pub(super) sse: Times,
    pub(super) long_poll: Times,
    pub(super) acknowledged: Times,
    /// A sync while nothing else goes on.
    pub(super) sync: Option<Times>,
}

impl E2eBench {
    pub(super) async fn run(self, place: &Place) -> Result<Told, CliError> {
        if self.batch == 0 || self.connections == 0 {
            let problem = "`--batch` and `--connections` are at least 1";
            return Err(CliError::Usage(problem.to_owned()));
        }
        load::check_rate(self.rate, f64::from(self.batch))?;
        let latencies = place.with(async |site| self.measure(site).await).await?;
        let Latencies { sse, long_poll, acknowledged, sync } = &latencies;
        let sync_line = sync.as_ref().map(|sync| format!("\n  a sync alone  {}", human(sync)));
        let text = format!(
            "at {} events/s, from when each was due\n  acknowledged  {}\n  SSE           {}\n  long-poll     {}{}",
            self.rate,
            human(acknowledged),
            human(sse),
            human(long_poll),
            sync_line.unwrap_or_default(),
        );
        let figures = json!({
            "e2e": {
                "rate": self.rate,
                "sse_ms": sse.json(),
                "long_poll_ms": long_poll.json(),
                "acknowledged_ms": acknowledged.json(),
                "sync_alone_ms": sync.as_ref().map(Times::json),
            },
        });
        Ok(Told { figures, text })
    }

    pub(super) async fn measure(&self, site: &Site) -> Result<Latencies, CliError> {
        let sync = match &site.server {
            Some(server) => Some(sync_alone(server.data())?),
            None => None,
        };
        let topic = site.topic("e2e", self.partitions, &[]).await?;
        let post = site.endpoint.post(&format!("/topics/{topic}/events"), NDJSON);
        let (batch, size) = (self.batch, self.size);
        let sent = Arc::new(AtomicU64::new(0));
        let of_shots = Arc::clone(&sent);
        let shot = move |turn: Turn| {
            of_shots.fetch_add(u64::from(batch), Ordering::Relaxed);
            let lines = lines(turn.due, batch, size);
            let (events, bytes) = (u64::from(batch), lines.len() as u64);
            Shot { request: post.with(lines), events, bytes }
        };
        let plan = Plan {
            connections: self.connections,
            warm_up: self.warm_up,
            end: End::After(self.duration),
            rate: Some(self.rate / f64::from(self.batch)),
        };
        // All that is published is counted before the consumers stop.
        let (total, ended) = watch::channel(None);
        let (starting, start) = watch::channel(None::<Instant>);
        let taken = || Taken {
            started: start.clone(),
            warm_up: self.warm_up,
            times: Times::default(),
            count: 0,
            total: ended.clone(),
        };
        let subscribe = site.client.request(Method::GET, &["subscribe"]);
        let subscribe = subscribe.query(&[("pattern", &*topic), ("from", "earliest")]);
        let live = tokio::spawn(take_stream(site.client.send(subscribe).await?, taken()));
        let polls = tokio::spawn(poll(site.endpoint.clone(), topic.clone(), taken()));
        let on_start = move |started| {
            starting.send_replace(Some(started));
        };
        let progress = Progress::new("e2e");
        let measured = load::run_from(&site.endpoint, &plan, &progress, (shot, on_start)).await?;
        total.send_replace(Some(sent.load(Ordering::Relaxed)));
        let (sse, long_poll) = (wait(live, "SSE").await?, wait(polls, "long-poll").await?);
        Ok(Latencies { sse, long_poll, acknowledged: measured.times, sync })
    }
}

async fn wait(
    consumer: JoinHandle<Result<Times, CliError>>,
    what: &str,
) -> Result<Times, CliError> {
    match tokio::time::timeout(PATIENCE, consumer).await {
        Ok(Ok(times)) => times,
        Ok(Err(panic)) => Err(std::io::Error::other(panic).into()),
        Err(_) => {
            let reason = format!("{what}: not all events came within {PATIENCE:?}");
            Err(CliError::Answer { reason })
        }
    }
}

/// Events that say when they were due, in microseconds from the start.
fn lines(due: Duration, batch: u32, size: usize) -> Bytes {
    let head = format!("{{\"value\":{{\"due\":{},\"text\":\"", due.as_micros());
    let padding = (size + "{\"value\":".len()).saturating_sub(head.len() + 2);
    let mut lines = String::with_capacity((size + 16) * batch as usize);
    for _ in 0..batch {
        lines.push_str(&head);
        lines.extend(std::iter::repeat_n('=', padding));
        lines.push_str("\"}}\n");
    }
    lines.into()
}

/// What a consumer has got.
struct Taken {
    /// When the schedule began.
    started: watch::Receiver<Option<Instant>>,
    warm_up: Duration,
    times: Times,
    count: u64,
    /// How many events there are in all, once that is known.
    total: watch::Receiver<Option<u64>>,
}

impl Taken {
    /// Takes all events that `text` holds.
    fn take(&mut self, text: &[u8]) {
        let Some(started) = *self.started.borrow() else { return };
        let now = started.elapsed();
        for due in dues(text) {
            self.count += 1;
            if due >= self.warm_up {
                self.times.record(now.saturating_sub(due));
            }
        }
    }

    fn has_all(&self) -> bool {
        *self.total.borrow() == Some(self.count)
    }
}

/// The times that events in `text` say.
fn dues(text: &[u8]) -> impl Iterator<Item = Duration> {
    const NAME: &[u8] = b"{\"due\":";
    let mut rest = text;
    std::iter::from_fn(move || {
        let at = memchr::memmem::find(rest, NAME)?;
        rest = rest.get(at + NAME.len()..)?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
        let micros = digits.fold(0, |number, byte| number * 10 + u64::from(byte - b'0'));
        Some(Duration::from_micros(micros))
    })
}

async fn take_stream(mut answer: Response, mut taken: Taken) -> Result<Times, CliError> {
    let mut buffer = Vec::new();
    while !taken.has_all() {
        let chunk = tokio::select! {
            chunk = answer.chunk() => {
                chunk.map_err(|error| CliError::Answer { reason: root_cause(&error) })?
            }
            _ = taken.total.changed() => continue,
        };
        let Some(chunk) = chunk else {
            return Err(CliError::Answer { reason: "the stream of events ended".to_owned() });
        };
        buffer.extend_from_slice(&chunk);
        // Whole events only.
        let whole = memchr::memmem::rfind(&buffer, b"\n\n").map_or(0, |at| at + 2);
        taken.take(buffer.get(..whole).unwrap_or_default());
        buffer.drain(..whole);
    }
    Ok(taken.times)
}

async fn poll(endpoint: Endpoint, topic: String, mut taken: Taken) -> Result<Times, CliError> {
    let mut wire = endpoint.connect().await?;
    let mut after = None::<String>;
    while !taken.has_all() {
        let from = match &after {
            Some(after) => format!("after={after}"),
            None => "from=earliest".to_owned(),
        };
        let path = format!("/records?pattern={topic}&{from}&limit=1000&wait_ms=200");
        let answer = wire.send(&endpoint.get(&path, None)).await?;
        if !answer.is_success() {
            return Err(answer.refused());
        }
        taken.take(&answer.body);
        after = next(&answer.body).or(after);
    }
    Ok(taken.times)
}

/// `next`, which stands last.
fn next(body: &[u8]) -> Option<String> {
    let tail = std::str::from_utf8(body).ok()?;
    let (_, next) = tail.rsplit_once("\"next\":\"")?;
    Some(next.split('"').next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn events_say_when_they_were_due() {
        let lines = lines(Duration::from_micros(1_234), 2, 100);
        assert_eq!(dues(&lines).collect::<Vec<_>>(), [Duration::from_micros(1_234); 2]);
        let line: Value =
            serde_json::from_slice(lines.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
        assert_eq!(line["value"].to_string().len(), 100);
    }

    #[test]
    fn the_next_page_begins_where_the_last_one_says() {
        let body = br#"{"records":[{"value":"\"next\":\"no"}],"next":"v1.7"}"#;
        assert_eq!(next(body).as_deref(), Some("v1.7"));
        assert_eq!(next(br#"{"records":[],"next":null}"#), None);
    }
}
