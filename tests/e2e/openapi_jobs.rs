//! Queues and jobs against the OpenAPI document.

use serde_json::{Value, json};

use super::openapi::{Call, Checked};
use super::start;

const QUEUES: &str = "/projects/{project}/queues";
const QUEUE: &str = "/projects/{project}/queues/{queue}";
const JOBS: &str = "/projects/{project}/queues/{queue}/jobs";
const JOB: &str = "/projects/{project}/queues/{queue}/jobs/{id}";
const CLAIM: Call<'_> =
    ("POST", "/projects/{project}/queues/{queue}/claim", "/projects/p/queues/q/claim");
const ENQUEUE: Call<'_> = ("POST", JOBS, "/projects/p/queues/q/jobs");

#[tokio::test]
async fn every_answer_about_queues_and_jobs_is_as_the_document_says() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let checked = Checked::new(server.client()).await;
    let topics = ("POST", "/projects/{project}/topics", "/projects/p/topics");
    checked.call(topics, Some(json!({ "name": "t" })), 201).await;
    queues(&checked).await;
    enqueue(&checked).await;
    ends(&checked).await;
    dead(&checked).await;
    let queue = |method| (method, QUEUE, "/projects/p/queues/q");
    checked.call(queue("DELETE"), None, 204).await;
    checked.refuse(queue("DELETE"), None, 404, "queue-not-found").await;
}

async fn queues(checked: &Checked) {
    let queue = |method| (method, QUEUE, "/projects/p/queues/q");
    let settings = json!({
        "attempts_max": 2, "lease_ms": 60_000, "concurrency": 100, "rate_per_second": 1_000.5,
        "ordered": true, "paused": false, "backoff": { "base_ms": 1, "max_ms": 2 },
    });
    checked.call(queue("PUT"), Some(settings), 200).await;
    let ladder =
        json!({ "attempts_max": 2, "backoff": { "delays_ms": [60_000] }, "ordered": true });
    checked.call(queue("PUT"), Some(ladder), 200).await;
    checked.refuse(queue("PUT"), Some(json!({ "speed": 1 })), 400, "invalid-body").await;
    checked.refuse(queue("PUT"), Some(json!({ "lease_ms": 1 })), 400, "invalid-lease-ms").await;
    let own = ("PUT", QUEUE, "/projects/p/queues/_own");
    checked.refuse(own, Some(json!({})), 400, "invalid-queue").await;
    checked.call(queue("GET"), None, 200).await;
    checked.call(("GET", QUEUES, "/projects/p/queues"), None, 200).await;
    let none = ("GET", QUEUE, "/projects/p/queues/none");
    checked.refuse(none, None, 404, "queue-not-found").await;
}

async fn enqueue(checked: &Checked) {
    let later = json!({ "payload": [1], "delay_ms": 600_000, "key": null });
    checked.call(ENQUEUE, Some(later), 200).await;
    let many = json!({ "jobs": [
        { "payload": { "a": 1 }, "key": "a", "unique": "u", "headers": { "h": "1" } },
        { "payload": "/w==", "encoding": "base64", "content_type": "a/b", "key": "b" },
        { "payload": null, "due_at": "2020-01-01T00:00:00Z", "key": "c" },
        { "payload": 4, "key": "d" },
        { "payload": 5, "key": "d", "unique": "u" },
        { "payload": 6, "key": "d" },
    ] });
    let request = checked.client.request(ENQUEUE.0, ENQUEUE.2).header("idempotency-key", "k");
    let again = || request.try_clone().unwrap();
    let first = checked.send(ENQUEUE, again().json(&many), 200).await;
    let second = checked.send(ENQUEUE, again().json(&many), 200).await;
    assert_eq!(
        (&second.body["duplicate"], &second.body["jobs"]),
        (&json!(true), &first.body["jobs"])
    );
    let other = again().json(&json!({ "payload": 1 }));
    checked.send(ENQUEUE, other, 422).await;
    checked.refuse(ENQUEUE, Some(json!({ "payload": 1, "x": 1 })), 400, "invalid-x").await;
    let big = json!({ "payload": "x".repeat(2 << 20) });
    checked.refuse(ENQUEUE, Some(big), 413, "too-large").await;
    let list = ("GET", JOBS, "/projects/p/queues/q/jobs?limit=1");
    let page = checked.call(list, None, 200).await;
    assert!(page.body["next"].is_string());
    checked
        .refuse(("GET", JOBS, "/projects/p/queues/q/jobs?state=x"), None, 400, "invalid-state")
        .await;
}

