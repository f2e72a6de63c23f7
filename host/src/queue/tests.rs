//! The queue on a store, through its public calls.

mod races;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stream_storage::embedded::{EmbeddedConfig, EmbeddedStore};
use stream_storage::{ManualClock, ProjectName, Store, Timestamp};

use super::*;
use crate::catalog::Catalog;

struct Bed {
    queues: Arc<Queues>,
    store: Arc<dyn Store>,
    clock: Arc<ManualClock>,
    project: ProjectName,
    name: QueueName,
    _folder: tempfile::TempDir,
}

const START: u64 = 1_000_000;

fn queues(store: &Arc<dyn Store>, clock: &Arc<ManualClock>) -> Arc<Queues> {
    let clock: Arc<dyn Clock> = clock.clone();
    let projects = Arc::new(Projects::new(store.clone(), clock.clone()));
    let catalog = Arc::new(Catalog::new(store.clone(), clock.clone(), 100));
    let dead_letters = Arc::new(DeadLetters::new(catalog, Arc::default()));
    let drain = Drain::default();
    let parts = QueuesParts { store: store.clone(), clock, projects, dead_letters, drain };
    Arc::new(Queues::new(parts, rand::make_rng()))
}

impl Bed {
    async fn new(settings: QueueSettings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig { reserve_bytes: 0, ..EmbeddedConfig::new(folder.path()) };
        let clock = Arc::new(ManualClock::new(Timestamp(START)));
        let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(config, clock.clone()).unwrap());
        let bed = Self {
            queues: queues(&store, &clock),
            store,
            clock,
            project: ProjectName::parse("p").unwrap(),
            name: QueueName::parse("q").unwrap(),
            _folder: folder,
        };
        bed.queues.configure(&bed.project, &bed.name, &settings).await.unwrap();
        bed
    }

    /// The same store, as a server finds it after a start.
    fn restart(&mut self) {
        self.pass(1);
        self.queues = queues(&self.store, &self.clock);
    }

    async fn enqueue(&self, jobs: &[NewJob]) -> Vec<JobPlace> {
        self.queues.enqueue_alone(&self.project, &self.name, jobs).await.unwrap()
    }

    async fn claim(&self, max: usize) -> Vec<Claimed> {
        let claim =
            Claim { max, lease: None, wait: Duration::ZERO, holder: None, even_spent: false };
        self.queues.claim(&self.project, &self.name, &claim).await.unwrap()
    }

    async fn finish(&self, claimed: &Claimed, outcome: Outcome) -> Result<Fate, QueueError> {
        let end = Finish { id: claimed.job.id, lease: claimed.lease, outcome };
        let fates = self.queues.finish_alone(&self.project, &self.name, &[end]).await?;
        Ok(fates[0])
    }

    async fn done(&self, claimed: &Claimed) {
        let fate = self.finish(claimed, Outcome::Done { result: None }).await.unwrap();
        assert_eq!(fate, Fate::Done);
    }

    fn pass(&self, ms: u64) {
        self.clock.advance(Duration::from_millis(ms));
    }

    async fn rows(&self) -> Vec<String> {
        let rows = self.store.scan(&self.project, b"job", None, 10_000).await.unwrap();
        rows.iter().map(|row| String::from_utf8_lossy(&row.key).into_owned()).collect()
    }
}

fn job(key: &str, payload: &'static str) -> NewJob {
    let key = Some(key.to_owned()).filter(|key| !key.is_empty());
    NewJob { key, payload: Bytes::from_static(payload.as_bytes()), ..NewJob::default() }
}

fn payloads(claimed: &[Claimed]) -> Vec<&str> {
    claimed.iter().map(|one| std::str::from_utf8(&one.job.payload).unwrap()).collect()
}

fn failed() -> Outcome {
    Outcome::Failed { reason: "no".to_owned(), retry: Retry::Backoff }
}

#[tokio::test]
async fn jobs_are_taken_in_order_once_and_leave_nothing_behind() {
    let bed = Bed::new(QueueSettings::default()).await;
    bed.enqueue(&[job("", "a"), job("", "b"), job("", "c")]).await;
    let first = bed.claim(2).await;
    let second = bed.claim(2).await;
    assert_eq!((payloads(&first), payloads(&second)), (vec!["a", "b"], vec!["c"]));
    for claimed in first.iter().chain(&second) {
        assert_eq!(claimed.attempt, 1);
        bed.done(claimed).await;
    }
    assert!(bed.claim(2).await.is_empty());
    assert_eq!(bed.rows().await, Vec::<String>::new());
}

