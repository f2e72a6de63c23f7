//! `stream bench publish`: how many events a server takes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::Told;
use super::figures::Measured;
use super::load::{self, End, Plan, Shot, Turn};
use super::payload::{self, Body, Shape};
use super::progress::Progress;
use super::site::{Place, Site};
use super::wire::{JSON, NDJSON, Post};
use crate::cli::output::CliError;

/// Publish as fast as the server takes it, or at a rate
///
/// Each connection sends its next request when the one before is answered. With --rate requests are
/// due at fixed times, and the time of each counts from then, whatever held it up.
#[derive(Debug, Clone, Args)]
pub(super) struct PublishBench {
    #[command(flatten)]
    pub(super) load: LoadArgs,

    /// When the server answers: `durable`, when it is synced; `memory`, before
    #[arg(long, value_name = "ACK", default_value = "durable", value_parser = ["durable", "memory"])]
    pub(super) ack: String,

    /// Send one event a request, as `POST …/produce` takes it
    #[arg(long, conflicts_with = "batch")]
    pub(super) single: bool,

    /// A component to validate the events with; `pass-through` is one that lets all pass
    #[arg(long, value_name = "FILE")]
    pub(super) plugin: Option<PathBuf>,

    /// A JSON Schema for the events to follow; `ten-fields` is one that made events do
    #[arg(long, value_name = "FILE")]
    pub(super) schema: Option<PathBuf>,
}

/// What is sent, and how.
#[derive(Debug, Clone, Args)]
pub(super) struct LoadArgs {
    /// Topics, which requests go to in turns
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) topics: usize,

    /// Partitions of each topic
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(super) partitions: u32,

    /// Connections that send at once
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(super) connections: usize,

    /// Events in a request
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub(super) batch: usize,

    /// Bytes of each event's value
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    pub(super) size: usize,

    /// Different keys; 0: events have none
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub(super) keys: u64,

    /// Publish the events of this file, a JSON object a line as for `stream publish`, around and
    /// around
    #[arg(long, value_name = "FILE", conflicts_with_all = ["size", "keys"])]
    pub(super) file: Option<PathBuf>,

    /// Events a second; as many as are taken unless it is given
    #[arg(long, value_name = "N")]
    pub(super) rate: Option<f64>,

    /// How long to measure
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(super) duration: Duration,

    /// How long to send before it counts
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    pub(super) warm_up: Duration,

    /// What made events are made of: the same seed makes the same
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) seed: u64,
}

impl LoadArgs {
    pub(super) fn bodies(&self) -> Result<Arc<[Body]>, CliError> {
        let bodies = match &self.file {
            Some(file) => payload::of_file(file, self.batch)?,
            None => payload::made(&Shape {
                size: self.size,
                keys: self.keys,
                batch: self.batch,
                seed: self.seed,
            }),
        };
        Ok(bodies.into())
    }

    #[expect(clippy::cast_precision_loss, reason = "a batch is far below 2^53")]
    fn batch_f64(&self) -> f64 {
        self.batch as f64
    }

    pub(super) fn plan(&self) -> Plan {
        let batch = self.batch_f64();
        Plan {
            connections: self.connections,
            warm_up: self.warm_up,
            end: End::After(self.duration),
            rate: self.rate.map(|events| events / batch),
        }
    }

    /// # Errors
    ///
    /// A number is out of bounds.
    pub(super) fn check(&self) -> Result<(), CliError> {
        let at_least_one =
            [("topics", self.topics), ("connections", self.connections), ("batch", self.batch)];
        if let Some((name, _)) = at_least_one.into_iter().find(|(_, count)| *count == 0) {
            return Err(CliError::Usage(format!("`--{name}` is at least 1")));
        }
        if let Some(rate) = self.rate {
            load::check_rate(rate, self.batch_f64())?;
        }
        if self.duration.is_zero() {
            return Err(CliError::Usage("`--duration` is above 0".to_owned()));
        }
        Ok(())
    }
}

impl PublishBench {
    pub(super) async fn run(mut self, place: &Place) -> Result<Told, CliError> {
        if self.single {
            self.load.batch = 1;
        }
        self.load.check()?;
        let measured = place.with(async |site| {
            let topics = site.topics("publish", self.load.topics, self.load.partitions).await?;
            self.prepare(site, &topics).await?;
            Ok((self.measure(site, &topics, "publish").await?, site.memory()))
        });
        let (measured, memory) = measured.await?;
        let told = measured.json_with(memory);
        Ok(Told { figures: json!({ "publish": told }), text: measured.human() })
    }

    /// Sets what stands in the events' way.
    pub(super) async fn prepare(&self, site: &Site, topics: &[String]) -> Result<(), CliError> {
        let own = |file: &PathBuf, name: &str| (file.as_os_str() != name).then(|| file.clone());
        if let Some(schema) = &self.schema {
            let file = own(schema, "ten-fields");
            for topic in topics {
                site.set_schema(topic, file.as_deref()).await?;
            }
        }
        if let Some(plugin) = &self.plugin {
            site.validate(topics, own(plugin, "pass-through").as_deref()).await?;
        }
        Ok(())
    }

    /// Publishes to topics that are there.
    pub(super) async fn measure(
        &self,
        site: &Site,
        topics: &[String],
        what: &str,
    ) -> Result<Measured, CliError> {
        let bodies = self.load.bodies()?;
        let call = if self.single { "produce" } else { "events" };
        let query = if self.ack == "memory" { "?ack=memory" } else { "" };
        let content_type = if self.single { JSON } else { NDJSON };
        let post = |topic: &String| {
            site.endpoint.post(&format!("/topics/{topic}/{call}{query}"), content_type)
        };
        let posts: Arc<[Post]> = topics.iter().map(post).collect();
        let plan = self.load.plan();
        let shot = move |turn: Turn| {
            let (body, post) = (pick(&bodies, turn.number), pick(&posts, turn.number));
            let request = post.with(body.lines.clone());
            Shot { request, events: body.events, bytes: body.value_bytes }
        };
        load::run(&site.endpoint, &plan, &Progress::new(what), shot).await
    }
}

#[expect(clippy::indexing_slicing, reason = "none of the lists is empty")]
pub(super) fn pick<T>(of: &[T], number: u64) -> &T {
    &of[usize::try_from(number % of.len() as u64).unwrap_or_default()]
}
