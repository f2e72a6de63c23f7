//! How long a member has been silent: in memory only, so that a restart gives each one fresh session.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::lock::lock;

/// The session of one member.
#[derive(Debug)]
pub(super) struct Session(Mutex<State>);

#[derive(Debug)]
struct State {
    last_seen: Instant,
    /// Calls that wait for records: whoever waits is there.
    waiting: u32,
}

impl Session {
    /// Begins now.
    pub(super) fn begin(now: Instant) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { last_seen: now, waiting: 0 })))
    }

    /// The member was heard of.
    pub(super) fn touch(&self, now: Instant) {
        let mut state = lock(&self.0);
        state.last_seen = state.last_seen.max(now);
    }

    /// When it ends unless the member is heard of; `None` while it waits for records.
    pub(super) fn ends(&self, timeout: Duration) -> Option<Instant> {
        let state = lock(&self.0);
        (state.waiting == 0).then(|| state.last_seen + timeout)
    }

    /// How long the member has been silent.
    pub(super) fn silent_for(&self, now: Instant) -> Duration {
        let state = lock(&self.0);
        if state.waiting > 0 { Duration::ZERO } else { now - state.last_seen.min(now) }
    }

    /// Whether it waits for records now.
    pub(super) fn is_waiting(&self) -> bool {
        lock(&self.0).waiting > 0
    }

    /// The member waits until the answer is dropped.
    pub(super) fn wait(self: &Arc<Self>) -> Waiting {
        lock(&self.0).waiting += 1;
        Waiting(Arc::clone(self))
    }
}

/// A call of a member that waits.
pub(super) struct Waiting(Arc<Session>);

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = lock(&self.0.0);
        state.waiting -= 1;
        state.last_seen = state.last_seen.max(Instant::now());
    }
}
