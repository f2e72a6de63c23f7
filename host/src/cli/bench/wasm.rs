//! `stream bench wasm`: what publishing keeps of its speed with a validator in the way.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::Told;
use super::figures::{Measured, Shares};
use super::own_server::Memory;
use super::publish::{LoadArgs, PublishBench};
use super::site::{Place, Site};
use crate::cli::output::CliError;

/// Publish with and without a validator, in turns, and compare
#[derive(Debug, Clone, Args)]
pub(super) struct WasmBench {
    #[command(flatten)]
    pub(super) load: LoadArgs,

    /// The component; `pass-through` is one that lets all events pass
    #[arg(long, value_name = "FILE", default_value = "pass-through")]
    pub(super) plugin: PathBuf,

    /// Compare a JSON Schema instead; `ten-fields` is one that made events follow
    #[arg(long, value_name = "FILE")]
    pub(super) schema: Option<PathBuf>,

    /// Pairs of runs, of which the median counts
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(super) rounds: usize,
}

impl WasmBench {
    pub(super) async fn run(self, place: &Place) -> Result<Told, CliError> {
        self.load.check()?;
        if self.rounds == 0 {
            return Err(CliError::Usage("`--rounds` is at least 1".to_owned()));
        }
        let (shares, _) = self.measure(place).await?;
        Ok(Told { figures: json!({ "wasm": shares.json() }), text: shares.human() })
    }

    /// Also says what memory the server took.
    pub(super) async fn measure(
        &self,
        place: &Place,
    ) -> Result<(Shares, Option<Memory>), CliError> {
        place.with(async |site| Ok((self.pairs(site).await?, site.memory()))).await
    }

    async fn pairs(&self, site: &Site) -> Result<Shares, CliError> {
        let (load, ack) = (self.load.clone(), "durable".to_owned());
        let plain = PublishBench { load, ack, single: false, plugin: None, schema: None };
        let plugin = Some(self.plugin.clone()).filter(|_| self.schema.is_none());
        let checked = PublishBench { plugin, schema: self.schema.clone(), ..plain.clone() };
        let (topics, partitions) = (self.load.topics, self.load.partitions);
        let plain_topics = site.topics("plain", topics, partitions).await?;
        let checked_topics = site.topics("checked", topics, partitions).await?;
        checked.prepare(site, &checked_topics).await?;
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for round in 0..self.rounds {
            // In turns, and each first in turn: a shared machine is not as fast one minute as the
            // next.
            let rate = |measured: &Measured| measured.events_per_second();
            for step in 0..2 {
                if (round + step) % 2 == 0 {
                    without.push(rate(&plain.measure(site, &plain_topics, "without").await?));
                } else {
                    with.push(rate(&checked.measure(site, &checked_topics, "with").await?));
                }
            }
        }
        Ok(Shares::new(without, with))
    }
}