#[tokio::test]
async fn what_was_enqueued_and_held_is_known_after_a_restart() {
    let mut bed = Bed::new(QueueSettings::default()).await;
    bed.enqueue(&[job("", "a"), job("", "b")]).await;
    let held = bed.claim(1).await;
    bed.restart();
    assert_eq!(payloads(&bed.claim(9).await), ["b"]);
    bed.done(&held[0]).await;
    bed.pass(60_000);
    assert_eq!(payloads(&bed.claim(9).await), ["b"]);
}

#[tokio::test]
async fn after_its_lease_a_job_goes_to_another_and_the_late_one_is_refused() {
    let bed = Bed::new(QueueSettings::default()).await;
    bed.enqueue(&[job("", "a")]).await;
    let late = bed.claim(1).await.remove(0);
    bed.pass(30_000);
    let next = bed.claim(1).await.remove(0);
    assert_eq!((next.attempt, next.job.id), (2, late.job.id));
    for outcome in [Outcome::Done { result: None }, failed(), Outcome::Extended { lease: None }] {
        let refused = bed.finish(&late, outcome).await;
        assert!(matches!(refused, Err(QueueError::StaleLease { .. })), "{refused:?}");
    }
    bed.done(&next).await;
    let gone = bed.finish(&late, Outcome::Done { result: None }).await;
    assert!(matches!(gone, Err(QueueError::NoSuchJob { .. })), "{gone:?}");
}

#[tokio::test]
async fn a_longer_lease_is_kept_also_by_who_does_not_know_of_it() {
    let mut bed = Bed::new(QueueSettings::default()).await;
    bed.enqueue(&[job("", "a")]).await;
    let held = bed.claim(1).await.remove(0);
    let longer = Outcome::Extended { lease: Some(Duration::from_secs(90)) };
    let fate = bed.finish(&held, longer).await.unwrap();
    assert_eq!(fate, Fate::Held { until: Timestamp(START + 90_000) });
    bed.restart();
    bed.pass(60_000);
    assert!(bed.claim(1).await.is_empty());
    bed.pass(30_000);
    assert_eq!(bed.claim(1).await[0].attempt, 2);
}

#[tokio::test]
async fn failures_are_tried_again_later_and_in_the_end_no_more() {
    let backoff = BackoffSettings::Ladder { delays_ms: vec![100, 1_000] };
    let settings = QueueSettings { attempts_max: 3, backoff, ..QueueSettings::default() };
    let mut bed = Bed::new(settings).await;
    bed.enqueue(&[job("", "a")]).await;
    for (attempt, pause) in [(1, 130), (2, 1_300)] {
        let held = bed.claim(1).await.remove(0);
        assert_eq!(held.attempt, attempt);
        assert!(matches!(bed.finish(&held, failed()).await.unwrap(), Fate::Again { .. }));
        assert!(bed.claim(1).await.is_empty());
        bed.restart();
        bed.pass(pause);
    }
    let held = bed.claim(1).await.remove(0);
    assert_eq!(held.last_error.as_deref(), Some("no"));
    assert_eq!(bed.finish(&held, failed()).await.unwrap(), Fate::Dead);
    bed.pass(1_000_000);
    assert!(bed.claim(1).await.is_empty());
    let all = PageRequest::default();
    let dead = bed.queues.jobs(&bed.project, &bed.name, Listed::Dead, &all);
    let dead = dead.await.unwrap().items.remove(0);
    assert_eq!((dead.attempts, dead.last_error.as_deref()), (3, Some("no")));
    let topics = bed.store.scan(&bed.project, b"topic/_dead-letter", None, 9).await.unwrap();
    assert_eq!(topics.len(), 1, "the dead-letter topic tells of it");
}

#[tokio::test]
async fn a_job_that_kills_its_workers_is_dead_after_its_tries() {
    let bed = Bed::new(QueueSettings { attempts_max: 2, ..QueueSettings::default() }).await;
    bed.enqueue(&[job("", "a"), job("", "b")]).await;
    for attempt in [1, 2] {
        let held = bed.claim(1).await;
        assert_eq!((payloads(&held), held[0].attempt), (vec!["a"], attempt));
        bed.pass(30_000);
    }
    assert_eq!(payloads(&bed.claim(1).await), ["b"]);
    let view = bed.queues.describe(&bed.project, &bed.name).await.unwrap();
    assert_eq!((view.waiting, view.leased, view.dead), (0, 1, 1));
}

