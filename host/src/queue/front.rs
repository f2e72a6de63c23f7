//! What is known in memory of a queue: which jobs come next, and who holds some.
//!
//! The store holds all of it; this is a window on the jobs that are due first, so that a queue of
//! millions costs no more than one of thousands. What is not certain is read anew: a commit whose end
//! nobody saw makes the window stale.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use stream_storage::Timestamp;

use super::job::JobId;

/// Jobs that are kept in the window.
pub(super) const WINDOW: usize = 4_096;

/// A job and its time: when it is due, or when its lease ends.
pub(super) type Timed = (Timestamp, JobId);

/// What a commit changes of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// The job waits.
    Waits(Timed),
    /// The job is held.
    Held(Timed),
    /// Nobody holds the job any more.
    Free(JobId),
}

/// How far waiting jobs were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Nothing,
    /// Up to this one, itself included.
    To(Timed),
    All,
}

/// The window.
#[derive(Debug)]
pub(super) struct Front {
    waiting: BTreeSet<Timed>,
    reach: Reach,
    leases: HashMap<JobId, Timestamp>,
    ends: BTreeSet<Timed>,
    /// Jobs that are being taken now.
    taking: usize,
    /// What has changed while rows are read.
    during: Option<During>,
    tokens: Tokens,
}

#[derive(Debug, Default)]
struct During {
    waits: Vec<Timed>,
    freed: HashSet<JobId>,
    is_stale: bool,
}

/// What has to be read from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// Leases, and waiting jobs from the first.
    Everything,
    /// Waiting jobs behind this one.
    Behind(Timed),
}

/// A job that may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Candidate {
    /// It waits since then.
    Waiting(Timed),
    /// Its holder's time is over.
    Expired(Timed),
}

/// How much may be taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) max: usize,
    pub(super) concurrency: Option<u32>,
    pub(super) rate_per_second: Option<f64>,
}

impl Default for Front {
    fn default() -> Self {
        Self {
            waiting: BTreeSet::new(),
            reach: Reach::Nothing,
            leases: HashMap::new(),
            ends: BTreeSet::new(),
            taking: 0,
            during: None,
            tokens: Tokens::default(),
        }
    }
}

impl Front {
    /// What has to be read before a job can be taken at `now`.
    pub(super) fn missing(&self, now: Timestamp) -> Option<Missing> {
        match self.reach {
            Reach::Nothing => Some(Missing::Everything),
            Reach::To(last) if self.waiting.is_empty() && last.0 <= now => {
                Some(Missing::Behind(last))
            }
            Reach::To(_) | Reach::All => None,
        }
    }

    /// From here until [`loaded`](Self::loaded), changes are noted beside the rows that are read.
    pub(super) fn loading(&mut self) {
        self.during = Some(During::default());
    }

    /// Takes in what was read: waiting jobs in order, and whether they are the last; all leases, if
    /// everything was missing.
    pub(super) fn loaded(
        &mut self,
        missing: Missing,
        waiting: Vec<Timed>,
        is_all: bool,
        leases: Vec<Timed>,
    ) {
        let during = self.during.take().unwrap_or_default();
        if missing == Missing::Everything {
            self.waiting.clear();
            for (until, id) in leases {
                if !during.freed.contains(&id) && !self.leases.contains_key(&id) {
                    self.hold((until, id));
                }
            }
        }
        let last = waiting.last().copied();
        self.waiting.extend(waiting);
        self.reach = match (last, missing) {
            _ if is_all => Reach::All,
            (Some(last), _) => Reach::To(last),
            (None, Missing::Behind(last)) => Reach::To(last),
            (None, Missing::Everything) => Reach::All,
        };
        for timed in during.waits {
            self.wait(timed);
        }
        if during.is_stale {
            self.reach = Reach::Nothing;
        }
    }

    /// A read that failed: the next one begins anew.
    pub(super) fn not_loaded(&mut self) {
        self.during = None;
        self.reach = Reach::Nothing;
    }

    /// Nobody saw how a commit ended: all is read anew.
    pub(super) fn stale(&mut self) {
        match &mut self.during {
            Some(during) => during.is_stale = true,
            None => self.reach = Reach::Nothing,
        }
    }

    /// Whether the window is to be read anew.
    #[cfg(test)]
    pub(super) fn is_stale(&self) -> bool {
        self.reach == Reach::Nothing
    }

    /// Takes in what a commit has done; says whether who waits has to know: a job may come sooner.
    pub(super) fn apply(&mut self, effect: Effect) -> bool {
        match effect {
            Effect::Waits(timed) => {
                if let Some(during) = &mut self.during {
                    during.waits.push(timed);
                }
                self.wait(timed);
                true
            }
            Effect::Held(timed) => {
                self.hold(timed);
                self.ends.first() == Some(&timed)
            }
            Effect::Free(id) => {
                if let Some(during) = &mut self.during {
                    during.freed.insert(id);
                }
                if let Some(until) = self.leases.remove(&id) {
                    self.ends.remove(&(until, id));
                }
                true
            }
        }
    }