/// Path of a call about a job.
fn about(job: &Value, what: &str) -> (String, String) {
    let path = format!("/projects/p/queues/q/jobs/{}{what}", job["id"].as_str().unwrap());
    (format!("{JOB}{what}"), path)
}

async fn ends(checked: &Checked) {
    let claim = json!({ "max": 4, "lease_ms": 60_000, "wait_ms": 1_000, "worker": "w" });
    let claimed = checked.call(CLAIM, Some(claim), 200).await;
    let jobs = claimed.body["jobs"].as_array().unwrap();
    assert_eq!(jobs.len(), 4);
    checked.refuse(CLAIM, Some(json!({ "max": 0 })), 400, "invalid-max").await;
    let lease = |job: &Value| json!({ "lease": job["lease"] });
    let (template, path) = about(&jobs[0], "/heartbeat");
    checked.call(("POST", &template, &path), Some(lease(&jobs[0])), 200).await;
    checked
        .refuse(("POST", &template, &path), Some(json!({ "lease": 9 })), 409, "stale-lease")
        .await;
    checked.refuse(("POST", &template, &path), Some(json!({})), 400, "invalid-lease").await;
    let (template, path) = about(&jobs[0], "/complete");
    let mut body = lease(&jobs[0]);
    body["result"] = json!({ "n": 1 });
    body["publish"] = json!([{ "topic": "t", "value": 1, "key": "k", "headers": { "h": "1" } }]);
    checked.call(("POST", &template, &path), Some(body.clone()), 200).await;
    checked.refuse(("POST", &template, &path), Some(body), 409, "stale-lease").await;
    let (template, path) = about(&jobs[0], "");
    checked.call(("GET", &template, &path), None, 200).await;
    let (template, path) = about(&jobs[1], "/snooze");
    let mut body = lease(&jobs[1]);
    body["delay_ms"] = json!(600_000);
    checked.call(("POST", &template, &path), Some(body), 200).await;
    let (template, path) = about(&jobs[2], "/fail");
    let mut body = lease(&jobs[2]);
    body["reason"] = json!("r");
    checked.call(("POST", &template, &path), Some(body), 200).await;
    let (template, path) = about(&jobs[2], "");
    checked.call(("GET", &template, &path), None, 200).await;
    let many =
        ("POST", "/projects/{project}/queues/{queue}/complete", "/projects/p/queues/q/complete");
    let body = json!({ "jobs": [
        { "id": jobs[3]["id"], "lease": jobs[3]["lease"] },
        { "id": jobs[1]["id"], "lease": 1 },
        { "id": format!("job_{}", "0".repeat(24)), "lease": 1, "result": 1 },
    ] });
    checked.call(many, Some(body), 200).await;
    checked.refuse(many, Some(json!({ "jobs": [] })), 400, "invalid-jobs").await;
    let none = ("GET", JOB, "/projects/p/queues/q/jobs/job_000000000000000000000000");
    checked.refuse(none, None, 404, "job-not-found").await;
    checked.refuse(("GET", JOB, "/projects/p/queues/q/jobs/x"), None, 400, "invalid-id").await;
}

async fn dead(checked: &Checked) {
    let claimed = checked.call(CLAIM, None, 200).await;
    let job = &claimed.body["jobs"][0];
    for state in ["leased", "dead"] {
        let path = format!("/projects/p/queues/q/jobs?state={state}");
        checked.call(("GET", JOBS, &path), None, 200).await;
        let (template, path) = about(job, "/fail");
        let body = json!({ "lease": job["lease"], "reason": "r", "retry": false });
        let status = if state == "leased" { 200 } else { 409 };
        checked.call(("POST", &template, &path), Some(body), status).await;
    }
    let path = "/projects/p/queues/q/jobs?state=dead";
    let page = checked.call(("GET", JOBS, path), None, 200).await;
    assert_eq!(page.body["jobs"].as_array().unwrap().len(), 1);
    let (template, path) = about(job, "");
    checked.call(("GET", &template, &path), None, 200).await;
    for what in ["redrive", "discard"] {
        let (template, path) = (format!("{QUEUE}/{what}"), format!("/projects/p/queues/q/{what}"));
        checked.call(("POST", &template, &path), Some(json!({ "ids": [job["id"]] })), 200).await;
        checked.call(("POST", &template, &path), None, 200).await;
        checked
            .refuse(("POST", &template, &path), Some(json!({ "ids": ["x"] })), 400, "invalid-ids")
            .await;
    }
}
