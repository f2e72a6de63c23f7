//! `stream bench growth`: how cost grows with topics, connections, groups and stored records.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::Told;
use super::consume::{ConsumeBench, fill, first_pages};
use super::figures::{Times, millis, short};
use super::payload::Shape;
use super::publish::{LoadArgs, PublishBench};
use super::site::{Place, Site};
use crate::cli::output::{CliError, table};

/// Publish and read the same with more and more of one thing
///
/// Each line is measured on a new server. The longest list of records takes minutes and the disk
/// space for all that it stores: a fifth more than the records' bytes.
#[derive(Debug, Clone, Args)]
pub(super) struct GrowthBench {
    /// Topics of four partitions that requests go to in turns
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,100,1000")]
    topics: Vec<usize>,

    /// Connections that publish at once
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,64,512")]
    connections: Vec<usize>,

    /// Groups that read at once
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,10,100")]
    groups: Vec<usize>,

    /// Stored records
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        default_value = "1000000,10000000,50000000"
    )]
    records: Vec<u64>,

    /// How long to publish for each line
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
}

/// A table of what was measured.
struct Lines {
    /// What grows.
    of: &'static str,
    /// A line each, as scripts read it.
    lines: Vec<Value>,
}

impl GrowthBench {
    /// As it is unless told otherwise.
    pub(super) fn usual() -> Self {
        Self {
            topics: vec![1, 100, 1_000],
            connections: vec![1, 64, 512],
            groups: vec![1, 10, 100],
            records: vec![1_000_000, 10_000_000, 50_000_000],
            duration: Duration::from_secs(10),
        }
    }

    pub(super) async fn run(self, place: &Place) -> Result<Told, CliError> {
        place.own_only("bench growth")?;
        let tables = [
            self.topics(place).await?,
            self.connections(place).await?,
            self.groups(place).await?,
            self.records(place).await?,
        ];
        let text: Vec<String> = tables.iter().map(Lines::human).collect();
        let figures = tables.iter().map(|table| (table.of.to_owned(), json!(table.lines)));
        let figures = json!({ "growth": figures.collect::<serde_json::Map<_, _>>() });
        Ok(Told { figures, text: text.join("\n") })
    }

    fn load(&self, topics: usize, connections: usize, batch: usize) -> PublishBench {
        let load = LoadArgs {
            topics,
            partitions: 4,
            connections,
            batch,
            size: 256,
            keys: 1_000,
            file: None,
            rate: None,
            duration: self.duration,
            warm_up: Duration::from_secs(2),
            seed: 1,
        };
        let ack = "durable".to_owned();
        PublishBench { load, ack, single: batch == 1, plugin: None, schema: None }
    }

    async fn published(&self, place: &Place, bench: PublishBench) -> Result<Value, CliError> {
        let site = place.open(&[]).await?;
        let topics = site.topics("growth", bench.load.topics, bench.load.partitions).await?;
        let what = format!("{} topics, {} connections", topics.len(), bench.load.connections);
        let measured = bench.measure(&site, &topics, &what).await?;
        let line = json!({
            "events_per_second": measured.events_per_second().round(),
            "p50_ms": millis(measured.times.percentile(50.0)),
            "p99_ms": millis(measured.times.percentile(99.0)),
            "max_ms": millis(measured.times.longest()),
            "memory_mib": memory(&site),
        });
        site.close().await?;
        Ok(line)
    }

    async fn topics(&self, place: &Place) -> Result<Lines, CliError> {
        let mut lines = Vec::new();
        for &topics in &self.topics {
            let line = self.published(place, self.load(topics, 8, 1_000)).await?;
            lines.push(with(line, &[("topics", json!(topics))]));
        }
        Ok(Lines { of: "topics", lines })
    }

    async fn connections(&self, place: &Place) -> Result<Lines, CliError> {
        let mut lines = Vec::new();
        for batch in [1, 100] {
            for &connections in &self.connections {
                let line = self.published(place, self.load(1, connections, batch)).await?;
                let what = [("batch", json!(batch)), ("connections", json!(connections))];
                lines.push(with(line, &what));
            }
        }
        Ok(Lines { of: "connections", lines })
    }

