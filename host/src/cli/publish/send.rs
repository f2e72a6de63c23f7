//! Sends batches: those of a topic one after the other, topics side by side.
//!
//! A batch goes out under its topic's producer id and its own sequence number, so that the server
//! stores it once however often it is sent.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use indicatif::ProgressBar;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::batch::{Batch, InputError};
use super::source::{Producer, hex};
use crate::cli::client::Client;
use crate::cli::output::CliError;
use crate::name::TopicName;

/// Requests on their way at a time: enough to share the server's syncs, few enough to hold in memory.
const REQUESTS_MAX: usize = 8;

/// What to do about a topic that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// Give up.
    Fail,
    /// Make it, with so many partitions or the server's default.
    Create(Option<u32>),
}

/// What all batches have in common.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) client: Client,
    pub(super) producer: Producer,
    /// How the batches were cut.
    pub(super) fingerprint: String,
    pub(super) missing: Missing,
}

/// What became of a topic's events.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Tally {
    /// Events stored by this run.
    pub(super) published: u64,
    /// Events that were stored before.
    pub(super) duplicates: u64,
    /// Requests that were answered.
    pub(super) requests: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        self.published += other.published;
        self.duplicates += other.duplicates;
        self.requests += other.requests;
    }
}

/// What became of all events, by topic.
pub(super) type Tallies = BTreeMap<TopicName, Tally>;

/// How the server knows this run in one topic.
#[derive(Debug)]
struct Lane {
    producer_id: String,
    epoch: u64,
    /// The first sequence that is not stored yet.
    next: u64,
}

impl Sender {
    /// Sends all batches. After an error nothing more is sent; what was stored is told either way.
    pub(super) async fn send_all(
        &self,
        batches: mpsc::Receiver<Result<Batch, InputError>>,
        progress: &ProgressBar,
    ) -> (Tallies, Result<(), CliError>) {
        let mut flights = Flights::new(self, progress);
        let sent = flights.send(batches).await;
        let landed = flights.finish().await;
        (flights.tallies, sent.and(landed))
    }

    async fn deliver(&self, lane: Option<Lane>, batch: Batch) -> Landed {
        let topic = batch.topic.clone();
        let byte_len = batch.body.len() as u64;
        let outcome = async {
            let lane = match lane {
                Some(lane) => lane,
                None => self.open_lane(&topic).await?,
            };
            let tally = self.publish(&lane, batch).await?;
            Ok((lane, tally))
        };
        let outcome = outcome.await;
        Landed { topic, byte_len, outcome }
    }

    async fn publish(&self, lane: &Lane, batch: Batch) -> Result<Tally, CliError> {
        let Batch { topic, sequence, body, lines } = batch;
        let events = lines.len() as u64;
        if sequence < lane.next {
            return Ok(Tally { duplicates: events, ..Tally::default() });
        }
        let body = Bytes::from(body);
        let path = ["topics", topic.as_str(), "events"];
        let call = || {
            let request = self
                .client
                .request(Method::POST, &path)
                .header(CONTENT_TYPE, "application/x-ndjson")
                .header("producer-id", &lane.producer_id)
                .header("producer-epoch", lane.epoch)
                .header("producer-seq", sequence)
                .body(body.clone());
            self.client.json(request)
        };
        let answer = self.client.fetch(call).await.map_err(|error| blame(error, &lines))?;
        let is_duplicate = answer.get("duplicate").and_then(Value::as_bool).unwrap_or_default();
        let (published, duplicates) = if is_duplicate { (0, events) } else { (events, 0) };
        Ok(Tally { published, duplicates, requests: 1 })
    }

    /// Asks how far this producer has come in the topic.
    async fn open_lane(&self, topic: &TopicName) -> Result<Lane, CliError> {
        #[derive(Deserialize)]
        struct Progress {
            epoch: u64,
            last_seq: u64,
        }

        let producer_id = self.producer_id(topic, &self.made_at(topic).await?);
        let new = |producer_id| Lane { producer_id, epoch: 0, next: 0 };
        if !self.producer.resumes {
            return Ok(new(producer_id));
        }
        match self.get(&["producers", &producer_id]).await {
            Ok(answer) => {
                let Progress { epoch, last_seq } = serde_json::from_value(answer)
                    .map_err(|error| CliError::Answer { reason: error.to_string() })?;
                Ok(Lane { producer_id, epoch, next: last_seq.saturating_add(1) })
            }
            Err(error) if error.status() == Some(404) => Ok(new(producer_id)),
            Err(error) => Err(error),
        }
    }

