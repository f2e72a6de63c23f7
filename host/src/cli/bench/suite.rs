//! `stream bench suite`: what a server promises, measured one after the other, as one table.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::connectors::ConnectorsBench;
use super::consume::ConsumeBench;
use super::e2e::{E2eBench, Latencies};
use super::figures::{Measured, Times, median, millis, short};
use super::growth::GrowthBench;
use super::own_server::{Memory, sync_alone};
use super::publish::{LoadArgs, PublishBench};
use super::site::Place;
use super::soak::SoakBench;
use super::wasm::WasmBench;
use super::{Told, machine};
use crate::cli::output::{CliError, table};

/// MiB that no run may pass.
const MEMORY_MAX: f64 = 512.0;
/// MiB that a server that does nothing may take.
const MEMORY_IDLE_MAX: f64 = 40.0;

/// Measure all that is promised, and print it as a table
///
/// Each line is measured on a new server, and stands beside its aim: what two cores are to reach with
/// the generator on the same two.
#[derive(Debug, Clone, Args)]
pub(super) struct SuiteBench {
    /// Runs of each line, of which the median counts
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,

    /// How long each run is
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    duration: Duration,

    /// Also publish 20 GB with retention behind, and measure how cost grows up to 50 million records:
    /// a quarter of an hour and 20 GB of disk
    #[arg(long)]
    long: bool,
}

/// One of the ways on which events are waited for.
type Way = fn(&Latencies) -> &Times;

/// What was reached, beside what was aimed at.
struct Row {
    what: &'static str,
    reached: String,
    aim: &'static str,
    is_met: Option<bool>,
    figures: Value,
}

/// The rows so far, and the most memory that any of their servers took.
#[derive(Default)]
struct Rows {
    rows: Vec<Row>,
    memory_peak: f64,
}

impl Rows {
    fn add(&mut self, what: &'static str, aim: &'static str, row: (String, bool, Value)) {
        let (reached, is_met, figures) = row;
        self.rows.push(Row { what, reached, aim, is_met: Some(is_met), figures });
    }

    fn saw(&mut self, memory: Option<Memory>) {
        self.memory_peak = self.memory_peak.max(memory.map_or(0.0, |memory| memory.peak));
    }
}

impl SuiteBench {
    pub(super) async fn run(self, place: &Place) -> Result<Told, CliError> {
        place.own_only("bench suite")?;
        if self.rounds == 0 {
            return Err(CliError::Usage("`--rounds` is at least 1".to_owned()));
        }
        let mut rows = Rows::default();
        self.idle(place, &mut rows).await?;
        self.batches(place, &mut rows).await?;
        self.checked(place, &mut rows).await?;
        self.single(place, &mut rows).await?;
        self.read(place, &mut rows).await?;
        self.live(place, &mut rows).await?;
        self.connectors(place, &mut rows).await?;
        let mut text = String::new();
        let mut figures = json!({ "machine": machine::describe() });
        if self.long {
            let soaked = SoakBench::usual().measure(place).await?;
            rows.memory_peak = rows.memory_peak.max(soaked.memory_peak.unwrap_or_default());
            rows.add("20 GB with retention behind: longest wait", "100 ms", soaked.row());
            let growth = GrowthBench::usual().run(place).await?;
            text = format!("\n{}", growth.text);
            if let (Some(all), Value::Object(growth)) = (figures.as_object_mut(), growth.figures) {
                all.extend(growth);
            }
        }
        let peak = rows.memory_peak;
        let row = (format!("{peak:.0} MiB"), peak < MEMORY_MAX, json!(peak.round()));
        rows.add("memory at most, of all runs", "512 MiB", row);
        if let Some(all) = figures.as_object_mut() {
            all.insert("suite".to_owned(), rows.json());
        }
        Ok(Told { figures, text: format!("{}\n{}{text}", machine::describe(), rows.human()) })
    }

    fn load(&self, connections: usize, batch: usize) -> LoadArgs {
        LoadArgs {
            topics: 1,
            partitions: 8,
            connections,
            batch,
            size: 256,
            keys: 1_000,
            file: None,
            rate: None,
            duration: self.duration,
            warm_up: Duration::from_secs(1),
            seed: 1,
        }
    }

