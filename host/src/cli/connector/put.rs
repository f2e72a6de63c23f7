//! `stream connector put`: a connector as the command line says it.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, RangedU64ValueParser};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::show;
use crate::cli::client::Client;
use crate::cli::output::{CliError, Output};
use crate::cli::plugin::settings::{Config, Settings, on_fault};
use crate::name::{ConnectorName, PluginName};
use crate::pattern::Pattern;

/// The file that is standard input.
const STDIN: &str = "-";

/// Make a connector; one of that name is replaced as a whole, and goes on from where it is
#[derive(Debug, Args)]
#[command(mut_group("Settings", |settings| settings.requires("plugin")))]
#[command(mut_group("Config", |config| config.requires("plugin")))]
pub(super) struct Put {
    /// The connector
    #[arg(value_parser = ConnectorName::parse)]
    name: ConnectorName,

    /// What events become: jobs, webhooks, or entries of a verifiable ledger
    #[arg(long, value_parser = PossibleValuesParser::new(["worker", "hooks", "ledger"]))]
    kind: String,

    /// The topics whose events are taken: `*` is one token, `**` zero or more
    #[arg(long = "match", value_name = "PATTERN", value_parser = Pattern::parse)]
    topics: Pattern,

    /// Where it begins in topics that are there: `earliest`, `latest`, or a time such as
    /// `2026-01-02T03:04:05Z` [default: latest]
    #[arg(long, value_name = "PLACE")]
    from: Option<String>,

    /// Events taken in one transaction [default: 500]
    #[arg(long, value_name = "N")]
    batch: Option<u32>,

    /// Worker: the queue [default: the connector's name]
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,

    /// Ledger of this server: its name [default: the connector's]
    #[arg(long, value_name = "NAME")]
    ledger: Option<String>,

    #[command(flatten)]
    elsewhere: Elsewhere,

    /// A plugin that keeps back or changes events before
    #[arg(long, value_name = "NAME", value_parser = PluginName::parse)]
    plugin: Option<PluginName>,

    /// What the plugin is to do, if it does both
    #[arg(long, requires = "plugin", value_parser = PossibleValuesParser::new(["validate", "transform"]))]
    role: Option<String>,

    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    config: Config,

    /// What becomes of events on which the plugin breaks [default: dead-letter]
    #[arg(long, requires = "plugin", value_name = "POLICY", value_parser = on_fault())]
    on_fault: Option<String>,
}

/// A service that is not this server's own.
#[derive(Debug, Args)]
#[command(next_help_heading = "To a service elsewhere")]
struct Elsewhere {
    /// A service elsewhere [default: this server's own]
    #[arg(long, value_name = "URL")]
    address: Option<String>,

    /// A file with what that service is shown as a bearer token; `-` is standard input. Or the
    /// environment's `STREAM_CONNECTOR_SECRET`. The one before is kept unless given
    #[arg(long, value_name = "FILE", requires = "address")]
    secret_file: Option<PathBuf>,

    /// Read from the environment: a command line is seen by all
    #[arg(long, env = "STREAM_CONNECTOR_SECRET", hide = true, hide_env_values = true)]
    secret: Option<String>,

    /// The project there [default: the same]
    #[arg(long, value_name = "NAME", requires = "address")]
    remote_project: Option<String>,

    /// How long an answer may take [default: 15s]
    #[arg(long, value_name = "TIME", requires = "address", value_parser = humantime::parse_duration)]
    answer_timeout: Option<Duration>,

    /// Requests under way at once [default: 8]
    #[arg(long, value_name = "COUNT", requires = "address")]
    concurrency: Option<u32>,

    /// Requests a second [default: any number]
    #[arg(long, value_name = "NUMBER", requires = "address")]
    rate: Option<f64>,

    /// How often a request is tried before it is given up [default: 20]
    #[arg(
        long,
        value_name = "N",
        requires = "address",
        value_parser = RangedU64ValueParser::<u32>::new().range(1..=1_000)
    )]
    attempts_max: Option<u32>,

    /// The waits before new attempts, such as `5s,5m,30m`; the last holds for all that follow
    /// [default: doubled from 1s to 10m]
    #[arg(
        long,
        value_name = "TIMES",
        requires = "address",
        value_delimiter = ',',
        value_parser = humantime::parse_duration
    )]
    retry: Vec<Duration>,

    /// Send the requests of a partition one after the other
    #[arg(long, requires = "address")]
    ordered: bool,
}

impl Put {
    pub(super) async fn run(self, client: Client, output: Output) -> Result<(), CliError> {
        let secret = self.elsewhere.secret()?;
        let request = client.request(Method::PUT, &["connectors", self.name.as_str()]);
        let set = client.json(request.json(&self.body(secret)?)).await?;
        Ok(output.show(&set, show::human)?)
    }

    fn body(&self, secret: Option<String>) -> Result<Value, CliError> {
        let mut body = json!({ "kind": self.kind, "match": self.topics.as_str() });
        let mut settings = self.elsewhere.settings();
        let own = [
            ("from", self.from.as_deref().map(Value::from)),
            ("batch", self.batch.map(Value::from)),
            ("queue", self.queue.as_deref().map(Value::from)),
            ("ledger", self.ledger.as_deref().map(Value::from)),
        ];
        settings.extend(given(own));
        let mut more = Map::from_iter([("settings".to_owned(), settings.into())]);
        let address = self.elsewhere.address.as_deref();
        more.extend(given([
            ("url", address.map(Value::from)),
            ("secret", address.and(secret).map(Value::from)),
            ("plugin", self.binding()?),
        ]));
        if let Value::Object(body) = &mut body {
            body.extend(more);
        }
        Ok(body)
    }

