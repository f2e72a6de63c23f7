//! `stream worker`: commands that run for jobs, also while workers and servers end.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};
use stream_tests::{Client, KEY, Server};
use tokio::net::{TcpListener, TcpStream};

use super::{EXE, start, stream};

const PATIENCE: Duration = Duration::from_secs(60);

/// A worker in a process of its own; killed when dropped.
struct Worker(Child);

impl Worker {
    fn start(url: &str, exec: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(EXE);
        command
            .args(["worker", "run", "--queue", "q", "--exec", exec])
            .args(arguments)
            .env("STREAM_URL", url)
            .env("STREAM_API_KEY", KEY)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    async fn ended(mut self) -> bool {
        let status = tokio::task::spawn_blocking(move || self.0.wait().unwrap());
        tokio::time::timeout(PATIENCE, status).await.expect("it ends").unwrap().success()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Asks until the answer is as wanted.
async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let asking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, asking).await.is_ok(), "never so: {what}");
}

async fn until_file(path: &Path) -> String {
    until(&format!("{} is there", path.display()), || async {
        std::fs::read_to_string(path).is_ok_and(|text| text.ends_with('\n'))
    })
    .await;
    std::fs::read_to_string(path).unwrap()
}

async fn enqueue(client: &Client, payload: Value) -> String {
    let job = json!({ "payload": payload });
    let made = client.call_with("POST", "/queues/q/jobs", job).await.ok();
    made["jobs"][0]["id"].as_str().unwrap().to_owned()
}

async fn job(client: &Client, id: &str) -> Value {
    client.call("GET", &format!("/queues/q/jobs/{id}")).await.body
}

async fn until_done(client: &Client, id: &str) -> Value {
    until("the job is done", || async { job(client, id).await["state"] == "done" }).await;
    job(client, id).await
}

#[tokio::test]
async fn a_killed_workers_job_runs_elsewhere_and_the_late_one_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let server = start(&data.path().join("data"));
    let client = server.client();
    let id = enqueue(&client, json!("x")).await;
    let pid = data.path().join("pid");
    let exec = format!("echo $$ > {}; exec sleep 1000", pid.display());
    let killed = Worker::start(&server.url, &exec, &["--lease", "1s"]);
    let group = until_file(&pid).await.trim().parse().ok().and_then(Pid::from_raw).unwrap();
    assert_eq!(job(&client, &id).await["state"], "leased");
    killed.signal(Signal::KILL);
    drop(killed);
    let other = Worker::start(&server.url, "cat; exit 0", &[]);
    let done = until_done(&client, &id).await;
    assert_eq!((&done["result"], &done["attempts"]), (&json!("x"), &json!(2)));
    // The first one's own answer comes late.
    let late = client
        .call_with("POST", &format!("/queues/q/jobs/{id}/complete"), json!({ "lease": 1 }))
        .await;
    assert_eq!((late.status, late.code()), (409, "stale-lease"));
    // What a killed worker leaves behind is nobody's.
    kill_process_group(group, Signal::KILL).unwrap();
    other.signal(Signal::TERM);
    assert!(other.ended().await);
}

#[tokio::test]
async fn a_worker_that_was_silent_ends_its_command_when_the_job_is_anothers() {
    let data = tempfile::tempdir().unwrap();
    let server = start(&data.path().join("data"));
    let client = server.client();
    let id = enqueue(&client, json!("x")).await;
    let (started, ended) = (data.path().join("started"), data.path().join("ended"));
    let exec = format!(
        "trap 'echo ended > {}; exit 0' TERM; echo started > {}; while :; do sleep 0.05; done",
        ended.display(),
        started.display()
    );
    let worker = Worker::start(&server.url, &exec, &["--lease", "1s"]);
    until_file(&started).await;
    worker.signal(Signal::STOP);
    let claim = json!({ "wait_ms": 20_000, "lease_ms": 600_000 });
    let taken = client.call_with("POST", "/queues/q/claim", claim).await.ok();
    assert_eq!((&taken["jobs"][0]["id"], &taken["jobs"][0]["attempt"]), (&json!(id), &json!(2)));
    worker.signal(Signal::CONT);
    until_file(&ended).await;
    let leased = job(&client, &id).await;
    assert_eq!((&leased["state"], &leased["attempts"]), (&json!("leased"), &json!(2)));
    worker.signal(Signal::TERM);
    assert!(worker.ended().await);
}

#[tokio::test]
async fn sigterm_lets_the_command_come_to_its_end() {
    let data = tempfile::tempdir().unwrap();
    let server = start(&data.path().join("data"));
    let client = server.client();
    let id = enqueue(&client, json!(1)).await;
    let (started, go) = (data.path().join("started"), data.path().join("go"));
    let exec = format!(
        "echo started > {}; while [ ! -e {} ]; do sleep 0.05; done; echo 7",
        started.display(),
        go.display()
    );
    // The lease is over long before the command is: it is held by heartbeats, also after the signal.
    let worker = Worker::start(&server.url, &exec, &["--lease", "1s"]);
    until_file(&started).await;
    worker.signal(Signal::TERM);
    let next = enqueue(&client, json!(2)).await;
    let first_until = job(&client, &id).await["leased_until"].clone();
    until("two heartbeats were sent", || async {
        let metrics = client.call("GET", "/metrics").await.body.to_string();
        metrics.contains("heartbeat") && job(&client, &id).await["leased_until"] != first_until
    })
    .await;
    std::fs::write(&go, "").unwrap();
    assert!(worker.ended().await);
    let done = job(&client, &id).await;
    assert_eq!(
        (&done["state"], &done["result"], &done["attempts"]),
        (&json!("done"), &json!(7), &json!(1))
    );
    assert_eq!(job(&client, &next).await["state"], "waiting");
}

