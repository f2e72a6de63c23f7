//! `stream bench soak`: publishes many gigabytes while retention trims behind, and tells what that
//! costs the disk.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::figures::{Measured, millis, short};
use super::load::{self, End, Plan, Shot, Turn};
use super::own_server::{OwnServer, disk_bytes};
use super::payload::{self, Body, Shape};
use super::progress::Progress;
use super::publish::pick;
use super::site::Place;
use super::wire::NDJSON;
use super::{Told, machine};
use crate::cli::output::CliError;

/// How often the server trims, and how often its figures are looked at.
const BEAT: Duration = Duration::from_secs(1);

/// What no answer is to take under steady load.
const LONGEST_WAIT_MS: f64 = 100.0;

/// Publish many gigabytes while retention trims behind
///
/// Tells how much was written to the disk for each byte of events (write amplification), how much the
/// data takes for each byte that retention keeps (space amplification), the longest wait for an
/// answer, and the memory that was taken. On a virtual machine it tells too for how long its host had
/// the processors do other things: what waits then waits for the host.
#[derive(Debug, Clone, Args)]
pub(super) struct SoakBench {
    /// Bytes of events to publish
    #[arg(long, value_name = "BYTES", default_value_t = 20_000_000_000)]
    pub(super) bytes: u64,

    /// Bytes of records that retention keeps
    #[arg(long, value_name = "BYTES", default_value_t = 2_000_000_000)]
    pub(super) keep: u64,

    /// Bytes of each event's value
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    pub(super) size: usize,

    /// Partitions of the topic
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(super) partitions: u32,

    /// Connections that send at once
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(super) connections: usize,

    /// Events a second; as many as are taken unless it is given
    #[arg(long, value_name = "N")]
    pub(super) rate: Option<f64>,
}

/// What came of it.
pub(super) struct Soaked {
    pub(super) measured: Measured,
    pub(super) write_amplification: Option<f64>,
    pub(super) space_amplification: f64,
    pub(super) disk_peak: u64,
    pub(super) memory_peak: Option<f64>,
    /// What the host of the machine took of the processors' time.
    pub(super) stolen: Option<Duration>,
}

/// What the disk and the memory held at most.
#[derive(Debug, Clone, Copy, Default)]
struct Peak {
    disk: u64,
    /// When the last event was published.
    disk_last: u64,
}

impl SoakBench {
    /// As it is unless told otherwise.
    pub(super) fn usual() -> Self {
        let (bytes, keep) = (20_000_000_000, 2_000_000_000);
        Self { bytes, keep, size: 256, partitions: 8, connections: 8, rate: None }
    }

    pub(super) async fn run(self, place: &Place) -> Result<Told, CliError> {
        place.own_only("bench soak")?;
        if self.connections == 0 || self.size == 0 || self.partitions == 0 {
            let problem = "`--connections`, `--size` and `--partitions` are at least 1";
            return Err(CliError::Usage(problem.to_owned()));
        }
        let soaked = self.measure(place).await?;
        Ok(soaked.told())
    }

