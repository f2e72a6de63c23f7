//! What was measured: counts, a histogram of times, and how they are told.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::own_server::Memory;

/// Times up to this are told apart, to three digits.
const TIME_MAX: Duration = Duration::from_secs(120);

/// Times, in microseconds.
#[derive(Debug, Clone)]
pub(super) struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        let micros = u64::try_from(TIME_MAX.as_micros()).unwrap_or(u64::MAX);
        #[expect(clippy::expect_used, reason = "the bounds are constants that it takes")]
        Self(Histogram::new_with_bounds(1, micros, 3).expect("bounds that a histogram takes"))
    }
}

impl Times {
    pub(super) fn record(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    pub(super) fn merge(&mut self, other: &Self) {
        // Both have the same bounds.
        let _ = self.0.add(&other.0);
    }

    /// So many of a hundred took no longer.
    pub(super) fn percentile(&self, percent: f64) -> Duration {
        Duration::from_micros(self.0.value_at_percentile(percent))
    }

    pub(super) fn longest(&self) -> Duration {
        Duration::from_micros(self.0.max())
    }

    pub(super) fn json(&self) -> Value {
        let millis = |percent| millis(self.percentile(percent));
        json!({
            "p50": millis(50.0),
            "p90": millis(90.0),
            "p99": millis(99.0),
            "p99.9": millis(99.9),
            "max": self::millis(self.longest()),
        })
    }
}

/// Milliseconds, to the microsecond.
pub(super) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// What some connections did together.
#[derive(Debug, Clone, Default)]
pub(super) struct Measured {
    /// How long it was counted.
    pub(super) span: Duration,
    pub(super) requests: u64,
    pub(super) events: u64,
    /// Of the events' values where they are published, of answers where they are read.
    pub(super) bytes: u64,
    /// How often the server asked to try again later.
    pub(super) refusals: u64,
    /// Of each request, from when it was due.
    pub(super) times: Times,
}

impl Measured {
    pub(super) fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.events += other.events;
        self.bytes += other.bytes;
        self.refusals += other.refusals;
        self.times.merge(&other.times);
        self.span = self.span.max(other.span);
    }

    pub(super) fn events_per_second(&self) -> f64 {
        per_second(self.events, self.span)
    }

    pub(super) fn requests_per_second(&self) -> f64 {
        per_second(self.requests, self.span)
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "seconds": self.span.as_secs_f64(),
            "requests": self.requests,
            "events": self.events,
            "events_per_second": self.events_per_second().round(),
            "requests_per_second": self.requests_per_second().round(),
            "mib_per_second": (per_second(self.bytes, self.span) / f64::from(1 << 20)).round(),
            "refusals": self.refusals,
            "latency_ms": self.times.json(),
        })
    }

    /// With what the server took, if that is known.
    pub(super) fn json_with(&self, memory: Option<Memory>) -> Value {
        let mut told = self.json();
        if let (Some(told), Some(memory)) = (told.as_object_mut(), memory) {
            told.insert("server_memory".to_owned(), memory.json());
        }
        told
    }

    pub(super) fn human(&self) -> String {
        let mib = per_second(self.bytes, self.span) / f64::from(1 << 20);
        let refusals = match self.refusals {
            0 => String::new(),
            refusals => format!(", {refusals} times asked to wait"),
        };
        format!(
            "{} events/s, {mib:.0} MiB/s, {} requests/s; {}{refusals}",
            short(self.events_per_second()),
            short(self.requests_per_second()),
            human(&self.times),
        )
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(super) fn per_second(count: u64, span: Duration) -> f64 {
    if span.is_zero() { 0.0 } else { count as f64 / span.as_secs_f64() }
}

/// Percentiles in a line.
pub(super) fn human(times: &Times) -> String {
    let at = |percent| millis(times.percentile(percent));
    format!(
        "p50 {} ms, p99 {} ms, p99.9 {} ms, max {} ms",
        at(50.0),
        at(99.0),
        at(99.9),
        millis(times.longest())
    )
}

/// A number as people say it.
pub(super) fn short(number: f64) -> String {
    match number {
        10_000_000.0.. => format!("{:.1} M", number / 1e6),
        1_000_000.0.. => format!("{:.2} M", number / 1e6),
        10_000.0.. => format!("{:.1} k", number / 1e3),
        1_000.0.. => format!("{:.2} k", number / 1e3),
        _ => format!("{number:.0}"),
    }
}

/// What is left of a rate with something in the way, of pairs of runs.
#[derive(Debug, Clone)]
pub(super) struct Shares {
    /// Events a second without it, and with it.
    pub(super) without: f64,
    pub(super) with: f64,
    /// The median of what each kept of its pair: their medians may come from different minutes.
    pub(super) share: f64,
    least: f64,
    most: f64,
    pairs: usize,
}

impl Shares {
    pub(super) fn new(without: Vec<f64>, with: Vec<f64>) -> Self {
        let shares: Vec<f64> =
            without.iter().zip(&with).map(|(without, with)| with / without).collect();
        Self {
            pairs: shares.len(),
            without: median(without),
            with: median(with),
            least: shares.iter().copied().fold(f64::INFINITY, f64::min),
            most: shares.iter().copied().fold(0.0, f64::max),
            share: median(shares),
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "events_per_second_without": self.without.round(),
            "events_per_second_with": self.with.round(),
            "share": self.share,
            "share_least": self.least,
            "share_most": self.most,
            "pairs": self.pairs,
        })
    }

    pub(super) fn human(&self) -> String {
        format!(
            "{} events/s without, {} events/s with: {:.0} % of its pair ({:.0}–{:.0} %, {} pairs)",
            short(self.without),
            short(self.with),
            100.0 * self.share,
            100.0 * self.least,
            100.0 * self.most,
            self.pairs,
        )
    }
}

/// The one in the middle.
pub(super) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_all_that_was_merged() {
        let (mut a, mut b) = (Times::default(), Times::default());
        (1..=50).for_each(|millis| a.record(Duration::from_millis(millis)));
        (51..=100).for_each(|millis| b.record(Duration::from_millis(millis)));
        a.merge(&b);
        let near = |got: Duration, millis: f64| (got.as_secs_f64() * 1e3 - millis).abs() < 0.1;
        assert!(near(a.percentile(50.0), 50.0), "{:?}", a.percentile(50.0));
        assert!(near(a.percentile(99.0), 99.0), "{:?}", a.percentile(99.0));
        assert!(near(a.longest(), 100.0), "{:?}", a.longest());
    }

    #[test]
    fn rates_are_over_the_span() {
        let measured = Measured {
            span: Duration::from_secs(2),
            requests: 10,
            events: 10_000,
            bytes: 2 << 20,
            ..Measured::default()
        };
        let told = measured.json();
        assert_eq!(told["events_per_second"], 5_000.0);
        assert_eq!(told["requests_per_second"], 5.0);
        assert_eq!(told["mib_per_second"], 1.0);
    }

    #[test]
    fn a_share_is_of_its_pair() {
        let shares = Shares::new(vec![100.0, 200.0, 400.0], vec![50.0, 150.0, 400.0]);
        assert_eq!((shares.without, shares.with, shares.share), (200.0, 150.0, 0.75));
        assert_eq!((shares.least, shares.most), (0.5, 1.0));
    }

    #[test]
    fn numbers_are_short() {
        let told = [999.4, 1_234.0, 12_345.0, 1_234_567.0, 12_345_678.0].map(short);
        assert_eq!(told, ["999", "1.23 k", "12.3 k", "1.23 M", "12.3 M"]);
    }
}
