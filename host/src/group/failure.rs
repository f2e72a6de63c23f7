//! A record that a member could not process: how often it has failed, how long its partition is held,
//! and when it is given up. Pure: what a nack makes of a partition's row.
//!
//! Only nacks count. A record that comes again because its member crashed, was silent or asked anew
//! has not failed.

use std::time::Duration;

use rand::Rng;
use serde::{Deserialize, Serialize};
use stream_storage::Timestamp;

use super::rows::StoredCommit;
use crate::queue::{Backoff, Delays};

/// How often a group tries a record unless it says otherwise.
pub const ATTEMPTS_DEFAULT: u32 = 5;

/// The most that a group may say: at five minutes each, more than three days for one record.
pub const ATTEMPTS_MAX: u32 = 1_000;

/// The longest delay that a nack may ask for: nothing behind the record is read meanwhile.
pub const NACK_DELAY_MAX: Duration = Duration::from_hours(1);

/// The longest reason, in bytes: it is kept with the group's commit.
pub const REASON_BYTES_MAX: usize = 4_096;

/// The delay after the first failure, and the longest.
const DELAY_BASE: Duration = Duration::from_secs(1);
const DELAY_MAX: Duration = Duration::from_mins(5);

/// A record that a member could not process, kept with the group's commit until that moves past it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The record: the one to read next or, if it was given up, the one before.
    pub offset: u64,
    /// How often it has failed.
    pub attempts: u32,
    /// The ownership in which it has failed last: each counts one failure.
    generation: u64,
    /// Nothing of the partition is read before; milliseconds since 1970.
    held_until: u64,
    /// What the member said of it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many records were given up one right after the other, up to the one to read next.
    #[serde(default)]
    pub given_up_in_a_row: u32,
}

impl Failure {
    /// Until when nothing of the partition is read, if it is held now. What seems to be held for
    /// longer than anything can be is not: the clock was set back.
    pub fn held_until(&self, now: Timestamp) -> Option<Timestamp> {
        let left = Duration::from_millis(self.held_until.saturating_sub(now.0));
        let is_held = !left.is_zero() && left <= NACK_DELAY_MAX;
        is_held.then_some(Timestamp(self.held_until))
    }
}

/// What a member says of a record that it could not process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// The record.
    pub(super) offset: u64,
    /// The ownership in which it was read.
    pub(super) generation: u64,
    /// When to try again, at most [`NACK_DELAY_MAX`]; as the backoff has it if `None`.
    pub(super) delay: Option<Duration>,
    /// Why, for people.
    pub(super) reason: Option<String>,
}

/// What a nack makes of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was made before: the row stays as it is.
    Repeat,
    /// The record is read again.
    Again(StoredCommit),
    /// It has failed for the last time, and the partition moves on.
    GiveUp(StoredCommit),
}

