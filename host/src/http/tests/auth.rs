//! Keys: who may do what, where.

use super::*;

#[tokio::test]
async fn without_a_valid_key_nothing_is_told() {
    let server = Server::start().await;
    for bearer in ["", "Bearer", "Bearer ", "Bearer sk_wrong", "Basic sk_admin", "sk_admin"] {
        let headers = [("authorization", bearer)];
        let answer = server.call_with("GET /topics", &headers, "").await;
        assert_eq!(answer.error(), (401, "invalid-key".to_owned()), "{bearer}");
        assert_eq!(answer.header("www-authenticate"), "Bearer", "{bearer}");
    }
    let request = Request::get("/topics").body(Body::empty()).unwrap();
    assert_eq!(server.send(request).await.error(), (401, "invalid-key".to_owned()));
}

#[tokio::test]
async fn of_two_different_keys_none_counts() {
    let server = Server::start().await;
    let admin = format!("Bearer {ADMIN}");
    for (second, status) in [(admin.as_str(), 200), ("Bearer sk_wrong", 401)] {
        let headers = [("authorization", admin.as_str()), ("authorization", second)];
        assert_eq!(server.call_with("GET /topics", &headers, "").await.status, status, "{second}");
    }
}

#[tokio::test]
async fn a_key_that_is_revoked_during_a_wait_reads_nothing() {
    let server = Server::start().await;
    server.topic(1).await;
    for path in ["consume?group=g", "partitions/0/records?tail=0"] {
        let made = server.call("POST /keys", json!({ "scopes": ["consume"] })).await.json();
        let poll = format!("GET /topics/t/{path}&wait_ms=60000&limit=1");
        let key = made["key"].as_str().unwrap();
        let commit = json!({ "group": "g", "partition": 0, "offset": 0, "reset": true });
        server.call("POST /topics/t/offsets", commit).await;
        let end = server.get("/topics/t/stats").await.json()["total_events"].clone();
        let commit = json!({ "group": "g", "partition": 0, "offset": end });
        server.call("POST /topics/t/offsets", commit).await;
        let mut answer = std::pin::pin!(server.call_as(key, &poll, Value::Null));
        let early = tokio::time::timeout(Duration::from_millis(20), &mut answer).await;
        assert!(early.is_err(), "{path}");
        let revoke = format!("DELETE /keys/{}", made["id"].as_str().unwrap());
        server.call(&revoke, Value::Null).await;
        server.fill(0, 1).await;
        assert_eq!(answer.await.error(), (401, "invalid-key".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn each_call_needs_its_scope() {
    let server = Server::start().await;
    server.topic(1).await;
    let scopes = ["publish", "consume", "manage", "deploy"];
    let mut keys = Vec::new();
    for scope in scopes {
        keys.push((scope, server.key(&[scope]).await));
    }
    let cases: [(&str, &[&str]); 17] = [
        ("GET /topics", &scopes),
        ("GET /topics/t", &scopes),
        ("POST /topics", &["manage"]),
        ("PATCH /topics/t", &["manage"]),
        ("DELETE /topics/u", &["manage"]),
        ("DELETE /topics/t/partitions/0/records?before=0", &["manage"]),
        ("POST /keys", &["manage"]),
        ("GET /keys", &["manage"]),
        ("DELETE /keys/key_0", &["manage"]),
        ("GET /projects", &["manage"]),
        ("PUT /projects/default", &["manage"]),
        ("POST /topics/t/produce", &["publish"]),
        ("POST /topics/t/events", &["publish"]),
        ("GET /producers/p", &["publish"]),
        ("GET /topics/t/consume?group=g", &["consume"]),
        ("POST /topics/t/offsets", &["consume"]),
        ("GET /topics/t/stats", &["consume"]),
    ];
    for (call, allowed) in cases {
        for (scope, key) in &keys {
            let answer = server.call_as(key, call, Value::Null).await;
            let is_missing = answer.status == StatusCode::FORBIDDEN
                && answer.json()["error"]["code"] == "missing-scope";
            assert_eq!(is_missing, !allowed.contains(scope), "{call} as {scope}");
        }
    }
}

#[tokio::test]
async fn a_key_sees_its_own_project_only() {
    let server = Server::start().await;
    server.call("PUT /projects/other", Value::Null).await;
    let key = server.key(&["publish", "consume", "manage"]).await;
    for call in ["GET /projects/other/topics", "POST /projects/other/topics", "PUT /projects/new"] {
        let answer = server.call_as(&key, call, json!({ "name": "t" })).await;
        assert_eq!(answer.error(), (403, "foreign-project".to_owned()), "{call}");
    }
    for path in ["/topics", "/v1/topics", "/projects/default/topics", "/v1/projects/default/topics"]
    {
        let answer = server.call_as(&key, &format!("GET {path}"), Value::Null).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
    }
    let projects = server.call_as(&key, "GET /projects", Value::Null).await.json();
    assert_eq!(projects["projects"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_means_its_project_where_none_is_named() {
    let server = Server::start().await;
    server.call("POST /projects/p/topics", json!({ "name": "only-in-p" })).await;
    let made = server.call("POST /projects/p/keys", json!({ "scopes": ["consume"] })).await.json();
    let key = made["key"].as_str().unwrap();
    let topic = server.call_as(key, "GET /topics/only-in-p", Value::Null).await;
    assert_eq!(topic.status, StatusCode::OK);
}

#[tokio::test]
async fn a_key_is_shown_once_and_listed_without() {
    let server = Server::start().await;
    let new = json!({ "name": "mine", "scopes": ["consume", "publish"] });
    let made = server.call("POST /keys", new).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let mut made = made.json();
    let key = made.as_object_mut().unwrap().remove("key").unwrap();
    assert!(key.as_str().unwrap().starts_with("sk_"), "{key}");
    assert_eq!(made["project"], "default");
    assert_eq!(made["scopes"], json!(["publish", "consume"]));
    let listed = server.get("/keys").await.json();
    assert!(listed["keys"].as_array().unwrap().contains(&made), "{listed}");
    let secret = key.as_str().unwrap();
    assert!(!listed.to_string().contains(secret), "the key itself is not listed");
}

#[tokio::test]
async fn a_revoked_key_opens_nothing() {
    let server = Server::start().await;
    let made = server.call("POST /keys", json!({ "scopes": ["consume"] })).await.json();
    let key = made["key"].as_str().unwrap();
    let revoke = format!("DELETE /keys/{}", made["id"].as_str().unwrap());
    assert_eq!(server.call_as(key, "GET /topics", Value::Null).await.status, StatusCode::OK);
    assert_eq!(server.call(&revoke, Value::Null).await.status, StatusCode::NO_CONTENT);
    let answer = server.call_as(key, "GET /topics", Value::Null).await;
    assert_eq!(answer.error(), (401, "invalid-key".to_owned()));
    assert_eq!(server.call(&revoke, Value::Null).await.error(), (404, "key-not-found".to_owned()));
}

#[tokio::test]
async fn a_key_gives_no_more_than_it_has() {
    let server = Server::start().await;
    let manager = server.key(&["manage", "consume"]).await;
    let cases = [
        (json!({ "scopes": ["publish"] }), (403, "missing-scope")),
        (json!({ "scopes": ["consume"], "all_projects": true }), (403, "foreign-project")),
        (json!({ "scopes": [] }), (400, "invalid-scopes")),
        (json!({ "scopes": ["all"] }), (400, "invalid-scopes")),
        (json!({ "scopes": "consume" }), (400, "invalid-scopes")),
        (json!({}), (400, "invalid-scopes")),
        (json!({ "scopes": ["consume"], "name": "n".repeat(129) }), (400, "invalid-name")),
    ];
    for (body, (status, code)) in cases {
        let answer = server.call_as(&manager, "POST /keys", body.clone()).await;
        assert_eq!(answer.error(), (status, code.to_owned()), "{body}");
    }
    let all = json!({ "scopes": ["consume"], "all_projects": true });
    let made = server.call("POST /keys", all).await.json();
    assert_eq!(made["project"], Value::Null);
    let listed = server.call_as(&manager, "GET /keys", Value::Null).await.text;
    assert!(!listed.contains(made["id"].as_str().unwrap()), "keys for all projects are hidden");
    let revoke = format!("DELETE /keys/{}", made["id"].as_str().unwrap());
    let answer = server.call_as(&manager, &revoke, Value::Null).await;
    assert_eq!(answer.error(), (404, "key-not-found".to_owned()));
}

#[tokio::test]
async fn metrics_are_for_keys_and_for_this_machine() {
    let server = Server::start().await;
    server.get("/topics").await;
    let metrics = server.get("/metrics").await;
    let line = "stream_http_request_duration_seconds_count\
                {route=\"/topics\",method=\"GET\",status=\"2xx\"} 1";
    assert!(metrics.text.contains(line), "{}", metrics.text);
    let cases = [
        ("127.0.0.1:1", None, 200),
        ("[::1]:1", None, 200),
        ("10.0.0.1:1", None, 401),
        ("127.0.0.1:1", Some(("x-forwarded-for", "10.0.0.1")), 401),
    ];
    for (peer, header, status) in cases {
        let mut request = Request::get("/metrics");
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let peer = crate::http::server::Peer(peer.parse().unwrap());
        let request = request.extension(peer).body(Body::empty()).unwrap();
        assert_eq!(server.send(request).await.status, status, "{peer:?} {header:?}");
    }
}
