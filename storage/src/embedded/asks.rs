//! How a thread in the background is asked for a turn of its work.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Asks one thread, which does all that it was asked for in its next turn.
#[derive(Debug, Default)]
pub(super) struct Asks {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_due: bool,
    is_closed: bool,
}

impl Asks {
    /// Asks for a turn; waits for nothing.
    pub(super) fn ask(&self) {
        self.lock().is_due = true;
        self.changed.notify_one();
    }

    /// Ends the thread.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// Waits until a turn is asked for, or for so long; `false` if the thread is to end.
    pub(super) fn wait(&self, most: Option<Duration>) -> bool {
        let idle = |state: &mut State| !state.is_due && !state.is_closed;
        let state = self.lock();
        let mut state = match most {
            None => self.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner),
            Some(most) => {
                let waited = self.changed.wait_timeout_while(state, most, idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.is_due = false;
        !state.is_closed
    }

    /// Waits for so long, whatever is asked for; `false` if the thread is to end.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let open = |state: &mut State| !state.is_closed;
        let waited = self.changed.wait_timeout_while(self.lock(), time, open);
        !waited.unwrap_or_else(PoisonError::into_inner).0.is_closed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_had_once_for_all_that_was_asked() {
        let asks = Asks::default();
        asks.ask();
        asks.ask();
        assert!(asks.wait(None));
        assert!(!asks.lock().is_due);
        assert!(asks.wait(Some(Duration::ZERO)), "nobody asked, but it is time");
    }

    #[test]
    fn turns_and_pauses_end_when_it_is_closed() {
        let asks = Asks::default();
        assert!(asks.pause(Duration::ZERO));
        asks.ask();
        asks.close();
        assert!(!asks.wait(None));
        assert!(!asks.wait(Some(Duration::MAX)));
        assert!(!asks.pause(Duration::MAX));
    }
}
