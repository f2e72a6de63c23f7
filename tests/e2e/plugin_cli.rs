//! Plugins by the command line: from an upload to a dead letter.

use serde_json::{Value, json};
use stream_tests::Server;

use super::{start, stream};

/// The path of a component that is committed.
fn built(name: &str) -> String {
    format!("{}/../guest-examples/built/{name}.wasm", env!("CARGO_MANIFEST_DIR"))
}

/// What a command prints as JSON.
#[track_caller]
fn json_of(server: &Server, arguments: &[&str]) -> Value {
    let output = stream(server, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn a_plugin_is_uploaded_tried_bound_switched_and_rolled_back() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    client.call_with("POST", "/topics", json!({ "name": "order.placed" })).await.ok();
    let uploaded = json_of(&server, &["plugin", "upload", "orders", &built("pass-through")]);
    assert_eq!(uploaded["version"], 1);
    let place = ["--role", "validate", "--topic", "order.*"];
    json_of(&server, &[&["plugin", "bind", "orders"][..], &place].concat());
    let produce = async || {
        let event = json!({ "value": { "total": 1 } });
        client.call_with("POST", "/topics/order.placed/produce", event).await.status
    };
    assert_eq!(produce().await, 200);
    json_of(&server, &["plugin", "upload", "orders", &built("validate-order")]);
    let stored = ["--topic", "order.placed", "--partition", "0", "--offset", "0"];
    let tried = json_of(&server, &[&["plugin", "try", "orders"][..], &stored].concat());
    assert_eq!(
        (&tried["outcomes"][0]["outcome"], &tried["bound"]["differs"]),
        (&json!("reject"), &json!([0]))
    );
    let bound = json_of(&server, &[&["plugin", "bind", "orders"][..], &place].concat());
    assert_eq!(bound["bindings"][0]["version"], 2);
    assert_eq!(produce().await, 400);
    json_of(&server, &[&["plugin", "rollback"][..], &place].concat());
    assert_eq!(produce().await, 200);
    let list = json_of(&server, &["plugin", "list"]);
    assert_eq!(list["plugins"][0]["versions"], 2);
    let refused = stream(&server, &["plugin", "delete", "orders", "--yes"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("validate/order.*"), "{refused:?}");
}

#[tokio::test]
async fn dead_letters_and_logs_are_listed() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    let nothing = stream(&server, &["dead-letter", "list"]);
    assert!(nothing.status.success(), "{nothing:?}");
    client.call_with("POST", "/topics", json!({ "name": "t" })).await.ok();
    json_of(&server, &["plugin", "upload", "p", &built("panic")]);
    let bind =
        ["plugin", "bind", "p", "--role", "validate", "--topic", "t", "--on-fault", "dead-letter"];
    json_of(&server, &bind);
    client.call_with("POST", "/topics/t/produce", json!({ "value": 7, "key": "k" })).await.ok();
    let letters = stream(&server, &["dead-letter", "list"]);
    let text = String::from_utf8(letters.stdout).unwrap();
    assert!(text.contains("p@1") && text.lines().count() == 2, "{text}");
    json_of(&server, &["plugin", "upload", "flood", &built("flood-log")]);
    let flood = json!({ "plugin": "flood", "on_fault": "skip", "timeout_ms": 3_000 });
    client.bind("/bindings/validate/t", flood).await;
    client.call_with("POST", "/topics/t/produce", json!({ "value": 1 })).await.ok();
    let logs = stream(&server, &["plugin", "logs", "flood", "--limit", "3"]);
    assert!(logs.status.success() && !logs.stdout.is_empty(), "{logs:?}");
}

#[test]
fn a_new_project_is_written_and_nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine");
    let new = || {
        let mut command = std::process::Command::new(super::EXE);
        command.args(["plugin", "new", "mine", "--lang", "rust", "--dir"]).arg(&path);
        command.output().unwrap()
    };
    let made = new();
    assert!(made.status.success(), "{made:?}");
    for file in ["Cargo.toml", "src/lib.rs", "README.md", "stream-plugin/wit/types.wit"] {
        assert!(path.join(file).is_file(), "{file}");
    }
    assert!(!new().status.success());
}
