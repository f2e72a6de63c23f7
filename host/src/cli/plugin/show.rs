//! `stream plugin list`, `describe` and `logs`: what there is, and what can be seen of it.

use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use reqwest::Method;
use serde_json::{Value, json};

use super::bytes;
use crate::cli::client::Client;
use crate::cli::output::{CliError, Output, cell, fields, items, say, table};
use crate::name::PluginName;

pub(super) async fn list(client: &Client, output: Output) -> Result<(), CliError> {
    output.show(&client.list("plugins").await?, human_list)?;
    Ok(())
}

fn human_list(list: &Value) -> String {
    let row = |plugin| {
        let [name, version, roles, created, versions] =
            ["name", "version", "roles", "created_at", "versions"].map(|field| cell(plugin, field));
        [name, version, roles, bytes(plugin, "size"), created, versions]
    };
    let rows: Vec<_> = items(list, "plugins").iter().map(row).collect();
    table(["NAME", "VERSION", "ROLES", "SIZE", "UPLOADED", "VERSIONS"], &rows)
}

pub(super) async fn describe(
    client: &Client,
    name: &PluginName,
    output: Output,
) -> Result<(), CliError> {
    let name = name.as_str();
    let plugin = client.json(client.request(Method::GET, &["plugins", name])).await?;
    let stats = client.json(client.request(Method::GET, &["plugins", name, "stats"])).await?;
    let all = json!({ "plugin": plugin, "stats": stats.get("versions") });
    output.show(&all, human_description)?;
    Ok(())
}

fn human_description(all: &Value) -> String {
    let plugin = all.get("plugin").unwrap_or(&Value::Null);
    let limits = plugin.get("limits").unwrap_or(&Value::Null);
    let about = fields([
        ("name", cell(plugin, "name")),
        ("bound", items_or_none(plugin, "bound")),
        ("time a call", millis_up_to(limits)),
        ("memory", format!("{}, up to {}", bytes(limits, "memory"), bytes(limits, "memory_max"))),
    ]);
    let row = |version| {
        let [number, roles, created, digest] =
            ["version", "roles", "created_at", "digest"].map(|field| cell(version, field));
        [number, roles, bytes(version, "size"), created, digest]
    };
    let rows: Vec<_> = items(plugin, "versions").iter().map(row).collect();
    let mut parts = vec![about, table(["VERSION", "ROLES", "SIZE", "UPLOADED", "DIGEST"], &rows)];
    let paused = items(plugin, "paused");
    if !paused.is_empty() {
        parts.push(human_paused(paused));
    }
    let stats = items(all, "stats");
    if !stats.is_empty() {
        parts.push(human_stats(stats));
    }
    parts.join("\n")
}

fn items_or_none(plugin: &Value, field: &str) -> String {
    let places: Vec<&str> = items(plugin, field).iter().filter_map(Value::as_str).collect();
    if places.is_empty() { "nowhere".to_owned() } else { places.join(", ") }
}

fn millis_up_to(limits: &Value) -> String {
    format!("{} ms, up to {} ms", cell(limits, "timeout_ms"), cell(limits, "timeout_ms_max"))
}

fn human_paused(paused: &[Value]) -> String {
    let row = |paused| {
        let [place, version, reason] =
            ["place", "version", "reason"].map(|field| cell(paused, field));
        let left = paused.get("retry_after_ms").and_then(Value::as_u64);
        let left = left.map_or("-".to_owned(), |millis| short(Duration::from_millis(millis)));
        [place, version, left, reason]
    };
    let rows: Vec<_> = paused.iter().map(row).collect();
    table(["PAUSED", "VERSION", "RETRIED IN", "REASON"], &rows)
}

fn human_stats(versions: &[Value]) -> String {
    let row = |version| {
        let [number, calls, events, instances] =
            ["version", "calls", "events", "instances"].map(|field| cell(version, field));
        let [outcomes, faults] = ["outcomes", "faults"].map(|field| counts(version, field));
        let [half, most] = [0.5, 0.99].map(|share| quantile(version, share));
        let memory = bytes(version, "memory_peak");
        [number, calls, events, half, most, memory, instances, outcomes, faults]
    };
    let rows: Vec<_> = versions.iter().map(row).collect();
    let titles =
        ["VERSION", "CALLS", "EVENTS", "50 %", "99 %", "MEMORY", "INSTANCES", "OUTCOMES", "FAULTS"];
    table(titles, &rows)
}

/// Those of some counts that are not zero.
fn counts(version: &Value, field: &str) -> String {
    let counts = version.get(field).and_then(Value::as_object).into_iter().flatten();
    let told: Vec<String> = counts
        .filter(|(_, count)| count.as_u64() != Some(0))
        .map(|(word, count)| format!("{count} {word}"))
        .collect();
    if told.is_empty() { "-".to_owned() } else { told.join(", ") }
}

/// The bound that a share of the calls kept to; `-` without calls.
fn quantile(version: &Value, share: f64) -> String {
    let latency = version.get("latency").unwrap_or(&Value::Null);
    let buckets: Vec<(f64, f64)> = items(latency, "buckets")
        .iter()
        .filter_map(|bucket| Some((bucket.get("le")?.as_f64()?, bucket.get("count")?.as_f64()?)))
        .collect();
    let calls = latency.get("count").and_then(Value::as_f64).unwrap_or_default();
    if calls == 0.0 {
        return "-".to_owned();
    }
    let bound = |seconds: f64| Duration::try_from_secs_f64(seconds).map(short).unwrap_or_default();
    match (buckets.iter().find(|(_, count)| *count >= share * calls), buckets.last()) {
        (Some((seconds, _)), _) => format!("≤ {}", bound(*seconds)),
        (None, Some((seconds, _))) => format!("> {}", bound(*seconds)),
        (None, None) => "-".to_owned(),
    }
}

