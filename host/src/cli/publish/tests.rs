//! Whole runs against a small server that keeps producers' sequences as the real one does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use clap::Parser;

use super::*;
use crate::cli::client::tests::serve;
use crate::cli::{Cli, Command};

/// What the server knows.
#[derive(Default)]
struct Fake {
    /// Topics with when they were made, and their lines.
    topics: BTreeMap<String, (String, Vec<String>)>,
    producers: BTreeMap<String, u64>,
    /// Publish requests, also those that were not stored.
    requests: u64,
    /// Publish requests that are still stored.
    accepts: Option<u64>,
    /// Answers that get lost after their request was stored.
    loses: u64,
}

type Shared = Arc<Mutex<Fake>>;

fn refusal(status: StatusCode, code: &str) -> Response {
    let error = json!({ "error": { "code": code, "message": code, "retryable": false } });
    (status, axum::Json(error)).into_response()
}

async fn topic(State(fake): State<Shared>, Path((_, topic)): Path<(String, String)>) -> Response {
    match fake.lock().unwrap().topics.get(&topic) {
        Some((made_at, _)) => axum::Json(json!({ "created_at": made_at })).into_response(),
        None => refusal(StatusCode::NOT_FOUND, "topic-not-found"),
    }
}

async fn create(State(fake): State<Shared>, axum::Json(body): axum::Json<Value>) -> Response {
    let name = body["name"].as_str().unwrap();
    fake.lock().unwrap().topics.insert(name.to_owned(), Default::default());
    axum::Json(body).into_response()
}

async fn producer(State(fake): State<Shared>, Path((_, id)): Path<(String, String)>) -> Response {
    match fake.lock().unwrap().producers.get(&id) {
        Some(last) => axum::Json(json!({ "id": id, "epoch": 0, "last_seq": last })).into_response(),
        None => refusal(StatusCode::NOT_FOUND, "producer-not-found"),
    }
}

async fn events(
    State(fake): State<Shared>,
    Path((_, topic)): Path<(String, String)>,
    headers: HeaderMap,
    body: String,
) -> Response {
    let mut fake = fake.lock().unwrap();
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let (id, sequence) = (header("producer-id"), header("producer-seq").parse::<u64>().unwrap());
    assert_eq!(header("authorization"), "Bearer sk_test");
    fake.requests += 1;
    let next = fake.producers.get(&id).map_or(0, |last| last + 1);
    let is_duplicate = sequence < next;
    if !is_duplicate {
        if fake.accepts == Some(0) {
            return refusal(StatusCode::INSUFFICIENT_STORAGE, "disk-full");
        }
        fake.accepts = fake.accepts.map(|left| left - 1);
        if sequence > next {
            return refusal(StatusCode::CONFLICT, "sequence-gap");
        }
        let bad = body.lines().position(|line| line.contains("refuse me"));
        if let Some(index) = bad {
            let error = json!({ "error": {
                "code": "malformed-event", "message": "m", "index": index,
                "field": "value", "reason": "not that one",
            }});
            return (StatusCode::BAD_REQUEST, axum::Json(error)).into_response();
        }
        let lines = &mut fake.topics.get_mut(&topic).unwrap().1;
        lines.extend(body.lines().map(ToOwned::to_owned));
        fake.producers.insert(id, sequence);
    }
    if fake.loses > 0 {
        fake.loses -= 1;
        return (StatusCode::BAD_GATEWAY, "<html>").into_response();
    }
    axum::Json(json!({ "duplicate": is_duplicate })).into_response()
}

/// A server, and a file that is published to it.
struct Setting {
    fake: Shared,
    folder: tempfile::TempDir,
}

impl Setting {
    fn new(topics: &[&str], file: &str) -> Self {
        let setting = Self { fake: Shared::default(), folder: tempfile::tempdir().unwrap() };
        for topic in topics {
            setting.make(topic, "2026-01-01T00:00:00.000Z");
        }
        setting.write(file);
        setting
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("events.ndjson")
    }

    fn write(&self, file: &str) {
        std::fs::write(self.path(), file).unwrap();
    }

    /// Makes a topic, as new if it is there.
    fn make(&self, topic: &str, made_at: &str) {
        let new = (made_at.to_owned(), Vec::new());
        self.fake.lock().unwrap().topics.insert(topic.to_owned(), new);
    }

    fn lines(&self, topic: &str) -> Vec<String> {
        self.fake.lock().unwrap().topics[topic].1.clone()
    }