/// Forwards connections to a server that may be another one later.
async fn forward(to: Arc<Mutex<SocketAddr>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let to = *to.lock().unwrap();
            tokio::spawn(async move {
                if let Ok(mut server) = TcpStream::connect(to).await {
                    drop(tokio::io::copy_bidirectional(&mut from, &mut server).await);
                }
            });
        }
    });
    url
}

fn address(server: &Server) -> SocketAddr {
    server.url.trim_start_matches("http://").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_goes_on_when_the_server_is_there_again() {
    let data = tempfile::tempdir().unwrap();
    let server = start(&data.path().join("data"));
    let to = Arc::new(Mutex::new(address(&server)));
    let url = forward(Arc::clone(&to)).await;
    let first = enqueue(&server.client(), json!(1)).await;
    let (started, go) = (data.path().join("started"), data.path().join("go"));
    let exec = format!(
        "echo started > {}; while [ ! -e {} ]; do sleep 0.05; done; cat",
        started.display(),
        go.display()
    );
    let worker = Worker::start(&url, &exec, &["--lease", "10s"]);
    until_file(&started).await;
    server.kill();
    // It ends while there is nobody to tell.
    std::fs::write(&go, "").unwrap();
    let server = start(&data.path().join("data"));
    *to.lock().unwrap() = address(&server);
    let client = server.client();
    let done = until_done(&client, &first).await;
    assert_eq!((&done["result"], &done["attempts"]), (&json!(1), &json!(1)));
    let second = enqueue(&client, json!(2)).await;
    until_done(&client, &second).await;
    worker.signal(Signal::TERM);
    assert!(worker.ended().await);
}

/// What a command prints as JSON.
#[track_caller]
fn json_of(server: &Server, arguments: &[&str]) -> Value {
    let output = stream(server, &[&["worker"], arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

/// What a command prints for people.
#[track_caller]
fn text_of(server: &Server, arguments: &[&str]) -> String {
    let output = stream(server, &[&["worker"], arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_queue_is_set_up_filled_worked_off_and_looked_into() {
    let data = tempfile::tempdir().unwrap();
    let server = start(&data.path().join("data"));
    let missing = stream(&server, &["worker", "run", "--queue", "q", "--exec", "true", "--once"]);
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
    assert!(String::from_utf8_lossy(&missing.stderr).contains("worker queue set"), "{missing:?}");
    json_of(&server, &["queue", "set", "q", "--attempts", "2", "--backoff", "0s", "--ordered"]);
    let set = json_of(&server, &["queue", "set", "q", "--lease", "5s"]);
    assert_eq!(
        (&set["settings"]["attempts_max"], &set["settings"]["lease_ms"]),
        (&json!(2), &json!(5_000))
    );
    assert!(text_of(&server, &["queues"]).contains("q"));
    for payload in ["0", "1", "65", "75"] {
        json_of(&server, &["enqueue", "q", payload, "--job-key", payload]);
    }
    json_of(&server, &["queue", "pause", "q"]);
    let exec = "read code; echo \"no: $STREAM_JOB_KEY $STREAM_JOB_ATTEMPT $STREAM_JOB_QUEUE\" >&2; \
                echo \"{\\\"code\\\": $code}\"; exit $code";
    let run = ["run", "--queue", "q", "--exec", exec, "--once", "--concurrency", "2"];
    assert_eq!(text_of(&server, &run), "");
    json_of(&server, &["queue", "resume", "q"]);
    let mut lines: Vec<String> =
        text_of(&server, &run).lines().map(|line| line[29..].to_owned()).collect();
    lines.sort();
    assert_eq!(
        lines,
        ["dead: no: 1 2 q", "dead: no: 65 1 q", "done", "failed: no: 1 1 q", "snoozed"]
    );
    let shown = text_of(&server, &["queue", "show", "q"]);
    assert!(shown.contains("dead         2") || shown.contains("dead      2"), "{shown}");
    let dead = json_of(&server, &["jobs", "q", "--state", "dead"]);
    let id = dead["jobs"][0]["id"].as_str().unwrap();
    assert!(text_of(&server, &["jobs", "q", "--state", "dead"]).contains("no: 1 2 q"));
    assert_eq!(json_of(&server, &["job", "q", id])["state"], "dead");
    assert_eq!(json_of(&server, &["redrive", "q", id])["redriven"], 1);
    assert_eq!(json_of(&server, &["discard", "q", "--yes"])["discarded"], 1);
    text_of(&server, &["queue", "delete", "q", "--yes"]);
    assert_eq!(json_of(&server, &["queues"])["queues"], json!([]));
}
