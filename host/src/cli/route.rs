//! `stream route`: set, list and delete routes, which copy events to further topics.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::Client;
use super::output::{CliError, Output, cell, fields, items, table};
use super::plugin::settings::{Config, Settings, config_cell, on_fault};
use super::plugin::{PATIENCE, bytes, versioned};
use crate::name::{PluginName, RouteName};
use crate::pattern::Pattern;

/// Set, list and delete routes, which copy events to further topics
#[derive(Debug, Args)]
pub(super) struct RouteArgs {
    #[command(subcommand)]
    command: RouteCommand,
}

#[derive(Debug, Subcommand)]
enum RouteCommand {
    /// List all routes
    List,
    Put(Box<Put>),
    /// Delete a route
    Delete {
        /// The route
        #[arg(value_parser = RouteName::parse)]
        name: RouteName,
    },
}

/// Set a route; one of that name is replaced as a whole
#[derive(Debug, Args)]
#[command(mut_group("Settings", |settings| settings.requires("plugin")))]
#[command(mut_group("Config", |config| config.requires("plugin")))]
struct Put {
    /// The route
    #[arg(value_parser = RouteName::parse)]
    name: RouteName,

    /// The topics whose events are copied: `*` is one token, `**` zero or more
    #[arg(long = "match", value_name = "PATTERN", value_parser = Pattern::parse)]
    topics: Pattern,

    /// Where the copies go; with --plugin patterns are allowed, and it chooses. May be given several
    /// times
    #[arg(long, value_name = "TOPIC", required = true, num_args = 1.., value_parser = Pattern::parse)]
    to: Vec<Pattern>,

    /// A plugin that chooses the topics of each event
    #[arg(long, value_name = "NAME", value_parser = PluginName::parse)]
    plugin: Option<PluginName>,

    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    config: Config,

    /// What becomes of events when the plugin breaks or a topic is missing
    #[arg(long, value_name = "POLICY", value_parser = on_fault())]
    on_fault: Option<String>,
}

impl Put {
    fn body(&self) -> Result<Value, CliError> {
        let to: Vec<&str> = self.to.iter().map(Pattern::as_str).collect();
        let mut body = json!({ "match": self.topics.as_str(), "to": to });
        if let Some(plugin) = &self.plugin {
            let mut binding = Map::from_iter([("plugin".to_owned(), plugin.as_str().into())]);
            self.settings.apply(&self.config, &mut binding)?;
            put(&mut body, "plugin", binding.into());
        }
        if let Some(policy) = &self.on_fault {
            put(&mut body, "on_fault", policy.as_str().into());
        }
        Ok(body)
    }
}

fn put(body: &mut Value, field: &str, value: Value) {
    if let Value::Object(fields) = body {
        fields.insert(field.to_owned(), value);
    }
}

impl RouteArgs {
    pub(super) async fn run(self, client: Client, output: Output) -> Result<(), CliError> {
        match self.command {
            RouteCommand::List => output.show(&client.list("routes").await?, human_list)?,
            RouteCommand::Put(route) => {
                let client = client.patient(PATIENCE)?;
                let request = client.request(Method::PUT, &["routes", route.name.as_str()]);
                let set = client.json(request.json(&route.body()?)).await?;
                output.show(&set, human)?;
            }
            RouteCommand::Delete { name } => {
                client.send(client.request(Method::DELETE, &["routes", name.as_str()])).await?;
                output.done(&format!("deleted `{name}`"))?;
            }
        }
        Ok(())
    }
}

fn human(route: &Value) -> String {
    let about = fields([
        ("name", cell(route, "name")),
        ("match", cell(route, "match")),
        ("to", cell(route, "to")),
        ("on fault", cell(route, "on_fault")),
        ("plugin", plugin(route)),
    ]);
    let Some(binding) = route.get("plugin").filter(|binding| binding.is_object()) else {
        return about;
    };
    let called = fields([
        ("config  ", config_cell(binding)),
        ("a call", format!("{} ms", cell(binding, "timeout_ms"))),
        ("memory", bytes(binding, "memory")),
        ("instance", cell(binding, "instance")),
    ]);
    about + &called
}

fn human_list(list: &Value) -> String {
    let row = |route| {
        let [name, topics, to, on_fault] =
            ["name", "match", "to", "on_fault"].map(|field| cell(route, field));
        let config = config_cell(route.get("plugin").unwrap_or(&Value::Null));
        [name, topics, to, on_fault, plugin(route), config]
    };
    let rows: Vec<_> = items(list, "routes").iter().map(row).collect();
    table(["NAME", "MATCH", "TO", "ON FAULT", "PLUGIN", "CONFIG"], &rows)
}

fn plugin(route: &Value) -> String {
    versioned("plugin", route.get("plugin").unwrap_or(&Value::Null))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn body(args: &[&str]) -> Option<Value> {
        let args = ["stream", "route", "put", "r"].iter().chain(args);
        match Cli::try_parse_from(args).ok()?.command {
            Command::Route(RouteArgs { command: RouteCommand::Put(put) }) => {
                Some(put.body().unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_route_has_topics_on_both_sides_and_settings_only_with_a_plugin() {
        let plain = json!({ "match": "order.*", "to": ["audit", "all"], "on_fault": "skip" });
        let chosen = json!({
            "match": "**", "to": ["carrier.*"],
            "plugin": { "plugin": "p", "version": 2, "config": "c" },
        });
        let cases: [(&[&str], Option<Value>); 8] = [
            (
                &["--match", "order.*", "--to", "audit", "all", "--on-fault", "skip"],
                Some(plain.clone()),
            ),
            (
                &["--match", "order.*", "--to", "audit", "--to", "all", "--on-fault", "skip"],
                Some(plain),
            ),
            (
                &[
                    "--match",
                    "**",
                    "--to",
                    "carrier.*",
                    "--plugin",
                    "p",
                    "--version",
                    "2",
                    "--config",
                    "c",
                ],
                Some(chosen),
            ),
            (&["--match", "**"], None),
            (&["--to", "audit"], None),
            (&["--match", "a..b", "--to", "audit"], None),
            (&["--match", "**", "--to", "audit", "--version", "2"], None),
            (&["--match", "**", "--to", "audit", "--config", "c"], None),
        ];
        for (args, expected) in cases {
            assert_eq!(body(args), expected, "{args:?}");
        }
    }

    #[test]
    fn a_route_shows_its_plugin_and_how_it_is_called() {
        let binding = json!({
            "plugin": "p", "version": 2, "config": "c", "timeout_ms": 100,
            "memory": 67_108_864, "instance": "kept",
        });
        let with = json!({
            "name": "r", "match": "**", "to": ["a", "b"], "plugin": binding, "on_fault": "reject",
        });
        let without = json!({
            "name": "s", "match": "x", "to": ["a"], "plugin": null, "on_fault": "skip",
        });
        let expected = "name      r\nmatch     **\nto        a,b\non fault  reject\n\
                        plugin    p@2\nconfig    c\na call    100 ms\nmemory    64.00 MiB\n\
                        instance  kept\n";
        assert_eq!(human(&with), expected);
        assert!(human(&without).ends_with("plugin    -\n"));
        let expected = "NAME  MATCH  TO   ON FAULT  PLUGIN  CONFIG\n\
                        r     **     a,b  reject    p@2     c\n\
                        s     x      a    skip      -       -\n";
        assert_eq!(human_list(&json!({ "routes": [with, without] })), expected);
    }
}
