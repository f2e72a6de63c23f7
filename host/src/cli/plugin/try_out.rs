//! `stream plugin try`: what a plugin would do with events, without storing anything.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use reqwest::Method;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::settings::Config;
use super::show::short;
use super::{bytes, cut, versioned};
use crate::cli::client::Client;
use crate::cli::output::{CliError, Output, cell, items, table};
use crate::cli::publish::InputError;
use crate::name::{PluginName, TopicName};
use crate::stage::Role;

/// Characters of what is said of an event.
const DETAIL_CHARS_MAX: usize = 100;
/// The same of another version, which stands before it.
const OTHER_CHARS_MAX: usize = 40;

/// Show what a plugin would do with events; nothing is stored
///
/// The events are those of a file, an object with a `value` and, as wanted, `key`, `headers`, `id`,
/// `time` and `type` a line, or such as the topic has.
#[derive(Debug, Args)]
pub(super) struct Try {
    /// The plugin
    #[arg(value_parser = PluginName::parse)]
    name: PluginName,

    /// The topic of the events
    #[arg(long, value_parser = TopicName::parse)]
    topic: TopicName,

    /// The plugin's version; the newest unless given
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    version: Option<u64>,

    /// In which role; needed if it has several
    #[arg(long, value_parser = super::role())]
    role: Option<Role>,

    #[command(flatten)]
    config: Config,

    /// The file; `-` is standard input
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "partition",
        conflicts_with_all = ["partition", "offset", "limit"]
    )]
    file: Option<PathBuf>,

    /// The partition of the topic to read from
    #[arg(long, value_name = "N", requires = "offset")]
    partition: Option<u32>,

    /// The first offset to read
    #[arg(long, value_name = "N", requires = "partition")]
    offset: Option<u64>,

    /// At most so many events of the topic
    #[arg(
        long,
        value_name = "N",
        requires = "partition",
        value_parser = RangedU64ValueParser::<u64>::new().range(1..)
    )]
    limit: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Request<'a> {
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<Vec<Box<RawValue>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Source>,
}

#[derive(Debug, Serialize)]
struct Source {
    partition: u32,
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
}

impl Try {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        let request = client
            .request(Method::POST, &["plugins", self.name.as_str(), "try"])
            .json(&self.request()?);
        output.show(&client.json(request).await?, human)?;
        Ok(())
    }

    fn request(&self) -> Result<Request<'_>, CliError> {
        let events = match &self.file {
            Some(path) => Some(events(&read(path)?)?),
            None => None,
        };
        let from = self.partition.zip(self.offset).map(|(partition, offset)| Source {
            partition,
            offset,
            limit: self.limit,
        });
        Ok(Request {
            topic: self.topic.as_str(),
            version: self.version,
            role: self.role.map(Role::as_str),
            config: self.config.text()?,
            events,
            from,
        })
    }
}

fn read(path: &Path) -> Result<String, CliError> {
    if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text).map_err(InputError::Read)?;
        return Ok(text);
    }
    fs::read_to_string(path).map_err(|error| CliError::unreadable(path, error))
}

/// An event a line, as it is: numbers keep their digits.
fn events(text: &str) -> Result<Vec<Box<RawValue>>, InputError> {
    let event = |(number, line): (u64, &str)| {
        let failed = |reason| InputError::Line { line: number, reason };
        let event: Box<RawValue> =
            serde_json::from_str(line).map_err(|error| failed(error.to_string()))?;
        let is_object = event.get().starts_with('{');
        is_object.then_some(event).ok_or_else(|| failed("expected a JSON object".to_owned()))
    };
    let lines = (1..).zip(text.lines());
    lines.filter(|(_, line)| !line.trim().is_empty()).map(event).collect()
}

fn human(tried: &Value) -> String {
    let bound = tried.get("bound").filter(|bound| !bound.is_null());
    let fault = tried.get("fault").filter(|fault| !fault.is_null());
    let mut text = String::new();
    let mut field = |name: &str, value: String| text.push_str(&format!("{name:<8}{value}\n"));
    field("plugin", format!("{} as {}", versioned("name", tried), cell(tried, "role")));
    field("config", cell(tried, "config"));
    // A call that broke is not measured.
    if fault.is_none() {
        let wait = time(tried, "queued_us");
        field("time", format!("{}, after a wait of {wait}", time(tried, "time_us")));
        field("memory", bytes(tried, "memory"));
    }
    if let Some(bound) = bound {
        field("bound", human_bound(tried, bound));
    }
    if let Some(fault) = fault {
        field("fault", format!("{}: {}", cell(fault, "cause"), cell(fault, "message")));
    }
    let outcomes = items(tried, "outcomes");
    if outcomes.is_empty() {
        return text;
    }
    format!("{text}\n{}", human_outcomes(outcomes, bound))
}