    fn wait(&mut self, timed: Timed) {
        let is_within = match self.reach {
            Reach::Nothing => false,
            Reach::To(last) => timed <= last,
            Reach::All => true,
        };
        if is_within {
            self.waiting.insert(timed);
        }
        while self.waiting.len() > WINDOW {
            self.waiting.pop_last();
            self.reach = self.waiting.last().map_or(Reach::Nothing, |last| Reach::To(*last));
        }
    }

    fn hold(&mut self, (until, id): Timed) {
        if let Some(before) = self.leases.insert(id, until) {
            self.ends.remove(&(before, id));
        }
        self.ends.insert((until, id));
    }

    /// Takes jobs out that may be taken at `now`; they come back by [`took`](Self::took).
    pub(super) fn take(
        &mut self,
        now: Timestamp,
        passed: Duration,
        bounds: Bounds,
    ) -> Vec<Candidate> {
        let mut taken = Vec::new();
        let mut left = self.tokens.left(bounds.rate_per_second, passed).min(bounds.max);
        // Who takes over a job whose holder's time is over holds no more than that one did.
        while left > 0
            && let Some(&(until, id)) = self.ends.first().filter(|(until, _)| *until <= now)
        {
            self.ends.remove(&(until, id));
            self.leases.remove(&id);
            taken.push(Candidate::Expired((until, id)));
            left -= 1;
        }
        let concurrency = bounds.concurrency.map_or(usize::MAX, |most| most as usize);
        let held = self.leases.len() + self.taking + taken.len();
        left = left.min(concurrency.saturating_sub(held));
        while left > 0
            && let Some(timed) = self.waiting.first().copied().filter(|(due, _)| *due <= now)
        {
            self.waiting.remove(&timed);
            taken.push(Candidate::Waiting(timed));
            left -= 1;
        }
        self.taking += taken.len();
        self.tokens.take(taken.len());
        taken
    }

    /// The end of a [`take`](Self::take) of so many jobs, of which some were not taken after all.
    pub(super) fn took(&mut self, count: usize, back: &[Candidate]) {
        self.taking = self.taking.saturating_sub(count);
        self.tokens.give_back(back.len());
        for candidate in back {
            match candidate {
                Candidate::Waiting(timed) => self.wait(*timed),
                Candidate::Expired(timed) => self.hold(*timed),
            }
        }
    }

    /// When a job may be there to take, unless something changes before; `None` if only a change
    /// brings one.
    pub(super) fn next(&self, now: Timestamp, bounds: Bounds) -> Option<Duration> {
        let held = self.leases.len() + self.taking;
        let is_full = bounds.concurrency.is_some_and(|most| held >= most as usize);
        let due = match (self.waiting.first().copied(), self.reach) {
            (Some((due, _)), _) | (None, Reach::To((due, _))) if !is_full => Some(due),
            _ => None,
        };
        let end = self.ends.first().map(|(until, _)| *until);
        let at = [due, end].into_iter().flatten().min()?;
        let until = Duration::from_millis(at.0.saturating_sub(now.0));
        Some(until.max(self.tokens.wait(bounds.rate_per_second)))
    }

    /// How many jobs are held.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.leases.len()
    }
}

/// A rate, as tokens that come back with time.
#[derive(Debug, Default)]
struct Tokens {
    /// Never below 0.
    left: f64,
    /// When they were counted; `None` before the first time.
    at: Option<Duration>,
}

impl Tokens {
    /// Whole tokens there are; as many as can be counted if there is no rate.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to a million")]
    fn left(&mut self, rate: Option<f64>, passed: Duration) -> usize {
        let Some(rate) = rate else { return usize::MAX };
        let burst = rate.max(1.0);
        let since = self.at.map(|at| passed.saturating_sub(at));
        self.left = since.map_or(burst, |since| burst.min(self.left + since.as_secs_f64() * rate));
        self.at = Some(passed);
        self.left as usize
    }

    #[expect(clippy::cast_precision_loss, reason = "at most a few thousand")]
    fn take(&mut self, count: usize) {
        self.left = (self.left - count as f64).max(0.0);
    }

    #[expect(clippy::cast_precision_loss, reason = "at most a few thousand")]
    fn give_back(&mut self, count: usize) {
        self.left += count as f64;
    }