impl StoredCommit {
    /// What becomes of the row by a nack, which commits all before the record that it names. `None`:
    /// the record lies before the commit.
    ///
    /// A record is given up when it has failed `attempts_max` times. From the second in a row on the
    /// partition is held after that too, longer each time: whatever makes all records fail must not
    /// empty the topic into the dead letters.
    pub(super) fn nacked(
        &self,
        said: &Said,
        attempts_max: u32,
        now: Timestamp,
        random: &mut impl Rng,
    ) -> Option<Outcome> {
        let known = self.failed.as_ref().filter(|failed| failed.offset == said.offset);
        if known.is_some_and(|failed| failed.generation == said.generation) {
            return Some(Outcome::Repeat);
        }
        if said.offset < self.offset {
            return None;
        }
        let attempts = known.map_or(0, |failed| failed.attempts).saturating_add(1);
        // Was something processed in between, they are not in a row.
        let before = self.failed.as_ref().filter(|_| said.offset == self.offset);
        let mut in_a_row = before.map_or(0, |failed| failed.given_up_in_a_row);
        let delay = backoff(attempts_max).next(attempts, random);
        let is_given_up = delay.is_none();
        let delay = if is_given_up {
            in_a_row = in_a_row.saturating_add(1);
            backoff(u32::MAX).next(in_a_row - 1, random).filter(|_| in_a_row > 1)
        } else {
            said.delay.map(|delay| delay.min(NACK_DELAY_MAX)).or(delay)
        };
        let millis = delay.map_or(0, |delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        let failed = Failure {
            offset: said.offset,
            attempts,
            generation: said.generation,
            held_until: now.0.saturating_add(millis),
            reason: said.reason.clone(),
            given_up_in_a_row: in_a_row,
        };
        let offset = if is_given_up { said.offset.saturating_add(1) } else { said.offset };
        let row = Self { offset, committed_at: now.0, failed: Some(failed) };
        Some(if is_given_up { Outcome::GiveUp(row) } else { Outcome::Again(row) })
    }
}

fn backoff(attempts_max: u32) -> Backoff {
    Backoff { attempts_max, delays: Delays::Doubling { base: DELAY_BASE, max: DELAY_MAX } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn row(offset: u64) -> StoredCommit {
        StoredCommit { offset, committed_at: 0, failed: None }
    }

    fn said(offset: u64, generation: u64) -> Said {
        Said { offset, generation, ..Said::default() }
    }

    fn nack(row: &StoredCommit, said: &Said, now: Timestamp) -> Option<Outcome> {
        row.nacked(said, 3, now, &mut StdRng::seed_from_u64(7))
    }

    /// The row of a nack that is counted, since it is made in the next generation.
    fn next(row: &StoredCommit, offset: u64, now: Timestamp) -> (StoredCommit, bool) {
        let generation = row.failed.as_ref().map_or(1, |failed| failed.generation + 1);
        match nack(row, &said(offset, generation), now) {
            Some(Outcome::Again(row)) => (row, false),
            Some(Outcome::GiveUp(row)) => (row, true),
            other => panic!("{other:?}"),
        }
    }

    fn delay(row: &StoredCommit, now: Timestamp) -> u64 {
        let held = row.failed.as_ref().and_then(|failed| failed.held_until(now));
        held.map_or(0, |until| until.0 - now.0)
    }

    #[test]
    fn delays_grow_until_the_record_is_given_up() {
        let (first, is_given_up) = next(&row(5), 7, NOW);
        assert_eq!((first.offset, is_given_up), (7, false));
        assert!((800..=1_200).contains(&delay(&first, NOW)), "{first:?}");
        let now = Timestamp(NOW.0 + 2_000);
        let (second, _) = next(&first, 7, now);
        assert!((1_600..=2_400).contains(&delay(&second, now)), "{second:?}");
        let now = Timestamp(now.0 + 3_000);
        let (third, is_given_up) = next(&second, 7, now);
        assert_eq!((third.offset, is_given_up, delay(&third, now)), (8, true, 0));
        let failed = third.failed.unwrap();
        assert_eq!((failed.attempts, failed.given_up_in_a_row), (3, 1));
    }

    #[test]
    fn each_ownership_counts_one_failure_of_a_record() {
        let (first, _) = next(&row(5), 7, NOW);
        let later = Timestamp(NOW.0 + 2_000);
        for now in [NOW, later] {
            assert_eq!(nack(&first, &said(7, 1), now), Some(Outcome::Repeat));
        }
        let (second, _) = next(&first, 7, later);
        let (given_up, _) = next(&second, 7, Timestamp(later.0 + 9_000));
        assert_eq!(nack(&given_up, &said(7, 3), later), Some(Outcome::Repeat));
        assert_eq!(nack(&given_up, &said(7, 2), later), None);
        assert_eq!(nack(&given_up, &said(6, 3), later), None);
    }

    #[test]
    fn a_clock_that_was_set_back_holds_nothing_for_good() {
        let (first, _) = next(&row(5), 7, NOW);
        let failed = first.failed.unwrap();
        let until = failed.held_until(NOW).unwrap();
        let hour = u64::try_from(NACK_DELAY_MAX.as_millis()).unwrap();
        let early = |by: u64| Timestamp(until.0.saturating_sub(by));
        assert_eq!(failed.held_until(until), None);
        assert_eq!(failed.held_until(early(1)), Some(until));
        let failed = Failure { held_until: 2 * hour, ..failed };
        assert!(failed.held_until(Timestamp(hour)).is_some());
        assert_eq!(failed.held_until(Timestamp(hour - 1)), None);
    }

    #[test]
    fn another_record_starts_anew() {
        let (first, _) = next(&row(5), 7, NOW);
        let (other, _) = next(&first, 9, NOW);
        assert_eq!(other.failed.unwrap().attempts, 1);
    }

    #[test]
    fn records_given_up_in_a_row_slow_the_partition_down() {
        let mut now = NOW;
        let mut row = row(0);
        let mut pauses = Vec::new();
        for offset in 0..12 {
            loop {
                now = Timestamp(now.0 + 1_000_000);
                let (after, is_given_up) = next(&row, offset, now);
                row = after;
                if is_given_up {
                    pauses.push(delay(&row, now));
                    break;
                }
            }
        }
        let exact = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300];
        for (pause, seconds) in pauses.iter().zip(exact) {
            assert!((seconds * 800..=seconds * 1_200).contains(pause), "{pauses:?}");
        }
        // One that is processed ends the row.
        let (after, _) = next(&row, 13, Timestamp(now.0 + 1_000_000));
        assert_eq!(after.failed.unwrap().given_up_in_a_row, 0);
    }

    #[test]
    fn a_delay_that_is_asked_for_counts_and_does_not_overflow() {
        let hour = 3_600_000;
        for (delay, waits) in [(0, 0), (60_000, 60_000), (hour, hour), (u64::MAX, hour)] {
            let said = Said { delay: Some(Duration::from_millis(delay)), ..said(7, 1) };
            let Some(Outcome::Again(row)) = nack(&row(7), &said, NOW) else { panic!() };
            assert_eq!(row.failed.unwrap().held_until, NOW.0 + waits);
        }
        // What is given up is not waited for.
        let said = Said { delay: Some(Duration::from_secs(60)), ..said(7, 1) };
        let Some(Outcome::GiveUp(row)) =
            row(7).nacked(&said, 1, NOW, &mut StdRng::seed_from_u64(7))
        else {
            panic!()
        };
        assert_eq!(row.failed.unwrap().held_until(NOW), None);
    }

    #[test]
    fn a_row_of_before_is_read_and_a_row_without_a_failure_is_as_before() {
        let before = r#"{"offset":7,"committed_at":0}"#;
        assert_eq!(serde_json::from_str::<StoredCommit>(before).unwrap(), row(7));
        assert_eq!(serde_json::to_string(&row(7)).unwrap(), before);
        let (first, _) = next(&row(5), 7, NOW);
        let text = serde_json::to_string(&first).unwrap();
        assert_eq!(serde_json::from_str::<StoredCommit>(&text).unwrap(), first);
    }
}
