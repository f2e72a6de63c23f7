//! The paths that are guarded against growing: publishing a batch, its events one by one, reading it,
//! publishing it through a plugin. `.ci/instructions` counts what each costs.
//!
//! `instructions PATH COUNT` goes COUNT times along a path, in process: requests go to the router as
//! they would come from a connection, on one thread, so that the same work takes the same
//! instructions.
#![expect(clippy::expect_used, reason = "a measurement that cannot be set up ends")]

use std::convert::Infallible;
use std::fmt::{Debug, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use stream_host::egress::{AllowList, Egress};
use stream_host::http::{App, router};
use stream_host::ledger::{LedgersConfig, Objects};
use stream_host::limit::Limits;
use stream_host::node::{Node, NodeConfig};
use stream_host::plugin::{Compiler, PluginConfig};
use stream_host::secret::Sealer;
use stream_host::stage::BreakerConfig;
use stream_storage::embedded::{EmbeddedConfig, EmbeddedStore};
use stream_storage::{Clock, Store, SystemClock};
use stream_tests::{KEY, component};
use tower::{Service, ServiceExt};

/// Events of a batch.
const BATCH: usize = 1_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().expect("publish, read or plugin");
    let count = arguments.next().and_then(|count| count.parse().ok()).expect("how often");
    let folder = tempfile::tempdir().expect("a folder for the data");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let (store, app) = open(folder.path()).await;
        Server { router: router(app, &[]) }.run(&path, count).await;
        store.close().await;
    });
}

async fn open(folder: &Path) -> (Arc<EmbeddedStore>, Arc<App>) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let embedded = EmbeddedConfig { reserve_bytes: 0, ..EmbeddedConfig::new(folder.join("data")) };
    let store = EmbeddedStore::open(embedded, Arc::clone(&clock)).expect("a store");
    let store = Arc::new(store);
    let objects = Objects::open_folder(&folder.join("ledgers")).expect("a folder");
    let config = NodeConfig {
        limits: Limits::default(),
        key_expiry: Duration::from_secs(60),
        admin_key: Some(KEY.to_owned()),
        // Under valgrind addresses are few.
        plugins: PluginConfig {
            instances_max: 4,
            threads: 2,
            ..PluginConfig::new(folder.join("code"), Compiler::Here)
        },
        breaker: BreakerConfig::default(),
        ledgers: LedgersConfig { objects, origin: None },
        sealer: Sealer::from_text("a key of the measurement").expect("a key"),
        webhooks_max: 16,
        egress: Egress::new(AllowList::default(), Arc::clone(&clock)).expect("a client"),
    };
    let of_node = Arc::clone(&store) as Arc<dyn Store>;
    let (node, _) = Node::open(of_node, clock, config).await.expect("a node");
    (store, App::new(node, Duration::from_secs(30)))
}

/// Answers requests in process.
struct Server<R> {
    router: R,
}

impl<R, B> Server<R>
where
    R: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible> + Clone,
    B: Body<Data = Bytes, Error: Debug>,
{
    async fn run(&self, path: &str, count: u32) {
        self.call("POST", "/topics", "application/json", r#"{"name":"t","partitions":8}"#.into())
            .await;
        if path == "plugin" {
            let component = component("pass-through").into();
            self.call("PUT", "/plugins/pass-through", "application/wasm", component).await;
            let binding = r#"{"bindings":[{"plugin":"pass-through"}]}"#;
            self.call("PUT", "/bindings/validate/t", "application/json", binding.into()).await;
        }
        let lines = lines();
        let first = lines.iter().position(|byte| *byte == b'\n').map(|end| lines.slice(..end));
        if path == "read" {
            self.publish(&lines).await;
        }
        for _ in 0..count {
            match path {
                "publish" | "plugin" => self.publish(&lines).await,
                "read" => self.read().await,
                "single" => self.produce(first.clone().unwrap_or_default()).await,
                _ => unreachable!("no path `{path}`"),
            }
        }
    }

    async fn publish(&self, lines: &Bytes) {
        self.call("POST", "/topics/t/events", "application/x-ndjson", lines.clone()).await;
    }

    /// As many requests as a batch has events.
    async fn produce(&self, event: Bytes) {
        for _ in 0..BATCH {
            self.call("POST", "/topics/t/produce", "application/json", event.clone()).await;
        }
    }

    async fn read(&self) {
        let mut bytes = 0;
        for partition in 0..8 {
            let path = format!("/topics/t/partitions/{partition}/records?offset=0&limit=10000");
            let answer = self.call("GET", &path, "", Bytes::new()).await;
            bytes += answer.len();
        }
        assert!(bytes > BATCH * 256, "all records are read");
    }

    async fn call(&self, method: &str, path: &str, content_type: &str, body: Bytes) -> Bytes {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/projects/default{path}"))
            .header("authorization", format!("Bearer {KEY}"))
            .header("accept", "application/x-ndjson")
            .header("content-length", body.len());
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let request = request.body(Full::new(body)).expect("a request");
        let answer = self.router.clone().oneshot(request).await;
        let (head, body) = answer.expect("an answer").into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        assert!(head.status.is_success(), "{method} {path}: {} {body:?}", head.status);
        body
    }
}

/// Orders of ten fields and 256 bytes, of 97 keys; always the same.
fn lines() -> Bytes {
    let mut lines = String::new();
    for number in 0..BATCH {
        let hash = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let note = "leave it at the door, please, or with the neighbours on the second floor";
        // Writing to a string cannot fail.
        let _ = writeln!(
            lines,
            "{{\"key\":\"key-{}\",\"value\":{{\"id\":{number},\"customer\":\"{hash:016x}\",\
             \"amount\":{}.25,\"currency\":\"EUR\",\"items\":{},\"paid\":true,\"country\":\"DE\",\
             \"channel\":\"web\",\"note\":\"{note}\",\"card\":\"{:016x}\"}}}}",
            hash % 97,
            hash % 1_000,
            hash % 7,
            hash.rotate_left(17),
        );
    }
    lines.into()
}