    /// How long until there is one.
    fn wait(&self, rate: Option<f64>) -> Duration {
        match rate {
            Some(rate) if self.left < 1.0 && self.at.is_some() => {
                Duration::from_secs_f64((1.0 - self.left) / rate)
            }
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::job::JobIds;

    const ANY: Bounds = Bounds { max: 10, concurrency: None, rate_per_second: None };

    fn timed(ms: u64) -> Timed {
        (Timestamp(ms), JobIds::new(0).next(Timestamp(ms)))
    }

    fn front(waiting: &[u64], is_all: bool) -> Front {
        let mut front = Front::default();
        front.loading();
        let waiting = waiting.iter().map(|ms| timed(*ms)).collect();
        front.loaded(Missing::Everything, waiting, is_all, vec![]);
        front
    }

    fn take(front: &mut Front, now: u64, bounds: Bounds) -> Vec<u64> {
        let taken = front.take(Timestamp(now), Duration::from_millis(now), bounds);
        let times =
            taken.iter().map(|(Candidate::Waiting(timed) | Candidate::Expired(timed))| timed);
        let times = times.map(|(time, _)| time.0).collect();
        front.took(taken.len(), &[]);
        times
    }

    #[test]
    fn what_is_due_is_taken_in_order_and_the_rest_later() {
        let mut front = front(&[5, 1, 9], true);
        assert_eq!(take(&mut front, 5, ANY), [1, 5]);
        assert_eq!(front.next(Timestamp(5), ANY), Some(Duration::from_millis(4)));
        assert_eq!(take(&mut front, 9, ANY), [9]);
        assert_eq!(front.next(Timestamp(9), ANY), None);
    }

    #[test]
    fn more_is_read_only_when_the_window_is_used_up_and_more_is_due() {
        let mut front = front(&[1, 5], false);
        assert_eq!(front.missing(Timestamp(9)), None);
        assert_eq!(take(&mut front, 9, ANY), [1, 5]);
        assert_eq!(front.missing(Timestamp(9)), Some(Missing::Behind(timed(5))));
        front.loading();
        front.loaded(Missing::Behind(timed(5)), vec![timed(7)], true, vec![]);
        assert_eq!(take(&mut front, 9, ANY), [7]);
        assert_eq!(front.missing(Timestamp(9)), None);
    }

    #[test]
    fn a_job_behind_the_window_is_left_to_the_store() {
        let mut front = front(&[1, 5], false);
        front.apply(Effect::Waits(timed(9)));
        front.apply(Effect::Waits(timed(3)));
        assert_eq!(take(&mut front, 9, ANY), [1, 3, 5]);
        assert!(front.missing(Timestamp(9)).is_some());
    }

    #[test]
    fn the_window_does_not_grow() {
        let mut front = front(&[], true);
        for ms in (0..WINDOW as u64 + 10).rev() {
            front.apply(Effect::Waits(timed(ms)));
        }
        assert_eq!(front.waiting.len(), WINDOW);
        assert_eq!(front.reach, Reach::To(timed(WINDOW as u64 - 1)));
    }

    #[test]
    fn what_comes_while_rows_are_read_is_not_missed() {
        let mut front = Front::default();
        front.loading();
        front.apply(Effect::Waits(timed(3)));
        front.apply(Effect::Free(timed(2).1));
        front.loaded(Missing::Everything, vec![timed(1)], true, vec![timed(2), timed(4)]);
        assert_eq!(front.held(), 1);
        assert_eq!(take(&mut front, 3, ANY), [1, 3]);
    }

    #[test]
    fn a_commit_of_unknown_end_makes_all_be_read_anew() {
        let mut front = front(&[1], true);
        front.stale();
        assert_eq!(front.missing(Timestamp(0)), Some(Missing::Everything));
        front.loading();
        front.stale();
        front.loaded(Missing::Everything, vec![timed(1)], true, vec![]);
        assert!(front.is_stale());
    }

    #[test]
    fn no_more_are_held_than_allowed_and_an_end_makes_room() {
        let bounds = Bounds { concurrency: Some(2), ..ANY };
        let mut front = front(&[1, 2, 3], true);
        front.apply(Effect::Held(timed(50)));
        assert_eq!(take(&mut front, 9, bounds), [1]);
        front.apply(Effect::Held(timed(60)));
        assert!(take(&mut front, 9, bounds).is_empty());
        assert_eq!(front.next(Timestamp(9), bounds), Some(Duration::from_millis(41)));
        front.apply(Effect::Free(timed(60).1));
        assert_eq!(take(&mut front, 9, bounds), [2]);
    }

    #[test]
    fn a_lease_that_ended_is_taken_over_first_and_a_longer_one_is_not() {
        let mut front = front(&[1], true);
        front.apply(Effect::Held(timed(5)));
        front.apply(Effect::Held((Timestamp(20), timed(5).1)));
        assert_eq!(take(&mut front, 9, ANY), [1]);
        assert_eq!(take(&mut front, 20, ANY), [20]);
    }

    #[test]
    fn a_rate_lets_jobs_through_as_time_passes() {
        let bounds = Bounds { rate_per_second: Some(2.0), ..ANY };
        let mut front = front(&[1, 2, 3, 4, 5], true);
        assert_eq!(take(&mut front, 10, bounds), [1, 2]);
        assert!(take(&mut front, 10, bounds).is_empty());
        assert_eq!(front.next(Timestamp(10), bounds), Some(Duration::from_millis(500)));
        assert_eq!(take(&mut front, 510, bounds), [3]);
    }

    #[test]
    fn what_was_not_taken_after_all_comes_back() {
        let mut front = front(&[1, 2], true);
        let taken = front.take(Timestamp(9), Duration::ZERO, ANY);
        front.took(2, &taken[..1]);
        assert_eq!(take(&mut front, 9, ANY), [1]);
    }
}
