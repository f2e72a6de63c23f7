//! The process: configuration, TLS, bodies, draining.

use std::io::Write;
use std::time::Duration;

use serde_json::json;
use stream_tests::{Client, KEY, Server};

use super::{EXE, start};

#[tokio::test]
async fn compressed_bodies_are_unpacked_and_limited_after_that() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    client.call_with("POST", "/topics", json!({"name": "t"})).await.ok();
    let small = b"{\"value\":1}\n".to_vec();
    // 17 MiB of blank lines: a few KiB on the wire.
    let bomb = vec![b'\n'; 17 << 20];
    for (encoding, pack) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("zstd", zstd)] {
        let send = |body: &[u8]| {
            let request = client.request("POST", "/topics/t/events");
            let request = request.header("content-type", "application/x-ndjson");
            client.send(request.header("content-encoding", encoding).body(pack(body)))
        };
        assert_eq!(send(&small).await.status, 200, "{encoding}");
        let refused = send(&bomb).await;
        assert_eq!((refused.status, refused.code()), (413, "too-large"), "{encoding} {refused:?}");
    }
    assert_eq!(client.records("t", 0, 0).await.len(), 2);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

#[tokio::test]
async fn a_certificate_makes_it_https() {
    let data = tempfile::tempdir().unwrap();
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let (cert, key) = (data.path().join("cert.pem"), data.path().join("key.pem"));
    std::fs::write(&cert, certified.cert.pem()).unwrap();
    std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    let store = data.path().join("data");
    let arguments = ["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let server = Server::start_with(EXE, &store, &arguments);
    let port = server.url.rsplit(':').next().unwrap();
    let mut client = Client::new(&format!("https://localhost:{port}"), Some(KEY));
    let root = reqwest::Certificate::from_pem(certified.cert.pem().as_bytes()).unwrap();
    client.http = reqwest::Client::builder().tls_certs_only([root]).no_proxy().build().unwrap();
    assert_eq!(client.call("GET", "/topics").await.status, 200);
}

#[test]
fn plain_http_beyond_loopback_needs_a_flag() {
    let data = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(EXE);
    command.args(["serve", "--listen", "0.0.0.0:0", "--data"]).arg(data.path());
    let output = command.output().unwrap();
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("--insecure-http"), "{errors}");
}

#[tokio::test]
async fn sigterm_ends_long_polls_and_then_the_process() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    client.call_with("POST", "/topics", json!({"name": "t"})).await.ok();
    let path = "/topics/t/partitions/0/records?offset=0&wait_ms=60000";
    let poll = tokio::spawn(async move { client.call("GET", path).await });
    let metrics = server.client();
    // The poll is under way once the server counts its connection and ours.
    let under_way = async {
        loop {
            let text = metrics.call("GET", "/metrics").await.body.to_string();
            if text.contains("stream_http_connections 2") {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), under_way).await.expect("the poll begins");
    let status = tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
    assert!(status.success());
    let answer = poll.await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["records"], json!([]));
}

#[tokio::test]
async fn flags_come_before_the_environment_and_that_before_the_file() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("stream.toml");
    let partitions_max = |name: &str, max: u32| {
        std::fs::write(&file, format!("partitions_max = {max}\n")).unwrap();
        data.path().join(name)
    };
    let refused = |client: Client| async move {
        let topic = json!({"name": "t", "partitions": 100});
        let answer = client.call_with("POST", "/topics", topic).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        answer.body.to_string()
    };
    let config = ["--config", file.to_str().unwrap()];
    let store = partitions_max("file", 11);
    let server = Server::start_with(EXE, &store, &config);
    assert!(refused(server.client()).await.contains("11"));
    let flags = [&config[..], &["--partitions-max", "12"]].concat();
    let server = Server::start_with(EXE, &data.path().join("flag"), &flags);
    assert!(refused(server.client()).await.contains("12"));
}

#[tokio::test]
async fn the_first_start_prints_an_admin_key_once_and_keeps_only_its_hash() {
    let data = tempfile::tempdir().unwrap();
    let run = || {
        let mut command = stream_tests::command(EXE, data.path(), &[]);
        command.env_remove("STREAM_API_KEY").stderr(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines =
            std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        let url =
            lines.find_map(|line| line.unwrap().strip_prefix("listening on ").map(str::to_owned));
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&child),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(url.is_some());
        String::from_utf8(output.stderr).unwrap()
    };
    let first = run();
    let key = first.split_whitespace().find(|word| word.starts_with("sk_")).expect("a key");
    assert!(!run().contains("sk_"), "it is printed once");
    let server = start(data.path());
    let client = Client::new(&server.url, Some(key));
    assert_eq!(client.call("GET", "/topics").await.status, 200);
    assert!(server.stop().success());
    assert!(!holds(data.path(), key.as_bytes()), "the key itself is nowhere on the disk");
}

/// Whether any file below `folder` holds these bytes.
fn holds(folder: &std::path::Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
        if path.is_dir() {
            return holds(&path, bytes);
        }
        // Journals are allocated ahead: what is written of one lies at its start.
        let mut start = Vec::new();
        let file = std::fs::File::open(path).unwrap();
        std::io::Read::read_to_end(&mut std::io::Read::take(file, 1 << 20), &mut start).unwrap();
        start.windows(bytes.len()).any(|window| window == bytes)
    })
}
