//! Plugins of languages with a runtime of their own, in a running server:
//! `languages SERVER COMPONENT…`, where each component validates orders as `validate-order` does. Run
//! by `.ci/plugins`, which builds them.
#![expect(clippy::expect_used, clippy::print_stdout, reason = "a check prints, or ends")]
#![expect(clippy::disallowed_methods, reason = "what is told is real time")]
#![expect(clippy::indexing_slicing, reason = "a JSON value without a field is null")]

use std::time::Instant;

use serde_json::json;
use stream_tests::Server;

/// An interpreter needs more than a plugin in Rust.
const MEMORY: usize = 192 << 20;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let exe = arguments.next().expect("the server's binary");
    let data = tempfile::tempdir().expect("a folder for the data");
    let server = Server::start(&exe, data.path());
    let client = server.client();
    client.call_with("POST", "/topics", json!({ "name": "t" })).await.ok();
    for (number, path) in arguments.enumerate() {
        let component = std::fs::read(&path).expect("a component");
        let (size, started) = (component.len() >> 20, Instant::now());
        let plugin = format!("/plugins/p{number}");
        client.upload(&plugin, component).await.ok();
        println!("{path}: {size} MiB, taken in {:.1?}", started.elapsed());
        let binding =
            json!({ "plugin": format!("p{number}"), "memory": MEMORY, "timeout_ms": 1000 });
        client.bind("/bindings/validate/t", binding).await;
        let good = r#"{"value":{"orderId":"1","total":2.5}}"#.to_owned() + "\n";
        // Enough for an instance to grow and to be replaced.
        for _ in 0..200 {
            client.publish("t", good.repeat(50)).await.ok();
        }
        let bad = r#"{"value":{"orderId":"1","total":-1}}"#;
        let refused = client.publish("t", format!("{good}{bad}\n")).await;
        assert_eq!((refused.status, refused.code()), (400, "events-rejected"), "{refused:?}");
        let rejected = &refused.body["error"]["rejected"];
        assert_eq!(rejected[0]["index"], 1, "{rejected}");
        println!("{}", rejected[0]["reason"]);
        let stats = client.call("GET", &format!("{plugin}/stats")).await.ok();
        let version = &stats["versions"][0];
        assert_eq!((&version["faults"], &version["outcomes"]["rejected"]), (&json!({}), &json!(1)));
        println!(
            "{} instances for {} calls, at most {} MiB",
            version["instances"],
            version["calls"],
            version["memory_peak"].as_u64().expect("a number") >> 20
        );
    }
    assert!(server.stop().success());
}
