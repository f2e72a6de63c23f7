//! Calls through the whole router, on an embedded store in a folder of its own.

mod auth;
mod body;
mod connector_targets;
mod connectors;
mod consume;
mod describe;
mod gaps;
mod groups;
mod jobs;
mod lookups;
mod nack;
mod plugins;
mod publish;
mod queues;
mod routes;
mod sockets;
mod subscribe;
mod topics;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use stream_storage::embedded::{EmbeddedConfig, EmbeddedStore};
use stream_storage::{Clock, ManualClock, Store, Timestamp};
use tempfile::TempDir;
use tower::ServiceExt;

use super::{App, router};
use crate::egress::{AllowList, Egress};
use crate::ledger::LedgersConfig;
use crate::limit::Limits;
use crate::node::{Node, NodeConfig};
use crate::plugin::{Compiler, PluginConfig};
use crate::secret::Sealer;
use crate::stage::BreakerConfig;

/// 2026-01-02T03:04:05.678Z.
const NOW: Timestamp = Timestamp(1_767_323_045_678);

/// The key that opens everything.
const ADMIN: &str = "sk_admin";

struct Server {
    router: Router,
    app: Arc<App>,
    clock: Arc<ManualClock>,
    folder: TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Status and code of an error.
    #[track_caller]
    fn error(&self) -> (u16, String) {
        let code = self.json()["error"]["code"].as_str().unwrap_or_default().to_owned();
        (self.status.as_u16(), code)
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Server {
    async fn start() -> Self {
        Self::with_limits(Limits::default()).await
    }

    async fn with_limits(limits: Limits) -> Self {
        Self::with(limits, &[]).await
    }

    async fn with(limits: Limits, cors_origins: &[HeaderValue]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(NOW));
        let config =
            EmbeddedConfig { reserve_bytes: 0, ..EmbeddedConfig::new(folder.path().join("data")) };
        let as_clock = Arc::clone(&clock) as Arc<dyn Clock>;
        let store = EmbeddedStore::open(config, Arc::clone(&as_clock)).unwrap();
        let app = Self::app(Arc::new(store), as_clock, limits, &folder).await;
        Self { router: router(Arc::clone(&app), cors_origins), app, clock, folder }
    }

    async fn app(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        limits: Limits,
        folder: &TempDir,
    ) -> Arc<App> {
        let allow = AllowList::parse("127.0.0.1").unwrap();
        let config = NodeConfig {
            limits,
            key_expiry: Duration::from_secs(60),
            admin_key: Some(ADMIN.to_owned()),
            plugins: PluginConfig::new(folder.path().join("code"), Compiler::Here),
            breaker: BreakerConfig::default(),
            ledgers: LedgersConfig::for_tests(),
            sealer: Sealer::from_text("a key of the tests").unwrap(),
            webhooks_max: 16,
            egress: Egress::new(allow, Arc::clone(&clock)).unwrap(),
        };
        let (node, _) = Node::open(store, clock, config).await.unwrap();
        App::new(node, Duration::from_secs(30))
    }

    /// The same store under a server that knows nothing yet.
    async fn restarted(self) -> Self {
        let (store, clock) = (self.app.node.store.clone(), self.app.node.clock.clone());
        let app = Self::app(store, clock, Limits::default(), &self.folder).await;
        Self { router: router(Arc::clone(&app), &[]), app, ..self }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    /// With a key and further headers.
    async fn call_with(
        &self,
        call: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let (method, path) = call.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.header("authorization", format!("Bearer {ADMIN}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    /// `METHOD /path` with a JSON body, by the admin.
    async fn call(&self, call: &str, body: Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.call_with(call, &[("content-type", "application/json")], body).await
    }

    /// As `key`.
    async fn call_as(&self, key: &str, call: &str, body: Value) -> Answer {
        let bearer = format!("Bearer {key}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.call_with(call, &headers, body).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(&format!("GET {path}"), Value::Null).await
    }

    /// A topic `t` with so many partitions.
    async fn topic(&self, partitions: u32) {
        let made =
            self.call("POST /topics", json!({ "name": "t", "partitions": partitions })).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    }

    /// Publishes so many events to one partition of `t`: the numbers from 0.
    async fn fill(&self, partition: u32, count: u32) {
        let line = |n| format!("{{\"value\":{n},\"partition\":{partition}}}\n");
        let lines: String = (0..count).map(line).collect();
        let answer = self.events(lines, &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    }

    /// Publishes lines to `t`.
    async fn events(&self, lines: impl Into<Body>, headers: &[(&str, &str)]) -> Answer {
        let mut all = vec![("content-type", "application/x-ndjson")];
        all.extend(headers);
        self.call_with("POST /topics/t/events", &all, lines).await
    }

    /// A key of project `default` with these scopes.
    async fn key(&self, scopes: &[&str]) -> String {
        let made = self.call("POST /keys", json!({ "scopes": scopes })).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        made.json()["key"].as_str().unwrap().to_owned()
    }
}

/// Partition, offset and value of each record in an answer.
fn places(answer: &Answer) -> Vec<(u64, u64, Value)> {
    let json = answer.json();
    let records = json["records"].as_array().unwrap_or_else(|| panic!("{}", answer.text));
    let place = |record: &Value| {
        let number = |name: &str| record[name].as_u64().unwrap();
        (number("partition"), number("offset"), record["value"].clone())
    };
    records.iter().map(place).collect()
}
