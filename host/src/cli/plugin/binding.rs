//! `stream plugin bind`, `unbind`, `rollback` and `bindings`: which plugins topics have.
//!
//! The server keeps a list for each role and pattern, and changes it as a whole; each command changes
//! what it read, and the list's revision tells the server whether that is still so.

use clap::Args;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::bytes;
use super::settings::{Config, Settings, config_cell, on_fault};
use crate::cli::client::Client;
use crate::cli::output::{CliError, Output, cell, items, table};
use crate::name::PluginName;
use crate::pattern::Pattern;
use crate::stage::Role;

/// Where plugins are bound.
#[derive(Debug, Args)]
struct Place {
    /// What the plugins do there: `validate`, `transform` or `partition`
    #[arg(long, value_parser = parse_role)]
    role: Role,

    /// The topic, or a pattern: `*` is one token, `**` zero or more
    #[arg(long, value_name = "PATTERN", value_parser = Pattern::parse)]
    topic: Pattern,
}

fn parse_role(word: &str) -> Result<Role, String> {
    match Role::parse(word) {
        Some(Role::Route) => Err("a router belongs to a route: `stream route put NAME --match \
                                  PATTERN --to TOPIC --plugin PLUGIN` sets one"
            .to_owned()),
        Some(role) => Ok(role),
        None => Err("expected `validate`, `transform` or `partition`".to_owned()),
    }
}

/// Bind a plugin to topics, or change how it is bound
///
/// A plugin that is new there comes after the others. One that is there keeps its place and what is
/// not given here, but for its version: it is the newest unless given.
#[derive(Debug, Args)]
pub(super) struct Bind {
    /// The plugin
    #[arg(value_parser = PluginName::parse)]
    name: PluginName,

    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    config: Config,

    /// What becomes of events when the plugin breaks
    #[arg(long, value_name = "POLICY", value_parser = on_fault())]
    on_fault: Option<String>,
}

impl Bind {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        output.show(&self.send(client).await?, human)?;
        Ok(())
    }

    async fn send(&self, client: &Client) -> Result<Value, CliError> {
        change(client, &self.place, |bindings| self.apply(bindings)).await
    }

    fn apply(&self, bindings: &mut Vec<Value>) -> Result<(), CliError> {
        let name = self.name.as_str();
        let place = bindings.iter().position(|binding| is_of(binding, name));
        let mut binding = match place.and_then(|place| bindings.get(place)) {
            Some(Value::Object(binding)) => binding.clone(),
            _ => Map::from_iter([("plugin".to_owned(), name.into())]),
        };
        self.settings.apply(&self.config, &mut binding)?;
        if let Some(policy) = &self.on_fault {
            binding.insert("on_fault".to_owned(), policy.as_str().into());
        }
        match place.and_then(|place| bindings.get_mut(place)) {
            Some(place) => *place = binding.into(),
            None => bindings.push(binding.into()),
        }
        Ok(())
    }
}

/// Take a plugin away from topics
#[derive(Debug, Args)]
pub(super) struct Unbind {
    /// The plugin
    #[arg(value_parser = PluginName::parse)]
    name: PluginName,

    #[command(flatten)]
    place: Place,
}

impl Unbind {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        output.show(&self.send(client).await?, human)?;
        Ok(())
    }

    async fn send(&self, client: &Client) -> Result<Value, CliError> {
        change(client, &self.place, |bindings| self.apply(bindings)).await
    }

    fn apply(&self, bindings: &mut Vec<Value>) -> Result<(), CliError> {
        let before = bindings.len();
        bindings.retain(|binding| !is_of(binding, self.name.as_str()));
        if bindings.len() < before {
            return Ok(());
        }
        let Place { role, topic } = &self.place;
        let problem = format!("`{}` is not bound to `{topic}` as `{}`", self.name, role.as_str());
        Err(CliError::Usage(problem))
    }
}

/// Bring back what was bound before the last change; done again, it goes further back
#[derive(Debug, Args)]
pub(super) struct Rollback {
    #[command(flatten)]
    place: Place,
}

impl Rollback {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        let Place { role, topic } = &self.place;
        let path = ["bindings", role.as_str(), topic.as_str(), "rollback"];
        let list = client.json(client.request(Method::POST, &path)).await?;
        output.show(&list, human)?;
        Ok(())
    }
}

pub(super) async fn list(client: &Client, output: Output) -> Result<(), CliError> {
    let lists = client.list("bindings").await?;
    output.show(&lists, |lists| human_lists(items(lists, "bindings")))?;
    Ok(())
}

fn is_of(binding: &Value, plugin: &str) -> bool {
    binding.get("plugin").and_then(Value::as_str) == Some(plugin)
}