    async fn idle(&self, place: &Place, rows: &mut Rows) -> Result<(), CliError> {
        let site = place.open(&[]).await?;
        let memory = site.memory();
        site.close().await?;
        let now = memory.map_or(f64::NAN, |memory| memory.now);
        let row = (format!("{now:.0} MiB"), now < MEMORY_IDLE_MAX, json!(now.round()));
        rows.add("memory of an idle server", "40 MiB", row);
        Ok(())
    }

    /// Publishes some times, each to a new server.
    async fn rounds(
        &self,
        place: &Place,
        rows: &mut Rows,
        bench: PublishBench,
    ) -> Result<Vec<Measured>, CliError> {
        let mut rounds = Vec::new();
        for _ in 0..self.rounds {
            let site = place.open(&[]).await?;
            let topics = site.topics("suite", 1, bench.load.partitions).await?;
            rounds.push(bench.measure(&site, &topics, "publish").await?);
            rows.saw(site.memory());
            site.close().await?;
        }
        Ok(rounds)
    }

    async fn batches(&self, place: &Place, rows: &mut Rows) -> Result<(), CliError> {
        let acks = [
            (
                "durable",
                "publish, synced: batches of 1,000, 8 connections",
                1.2e6,
                "1.2 M events/s",
            ),
            ("memory", "the same with `ack=memory`", 1.5e6, "1.5 M events/s"),
        ];
        for (ack, what, least, aim) in acks {
            let (load, ack) = (self.load(8, 1_000), ack.to_owned());
            let bench = PublishBench { load, ack, single: false, plugin: None, schema: None };
            let rounds = self.rounds(place, rows, bench).await?;
            let rate = median(rounds.iter().map(Measured::events_per_second).collect());
            let all: Vec<Value> = rounds.iter().map(Measured::json).collect();
            rows.add(what, aim, (format!("{} events/s", short(rate)), rate >= least, json!(all)));
        }
        Ok(())
    }

    async fn checked(&self, place: &Place, rows: &mut Rows) -> Result<(), CliError> {
        let schema = Some("ten-fields".into());
        let checks = [
            (None, "share left through a pass-through plugin", 0.75, "75 %"),
            (schema, "share left through a JSON Schema of ten fields", 0.4, "40 %"),
        ];
        for (schema, what, least, aim) in checks {
            let (load, plugin) = (self.load(8, 1_000), "pass-through".into());
            let bench = WasmBench { load, plugin, schema, rounds: self.rounds };
            let (shares, memory) = bench.measure(place).await?;
            rows.saw(memory);
            let reached = format!("{:.0} %", 100.0 * shares.share);
            rows.add(what, aim, (reached, shares.share >= least, shares.json()));
        }
        Ok(())
    }

    async fn single(&self, place: &Place, rows: &mut Rows) -> Result<(), CliError> {
        let bench = |connections| PublishBench {
            load: self.load(connections, 1),
            ack: "durable".to_owned(),
            single: true,
            plugin: None,
            schema: None,
        };
        let rounds = self.rounds(place, rows, bench(64)).await?;
        let rate = median(rounds.iter().map(Measured::requests_per_second).collect());
        let slow = median(rounds.iter().map(|m| millis(m.times.percentile(99.0))).collect());
        let all: Vec<Value> = rounds.iter().map(Measured::json).collect();
        let row = (format!("{}/s", short(rate)), rate >= 45e3, json!(all));
        rows.add("one event a request, synced, 64 connections", "45 k/s", row);
        rows.add("  its p99", "10 ms", (format!("{slow} ms"), slow < 10.0, json!(slow)));
        let rounds = self.rounds(place, rows, bench(1)).await?;
        let half = median(rounds.iter().map(|m| millis(m.times.percentile(50.0))).collect());
        let site = place.open(&[]).await?;
        let alone = site.server.as_ref().map(|server| sync_alone(server.data())).transpose()?;
        site.close().await?;
        let alone = alone.map_or(f64::NAN, |times| millis(times.percentile(50.0)));
        let beyond = half - alone;
        let reached = format!("{half} ms, {:.0} µs beyond it", 1e3 * beyond);
        let figures = json!({ "p50_ms": half, "sync_alone_ms": alone });
        let what = "one event a request, one connection: p50 beyond a sync alone";
        rows.add(what, "100 µs", (reached, beyond <= 0.1, figures));
        Ok(())
    }

