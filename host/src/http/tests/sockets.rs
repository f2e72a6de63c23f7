//! Connections, over real sockets.

use super::*;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::http::{ServerConfig, Timeouts, serve};

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n";

const TIMEOUTS: Timeouts = Timeouts {
    header: Duration::from_millis(200),
    idle: Duration::from_millis(600),
    write: Duration::from_millis(600),
};

async fn listen(server: &Server, connections_max: usize) -> (SocketAddr, JoinHandle<()>) {
    listen_with(server, connections_max, TIMEOUTS).await
}

async fn listen_with(
    server: &Server,
    connections_max: usize,
    timeouts: Timeouts,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = ServerConfig {
        tls: None,
        connections_max,
        timeouts,
        drain_timeout: Duration::from_secs(10),
    };
    let (app, router) = (Arc::clone(&server.app), server.router.clone());
    (address, tokio::spawn(serve(listener, app, router, config)))
}

/// HTTP/2's preface with empty settings.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The same with windows of no bytes: no answer's body can be sent.
const HTTP2_WITHOUT_WINDOW: &[u8] =
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";

const HTTP2_PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0pingping";

/// `GET /healthz` on stream 1, by HPACK's static table and literals.
const HTTP2_HEALTH: &[u8] = b"\0\0\x0f\x01\x05\0\0\0\x01\x82\x86\x04\x08/healthz\x41\x01h";

/// Sends bytes and reads what comes until the end, or until an answer's head is there.
async fn ask(stream: &mut TcpStream, bytes: &[u8]) -> String {
    stream.write_all(bytes).await.unwrap();
    let mut buffer = vec![0; 4_096];
    let read = stream.read(&mut buffer).await.unwrap();
    String::from_utf8(buffer[..read].to_vec()).unwrap()
}

/// Reads until something has come.
async fn heard(stream: &mut TcpStream, expected: &str) {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(expected) {
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_buf(&mut seen));
        let count = read.await.expect("it is silent").unwrap();
        assert!(count > 0, "it has ended: {}", String::from_utf8_lossy(&seen));
    }
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let server = Server::start().await;
    let (address, _serving) = listen(&server, 10).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    for _ in 0..2 {
        assert!(ask(&mut stream, HEALTH).await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn a_connection_that_brings_no_request_is_closed() {
    let server = Server::start().await;
    let (address, _serving) = listen(&server, 10).await;
    for start in [&b""[..], b"GET /he", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(start).await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest));
        assert!(ended.await.is_ok(), "{start:?}");
    }
}

#[tokio::test]
async fn an_idle_connection_outlives_the_header_timeout_and_is_closed_at_its_own() {
    let server = Server::start().await;
    let (address, _serving) = listen(&server, 10).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    ask(&mut stream, HEALTH).await;
    let mut rest = Vec::new();
    let early = tokio::time::timeout(Duration::from_millis(300), stream.read_to_end(&mut rest));
    assert!(early.await.is_err(), "closed early");
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest));
    assert!(ended.await.is_ok());
}

#[tokio::test]
async fn one_connection_too_many_waits_for_its_turn() {
    let server = Server::start().await;
    let (address, _serving) = listen(&server, 1).await;
    let mut first = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut first, HEALTH).await.starts_with("HTTP/1.1 200"));
    let mut second = TcpStream::connect(address).await.unwrap();
    let mut answer = std::pin::pin!(ask(&mut second, HEALTH));
    let early = tokio::time::timeout(Duration::from_millis(50), &mut answer).await;
    assert!(early.is_err(), "{early:?}");
    drop(first);
    assert!(answer.await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_drain_answers_what_is_under_way_and_then_ends() {
    let server = Server::start().await;
    server.topic(1).await;
    let (address, serving) = listen(&server, 10).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    ask(&mut idle, HEALTH).await;
    let mut waiting = TcpStream::connect(address).await.unwrap();
    let poll = format!(
        "GET /topics/t/consume?group=g&wait_ms=60000 HTTP/1.1\r\nhost: h\r\n\
         authorization: Bearer {ADMIN}\r\n\r\n"
    );
    let mut answer = std::pin::pin!(ask(&mut waiting, poll.as_bytes()));
    let early = tokio::time::timeout(Duration::from_millis(50), &mut answer).await;
    assert!(early.is_err(), "{early:?}");
    server.app.node.drain.begin();
    let text = answer.await;
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("\"records\":[]"), "{text}");
    tokio::time::timeout(Duration::from_secs(5), serving).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed() {
    let server = Server::start().await;
    let (address, _serving) = listen(&server, 10).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&[HTTP2, HTTP2_HEALTH].concat()).await.unwrap();
    let mut seen = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut seen)).await;
    ended.expect("it is closed").unwrap();
    let text = String::from_utf8_lossy(&seen);
    assert!(text.contains("{\"status\":\"ok\"}"), "{text:?}");
}

