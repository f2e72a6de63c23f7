//! Who goes first: publishers. While what they publish waits to be stored, connectors work one at a
//! time, and rest between.

use std::sync::Arc;
use std::time::Duration;

use stream_storage::Store;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

/// With so many bytes waiting, publishing is as fast as it can be, and whatever else is stored makes
/// it slower.
const BUSY_BYTES: u64 = 64 << 10;

/// For each moment of work so many of rest.
const REST: u32 = 9;

/// A turn is counted as no longer than this, so that one that met a stall is not followed by a rest
/// that is worse.
const TURN_MAX: Duration = Duration::from_millis(100);

/// The pace of all connectors.
pub(super) struct Pace {
    store: Arc<dyn Store>,
    /// Held by the one that works, and through its rest.
    turn: Mutex<()>,
}

/// A connector's turn.
pub(super) struct Turn<'a> {
    pace: &'a Pace,
    began: Instant,
    alone: Option<MutexGuard<'a, ()>>,
}

impl Pace {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, turn: Mutex::new(()) }
    }

    fn is_busy(&self) -> bool {
        self.store.metrics().queued_bytes >= BUSY_BYTES
    }

    /// Waits for a turn, if publishers are busy.
    pub(super) async fn turn(&self) -> Turn<'_> {
        // Whoever rests holds the turn: it is waited for whether or not this moment is busy.
        let alone = self.turn.lock().await;
        let alone = Some(alone).filter(|_| self.is_busy());
        Turn { pace: self, began: Instant::now(), alone }
    }
}

impl Turn<'_> {
    /// Rests, if publishers are or were busy.
    pub(super) async fn rest(self) {
        let worked = self.began.elapsed().min(TURN_MAX);
        let alone = match self.alone {
            Some(alone) => alone,
            None if self.pace.is_busy() => self.pace.turn.lock().await,
            None => return,
        };
        tokio::time::sleep(worked * REST).await;
        drop(alone);
    }
}
