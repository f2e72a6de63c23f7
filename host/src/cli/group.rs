//! `stream group`: list, show, set, reset and delete consumer groups.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::Client;
use super::output::{CliError, Output, cell, confirm, fields, items, table};
use crate::group::ATTEMPTS_MAX;
use crate::name::{GroupName, TopicName};
use crate::timestamp;

/// List, show, set, reset and delete consumer groups
#[derive(Debug, Args)]
pub(super) struct GroupArgs {
    #[command(subcommand)]
    command: GroupCommand,
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// List all groups
    List,
    /// Show members, commits, lag, and why nothing moves where something lags
    Show {
        /// The group
        #[arg(value_parser = GroupName::parse)]
        name: GroupName,
    },
    /// Set how often a group tries a record that its members cannot process
    Set {
        /// The group
        #[arg(value_parser = GroupName::parse)]
        name: GroupName,
        /// After so many failures it becomes a dead letter
        #[arg(
            long,
            value_name = "N",
            value_parser = clap::value_parser!(u32).range(1..=i64::from(ATTEMPTS_MAX))
        )]
        attempts_max: u32,
    },
    Reset(Reset),
    /// Delete a group and its commits
    Delete {
        /// The group
        #[arg(value_parser = GroupName::parse)]
        name: GroupName,
        /// Also while members live: they are told at their next call
        #[arg(long)]
        force: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// Let a group read on from somewhere else: again, to replay, or further on, to skip
#[derive(Debug, Args)]
pub(super) struct Reset {
    /// The group
    #[arg(value_parser = GroupName::parse)]
    pub(super) name: GroupName,

    /// The topic
    #[arg(value_parser = TopicName::parse)]
    pub(super) topic: TopicName,

    /// Where to: `earliest`, `latest`, an offset, or a time such as `2026-01-02T03:04:05Z`
    #[arg(long, value_name = "PLACE")]
    pub(super) to: String,

    /// Only this partition; an offset needs it unless the topic has one
    #[arg(long, value_name = "N")]
    pub(super) partition: Option<u32>,

    /// Also while members live: what they have read and not committed is read again
    #[arg(long)]
    pub(super) force: bool,
}

impl Reset {
    pub(super) async fn run(&self, client: &Client, output: Output) -> Result<(), CliError> {
        let path = ["groups", self.name.as_str(), "reset"];
        let request = client.request(Method::POST, &path).json(&self.body()?);
        Ok(output.show(&client.json(request).await?, human_places)?)
    }

    fn body(&self) -> Result<Value, CliError> {
        let mut body = Map::new();
        body.insert("topic".to_owned(), self.topic.as_str().into());
        let (name, place): (_, Value) = match (self.to.as_str(), self.to.parse::<u64>()) {
            (word @ ("earliest" | "latest"), _) => ("to", word.into()),
            (_, Ok(offset)) => ("offset", offset.into()),
            (text, _) => {
                let time = timestamp::parse(text).map_err(|_| {
                    let expected = "expected `earliest`, `latest`, an offset or an RFC 3339 time";
                    CliError::Usage(format!("{expected}, got `{text}`"))
                })?;
                ("timestamp", timestamp::format(time).into())
            }
        };
        body.insert(name.to_owned(), place);
        if let Some(partition) = self.partition {
            body.insert("partition".to_owned(), partition.into());
        }
        if self.force {
            body.insert("force".to_owned(), true.into());
        }
        Ok(body.into())
    }
}

impl GroupArgs {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        match self.command {
            GroupCommand::List => output.show(&client.list("groups").await?, human_list)?,
            GroupCommand::Show { name } => {
                let request = client.request(Method::GET, &["groups", name.as_str()]);
                output.show(&client.json(request).await?, human)?;
            }
            GroupCommand::Set { name, attempts_max } => {
                let request = client
                    .request(Method::PUT, &["groups", name.as_str()])
                    .json(&json!({ "attempts_max": attempts_max }));
                output.show(&client.json(request).await?, human_settings)?;
            }
            GroupCommand::Reset(reset) => reset.run(client, output).await?,
            GroupCommand::Delete { name, force, yes } => {
                let question = format!("delete the group `{name}` with all its commits?");
                if !yes && !confirm(name.as_str(), &question)? {
                    return Ok(());
                }
                let request = client.request(Method::DELETE, &["groups", name.as_str()]);
                let request = if force { request.query(&[("force", "true")]) } else { request };
                client.send(request).await?;
                output.done(&format!("deleted `{name}`"))?;
            }
        }
        Ok(())
    }
}

