//! `stream publish`: sends events from a file or standard input, safely to be repeated.
//!
//! | module | what it does |
//! | --- | --- |
//! | `source` | opens the input, checks a file, names the producer |
//! | `batch` | cuts lines into batches, always the same way |
//! | `send` | sends them, in order for each topic, and goes on where an earlier run ended |

mod batch;
mod send;
mod source;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::client::Client;
use super::output::{CliError, Output, cell, items, table};
use crate::name::TopicName;
pub use batch::InputError;
use batch::{Cut, Destination};
use send::{Missing, Sender, Tallies, Tally};
pub(super) use source::hex;
use source::{Naming, Source};

/// As long as a file's digest: leaves room in a producer id, which has at most 128 characters, for
/// what is put behind it.
const PRODUCER_BYTES_MAX: usize = 64;

/// Publish events, one JSON object a line
///
/// A line is an object with a `value` and, as wanted, `key`, `headers`, `id`, `time`, `partition` and
/// `type`; blank lines are skipped. Events wait until their batch is full or the input ends.
///
/// Publishing is safe to repeat. Each request carries a producer sequence, so that a request that was
/// sent twice is stored once. A run that ended early goes on where it ended when it is started again
/// with the same input and the same options: a file is known by its content, other input by the name
/// that --producer gives. So publishing the very same file to the same topic again stores nothing;
/// --again publishes it once more.
///
/// All lines of a file are checked before the first is sent. What standard input brings is sent batch
/// by batch as they fill. A malformed line ends the run: batches that were full before it are sent,
/// events whose batch was not full yet are not. What was stored by then is reported.
#[derive(Debug, Args)]
#[command(override_usage = "stream publish [OPTIONS] <TOPIC> [FILE]\n       \
                            stream publish [OPTIONS] --by-type [FILE]")]
pub(super) struct PublishArgs {
    /// The topic; with --by-type the file
    #[arg(required_unless_present = "by_type")]
    topic: Option<String>,

    /// The file; `-` or none is standard input
    #[arg(conflicts_with = "by_type")]
    file: Option<PathBuf>,

    /// Send each event to the topic that its `type` names
    #[arg(long)]
    by_type: bool,

    /// Make topics that are missing
    #[arg(long)]
    create: bool,

    /// How many partitions topics are made with
    #[arg(long, value_name = "N", requires = "create")]
    partitions: Option<u32>,

    /// Most events in a request; a request has at most 4 MiB unless a line is longer
    #[arg(
        long,
        value_name = "N",
        default_value = "1000",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..)
    )]
    batch: usize,

    /// A name for this input, to go on with it after a crash: another input needs another name
    #[arg(long, value_name = "NAME", value_parser = parse_producer)]
    producer: Option<String>,

    /// Publish the file although it was published before
    #[arg(long, conflicts_with = "producer")]
    again: bool,

    /// How long to try again when the server cannot be reached or cannot take a request
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    retry_for: Duration,
}

fn parse_producer(text: &str) -> Result<String, String> {
    let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.is_empty() || text.len() > PRODUCER_BYTES_MAX || !is_visible {
        return Err(format!("expected 1–{PRODUCER_BYTES_MAX} visible ASCII characters"));
    }
    Ok(text.to_owned())
}

impl PublishArgs {
    pub(super) async fn run(self, client: Client, output: Output) -> Result<(), CliError> {
        let (summary, outcome) = self.publish(client).await?;
        output.show(&summary, human)?;
        outcome
    }

    /// Publishes the input. What was stored is told also if it did not all go well; an error of its
    /// own is one before anything was sent.
    async fn publish(self, client: Client) -> Result<(Value, Result<(), CliError>), CliError> {
        let started = Instant::now();
        let (cut, file) = self.input()?;
        let naming = match self.producer {
            Some(name) => Naming::Given(name),
            None if self.again => Naming::Fresh,
            None => Naming::ByContent,
        };
        let source = Source::open(file.as_deref(), naming, &cut)?;
        let sender = Sender {
            client: client.retrying(self.retry_for),
            producer: source.producer.clone(),
            fingerprint: cut.fingerprint(),
            missing: if self.create { Missing::Create(self.partitions) } else { Missing::Fail },
        };
        let progress = progress(source.byte_len);
        let (tallies, outcome) = sender.send_all(source.read(cut), &progress).await;
        progress.finish_and_clear();
        Ok((summary(&tallies, started.elapsed()), outcome))
    }

    /// How to cut, and the file; `None` is standard input.
    fn input(&self) -> Result<(Cut, Option<PathBuf>), CliError> {
        let (destination, file) = match (&self.topic, self.by_type) {
            (Some(topic), false) => {
                let topic =
                    TopicName::parse(topic).map_err(|error| CliError::Usage(error.to_string()))?;
                (Destination::Topic(topic), self.file.clone())
            }
            (file, _) => (Destination::ByType, file.as_ref().map(PathBuf::from)),
        };
        let file = file.filter(|file| file.as_os_str() != "-");
        Ok((Cut { destination, events_max: self.batch }, file))
    }
}

/// Shows on standard error how far it is; hidden unless that is a terminal.
fn progress(byte_len: Option<u64>) -> ProgressBar {
    let template = match byte_len {
        Some(_) => "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        None => "{spinner} {bytes} {bytes_per_sec}",
    };
    let bar = ProgressBar::with_draw_target(byte_len, ProgressDrawTarget::stderr());
    // A template that does not parse would leave the default one.
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn summary(tallies: &Tallies, elapsed: Duration) -> Value {
    let mut total = Tally::default();
    for tally in tallies.values() {
        total.add(tally);
    }
    let seconds = elapsed.as_secs_f64();
    let topics: Vec<Value> = tallies
        .iter()
        .map(|(topic, tally)| {
            json!({
                "topic": topic.as_str(),
                "published": tally.published,
                "duplicates": tally.duplicates,
                "requests": tally.requests,
            })
        })
        .collect();
    json!({
        "published": total.published,
        "duplicates": total.duplicates,
        "requests": total.requests,
        "seconds": seconds,
        "events_per_second": total.published as f64 / seconds.max(f64::MIN_POSITIVE),
        "topics": topics,
    })
}

fn human(summary: &Value) -> String {
    let row =
        |topic| ["topic", "published", "duplicates", "requests"].map(|field| cell(topic, field));
    let rows: Vec<_> = items(summary, "topics").iter().map(row).collect();
    let topics = match rows.as_slice() {
        [] => String::new(),
        rows => table(["TOPIC", "PUBLISHED", "STORED BEFORE", "REQUESTS"], rows) + "\n",
    };
    let [published, duplicates, seconds, rate] =
        ["published", "duplicates", "seconds", "events_per_second"]
            .map(|field| cell(summary, field));
    let total = format!("{published} events published in {seconds} s, {rate} a second");
    match duplicates.as_str() {
        "0" => format!("{topics}{total}\n"),
        _ => format!("{topics}{total}; {duplicates} were stored before\n"),
    }
}

#[cfg(test)]
mod tests;
