//! Calls of every kind at once: none leaves a row that another one needs, or that nobody frees.

use super::*;

/// What has to hold of the rows of a queue at any time between two commits.
async fn assert_whole(bed: &Bed) {
    let rows = bed.store.scan(&bed.project, b"job", None, 100_000).await.unwrap();
    let names = |kind: &str| -> BTreeSet<String> {
        let prefix = format!("{kind}/{}/", bed.name);
        rows.iter()
            .filter_map(|row| {
                String::from_utf8_lossy(&row.key).strip_prefix(&prefix).map(String::from)
            })
            .collect()
    };
    let id = |name: &String| name[name.len() - JOB_ID..].to_owned();
    let jobs = names("job");
    let mut standing = Vec::new();
    for kind in ["job-due", "job-lease", "job-behind", "job-done", "job-dead"] {
        standing.extend(names(kind).iter().map(id));
    }
    standing.sort();
    assert!(standing.is_sorted_by(|a, b| a < b), "a job stands in two rows");
    assert!(standing.iter().eq(jobs.iter()), "{standing:?} are not the jobs {jobs:?}");
    let heads = names("job-key");
    for behind in names("job-behind") {
        let (key, _) = behind.split_once('/').unwrap();
        assert!(heads.contains(key), "nobody frees {behind}");
    }
}

/// `job_` and 24 digits.
const JOB_ID: usize = 28;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_of_every_kind_at_once_leave_no_job_behind() {
    let mut random = seeded();
    let settings = QueueSettings { ordered: true, attempts_max: 2, ..QueueSettings::default() };
    let bed = Arc::new(Bed::new(settings).await);
    for _ in 0..5 {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..60 {
            let (bed, kind, key) =
                (Arc::clone(&bed), random.random_range(0..12), random.random_range(0..3));
            calls.spawn(async move { call(&bed, kind, ["", "a", "b"][key]).await });
        }
        while let Some(ended) = calls.join_next().await {
            ended.unwrap();
        }
        assert_whole(&bed).await;
    }
    // What is left is done, once.
    bed.queues.discard(&bed.project, &bed.name, None).await.unwrap();
    bed.pass(1_000_000);
    loop {
        let claimed = bed.claim(10).await;
        if claimed.is_empty() {
            break;
        }
        for one in &claimed {
            bed.done(one).await;
        }
    }
    bed.queues.discard(&bed.project, &bed.name, None).await.unwrap();
    assert_eq!(bed.rows().await, Vec::<String>::new());
    bed.queues.delete(&bed.project, &bed.name).await.unwrap();
}

async fn call(bed: &Bed, kind: u32, key: &'static str) {
    let (queues, project, name) = (&bed.queues, &bed.project, &bed.name);
    match kind {
        0..4 => drop(bed.enqueue(&[job(key, "1"), job("", "2"), job(key, "3")]).await),
        4..7 => {
            for one in bed.claim(3).await {
                ended(bed.finish(&one, Outcome::Done { result: None }).await);
            }
        }
        7 | 8 => {
            for one in bed.claim(3).await {
                let outcome = Outcome::Failed { reason: String::new(), retry: Retry::Never };
                ended(bed.finish(&one, outcome).await);
            }
        }
        9 => drop(queues.redrive(project, name, None).await.unwrap()),
        10 => drop(queues.discard(project, name, None).await.unwrap()),
        _ => queues.purge(project, name).await.unwrap(),
    }
}

/// Somebody may have emptied the queue meanwhile.
#[track_caller]
fn ended(ended: Result<Fate, QueueError>) {
    let is_fine =
        matches!(ended, Ok(_) | Err(QueueError::NoSuchJob { .. } | QueueError::StaleLease { .. }));
    assert!(is_fine, "{ended:?}");
}

#[tokio::test]
async fn a_queue_that_is_deleted_is_made_again_by_who_enqueues() {
    let bed = Bed::new(QueueSettings { ordered: true, ..QueueSettings::default() }).await;
    bed.enqueue(&[job("k", "old"), job("k", "old")]).await;
    bed.queues.delete(&bed.project, &bed.name).await.unwrap();
    let gone = bed.queues.check(&bed.project, &bed.name).await;
    assert!(matches!(gone, Err(QueueError::NotFound { .. })), "{gone:?}");
    bed.enqueue(&[job("k", "new")]).await;
    assert!(!bed.queues.get(&bed.project, &bed.name).await.unwrap().ordered);
    assert_eq!(payloads(&bed.claim(9).await), ["new"]);
}

