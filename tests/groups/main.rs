//! Groups under a clock and under fire: how long a hand-over takes, and what a processor that is
//! killed at any step leaves behind. A binary of its own, so that nothing else runs.
#![cfg(test)]

mod chaos;
mod handover;
mod processor;

use std::path::Path;

use serde_json::{Value, json};
use stream_tests::{Client, Server};

const EXE: &str = env!("CARGO_BIN_EXE_stream-under-test");

/// One test at a time: what is measured is time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn start(data: &Path) -> Server {
    Server::start(EXE, data)
}

/// One consumer of a group.
#[derive(Clone)]
struct Member {
    client: Client,
    path: String,
}

impl Member {
    /// Joins; the answer has what the member owns.
    async fn join(client: &Client, group: &str, request: Value) -> (Self, Value) {
        let members = format!("/groups/{group}/members");
        let joined = client.call_with("POST", &members, request).await.ok();
        let path = format!("{members}/{}", joined["member"].as_str().unwrap());
        (Self { client: client.clone(), path }, joined)
    }

    fn id(&self) -> &str {
        self.path.rsplit('/').next().unwrap()
    }

    async fn read(&self, wait_millis: u64) -> Value {
        let path = format!("{}/records?limit=1000&wait_ms={wait_millis}", self.path);
        self.client.call("GET", &path).await.ok()
    }

    /// Commits all of what a read brought.
    async fn commit(&self, next: &Value) -> stream_tests::Answer {
        let body = json!({ "partitions": next });
        self.client.call_with("POST", &format!("{}/offsets", self.path), body).await
    }

    async fn leave(&self) {
        self.client.call("DELETE", &self.path).await.ok();
    }
}
