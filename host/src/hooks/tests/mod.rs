//! Hooks on a store, with receivers on sockets.

mod deliver;
mod endpoints;
mod log;
mod outcomes;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use stream_storage::embedded::{EmbeddedConfig, EmbeddedStore};
use stream_storage::{Clock, ProjectName, Store, SystemClock, Timestamp, Transaction};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::sign::SigningSecret;
use super::*;
use crate::egress::{AllowList, Resolver};
use crate::name::TopicName;
use crate::pattern::Pattern;
use crate::publish::DeadLetters;
use crate::queue::QueuesParts;
use crate::state::PageRequest;

/// Nothing here takes this long.
const LONG: Duration = Duration::from_secs(20);

/// The system's clock, and more: what takes days is not waited for.
#[derive(Default)]
struct ShiftedClock(AtomicU64);

impl ShiftedClock {
    fn pass(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

impl Clock for ShiftedClock {
    fn now(&self) -> Timestamp {
        Timestamp(SystemClock.now().0 + self.0.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic() + Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// Every name has this address.
struct Names(Mutex<IpAddr>);

#[async_trait]
impl Resolver for Names {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        Ok(vec![*lock(&self.0)])
    }
}

struct Bed {
    hooks: Arc<Hooks>,
    queues: Arc<Queues>,
    catalog: Arc<Catalog>,
    store: Arc<dyn Store>,
    clock: Arc<ShiftedClock>,
    names: Arc<Names>,
    project: ProjectName,
    running: Option<(JoinHandle<()>, Drain)>,
    requests_max: usize,
    _folder: tempfile::TempDir,
}

impl Bed {
    /// A server that posts.
    async fn start() -> Self {
        let mut bed = Self::new(16).await;
        bed.run();
        bed
    }

    /// A server that does not post yet.
    async fn new(requests_max: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig { reserve_bytes: 0, ..EmbeddedConfig::new(folder.path()) };
        let clock = Arc::new(ShiftedClock::default());
        let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(config, clock.clone()).unwrap());
        let names = Arc::new(Names(Mutex::new("127.0.0.1".parse().unwrap())));
        let drain = Drain::default();
        let parts = parts(&store, &clock, &names, (drain, requests_max, KEY));
        let project = ProjectName::parse("p").unwrap();
        parts.projects.ensure(&project).await.unwrap();
        Self {
            queues: Arc::clone(&parts.queues),
            catalog: Arc::clone(&parts.catalog),
            hooks: Arc::new(Hooks::new(parts, rand::make_rng())),
            store,
            clock,
            names,
            project,
            running: None,
            requests_max,
            _folder: folder,
        }
    }

    fn run(&mut self) {
        let hooks = Arc::clone(&self.hooks);
        let drain = hooks.parts.drain.clone();
        self.running = Some((tokio::spawn(async move { hooks.run().await }), drain));
    }

    /// Ends the server, by force or by asking, and starts another on the same store.
    async fn restart(&mut self, by_force: bool, key: &str) {
        if let Some((task, drain)) = self.running.take() {
            if by_force {
                task.abort();
            }
            drain.begin();
            let _ = timeout(LONG, task).await.expect("it stops");
        }
        let drain = (Drain::default(), self.requests_max, key);
        let parts = parts(&self.store, &self.clock, &self.names, drain);
        self.queues = Arc::clone(&parts.queues);
        self.hooks = Arc::new(Hooks::new(parts, rand::make_rng()));
        self.run();
    }

    /// An endpoint that tries again soon, three times in all.
    async fn endpoint(&self, name: &str, url: &str) -> Edited {
        self.endpoint_with(name, url, |_| {}).await
    }

    async fn endpoint_with(
        &self,
        name: &str,
        url: &str,
        change: impl FnOnce(&mut NewEndpoint),
    ) -> Edited {
        let settings = EndpointSettings {
            retry_delays_ms: vec![20, 20],
            timeout_ms: 2_000,
            ..EndpointSettings::default()
        };
        let mut new = NewEndpoint {
            name: EndpointName::parse(name).unwrap(),
            url: url.to_owned(),
            events: Vec::new(),
            description: None,
            metadata: std::collections::BTreeMap::new(),
            secret: None,
            settings,
            is_disabled: false,
        };
        change(&mut new);
        self.hooks.create(&self.project, new).await.unwrap()
    }

    async fn send(&self, event_type: &str) -> Sent {
        let message = Message {
            event_type: TopicName::parse(event_type).unwrap(),
            payload: Bytes::from_static(b"{\"n\":1}"),
            endpoints: None,
        };
        self.hooks.send(&self.project, &message).await.unwrap()
    }

    /// All deliveries of an endpoint, the newest first.
    async fn deliveries(&self, name: &str) -> Vec<(DeliveryId, Delivery)> {
        let name = EndpointName::parse(name).unwrap();
        let all = (DeliveryFilter::default(), &PageRequest::default());
        self.hooks.deliveries(&self.project, &name, all.0, all.1).await.unwrap().items
    }

    /// Waits until an endpoint's deliveries stand as wanted.
    async fn until(&self, name: &str, wanted: &[DeliveryStatus]) -> Vec<(DeliveryId, Delivery)> {
        let looks = async {
            loop {
                let found = self.deliveries(name).await;
                let mut found_status: Vec<_> = found.iter().map(|(_, one)| one.status).collect();
                let mut wanted = wanted.to_vec();
                found_status.sort_by_key(|status| status.as_str());
                wanted.sort_by_key(|status| status.as_str());
                if found_status == wanted {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match timeout(LONG, looks).await {
            Ok(found) => found,
            Err(_) => panic!("{wanted:?} never came: {:#?}", self.deliveries(name).await),
        }
    }

    async fn view(&self, name: &str, id: DeliveryId) -> DeliveryView {
        let name = EndpointName::parse(name).unwrap();
        self.hooks.delivery(&self.project, &name, &id.to_string()).await.unwrap()
    }

    async fn get(&self, name: &str) -> Endpoint {
        self.hooks.get(&self.project, &EndpointName::parse(name).unwrap()).await.unwrap()
    }

    async fn stats(&self, name: &str) -> EndpointStats {
        let endpoint = self.get(name).await;
        self.hooks.stats_of(&self.project, &endpoint).await.unwrap()
    }

    async fn enable(&self, name: &str, enabled: bool) {
        let patch = EndpointPatch { enabled: Some(enabled), ..EndpointPatch::default() };
        let name = EndpointName::parse(name).unwrap();
        self.hooks.patch(&self.project, &name, patch).await.unwrap();
    }

    /// The values of the records of `_hooks`.
    async fn news(&self) -> Vec<Value> {
        let name = TopicName::parse(HOOKS).unwrap();
        let Ok(topic) = self.catalog.get(&self.project, &name).await else { return Vec::new() };
        let request = stream_storage::ReadRequest {
            topic: topic.id,
            partition: stream_storage::Partition(0),
            start: stream_storage::ReadStart::Offset(0),
            records_max: 100,
            bytes_max: 1 << 20,
        };
        let records = self.store.read(request).await.unwrap();
        let values = records.segments.iter().flat_map(|segment| {
            let values = segment.records().map(|record| record.unwrap().1.value.to_vec());
            values.collect::<Vec<_>>()
        });
        values.map(|value| serde_json::from_slice(&value).unwrap()).collect()
    }
}

const KEY: &str = "the key of the tests of hooks, long enough";

fn parts(
    store: &Arc<dyn Store>,
    clock: &Arc<ShiftedClock>,
    names: &Arc<Names>,
    (drain, requests_max, key): (Drain, usize, &str),
) -> HooksParts {
    let clock: Arc<dyn Clock> = clock.clone();
    let projects = Arc::new(Projects::new(store.clone(), clock.clone()));
    let catalog = Arc::new(Catalog::new(store.clone(), clock.clone(), 16));
    let queues = QueuesParts {
        store: store.clone(),
        clock: clock.clone(),
        projects: projects.clone(),
        dead_letters: Arc::new(DeadLetters::new(catalog.clone(), Arc::default())),
        drain: drain.clone(),
    };
    let allow = AllowList::parse("127.0.0.1").unwrap();
    let egress = Egress::with_resolver(allow, clock.clone(), names.clone()).unwrap();
    HooksParts {
        store: store.clone(),
        clock,
        catalog,
        projects,
        queues: Arc::new(Queues::new(queues, rand::make_rng())),
        sealer: Arc::new(Sealer::from_text(key).unwrap()),
        egress: Arc::new(egress),
        drain,
        requests_max,
    }
}

/// What a receiver got.
#[derive(Debug, Clone)]
struct Got {
    id: String,
    timestamp: u64,
    signature: String,
    body: Vec<u8>,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn is_signed_by(&self, secret: &SigningSecret) -> bool {
        let expected = secret.sign(&self.id, self.timestamp, &self.body);
        self.signature.split(' ').any(|signature| signature == expected)
    }
}

/// Answers with what it was told, then with 200.
struct Receiver {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    answers: Arc<Mutex<VecDeque<String>>>,
    task: JoinHandle<()>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (got, answers) = (Arc::default(), Arc::default());
        let (seen, told) = (Arc::clone(&got), Arc::clone(&answers));
        let task = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(socket, Arc::clone(&seen), Arc::clone(&told)));
            }
        });
        Self { address, got, answers, task }
    }

    /// A receiver that first answers these: a status, and headers behind it.
    async fn answering(answers: &[&str]) -> Self {
        let receiver = Self::start().await;
        receiver.answer(answers);
        receiver
    }

    fn answer(&self, answers: &[&str]) {
        lock(&self.answers).extend(answers.iter().map(|answer| (*answer).to_owned()));
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    fn got(&self) -> Vec<Got> {
        lock(&self.got).clone()
    }

    async fn until(&self, count: usize) -> Vec<Got> {
        let looks = async {
            while lock(&self.got).len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, looks).await.unwrap_or_else(|_| panic!("only {:?} came", self.got()));
        self.got()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut socket: TcpStream,
    seen: Arc<Mutex<Vec<Got>>>,
    told: Arc<Mutex<VecDeque<String>>>,
) {
    let mut bytes = Vec::new();
    let (head, length) = loop {
        let Ok(1..) = socket.read_buf(&mut bytes).await else { return };
        let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let length: usize = header(&head, "content-length").parse().unwrap();
        if bytes.len() >= end + 4 + length {
            break (head, length);
        }
    };
    let got = Got {
        id: header(&head, "webhook-id"),
        timestamp: header(&head, "webhook-timestamp").parse().unwrap(),
        signature: header(&head, "webhook-signature"),
        body: bytes[bytes.len() - length..].to_vec(),
    };
    assert_eq!(header(&head, "content-type"), "application/json");
    lock(&seen).push(got);
    let answer = lock(&told).pop_front().unwrap_or_else(|| "200".to_owned());
    let (status, headers) = answer.split_once(' ').unwrap_or((&answer, "x: y"));
    let answer = format!(
        "HTTP/1.1 {status} X\r\n{headers}\r\nconnection: close\r\ncontent-length: 6\r\n\r\nanswer"
    );
    let _ = socket.write_all(answer.as_bytes()).await;
}

fn header(head: &str, name: &str) -> String {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let mut values = lines.filter(|(other, _)| other.eq_ignore_ascii_case(name));
    values.next().map(|(_, value)| value.to_owned()).unwrap_or_else(|| panic!("{name}: {head}"))
}

fn event(event_type: &str, id: &str) -> HookEvent {
    HookEvent {
        event_type: event_type.to_owned(),
        id: id.to_owned(),
        key: None,
        payload: Bytes::from_static(b"1"),
        timestamp: Timestamp(0),
    }
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| Pattern::parse(text).unwrap()).collect()
}

fn transaction(bed: &Bed) -> Transaction {
    Transaction::new(bed.project.clone())
}
