//! Workers that publish what they did, in the transaction that ends the job; some of them vanish.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use stream_tests::Client;
use tokio::task::JoinSet;

/// The topic that tells of each job that was done.
pub(crate) const HANDLED: &str = "handled";

/// How long a job is held: who vanishes holds it up so long.
const LEASE_MS: u64 = 500;

/// Works on a queue until aborted, or until the server is gone. Now and then it forgets what it has
/// taken, as a worker that was killed does, and now and then it is late and tries all the same.
pub(crate) async fn work(client: Client, queue: &'static str, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let claim = json!({ "max": 10, "lease_ms": LEASE_MS, "wait_ms": 500 });
    let path = format!("/queues/{queue}/claim");
    loop {
        let request = client.request("POST", &path).json(&claim);
        let Ok(claimed) = client.try_send(request).await else { return };
        if claimed.status >= 500 {
            return;
        }
        let claimed = claimed.ok();
        if random.random_bool(0.03) {
            continue;
        }
        if random.random_bool(0.01) {
            tokio::time::sleep(Duration::from_millis(LEASE_MS + 100)).await;
        }
        for job in claimed["jobs"].as_array().unwrap() {
            if complete(&client, queue, job).await.is_none() {
                return;
            }
        }
    }
}

/// Ends a job and tells of it; `None` if the server is gone.
async fn complete(client: &Client, queue: &str, job: &Value) -> Option<()> {
    let path = format!("/queues/{queue}/jobs/{}/complete", job["id"].as_str().unwrap());
    let told = json!({ "source": job["source"], "attempt": job["attempt"] });
    let body = json!({
        "lease": job["lease"],
        "publish": [{ "topic": HANDLED, "value": told }],
    });
    loop {
        let request = client.request("POST", &path).json(&body);
        let answer = client.try_send(request).await.ok()?;
        match (answer.status, answer.code()) {
            (200..=299, _) => return Some(()),
            // Somebody else has it, or has done it.
            (409, "stale-lease") | (404, "job-not-found") => return Some(()),
            // Another commit was in the way.
            (409 | 429, _) => {}
            (500.., _) => return None,
            _ => panic!("{answer:?}"),
        }
    }
}

/// So many of them.
pub(crate) fn team(
    client: &Client,
    queue: &'static str,
    random: &mut StdRng,
    count: usize,
) -> JoinSet<()> {
    let mut team = JoinSet::new();
    for _ in 0..count {
        team.spawn(work(client.clone(), queue, random.random()));
    }
    team
}

/// The sources that were told of, in order: topic, partition, offset.
pub(crate) async fn handled(client: &Client) -> Vec<(String, u64, u64)> {
    let mut handled = Vec::new();
    for record in client.records(HANDLED, 0, 0).await {
        let source = &record["value"]["source"];
        let number = |name: &str| source[name].as_u64().unwrap();
        let topic = source["topic"].as_str().unwrap().to_owned();
        handled.push((topic, number("partition"), number("offset")));
    }
    handled.sort();
    handled
}