#[tokio::test]
async fn another_hosts_change_of_the_settings_is_noticed_when_a_job_is_enqueued() {
    let bed = Bed::new(QueueSettings::default()).await;
    bed.enqueue(&[job("k", "a")]).await;
    let there = queues(&bed.store, &bed.clock);
    let ordered = QueueSettings { ordered: true, ..QueueSettings::default() };
    there.configure(&bed.project, &bed.name, &ordered).await.unwrap();
    bed.enqueue(&[job("k", "b"), job("k", "c")]).await;
    assert_eq!(payloads(&bed.claim(9).await), ["a", "b"]);
}

#[tokio::test]
async fn what_an_answer_has_no_room_for_is_left_to_the_next() {
    let bed = Bed::new(QueueSettings { attempts_max: 1, ..QueueSettings::default() }).await;
    bed.enqueue(&[job("", "a"), job("", "b"), job("", "c")]).await;
    let claim =
        Claim { max: 9, lease: None, wait: Duration::ZERO, holder: None, even_spent: false };
    let mut claiming = bed.queues.claiming(&bed.project, &bed.name, &claim);
    for expected in ["a", "b", "c"] {
        let claimed = claiming.take(1).await.unwrap();
        assert_eq!((payloads(&claimed), claimed[0].attempt), (vec![expected], 1));
    }
    bed.pass(30_000);
    // All are spent, and none is lost on the way.
    assert!(claiming.take(1).await.unwrap().is_empty());
    let view = bed.queues.describe(&bed.project, &bed.name).await.unwrap();
    assert_eq!((view.waiting, view.leased, view.dead), (0, 0, 3));
}

#[tokio::test]
async fn ends_are_taken_one_by_one_where_asked() {
    let bed = Bed::new(QueueSettings::default()).await;
    bed.enqueue(&[job("", "a"), job("", "b")]).await;
    let held = bed.claim(2).await;
    let end = |claimed: &Claimed, lease| Finish {
        id: claimed.job.id,
        lease,
        outcome: Outcome::Done { result: None },
    };
    let ends = [end(&held[0], Lease(9)), end(&held[1], held[1].lease)];
    let fates = bed.queues.finish_each(&bed.project, &bed.name, &ends).await.unwrap();
    assert!(matches!(fates[0], Err(QueueError::StaleLease { .. })), "{fates:?}");
    assert!(matches!(fates[1], Ok(Fate::Done)), "{fates:?}");
    let counted = bed.queues.metrics();
    let expected = QueueMetrics { enqueued: 2, claimed: 2, completed: 1, stale: 1, ..counted };
    assert_eq!((counted, counted.failed, counted.dead), (expected, 0, 0));
}

#[tokio::test]
async fn a_job_whose_row_a_deletion_has_left_is_cleared_away() {
    let bed = Bed::new(QueueSettings::default()).await;
    let place = bed.enqueue(&[job("", "a"), job("", "b")]).await[0];
    let mut transaction = Transaction::new(bed.project.clone());
    transaction.delete(Row::Job.key(&bed.name, place.id));
    bed.store.commit(transaction).await.unwrap();
    let held = bed.claim(9).await;
    assert_eq!(payloads(&held), ["b"]);
    bed.done(&held[0]).await;
    assert_eq!(bed.rows().await, Vec::<String>::new());
}

#[tokio::test]
async fn who_waits_hears_of_room_that_a_claim_did_not_use() {
    let settings =
        QueueSettings { attempts_max: 1, concurrency: Some(2), ..QueueSettings::default() };
    let bed = Bed::new(settings).await;
    bed.enqueue(&[job("", "spent")]).await;
    bed.claim(1).await;
    bed.pass(30_000);
    bed.enqueue(&[job("", "a"), job("", "b")]).await;
    let wait = Duration::from_secs(60);
    let waits = Claim { max: 1, lease: None, wait, holder: None, even_spent: false };
    let started = tokio::time::Instant::now();
    // The first looks at two, of which one is dead; meanwhile the second finds that all are held.
    let (first, second) =
        tokio::join!(bed.claim(2), bed.queues.claim(&bed.project, &bed.name, &waits));
    assert_eq!((payloads(&first), payloads(&second.unwrap())), (vec!["a"], vec!["b"]));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}
