//! `stream topic`: make, list, describe, change and delete topics.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::Client;
use super::output::{CliError, Output, cell, confirm, fields, items, table};
use crate::index::IndexKind;
use crate::name::TopicName;

const HOURS_A_DAY: u64 = 24;

/// Make, list, describe, change and delete topics
#[derive(Debug, Args)]
pub(super) struct TopicArgs {
    #[command(subcommand)]
    command: TopicCommand,
}

#[derive(Debug, Subcommand)]
enum TopicCommand {
    /// Make a topic; one that is there with the same settings is left as it is
    Create {
        /// Tokens of letters, digits, `_` and `-`, joined by `.`, such as `order.placed`
        #[arg(value_parser = TopicName::parse)]
        name: TopicName,
        #[command(flatten)]
        config: Config,
        /// What records can be looked up by; it stays so
        #[arg(long, value_name = "WHAT", value_delimiter = ',', value_parser = parse_index)]
        index: Vec<IndexKind>,
    },
    /// List all topics
    List,
    /// Show a topic's settings, partitions and figures
    Describe {
        /// The topic
        #[arg(value_parser = TopicName::parse)]
        name: TopicName,
    },
    /// Change a topic's settings
    #[command(mut_group("Config", |settings| settings.required(true)))]
    Update {
        /// The topic
        #[arg(value_parser = TopicName::parse)]
        name: TopicName,
        #[command(flatten)]
        config: Config,
        /// Accept that keys change partition, and so lose their order across the change
        #[arg(long, requires = "partitions")]
        accept_key_moves: bool,
    },
    /// Delete a topic with all its records
    Delete {
        /// The topic
        #[arg(value_parser = TopicName::parse)]
        name: TopicName,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// A topic's settings; what is not given is the server's default, or stays as it is.
#[derive(Debug, Default, Args)]
struct Config {
    /// Number of partitions
    #[arg(long, value_name = "N")]
    partitions: Option<u32>,

    /// How long records are kept: such as `7d` or `168h`, in whole hours, or `forever`
    #[arg(long, value_name = "TIME", value_parser = parse_hours)]
    retention: Option<u64>,

    /// How many bytes a partition keeps
    #[arg(long, value_name = "N")]
    retention_bytes: Option<u64>,

    /// What the topic is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

impl Config {
    fn body(&self) -> Map<String, Value> {
        let Self { partitions, retention, retention_bytes, description } = self;
        let all = [
            ("partitions", partitions.map(Value::from)),
            ("retention_hours", retention.map(Value::from)),
            ("retention_bytes", retention_bytes.map(Value::from)),
            ("description", description.clone().map(Value::from)),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

impl TopicArgs {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        match self.command {
            TopicCommand::Create { name, config, index } => {
                let mut body = config.body();
                if !index.is_empty() {
                    let words: Vec<_> = index.iter().map(|kind| kind.as_str()).collect();
                    body.insert("index".to_owned(), words.into());
                }
                body.insert("name".to_owned(), name.as_str().into());
                let request = client.request(Method::POST, &["topics"]).json(&body);
                output.show(&client.json(request).await?, human)?;
            }
            TopicCommand::List => output.show(&client.list("topics").await?, human_list)?,
            TopicCommand::Describe { name } => describe(client, &name, output).await?,
            TopicCommand::Update { name, config, accept_key_moves } => {
                let mut body = config.body();
                if accept_key_moves {
                    body.insert("accept_key_moves".to_owned(), true.into());
                }
                let request = client.request(Method::PATCH, &["topics", name.as_str()]).json(&body);
                output.show(&client.json(request).await?, human)?;
            }
            TopicCommand::Delete { name, yes } => {
                let question = format!("delete `{name}` with all its records?");
                if !yes && !confirm(name.as_str(), &question)? {
                    return output.done("nothing was deleted").map_err(CliError::from);
                }
                client.send(client.request(Method::DELETE, &["topics", name.as_str()])).await?;
                output.done(&format!("deleted `{name}`"))?;
            }
        }
        Ok(())
    }
}

async fn describe(client: &Client, name: &TopicName, output: Output) -> Result<(), CliError> {
    let get = async |rest: &[&str]| {
        let path: Vec<&str> = ["topics", name.as_str()].iter().chain(rest).copied().collect();
        client.json(client.request(Method::GET, &path)).await
    };
    let topic = get(&[]).await?;
    let partitions = get(&["partitions"]).await?;
    let all = json!({
        "topic": topic,
        "partitions": partitions.get("partitions"),
        "stats": get(&["stats"]).await?,
    });
    output.show(&all, human_description)?;
    Ok(())
}

fn human(topic: &Value) -> String {
    fields([
        ("name", cell(topic, "name")),
        ("partitions", cell(topic, "partitions")),
        ("retention", retention(topic)),
        ("retention bytes", cell(topic, "retention_bytes")),
        ("ack", cell(topic, "ack")),
        ("index", cell(topic, "index")),
        ("created", cell(topic, "created_at")),
        ("description", cell(topic, "description")),
    ])
}

fn human_list(list: &Value) -> String {
    let row = |topic| {
        let [name, partitions, created, description] =
            ["name", "partitions", "created_at", "description"].map(|field| cell(topic, field));
        [name, partitions, retention(topic), created, description]
    };
    let rows: Vec<_> = items(list, "topics").iter().map(row).collect();
    table(["NAME", "PARTITIONS", "RETENTION", "CREATED", "DESCRIPTION"], &rows)
}

fn human_description(all: &Value) -> String {
    let part = |name| all.get(name).unwrap_or(&Value::Null);
    let stats = part("stats");
    let figures = fields([
        ("events", cell(stats, "total_events")),
        ("bytes", cell(stats, "total_bytes")),
        ("events/s", cell(stats, "events_per_second")),
        ("last event", cell(stats, "last_event_at")),
    ]);
    let row = |partition| {
        ["partition", "start_offset", "end_offset", "bytes", "last_timestamp"]
            .map(|field| cell(partition, field))
    };
    let rows: Vec<_> = items(all, "partitions").iter().map(row).collect();
    let partitions = table(["PARTITION", "START", "END", "BYTES", "LAST RECORD"], &rows);
    format!("{}\n{figures}\n{partitions}", human(part("topic")))
}

/// `7d`, `36h` or `forever`.
fn retention(topic: &Value) -> String {
    match topic.get("retention_hours").and_then(Value::as_u64) {
        None => "-".to_owned(),
        Some(0) => "forever".to_owned(),
        Some(hours) if hours % HOURS_A_DAY == 0 => format!("{}d", hours / HOURS_A_DAY),
        Some(hours) => format!("{hours}h"),
    }
}

fn parse_index(word: &str) -> Result<IndexKind, String> {
    IndexKind::parse(word).ok_or_else(|| "expected `id` or `key`".to_owned())
}

/// Hours, as the server counts retention; 0 is forever.
fn parse_hours(text: &str) -> Result<u64, String> {
    if text == "forever" {
        return Ok(0);
    }
    let seconds = humantime::parse_duration(text).map_err(|error| error.to_string())?.as_secs();
    if seconds == 0 || seconds % 3600 != 0 {
        return Err("expected whole hours, such as `7d` or `36h`, or `forever`".to_owned());
    }
    Ok(seconds / 3600)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    #[test]
    fn retention_is_given_in_whole_hours_or_forever() {
        let cases = [
            ("7d", Some(168)),
            ("168h", Some(168)),
            ("1d 12h", Some(36)),
            ("forever", Some(0)),
            ("90m", None),
            ("0h", None),
            ("7", None),
            ("", None),
        ];
        for (text, hours) in cases {
            assert_eq!(parse_hours(text).ok(), hours, "{text}");
        }
    }

    #[test]
    fn retention_is_shown_in_days_where_it_is_whole_ones() {
        for (hours, text) in [(0, "forever"), (168, "7d"), (36, "36h")] {
            assert_eq!(retention(&json!({ "retention_hours": hours })), text);
        }
    }

    #[test]
    fn only_what_is_given_is_sent() {
        let config = Config { retention: Some(0), ..Config::default() };
        assert_eq!(Value::Object(config.body()), json!({ "retention_hours": 0 }));
    }

    #[test]
    fn an_update_changes_something() {
        let cases: [(&[&str], bool); 11] = [
            (&["create", "t"], true),
            (&["create", "t", "--index", "id,key"], true),
            (&["create", "t", "--index", "key"], true),
            (&["create", "t", "--index", "id,time"], false),
            (&["update", "t", "--index", "id"], false),
            (&["create", "t", "--partitions", "4", "--retention", "7d"], true),
            (&["create", "a..b"], false),
            (&["update", "t", "--retention", "7d", "--description", "d"], true),
            (&["update", "t", "--partitions", "4", "--accept-key-moves"], true),
            (&["update", "t"], false),
            (&["update", "t", "--accept-key-moves"], false),
        ];
        for (args, is_valid) in cases {
            let parsed = Cli::try_parse_from(["stream", "topic"].iter().chain(args));
            assert_eq!(parsed.is_ok(), is_valid, "{args:?}");
        }
    }

    #[test]
    fn a_description_shows_settings_figures_and_partitions() {
        let all = json!({
            "topic": { "name": "t", "partitions": 1, "retention_hours": 168 },
            "partitions": [{ "partition": 0, "start_offset": 3, "end_offset": 10, "bytes": 99 }],
            "stats": { "total_events": 10 },
        });
        let text = human_description(&all);
        for part in
            ["retention        7d\n", "events      10\n", "\n        0      3   10     99  -\n"]
        {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
    }
}