fn human_list(list: &Value) -> String {
    let row = |group| ["group", "members"].map(|field| cell(group, field));
    let rows: Vec<_> = items(list, "groups").iter().map(row).collect();
    table(["NAME", "MEMBERS"], &rows)
}

fn human_settings(group: &Value) -> String {
    fields([("name", cell(group, "group")), ("attempts", cell(group, "attempts_max"))])
}

fn human(group: &Value) -> String {
    let about = fields([
        ("name", cell(group, "group")),
        ("attempts", cell(group, "attempts_max")),
        ("lag", cell(group, "lag")),
    ]);
    let member = |member| {
        let [id, instance, topics, silent] =
            ["member", "instance_id", "subscriptions", "silent_ms"]
                .map(|field| cell(member, field));
        let owned = items(member, "assignment").len().to_string();
        [id, instance, topics, owned, silent]
    };
    let members: Vec<_> = items(group, "members").iter().map(member).collect();
    let partition = |part| {
        let [topic, partition, owner, committed, end, lag] =
            ["topic", "partition", "owner", "committed", "log_end", "lag"]
                .map(|field| cell(part, field));
        let why = part.get("why").map_or_else(|| "-".to_owned(), |why| cell(why, "message"));
        [topic, partition, owner, committed, end, lag, why]
    };
    let partitions: Vec<_> = items(group, "partitions").iter().map(partition).collect();
    let members = table(["MEMBER", "INSTANCE", "TOPICS", "OWNS", "SILENT MS"], &members);
    let heads = ["TOPIC", "PARTITION", "OWNER", "COMMITTED", "END", "LAG", "WHY"];
    format!("{about}\n{members}\n{}", table(heads, &partitions))
}

fn human_places(places: &Value) -> String {
    let row = |place| ["partition", "next_offset"].map(|field| cell(place, field));
    let rows: Vec<_> = items(places, "partitions").iter().map(row).collect();
    table(["PARTITION", "NEXT OFFSET"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn body(args: &[&str]) -> Option<Value> {
        let args = ["stream", "group", "reset", "g", "t"].iter().chain(args);
        let Command::Group(args) = Cli::try_parse_from(args).ok()?.command else { panic!() };
        let GroupCommand::Reset(reset) = args.command else { panic!("{args:?}") };
        reset.body().ok()
    }

    #[test]
    fn a_partition_that_is_held_says_until_when_and_why() {
        let message = "the record at offset 1 has failed 1 of 5 times and is read again at T: no";
        let group = json!({
            "group": "g", "attempts_max": 5, "lag": 2, "members": [],
            "partitions": [{
                "topic": "t", "partition": 0, "owner": "m", "committed": 1, "log_end": 3,
                "lag": 2, "why": { "code": "held", "message": message },
            }],
        });
        let text = human(&group);
        let line = text.lines().last().unwrap();
        assert!(line.ends_with(message), "{text}");
    }

    #[test]
    fn attempts_have_a_range() {
        for (number, is_valid) in [("0", false), ("1", true), ("1000", true), ("1001", false)] {
            let args = ["stream", "group", "set", "g", "--attempts-max", number];
            assert_eq!(Cli::try_parse_from(args).is_ok(), is_valid, "{number}");
        }
        assert!(Cli::try_parse_from(["stream", "group", "set", "g"]).is_err());
    }

    #[test]
    fn a_reset_says_where_to() {
        let cases: [(&[&str], Option<Value>); 6] = [
            (&["--to", "earliest"], Some(json!({"topic": "t", "to": "earliest"}))),
            (
                &["--to", "7", "--partition", "2"],
                Some(json!({"topic": "t", "offset": 7, "partition": 2})),
            ),
            (
                &["--to", "2026-01-02T04:04:05+01:00", "--force"],
                Some(json!({
                    "topic": "t", "timestamp": "2026-01-02T03:04:05.000Z", "force": true,
                })),
            ),
            (&["--to", "yesterday"], None),
            (&["--to", "-1"], None),
            (&[], None),
        ];
        for (args, expected) in cases {
            assert_eq!(body(args), expected, "{args:?}");
        }
    }
}