    fn binding(&self) -> Result<Option<Value>, CliError> {
        let Some(plugin) = &self.plugin else { return Ok(None) };
        let mut binding = Map::from_iter([("plugin".to_owned(), plugin.as_str().into())]);
        self.settings.apply(&self.config, &mut binding)?;
        binding.extend(given([
            ("role", self.role.as_deref().map(Value::from)),
            ("on_fault", self.on_fault.as_deref().map(Value::from)),
        ]));
        Ok(Some(binding.into()))
    }
}

impl Elsewhere {
    /// What the service is shown; without the line break at a file's end.
    fn secret(&self) -> Result<Option<String>, CliError> {
        let Some(path) = &self.secret_file else {
            return Ok(self.secret.clone().filter(|secret| !secret.is_empty()));
        };
        let mut text = String::new();
        let read = if path == Path::new(STDIN) {
            std::io::stdin().read_to_string(&mut text).map(drop)
        } else {
            fs::read_to_string(path).map(|read| text = read)
        };
        read.map_err(|error| CliError::unreadable(path, error))?;
        let secret = text.trim_end_matches(['\n', '\r']);
        if secret.is_empty() {
            return Err(CliError::unreadable(path, "there is no secret in it"));
        }
        Ok(Some(secret.to_owned()))
    }

    fn settings(&self) -> Map<String, Value> {
        let delays: Vec<Value> = self.retry.iter().map(millis).collect();
        let backoff = Some(delays).filter(|delays| !delays.is_empty());
        given([
            ("project", self.remote_project.as_deref().map(Value::from)),
            ("timeout_ms", self.answer_timeout.as_ref().map(millis)),
            ("concurrency", self.concurrency.map(Value::from)),
            ("rate_per_second", self.rate.map(Value::from)),
            ("attempts_max", self.attempts_max.map(Value::from)),
            ("backoff", backoff.map(|delays| json!({ "delays_ms": delays }))),
            ("ordered", self.ordered.then(|| true.into())),
        ])
        .collect()
    }
}

/// The fields that are given.
fn given<const N: usize>(
    fields: [(&str, Option<Value>); N],
) -> impl Iterator<Item = (String, Value)> {
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)))
}

fn millis(time: &Duration) -> Value {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::connector::{ConnectorArgs, ConnectorCommand};
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn put(args: &[&str]) -> Option<Put> {
        let args = ["stream", "connector", "put", "c"].iter().chain(args);
        match Cli::try_parse_from(args).ok()?.command {
            Command::Connector(ConnectorArgs { command: ConnectorCommand::Put(put) }) => Some(*put),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn what_is_given_is_sent_and_the_rest_is_the_servers() {
        let plain = ["--kind", "worker", "--match", "a.*"];
        let with = |more: &[&'static str]| [&plain[..], more].concat();
        let worker = |more: Value| {
            let mut body = json!({ "kind": "worker", "match": "a.*", "settings": {} });
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            Some(body)
        };
        let to = ["--address", "https://h"];
        let cases = [
            (with(&[]), worker(json!({}))),
            (
                with(&["--queue", "q", "--from", "earliest", "--batch", "5"]),
                worker(json!({ "settings": { "queue": "q", "from": "earliest", "batch": 5 } })),
            ),
            (
                with(
                    &[&to[..], &["--remote-project", "p", "--retry", "5s,1m", "--ordered"]]
                        .concat(),
                ),
                worker(json!({
                    "url": "https://h", "secret": "s",
                    "settings": { "project": "p", "backoff": { "delays_ms": [5_000, 60_000] },
                                  "ordered": true },
                })),
            ),
            (
                with(
                    &[
                        &to[..],
                        &[
                            "--answer-timeout",
                            "2s",
                            "--concurrency",
                            "4",
                            "--rate",
                            "0.5",
                            "--attempts-max",
                            "3",
                        ],
                    ]
                    .concat(),
                ),
                worker(json!({
                    "url": "https://h", "secret": "s",
                    "settings": { "timeout_ms": 2_000, "concurrency": 4, "rate_per_second": 0.5,
                                  "attempts_max": 3 },
                })),
            ),
            (
                with(&[
                    "--plugin",
                    "p",
                    "--role",
                    "validate",
                    "--config",
                    "c",
                    "--on-fault",
                    "skip",
                ]),
                worker(json!({ "plugin": { "plugin": "p", "role": "validate", "config": "c",
                                           "on_fault": "skip" } })),
            ),
            (with(&["--concurrency", "4"]), None),
            (with(&["--ordered"]), None),
            (with(&["--config", "c"]), None),
            (with(&["--role", "validate"]), None),
            (with(&[&to[..], &["--attempts-max", "0"]].concat()), None),
            (vec!["--kind", "mail", "--match", "a"], None),
            (vec!["--kind", "worker", "--match", "a..b"], None),
        ];
        for (args, expected) in cases {
            let body = put(&args).map(|put| put.body(Some("s".to_owned())).unwrap());
            assert_eq!(body, expected, "{args:?}");
        }
    }

    #[test]
    fn a_secret_is_a_files_text_without_its_last_line_break() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let secret = || {
            let path = path.to_str().unwrap();
            let args = ["--kind", "hooks", "--match", "a", "--address", "h", "--secret-file", path];
            put(&args).unwrap().elsewhere.secret()
        };
        assert_eq!(secret().unwrap_err().exit_code(), 4);
        fs::write(&path, " s3cret\r\n").unwrap();
        assert_eq!(secret().unwrap().as_deref(), Some(" s3cret"));
        fs::write(&path, "\n").unwrap();
        assert_eq!(secret().unwrap_err().exit_code(), 4);
    }
}
