//! Connectors: what they take, once; how they are paused, sent back and deleted; services elsewhere.

use std::collections::VecDeque;
use std::sync::Mutex;

use axum::extract::{Request as Received, State};
use axum::response::IntoResponse;
use stream_storage::ProjectName;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::*;
use crate::name::QueueName;
use crate::queue::{Claim, Claimed, Listed};
use crate::state::PageRequest;

/// No test waits longer.
const PATIENCE: Duration = Duration::from_secs(20);

fn project() -> ProjectName {
    ProjectName::parse("default").unwrap()
}

fn queue(name: &str) -> QueueName {
    QueueName::parse(name).unwrap()
}

impl Server {
    pub(super) async fn connect(&self, name: &str, body: Value) -> Value {
        let answer = self.call(&format!("PUT /connectors/{name}"), body).await;
        assert!(answer.status.is_success(), "{}", answer.text);
        answer.json()
    }

    /// Jobs of a queue, once there are as many.
    pub(super) async fn jobs(&self, name: &str, count: usize) -> Vec<Claimed> {
        let deadline = Instant::now() + PATIENCE;
        let mut jobs = Vec::new();
        while jobs.len() < count {
            let wait = deadline.saturating_duration_since(Instant::now());
            let claim = Claim { max: count, lease: None, wait, holder: None, even_spent: false };
            let claimed =
                self.app.node.queues.claim(&project(), &queue(name), &claim).await.unwrap();
            assert!(!claimed.is_empty(), "only {} of {count} jobs came", jobs.len());
            jobs.extend(claimed);
        }
        jobs
    }

    /// A connector, once `is_so`.
    pub(super) async fn until(&self, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told = self.get(&format!("/connectors/{name}")).await.json();
            if is_so(&told) {
                return told;
            }
            assert!(Instant::now() < deadline, "{told}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn waiting(&self, name: &str) -> usize {
        let all = PageRequest::default();
        let listed = Listed::Waiting;
        let jobs = self.app.node.queues.jobs(&project(), &queue(name), listed, &all).await;
        jobs.unwrap().items.len()
    }
}

pub(super) fn payloads(jobs: &[Claimed]) -> Vec<String> {
    let mut payloads: Vec<String> = jobs
        .iter()
        .map(|claimed| String::from_utf8(claimed.job.payload.to_vec()).unwrap())
        .collect();
    payloads.sort();
    payloads
}

#[tokio::test]
async fn what_is_published_becomes_a_job_once() {
    let server = Server::start().await;
    server.topic(2).await;
    server.fill(0, 2).await;
    let made = server.connect("c", json!({ "kind": "worker", "match": "t" })).await;
    assert_eq!(
        (&made["state"], &made["lag"], &made["topics"]),
        (&json!("running"), &json!(0), &json!(1))
    );
    let line = "{\"value\":{\"n\": 7},\"key\":\"k\",\"headers\":{\"h\":\"1\"},\"id\":\"e1\"}\n";
    server.events(line, &[]).await;
    let jobs = server.jobs("c", 1).await;
    let job = &jobs[0].job;
    assert_eq!((job.key.as_deref(), &*job.payload), (Some("k"), &b"{\"n\": 7}"[..]));
    assert_eq!((job.headers["h"].as_str(), job.headers["event-id"].as_str()), ("1", "e1"));
    let source = job.source.as_ref().unwrap();
    assert_eq!(source.topic, "t");
    let told = server.until("c", |told| told["taken"] == json!(1)).await;
    assert_eq!((&told["lag"], &told["queue"]["in_flight"]), (&json!(0), &json!(1)));
    // What is put again goes on from where it is.
    server.connect("c", json!({ "kind": "worker", "match": "t" })).await;
    server.fill(1, 1).await;
    assert_eq!(payloads(&server.jobs("c", 1).await), ["0"]);
    assert_eq!(server.waiting("c").await, 0);
}

#[tokio::test]
async fn it_begins_where_it_is_told_and_topics_made_later_are_read_whole() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 3).await;
    let settings = json!({ "queue": "q", "from": "earliest" });
    server.connect("c", json!({ "kind": "worker", "match": "**", "settings": settings })).await;
    assert_eq!(payloads(&server.jobs("q", 3).await), ["0", "1", "2"]);
    server.call("POST /topics", json!({ "name": "later", "partitions": 1 })).await;
    server.call("POST /topics/later/produce", json!({ "value": "l" })).await;
    assert_eq!(payloads(&server.jobs("q", 1).await), ["\"l\""]);
}

