//! What a full and a broken disk do to a server: run by `.ci/disk-full` on a small file system of its own.
//!
//! `disk-full SERVER FOLDER`: `SERVER` is the binary, `FOLDER` lies on the file system to fill.
#![expect(clippy::expect_used, clippy::print_stdout, reason = "a check prints, and ends the run")]
#![expect(clippy::indexing_slicing, reason = "a JSON value without a field is null")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rand::SeedableRng;
use rand::distr::{Alphanumeric, SampleString};
use rand::rngs::StdRng;
use serde_json::{Value, json};
use stream_tests::{Answer, Client, Server};

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let server = arguments.next().expect("the server's binary");
    let folder = PathBuf::from(arguments.next().expect("a folder on the disk to fill"));
    writes_stop_at_the_reserve_and_resume(&server, &folder.join("reserve")).await;
    a_store_that_ran_full_goes_on_when_there_is_room(&server, &folder.join("full")).await;
    // The last: the disk is gone after it.
    an_io_error_stops_writes_for_good_and_reading_goes_on(&server, &folder).await;
}

/// A topic's publisher with a sequence, and what was acknowledged to it.
struct Publisher {
    client: Client,
    sequence: u64,
}

const LINES: usize = 1_000;

impl Publisher {
    async fn new(client: Client) -> Self {
        client.call_with("POST", "/topics", json!({"name": "full"})).await.ok();
        Self { client, sequence: 0 }
    }

    /// Sends the next request, or the one that was not acknowledged again.
    async fn publish(&mut self) -> Answer {
        let lines: String = (0..LINES)
            .map(|line| {
                let number = usize::try_from(self.sequence).expect("few") * LINES + line;
                // The same for a repeat, and nothing that could be packed.
                let mut random = StdRng::seed_from_u64(number as u64);
                let text = Alphanumeric.sample_string(&mut random, 900);
                json!({"value": {"number": number, "text": text}}).to_string() + "\n"
            })
            .collect();
        let request = self
            .client
            .request("POST", "/topics/full/events")
            .header("content-type", "application/x-ndjson")
            .header("producer-id", "filler")
            .header("producer-epoch", 0)
            .header("producer-seq", self.sequence)
            .body(lines);
        let answer = self.client.send(request).await;
        if answer.status == 200 {
            self.sequence += 1;
        }
        answer
    }

    /// Publishes until the server refuses, and returns the refusal.
    async fn fill(&mut self) -> Answer {
        loop {
            let answer = self.publish().await;
            if answer.status != 200 {
                return answer;
            }
        }
    }

    /// Every acknowledged event is there once and in order, and nothing else is.
    async fn check(&self) {
        let records = self.client.records("full", 0, 0).await;
        let numbers: Vec<Value> = records.iter().map(|r| r["value"]["number"].clone()).collect();
        let expected = usize::try_from(self.sequence).expect("few") * LINES;
        assert_eq!(numbers, (0..expected).map(|number| json!(number)).collect::<Vec<_>>());
    }
}

fn ballast(data: &Path) -> PathBuf {
    data.with_extension("ballast")
}

/// Takes room on the disk, `bytes` of it.
fn take_room(data: &Path, bytes: usize) {
    fs::write(ballast(data), vec![1_u8; bytes]).expect("there is room for the ballast");
}

async fn writes_stop_at_the_reserve_and_resume(exe: &str, data: &Path) {
    take_room(data, 400 << 20);
    let server = Server::start_with(exe, data, &["--reserve-bytes", "67108864"]);
    let mut publisher = Publisher::new(server.client()).await;
    publisher.publish().await.ok();

    let refused = publisher.fill().await;
    assert_eq!((refused.status, refused.code()), (507, "disk-full"), "{refused:?}");
    assert_eq!(server.client().call("GET", "/healthz").await.status, 200);
    assert_eq!(server.client().call("GET", "/readyz").await.status, 503);
    publisher.check().await;

    fs::remove_file(ballast(data)).expect("the ballast is there");
    publisher.publish().await.ok();
    assert_eq!(server.client().call("GET", "/readyz").await.status, 200);
    publisher.check().await;
    assert!(server.stop().success());
    fs::remove_dir_all(data).expect("the folder is there");
    println!("writes stop at the reserve and resume: ok");
}

async fn a_store_that_ran_full_goes_on_when_there_is_room(exe: &str, data: &Path) {
    take_room(data, 420 << 20);
    let server = Server::start_with(exe, data, &["--reserve-bytes", "0"]);
    let mut publisher = Publisher::new(server.client()).await;

    let refused = publisher.fill().await;
    assert!(matches!(refused.status, 503 | 507), "{refused:?}");
    println!("without a reserve: {} `{}`", refused.status, refused.code());
    assert_eq!(server.client().call("GET", "/topics/full").await.status, 200);
    // Whether the refused request is stored is not known: its sequence keeps the repeat safe.
    fs::remove_file(ballast(data)).expect("the ballast is there");
    let answer = publisher.publish().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    publisher.publish().await.ok();
    publisher.check().await;

    server.kill();
    let server = Server::start_with(exe, data, &["--reserve-bytes", "0"]);
    publisher.client = server.client();
    publisher.check().await;
    assert!(server.stop().success());
    println!("a store that ran full goes on when there is room: ok");
}

async fn an_io_error_stops_writes_for_good_and_reading_goes_on(exe: &str, disk: &Path) {
    let server = Server::start(exe, &disk.join("broken"));
    let mut publisher = Publisher::new(server.client()).await;
    publisher.publish().await.ok();

    break_disk(disk);
    let unknown = publisher.publish().await;
    assert_eq!((unknown.status, unknown.code()), (503, "commit-unknown"), "{unknown:?}");
    for _ in 0..2 {
        let refused = publisher.publish().await;
        assert_eq!((refused.status, refused.code()), (503, "store-poisoned"), "{refused:?}");
    }
    assert_eq!(server.client().call("GET", "/healthz").await.status, 503);
    assert_eq!(server.client().call("GET", "/readyz").await.status, 503);
    publisher.check().await;
    println!("an I/O error stops writes for good, and reading goes on: ok");
}

/// From here on every write to the file system fails, as on a disk that broke: ext4's own way to
/// try that, which is out of reach for safe code.
fn break_disk(disk: &Path) {
    const SHUT_DOWN: &str = "import fcntl, os, struct, sys; \
        fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))";
    let status = Command::new("python3").args(["-c", SHUT_DOWN]).arg(disk).status();
    assert!(status.expect("python3 is there").success());
}
