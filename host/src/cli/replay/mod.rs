//! `stream replay`: records once more, into another topic or to a group.
//!
//! | module | what it does |
//! | --- | --- |
//! | `range` | which records: from where to where in each partition |
//! | `copy` | publishes them into another topic, each once however often it is run |

mod copy;
mod range;

use std::time::Duration;

use clap::{ArgGroup, Args};
use rand::RngExt;

use super::client::Client;
use super::group::Reset;
use super::output::{CliError, Output};
use crate::name::{GroupName, TopicName};
use crate::timestamp;
use copy::Copy;
use range::{End, Start};

/// Leaves room in a group's name for what is put around it.
const ID_BYTES_MAX: usize = 64;

/// Publish the records of a topic again, or let a group read them again
///
/// With --to-topic, the records are published into another topic: key, value, headers, id, time and
/// content type, through its schema, its plugins and its routes. Records of a partition are published
/// in their order; a record without a key asks for the partition that it is in, counted round if the
/// other topic has fewer. The range ends at the log end as it is at the start of the command, unless
/// --to-offset or --until says otherwise.
///
/// It is safe to repeat. A replay has an id, which is printed if it is not given: the same command with
/// the same --replay-id goes on where the earlier run ended, killed or not, and publishes no record
/// twice. How far it has come is the commit of a group, `replay-…`, made in one transaction with the
/// events; `stream group delete` forgets it. Records that came meanwhile are published by a repeat only
/// if the range has no end. Of two runs of one replay the later one goes on, the other one fails.
///
/// With --group, nothing is published: the group is set back, and reads on from there.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("start").args(["from_offset", "from_time", "from_start"]),
    group = ArgGroup::new("end").args(["to_offset", "until"]).conflicts_with("group"),
    group = ArgGroup::new("target").args(["to_topic", "group"]).required(true),
)]
pub(super) struct ReplayArgs {
    /// The topic
    #[arg(value_parser = TopicName::parse)]
    topic: TopicName,

    /// Start at this offset of a partition
    #[arg(long, value_name = "N")]
    from_offset: Option<u64>,

    /// Start at the first record of this time or later, such as `2026-01-02T03:04:05Z`
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from_time: Option<String>,

    /// Start at the earliest record, which is the default
    #[arg(long)]
    from_start: bool,

    /// Stop before this offset
    #[arg(long, value_name = "N")]
    to_offset: Option<u64>,

    /// Stop before the first record of this time or later
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<String>,

    /// Only this partition
    #[arg(long, value_name = "N")]
    partition: Option<u32>,

    /// Publish the records into this topic
    #[arg(long, value_name = "TOPIC", value_parser = TopicName::parse)]
    to_topic: Option<TopicName>,

    /// Let this group read the records
    #[arg(long, value_name = "GROUP", value_parser = GroupName::parse)]
    group: Option<GroupName>,

    /// A name for this replay, to go on with it after a crash
    #[arg(long, value_name = "ID", conflicts_with = "group", value_parser = parse_id)]
    replay_id: Option<String>,

    /// With --group: also while members live; what they have read and not committed is read again
    #[arg(long, conflicts_with = "to_topic")]
    force: bool,

    /// How long to try again when the server cannot be reached or cannot take a request
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    retry_for: Duration,
}

fn parse_time(text: &str) -> Result<String, String> {
    timestamp::parse(text).map(timestamp::format).map_err(|error| error.to_string())
}

fn parse_id(text: &str) -> Result<String, String> {
    match GroupName::parse(text) {
        Ok(id) if text.len() <= ID_BYTES_MAX => Ok(id.to_string()),
        _ => Err(format!("expected 1–{ID_BYTES_MAX} characters of `[A-Za-z0-9._-]`")),
    }
}

impl ReplayArgs {
    pub(super) async fn run(self, client: Client, output: Output) -> Result<(), CliError> {
        let start = self.start();
        let (topic, partition) = (self.topic, self.partition);
        let end = match (self.to_offset, self.until) {
            (Some(offset), _) => End::Offset(offset),
            (None, Some(time)) => End::Time(time),
            (None, None) => End::Log,
        };
        match (self.to_topic, self.group) {
            (Some(to), _) => {
                let id = self.replay_id.unwrap_or_else(fresh_id);
                let client = client.retrying(self.retry_for);
                let range = range::Range { topic, partition, start, end };
                Copy { client, range, to, id }.run(output).await
            }
            (None, Some(name)) => {
                let to = start.place();
                Reset { name, topic, to, partition, force: self.force }.run(&client, output).await
            }
            (None, None) => Ok(()),
        }
    }

    fn start(&self) -> Start {
        match (self.from_offset, &self.from_time) {
            (Some(offset), _) => Start::Offset(offset),
            (None, Some(time)) => Start::Time(time.clone()),
            (None, None) => Start::Earliest,
        }
    }
}

/// An id that no other replay has.
fn fresh_id() -> String {
    format!("{:016x}", rand::rng().random::<u64>())
}
