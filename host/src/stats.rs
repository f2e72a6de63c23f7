//! How many events a topic took in the last minute, counted in this process.

use std::collections::HashMap;
use std::sync::Mutex;

use stream_storage::{Timestamp, TopicId};

use crate::lock::lock;

/// The window of the rate, in seconds.
const WINDOW: usize = 60;

/// Rates of the topics that took events since the start.
#[derive(Debug, Default)]
pub struct Rates(Mutex<HashMap<TopicId, Ring>>);

/// A counter for each of the last seconds; which second it counts stands beside it.
#[derive(Debug)]
struct Ring([(u64, u64); WINDOW]);

impl Rates {
    /// Counts events that were published at `now`.
    pub fn add(&self, topic: TopicId, events: u64, now: Timestamp) {
        let second = now.0 / 1_000;
        let mut rings = lock(&self.0);
        let Ring(slots) = rings.entry(topic).or_insert_with(|| Ring([(0, 0); WINDOW]));
        if let Some(slot) = slots.get_mut((second % WINDOW as u64) as usize) {
            if slot.0 != second {
                *slot = (second, 0);
            }
            slot.1 += events;
        }
    }

    /// Events a second over the last 60 seconds.
    #[expect(clippy::cast_precision_loss, reason = "a rate is shown, not counted with")]
    pub fn per_second(&self, topic: TopicId, now: Timestamp) -> f64 {
        let second = now.0 / 1_000;
        let rings = lock(&self.0);
        let Some(Ring(slots)) = rings.get(&topic) else { return 0.0 };
        let is_recent = |at: u64| at <= second && second - at < WINDOW as u64;
        let events: u64 = slots.iter().filter(|slot| is_recent(slot.0)).map(|slot| slot.1).sum();
        events as f64 / WINDOW as f64
    }

    /// Forgets a deleted topic.
    pub fn forget(&self, topic: TopicId) {
        lock(&self.0).remove(&topic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: TopicId = TopicId(1);

    #[test]
    fn events_count_for_a_minute() {
        let rates = Rates::default();
        rates.add(TOPIC, 60, Timestamp(1_000_000));
        rates.add(TOPIC, 60, Timestamp(1_030_000));
        let at = |millis| rates.per_second(TOPIC, Timestamp(millis));
        let cases = [
            (1_000_000, 1.0),
            (1_030_000, 2.0),
            (1_059_999, 2.0),
            (1_060_000, 1.0),
            (1_090_000, 0.0),
        ];
        for (millis, expected) in cases {
            assert!((at(millis) - expected).abs() < f64::EPSILON, "{millis}: {}", at(millis));
        }
    }

    #[test]
    fn a_second_that_comes_round_again_starts_from_zero() {
        let rates = Rates::default();
        rates.add(TOPIC, 600, Timestamp(0));
        rates.add(TOPIC, 60, Timestamp(60_000));
        assert!((rates.per_second(TOPIC, Timestamp(60_000)) - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_topic_without_events_and_a_forgotten_one_have_rate_zero() {
        let rates = Rates::default();
        rates.add(TOPIC, 60, Timestamp(0));
        rates.forget(TOPIC);
        for topic in [TOPIC, TopicId(2)] {
            assert!(rates.per_second(topic, Timestamp(0)).abs() < f64::EPSILON);
        }
    }
}
