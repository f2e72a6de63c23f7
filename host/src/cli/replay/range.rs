//! Which records a replay is about: from where to where in each partition.

use reqwest::Method;
use serde_json::Value;

use crate::cli::client::Client;
use crate::cli::output::{CliError, items};
use crate::cli::tail::{Bounds, of_one_partition, partitions};
use crate::name::TopicName;

/// Where it starts, in each partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    Earliest,
    Offset(u64),
    Time(String),
}

impl Start {
    /// As `stream group reset --to` takes it.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Earliest => "earliest".to_owned(),
            Self::Offset(offset) => offset.to_string(),
            Self::Time(time) => time.clone(),
        }
    }
}

/// Where it ends, in each partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// At the log end as it is when it is looked at.
    Log,
    Offset(u64),
    Time(String),
}

/// What the command line says.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) topic: TopicName,
    /// All of them if `None`.
    pub(super) partition: Option<u32>,
    pub(super) start: Start,
    pub(super) end: End,
}

/// The records of one partition: `start..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) partition: u32,
    pub(super) start: u64,
    pub(super) end: u64,
    /// The log start, as it is now.
    pub(super) earliest: u64,
    /// The start is an offset that was given: it stays where it is, whatever is trimmed.
    pub(super) is_fixed: bool,
}

impl Part {
    /// Refuses a start that is trimmed. For a first run: what a later one has to do may still be there.
    pub(super) fn check_start(&self) -> Result<(), CliError> {
        let Self { partition, start, earliest, .. } = self;
        if start >= earliest {
            return Ok(());
        }
        let problem = format!(
            "offset {start} of partition {partition} is trimmed: the earliest is {earliest}"
        );
        Err(CliError::Usage(problem))
    }

    /// Where to go on for who has come so far. The server notes the log start as the place of who has
    /// not begun; what was trimmed since lies before the log start, and to read there is an error.
    pub(super) fn resume(&self, committed: Option<u64>) -> u64 {
        match committed {
            Some(committed) if committed < self.earliest && !self.is_fixed => committed,
            committed => committed.unwrap_or(0).max(self.start).min(self.end),
        }
    }
}

impl Range {
    /// What it is for the partitions as they are now.
    pub(super) async fn parts(&self, client: &Client) -> Result<Vec<Part>, CliError> {
        let all = partitions(client, &self.topic, self.partition).await?;
        if matches!(self.start, Start::Offset(_)) || matches!(self.end, End::Offset(_)) {
            of_one_partition(&all)?;
        }
        let mut parts = Vec::with_capacity(all.len());
        for bounds in all {
            parts.push(self.part(client, bounds).await?);
        }
        Ok(parts)
    }

    async fn part(&self, client: &Client, bounds: Bounds) -> Result<Part, CliError> {
        let Bounds { partition, start_offset, end_offset } = bounds;
        let start = match &self.start {
            Start::Earliest => start_offset,
            Start::Offset(offset) => *offset,
            Start::Time(time) => self.at(client, partition, time).await?,
        };
        let end = match &self.end {
            End::Log => end_offset,
            End::Offset(offset) => *offset,
            // Who asks for a time before the start gets nothing.
            End::Time(time) => self.at(client, partition, time).await?.max(start),
        };
        if start > end || end > end_offset {
            let problem = format!(
                "there is no range {start}..{end} in partition {partition}: its log ends at \
                 {end_offset}"
            );
            return Err(CliError::Usage(problem));
        }
        let is_fixed = matches!(self.start, Start::Offset(_));
        Ok(Part { partition, start, end, earliest: start_offset, is_fixed })
    }

    /// The offset of the first record of a time or later.
    async fn at(&self, client: &Client, partition: u32, time: &str) -> Result<u64, CliError> {
        let number = partition.to_string();
        let path = ["topics", self.topic.as_str(), "partitions", &number, "records"];
        let call = || {
            let request = client.request(Method::GET, &path);
            client.json(request.query(&[("timestamp", time), ("limit", "1"), ("max_bytes", "1")]))
        };
        let answer = client.fetch(call).await?;
        let first = items(&answer, "records").first().and_then(|record| record.get("offset"));
        let offset = first.or_else(|| answer.get("next_offset")).and_then(Value::as_u64);
        offset.ok_or_else(|| CliError::Answer { reason: "expected an offset".to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_goes_on_where_the_one_before_it_ended() {
        let earliest = Part { partition: 0, start: 5, end: 9, earliest: 5, is_fixed: false };
        let fixed = Part { is_fixed: true, ..earliest };
        let cases = [
            // Not begun: the log start, as it was when the first run joined.
            (fixed, None, 5),
            (fixed, Some(2), 5),
            (earliest, Some(5), 5),
            (earliest, Some(6), 6),
            (fixed, Some(7), 7),
            (fixed, Some(9), 9),
            (fixed, Some(10), 9),
            // The records from there to the log start were not published and are gone.
            (earliest, Some(4), 4),
        ];
        for (part, committed, expected) in cases {
            assert_eq!(part.resume(committed), expected, "{part:?} {committed:?}");
        }
    }
}
