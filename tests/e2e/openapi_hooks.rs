//! The served OpenAPI document against what Hooks answers.

use std::time::Duration;

use serde_json::json;
use stream_tests::{Receiver, Reply, Server};

use super::EXE;
use super::openapi::Checked;

const SEND: &str = "/projects/{project}/webhooks";
const STATS: &str = "/projects/{project}/webhooks/stats";
const ENDPOINTS: &str = "/projects/{project}/webhooks/endpoints";
const ENDPOINT: &str = "/projects/{project}/webhooks/endpoints/{endpoint}";
const ROTATE: &str = "/projects/{project}/webhooks/endpoints/{endpoint}/rotate-secret";
const DELIVERIES: &str = "/projects/{project}/webhooks/endpoints/{endpoint}/deliveries";
const DELIVERY: &str = "/projects/{project}/webhooks/endpoints/{endpoint}/deliveries/{id}";
const REDELIVER: &str =
    "/projects/{project}/webhooks/endpoints/{endpoint}/deliveries/{id}/redeliver";
const RANGE: &str = "/projects/{project}/webhooks/endpoints/{endpoint}/redeliver";
const CANCEL: &str = "/projects/{project}/webhooks/endpoints/{endpoint}/cancel";

const E: &str = "/projects/default/webhooks/endpoints/e";

#[tokio::test]
async fn every_answer_of_hooks_is_as_the_document_says() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(EXE, data.path(), &["--egress-allow", "127.0.0.1"]);
    let checked = Checked::new(server.client()).await;
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    endpoints(&checked, &receiver.url()).await;
    deliveries(&checked, &receiver).await;
    checked.call(("DELETE", ENDPOINT, E), None, 204).await;
    checked.refuse(("DELETE", ENDPOINT, E), None, 404, "endpoint-not-found").await;
}

async fn endpoints(checked: &Checked, url: &str) {
    let create = ("POST", ENDPOINTS, "/projects/default/webhooks/endpoints");
    let full = json!({
        "name": "e", "url": url, "events": ["order.**"], "description": "d",
        "metadata": { "a": "b" }, "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "enabled": true,
        "settings": { "timeout_ms": 2_000, "retry_delays_ms": [10], "rate_per_second": 1e3 },
    });
    let made = checked.call(create, Some(full.clone()), 201).await.body;
    assert_eq!(made["secret"], full["secret"]);
    checked.refuse(create, Some(full), 409, "endpoint-exists").await;
    for (url, code) in [
        ("http://10.0.0.1/", "forbidden-url"),
        ("http://no-such-name.invalid/", "unresolved-url"),
        ("ftp://example.com/", "invalid-url"),
    ] {
        let new = json!({ "name": "f", "url": url });
        checked.refuse(create, Some(new), 400, code).await;
    }
    for (field, value, code) in [
        ("name", json!("no/name"), "invalid-endpoint"),
        ("events", json!(["a..b"]), "invalid-events"),
        ("metadata", json!({ "a": 1 }), "invalid-metadata"),
        ("secret", json!("whsec_c2hvcnQ="), "invalid-secret"),
        ("settings", json!({ "speed": 1 }), "invalid-settings"),
        ("settings", json!({ "concurrency": 65 }), "invalid-settings-concurrency"),
        ("enabled", json!("yes"), "invalid-enabled"),
        ("speed", json!(1), "invalid-body"),
    ] {
        let mut new = json!({ "name": "f", "url": url });
        new[field] = value;
        checked.refuse(create, Some(new), 400, code).await;
    }
    let list = ("GET", ENDPOINTS, "/projects/default/webhooks/endpoints?limit=1");
    let listed = checked.call(list, None, 200).await.body;
    assert_eq!(listed["endpoints"][0]["secret"], "whsec_********");
    checked.call(("GET", ENDPOINT, E), None, 200).await;
    let missing = ("GET", ENDPOINT, "/projects/default/webhooks/endpoints/none");
    checked.refuse(missing, None, 404, "endpoint-not-found").await;
    let patch = ("PATCH", ENDPOINT, E);
    checked.call(patch, Some(json!({ "enabled": false })), 200).await;
    let settings = json!({ "settings": { "timeout_ms": null, "disable_after_ms": null } });
    let patched = checked.call(patch, Some(settings), 200).await.body;
    let now = &patched["settings"];
    assert_eq!((&now["timeout_ms"], &now["disable_after_ms"]), (&json!(15_000), &json!(null)));
    assert_eq!(now["retry_delays_ms"], json!([10]));
    checked.refuse(patch, Some(json!({ "url": "http://[::1]/" })), 400, "forbidden-url").await;
    let rotate = ("POST", ROTATE, "/projects/default/webhooks/endpoints/e/rotate-secret");
    let rotated = checked.call(rotate, Some(json!({ "overlap_seconds": 60 })), 200).await.body;
    assert_ne!(rotated["secret"], made["secret"]);
    checked.call(rotate, None, 200).await;
    let long = json!({ "overlap_seconds": 2_592_001 });
    checked.refuse(rotate, Some(long), 400, "invalid-overlap-seconds").await;
}

async fn deliveries(checked: &Checked, receiver: &Receiver) {
    let send = ("POST", SEND, "/projects/default/webhooks");
    let event = json!({ "event_type": "order.placed", "payload": null });
    let named = json!({ "event_type": "a", "payload": 1, "endpoints": ["e"] });
    checked.refuse(send, Some(named.clone()), 409, "endpoint-disabled").await;
    checked.call(("PATCH", ENDPOINT, E), Some(json!({ "enabled": true })), 200).await;
    let sent = checked.call(send, Some(event), 202).await.body;
    checked.call(send, Some(named), 202).await;
    for (event, code) in [
        (json!({ "event_type": "a" }), "invalid-payload"),
        (json!({ "payload": 1 }), "invalid-event-type"),
        (json!({ "event_type": "_a", "payload": 1 }), "invalid-event-type"),
        (json!({ "event_type": "a b", "payload": 1 }), "invalid-event-type"),
    ] {
        checked.refuse(send, Some(event), 400, code).await;
    }
    receiver.until(2, Duration::from_secs(20)).await;
    let base = format!("{E}/deliveries");
    loop {
        let path = format!("{base}?status=success&since=2020-01-01T00:00:00Z&limit=10");
        let list = checked.call(("GET", DELIVERIES, &path), None, 200).await.body;
        if list["deliveries"].as_array().unwrap().len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let wrong = format!("{base}?status=lost");
    checked.refuse(("GET", DELIVERIES, &wrong), None, 400, "invalid-status").await;
    let id = sent["deliveries"][0]["delivery_id"].as_str().unwrap();
    let path = format!("{base}/{id}");
    let view = checked.call(("GET", DELIVERY, &path), None, 200).await.body;
    assert!(view["body"].as_str().unwrap().ends_with("\"data\":null}"), "{view}");
    let missing = format!("{base}/dlv_1");
    checked.refuse(("GET", DELIVERY, &missing), None, 404, "delivery-not-found").await;
    checked.call(("POST", REDELIVER, &format!("{path}/redeliver")), None, 202).await;
    let range = ("POST", RANGE, &*format!("{E}/redeliver"));
    checked
        .call(range, Some(json!({ "status": "failed", "until": "2020-01-01T00:00:00Z" })), 202)
        .await;
    checked.call(range, None, 202).await;
    checked.refuse(range, Some(json!({ "status": "pending" })), 400, "invalid-status").await;
    checked.call(("POST", CANCEL, &format!("{E}/cancel")), None, 200).await;
    checked.call(("GET", STATS, "/projects/default/webhooks/stats"), None, 200).await;
}