#[tokio::test]
async fn a_pattern_that_matches_nothing_is_accepted_and_said() {
    let server = Server::start().await;
    let made = server.connect("c", json!({ "kind": "worker", "match": "none.*" })).await;
    assert_eq!(made["topics"], json!(0));
    assert!(made["warning"].as_str().unwrap().contains("none.*"), "{made}");
}

#[tokio::test]
async fn one_that_is_paused_takes_nothing_and_goes_on_where_it_was() {
    let server = Server::start().await;
    server.topic(1).await;
    server.connect("c", json!({ "kind": "worker", "match": "t" })).await;
    let paused = server.call("POST /connectors/c/pause", Value::Null).await.json();
    assert_eq!(paused["state"], "paused");
    server.fill(0, 2).await;
    let told = server.get("/connectors/c").await.json();
    assert_eq!((&told["lag"], server.waiting("c").await), (&json!(2), 0));
    let resumed = server.call("POST /connectors/c/resume", Value::Null).await.json();
    assert_eq!(resumed["state"], "running");
    assert_eq!(payloads(&server.jobs("c", 2).await), ["0", "1"]);
}

#[tokio::test]
async fn a_replay_hands_over_again_from_an_offset_or_a_time() {
    let server = Server::start().await;
    server.topic(1).await;
    server.connect("c", json!({ "kind": "worker", "match": "t" })).await;
    server.fill(0, 3).await;
    server.jobs("c", 3).await;
    let replay = |body| server.call("POST /connectors/c/replay", body);
    let told = replay(json!({ "topic": "t", "partition": 0, "offset": 2 })).await;
    assert_eq!(told.status, 200, "{}", told.text);
    assert_eq!(payloads(&server.jobs("c", 1).await), ["2"]);
    replay(json!({ "from": "2026-01-01T00:00:00Z" })).await;
    assert_eq!(payloads(&server.jobs("c", 3).await), ["0", "1", "2"]);
    replay(json!({ "topic": "t", "from": "latest" })).await;
    assert_eq!(server.get("/connectors/c").await.json()["lag"], json!(0));
    let beyond = replay(json!({ "topic": "t", "partition": 0, "offset": 9 })).await;
    assert_eq!(beyond.error(), (416, "offset-beyond-end".to_owned()));
    let other = replay(json!({ "topic": "u", "from": "earliest" })).await;
    assert_eq!(other.error(), (400, "invalid-topic".to_owned()));
    assert_eq!(replay(json!({})).await.error(), (400, "invalid-from".to_owned()));
}

