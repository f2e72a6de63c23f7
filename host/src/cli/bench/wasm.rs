//! `stream bench wasm`: what publishing keeps of its speed with a validator in the way.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::Told;
use super::figures::{Measured, median, short};
use super::publish::{LoadArgs, PublishBench};
use super::site::Place;
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

/// What came of it.
pub(super) struct Shares {
    /// Events a second without, and with.
    pub(super) plain: f64,
    pub(super) checked: f64,
    /// The median of what each kept of its pair.
    pub(super) share: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl WasmBench {
    pub(super) async fn run(self, place: &Place) -> Result<Told, CliError> {
        self.load.check()?;
        if self.rounds == 0 {
            return Err(CliError::Usage("`--rounds` is at least 1".to_owned()));
        }
        let Shares { plain, checked, share, least, most } = self.measure(place).await?;
        let text = format!(
            "{} events/s without, {} events/s with; it keeps {:.0} % of its pair \
             ({:.0}–{:.0} %, {} pairs)",
            short(plain),
            short(checked),
            100.0 * share,
            100.0 * least,
            100.0 * most,
            self.rounds,
        );
        let figures = json!({
            "wasm": {
                "events_per_second_without": plain.round(),
                "events_per_second_with": checked.round(),
                "share": share,
                "share_least": least,
                "share_most": most,
            },
        });
        Ok(Told { figures, text })
    }

    pub(super) async fn measure(&self, place: &Place) -> Result<Shares, CliError> {
        let site = place.open(&[]).await?;
        let (load, ack) = (self.load.clone(), "durable".to_owned());
        let plain = PublishBench { load, ack, single: false, plugin: None, schema: None };
        let plugin = Some(self.plugin.clone()).filter(|_| self.schema.is_none());
        let checked = PublishBench { plugin, schema: self.schema.clone(), ..plain.clone() };
        let (topics, partitions) = (self.load.topics, self.load.partitions);
        let plain_topics = site.topics("plain", topics, partitions).await?;
        let checked_topics = site.topics("checked", topics, partitions).await?;
        checked.prepare(&site, &checked_topics).await?;
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for round in 0..self.rounds {
            // In turns, and each first in turn: a shared machine is not as fast one minute as the
            // next.
            let rate = |measured: &Measured| measured.events_per_second();
            for step in 0..2 {
                if (round + step) % 2 == 0 {
                    without.push(rate(&plain.measure(&site, &plain_topics, "without").await?));
                } else {
                    with.push(rate(&checked.measure(&site, &checked_topics, "with").await?));
                }
            }
        }
        site.close().await?;
        let shares: Vec<f64> =
            without.iter().zip(&with).map(|(without, with)| with / without).collect();
        Ok(Shares {
            plain: median(without),
            checked: median(with),
            share: median(shares.clone()),
            least: shares.iter().copied().fold(f64::INFINITY, f64::min),
            most: shares.iter().copied().fold(0.0, f64::max),
        })
    }
}
