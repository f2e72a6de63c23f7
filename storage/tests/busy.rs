//! A project whose queue is full is refused, and others are not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use stream_storage::embedded::{EmbeddedConfig, EmbeddedStore};
use stream_storage::{
    Clock, CommitError, ManualClock, ProjectName, Receipt, Store, Timestamp, Transaction,
};
use tokio::task::JoinHandle;

/// A clock that makes who asks it wait: so the committer is held in the middle of a lot.
struct Gate {
    clock: ManualClock,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    closed: bool,
    waiting: bool,
}

impl Gate {
    fn new() -> Self {
        let clock = ManualClock::new(Timestamp(1));
        Self { clock, state: Mutex::default(), changed: Condvar::new() }
    }

    fn set_closed(&self, closed: bool) {
        self.state.lock().unwrap().closed = closed;
        self.changed.notify_all();
    }

    fn wait_for_somebody(&self) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| !state.waiting).unwrap());
    }
}

impl Clock for Gate {
    fn now(&self) -> Timestamp {
        let mut state = self.state.lock().unwrap();
        state.waiting = state.closed;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| state.closed).unwrap());
        self.clock.now()
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
}

fn putting(project: &str, bytes: usize) -> Transaction {
    let mut putting = Transaction::new(ProjectName::parse(project).unwrap());
    putting.put("key", vec![7; bytes]);
    putting
}

async fn begin(
    store: &Arc<EmbeddedStore>,
    transaction: Transaction,
) -> JoinHandle<Result<Receipt, CommitError>> {
    let store = Arc::clone(store);
    let begun = tokio::spawn(async move { store.commit(transaction).await });
    tokio::task::yield_now().await;
    begun
}

#[tokio::test]
async fn a_full_queue_refuses_its_project_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig {
        reserve_bytes: 0,
        project_queue_bytes: 10_000,
        total_queue_bytes: 100_000,
        ..EmbeddedConfig::new(folder.path())
    };
    let gate = Arc::new(Gate::new());
    let clock: Arc<dyn Clock> = Arc::<Gate>::clone(&gate);
    let store = Arc::new(EmbeddedStore::open(config, clock).unwrap());
    gate.set_closed(true);
    let held = begin(&store, putting("first", 1)).await;
    gate.wait_for_somebody();

    let waits = begin(&store, putting("greedy", 6_000)).await;
    let refused = store.commit(putting("greedy", 6_000)).await.unwrap_err();
    assert!(matches!(refused, CommitError::Busy { retry_after } if !retry_after.is_zero()));
    let fits = begin(&store, putting("greedy", 3_000)).await;
    let other = begin(&store, putting("other", 6_000)).await;
    assert_eq!(store.metrics().refused_busy, 1);
    assert!(store.metrics().queued_bytes > 15_000);

    gate.set_closed(false);
    for begun in [held, waits, fits, other] {
        begun.await.unwrap().unwrap();
    }
    assert_eq!(store.metrics().queued_bytes, 0);
    store.commit(putting("greedy", 6_000)).await.unwrap();
}