/// Changes the list of a place; once more, if somebody else changes it meanwhile.
async fn change(
    client: &Client,
    place: &Place,
    change: impl Fn(&mut Vec<Value>) -> Result<(), CliError>,
) -> Result<Value, CliError> {
    let path = ["bindings", place.role.as_str(), place.topic.as_str()];
    let mut is_last = false;
    loop {
        let (mut bindings, revision) = match client.json(client.request(Method::GET, &path)).await {
            Ok(list) => (sendable(&list), list.get("revision").cloned()),
            Err(error) if error.has_code("bindings-not-found") => (Vec::new(), Some(0.into())),
            Err(error) => return Err(error),
        };
        change(&mut bindings)?;
        let body = json!({ "bindings": bindings, "revision": revision });
        match client.json(client.request(Method::PUT, &path).json(&body)).await {
            Err(error) if error.has_code("stale-revision") && !is_last => is_last = true,
            answer => return answer,
        }
    }
}

/// The bindings of a list, without fields that are not set: null is a config, too.
fn sendable(list: &Value) -> Vec<Value> {
    let mut bindings = items(list, "bindings").to_vec();
    for binding in bindings.iter_mut().filter_map(Value::as_object_mut) {
        binding.retain(|_, value| !value.is_null());
    }
    bindings
}

fn human(list: &Value) -> String {
    human_lists(std::slice::from_ref(list))
}

/// A row a binding; a place where nothing is bound any more has one, too: it can be rolled back.
fn human_lists(lists: &[Value]) -> String {
    const NOTHING: &[Value] = &[Value::Null];
    let rows_of = |list| {
        let bindings = items(list, "bindings");
        let bindings = if bindings.is_empty() { NOTHING } else { bindings };
        bindings.iter().map(move |binding| row(list, binding))
    };
    let rows: Vec<_> = lists.iter().flat_map(rows_of).collect();
    let titles = [
        "ROLE", "TOPICS", "REVISION", "PLUGIN", "VERSION", "ON FAULT", "MS", "MEMORY", "INSTANCE",
        "CONFIG",
    ];
    table(titles, &rows)
}

