//! Bodies, request ids, paths and what wraps all calls.

use super::*;

use std::io::Write;

const LINES: &str = "{\"value\":1}\n{\"value\":2}\n";

fn zstd(bytes: &[u8]) -> Vec<u8> {
    // One frame of one raw block: what an encoder makes of bytes that do not compress.
    let length = u32::try_from(bytes.len()).unwrap();
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&((length << 3) | 1).to_le_bytes()[..3]);
    frame.extend_from_slice(bytes);
    frame
}

/// One member of stored blocks.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut member = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let length = u16::try_from(bytes.len()).unwrap();
    member.push(1);
    member.extend_from_slice(&length.to_le_bytes());
    member.extend_from_slice(&(!length).to_le_bytes());
    member.extend_from_slice(bytes);
    member.extend_from_slice(&crc32(bytes).to_le_bytes());
    member.extend_from_slice(&u32::from(length).to_le_bytes());
    member
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// A frame of one block that repeats a byte: four megabytes in a few.
fn zstd_bomb(blocks: usize) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x50];
    let size: u32 = 1 << 17;
    for block in 1..=blocks {
        let header = (size << 3) | 2 | u32::from(block == blocks);
        frame.write_all(&header.to_le_bytes()[..3]).unwrap();
        frame.push(b' ');
    }
    frame
}

#[tokio::test]
async fn packed_bodies_are_unpacked() {
    let server = Server::start().await;
    server.topic(1).await;
    for (encoding, body) in [("gzip", gzip(LINES.as_bytes())), ("zstd", zstd(LINES.as_bytes()))] {
        let answer = server.events(body, &[("content-encoding", encoding)]).await;
        assert_eq!(answer.status, StatusCode::OK, "{encoding}: {}", answer.text);
        assert_eq!(answer.json()["count"], 2, "{encoding}");
    }
}

#[tokio::test]
async fn all_members_and_frames_of_a_packed_body_count() {
    let server = Server::start().await;
    server.topic(1).await;
    for (encoding, part) in [("gzip", gzip(LINES.as_bytes())), ("zstd", zstd(LINES.as_bytes()))] {
        let mut body = part.repeat(2);
        let headers = [("content-encoding", encoding)];
        assert_eq!(server.events(body.clone(), &headers).await.json()["count"], 4, "{encoding}");
        body.extend_from_slice(b"and then some");
        let answer = server.events(body, &headers).await;
        assert_eq!(answer.error(), (400, "broken-body".to_owned()), "{encoding}");
        assert_eq!(answer.json()["error"]["retryable"], false, "{encoding}");
    }
}

#[tokio::test]
async fn an_unknown_packing_and_a_broken_one_are_refused() {
    let server = Server::start().await;
    server.topic(1).await;
    let cases = [
        ("br", (415, "unsupported-encoding")),
        ("gzip, gzip", (415, "unsupported-encoding")),
        ("gzip", (400, "broken-body")),
        ("zstd", (400, "broken-body")),
    ];
    for (encoding, (status, code)) in cases {
        let answer = server.events(LINES, &[("content-encoding", encoding)]).await;
        assert_eq!(answer.error(), (status, code.to_owned()), "{encoding}");
    }
    let plain = server.events(LINES, &[("content-encoding", "identity")]).await;
    assert_eq!(plain.status, StatusCode::OK);
}

#[tokio::test]
async fn limits_hold_for_what_is_unpacked() {
    let server =
        Server::with_limits(Limits { request_bytes_max: 1 << 20, ..Limits::default() }).await;
    server.topic(1).await;
    let bomb = zstd_bomb(4_096);
    assert!(bomb.len() < 1 << 20, "it is small while packed");
    let answer = server.events(bomb, &[("content-encoding", "zstd")]).await;
    assert_eq!(answer.error(), (413, "too-large".to_owned()));
    assert_eq!(answer.json()["error"]["limit"], "request_bytes");
    assert_eq!(server.app.node.budget.bytes(), 0, "nothing is held afterwards");
}

