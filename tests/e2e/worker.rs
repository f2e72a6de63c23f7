//! Jobs over the end of the server.

use serde_json::{Value, json};
use stream_tests::{Answer, Client};

use super::start;

async fn enqueue(client: &Client, key: &str, payload: u32) -> Answer {
    let request = client.request("POST", "/queues/q/jobs").header("idempotency-key", key);
    client.send(request.json(&json!({ "payload": payload }))).await
}

async fn claim(client: &Client, body: Value) -> Vec<Value> {
    let answer = client.call_with("POST", "/queues/q/claim", body).await.ok();
    answer["jobs"].as_array().unwrap().clone()
}

async fn complete(client: &Client, job: &Value, publish: Value) -> Answer {
    let path = format!("/queues/q/jobs/{}/complete", job["id"].as_str().unwrap());
    let body = json!({ "lease": job["lease"], "publish": publish });
    client.call_with("POST", &path, body).await
}

#[tokio::test]
async fn jobs_leases_and_keys_are_known_after_a_crash() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    client.call_with("POST", "/topics", json!({ "name": "t" })).await.ok();
    client.call_with("PUT", "/queues/q", json!({ "attempts_max": 7 })).await.ok();
    let first = enqueue(&client, "once", 1).await.ok();
    enqueue(&client, "other", 2).await.ok();
    let held = claim(&client, json!({ "lease_ms": 600_000 })).await.remove(0);
    server.kill();

    let server = start(data.path());
    let client = server.client();
    let again = enqueue(&client, "once", 1).await.ok();
    assert_eq!((&again["jobs"], &again["duplicate"]), (&first["jobs"], &json!(true)));
    let mismatch = enqueue(&client, "once", 2).await;
    assert_eq!((mismatch.status, mismatch.code()), (422, "payload-mismatch"));
    let settings = client.call("GET", "/queues/q").await.ok()["settings"].clone();
    assert_eq!(settings["attempts_max"], 7);
    // The one that is held is not given to another.
    let rest = claim(&client, json!({ "max": 9 })).await;
    assert_eq!((rest.len(), &rest[0]["payload"]), (1, &json!(2)));
    let done = complete(&client, &held, json!([{ "topic": "t", "value": "done" }])).await;
    assert_eq!(done.body["state"], "done", "{done:?}");
    server.kill();

    let server = start(data.path());
    let client = server.client();
    let late = complete(&client, &held, json!([{ "topic": "t", "value": "twice" }])).await;
    assert_eq!((late.status, late.code()), (404, "job-not-found"));
    let records = client.records("t", 0, 0).await;
    assert_eq!((records.len(), &records[0]["value"]), (1, &json!("done")));
}

#[tokio::test]
async fn a_stopping_server_lets_go_of_who_waits_for_a_job() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    client.call_with("PUT", "/queues/q", json!({})).await.ok();
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move { claim(&client, json!({ "wait_ms": 60_000 })).await })
    };
    let under_way = async {
        while !client
            .call("GET", "/metrics")
            .await
            .body
            .to_string()
            .contains("stream_http_connections 2")
        {}
    };
    let patience = std::time::Duration::from_secs(20);
    tokio::time::timeout(patience, under_way).await.expect("the claim begins");
    let stopped = tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
    assert!(stopped.success());
    assert_eq!(waiting.await.unwrap(), Vec::<Value>::new());
}
