//! Pauses a stage that mostly breaks, so that a flood of faults neither fills the dead-letter topic
//! nor eats the processor.
//!
//! | state | what it does |
//! | --- | --- |
//! | closed | lets calls through and counts how they end, in windows of 10 s |
//! | open | refuses calls until the pause is over: 1 s at first, doubled each time, at most 60 s |
//! | probing | lets one call through: a success closes it, a fault opens it again |

use std::sync::Mutex;
use std::time::Duration;

use stream_storage::Timestamp;

use crate::lock::lock;

const WINDOW: u64 = 10_000;
const PAUSE_FIRST: u64 = 1_000;
const PAUSE_MAX: u64 = 60_000;

/// When a breaker opens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerConfig {
    /// At least so many calls of a window have failed.
    pub faults_min: u32,
    /// And more than this share of its events, from 0 to 1.
    pub share_max: f64,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { faults_min: 5, share_max: 0.5 }
    }
}

/// The stage is paused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paused {
    /// When it is tried again.
    pub retry_after: Duration,
    /// What broke it last.
    pub reason: String,
}

/// Watches one stage.
#[derive(Debug)]
pub struct Breaker {
    config: BreakerConfig,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    window_ends: u64,
    events: u64,
    faulted_events: u64,
    faulted_calls: u32,
    /// Open or probing if there is one.
    pause: Option<Pause>,
    reason: String,
}

#[derive(Debug, Clone, Copy)]
struct Pause {
    length: u64,
    ends: u64,
    /// When the call that probes was let through.
    probing: Option<u64>,
}

impl Breaker {
    /// A closed one.
    pub fn new(config: BreakerConfig) -> Self {
        Self { config, state: Mutex::default() }
    }

    /// Whether a call may be made at `now`. Each call that may must be told how it ended, by
    /// [`passed`](Self::passed) or [`failed`](Self::failed).
    ///
    /// # Errors
    ///
    /// The stage is paused.
    pub fn enter(&self, now: Timestamp) -> Result<(), Paused> {
        let mut state = lock(&self.state);
        let State { pause, reason, .. } = &mut *state;
        let Some(pause) = pause else { return Ok(()) };
        // A probe whose end was never told, since its request was given up, holds for a pause.
        let is_probing = pause.probing.is_some_and(|began| now.0 < began + pause.length);
        if now.0 < pause.ends || is_probing {
            let wait = pause.ends.saturating_sub(now.0).max(100);
            let retry_after = Duration::from_millis(wait);
            return Err(Paused { retry_after, reason: reason.clone() });
        }
        pause.probing = Some(now.0);
        Ok(())
    }

    /// A call with so many events ended well.
    pub fn passed(&self, events: usize, now: Timestamp) {
        self.ended(events, 0, now, "");
    }

    /// A call with so many events failed.
    pub fn failed(&self, events: usize, now: Timestamp, reason: &str) {
        self.ended(events, events, now, reason);
    }

    /// A call with so many events ended, and some of them faulted: their share decides.
    pub fn ended(&self, events: usize, faulted: usize, now: Timestamp, reason: &str) {
        let is_bad = ratio(faulted as u64, events as u64) > self.config.share_max;
        let mut state = lock(&self.state);
        state.turn_window(now.0);
        state.events += events as u64;
        state.faulted_events += faulted as u64;
        if faulted > 0 {
            state.faulted_calls += 1;
            reason.clone_into(&mut state.reason);
        }
        if let Some(pause) = &mut state.pause {
            // What was under way when it opened says nothing new.
            if pause.probing.take().is_none() {
                return;
            }
            if is_bad {
                pause.length = (pause.length * 2).min(PAUSE_MAX);
                pause.ends = now.0 + pause.length;
            } else {
                *state = State::default();
            }
            return;
        }
        let share = ratio(state.faulted_events, state.events);
        if state.faulted_calls >= self.config.faults_min && share > self.config.share_max {
            let (length, ends) = (PAUSE_FIRST, now.0 + PAUSE_FIRST);
            state.pause = Some(Pause { length, ends, probing: None });
        }
    }

    /// Whether it is not closed: calls are refused, or one of them probes.
    pub fn is_open(&self) -> bool {
        lock(&self.state).pause.is_some()
    }

    /// Whether calls are refused now, and why.
    pub fn paused(&self, now: Timestamp) -> Option<Paused> {
        let state = lock(&self.state);
        let pause = state.pause.filter(|pause| now.0 < pause.ends)?;
        let retry_after = Duration::from_millis(pause.ends - now.0);
        Some(Paused { retry_after, reason: state.reason.clone() })
    }
}

impl State {
    fn turn_window(&mut self, now: u64) {
        if now >= self.window_ends {
            self.window_ends = now + WINDOW;
            (self.events, self.faulted_events, self.faulted_calls) = (0, 0, 0);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp(1_000_000 + millis)
    }

    fn broken() -> Breaker {
        let breaker = Breaker::new(BreakerConfig::default());
        for _ in 0..5 {
            breaker.enter(at(0)).unwrap();
            breaker.failed(10, at(0), "timeout");
        }
        breaker
    }

    #[test]
    fn it_opens_when_most_events_fault_and_says_why() {
        let paused = broken().enter(at(1)).unwrap_err();
        assert_eq!(paused.reason, "timeout");
        assert_eq!(paused.retry_after, Duration::from_millis(999));
    }

    #[test]
    fn few_faults_or_a_small_share_do_not_open_it() {
        let few = Breaker::new(BreakerConfig::default());
        (0..4).for_each(|_| few.failed(10, at(0), "panic"));
        assert_eq!(few.enter(at(0)), Ok(()));
        let share = Breaker::new(BreakerConfig::default());
        share.passed(100, at(0));
        (0..50).for_each(|_| share.failed(2, at(0), "panic"));
        assert_eq!(share.enter(at(0)), Ok(()), "half of the events are not more than half");
    }

    #[test]
    fn faults_of_an_earlier_window_are_forgotten() {
        let breaker = Breaker::new(BreakerConfig::default());
        (0..4).for_each(|_| breaker.failed(10, at(0), "panic"));
        breaker.failed(10, at(WINDOW), "panic");
        assert_eq!(breaker.enter(at(WINDOW)), Ok(()));
    }

    #[test]
    fn one_call_probes_after_the_pause_and_closes_it() {
        let breaker = broken();
        assert_eq!(breaker.enter(at(1_000)), Ok(()));
        assert!(breaker.enter(at(1_001)).is_err(), "the others wait for the probe");
        breaker.passed(10, at(1_002));
        assert_eq!(breaker.enter(at(1_003)), Ok(()));
        assert_eq!(breaker.paused(at(1_003)), None);
    }

    #[test]
    fn a_probe_that_fails_doubles_the_pause_up_to_a_minute() {
        let breaker = broken();
        let mut now = 1_000;
        for pause in [2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            breaker.enter(at(now)).unwrap();
            breaker.failed(10, at(now), "timeout");
            assert!(breaker.enter(at(now + pause - 1)).is_err(), "{pause}");
            now += pause;
        }
        assert_eq!(breaker.enter(at(now)), Ok(()));
    }

    #[test]
    fn a_probe_that_was_given_up_does_not_pause_for_ever() {
        let breaker = broken();
        breaker.enter(at(1_000)).unwrap();
        assert_eq!(breaker.enter(at(2_000)), Ok(()));
    }
}
