//! `stream hooks endpoint`: make, list, show, change, rotate and delete endpoints.

use std::time::Duration;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::put;
use crate::cli::client::Client;
use crate::cli::output::{CliError, Output, cell, confirm, fields, items, table};
use crate::name::EndpointName;
use crate::pattern::Pattern;

/// Make, list, show, change, rotate and delete endpoints
#[derive(Debug, Args)]
pub(super) struct EndpointArgs {
    #[command(subcommand)]
    command: EndpointCommand,
}

#[derive(Debug, Subcommand)]
enum EndpointCommand {
    Create(Box<Create>),
    /// List all endpoints
    List,
    /// Show an endpoint and how requests are sent to it
    Show {
        /// The endpoint
        #[arg(value_parser = EndpointName::parse)]
        name: EndpointName,
    },
    Update(Box<Update>),
    /// Send what waits for it, and what comes from now on
    Enable {
        /// The endpoint
        #[arg(value_parser = EndpointName::parse)]
        name: EndpointName,
    },
    /// Send nothing: what waits for it stays, and it gets nothing new
    Disable {
        /// The endpoint
        #[arg(value_parser = EndpointName::parse)]
        name: EndpointName,
    },
    /// Give it another secret; the old one goes on signing for a while
    Rotate {
        /// The endpoint
        #[arg(value_parser = EndpointName::parse)]
        name: EndpointName,
        /// How long the old secret goes on signing
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
        overlap: Duration,
    },
    /// Delete an endpoint and its deliveries, those that wait, too
    Delete {
        /// The endpoint
        #[arg(value_parser = EndpointName::parse)]
        name: EndpointName,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// Make an endpoint, and print its secret, which is shown only now
#[derive(Debug, Args)]
struct Create {
    /// The endpoint
    #[arg(value_parser = EndpointName::parse)]
    name: EndpointName,

    /// Where events are posted to
    url: String,

    #[command(flatten)]
    about: About,
}

/// Change an endpoint; what is not given stays as it is
#[derive(Debug, Args)]
struct Update {
    /// The endpoint
    #[arg(value_parser = EndpointName::parse)]
    name: EndpointName,

    /// Where events are posted to
    #[arg(long)]
    url: Option<String>,

    #[command(flatten)]
    about: About,
}

#[derive(Debug, Args)]
struct About {
    /// Only events of types that match: `*` is one token, `**` zero or more. May be given several
    /// times
    #[arg(long, value_name = "PATTERN", num_args = 1.., value_parser = Pattern::parse)]
    events: Vec<Pattern>,

    /// A text for people
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,

    /// How long an answer may take [default: 15s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,

    /// The waits before new attempts, such as `5s,5m,30m` [default: ten attempts over three days]
    #[arg(long, value_name = "TIMES", value_delimiter = ',', value_parser = humantime::parse_duration)]
    retry: Vec<Duration>,

    /// Requests under way at once [default: 8]
    #[arg(long, value_name = "COUNT")]
    concurrency: Option<u32>,

    /// Requests a second [default: any number]
    #[arg(long, value_name = "NUMBER")]
    rate: Option<f64>,

    /// Let events of one key wait for each other
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    ordered: Option<bool>,
}

impl About {
    fn apply(&self, body: &mut Value) {
        if !self.events.is_empty() {
            let events: Vec<&str> = self.events.iter().map(Pattern::as_str).collect();
            put(body, "events", events.into());
        }
        if let Some(description) = &self.description {
            put(body, "description", description.as_str().into());
        }
        let mut settings = Map::new();
        if let Some(timeout) = self.timeout {
            settings.insert("timeout_ms".to_owned(), millis(&timeout));
        }
        if !self.retry.is_empty() {
            let delays: Vec<Value> = self.retry.iter().map(millis).collect();
            settings.insert("retry_delays_ms".to_owned(), delays.into());
        }
        if let Some(concurrency) = self.concurrency {
            settings.insert("concurrency".to_owned(), concurrency.into());
        }
        if let Some(rate) = self.rate {
            settings.insert("rate_per_second".to_owned(), rate.into());
        }
        if let Some(ordered) = self.ordered {
            settings.insert("ordered".to_owned(), ordered.into());
        }
        if !settings.is_empty() {
            put(body, "settings", settings.into());
        }
    }
}

fn millis(time: &Duration) -> Value {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).into()
}

impl EndpointArgs {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        let at = |method, name: &EndpointName| {
            client.request(method, &["webhooks", "endpoints", name.as_str()])
        };
        match self.command {
            EndpointCommand::Create(create) => {
                let Create { name, url, about } = *create;
                let mut body = json!({ "name": name.as_str(), "url": url });
                about.apply(&mut body);
                let request = client.request(Method::POST, &["webhooks", "endpoints"]);
                output.show(&client.json(request.json(&body)).await?, human)?;
            }
            EndpointCommand::List => {
                let path = ["webhooks", "endpoints"];
                let list = client.pages("endpoints", || client.request(Method::GET, &path));
                output.show(&list.await?, human_list)?;
            }
            EndpointCommand::Show { name } => {
                output.show(&client.json(at(Method::GET, &name)).await?, human)?;
            }
            EndpointCommand::Update(update) => {
                let Update { name, url, about } = *update;
                let mut body = json!({});
                if let Some(url) = url {
                    put(&mut body, "url", url.into());
                }
                about.apply(&mut body);
                output.show(&client.json(at(Method::PATCH, &name).json(&body)).await?, human)?;
            }
            EndpointCommand::Enable { name } => {
                let request = at(Method::PATCH, &name).json(&json!({ "enabled": true }));
                output.show(&client.json(request).await?, human)?;
            }
            EndpointCommand::Disable { name } => {
                let request = at(Method::PATCH, &name).json(&json!({ "enabled": false }));
                output.show(&client.json(request).await?, human)?;
            }
            EndpointCommand::Rotate { name, overlap } => {
                let path = ["webhooks", "endpoints", name.as_str(), "rotate-secret"];
                let body = json!({ "overlap_seconds": overlap.as_secs() });
                let request = client.request(Method::POST, &path).json(&body);
                output.show(&client.json(request).await?, human)?;
            }
            EndpointCommand::Delete { name, yes } => {
                let question = format!("delete the endpoint `{name}` with all its deliveries?");
                if !yes && !confirm(name.as_str(), &question)? {
                    return Ok(());
                }
                client.send(at(Method::DELETE, &name)).await?;
                output.done(&format!("deleted `{name}`"))?;
            }
        }
        Ok(())
    }
}