#[tokio::test]
async fn too_many_bytes_in_flight_are_refused_for_now() {
    let server = Server::with_limits(Limits { project_bytes_max: 100, ..Limits::default() }).await;
    server.topic(1).await;
    let mut other = server.app.node.budget.permit(crate::node::default_project());
    other.grow_to(90).unwrap();
    let answer = server.events(LINES, &[]).await;
    assert_eq!(answer.error(), (429, "too-many-bytes".to_owned()));
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(answer.json()["error"]["retryable"], true);
    drop(other);
    assert_eq!(server.events(LINES, &[]).await.status, StatusCode::OK);
    assert_eq!(server.app.node.budget.bytes(), 0);
}

#[tokio::test]
async fn a_body_that_is_announced_and_not_sent_takes_no_room() {
    let server = Server::start().await;
    server.topic(1).await;
    let stuck = Body::from_stream(futures_util::stream::pending::<std::io::Result<&str>>());
    let headers = [("content-length", "16777216")];
    let mut call = std::pin::pin!(server.events(stuck, &headers));
    let early = tokio::time::timeout(Duration::from_millis(20), &mut call).await;
    assert!(early.is_err());
    assert_eq!(server.app.node.budget.bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_byte_a_second_does_not_keep_a_body_alive() {
    let server = Server::start().await;
    server.topic(1).await;
    let trickle = futures_util::stream::unfold((), async |()| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Some((Ok::<_, std::io::Error>(" "), ()))
    });
    let answer = server.events(Body::from_stream(Box::pin(trickle)), &[]).await;
    assert_eq!(answer.error(), (408, "request-timeout".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_long_body_may_take_longer_than_the_timeout() {
    let server = Server::start().await;
    server.topic(1).await;
    let line = |n: u32| format!("{{\"value\":{n}}}{}\n", " ".repeat(16 << 10));
    let slow = futures_util::stream::unfold(0, move |n| async move {
        tokio::time::sleep(Duration::from_secs(20)).await;
        (n < 5).then(|| (Ok::<_, std::io::Error>(line(n)), n + 1))
    });
    let answer = server.events(Body::from_stream(slow), &[]).await;
    assert_eq!(answer.json()["count"], 5, "{}", answer.text);
}

#[tokio::test]
async fn a_call_that_is_no_publish_takes_a_small_body() {
    let server = Server::start().await;
    for (length, status) in [(256 << 10, 201), ((256 << 10) + 1, 413)] {
        let body = json!({ "name": "t" }).to_string();
        let body = body.clone() + &" ".repeat(length - body.len());
        let answer = server.call_with("POST /topics", &[], body).await;
        assert_eq!(answer.status, status, "{length}: {}", answer.text);
        if status == 413 {
            assert_eq!(answer.json()["error"]["limit"], "control_bytes");
        }
    }
}

#[tokio::test]
async fn a_call_that_is_no_publish_takes_json_or_what_says_nothing() {
    let server = Server::start().await;
    let body = json!({ "name": "t" }).to_string();
    let cases = [
        ("", 201),
        ("application/json; charset=utf-8", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
    ];
    for (content_type, status) in cases {
        let header = [("content-type", content_type)];
        let headers = if content_type.is_empty() { &[][..] } else { &header };
        let answer = server.call_with("POST /topics", headers, body.clone()).await;
        assert_eq!(answer.status, status, "{content_type}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_body_of_two_types_is_refused() {
    let server = Server::start().await;
    server.topic(1).await;
    let json = ("content-type", "application/json");
    for (call, body) in [("POST /topics", "{\"name\":\"t\"}"), ("POST /topics/t/events", LINES)] {
        let headers = [json, ("content-type", "application/x-ndjson")];
        let answer = server.call_with(call, &headers, body).await;
        assert_eq!(answer.error(), (400, "invalid-content-type".to_owned()), "{call}");
    }
    let same = server.call_with("POST /topics", &[json, json], "{\"name\":\"t\"}").await;
    assert_eq!(same.status, StatusCode::OK, "{}", same.text);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_brings_nothing_is_given_up() {
    let server = Server::start().await;
    server.topic(1).await;
    let stream = futures_util::stream::iter([Ok::<_, std::io::Error>("{\"value\":1}\n")]);
    let stuck = futures_util::StreamExt::chain(stream, futures_util::stream::pending());
    let answer = server.events(Body::from_stream(stuck), &[]).await;
    assert_eq!(answer.error(), (408, "request-timeout".to_owned()));
}

#[tokio::test]
async fn a_half_sent_request_stores_nothing() {
    let server = Server::start().await;
    server.topic(1).await;
    let cut = [Ok("{\"value\":1}\n"), Err(std::io::Error::other("cut"))];
    let body = Body::from_stream(futures_util::stream::iter(cut));
    assert_eq!(server.events(body, &[]).await.error(), (400, "broken-body".to_owned()));
    assert_eq!(server.get("/topics/t/stats").await.json()["total_events"], 0);
}

#[tokio::test]
async fn every_answer_has_a_request_id() {
    let server = Server::with_limits(Limits { request_bytes_max: 1, ..Limits::default() }).await;
    let cases = [
        ("GET /topics", 200),
        ("GET /nope", 404),
        ("GET /v1/nope", 404),
        ("GET /projects/p/nope", 404),
        ("PUT /topics", 405),
        ("POST /healthz", 405),
        ("POST /topics", 413),
        ("GET /topics/a..b", 400),
        ("GET /topics/%FF", 400),
        ("GET /topics?a=%FF", 400),
    ];
    for (call, status) in cases {
        let answer = server.call(call, json!({ "name": "t" })).await;
        assert_eq!(answer.status, status, "{call}");
        assert!(answer.header("x-request-id").starts_with("req_"), "{call}");
        if status >= 400 {
            assert!(answer.json()["error"]["code"].is_string(), "{call}");
        }
    }
    let answer = server.call_with("GET /nope", &[("x-request-id", "mine")], "").await;
    assert_eq!(answer.header("x-request-id"), "mine");
}

#[tokio::test]
async fn a_method_that_is_not_taken_names_those_that_are() {
    let server = Server::start().await;
    let answer = server.call("PUT /topics", Value::Null).await;
    assert_eq!(answer.error(), (405, "method-not-allowed".to_owned()));
    assert!(answer.header("allow").contains("POST"), "{:?}", answer.headers);
}

#[tokio::test]
async fn pages_of_other_origins_are_let_in_by_configuration_only() {
    let origin = HeaderValue::from_static("https://a.example");
    let preflight = |origin: &str| {
        Request::options("/topics")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization")
            .body(Body::empty())
            .unwrap()
    };
    let allowed = |answer: &Answer| answer.header("access-control-allow-origin").to_owned();
    let closed = Server::start().await;
    let answer = closed.send(preflight("https://a.example")).await;
    assert_eq!((answer.status.as_u16(), allowed(&answer)), (405, String::new()));
    let open = Server::with(Limits::default(), &[origin]).await;
    let answer = open.send(preflight("https://a.example")).await;
    assert_eq!((answer.status.as_u16(), allowed(&answer).as_str()), (200, "https://a.example"));
    assert_eq!(allowed(&open.send(preflight("https://b.example")).await), "");
    let any = Server::with(Limits::default(), &[HeaderValue::from_static("*")]).await;
    assert_eq!(allowed(&any.send(preflight("https://b.example")).await), "*");
}

#[tokio::test]
async fn a_panic_is_an_answer() {
    let server = Server::start().await;
    let panics = axum::routing::get(async || -> &'static str { panic!("on purpose") });
    let router = Router::new().route("/panic", panics).layer(axum::middleware::from_fn_with_state(
        Arc::clone(&server.app),
        crate::http::observe::observe,
    ));
    let request = Request::get("/panic").body(Body::empty()).unwrap();
    let answer = Server { router, ..server }.send(request).await;
    assert_eq!(answer.error(), (500, "internal-error".to_owned()));
    assert!(!answer.text.contains("on purpose"));
}

#[tokio::test]
async fn a_draining_server_is_alive_and_not_ready() {
    let server = Server::start().await;
    assert_eq!(server.get("/readyz").await.status, StatusCode::OK);
    server.app.node.drain.begin();
    assert_eq!(server.get("/healthz").await.json(), json!({ "status": "ok" }));
    let ready = server.get("/readyz").await;
    assert_eq!((ready.status.as_u16(), &ready.json()["reason"]), (503, &json!("shutting-down")));
}
