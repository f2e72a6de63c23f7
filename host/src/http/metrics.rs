//! Counters of requests and connections, and all figures in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use stream_storage::ProjectName;

use crate::connector::{Counted, Kind, Standing, State};
use crate::lock::lock;
use crate::node::Node;
use crate::plugin::{self, Counters, Outcome};
use crate::stage::Cause;

/// Upper bounds of the latency buckets, in seconds.
const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// What HTTP counts.
#[derive(Debug, Default)]
pub(crate) struct HttpMetrics {
    /// By route template.
    requests: Mutex<BTreeMap<String, OfRoute>>,
    connections: AtomicUsize,
}

/// By method and status class.
type OfRoute = BTreeMap<(&'static str, u16), Series>;

#[derive(Debug, Default)]
struct Series {
    /// How many requests took at most each bound, and longer than the one before.
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

/// A connection that is open; no longer when dropped.
pub(crate) struct Connected<'a>(&'a HttpMetrics);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl HttpMetrics {
    /// Counts a connection while it is open.
    pub(crate) fn connected(&self) -> Connected<'_> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Connected(self)
    }

    /// Counts an answered request.
    pub(crate) fn answered(
        &self,
        route: &str,
        method: &Method,
        status: StatusCode,
        took: Duration,
    ) {
        let mut requests = lock(&self.requests);
        if !requests.contains_key(route) {
            requests.insert(route.to_owned(), OfRoute::new());
        }
        let Some(of_route) = requests.get_mut(route) else { return };
        let series = of_route.entry((word(method), status.as_u16() / 100)).or_default();
        let seconds = took.as_secs_f64();
        let place = BUCKETS.iter().position(|bound| seconds <= *bound);
        if let Some(bucket) = place.and_then(|place| series.buckets.get_mut(place)) {
            *bucket += 1;
        }
        series.count += 1;
        series.seconds += seconds;
    }

    /// All figures of the server, and of plugins those of `project`, or of all if it is `None`.
    pub(crate) async fn text(&self, node: &Node, project: Option<&ProjectName>) -> String {
        let mut out = String::new();
        self.put_requests(&mut out);
        let connections = self.connections.load(Ordering::Relaxed) as u64;
        put(&mut out, "stream_http_connections", "gauge", "Open client connections.", connections);
        let in_flight = (node.budget.bytes() + node.answer_budget.bytes()) as u64;
        let help = "Bytes of requests and answers in memory.";
        put(&mut out, "stream_in_flight_bytes", "gauge", help, in_flight);
        put_store(&mut out, node);
        put_queues(&mut out, node);
        put_connectors(&mut out, node).await;
        put_plugins(&mut out, node, project);
        out
    }

    fn put_requests(&self, out: &mut String) {
        const NAME: &str = "stream_http_request_duration_seconds";
        put_head(out, NAME, "histogram", "Time from a request's head to its answer's head.");
        for (route, of_route) in lock(&self.requests).iter() {
            for ((method, class), series) in of_route {
                let labels = format!("route=\"{route}\",method=\"{method}\",status=\"{class}xx\"");
                let mut below = 0;
                for (bound, count) in BUCKETS.iter().zip(series.buckets) {
                    below += count;
                    let _ = writeln!(out, "{NAME}_bucket{{{labels},le=\"{bound}\"}} {below}");
                }
                let Series { count, seconds, .. } = series;
                let _ = writeln!(out, "{NAME}_bucket{{{labels},le=\"+Inf\"}} {count}");
                let _ = writeln!(out, "{NAME}_sum{{{labels}}} {seconds}");
                let _ = writeln!(out, "{NAME}_count{{{labels}}} {count}");
            }
        }
    }
}

fn put_store(out: &mut String, node: &Node) {
    let metrics = node.store.metrics();
    let counters = [
        ("stream_commits_total", "Transactions committed.", metrics.commits),
        ("stream_syncs_total", "Syncs, each for one or more commits.", metrics.syncs),
        ("stream_records_total", "Records stored.", metrics.records),
        ("stream_record_bytes_total", "Bytes of records stored.", metrics.record_bytes),
        ("stream_refused_busy_total", "Commits refused: a queue was full.", metrics.refused_busy),
    ];
    for (name, help, value) in counters {
        put(out, name, "counter", help, value);
    }
    put_head(out, "stream_sync_seconds_total", "counter", "Time spent in syncs.");
    let seconds = Duration::from_nanos(metrics.sync_nanos).as_secs_f64();
    let _ = writeln!(out, "stream_sync_seconds_total {seconds}");
    let gauges = [
        ("stream_queued_bytes", "Bytes that wait to be committed.", metrics.queued_bytes),
        ("stream_disk_free_bytes", "Bytes free on the store's disk.", metrics.free_bytes),
    ];
    for (name, help, value) in gauges {
        put(out, name, "gauge", help, value);
    }
}

