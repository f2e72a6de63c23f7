//! How much an endpoint is given at once: what it takes well, more of; a state machine without a
//! clock.
//!
//! It begins with one request, so that a dead endpoint costs one, and has twice as many after each
//! that goes well. One that fails has one again, and stands in the lane of the troubled until one has
//! gone well.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause after an answer that says "too much"; twice as long after each.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause that the server makes by itself.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The longest that a receiver may ask for: its deliveries wait as long as it says, but one is tried.
const ASKED_MAX: Duration = Duration::from_secs(10 * 60);

/// What an attempt has shown of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// It took the event.
    Well {
        /// But it took its time.
        is_slow: bool,
    },
    /// It did not.
    Failed,
    /// It did not, because it has too much to do.
    Overloaded {
        /// How long it wants to be left alone.
        asked: Option<Duration>,
    },
}

/// How an endpoint does.
#[derive(Debug)]
pub(super) struct Health {
    /// Requests under way.
    under_way: usize,
    /// At most this many at once.
    limit: usize,
    is_troubled: bool,
    /// Answers in a row that said "too much".
    overloads: u32,
    resumes: Option<Instant>,
}

impl Default for Health {
    fn default() -> Self {
        Self { under_way: 0, limit: 1, is_troubled: false, overloads: 0, resumes: None }
    }
}

impl Health {
    /// How many more requests may begin at `now`.
    pub(super) fn room(&self, now: Instant, concurrency: usize) -> usize {
        if self.resumes.is_some_and(|resumes| resumes > now) {
            return 0;
        }
        self.limit.min(concurrency).saturating_sub(self.under_way)
    }

    /// When it goes on, if it pauses.
    pub(super) fn resumes(&self) -> Option<Instant> {
        self.resumes
    }

    /// Whether it stands in the lane of the troubled.
    pub(super) fn is_troubled(&self) -> bool {
        self.is_troubled
    }

    /// A request begins.
    pub(super) fn begin(&mut self) {
        self.under_way += 1;
    }

    /// A request was not made after all.
    pub(super) fn give_back(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// A request has ended.
    pub(super) fn end(&mut self, seen: Seen, now: Instant) {
        self.give_back();
        match seen {
            Seen::Well { is_slow } => {
                self.limit = self.limit.saturating_mul(2);
                self.is_troubled = is_slow;
                self.overloads = 0;
                self.resumes = None;
            }
            Seen::Failed => {
                self.limit = 1;
                self.is_troubled = true;
            }
            Seen::Overloaded { asked } => {
                self.limit = 1;
                self.is_troubled = true;
                let pause = PAUSE_FIRST.saturating_mul(2_u32.saturating_pow(self.overloads));
                let asked = asked.unwrap_or_default().min(ASKED_MAX);
                self.resumes = Some(now + pause.min(PAUSE_MAX).max(asked));
                self.overloads += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Seen = Seen::Well { is_slow: false };

    fn after(seen: &[Seen], now: Instant) -> Health {
        let mut health = Health::default();
        for seen in seen {
            health.begin();
            health.end(*seen, now);
        }
        health
    }

    #[tokio::test]
    async fn it_begins_with_one_and_grows_to_its_concurrency() {
        let now = Instant::now();
        let room = |count| after(&vec![WELL; count], now).room(now, 6);
        assert_eq!([0, 1, 2, 3, 100].map(room), [1, 2, 4, 6, 6]);
        let mut health = after(&[WELL, WELL], now);
        health.begin();
        assert_eq!(health.room(now, 6), 3);
        health.give_back();
        assert_eq!(health.room(now, 6), 4);
    }

    #[tokio::test]
    async fn a_failure_leaves_it_one_in_the_lane_of_the_troubled() {
        let now = Instant::now();
        let mut health = after(&[WELL, WELL, Seen::Failed], now);
        assert_eq!((health.room(now, 6), health.is_troubled()), (1, true));
        health.begin();
        health.end(WELL, now);
        assert_eq!((health.room(now, 6), health.is_troubled()), (2, false));
        assert!(after(&[Seen::Well { is_slow: true }], now).is_troubled());
    }

    #[tokio::test]
    async fn who_has_too_much_to_do_is_left_alone_for_longer_and_longer() {
        let now = Instant::now();
        let pause = |health: &Health| health.resumes().unwrap().duration_since(now).as_secs();
        let overloaded = |asked: u64| Seen::Overloaded { asked: Some(Duration::from_secs(asked)) };
        assert_eq!(pause(&after(&[overloaded(0)], now)), 1);
        assert_eq!(pause(&after(&[overloaded(0); 3], now)), 4);
        assert_eq!(pause(&after(&[overloaded(0); 50], now)), 60);
        assert_eq!(pause(&after(&[overloaded(100)], now)), 100);
        assert_eq!(pause(&after(&[overloaded(u64::MAX)], now)), 600);
        let health = after(&[overloaded(2)], now);
        assert_eq!(health.room(now, 6), 0);
        assert_eq!(health.room(now + Duration::from_secs(2), 6), 1);
    }
}