#[tokio::test]
async fn a_deleted_one_is_gone_and_what_drains_is_taken_before() {
    let server = Server::start().await;
    server.topic(1).await;
    server.connect("c", json!({ "kind": "worker", "match": "t" })).await;
    server.call("POST /connectors/c/pause", Value::Null).await;
    server.fill(0, 2).await;
    let draining = server.call("DELETE /connectors/c?mode=drain", Value::Null).await;
    assert!(draining.status == 202 || draining.status == 204, "{}", draining.text);
    assert_eq!(payloads(&server.jobs("c", 2).await), ["0", "1"]);
    let deadline = Instant::now() + PATIENCE;
    while server.get("/connectors/c").await.status != 404 {
        assert!(Instant::now() < deadline, "it is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.connect("d", json!({ "kind": "worker", "match": "t" })).await;
    assert_eq!(server.call("DELETE /connectors/d?mode=drop", Value::Null).await.status, 204);
    assert_eq!(server.get("/connectors/d").await.error(), (404, "connector-not-found".to_owned()));
    let rows = server.app.node.store.scan(&project(), b"connector", None, 10).await.unwrap();
    assert_eq!(rows, []);
}

#[tokio::test]
async fn what_retention_took_before_it_was_read_is_told_and_the_rest_goes_on() {
    let server = Server::start().await;
    server.topic(2).await;
    server.connect("c", json!({ "kind": "worker", "match": "t" })).await;
    server.call("POST /connectors/c/pause", Value::Null).await;
    server.fill(0, 3).await;
    server.fill(1, 1).await;
    let trim = "DELETE /topics/t/partitions/0/records?before=2";
    let trimmed = server.call(trim, Value::Null).await;
    assert!(trimmed.status.is_success(), "{}", trimmed.text);
    server.call("POST /connectors/c/resume", Value::Null).await;
    assert_eq!(payloads(&server.jobs("c", 1).await), ["0"]);
    let told = server.until("c", |told| told["lost"] != json!([])).await;
    assert_eq!(told["lost"][0]["records"], json!(2));
    server
        .call(
            "POST /connectors/c/replay",
            json!({ "topic": "t", "partition": 0, "from": "earliest" }),
        )
        .await;
    assert_eq!(payloads(&server.jobs("c", 1).await), ["2"]);
}

#[tokio::test]
async fn words_that_are_wrong_are_named() {
    let server = Server::start().await;
    let refused = async |body| server.call("PUT /connectors/c", body).await.error();
    let worker = |more: Value| {
        let mut body = json!({ "kind": "worker", "match": "t" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for (body, code) in [
        (json!({ "kind": "x", "match": "t" }), "invalid-kind"),
        (json!({ "kind": "worker", "match": "a..b" }), "invalid-match"),
        (json!({ "kind": "worker" }), "invalid-match"),
        (worker(json!({ "settings": { "speed": 1 } })), "invalid-settings"),
        (worker(json!({ "speed": 1 })), "invalid-body"),
        (worker(json!({ "secret": "s" })), "invalid-secret"),
        (worker(json!({ "url": "ftp://h" })), "invalid-url"),
        (worker(json!({ "url": "http://10.0.0.1/" })), "forbidden-url"),
        (worker(json!({ "plugin": { "plugin": "p" } })), "plugin-not-found"),
    ] {
        assert_eq!(refused(body.clone()).await.1, code, "{body}");
    }
    assert_eq!(server.get("/connectors").await.json()["connectors"], json!([]));
    server.connect("c", worker(json!({}))).await;
    let hooks = json!({ "kind": "hooks", "match": "t" });
    assert_eq!(refused(hooks).await.1, "invalid-kind");
    assert_eq!(refused(worker(json!({ "url": "http://127.0.0.1:9/" }))).await.1, "invalid-url");
}

/// A service elsewhere that answers as it is told, 200 in the end.
pub(super) struct Elsewhere {
    pub(super) url: String,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    answers: Mutex<VecDeque<u16>>,
    requests: Mutex<Vec<(String, HeaderMap, Value)>>,
}

impl Elsewhere {
    pub(super) async fn start(answers: &[u16]) -> Self {
        let seen = Arc::new(Seen::default());
        seen.answers.lock().unwrap().extend(answers);
        let router = Router::new().fallback(answer).with_state(Arc::clone(&seen));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, seen }
    }

    pub(super) async fn requests(&self, count: usize) -> Vec<(String, HeaderMap, Value)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let requests = self.seen.requests.lock().unwrap().clone();
            if requests.len() >= count {
                return requests;
            }
            assert!(Instant::now() < deadline, "only {} requests came", requests.len());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn answer(State(seen): State<Arc<Seen>>, request: Received) -> impl IntoResponse {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&body).unwrap();
    seen.requests.lock().unwrap().push((parts.uri.path().to_owned(), parts.headers, body));
    let status = seen.answers.lock().unwrap().pop_front().unwrap_or(200);
    (StatusCode::from_u16(status).unwrap(), "said")
}

#[tokio::test]
async fn a_worker_elsewhere_gets_a_batch_under_a_stable_key_with_the_secret() {
    let server = Server::start().await;
    server.topic(1).await;
    let there = Elsewhere::start(&[503]).await;
    let settings = json!({
        "from": "earliest", "queue": "q", "project": "p", "backoff": { "delays_ms": [0] },
    });
    server.fill(0, 2).await;
    let body = json!({
        "kind": "worker", "match": "t", "url": there.url, "secret": "s3cret", "settings": settings,
    });
    let made = server.connect("c", body).await;
    assert_eq!((&made["has_secret"], made.to_string().contains("s3cret")), (&json!(true), false));
    let requests = there.requests(2).await;
    let (path, headers, body) = &requests[0];
    assert_eq!(path, "/projects/p/queues/q/jobs");
    assert_eq!(headers["authorization"], "Bearer s3cret");
    assert_eq!(headers["idempotency-key"], requests[1].1["idempotency-key"]);
    assert_eq!((&requests[1].2, body["jobs"][1]["payload"].clone()), (body, json!(1)));
    assert_eq!(body["jobs"][0]["headers"]["stream-offset"], "0");
    let told = server.until("c", |told| told["sent"] == json!(1)).await;
    assert!(told["last_error"].as_str().unwrap().contains("503"), "{told}");
    let rows = server.app.node.store.scan(&project(), b"connector/", None, 10).await.unwrap();
    assert!(!String::from_utf8_lossy(&rows[0].versioned.value).contains("s3cret"));
}

#[tokio::test]
async fn what_a_service_elsewhere_will_never_take_is_dead_and_can_be_sent_again() {
    let server = Server::start().await;
    server.topic(1).await;
    let there = Elsewhere::start(&[400]).await;
    server.connect("c", json!({ "kind": "hooks", "match": "t", "url": there.url })).await;
    server.fill(0, 1).await;
    let told = server.until("c", |told| told["queue"]["dead"] == json!(1)).await;
    assert!(told["last_error"].as_str().unwrap().contains("400"), "{told}");
    let dead = server.get("/connectors/c/dead-letters").await.json();
    assert_eq!(dead["dead_letters"][0]["source"]["offset"], json!(0));
    let letter = server.get("/topics/_dead-letter/consume?group=g").await.json();
    let letter = &letter["records"][0]["value"];
    assert_eq!((&letter["kind"], &letter["cause"]), (&json!("queue"), &json!("refused")));
    assert_eq!((&letter["topic"], &letter["offset"]), (&json!("t"), &json!(0)));
    let redriven = server.call("POST /connectors/c/redrive", json!({})).await;
    assert_eq!(redriven.json(), json!({ "redriven": 1 }));
    let requests = there.requests(2).await;
    assert_eq!(requests[1].0, "/projects/default/webhooks");
    assert_eq!(requests[1].2, json!({ "event_type": "t", "payload": 0 }));
    server.until("c", |told| told["queue"]["dead"] == json!(0)).await;
}

#[tokio::test]
async fn while_most_requests_fail_they_are_held_back_and_nothing_is_lost() {
    let server = Server::start().await;
    server.topic(1).await;
    let there = Elsewhere::start(&[500; 5]).await;
    let settings = json!({ "backoff": { "delays_ms": [0] }, "concurrency": 1 });
    let body = json!({ "kind": "hooks", "match": "t", "url": there.url, "settings": settings });
    server.connect("c", body).await;
    server.fill(0, 3).await;
    server.until("c", |told| !told["paused_reason"].is_null()).await;
    assert_eq!(there.seen.requests.lock().unwrap().len(), 5);
    server.clock.advance(Duration::from_secs(2));
    let told = server.until("c", |told| told["sent"] == json!(3)).await;
    assert_eq!((&told["queue"]["waiting"], &told["paused_reason"]), (&json!(0), &Value::Null));
}

#[tokio::test]
async fn one_that_is_put_again_skips_nothing_of_topics_made_meanwhile() {
    let server = Server::start().await;
    server.connect("c", json!({ "kind": "worker", "match": "**" })).await;
    server.call("POST /connectors/c/pause", Value::Null).await;
    server.topic(1).await;
    server.fill(0, 2).await;
    server
        .connect("c", json!({ "kind": "worker", "match": "**", "settings": { "batch": 7 } }))
        .await;
    server.call("POST /connectors/c/resume", Value::Null).await;
    assert_eq!(payloads(&server.jobs("c", 2).await), ["0", "1"]);
    // What it did not match before begins as it says.
    server.connect("d", json!({ "kind": "worker", "match": "none" })).await;
    server.connect("d", json!({ "kind": "worker", "match": "t" })).await;
    assert_eq!(server.get("/connectors/d").await.json()["lag"], json!(0));
}

#[tokio::test]
async fn one_that_drains_takes_all_partitions_while_publishing_goes_on() {
    let server = Server::start().await;
    server.topic(8).await;
    let settings = json!({ "from": "earliest", "batch": 1 });
    server.connect("c", json!({ "kind": "worker", "match": "t", "settings": settings })).await;
    server.call("POST /connectors/c/pause", Value::Null).await;
    server.fill(0, 1).await;
    let draining = server.call("DELETE /connectors/c?mode=drain", Value::Null).await;
    assert!(draining.status == 202 || draining.status == 204, "{}", draining.text);
    for partition in 1..8 {
        server.fill(partition, 1).await;
    }
    server.jobs("c", 1).await;
}

#[tokio::test]
async fn what_it_is_for_good_and_whom_it_shows_its_secret_do_not_change() {
    let server = Server::start().await;
    let there = Elsewhere::start(&[]).await;
    let body = |more: Value| {
        let mut body = json!({ "kind": "hooks", "match": "t", "url": there.url });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    server.connect("c", body(json!({ "secret": "s" }))).await;
    let put = async |more| server.call("PUT /connectors/c", body(more)).await;
    assert_eq!(put(json!({ "kind": "worker" })).await.error(), (400, "invalid-kind".to_owned()));
    assert_eq!(put(json!({ "url": null })).await.error(), (400, "invalid-url".to_owned()));
    let other = json!({ "url": "http://127.0.0.1:9" });
    assert_eq!(put(other).await.error(), (400, "invalid-secret".to_owned()));
    let path = json!({ "url": format!("{}/v1", there.url) });
    assert_eq!(put(path).await.json()["has_secret"], json!(true));
    let other = json!({ "url": "http://127.0.0.1:9", "secret": "" });
    assert_eq!(put(other).await.json()["has_secret"], json!(false));
}

#[tokio::test]
async fn one_that_is_made_anew_right_away_is_none_of_the_one_before() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 1).await;
    let body = json!({ "kind": "worker", "match": "t", "settings": { "from": "earliest" } });
    for _ in 0..20 {
        server.connect("c", body.clone()).await;
        let told = server.until("c", |told| told["taken"] == json!(1)).await;
        assert_eq!(told["lag"], json!(0));
        let gone = server.call("DELETE /connectors/c?mode=drain", Value::Null).await;
        assert!(gone.status == 202 || gone.status == 204, "{}", gone.text);
        let deadline = Instant::now() + PATIENCE;
        while server.get("/connectors/c").await.status != 404 {
            assert!(Instant::now() < deadline, "it is still there");
        }
    }
    // The places go a moment after the row.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let rows = server.app.node.store.scan(&project(), b"connector", None, 10).await.unwrap();
        if rows.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{rows:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_connectors_do_is_counted_by_kind() {
    let server = Server::start().await;
    server.topic(1).await;
    let settings = json!({ "from": "earliest" });
    server.fill(0, 2).await;
    server.connect("c", json!({ "kind": "worker", "match": "t", "settings": settings })).await;
    server.connect("d", json!({ "kind": "ledger", "match": "t" })).await;
    server.call("POST /connectors/d/pause", Value::Null).await;
    server.fill(0, 3).await;
    server.jobs("c", 5).await;
    let there = Elsewhere::start(&[503]).await;
    let body = json!({
        "kind": "hooks", "match": "t", "url": there.url,
        "settings": { "backoff": { "delays_ms": [0] } },
    });
    server.connect("e", body).await;
    server.fill(0, 1).await;
    server.until("e", |told| told["sent"] == json!(1)).await;
    server.until("c", |told| told["taken"] == json!(6)).await;
    let text = server.get("/metrics").await.text;
    for line in [
        "stream_connectors{kind=\"worker\",state=\"running\"} 1",
        "stream_connectors{kind=\"ledger\",state=\"paused\"} 1",
        "stream_connectors{kind=\"ledger\",state=\"running\"} 0",
        "stream_connector_lag_records{kind=\"ledger\"} 4",
        "stream_connector_lag_records{kind=\"worker\"} 0",
        "stream_connector_records_total{kind=\"worker\",outcome=\"taken\"} 6",
        "stream_connector_requests_total{kind=\"hooks\",outcome=\"sent\"} 1",
        "stream_connector_requests_total{kind=\"hooks\",outcome=\"failed\"} 1",
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line} in {text}");
    }
}

#[tokio::test]
async fn what_changes_nothing_cuts_nothing_off() {
    let server = Server::start().await;
    server.topic(1).await;
    let body = json!({ "kind": "worker", "match": "t" });
    let made = server.connect("c", body.clone()).await;
    server.clock.advance(Duration::from_secs(5));
    let again = server.connect("c", body).await;
    assert_eq!(again["updated_at"], made["updated_at"]);
    let resumed = server.call("POST /connectors/c/resume", Value::Null).await.json();
    assert_eq!(resumed["updated_at"], made["updated_at"]);
    let changed = server.connect("c", json!({ "kind": "worker", "match": "**" })).await;
    assert_ne!(changed["updated_at"], made["updated_at"]);
}

#[tokio::test]
async fn what_one_that_rests_has_lost_is_told() {
    let server = Server::start().await;
    server.topic(1).await;
    server.connect("c", json!({ "kind": "worker", "match": "t" })).await;
    server.call("POST /connectors/c/pause", Value::Null).await;
    server.fill(0, 3).await;
    let trim = "DELETE /topics/t/partitions/0/records?before=2";
    server.call(trim, Value::Null).await;
    let told = server.get("/connectors/c").await.json();
    assert_eq!((&told["lost"][0]["records"], &told["lag"]), (&json!(2), &json!(3)), "{told}");
}