fn put_queues(out: &mut String, node: &Node) {
    let jobs = node.queues.metrics();
    let counters = [
        ("stream_jobs_enqueued_total", "Jobs put into queues.", jobs.enqueued),
        ("stream_jobs_claimed_total", "Jobs taken, each time one was.", jobs.claimed),
        ("stream_jobs_completed_total", "Jobs done.", jobs.completed),
        ("stream_jobs_failed_total", "Tries that failed and are followed by another.", jobs.failed),
        ("stream_jobs_dead_total", "Jobs given up.", jobs.dead),
        ("stream_jobs_stale_total", "Refused: the job was no longer the caller's.", jobs.stale),
    ];
    for (name, help, value) in counters {
        put(out, name, "counter", help, value);
    }
}

async fn put_connectors(out: &mut String, node: &Node) {
    match node.connectors.standing().await {
        Ok(standing) => put_standing(out, &standing),
        // The other figures say why.
        Err(error) => tracing::warn!(%error, "connectors are not counted"),
    }
    type Outcomes = &'static [(&'static str, fn(&Counted) -> u64)];
    let counters: [(&str, &str, Outcomes); 2] = [
        (
            "stream_connector_records_total",
            "Records that connectors took; of these, those that a plugin dropped or broke on.",
            &[
                ("taken", |counted| counted.taken),
                ("dropped", |counted| counted.dropped),
                ("faulted", |counted| counted.faulted),
            ],
        ),
        (
            "stream_connector_requests_total",
            "Requests to services elsewhere that were sent; whatever of connectors failed.",
            &[("sent", |counted| counted.sent), ("failed", |counted| counted.failures)],
        ),
    ];
    for (name, help, outcomes) in counters {
        put_head(out, name, "counter", help);
        for kind in Kind::ALL {
            let counted = node.connectors.counted(kind);
            let kind = kind.as_str();
            for (outcome, value) in outcomes {
                let labels = format!("kind=\"{kind}\",outcome=\"{outcome}\"");
                let _ = writeln!(out, "{name}{{{labels}}} {}", value(&counted));
            }
        }
    }
}

fn put_standing(out: &mut String, standing: &Standing) {
    put_head(out, "stream_connectors", "gauge", "Connectors.");
    for kind in Kind::ALL {
        for state in [State::Running, State::Paused, State::Draining] {
            let count = standing.connectors.get(&(kind, state)).copied().unwrap_or_default();
            let (kind, state) = (kind.as_str(), state.as_str());
            let _ = writeln!(out, "stream_connectors{{kind=\"{kind}\",state=\"{state}\"}} {count}");
        }
    }
    let name = "stream_connector_lag_records";
    put_head(out, name, "gauge", "Records that connectors have not taken.");
    for kind in Kind::ALL {
        let lag = standing.lag.get(&kind).copied().unwrap_or_default();
        let _ = writeln!(out, "{name}{{kind=\"{}\"}} {lag}", kind.as_str());
    }
}