    async fn read(&self, place: &Place, rows: &mut Rows) -> Result<(), CliError> {
        let one = ConsumeBench::of(4_000_000);
        let eight = ConsumeBench { groups: 8, connections: 1, ..one.clone() };
        let site = place.open(&[]).await?;
        let topic = one.fill(&site).await?;
        let reads = [
            (one, "catch-up read as NDJSON"),
            (eight, "the same by 8 groups at once, all together"),
        ];
        for (bench, what) in reads {
            let mut rates = Vec::new();
            let mut all = Vec::new();
            for _ in 0..self.rounds {
                let measured = bench.measure(&site, &topic).await?;
                rates.push(measured.events_per_second());
                all.push(measured.json());
            }
            let rate = median(rates);
            let reached = format!("{} events/s", short(rate));
            rows.add(what, "3 M events/s", (reached, rate >= 3e6, json!(all)));
        }
        rows.saw(site.memory());
        site.close().await
    }

    async fn live(&self, place: &Place, rows: &mut Rows) -> Result<(), CliError> {
        let bench = E2eBench {
            rate: 10_000.0,
            batch: 1,
            connections: 64,
            partitions: 1,
            size: 256,
            duration: self.duration,
            warm_up: Duration::from_secs(2),
        };
        let mut rounds = Vec::new();
        for _ in 0..self.rounds {
            let site = place.open(&[]).await?;
            rounds.push(bench.measure(&site).await?);
            rows.saw(site.memory());
            site.close().await?;
        }
        let of = |times: Way, percent| {
            median(rounds.iter().map(|of| millis(times(of).percentile(percent))).collect())
        };
        let alone = rounds.iter().filter_map(|of| of.sync.as_ref());
        let alone = median(alone.map(|times| millis(times.percentile(50.0))).collect());
        let ways: [(Way, _); 2] = [
            (|of| &of.sse, "publish to SSE at 10,000/s: p50 beyond a sync alone"),
            (|of| &of.long_poll, "publish to long-poll at 10,000/s: p50 beyond a sync alone"),
        ];
        for (times, what) in ways {
            let (half, slow) = (of(times, 50.0) - alone, of(times, 99.0));
            let all: Vec<Value> = rounds.iter().map(|of| times(of).json()).collect();
            rows.add(what, "2 ms", (format!("{half:.3} ms"), half < 2.0, json!(all)));
            rows.add("  its p99", "10 ms", (format!("{slow} ms"), slow < 10.0, json!(slow)));
        }
        Ok(())
    }

    async fn connectors(&self, place: &Place, rows: &mut Rows) -> Result<(), CliError> {
        let kinds = ["worker", "hooks", "ledger"].map(str::to_owned).to_vec();
        let bench = ConnectorsBench { load: self.load(8, 1_000), kinds, rounds: self.rounds };
        let behind = bench.measure(place).await?;
        let reached = format!("{:.0} %", 100.0 * behind.shares.share);
        let row = (reached, behind.shares.share >= 0.7, behind.shares.json());
        rows.add("share left with Worker, Hooks and Ledger behind", "70 %", row);
        Ok(())
    }
}

impl Rows {
    fn json(&self) -> Value {
        let row = |row: &Row| {
            json!({
                "what": row.what.trim(),
                "reached": row.reached,
                "aim": row.aim,
                "met": row.is_met,
                "figures": row.figures,
            })
        };
        self.rows.iter().map(row).collect()
    }

    fn human(&self) -> String {
        let row = |row: &Row| {
            let met = if row.is_met == Some(true) { "yes" } else { "no" };
            [row.what.to_owned(), row.reached.clone(), row.aim.to_owned(), met.to_owned()]
        };
        let rows: Vec<[String; 4]> = self.rows.iter().map(row).collect();
        table(["WHAT", "REACHED", "AIM", "MET"], &rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_stands_beside_its_aim() {
        let mut rows = Rows::default();
        rows.add("what", "1 ms", ("2 ms".to_owned(), false, json!(2)));
        rows.add("more", "1 ms", ("0 ms".to_owned(), true, json!(0)));
        rows.saw(Some(Memory { now: 1.0, peak: 7.0 }));
        rows.saw(None);
        let text = rows.human();
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["what", "2", "ms", "1", "ms", "no"]);
        assert_eq!(lines[2], ["more", "0", "ms", "1", "ms", "yes"]);
        assert_eq!(rows.memory_peak, 7.0);
        assert_eq!(rows.json()[0]["met"], false);
    }
}