fn human_bound(tried: &Value, bound: &Value) -> String {
    let differing = items(bound, "differs").len();
    let all = items(tried, "outcomes").len().max(items(bound, "outcomes").len());
    let (version, place) = (cell(bound, "version"), cell(bound, "place"));
    format!("version {version} at {place}: {differing} of {all} differ")
}

fn human_outcomes(outcomes: &[Value], bound: Option<&Value>) -> String {
    let Some(bound) = bound else {
        let rows: Vec<_> = outcomes
            .iter()
            .map(|outcome| [event(outcome), cell(outcome, "outcome"), detail(outcome)])
            .collect();
        return table(["EVENT", "OUTCOME", "DETAIL"], &rows);
    };
    let row = |outcome: &Value| {
        [event(outcome), cell(outcome, "outcome"), other(outcome, bound), detail(outcome)]
    };
    let rows: Vec<_> = outcomes.iter().map(row).collect();
    let title = format!("VERSION {}", cell(bound, "version"));
    table(["EVENT", "OUTCOME", &title, "DETAIL"], &rows)
}

/// What the bound version does with an event, if it is something else.
fn other(outcome: &Value, bound: &Value) -> String {
    let index = outcome.get("index");
    if !items(bound, "differs").iter().any(|differing| Some(differing) == index) {
        return "same".to_owned();
    }
    let of_bound = items(bound, "outcomes").iter().find(|other| other.get("index") == index);
    let Some(of_bound) = of_bound else { return "-".to_owned() };
    let (word, detail) = (cell(of_bound, "outcome"), detail(of_bound));
    if detail == "-" { word } else { cut(&format!("{word}: {detail}"), OTHER_CHARS_MAX) }
}

/// Which event it is: by its offset if it has one, else counted from 0.
fn event(outcome: &Value) -> String {
    let field = if outcome.get("offset").is_some_and(Value::is_u64) { "offset" } else { "index" };
    cell(outcome, field)
}

fn detail(outcome: &Value) -> String {
    let field = match cell(outcome, "outcome").as_str() {
        "reject" => "reason",
        "partition" => "partition",
        "route" => "topics",
        "replace" => "event",
        _ => return "-".to_owned(),
    };
    let text = match field {
        "event" => new_event(outcome.get(field).unwrap_or(&Value::Null)),
        field => cell(outcome, field),
    };
    cut(&text, DETAIL_CHARS_MAX)
}