/// Figures of the plugins of one project, or of all.
fn put_plugins(out: &mut String, node: &Node, project: Option<&ProjectName>) {
    let memory = node.plugins.memory_bytes() as u64;
    put(out, "stream_plugin_memory_bytes", "gauge", "Memory that plugins have.", memory);
    let waiting = node.plugins.waiting() as u64;
    put(out, "stream_plugin_calls_waiting", "gauge", "Calls that wait for a thread.", waiting);
    // Who may upload plugins bounds how many there are.
    let seen: Vec<(String, Counters)> = node
        .plugins
        .all_seen()
        .into_iter()
        .filter(|((of, _), _)| project.is_none_or(|project| project == of))
        .map(|((project, plugin), seen)| {
            let (name, version) = (&plugin.name, plugin.version);
            let labels = format!("project=\"{project}\",plugin=\"{name}\",version=\"{version}\"");
            (labels, seen.counters())
        })
        .collect();
    let mut put_totals = |name: &str, help: &str, value: fn(&Counters) -> u64| {
        put_head(out, name, "counter", help);
        for (labels, counters) in &seen {
            let _ = writeln!(out, "{name}{{{labels}}} {}", value(counters));
        }
    };
    put_totals("stream_plugin_calls_total", "Calls of plugins.", |seen| seen.calls);
    put_totals("stream_plugin_events_total", "Events in these calls.", |seen| seen.events);
    put_totals("stream_plugin_instances_total", "Instances started.", |seen| seen.instances);
    put_head(out, "stream_plugin_outcomes_total", "counter", "What plugins said of events.");
    for (labels, counters) in &seen {
        for (outcome, count) in Outcome::ALL.iter().zip(counters.outcomes) {
            let outcome = outcome.as_str();
            let name = "stream_plugin_outcomes_total";
            let _ = writeln!(out, "{name}{{{labels},outcome=\"{outcome}\"}} {count}");
        }
    }
    put_head(out, "stream_plugin_faults_total", "counter", "Calls that failed, by cause.");
    for (labels, counters) in &seen {
        for (cause, count) in Cause::ALL.iter().zip(counters.faults) {
            let cause = cause.as_str();
            let _ =
                writeln!(out, "stream_plugin_faults_total{{{labels},cause=\"{cause}\"}} {count}");
        }
    }
    put_plugin_seconds(out, &seen);
}

fn put_plugin_seconds(out: &mut String, seen: &[(String, Counters)]) {
    const NAME: &str = "stream_plugin_call_duration_seconds";
    put_head(out, NAME, "histogram", "Time that calls took in plugins.");
    for (labels, counters) in seen {
        let mut below = 0;
        for (bound, count) in plugin::BUCKETS.iter().zip(counters.buckets) {
            below += count;
            let _ = writeln!(out, "{NAME}_bucket{{{labels},le=\"{bound}\"}} {below}");
        }
        let _ = writeln!(out, "{NAME}_bucket{{{labels},le=\"+Inf\"}} {}", counters.calls);
        let _ = writeln!(out, "{NAME}_sum{{{labels}}} {}", counters.busy.as_secs_f64());
        let _ = writeln!(out, "{NAME}_count{{{labels}}} {}", counters.calls);
    }
    let name = "stream_plugin_queued_seconds_total";
    put_head(out, name, "counter", "Time that calls waited for a thread.");
    for (labels, counters) in seen {
        let _ = writeln!(out, "{name}{{{labels}}} {}", counters.queued.as_secs_f64());
    }
    let name = "stream_plugin_memory_peak_bytes";
    put_head(out, name, "gauge", "The most memory that an instance had.");
    for (labels, counters) in seen {
        let _ = writeln!(out, "{name}{{{labels}}} {}", counters.memory_peak);
    }
}

fn put(out: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    put_head(out, name, kind, help);
    let _ = writeln!(out, "{name} {value}");
}

fn put_head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// A client may send any word as a method: those that no call takes are one.
fn word(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    known.into_iter().find(|known| method.as_str() == *known).unwrap_or("OTHER")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_count_all_requests_up_to_their_bound() {
        let metrics = HttpMetrics::default();
        for micros in [100, 700, 700, 2_000_000, 120_000_000] {
            let took = Duration::from_micros(micros);
            metrics.answered("/t", &Method::GET, StatusCode::OK, took);
        }
        let mut text = String::new();
        metrics.put_requests(&mut text);
        let labels = "{route=\"/t\",method=\"GET\",status=\"2xx\"";
        for (bound, count) in [("0.0005", 1), ("0.001", 3), ("2.5", 4), ("60", 4), ("+Inf", 5)] {
            let line = format!("_bucket{labels},le=\"{bound}\"}} {count}\n");
            assert!(text.contains(&line), "{line} in {text}");
        }
    }

    #[test]
    fn a_connection_counts_while_it_is_open() {
        let metrics = HttpMetrics::default();
        let first = metrics.connected();
        let _second = metrics.connected();
        drop(first);
        assert_eq!(metrics.connections.load(Ordering::Relaxed), 1);
    }
}
