//! When something that failed is tried again, and when no more.

use std::time::Duration;

use rand::{Rng, RngExt};

/// Two that fail together are not tried together: a delay is changed by up to this part of it.
const JITTER: f64 = 0.2;

/// How often something is tried, and the time between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    /// How often at most, the first time included; at least 1.
    pub attempts_max: u32,
    /// How the time between grows.
    pub delays: Delays,
}

/// The time before each new attempt, without its jitter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delays {
    /// Twice as long after each attempt.
    Doubling {
        /// After the first.
        base: Duration,
        /// At most.
        max: Duration,
    },
    /// One after each attempt; the last for all that follow.
    Ladder(Vec<Duration>),
}

impl Backoff {
    /// How long to wait when `attempts` have failed, with jitter; `None` if there is to be no more.
    pub fn next(&self, attempts: u32, random: &mut impl Rng) -> Option<Duration> {
        if attempts >= self.attempts_max {
            return None;
        }
        Some(jittered(self.delays.after(attempts), random))
    }
}

impl Delays {
    fn after(&self, attempts: u32) -> Duration {
        let nth = attempts.saturating_sub(1);
        match self {
            Self::Doubling { base, max } => {
                base.saturating_mul(2_u32.saturating_pow(nth)).min(*max)
            }
            Self::Ladder(delays) => {
                let last = delays.len().saturating_sub(1);
                let step = usize::try_from(nth).unwrap_or(last).min(last);
                delays.get(step).copied().unwrap_or_default()
            }
        }
    }
}

/// The delay, up to a fifth longer or shorter.
pub fn jittered(delay: Duration, random: &mut impl Rng) -> Duration {
    delay.mul_f64(random.random_range(1.0 - JITTER..=1.0 + JITTER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    const SECOND: Duration = Duration::from_secs(1);

    fn delays(backoff: &Backoff) -> Vec<Option<Duration>> {
        let mut random = StdRng::seed_from_u64(7);
        (1..=5).map(|attempts| backoff.next(attempts, &mut random)).collect()
    }

    fn assert_near(found: &[Option<Duration>], seconds: &[u32]) {
        let found: Vec<Duration> = found.iter().flatten().copied().collect();
        assert_eq!(found.len(), seconds.len(), "{found:?}");
        for (found, seconds) in found.iter().zip(seconds) {
            let exact = SECOND * *seconds;
            let range = exact.mul_f64(0.8)..=exact.mul_f64(1.2);
            assert!(range.contains(found), "{found:?} is not near {exact:?}");
        }
    }

    #[test]
    fn a_doubling_delay_ends_at_its_limit_and_with_the_attempts() {
        let delays_of = Delays::Doubling { base: SECOND, max: 3 * SECOND };
        let backoff = Backoff { attempts_max: 5, delays: delays_of };
        let found = delays(&backoff);
        assert_near(&found, &[1, 2, 3, 3]);
        assert_eq!(found.last(), Some(&None));
    }

    #[test]
    fn the_last_rung_of_a_ladder_is_kept() {
        let ladder = Delays::Ladder(vec![SECOND, 60 * SECOND]);
        assert_near(&delays(&Backoff { attempts_max: 5, delays: ladder }), &[1, 60, 60, 60]);
    }

    #[test]
    fn two_delays_differ() {
        let mut random = StdRng::seed_from_u64(7);
        let first = jittered(SECOND, &mut random);
        assert_ne!(first, jittered(SECOND, &mut random));
    }

    #[test]
    fn huge_counts_do_not_overflow() {
        let delays_of = Delays::Doubling { base: SECOND, max: 9 * SECOND };
        let backoff = Backoff { attempts_max: u32::MAX, delays: delays_of };
        let mut random = StdRng::seed_from_u64(7);
        assert!(backoff.next(u32::MAX - 1, &mut random).unwrap() < 11 * SECOND);
    }
}