/// What takes an event's place, without the fields that it does not have.
fn new_event(event: &Value) -> String {
    let is_set =
        |value: &Value| !value.is_null() && value.as_object().is_none_or(|all| !all.is_empty());
    let fields = event.as_object().into_iter().flatten();
    let set: Map<String, Value> = fields
        .filter(|(name, value)| *name == "value" || is_set(value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    Value::Object(set).to_string().replace(char::is_control, " ")
}

fn time(tried: &Value, field: &str) -> String {
    let micros = tried.get(field).and_then(Value::as_u64);
    micros.map_or("-".to_owned(), |micros| short(Duration::from_micros(micros)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use crate::cli::plugin::{PluginArgs, PluginCommand};
    use clap::Parser;
    use serde_json::json;

    fn request(args: &[&str]) -> Option<Result<Value, CliError>> {
        let args = ["stream", "plugin", "try", "p", "--topic", "t"].iter().chain(args);
        match Cli::try_parse_from(args).ok()?.command {
            crate::cli::Command::Plugin(PluginArgs { command: PluginCommand::Try(tried) }) => {
                Some(tried.request().map(|request| serde_json::to_value(request).unwrap()))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn events_come_from_a_file_or_from_the_topic() {
        let at = json!({ "topic": "t", "from": { "partition": 1, "offset": 7 } });
        let all = json!({
            "topic": "t", "version": 2, "role": "route", "config": "c",
            "from": { "partition": 0, "offset": 0, "limit": 5 },
        });
        let cases: [(&[&str], Option<Value>); 8] = [
            (&["--partition", "1", "--offset", "7"], Some(at)),
            (
                &[
                    "--version",
                    "2",
                    "--role",
                    "route",
                    "--config",
                    "c",
                    "--partition",
                    "0",
                    "--offset",
                    "0",
                    "--limit",
                    "5",
                ],
                Some(all),
            ),
            (&[], None),
            (&["--partition", "1"], None),
            (&["--offset", "1"], None),
            (&["--file", "f", "--partition", "1", "--offset", "7"], None),
            (&["--file", "f", "--limit", "7"], None),
            (&["--file", "f", "--role", "cook"], None),
        ];
        for (args, expected) in cases {
            let got = request(args).map(Result::unwrap);
            assert_eq!(got, expected, "{args:?}");
        }
        assert_eq!(request(&["--file", "gone"]).unwrap().unwrap_err().exit_code(), 4);
    }

    #[test]
    fn lines_are_sent_as_they_are() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "{\"value\": 1.50}\n\n  {\"value\": 1}\r\n").unwrap();
        let lines = events(&read(file.path()).unwrap()).unwrap();
        let lines: Vec<&str> = lines.iter().map(|line| line.get()).collect();
        assert_eq!(lines, ["{\"value\": 1.50}", "{\"value\": 1}"]);
    }

    #[test]
    fn a_malformed_line_is_told_by_its_number() {
        for text in ["{}\n\n{\"value\":", "{}\n\n[1]", "{}\n\n{} {}"] {
            let error = events(text).unwrap_err().to_string();
            assert!(error.starts_with("line 3: "), "{error}");
        }
    }

    fn tried() -> Value {
        json!({
            "name": "orders", "version": 3, "role": "validate", "config": "{\"max_total\":10}",
            "time_us": 850, "queued_us": 20, "memory": 1_179_648,
            "outcomes": [
                { "index": 0, "outcome": "accept" },
                { "index": 1, "outcome": "reject", "reason": "expected a `total`" },
            ],
        })
    }

    #[test]
    fn each_event_has_its_outcome() {
        let expected = "plugin  orders@3 as validate\n\
                        config  {\"max_total\":10}\n\
                        time    850µs, after a wait of 20µs\n\
                        memory  1.12 MiB\n\
                        \n\
                        EVENT  OUTCOME  DETAIL\n    \
                            0  accept   -\n    \
                            1  reject   expected a `total`\n";
        assert_eq!(human(&tried()), expected);
    }

    #[test]
    fn what_differs_from_the_bound_version_stands_beside_it() {
        let mut tried = tried();
        tried["bound"] = json!({
            "version": 2, "place": "validate/order.*", "differs": [1],
            "outcomes": [{ "index": 0, "outcome": "accept" }, { "index": 1, "outcome": "accept" }],
        });
        let text = human(&tried);
        for part in [
            "bound   version 2 at validate/order.*: 1 of 2 differ\n",
            "EVENT  OUTCOME  VERSION 2  DETAIL\n",
            "    0  accept   same       -\n",
            "    1  reject   accept     expected a `total`\n",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        tried["bound"]["outcomes"][1] = json!({ "index": 1, "outcome": "reject", "reason": "no" });
        assert!(human(&tried).contains("reject: no  expected"), "{}", human(&tried));
    }

    #[test]
    fn a_fault_takes_the_place_of_outcomes() {
        let mut tried = tried();
        tried["outcomes"] = json!([]);
        tried["fault"] = json!({ "cause": "timeout", "message": "over 100 ms" });
        let text = human(&tried);
        assert!(text.ends_with("\nfault   timeout: over 100 ms\n"), "{text}");
        assert!(!text.contains("memory"), "{text}");
    }

    #[test]
    fn each_role_says_what_it_chose() {
        let long = json!({ "outcome": "replace", "event": { "value": "x".repeat(200) } });
        let cases = [
            (json!({ "outcome": "partition", "partition": 3 }), "3"),
            (json!({ "outcome": "route", "topics": ["a", "b"] }), "a,b"),
            (json!({ "outcome": "route", "topics": [] }), "-"),
            (json!({ "outcome": "drop" }), "-"),
            (
                json!({ "outcome": "replace", "event": {
                    "id": null, "key": "k", "headers": {}, "value": {},
                }}),
                r#"{"key":"k","value":{}}"#,
            ),
        ];
        for (outcome, expected) in cases {
            assert_eq!(detail(&outcome), expected);
        }
        assert_eq!(detail(&long).chars().count(), DETAIL_CHARS_MAX);
        assert_eq!(event(&json!({ "index": 0, "offset": 70 })), "70");
    }
}