    pub(super) async fn measure(&self, place: &Place) -> Result<Soaked, CliError> {
        const BATCH: usize = 1_000;
        let site = place.open(&["--retention-interval", "1s"]).await?;
        let keep = self.keep / u64::from(self.partitions);
        let config = [("retention_bytes", json!(keep))];
        let topic = site.topic("soak", self.partitions, &config).await?;
        let shape = Shape { size: self.size, keys: 1_000, batch: BATCH, seed: 1 };
        let bodies: Arc<[Body]> = payload::made(&shape).into();
        let post = site.endpoint.post(&format!("/topics/{topic}/events"), NDJSON);
        let batch_bytes = (self.size * BATCH) as u64;
        let requests = self.bytes.div_ceil(batch_bytes);
        let shot = move |turn: Turn| {
            let body = pick(&bodies, turn.number);
            let request = post.with(body.lines.clone());
            Shot { request, events: body.events, bytes: body.value_bytes }
        };
        #[expect(clippy::cast_precision_loss, reason = "a batch is far below 2^53")]
        let rate = self.rate.map(|events| events / BATCH as f64);
        let plan = Plan {
            connections: self.connections,
            warm_up: Duration::ZERO,
            end: End::Requests(requests),
            rate,
        };
        let progress = Progress::new("soak");
        // Else what other programs have written is brought to the disk meanwhile, all at once.
        tokio::task::spawn_blocking(rustix::fs::sync).await.map_err(std::io::Error::other)?;
        let stolen_before = machine::stolen();
        let written_before = site.server.as_ref().and_then(OwnServer::written);
        let (ended, end) = watch::channel(());
        let watching = watch_disk(site.server.as_ref(), end);
        let publishing = async {
            let measured = load::run(&site.endpoint, &plan, &progress, shot).await;
            drop(ended);
            measured
        };
        let (measured, peak) = tokio::join!(publishing, watching);
        let (measured, peak) = (measured?, peak?);
        let server = site.server.as_ref();
        let written = server.and_then(OwnServer::written).zip(written_before);
        #[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^53")]
        let ratio = |of: u64, to: u64| of as f64 / to.max(1) as f64;
        let soaked = Soaked {
            write_amplification: written.map(|(now, before)| ratio(now - before, measured.bytes)),
            space_amplification: ratio(peak.disk_last, self.keep.min(measured.bytes)),
            stolen: machine::stolen().zip(stolen_before).map(|(now, before)| now - before),
            disk_peak: peak.disk,
            memory_peak: server.and_then(OwnServer::memory).map(|memory| memory.peak),
            measured,
        };
        site.close().await?;
        Ok(soaked)
    }
}

/// Looks at the size of the data until `end` has no sender.
async fn watch_disk(
    server: Option<&OwnServer>,
    mut end: watch::Receiver<()>,
) -> Result<Peak, CliError> {
    let mut peak = Peak::default();
    let Some(server) = server else { return Ok(peak) };
    loop {
        let is_over = tokio::time::timeout_at(Instant::now() + BEAT, end.changed()).await.is_ok();
        peak.disk_last = disk_bytes(server.data())?;
        peak.disk = peak.disk.max(peak.disk_last);
        if is_over {
            return Ok(peak);
        }
    }
}

impl Soaked {
    fn told(&self) -> Told {
        let Self { measured, write_amplification, space_amplification, .. } = self;
        #[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^53")]
        let gigabytes = |bytes: u64| bytes as f64 / 1e9;
        let known = |number: Option<f64>, digits: usize| {
            number.map_or("unknown".to_owned(), |number| format!("{number:.digits$}"))
        };
        let text = format!(
            "{:.1} GB of events in {:.0} s: {} events/s\n  answers: {}\n  write amplification {}, \
             space amplification {space_amplification:.2}; {:.1} GB on the disk at most, memory at \
             most {} MiB; {}",
            gigabytes(measured.bytes),
            measured.span.as_secs_f64(),
            short(measured.events_per_second()),
            super::figures::human(&measured.times),
            known(*write_amplification, 2),
            gigabytes(self.disk_peak),
            known(self.memory_peak, 0),
            self.host_took(),
        );
        let figures = json!({ "soak": self.json() });
        Told { figures, text }
    }

    /// The longest wait, whether it is as short as it is to be, and all figures.
    pub(super) fn row(&self) -> (String, bool, Value) {
        let longest = millis(self.measured.times.longest());
        let reached = format!("{longest} ms; {}", self.host_took());
        (reached, longest < LONGEST_WAIT_MS, self.json())
    }

    fn host_took(&self) -> String {
        match self.stolen {
            Some(stolen) => format!("the host took {:.2} s", stolen.as_secs_f64()),
            None => "what the host took is unknown".to_owned(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "publish": self.measured.json(),
            "write_amplification": self.write_amplification,
            "space_amplification": self.space_amplification,
            "disk_peak_bytes": self.disk_peak,
            "memory_peak_mib": self.memory_peak.map(f64::round),
            "stolen_ms": self.stolen.map(millis),
            "longest_wait_ms": millis(self.measured.times.longest()),
        })
    }
}