fn human(endpoint: &Value) -> String {
    let none = Value::Null;
    let settings = endpoint.get("settings").unwrap_or(&none);
    let delays = items(settings, "retry_delays_ms").iter().filter_map(Value::as_u64);
    let delays: Vec<String> = delays
        .map(|delay| humantime::format_duration(Duration::from_millis(delay)).to_string())
        .collect();
    fields([
        ("name", cell(endpoint, "name")),
        ("id", cell(endpoint, "endpoint_id")),
        ("url", cell(endpoint, "url")),
        ("secret", cell(endpoint, "secret")),
        ("events", events(endpoint)),
        ("state", state(endpoint)),
        ("description", cell(endpoint, "description")),
        ("timeout", format!("{} ms", cell(settings, "timeout_ms"))),
        ("retries", delays.join(", ")),
        ("concurrency", cell(settings, "concurrency")),
        ("rate", cell(settings, "rate_per_second")),
        ("ordered", cell(settings, "ordered")),
        ("created", cell(endpoint, "created_at")),
    ])
}

fn human_list(list: &Value) -> String {
    let row = |endpoint| {
        let [name, url] = ["name", "url"].map(|field| cell(endpoint, field));
        [name, state(endpoint), events(endpoint), url]
    };
    let rows: Vec<_> = items(list, "endpoints").iter().map(row).collect();
    table(["NAME", "STATE", "EVENTS", "URL"], &rows)
}

fn events(endpoint: &Value) -> String {
    if items(endpoint, "events").is_empty() { "all".to_owned() } else { cell(endpoint, "events") }
}

fn state(endpoint: &Value) -> String {
    match endpoint.get("disabled") {
        Some(why) => format!("disabled: {} since {}", cell(why, "reason"), cell(why, "at")),
        None => "enabled".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command, hooks};
    use clap::Parser;

    fn body(args: &[&str]) -> Option<Value> {
        let args = ["stream", "hooks", "endpoint", "update", "e"].iter().chain(args);
        let Command::Hooks(args) = Cli::try_parse_from(args).ok()?.command else { panic!() };
        let hooks::HooksCommand::Endpoint(args) = args.command else { panic!("{args:?}") };
        let EndpointCommand::Update(update) = args.command else { panic!("{args:?}") };
        let mut body = json!({});
        update.about.apply(&mut body);
        Some(body)
    }

    #[test]
    fn only_what_is_said_is_changed() {
        assert_eq!(body(&[]), Some(json!({})));
        let said = body(&["--events", "a.*", "b", "--retry", "5s,1m", "--ordered"]);
        let expected = json!({
            "events": ["a.*", "b"],
            "settings": { "retry_delays_ms": [5_000, 60_000], "ordered": true },
        });
        assert_eq!(said, Some(expected));
        for args in [&["--events", "a..b"][..], &["--retry", "soon"], &["--rate", "x"]] {
            assert_eq!(body(args), None, "{args:?}");
        }
    }

    #[test]
    fn a_disabled_endpoint_says_why() {
        let endpoint = json!({
            "name": "e", "url": "u", "events": [],
            "disabled": { "reason": "gone", "at": "T" },
        });
        let text = human_list(&json!({ "endpoints": [endpoint] }));
        assert!(text.contains("disabled: gone since T") && text.contains(" all "), "{text}");
    }
}
