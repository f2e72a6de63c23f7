//! How soon another member reads on where one left or crashed, and that the others never pause.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{ALONE, Member, start};

const PARTITIONS: u64 = 12;
const SESSION: Duration = Duration::from_millis(1_000);
/// How often each partition gets a record.
const BEAT: Duration = Duration::from_millis(20);
/// Of a member that is not concerned, between two reads of a partition: far less than a session.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// A test that takes longer hangs.
const END: Duration = Duration::from_secs(60);

/// A read of a partition by a member.
#[derive(Debug, Clone, Copy)]
struct Seen {
    at: Instant,
    member: usize,
    partition: u64,
}

type Log = Arc<Mutex<Vec<Seen>>>;

#[expect(clippy::disallowed_methods, reason = "what is measured is real time")]
fn now() -> Instant {
    Instant::now()
}

/// Reads and commits, for ever. A commit that fails is a failure of the test.
async fn consume(member: Member, number: usize, log: Log) {
    loop {
        let page = member.read(1_000).await;
        let at = now();
        let next = page["next"].as_array().unwrap();
        if next.is_empty() {
            continue;
        }
        let read = next.iter().map(|place| place["partition"].as_u64().unwrap());
        log.lock().unwrap().extend(read.map(|partition| Seen { at, member: number, partition }));
        let committed = member.commit(&page["next"]).await;
        assert_eq!(committed.status, 204, "member {number}: {committed:?}");
    }
}

/// Waits until these members, and only these, have read all partitions since `since`.
async fn all_are_read_by(log: &Log, members: &[usize], since: Instant) -> BTreeSet<(usize, u64)> {
    loop {
        let found: BTreeSet<(usize, u64)> = log
            .lock()
            .unwrap()
            .iter()
            .filter(|seen| seen.at > since && members.contains(&seen.member))
            .map(|seen| (seen.member, seen.partition))
            .collect();
        let read: BTreeSet<u64> = found.iter().map(|(_, partition)| *partition).collect();
        if read.len() as u64 == PARTITIONS
            && members.iter().all(|member| found.iter().any(|(by, _)| by == member))
        {
            return found;
        }
        assert!(since.elapsed() < END, "{members:?} read only {found:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How long after `since` the last of these partitions was read by another than `gone`.
fn hand_over(log: &Log, since: Instant, gone: usize, partitions: &BTreeSet<u64>) -> Duration {
    let log = log.lock().unwrap();
    let first = |partition: &u64| {
        let by_other =
            |seen: &&Seen| seen.at > since && seen.member != gone && seen.partition == *partition;
        log.iter().find(by_other).unwrap().at - since
    };
    partitions.iter().map(first).max().unwrap()
}

/// The longest time between two reads of a partition by a member that had it all the while.
fn longest_pause(log: &Log, member: usize, partitions: &BTreeSet<u64>) -> Duration {
    let log = log.lock().unwrap();
    let pauses = partitions.iter().flat_map(|partition| {
        let of = |seen: &&Seen| seen.member == member && seen.partition == *partition;
        let times: Vec<Instant> = log.iter().filter(of).map(|seen| seen.at).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>()
    });
    pauses.max().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_is_short_and_the_others_never_pause() {
    let _alone = ALONE.lock().await;
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    client.call_with("POST", "/topics", json!({"name": "t", "partitions": PARTITIONS})).await.ok();
    let log = Log::default();
    let join = json!({"subscriptions": ["t"], "session_timeout_ms": 1_000});
    let (mut members, mut tasks) = (Vec::new(), Vec::new());
    for number in 0..3 {
        let (member, _) = Member::join(&client, "g", join.clone()).await;
        tasks.push(tokio::spawn(consume(member.clone(), number, log.clone())));
        members.push(member);
    }
    let publisher = client.clone();
    let publishing = tokio::spawn(async move {
        let mut beat = tokio::time::interval(BEAT);
        let lines: String =
            (0..PARTITIONS).map(|n| format!("{{\"value\":1,\"partition\":{n}}}\n")).collect();
        loop {
            beat.tick().await;
            publisher.publish("t", lines.clone()).await.ok();
        }
    });
    let of = |found: &BTreeSet<(usize, u64)>, member: usize| -> BTreeSet<u64> {
        found.iter().filter(|(by, _)| *by == member).map(|(_, partition)| *partition).collect()
    };
    // Settled: each has a third. What was moved before is over by then.
    let settled = loop {
        let found = all_are_read_by(&log, &[0, 1, 2], now()).await;
        if found.len() as u64 == PARTITIONS {
            break found;
        }
    };
    let begun = now();
    let kept = of(&settled, 2);
    assert_eq!(kept.len(), 4);

    tasks[0].abort();
    // The task's last request has to be over, or it may still read.
    assert!((&mut tasks[0]).await.unwrap_err().is_cancelled());
    let left = now();
    members[0].leave().await;
    all_are_read_by(&log, &[1, 2], left).await;
    let clean = hand_over(&log, left, 0, &of(&settled, 0));

    let found = all_are_read_by(&log, &[1, 2], now()).await;
    let crashed = now();
    tasks[1].abort();
    assert!((&mut tasks[1]).await.unwrap_err().is_cancelled());
    all_are_read_by(&log, &[2], crashed).await;
    let crash = hand_over(&log, crashed, 1, &of(&found, 1));

    log.lock().unwrap().retain(|seen| seen.at > begun);
    let pause = longest_pause(&log, 2, &kept);
    println!(
        "hand-over after a clean leave {clean:?}, after a crash {crash:?} (session {SESSION:?}); longest pause of the member not concerned {pause:?}"
    );
    assert!(!tasks[2].is_finished(), "its commits never fail");
    assert!(clean < Duration::from_secs(1), "{clean:?}");
    assert!(crash < SESSION + Duration::from_secs(1), "{crash:?}");
    assert!(pause < PAUSE_MAX, "{pause:?}");
    publishing.abort();
    tasks[2].abort();
}

#[tokio::test]
async fn a_standby_takes_over_from_a_waiting_member_whose_connection_is_cut() {
    let _alone = ALONE.lock().await;
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    client.call_with("POST", "/topics", json!({"name": "t", "partitions": 1})).await.ok();
    let join = json!({"subscriptions": ["t"], "session_timeout_ms": 1_000});
    let (owner, joined) = Member::join(&client, "g", join.clone()).await;
    assert_eq!(joined["assignment"].as_array().unwrap().len(), 1);
    let waits = owner.clone();
    let waiting = tokio::spawn(async move { waits.read(60_000).await });
    let (standby, joined) = Member::join(&client, "g", join).await;
    assert_eq!(joined["assignment"], json!([]));
    let waits = standby.clone();
    let taking_over = tokio::spawn(async move { waits.read(60_000).await });
    // Longer than a session: the owner is kept by nothing but its call, which counts as a heartbeat.
    tokio::time::sleep(SESSION * 3 / 2).await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    let cut = now();
    client.publish("t", "{\"value\":1}\n").await.ok();
    let page = tokio::time::timeout(SESSION + Duration::from_secs(1), taking_over).await;
    let page = page.expect("the standby is woken in time").unwrap();
    assert_eq!(page["records"].as_array().unwrap().len(), 1, "{page}");
    println!("taken over {:?} after the cut", cut.elapsed());
}