#[tokio::test]
async fn a_dead_job_is_tried_again_with_all_its_tries_before_it() {
    let bed = Bed::new(QueueSettings { attempts_max: 1, ..QueueSettings::default() }).await;
    bed.enqueue(&[job("", "a"), job("", "b")]).await;
    for held in bed.claim(2).await {
        assert_eq!(bed.finish(&held, failed()).await.unwrap(), Fate::Dead);
    }
    let redriven = bed.queues.redrive(&bed.project, &bed.name, None).await.unwrap();
    assert_eq!(redriven, 2);
    assert_eq!(bed.queues.redrive(&bed.project, &bed.name, None).await.unwrap(), 0);
    let held = bed.claim(2).await;
    assert_eq!((payloads(&held), held[0].attempt), (vec!["a", "b"], 1));
    bed.done(&held[0]).await;
    assert_eq!(bed.finish(&held[1], failed()).await.unwrap(), Fate::Dead);
    assert_eq!(bed.queues.discard(&bed.project, &bed.name, None).await.unwrap(), 1);
    assert_eq!(bed.rows().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_bad_key_blocks_only_itself() {
    let mut bed = Bed::new(QueueSettings { ordered: true, ..QueueSettings::default() }).await;
    bed.enqueue(&[job("k", "k1"), job("k", "k2"), job("j", "j1")]).await;
    bed.enqueue(&[job("k", "k3"), job("j", "j2"), job("", "free")]).await;
    let held = bed.claim(9).await;
    assert_eq!(payloads(&held), ["k1", "j1", "free"]);
    bed.finish(&held[0], failed()).await.unwrap();
    bed.done(&held[1]).await;
    bed.done(&held[2]).await;
    let held = bed.claim(9).await;
    assert_eq!(payloads(&held), ["j2"]);
    bed.restart();
    bed.pass(60_000);
    // The holder of j2 was slow; k1 comes again; nothing else.
    let again = bed.claim(9).await;
    assert_eq!(payloads(&again), ["j2", "k1"]);
    bed.done(&again[1]).await;
    let next = bed.claim(9).await;
    assert_eq!(payloads(&next), ["k2"]);
    bed.finish(&next[0], Outcome::Failed { reason: String::new(), retry: Retry::Never })
        .await
        .unwrap();
    assert_eq!(payloads(&bed.claim(9).await), ["k3"]);
}

#[tokio::test]
async fn a_unique_word_is_free_again_when_its_job_is_finished() {
    let bed = Bed::new(QueueSettings::default()).await;
    let unique = || NewJob { unique: Some("u".to_owned()), ..job("", "a") };
    let places = bed.enqueue(&[unique(), unique()]).await;
    assert_eq!((places[0].id, places[1].is_duplicate), (places[1].id, true));
    let again = bed.enqueue(&[unique()]).await;
    assert_eq!(again, [JobPlace { id: places[0].id, is_duplicate: true }]);
    let held = bed.claim(9).await;
    assert_eq!(held.len(), 1);
    bed.done(&held[0]).await;
    assert!(!bed.enqueue(&[unique()]).await[0].is_duplicate);
}

#[tokio::test]
async fn a_snooze_is_no_try() {
    let bed = Bed::new(QueueSettings { attempts_max: 1, ..QueueSettings::default() }).await;
    bed.enqueue(&[job("", "a")]).await;
    for _ in 0..3 {
        let held = bed.claim(1).await.remove(0);
        assert_eq!(held.attempt, 1);
        let delay = Duration::from_secs(5);
        bed.finish(&held, Outcome::Snoozed { delay }).await.unwrap();
        assert!(bed.claim(1).await.is_empty());
        bed.pass(5_000);
    }
}

#[tokio::test]
async fn a_job_for_later_waits_and_a_paused_queue_gives_nothing() {
    let mut bed = Bed::new(QueueSettings::default()).await;
    let later = NewJob { due: Some(Timestamp(START + 500)), ..job("", "later") };
    bed.enqueue(&[later, job("", "now")]).await;
    assert_eq!(payloads(&bed.claim(9).await), ["now"]);
    bed.restart();
    bed.pass(500);
    let paused = QueueSettings { paused: true, ..QueueSettings::default() };
    bed.queues.configure(&bed.project, &bed.name, &paused).await.unwrap();
    assert!(bed.claim(9).await.is_empty());
    let going = QueueSettings::default();
    bed.queues.configure(&bed.project, &bed.name, &going).await.unwrap();
    assert_eq!(payloads(&bed.claim(9).await), ["later"]);
}

#[tokio::test]
async fn who_waits_gets_a_job_when_there_is_one() {
    let bed = Bed::new(QueueSettings::default()).await;
    let (queues, project, name) = (bed.queues.clone(), bed.project.clone(), bed.name.clone());
    let waiting = tokio::spawn(async move {
        let wait = Duration::from_secs(60);
        let claim = Claim { max: 1, lease: None, wait, holder: None, even_spent: false };
        queues.claim(&project, &name, &claim).await.unwrap()
    });
    tokio::task::yield_now().await;
    bed.enqueue(&[job("", "a")]).await;
    assert_eq!(payloads(&waiting.await.unwrap()), ["a"]);
}

#[tokio::test]
async fn leases_of_a_holder_that_is_gone_end() {
    let bed = Bed::new(QueueSettings::default()).await;
    bed.enqueue(&[job("", "a"), job("", "b")]).await;
    let claim = |holder: &str| Claim {
        max: 1,
        lease: None,
        wait: Duration::ZERO,
        holder: Some(holder.to_owned()),
        even_spent: false,
    };
    bed.queues.claim(&bed.project, &bed.name, &claim("gone")).await.unwrap();
    bed.queues.claim(&bed.project, &bed.name, &claim("here")).await.unwrap();
    bed.queues.release(&bed.project, &bed.name, "gone").await.unwrap();
    let again = bed.claim(9).await;
    assert_eq!((payloads(&again), again[0].attempt), (vec!["a"], 1), "no try was used up");
}

#[tokio::test]
async fn who_writes_down_the_end_gets_a_spent_job_once_more() {
    let bed = Bed::new(QueueSettings { attempts_max: 1, ..QueueSettings::default() }).await;
    bed.enqueue(&[job("", "a")]).await;
    assert_eq!(payloads(&bed.claim(1).await), ["a"]);
    bed.pass(30_000);
    let wait = Duration::ZERO;
    let claim = Claim { max: 1, lease: None, wait, holder: None, even_spent: true };
    let again = bed.queues.claim(&bed.project, &bed.name, &claim).await.unwrap();
    assert_eq!((payloads(&again), again[0].attempt), (vec!["a"], 2));
    bed.pass(30_000);
    assert!(bed.claim(1).await.is_empty(), "to others it is dead");
    assert_eq!(bed.queues.metrics().dead, 1);
}

#[tokio::test]
async fn a_commit_whose_end_nobody_saw_is_found_by_reading() {
    let bed = Bed::new(QueueSettings::default()).await;
    assert!(bed.claim(1).await.is_empty());
    let mut transaction = Transaction::new(bed.project.clone());
    let enqueued =
        bed.queues.enqueue(&mut transaction, &bed.name, vec![job("", "a")]).await.unwrap();
    drop(enqueued);
    bed.store.commit(transaction).await.unwrap();
    assert_eq!(payloads(&bed.claim(1).await), ["a"]);
}

#[tokio::test]
async fn an_emptied_queue_refuses_who_holds_a_job_of_it() {
    let bed = Bed::new(QueueSettings { ordered: true, ..QueueSettings::default() }).await;
    bed.enqueue(&[job("k", "a"), job("k", "b"), job("", "c")]).await;
    let held = bed.claim(1).await.remove(0);
    bed.queues.delete(&bed.project, &bed.name).await.unwrap();
    assert_eq!(bed.rows().await, Vec::<String>::new());
    let refused = bed.finish(&held, Outcome::Done { result: None }).await;
    assert!(matches!(refused, Err(QueueError::NoSuchJob { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_result_is_kept_for_a_day() {
    let bed = Bed::new(QueueSettings::default()).await;
    bed.enqueue(&[job("", "a")]).await;
    let held = bed.claim(1).await.remove(0);
    let result = serde_json::from_str(r#"{"n":1}"#).unwrap();
    bed.finish(&held, Outcome::Done { result: Some(result) }).await.unwrap();
    let view = bed.queues.job(&bed.project, &bed.name, held.job.id).await.unwrap();
    assert_eq!(view.result.as_deref(), Some(&br#"{"n":1}"#[..]));
    bed.pass(25 * 60 * 60 * 1_000);
    bed.queues.sweep(&bed.project).await.unwrap();
    assert_eq!(bed.rows().await, Vec::<String>::new());
}

#[tokio::test]
async fn more_jobs_than_the_window_holds_are_all_taken() {
    let bed = Bed::new(QueueSettings::default()).await;
    let many = 2 * front::WINDOW + 10;
    for _ in 0..many / 1_000 + 1 {
        let jobs: Vec<NewJob> = (0..1_000).map(|_| job("", "a")).collect();
        bed.enqueue(&jobs).await;
    }
    let mut seen = BTreeSet::new();
    loop {
        let claimed = bed.claim(CLAIM_MAX).await;
        if claimed.is_empty() {
            break;
        }
        assert!(claimed.iter().all(|one| seen.insert(one.job.id)));
    }
    assert_eq!(seen.len(), (many / 1_000 + 1) * 1_000);
}

/// `STREAM_SEED` repeats a run.
#[expect(clippy::disallowed_methods, reason = "a test's seed is no configuration")]
fn seeded() -> StdRng {
    let given = std::env::var("STREAM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(rand::random::<u64>);
    println!("STREAM_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Workers of every kind on an ordered queue, with restarts: each job is done once, and no two of a
/// key are held at once.
#[tokio::test]
async fn many_workers_that_fail_and_vanish_do_each_job_once_and_keys_in_order() {
    let mut random = seeded();
    let backoff = BackoffSettings::Ladder { delays_ms: vec![1_000] };
    let settings = QueueSettings {
        ordered: true,
        attempts_max: 1_000,
        backoff,
        concurrency: Some(7),
        ..QueueSettings::default()
    };
    let mut bed = Bed::new(settings).await;
    let mut held: Vec<Claimed> = Vec::new();
    let mut stale: Vec<Claimed> = Vec::new();
    let mut done: BTreeMap<Option<String>, Vec<JobId>> = BTreeMap::new();
    let mut enqueued = 0;
    for step in 0.. {
        if step > 100_000 {
            unreachable!("jobs are stuck: {enqueued} enqueued, {done:?} done");
        }
        match random.random_range(0..10) {
            0 | 1 if enqueued < 200 => {
                let count = random.random_range(1..5);
                let jobs: Vec<NewJob> = (0..count)
                    .map(|_| job(["", "a", "b"][random.random_range(0..3)], "x"))
                    .collect();
                bed.enqueue(&jobs).await;
                enqueued += count;
            }
            2..5 => {
                let claimed = bed.claim(random.random_range(1..4)).await;
                held.extend(claimed);
            }
            5..8 if !held.is_empty() => {
                let one = held.swap_remove(random.random_range(0..held.len()));
                if random.random_bool(0.7) {
                    bed.done(&one).await;
                    done.entry(one.job.key.clone()).or_default().push(one.job.id);
                } else {
                    bed.finish(&one, failed()).await.unwrap();
                }
            }
            8 => {
                bed.pass(30_001);
                stale.append(&mut held);
            }
            9 => bed.restart(),
            _ => {}
        }
        if let Some(one) = stale.pop() {
            // Whoever was silent for too long may still be the last who has the job.
            match bed.finish(&one, Outcome::Done { result: None }).await {
                Ok(_) => done.entry(one.job.key.clone()).or_default().push(one.job.id),
                Err(QueueError::StaleLease { .. } | QueueError::NoSuchJob { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert!(held.len() <= 7);
        let mut keys: Vec<_> = held.iter().filter_map(|one| one.job.key.as_deref()).collect();
        keys.sort_unstable();
        assert!(keys.is_sorted_by(|a, b| a < b), "two jobs of a key are held: {keys:?}");
        let count: usize = done.values().map(Vec::len).sum();
        if enqueued >= 200 && count == enqueued {
            break;
        }
    }
    for (key, ids) in done {
        let distinct: BTreeSet<&JobId> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len(), "a job was done twice");
        assert!(key.is_none() || ids.is_sorted(), "jobs of {key:?} were done out of order");
    }
    assert_eq!(bed.rows().await, Vec::<String>::new());
}