fn row(list: &Value, binding: &Value) -> [String; 10] {
    let [role, pattern, revision] = ["role", "pattern", "revision"].map(|field| cell(list, field));
    let [plugin, version, on_fault, millis, instance] =
        ["plugin", "version", "on_fault", "timeout_ms", "instance"]
            .map(|field| cell(binding, field));
    let (memory, config) = (bytes(binding, "memory"), config_cell(binding));
    [role, pattern, revision, plugin, version, on_fault, millis, memory, instance, config]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use crate::cli::client::tests::serve;
    use crate::cli::plugin::{PluginArgs, PluginCommand};
    use axum::extract::State;
    use axum::http::StatusCode;
    use axum::routing::get;
    use axum::{Json, Router};
    use clap::Parser;
    use std::sync::{Arc, Mutex};

    fn parse(args: &[&str]) -> Result<PluginCommand, clap::Error> {
        let cli = Cli::try_parse_from(["stream", "plugin"].iter().chain(args))?;
        match cli.command {
            crate::cli::Command::Plugin(PluginArgs { command }) => Ok(command),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_place_is_a_role_and_a_pattern() {
        let cases: [(&[&str], bool); 8] = [
            (&["bind", "p", "--role", "validate", "--topic", "order.*"], true),
            (&["bind", "p", "--role", "validate"], false),
            (&["bind", "p", "--role", "cook", "--topic", "t"], false),
            (&["bind", "p", "--role", "transform", "--topic", "a..b"], false),
            (&["bind", "p", "--role", "validate", "--topic", "t", "--on-fault", "skip"], true),
            (&["bind", "p", "--role", "validate", "--topic", "t", "--on-fault", "ignore"], false),
            (&["unbind", "p", "--role", "partition", "--topic", "**"], true),
            (&["rollback", "--role", "transform", "--topic", "t"], true),
        ];
        for (args, is_valid) in cases {
            assert_eq!(parse(args).is_ok(), is_valid, "{args:?}");
        }
        let error = parse(&["bind", "p", "--role", "route", "--topic", "t"]).unwrap_err();
        assert!(error.to_string().contains("`stream route put"), "{error}");
    }

    /// A server's only list, and how often it still changes it between a read and a write.
    struct Stub {
        bindings: Value,
        revision: u64,
        changes: u64,
    }

    type Shared = Arc<Mutex<Stub>>;

    fn told(code: &str) -> Json<Value> {
        Json(json!({ "error": { "code": code, "message": "m", "retryable": false } }))
    }

    async fn read(State(stub): State<Shared>) -> Result<Json<Value>, (StatusCode, Json<Value>)> {
        let mut stub = stub.lock().unwrap();
        let list = json!({ "bindings": stub.bindings, "revision": stub.revision });
        if stub.changes > 0 {
            (stub.changes, stub.revision) = (stub.changes - 1, stub.revision + 1);
        }
        match list["revision"].as_u64() {
            Some(0) => Err((StatusCode::NOT_FOUND, told("bindings-not-found"))),
            _ => Ok(Json(list)),
        }
    }

    async fn write(
        State(stub): State<Shared>,
        Json(body): Json<Value>,
    ) -> Result<Json<Value>, (StatusCode, Json<Value>)> {
        let mut stub = stub.lock().unwrap();
        if body["revision"] != stub.revision {
            return Err((StatusCode::CONFLICT, told("stale-revision")));
        }
        (stub.bindings, stub.revision) = (body["bindings"].clone(), stub.revision + 1);
        Ok(Json(json!({ "bindings": stub.bindings, "revision": stub.revision })))
    }

    /// Runs a command against a server with these bindings; returns those that are left.
    async fn run(bindings: Value, changes: u64, args: &[&str]) -> Result<Value, CliError> {
        let revision = if bindings.is_null() { 0 } else { 7 };
        let stub = Arc::new(Mutex::new(Stub { bindings, revision, changes }));
        let path = "/projects/p/bindings/validate/order.*";
        let router = Router::new().route(path, get(read).put(write)).with_state(stub.clone());
        let client = serve(router).await;
        let place = ["--role", "validate", "--topic", "order.*"];
        let args: Vec<&str> = args.iter().chain(&place).copied().collect();
        let _list = match parse(&args).unwrap() {
            PluginCommand::Bind(bind) => bind.send(&client).await?,
            PluginCommand::Unbind(unbind) => unbind.send(&client).await?,
            other => panic!("{other:?}"),
        };
        let bindings = stub.lock().unwrap().bindings.clone();
        Ok(bindings)
    }

    fn two() -> Value {
        json!([
            { "plugin": "a", "version": 1, "config": "x", "on_fault": "skip" },
            { "plugin": "b", "version": 2, "config": null },
        ])
    }

    #[tokio::test]
    async fn a_plugin_that_is_new_comes_last() {
        let bound = run(two(), 0, &["bind", "c", "--version", "3"]).await.unwrap();
        let expected = json!([
            { "plugin": "a", "version": 1, "config": "x", "on_fault": "skip" },
            { "plugin": "b", "version": 2 },
            { "plugin": "c", "version": 3 },
        ]);
        assert_eq!(bound, expected);
        let first = run(Value::Null, 0, &["bind", "c", "--on-fault", "skip"]).await.unwrap();
        assert_eq!(first, json!([{ "plugin": "c", "on_fault": "skip" }]));
    }

    #[tokio::test]
    async fn a_plugin_that_is_there_keeps_its_place_and_what_is_not_given() {
        let bound = run(two(), 0, &["bind", "a", "--timeout-ms", "9"]).await.unwrap();
        let expected = json!([
            { "plugin": "a", "config": "x", "on_fault": "skip", "timeout_ms": 9 },
            { "plugin": "b", "version": 2 },
        ]);
        assert_eq!(bound, expected);
    }

    #[tokio::test]
    async fn unbinding_leaves_the_others() {
        let left = run(two(), 0, &["unbind", "a"]).await.unwrap();
        assert_eq!(left, json!([{ "plugin": "b", "version": 2 }]));
        let error = run(two(), 0, &["unbind", "c"]).await.unwrap_err();
        assert_eq!(error.to_string(), "`c` is not bound to `order.*` as `validate`");
    }

    #[tokio::test]
    async fn a_change_in_between_is_met_once() {
        let bound = run(two(), 1, &["unbind", "a"]).await.unwrap();
        assert_eq!(bound, json!([{ "plugin": "b", "version": 2 }]));
        let error = run(two(), 2, &["unbind", "a"]).await.unwrap_err();
        assert!(error.has_code("stale-revision"), "{error:?}");
    }

    #[test]
    fn bindings_are_shown_a_row_each_and_empty_places_too() {
        let lists = json!([
            { "role": "validate", "pattern": "order.*", "revision": 3, "bindings": [
                { "plugin": "a", "version": 1, "config": "x", "on_fault": "reject",
                  "timeout_ms": 100, "memory": 67_108_864, "instance": "kept" },
                { "plugin": "b", "version": 2, "config": { "n": [1] }, "on_fault": "skip",
                  "timeout_ms": 7, "memory": 1_048_576, "instance": "fresh" },
            ]},
            { "role": "transform", "pattern": "t", "revision": 9, "bindings": [] },
        ]);
        let text = human_lists(lists.as_array().unwrap());
        for part in [
            "validate   order.*         3  a       1        reject    100  64.00 MiB  kept      x\n",
            "validate   order.*         3  b       2        skip      7    1.00 MiB   fresh     {\"n\":[1]}\n",
            "transform  t               9  -       -        -         -    -          -         -\n",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
    }
}
