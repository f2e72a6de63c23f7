//! Webhooks to receivers that behave badly: each is bounded and logged, and nobody else waits.

use std::time::Duration;

use serde_json::{Value, json};
use stream_tests::{Client, Receiver, Reply, Server};
use tokio::time::{Instant, sleep, timeout};

use super::{EXE, stream};

/// Nothing here takes this long.
const LONG: Duration = Duration::from_secs(30);

const ALLOW: &[&str] = &["--egress-allow", "127.0.0.1"];

async fn create(client: &Client, name: &str, url: &str, settings: Value) -> Value {
    let endpoint = json!({ "name": name, "url": url, "settings": settings });
    client.call_with("POST", "/webhooks/endpoints", endpoint).await.ok()
}

/// The newest delivery of an endpoint, with its attempts, once it stands so.
async fn until(client: &Client, name: &str, status: &str) -> Value {
    let path = format!("/webhooks/endpoints/{name}/deliveries");
    let looks = async {
        loop {
            let list = client.call("GET", &path).await.ok();
            let newest = &list["deliveries"][0];
            if newest["status"] == status {
                let id = newest["delivery_id"].as_str().unwrap();
                return client.call("GET", &format!("{path}/{id}")).await.ok();
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    match timeout(LONG, looks).await {
        Ok(found) => found,
        Err(_) => panic!("{name}: {:#}", client.call("GET", &path).await.ok()),
    }
}

async fn send(client: &Client) {
    let event = json!({ "event_type": "order.placed", "payload": { "n": 1 } });
    client.call_with("POST", "/webhooks", event).await.ok();
}

fn resident_bytes(server: &Server) -> usize {
    let path = format!("/proc/{}/status", server.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1_024
}

#[tokio::test]
async fn badly_behaved_receivers_are_bounded_and_logged_and_hold_up_nobody() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(EXE, data.path(), ALLOW);
    let client = server.client();
    let inside = Receiver::start(|_| Reply::Status(200)).await;
    let location = format!("location: http://{}/secret", inside.address);
    let garbage = b"\x00\xff\x16\x03garbage\r\n\r\n".to_vec();
    let mut receivers = Vec::new();
    let bad: [(&str, Reply); 6] = [
        ("silent", Reply::Silence),
        ("garbage", Reply::Raw(garbage)),
        ("closing", Reply::Raw(Vec::new())),
        ("redirect", Reply::With(302, location)),
        ("endless", Reply::Endless),
        ("drip", Reply::Drip),
    ];
    let settings = json!({ "timeout_ms": 300, "retry_delays_ms": [50], "concurrency": 64 });
    for (name, reply) in bad {
        let receiver = Receiver::start(move |_| reply.clone()).await;
        create(&client, name, &receiver.url(), settings.clone()).await;
        receivers.push(receiver);
    }
    let well = Receiver::start(|_| Reply::Status(200)).await;
    create(&client, "well", &well.url(), settings).await;
    let before = resident_bytes(&server);
    let start = Instant::now();
    for _ in 0..20 {
        send(&client).await;
    }
    well.until(20, LONG).await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    for (name, status, error) in [
        ("silent", "failed", "no answer within"),
        ("garbage", "failed", "no answer that can be read"),
        ("closing", "failed", "no answer that can be read"),
        ("redirect", "failed", "redirects are not followed"),
    ] {
        let delivery = until(&client, name, status).await;
        let attempts = delivery["attempts"].as_array().unwrap();
        assert_eq!(attempts.len(), 2, "{delivery:#}");
        assert!(delivery["error_message"].as_str().unwrap().contains(error), "{delivery:#}");
        assert!(delivery["duration_ms"].as_u64().unwrap() < 5_000, "{delivery:#}");
    }
    for name in ["endless", "drip"] {
        let delivery = until(&client, name, "success").await;
        let attempt = &delivery["attempts"][0];
        assert!(attempt["response_body"].as_str().unwrap().len() <= 1_024);
        assert_eq!(attempt["response_body_cut"], true, "{delivery:#}");
    }
    assert_eq!(inside.count(), 0);
    let grown = resident_bytes(&server).saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes");
    assert!(server.stop().success());
}

#[tokio::test]
async fn a_receiver_that_is_down_gets_everything_when_it_is_up() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(EXE, data.path(), ALLOW);
    let client = server.client();
    let address = Receiver::start(|_| Reply::Status(200)).await.address.to_string();
    let settings = json!({ "retry_delays_ms": vec![200; 90] });
    create(&client, "down", &format!("http://{address}/"), settings).await;
    for _ in 0..50 {
        send(&client).await;
    }
    let stats = async || client.call("GET", "/webhooks/stats").await.ok();
    while stats().await["by_endpoint"]["down"]["attempts"].as_u64().unwrap() == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    // Also over a crash of the server.
    server.kill();
    let server = Server::start_with(EXE, data.path(), ALLOW);
    let client = server.client();
    let up = Receiver::start_at(&address, |_| Reply::Status(204)).await;
    up.until(50, LONG).await;
    until(&client, "down", "success").await;
    let ids: std::collections::HashSet<String> =
        up.received().iter().map(|request| request.headers["webhook-id"].clone()).collect();
    assert_eq!(ids.len(), 50);
}

#[tokio::test]
async fn a_busy_receiver_is_left_alone_and_one_that_is_gone_is_disabled() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(EXE, data.path(), ALLOW);
    let client = server.client();
    let busy = Receiver::start(|number| match number {
        0 => Reply::With(429, "retry-after: 2".to_owned()),
        _ => Reply::Status(200),
    })
    .await;
    let gone = Receiver::start(|_| Reply::Status(410)).await;
    let settings = json!({ "retry_delays_ms": [10, 10] });
    create(&client, "busy", &busy.url(), settings.clone()).await;
    create(&client, "gone", &gone.url(), settings).await;
    let start = Instant::now();
    send(&client).await;
    until(&client, "busy", "success").await;
    assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
    let endpoint = client.call("GET", "/webhooks/endpoints/gone").await.ok();
    assert_eq!(
        (&endpoint["enabled"], &endpoint["disabled"]["reason"]),
        (&json!(false), &json!("gone"))
    );
    let news = client.records("_hooks", 0, 0).await;
    assert_eq!(news[0]["value"]["type"], "endpoint.disabled", "{news:?}");
    assert_eq!((news[0]["value"]["endpoint"].as_str(), gone.count()), (Some("gone"), 1));
}

#[tokio::test]
async fn without_an_exception_nothing_is_sent_to_this_machine() {
    let data = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    {
        let server = Server::start(EXE, data.path());
        for host in ["127.0.0.1", "localhost", "0x7f.1", "[::ffff:127.0.0.1]", "127.0.0.1.nip.test"]
        {
            let url = format!("http://{host}:{}/", receiver.address.port());
            let endpoint = json!({ "name": "e", "url": url });
            let refused = server.client().call_with("POST", "/webhooks/endpoints", endpoint).await;
            let is_name = host.ends_with(".test");
            let code = if is_name { "unresolved-url" } else { "forbidden-url" };
            assert_eq!((refused.status, refused.code()), (400, code), "{host}");
        }
        server.stop();
    }
    // One that was allowed when it was made is refused when it is used.
    let server = Server::start_with(EXE, data.path(), ALLOW);
    create(&server.client(), "e", &receiver.url(), json!({})).await;
    server.stop();
    let server = Server::start(EXE, data.path());
    send(&server.client()).await;
    let delivery = until(&server.client(), "e", "failed").await;
    assert!(delivery["error_message"].as_str().unwrap().contains("a loopback address"));
    assert_eq!((delivery["attempts"].as_array().unwrap().len(), receiver.count()), (1, 0));
}

/// What a command prints as JSON.
#[track_caller]
fn json_of(server: &Server, arguments: &[&str]) -> Value {
    let output = stream(server, &[&["hooks"][..], arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_does_all_of_it() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(EXE, data.path(), ALLOW);
    let receiver =
        Receiver::start(|number| Reply::Status(if number == 0 { 500 } else { 200 })).await;
    let url = receiver.url();
    let create = ["endpoint", "create", "e", &url, "--events", "order.*", "--retry", "1d"];
    let made = json_of(&server, &create);
    assert!(made["secret"].as_str().unwrap().len() > 40, "{made}");
    assert_eq!(made["settings"]["retry_delays_ms"], json!([86_400_000]));
    let shown = json_of(&server, &["endpoint", "show", "e"]);
    assert_eq!(shown["secret"], "whsec_********");
    let again = stream(&server, &["hooks", "endpoint", "create", "e", &url]);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert_eq!(json_of(&server, &["send", "user.made", "{}"])["deliveries"], json!([]));
    let sent = json_of(&server, &["send", "order.placed", "{\"n\":1}"]);
    let id = sent["deliveries"][0]["delivery_id"].as_str().unwrap().to_owned();
    receiver.until(1, LONG).await;
    let waits = async {
        while json_of(&server, &["deliveries", "e", &id])["attempts"] == json!([]) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, waits).await.unwrap();
    // The next attempt is a day away.
    assert_eq!(json_of(&server, &["cancel", "e", "--yes"])["cancelled"], 1);
    let cancelled = json_of(&server, &["deliveries", "e", "--status", "cancelled"]);
    assert_eq!(cancelled["deliveries"][0]["response_status_code"], 500, "{cancelled}");
    json_of(&server, &["redeliver", "e", &id]);
    until(&server.client(), "e", "success").await;
    let range = json_of(&server, &["redeliver", "e", "--all", "--status", "success"]);
    assert_eq!(range["redelivered"], 1);
    receiver.until(3, LONG).await;
    until(&server.client(), "e", "success").await;
    let stats = json_of(&server, &["stats"]);
    assert_eq!(stats["by_endpoint"]["e"]["attempts"], 3, "{stats}");
    assert_eq!(json_of(&server, &["endpoint", "disable", "e"])["enabled"], false);
    assert_eq!(json_of(&server, &["endpoint", "enable", "e"])["enabled"], true);
    let rotated = json_of(&server, &["endpoint", "rotate", "e", "--overlap", "1h"]);
    assert_ne!(rotated["secret"], made["secret"]);
    let changed = json_of(&server, &["endpoint", "update", "e", "--timeout", "2s"]);
    assert_eq!(
        (&changed["settings"]["timeout_ms"], &changed["events"][0]),
        (&json!(2_000), &json!("order.*"))
    );
    let table = stream(&server, &["hooks", "endpoint", "list"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("enabled"), "{table:?}");
    let deleted = stream(&server, &["hooks", "endpoint", "delete", "e", "--yes"]);
    assert!(deleted.status.success(), "{deleted:?}");
    let missing = stream(&server, &["hooks", "deliveries", "e"]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("endpoint-not-found"), "{missing:?}");
}
