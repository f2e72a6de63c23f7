//! `stream connector`: what takes events to Worker, Hooks and Ledger.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `put` | a connector as the command line says it |
//! | `show` | how connectors do, for people |

mod put;
mod show;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::client::Client;
use super::output::{CliError, Output, confirm};
use super::plugin::PATIENCE;
use crate::name::{ConnectorName, TopicName};
use crate::queue::JobId;

/// Take events to Worker, Hooks and Ledger, here or elsewhere
#[derive(Debug, Args)]
pub(super) struct ConnectorArgs {
    #[command(subcommand)]
    command: ConnectorCommand,
}

#[derive(Debug, Subcommand)]
enum ConnectorCommand {
    Put(Box<put::Put>),
    /// List all connectors and how they do
    List,
    /// Show how a connector does: what waits, what failed, what was lost
    Show {
        /// The connector
        #[arg(value_parser = ConnectorName::parse)]
        name: ConnectorName,
    },
    /// Let a connector rest: it takes no events and sends no requests
    Pause {
        /// The connector
        #[arg(value_parser = ConnectorName::parse)]
        name: ConnectorName,
    },
    /// Let a connector go on from where it was
    Resume {
        /// The connector
        #[arg(value_parser = ConnectorName::parse)]
        name: ConnectorName,
    },
    Delete(Delete),
    Replay(Replay),
    /// List what was given up: requests to a service elsewhere, or jobs of the queue that it fills
    DeadLetters {
        /// The connector
        #[arg(value_parser = ConnectorName::parse)]
        name: ConnectorName,
    },
    /// Try again what was given up
    Redrive {
        /// The connector
        #[arg(value_parser = ConnectorName::parse)]
        name: ConnectorName,
        /// Only these, as `dead-letters` shows them; all unless given
        #[arg(value_name = "ID", value_parser = JobId::parse)]
        ids: Vec<JobId>,
    },
}

/// Delete a connector once it has handed over and sent what was published before
#[derive(Debug, Args)]
struct Delete {
    /// The connector
    #[arg(value_parser = ConnectorName::parse)]
    name: ConnectorName,

    /// At once: what it has not taken it never takes, and requests that wait are not sent
    #[arg(long)]
    drop: bool,

    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Let a connector read again from somewhere, and hand over once more what it finds
#[derive(Debug, Args)]
struct Replay {
    /// The connector
    #[arg(value_parser = ConnectorName::parse)]
    name: ConnectorName,

    /// From where: `earliest`, `latest`, or a time such as `2026-01-02T03:04:05Z`
    #[arg(long, value_name = "PLACE", required_unless_present = "offset")]
    from: Option<String>,

    /// Only this topic
    #[arg(long, value_name = "TOPIC", value_parser = TopicName::parse)]
    topic: Option<TopicName>,

    /// Only this partition of it
    #[arg(long, value_name = "N", requires = "topic")]
    partition: Option<u32>,

    /// From this offset of the partition
    #[arg(long, value_name = "N", requires = "partition", conflicts_with = "from")]
    offset: Option<u64>,
}

impl Replay {
    fn body(&self) -> Value {
        let given = [
            ("from", self.from.as_deref().map(Value::from)),
            ("topic", self.topic.as_ref().map(|topic| topic.as_str().into())),
            ("partition", self.partition.map(Value::from)),
            ("offset", self.offset.map(Value::from)),
        ];
        given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

impl ConnectorArgs {
    pub(super) async fn run(self, client: Client, output: Output) -> Result<(), CliError> {
        let call = |method, name: &ConnectorName, more: &[&str]| {
            client.request(method, &[&["connectors", name.as_str()], more].concat())
        };
        match self.command {
            ConnectorCommand::Put(put) => return put.run(client.patient(PATIENCE)?, output).await,
            ConnectorCommand::List => {
                output.show(&client.list("connectors").await?, show::human_list)?;
            }
            ConnectorCommand::Show { name } => {
                output.show(&client.json(call(Method::GET, &name, &[])).await?, show::human)?;
            }
            ConnectorCommand::Pause { name } => {
                let request = call(Method::POST, &name, &["pause"]);
                output.show(&client.json(request).await?, show::human)?;
            }
            ConnectorCommand::Resume { name } => {
                let request = call(Method::POST, &name, &["resume"]);
                output.show(&client.json(request).await?, show::human)?;
            }
            ConnectorCommand::Delete(delete) => delete.run(&client, output).await?,
            ConnectorCommand::Replay(replay) => {
                let request = call(Method::POST, &replay.name, &["replay"]).json(&replay.body());
                output.show(&client.json(request).await?, show::human)?;
            }
            ConnectorCommand::DeadLetters { name } => {
                let request = || call(Method::GET, &name, &["dead-letters"]);
                let letters = client.pages("dead_letters", request).await?;
                output.show(&letters, show::human_dead)?;
            }
            ConnectorCommand::Redrive { name, ids } => {
                let ids: Vec<String> = ids.iter().map(JobId::to_string).collect();
                let body = if ids.is_empty() { json!({}) } else { json!({ "ids": ids }) };
                let request = call(Method::POST, &name, &["redrive"]).json(&body);
                output.show(&client.json(request).await?, show::human_redriven)?;
            }
        }
        Ok(())
    }
}

impl Delete {
    async fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        let Self { name, drop, yes } = self;
        let what = if drop { " with all that it has not sent" } else { "" };
        let question = format!("delete the connector `{name}`{what}?");
        if !yes && !confirm(name.as_str(), &question)? {
            return Ok(());
        }
        let mode = if drop { "drop" } else { "drain" };
        let request = client.request(Method::DELETE, &["connectors", name.as_str()]);
        let left = client.json(request.query(&[("mode", mode)])).await?;
        if left.is_null() {
            output.done(&format!("deleted `{name}`"))?;
        } else {
            output.show(&left, show::human_draining)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn parsed(args: &[&str]) -> Option<ConnectorCommand> {
        let args = ["stream", "connector"].iter().chain(args);
        match Cli::try_parse_from(args).ok()?.command {
            Command::Connector(ConnectorArgs { command }) => Some(command),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_replay_says_from_where() {
        let cases: [(&[&str], Option<Value>); 8] = [
            (&["--from", "earliest"], Some(json!({ "from": "earliest" }))),
            (
                &["--from", "latest", "--topic", "t"],
                Some(json!({ "from": "latest", "topic": "t" })),
            ),
            (
                &["--topic", "t", "--partition", "1", "--offset", "7"],
                Some(json!({ "topic": "t", "partition": 1, "offset": 7 })),
            ),
            (&[], None),
            (&["--topic", "t"], None),
            (&["--offset", "7"], None),
            (&["--from", "earliest", "--partition", "1"], None),
            (&["--from", "earliest", "--topic", "t", "--partition", "1", "--offset", "7"], None),
        ];
        for (args, expected) in cases {
            let body = parsed(&[&["replay", "c"], args].concat()).map(|command| match command {
                ConnectorCommand::Replay(replay) => replay.body(),
                other => panic!("{other:?}"),
            });
            assert_eq!(body, expected, "{args:?}");
        }
    }

    #[test]
    fn what_is_tried_again_is_named_as_it_is_shown() {
        let id = format!("job_{:024x}", 7);
        assert!(parsed(&["redrive", "c", &id]).is_some());
        assert!(parsed(&["redrive", "c"]).is_some());
        assert!(parsed(&["redrive", "c", "7"]).is_none());
    }
}