#[tokio::test]
async fn mute_connections_do_not_hold_up_a_drain() {
    let server = Server::start().await;
    let (address, serving) = listen(&server, 10).await;
    let mut open = Vec::new();
    for start in [&b""[..], b"GET /he", HTTP2] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(start).await.unwrap();
        open.push(stream);
    }
    let mut idle = TcpStream::connect(address).await.unwrap();
    ask(&mut idle, &[HEALTH, b"GET /he"].concat()).await;
    server.app.node.drain.begin();
    tokio::time::timeout(Duration::from_secs(3), serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_is_cut_off() {
    let server = Server::start().await;
    server.topic(1).await;
    let line = json!({ "value": "v".repeat(1 << 20) }).to_string();
    for _ in 0..16 {
        let headers = [("content-type", "application/json")];
        let short = &line[..line.len() - 2_000];
        let answer = server.call_with("POST /topics/t/produce", &headers, format!("{short}\"}}"));
        assert_eq!(answer.await.status, StatusCode::OK);
    }
    let (address, _serving) = listen(&server, 10).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let read = format!(
        "GET /topics/t/partitions/0/records?offset=0&max_bytes=16777216 HTTP/1.1\r\nhost: h\r\n\
         authorization: Bearer {ADMIN}\r\n\r\n"
    );
    // The second answer does not fit into what the system keeps for a socket.
    stream.write_all(read.repeat(2).as_bytes()).await.unwrap();
    let budget = &server.app.node.answer_budget;
    let freed = async {
        while budget.bytes() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        while budget.bytes() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), freed).await.unwrap();
}

#[tokio::test]
async fn an_http2_client_that_pings_and_takes_nothing_of_its_answer_is_cut_off() {
    let server = Server::start().await;
    let (address, _serving) = listen(&server, 10).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&[HTTP2_WITHOUT_WINDOW, HTTP2_HEALTH].concat()).await.unwrap();
    let mut seen = Vec::new();
    // Each ping is answered: something is written all the time.
    let pinging = async {
        while stream.write_all(HTTP2_PING).await.is_ok()
            && stream.read_buf(&mut seen).await.is_ok_and(|count| count > 0)
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), pinging).await.expect("it is cut off");
    let text = String::from_utf8_lossy(&seen);
    assert!(text.contains("pingping") && !text.contains("status"), "{text:?}");
}

#[tokio::test]
async fn a_stream_of_events_may_be_quiet_for_longer_than_the_write_timeout() {
    let server = Server::start().await;
    server.topic(1).await;
    let timeouts = Timeouts { write: Duration::from_millis(200), ..TIMEOUTS };
    let (address, _serving) = listen_with(&server, 10, timeouts).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let subscribe = format!(
        "GET /subscribe?pattern=t HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {ADMIN}\r\n\r\n"
    );
    stream.write_all(subscribe.as_bytes()).await.unwrap();
    // The end of the greeting's chunk.
    heard(&mut stream, "\n\n\r\n").await;
    for _ in 0..2 {
        let mut byte = [0];
        let early = tokio::time::timeout(Duration::from_millis(700), stream.read(&mut byte)).await;
        assert!(early.is_err(), "{early:?}");
        server.fill(0, 1).await;
        heard(&mut stream, "}\n\n\r\n").await;
    }
}
