//! What became of an endpoint's deliveries, counted: the log is bounded, these are not.

use serde::{Deserialize, Serialize};

/// Counters of one endpoint, since it was made; also the stored form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointStats {
    /// Deliveries that were taken.
    pub successful: u64,
    /// Deliveries that were given up.
    pub failed: u64,
    /// Deliveries that were cancelled.
    pub cancelled: u64,
    /// Deliveries that wait or are under way. Not stored: the queue knows.
    #[serde(skip)]
    pub pending: u64,
    /// Attempts.
    pub attempts: u64,
    /// How long all of them took, in milliseconds.
    pub duration_ms: u64,
    /// When a delivery was last taken, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success_at: Option<u64>,
    /// Since when each attempt has failed, in milliseconds since 1970; `None` after one that did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<u64>,
}

impl EndpointStats {
    /// All deliveries.
    pub fn deliveries(&self) -> u64 {
        self.successful + self.failed + self.cancelled + self.pending
    }

    /// The share of those taken among those that are finished by themselves; 0 if there are none.
    pub fn success_rate(&self) -> f64 {
        ratio(self.successful, self.successful + self.failed)
    }

    /// How long an attempt takes, in milliseconds; 0 if there was none.
    pub fn duration_ms_avg(&self) -> f64 {
        ratio(self.duration_ms, self.attempts)
    }

    /// The sum of two.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            successful: self.successful + other.successful,
            failed: self.failed + other.failed,
            cancelled: self.cancelled + other.cancelled,
            pending: self.pending + other.pending,
            attempts: self.attempts + other.attempts,
            duration_ms: self.duration_ms + other.duration_ms,
            last_success_at: self.last_success_at.max(other.last_success_at),
            failing_since: None,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