    /// Publishes the file by a server of its own, with the same memory. `FILE` stands for it.
    async fn publish(&self, args: &[&str]) -> (Value, Result<(), CliError>) {
        let project = "/projects/{project}";
        let router = Router::new()
            .route(&format!("{project}/topics"), post(create))
            .route(&format!("{project}/topics/{{topic}}"), get(topic))
            .route(&format!("{project}/topics/{{topic}}/events"), post(events))
            .route(&format!("{project}/producers/{{id}}"), get(producer))
            .with_state(Arc::clone(&self.fake));
        let client = serve(router).await;
        let path = self.path();
        let args = args.iter().map(|arg| if *arg == "FILE" { path.to_str().unwrap() } else { arg });
        let cli = Cli::try_parse_from(["stream", "publish"].into_iter().chain(args)).unwrap();
        let Command::Publish(args) = cli.command else { panic!("{cli:?}") };
        match args.publish(client).await {
            Ok((summary, outcome)) => (summary, outcome),
            Err(error) => (Value::Null, Err(error)),
        }
    }
}

/// Lines with these values.
fn lines(values: std::ops::Range<u32>) -> Vec<String> {
    values.map(|value| format!("{{\"value\":{value}}}")).collect()
}

fn counts(summary: &Value) -> [u64; 3] {
    ["published", "duplicates", "requests"].map(|field| summary[field].as_u64().unwrap())
}

#[test]
fn a_producers_name_has_at_most_64_characters() {
    let at_the_limit = "p".repeat(64);
    assert_eq!(parse_producer(&at_the_limit), Ok(at_the_limit.clone()));
    assert!(parse_producer(&format!("{at_the_limit}p")).is_err());
}

#[tokio::test]
async fn a_file_is_published_in_order() {
    let setting = Setting::new(&["t"], &lines(0..10).join("\n"));
    let (summary, outcome) = setting.publish(&["t", "FILE", "--batch", "3"]).await;
    outcome.unwrap();
    assert_eq!(counts(&summary), [10, 0, 4]);
    assert_eq!(setting.lines("t"), lines(0..10));
}

#[tokio::test]
async fn a_second_run_skips_what_is_stored_without_sending_it() {
    let setting = Setting::new(&["t"], &lines(0..10).join("\n"));
    setting.fake.lock().unwrap().accepts = Some(2);
    let (summary, outcome) = setting.publish(&["t", "FILE", "--batch", "3"]).await;
    assert_eq!(outcome.unwrap_err().exit_code(), 3);
    assert_eq!(counts(&summary), [6, 0, 2]);
    setting.fake.lock().unwrap().accepts = None;
    let before = setting.fake.lock().unwrap().requests;
    let (summary, outcome) = setting.publish(&["t", "FILE", "--batch", "3"]).await;
    outcome.unwrap();
    assert_eq!(counts(&summary), [4, 6, 2]);
    assert_eq!(setting.fake.lock().unwrap().requests, before + 2);
    assert_eq!(setting.lines("t"), lines(0..10));
}

#[tokio::test]
async fn the_same_file_is_stored_again_only_if_told() {
    let setting = Setting::new(&["t"], &lines(0..4).join("\n"));
    setting.publish(&["t", "FILE"]).await.1.unwrap();
    let (summary, _) = setting.publish(&["t", "FILE"]).await;
    assert_eq!(counts(&summary), [0, 4, 0]);
    let (summary, _) = setting.publish(&["t", "FILE", "--again"]).await;
    assert_eq!(counts(&summary), [4, 0, 1]);
    assert_eq!(setting.lines("t").len(), 8);
}