/// `250µs`, `1.5ms`, `3s`.
pub(super) fn short(duration: Duration) -> String {
    format!("{duration:?}")
}

/// Print what a version wrote to its standard output and standard error, the newest last
#[derive(Debug, Args)]
pub(super) struct Logs {
    /// The plugin
    #[arg(value_parser = PluginName::parse)]
    name: PluginName,

    /// Its version; the newest unless given
    #[arg(long, value_name = "N")]
    version: Option<u64>,

    /// At most so many lines
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    limit: Option<u64>,
}

impl Logs {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        let log = self.fetch(client).await?;
        let dropped = log.get("dropped_bytes").and_then(Value::as_u64).unwrap_or_default();
        if dropped > 0 {
            say(&format!("{dropped} bytes of it are not kept\n"));
        }
        output.show(&log, human_log)?;
        Ok(())
    }

    async fn fetch(&self, client: &Client) -> Result<Value, CliError> {
        let request = client
            .request(Method::GET, &["plugins", self.name.as_str(), "logs"])
            .query(&[("version", self.version), ("limit", self.limit)]);
        client.json(request).await
    }
}

fn human_log(log: &Value) -> String {
    let lines = items(log, "lines").iter();
    lines.map(|line| format!("{}  {}\n", cell(line, "time"), cell(line, "text"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::tests::serve;
    use axum::extract::RawQuery;
    use axum::routing::get;

    fn plugin() -> Value {
        json!({
            "name": "orders",
            "limits": {
                "timeout_ms": 100, "timeout_ms_max": 3_000,
                "memory": 67_108_864, "memory_max": 268_435_456,
            },
            "versions": [
                { "version": 1, "digest": "sha256:aa", "size": 1_024, "roles": ["validate"],
                  "created_at": "T1" },
                { "version": 2, "digest": "sha256:bb", "size": 2_048, "roles": ["validate"],
                  "created_at": "T2" },
            ],
            "bound": ["validate/order.*", "route/r1"],
            "paused": [],
        })
    }

    #[test]
    fn a_list_shows_each_plugins_newest_version() {
        let list = json!({ "plugins": [{
            "name": "orders", "version": 2, "roles": ["validate", "route"], "size": 2_048,
            "created_at": "T", "versions": 2,
        }]});
        let expected = "NAME    VERSION  ROLES           SIZE      UPLOADED  VERSIONS\n\
                        orders        2  validate,route  2.00 KiB  T                2\n";
        assert_eq!(human_list(&list), expected);
    }

    #[test]
    fn a_description_shows_places_limits_and_versions() {
        let text = human_description(&json!({ "plugin": plugin(), "stats": [] }));
        for part in [
            "bound        validate/order.*, route/r1\n",
            "time a call  100 ms, up to 3000 ms\n",
            "memory       64.00 MiB, up to 256.00 MiB\n",
            "\n      2  validate  2.00 KiB  T2        sha256:bb\n",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        assert!(!text.contains("PAUSED") && !text.contains("CALLS"), "{text}");
    }

    #[test]
    fn a_description_shows_what_is_paused_and_what_was_counted() {
        let mut plugin = plugin();
        plugin["bound"] = json!([]);
        plugin["paused"] = json!([{
            "place": "validate/order.*", "version": 2, "reason": "timeout", "retry_after_ms": 4_500,
        }]);
        let stats = json!([{
            "version": 2, "calls": 4, "events": 40, "instances": 1, "memory_peak": 1_048_576,
            "outcomes": { "accepted": 38, "rejected": 0 }, "faults": { "timeout": 1 },
            "latency": { "count": 4, "sum_seconds": 0.1, "buckets": [
                { "le": 0.0005, "count": 2 }, { "le": 0.1, "count": 3 },
            ]},
        }]);
        let text = human_description(&json!({ "plugin": plugin, "stats": stats }));
        for part in [
            "bound        nowhere\n",
            "validate/order.*        2  4.5s        timeout\n",
            "2      4      40  ≤ 500µs  > 100ms  1.00 MiB          1  38 accepted  1 timeout\n",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
    }

    #[test]
    fn without_calls_there_is_no_quantile() {
        let buckets = json!([{ "le": 0.1, "count": 0 }]);
        let never = json!({ "latency": { "count": 0, "buckets": buckets } });
        assert_eq!([quantile(&never, 0.5), quantile(&Value::Null, 0.5)], ["-", "-"]);
    }

    #[test]
    fn a_log_is_a_line_a_line() {
        let log = json!({ "lines": [
            { "time": "T1", "text": "one" },
            { "time": "T2", "text": "\u{1b}[2Jtwo" },
        ]});
        assert_eq!(human_log(&log), "T1  one\nT2   [2Jtwo\n");
    }

    #[tokio::test]
    async fn only_what_is_given_is_asked_of_a_log() {
        let answer = |RawQuery(query): RawQuery| async move {
            assert_eq!(query.as_deref(), Some("limit=5"));
            axum::Json(json!({ "lines": [] }))
        };
        let router = axum::Router::new().route("/projects/p/plugins/orders/logs", get(answer));
        let name = PluginName::parse("orders").unwrap();
        let logs = Logs { name, version: None, limit: Some(5) };
        logs.fetch(&serve(router).await).await.unwrap();
    }
}