    async fn groups(&self, place: &Place) -> Result<Lines, CliError> {
        let mut lines = Vec::new();
        for &groups in &self.groups {
            let bench = ConsumeBench { groups, connections: 1, ..ConsumeBench::of(1_000_000) };
            let site = place.open(&[]).await?;
            let topic = bench.fill(&site).await?;
            let measured = bench.measure(&site, &topic).await?;
            lines.push(json!({
                "groups": groups,
                "events_per_second": measured.events_per_second().round(),
                "p50_ms": millis(measured.times.percentile(50.0)),
                "p99_ms": millis(measured.times.percentile(99.0)),
                "max_ms": millis(measured.times.longest()),
                "memory_mib": memory(&site),
            }));
            site.close().await?;
        }
        Ok(Lines { of: "groups", lines })
    }

    async fn records(&self, place: &Place) -> Result<Lines, CliError> {
        const PARTITIONS: u32 = 8;
        let shape = Shape { size: 256, keys: 1_000, batch: 1_000, seed: 1 };
        let mut lines = Vec::new();
        for &records in &self.records {
            let mut site = place.open(&[]).await?;
            let topic = site.topic("records", PARTITIONS, &[]).await?;
            fill(&site, &topic, records, &shape).await?;
            let while_filled = memory(&site);
            let started = site.restart().await?;
            // Before it has read anything.
            let idle = site.memory().map(|memory| memory.now);
            let pages = first_pages(&site, &topic, PARTITIONS, 100).await?;
            let page = |times: &Times, percent| millis(times.percentile(percent));
            lines.push(json!({
                "records": records,
                "restart_ms": millis(started),
                "p50_ms": page(&pages, 50.0),
                "p99_ms": page(&pages, 99.0),
                "max_ms": millis(pages.longest()),
                "memory_idle_mib": idle.map(f64::round),
                "memory_mib": while_filled,
            }));
            site.close().await?;
        }
        Ok(Lines { of: "records", lines })
    }
}

/// At most so far, in MiB.
fn memory(site: &Site) -> Option<f64> {
    site.memory().map(|memory| memory.peak.round())
}

/// The fields, and those of `line` behind them.
fn with(line: Value, fields: &[(&str, Value)]) -> Value {
    let mut all: serde_json::Map<String, Value> =
        fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    if let Value::Object(line) = line {
        all.extend(line);
    }
    Value::Object(all)
}

impl Lines {
    fn human(&self) -> String {
        let cell = |line: &Value, name: &str| match line.get(name).and_then(Value::as_f64) {
            None => "-".to_owned(),
            Some(number) if name == "events_per_second" => short(number),
            Some(number) => number.to_string(),
        };
        let rows: Vec<[String; 8]> = self
            .lines
            .iter()
            .map(|line| {
                let batch = line.get("batch").and_then(Value::as_u64);
                let what = cell(line, self.of);
                [
                    batch.map_or(what.clone(), |batch| format!("{what} × {batch}")),
                    cell(line, "events_per_second"),
                    cell(line, "p50_ms"),
                    cell(line, "p99_ms"),
                    cell(line, "max_ms"),
                    cell(line, "restart_ms"),
                    cell(line, "memory_idle_mib"),
                    cell(line, "memory_mib"),
                ]
            })
            .collect();
        let titles = [
            &self.of.to_uppercase(),
            "EVENTS/S",
            "P50 MS",
            "P99 MS",
            "MAX MS",
            "RESTART MS",
            "IDLE MIB",
            "PEAK MIB",
        ];
        table(titles, &rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_what_was_measured() {
        let line = with(
            json!({ "events_per_second": 1_500_000.0, "p50_ms": 1.5 }),
            &[("batch", json!(100)), ("connections", json!(64))],
        );
        let text = Lines { of: "connections", lines: vec![line] }.human();
        let row: Vec<&str> = text.lines().nth(1).unwrap().split("  ").collect();
        assert_eq!(row[0], "64 × 100");
        assert!(text.contains("1.50 M") && text.contains("1.5"), "{text}");
    }
}