#[tokio::test]
async fn other_content_another_cut_and_a_new_topic_of_the_name_are_published_anew() {
    let setting = Setting::new(&["t"], &lines(0..4).join("\n"));
    setting.publish(&["t", "FILE"]).await.1.unwrap();
    for args in [&["t", "FILE", "--batch", "3"][..], &["t", "FILE", "--producer", "p"]] {
        assert_eq!(counts(&setting.publish(args).await.0)[0], 4, "{args:?}");
    }
    setting.make("t", "2026-01-02T00:00:00.000Z");
    assert_eq!(counts(&setting.publish(&["t", "FILE"]).await.0)[0], 4);
    setting.write(&lines(0..5).join("\n"));
    assert_eq!(counts(&setting.publish(&["t", "FILE"]).await.0)[0], 5);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_nothing_is_stored_twice() {
    let setting = Setting::new(&["t"], &lines(0..4).join("\n"));
    setting.fake.lock().unwrap().loses = 2;
    let (summary, outcome) = setting.publish(&["t", "FILE", "--batch", "2"]).await;
    outcome.unwrap();
    let [published, duplicates, requests] = counts(&summary);
    assert_eq!((published + duplicates, requests), (4, 2));
    assert_eq!(setting.lines("t"), lines(0..4));
}

#[tokio::test]
async fn each_line_goes_to_the_topic_of_its_type_in_order() {
    let line = |topic: usize, value| format!("{{\"type\":\"t.{topic}\",\"value\":{value}}}");
    let all: Vec<_> = (0..60).map(|value| line(value % 12, value)).collect();
    let setting = Setting::new(&[], &all.join("\n"));
    let (summary, outcome) =
        setting.publish(&["--by-type", "--create", "--batch", "2", "FILE"]).await;
    outcome.unwrap();
    assert_eq!(counts(&summary), [60, 0, 36]);
    for topic in 0..12 {
        let expected: Vec<_> = (0..5).map(|round| line(topic, round * 12 + topic)).collect();
        assert_eq!(setting.lines(&format!("t.{topic}")), expected);
    }
}

#[tokio::test]
async fn a_missing_topic_is_made_only_if_told() {
    let setting = Setting::new(&[], "{\"value\":1}");
    let (_, outcome) = setting.publish(&["t", "FILE"]).await;
    let error = outcome.unwrap_err();
    assert_eq!((error.status(), error.exit_code()), (Some(404), 1));
    setting.publish(&["t", "FILE", "--create"]).await.1.unwrap();
    assert_eq!(setting.lines("t").len(), 1);
}

#[tokio::test]
async fn a_bad_line_is_named_and_nothing_of_its_file_is_sent() {
    let cases = ["{\"type\":\"t\"}\n{\"value\":1}\n", "{\"type\":\"t\"}\n{\"type\":\"t\",}\n"];
    for file in cases {
        let setting = Setting::new(&["t"], file);
        let (_, outcome) = setting.publish(&["--by-type", "FILE", "--batch", "1"]).await;
        let error = outcome.unwrap_err();
        assert!(error.to_string().starts_with("line 2: "), "{error}");
        assert_eq!(error.exit_code(), 4);
        assert!(setting.lines("t").is_empty());
    }
}

#[tokio::test]
async fn a_line_that_the_server_refuses_is_named() {
    let mut all = lines(0..6);
    all[4] = "{\"value\":\"refuse me\"}".to_owned();
    let setting = Setting::new(&["t"], &format!("\n{}", all.join("\n")));
    let (summary, outcome) = setting.publish(&["t", "FILE", "--batch", "3"]).await;
    let error = outcome.unwrap_err();
    let expected = "line 6: refused by the server: field `value`: not that one";
    assert_eq!((error.to_string().as_str(), error.exit_code()), (expected, 4));
    assert_eq!(counts(&summary), [3, 0, 1]);
}

#[tokio::test]
async fn a_pipe_is_sent_until_its_bad_line() {
    let setting = Setting::new(&["t"], "");
    std::fs::remove_file(setting.path()).unwrap();
    let made = std::process::Command::new("mkfifo").arg(setting.path()).status().unwrap();
    assert!(made.success());
    let path = setting.path();
    let writer = std::thread::spawn(move || std::fs::write(path, "{}\n{}\n{}\n{\n{}\n"));
    let (summary, outcome) = setting.publish(&["t", "FILE", "--batch", "2"]).await;
    assert!(outcome.unwrap_err().to_string().starts_with("line 4: "));
    assert_eq!(counts(&summary), [2, 0, 1]);
    writer.join().unwrap().unwrap();
}

#[test]
fn arguments_that_do_not_go_together_are_refused() {
    let parse =
        |args: &[&str]| Cli::try_parse_from(["stream", "publish"].iter().chain(args)).is_ok();
    let good: [&[&str]; 5] = [
        &["t"],
        &["t", "-"],
        &["--by-type"],
        &["--by-type", "f"],
        &["t", "--create", "--partitions", "2"],
    ];
    for args in good {
        assert!(parse(args), "{args:?}");
    }
    let bad: [&[&str]; 6] = [
        &[],
        &["t", "f", "--by-type"],
        &["t", "--partitions", "2"],
        &["t", "--batch", "0"],
        &["t", "--again", "--producer", "p"],
        &["t", "--producer", "a b"],
    ];
    for args in bad {
        assert!(!parse(args), "{args:?}");
    }
}

#[test]
fn a_summary_counts_by_topic_and_in_all() {
    let tally = |published, duplicates| Tally { published, duplicates, requests: 1 };
    let name = |text| TopicName::parse(text).unwrap();
    let tallies = Tallies::from([(name("a"), tally(3, 0)), (name("b"), tally(1, 2))]);
    let summary = summary(&tallies, Duration::from_millis(2500));
    let expected = json!({
        "published": 4, "duplicates": 2, "requests": 2, "seconds": 2.5, "events_per_second": 1.6,
        "topics": [
            { "topic": "a", "published": 3, "duplicates": 0, "requests": 1 },
            { "topic": "b", "published": 1, "duplicates": 2, "requests": 1 },
        ],
    });
    assert_eq!(summary, expected);
    let last = "4 events published in 2.5 s, 1.6 a second; 2 were stored before\n";
    assert!(human(&summary).ends_with(last), "{}", human(&summary));
}
