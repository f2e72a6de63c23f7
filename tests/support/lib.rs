//! What end-to-end tests need: a server in a process of its own on a free port, killed with the
//! test, and a client that says what came back.
#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot be set up fails")]

mod plugin;
mod sink;
mod sse;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

pub use plugin::{compile_bomb, component, padded};
pub use sink::{Hit, Sink};
pub use sse::{Event, Subscription};

/// The key that test servers know.
pub const KEY: &str = "sk_test-key-of-the-end-to-end-tests";

/// A running server. Killed when dropped.
pub struct Server {
    child: Child,
    /// `http://127.0.0.1:PORT`, or `https://…`.
    pub url: String,
}

impl Server {
    /// Starts the server binary `exe` on the data folder `data`.
    ///
    /// # Panics
    ///
    /// It does not say where it listens.
    pub fn start(exe: &str, data: &Path) -> Self {
        Self::start_with(exe, data, &[])
    }

    /// As `start`, with further arguments.
    ///
    /// # Panics
    ///
    /// It does not say where it listens.
    pub fn start_with(exe: &str, data: &Path, arguments: &[&str]) -> Self {
        let mut child = command(exe, data, arguments).spawn().expect("the binary is built");
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut lines = BufReader::new(stdout).lines();
        let url = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("listening on ").map(str::to_owned));
        let Some(url) = url else {
            panic!("the server ended without listening: {:?}", child.wait());
        };
        Self { child, url }
    }

    /// The process.
    ///
    /// # Panics
    ///
    /// Never: a child has an id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Ends the process at once, as a crash does.
    ///
    /// # Panics
    ///
    /// The process cannot be waited for.
    pub fn kill(mut self) {
        self.child.kill().expect("the server can be killed");
        self.child.wait().expect("the server can be waited for");
    }

    /// Asks the server to stop, and waits until it has.
    ///
    /// # Panics
    ///
    /// The process cannot be signalled.
    pub fn stop(mut self) -> ExitStatus {
        kill_process(self.pid(), Signal::TERM).expect("the server can be signalled");
        self.child.wait().expect("the server can be waited for")
    }

    /// A client with the test key.
    pub fn client(&self) -> Client {
        Client::new(&self.url, Some(KEY))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The command that starts a server on a free port.
pub fn command(exe: &str, data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(exe);
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .args(arguments)
        .env("STREAM_API_KEY", KEY)
        .env("STREAM_RESERVE_BYTES", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(if std::env::args().any(|argument| argument == "--nocapture") {
            Stdio::inherit()
        } else {
            Stdio::null()
        });
    command
}

/// A plain HTTP client.
#[derive(Clone)]
pub struct Client {
    /// For requests that the methods below have no word for.
    pub http: reqwest::Client,
    url: String,
    key: Option<String>,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body as JSON; a string if it is none.
    pub body: Value,
}

impl Answer {
    /// `error.code` of an error.
    pub fn code(&self) -> &str {
        self.body.pointer("/error/code").and_then(Value::as_str).unwrap_or_default()
    }

    /// The body of an answer that must be a success.
    ///
    /// # Panics
    ///
    /// It is none.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{self:?}");
        self.body
    }
}

impl Client {
    /// A client for the server at `url`.
    ///
    /// # Panics
    ///
    /// There is no TLS provider.
    pub fn new(url: &str, key: Option<&str>) -> Self {
        // Another test may have installed it.
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = reqwest::Client::builder().no_proxy().build().expect("a client can be built");
        Self { http, url: url.to_owned(), key: key.map(str::to_owned) }
    }

    /// A request to be changed and sent; `path` starts with `/`.
    ///
    /// # Panics
    ///
    /// `method` is none.
    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = method.parse().expect("a method");
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Sends a request without a body.
    ///
    /// # Panics
    ///
    /// No answer came.
    pub async fn call(&self, method: &str, path: &str) -> Answer {
        self.send(self.request(method, path)).await
    }

    /// Sends JSON.
    ///
    /// # Panics
    ///
    /// No answer came.
    pub async fn call_with(&self, method: &str, path: &str, body: Value) -> Answer {
        self.send(self.request(method, path).json(&body)).await
    }

    /// Sends events as NDJSON.
    ///
    /// # Panics
    ///
    /// No answer came.
    pub async fn publish(&self, topic: &str, lines: impl Into<reqwest::Body>) -> Answer {
        let path = format!("/topics/{topic}/events");
        let request = self.request("POST", &path).header("content-type", "application/x-ndjson");
        self.send(request.body(lines)).await
    }

    /// Sends a request.
    ///
    /// # Panics
    ///
    /// No answer came.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        match self.try_send(request).await {
            Ok(answer) => answer,
            Err(error) => panic!("no answer: {error:?}"),
        }
    }

    /// Sends a request to a server that may be gone.
    ///
    /// # Errors
    ///
    /// No answer came.
    pub async fn try_send(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<Answer, reqwest::Error> {
        let response = request.send().await?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Answer { status, headers, body })
    }

    /// Opens a stream of events, behind the one whose id is `last` if there is one.
    ///
    /// # Panics
    ///
    /// It is refused.
    pub async fn subscribe(&self, path: &str, last: Option<&str>) -> Subscription {
        let request = self.request("GET", path);
        let request = match last {
            Some(id) => request.header("last-event-id", id),
            None => request,
        };
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status().as_u16(), 200, "{path}");
        Subscription::new(response)
    }

    /// All records of a partition, from `offset` on.
    ///
    /// # Panics
    ///
    /// They cannot be read.
    pub async fn records(&self, topic: &str, partition: u32, offset: u64) -> Vec<Value> {
        let mut records = Vec::new();
        let mut next = offset;
        loop {
            let path = format!(
                "/topics/{topic}/partitions/{partition}/records?offset={next}&limit=10000&max_bytes=16777216"
            );
            let mut body = self.call("GET", &path).await.ok();
            let page = body.get_mut("records").and_then(Value::as_array_mut).map(std::mem::take);
            let page = page.expect("a list of records");
            if page.is_empty() {
                return records;
            }
            records.extend(page);
            next = body.get("next_offset").and_then(Value::as_u64).expect("an offset");
        }
    }
}
