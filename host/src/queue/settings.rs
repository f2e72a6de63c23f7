//! How a queue works.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::backoff::{Backoff, Delays};

/// Longest delay, lease and snooze: 30 days.
pub const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Rungs of a ladder.
const RUNGS_MAX: usize = 100;

/// How a queue works; also the form in which it is stored and shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueSettings {
    /// How often a job is tried, the first time included: 1 to 1,000.
    pub attempts_max: u32,
    /// The time before each new try.
    pub backoff: BackoffSettings,
    /// How long a job is held by who took it, in milliseconds, if that one asks for nothing else.
    pub lease_ms: u64,
    /// How many jobs may be held at once; any number if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// How many jobs may be taken a second; any number if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_per_second: Option<f64>,
    /// Whether jobs of one key are taken one after the other. Holds for jobs enqueued from then on.
    pub ordered: bool,
    /// Whether no job is given out.
    pub paused: bool,
}

/// The time before each new try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum BackoffSettings {
    /// Twice as long after each.
    Doubling {
        /// After the first, in milliseconds.
        base_ms: u64,
        /// At most, in milliseconds.
        max_ms: u64,
    },
    /// One after each, in milliseconds; the last for all that follow.
    Ladder {
        /// At least one.
        delays_ms: Vec<u64>,
    },
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            attempts_max: 10,
            backoff: BackoffSettings::Doubling { base_ms: 1_000, max_ms: 10 * 60 * 1_000 },
            lease_ms: 30_000,
            concurrency: None,
            rate_per_second: None,
            ordered: false,
            paused: false,
        }
    }
}

/// Settings that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid `{field}`: expected {expected}")]
pub struct InvalidSettings {
    /// The field.
    pub field: &'static str,
    /// What it may be.
    pub expected: &'static str,
}

impl QueueSettings {
    /// Checks the numbers.
    ///
    /// # Errors
    ///
    /// One of them is out of its range.
    pub fn check(&self) -> Result<(), InvalidSettings> {
        let refuse = |field, expected| Err(InvalidSettings { field, expected });
        if !(1..=1_000).contains(&self.attempts_max) {
            return refuse("attempts_max", "1 to 1000");
        }
        if !(100..=millis(LONGEST)).contains(&self.lease_ms) {
            return refuse("lease_ms", "100 to 2592000000, which is 30 days");
        }
        if self.concurrency == Some(0) {
            return refuse("concurrency", "at least 1");
        }
        if self.rate_per_second.is_some_and(|rate| !(0.001..=1e6).contains(&rate)) {
            return refuse("rate_per_second", "0.001 to 1000000");
        }
        let delays = match &self.backoff {
            BackoffSettings::Doubling { base_ms, max_ms } => &[*base_ms, *max_ms][..],
            BackoffSettings::Ladder { delays_ms } => delays_ms,
        };
        if delays.is_empty() || delays.len() > RUNGS_MAX {
            return refuse("backoff.delays_ms", "1 to 100 delays");
        }
        if delays.iter().any(|delay| *delay > millis(LONGEST)) {
            return refuse("backoff", "delays of at most 2592000000 ms, which is 30 days");
        }
        Ok(())
    }

    /// When something that failed is tried again.
    pub(super) fn backoff(&self) -> Backoff {
        let delays = match &self.backoff {
            BackoffSettings::Doubling { base_ms, max_ms } => Delays::Doubling {
                base: Duration::from_millis(*base_ms),
                max: Duration::from_millis(*max_ms),
            },
            BackoffSettings::Ladder { delays_ms } => {
                Delays::Ladder(delays_ms.iter().copied().map(Duration::from_millis).collect())
            }
        };
        Backoff { attempts_max: self.attempts_max, delays }
    }
}

/// A delay or lease within bounds.
pub(super) fn bounded(time: Duration) -> Duration {
    time.min(LONGEST)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut QueueSettings)) -> &'static str {
        let mut settings = QueueSettings::default();
        change(&mut settings);
        settings.check().unwrap_err().field
    }

    #[test]
    fn numbers_out_of_their_range_are_named() {
        assert_eq!(refused(|settings| settings.attempts_max = 0), "attempts_max");
        assert_eq!(refused(|settings| settings.lease_ms = 1), "lease_ms");
        assert_eq!(refused(|settings| settings.concurrency = Some(0)), "concurrency");
        assert_eq!(refused(|settings| settings.rate_per_second = Some(0.0)), "rate_per_second");
        let ladder = |delays_ms| BackoffSettings::Ladder { delays_ms };
        assert_eq!(refused(|settings| settings.backoff = ladder(vec![])), "backoff.delays_ms");
        assert_eq!(refused(|settings| settings.backoff = ladder(vec![u64::MAX])), "backoff");
        assert_eq!(QueueSettings::default().check(), Ok(()));
    }

    #[test]
    fn both_forms_of_backoff_are_read() {
        let read =
            |text: &str| serde_json::from_str::<QueueSettings>(text).map(|read| read.backoff);
        let ladder = read(r#"{"backoff":{"delays_ms":[1,2]}}"#).unwrap();
        assert_eq!(ladder, BackoffSettings::Ladder { delays_ms: vec![1, 2] });
        let doubling = read(r#"{"backoff":{"base_ms":1,"max_ms":2}}"#).unwrap();
        assert_eq!(doubling, BackoffSettings::Doubling { base_ms: 1, max_ms: 2 });
        assert!(read(r#"{"speed":1}"#).is_err());
    }
}