    /// When the topic was made, which tells it from an earlier one of that name: what that one had
    /// is not in this one.
    async fn made_at(&self, topic: &TopicName) -> Result<String, CliError> {
        let path = ["topics", topic.as_str()];
        let found = match (self.get(&path).await, self.missing) {
            (Err(error), Missing::Create(partitions)) if error.status() == Some(404) => {
                self.create(topic, partitions).await?;
                self.get(&path).await?
            }
            (found, _) => found?,
        };
        let made_at = found.get("created_at").and_then(Value::as_str).map(ToOwned::to_owned);
        made_at.ok_or_else(|| CliError::Answer { reason: "expected `created_at`".to_owned() })
    }

    async fn create(&self, topic: &TopicName, partitions: Option<u32>) -> Result<(), CliError> {
        let body = json!({ "name": topic.as_str(), "partitions": partitions });
        let call = || {
            let request = self.client.request(Method::POST, &["topics"]).json(&body);
            self.client.json(request)
        };
        match self.client.fetch(call).await {
            // Another one was faster.
            Err(error) if error.status() == Some(409) => Ok(()),
            created => created.map(drop),
        }
    }

    async fn get(&self, path: &[&str]) -> Result<Value, CliError> {
        let call = || self.client.json(self.client.request(Method::GET, path));
        self.client.fetch(call).await
    }

    /// The run's name, and a digest of all else that must be the same for a sequence number to mean
    /// the same batch.
    fn producer_id(&self, topic: &TopicName, made_at: &str) -> String {
        let same = format!("{topic}\n{made_at}\n{}", self.fingerprint);
        let digest = hex(&Sha256::digest(same));
        let (short, _) = digest.split_at(digest.len() / 2);
        format!("{}:{short}", self.producer.name)
    }
}

/// The line at fault, if the server says which event of a batch it refuses.
fn blame(error: CliError, lines: &[u64]) -> CliError {
    let CliError::Server(refusal) = &error else { return error };
    let index = refusal.details.get("index").and_then(Value::as_u64);
    let line = index.and_then(|index| lines.get(usize::try_from(index).ok()?));
    let Some(line) = line else { return error };
    let told = |name| refusal.details.get(name).and_then(Value::as_str);
    let what = told("reason").unwrap_or(&refusal.message);
    let reason = match told("field") {
        Some(field) => format!("refused by the server: field `{field}`: {what}"),
        None => format!("refused by the server: {what}"),
    };
    InputError::Line { line: *line, reason }.into()
}

/// A batch's way, at its end.
struct Landed {
    topic: TopicName,
    byte_len: u64,
    outcome: Result<(Lane, Tally), CliError>,
}

/// The batches on their way: at most one of each topic, so that a topic's are stored in order.
struct Flights<'a> {
    sender: &'a Sender,
    progress: &'a ProgressBar,
    flying: FuturesUnordered<BoxFuture<'a, Landed>>,
    busy: HashSet<TopicName>,
    /// Of topics that are not busy.
    lanes: HashMap<TopicName, Lane>,
    tallies: Tallies,
}

impl<'a> Flights<'a> {
    fn new(sender: &'a Sender, progress: &'a ProgressBar) -> Self {
        Self {
            sender,
            progress,
            flying: FuturesUnordered::new(),
            busy: HashSet::new(),
            lanes: HashMap::new(),
            tallies: Tallies::new(),
        }
    }

    /// Sends batches until there are no more or one fails; the last ones are still on their way then.
    async fn send(
        &mut self,
        mut batches: mpsc::Receiver<Result<Batch, InputError>>,
    ) -> Result<(), CliError> {
        while let Some(batch) = self.next_batch(&mut batches).await? {
            while self.busy.contains(&batch.topic) || self.flying.len() >= REQUESTS_MAX {
                let Some(landed) = self.flying.next().await else { break };
                self.land(landed)?;
            }
            let lane = self.lanes.remove(&batch.topic);
            self.busy.insert(batch.topic.clone());
            self.flying.push(self.sender.deliver(lane, batch).boxed());
        }
        Ok(())
    }

    /// Waits for the next batch, and for those on their way meanwhile.
    async fn next_batch(
        &mut self,
        batches: &mut mpsc::Receiver<Result<Batch, InputError>>,
    ) -> Result<Option<Batch>, CliError> {
        loop {
            tokio::select! {
                Some(landed) = self.flying.next() => self.land(landed)?,
                batch = batches.recv() => return Ok(batch.transpose()?),
            }
        }
    }

    /// Waits for all that are on their way; the first error is told.
    async fn finish(&mut self) -> Result<(), CliError> {
        let mut outcome = Ok(());
        while let Some(landed) = self.flying.next().await {
            outcome = outcome.and(self.land(landed));
        }
        outcome
    }

    fn land(&mut self, landed: Landed) -> Result<(), CliError> {
        self.busy.remove(&landed.topic);
        let (lane, tally) = landed.outcome?;
        self.progress.inc(landed.byte_len);
        self.lanes.insert(landed.topic.clone(), lane);
        self.tallies.entry(landed.topic).or_default().add(&tally);
        Ok(())
    }
}
