//! `stream bench connectors`: what publishing keeps of its speed while connectors work behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::Told;
use super::figures::{Measured, Shares};
use super::publish::{LoadArgs, PublishBench};
use super::site::{Place, Site};
use crate::cli::output::CliError;

/// Publish with and without connectors behind, in turns, and compare
///
/// Each round publishes to two servers, one with connectors at work on more than they can take, and
/// one without; the other stands still meanwhile.
#[derive(Debug, Clone, Args)]
pub(super) struct ConnectorsBench {
    #[command(flatten)]
    pub(super) load: LoadArgs,

    /// What is behind it
    #[arg(
        long,
        value_name = "KIND",
        value_delimiter = ',',
        default_value = "worker,hooks,ledger",
        value_parser = ["worker", "hooks", "ledger"]
    )]
    pub(super) kinds: Vec<String>,

    /// Pairs of runs, of which the median counts
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(super) rounds: usize,
}

/// What came of it.
pub(super) struct Behind {
    pub(super) shares: Shares,
    /// Of each kind: events taken, and events behind.
    pub(super) kinds: Vec<(String, u64, u64)>,
    pub(super) webhooks: u64,
}

impl ConnectorsBench {
    pub(super) async fn run(self, place: &Place) -> Result<Told, CliError> {
        self.load.check()?;
        place.own_only("bench connectors")?;
        if self.rounds == 0 {
            return Err(CliError::Usage("`--rounds` is at least 1".to_owned()));
        }
        let behind = self.measure(place).await?;
        Ok(self.told(&behind))
    }

    fn told(&self, behind: &Behind) -> Told {
        let Behind { shares, kinds, webhooks } = behind;
        let mut text = format!("with {} behind: {}", self.kinds.join(", "), shares.human());
        for (kind, taken, lag) in kinds {
            text.push_str(&format!("\n  {kind}: {taken} taken meanwhile, {lag} behind"));
        }
        let of_kind = |(kind, taken, lag): &(String, u64, u64)| json!({ "kind": kind, "taken": taken, "lag": lag });
        let figures = json!({
            "connectors": {
                "shares": shares.json(),
                "kinds": kinds.iter().map(of_kind).collect::<Vec<Value>>(),
                "webhooks": webhooks,
            }
        });
        Told { figures, text }
    }

    pub(super) async fn measure(&self, place: &Place) -> Result<Behind, CliError> {
        let receiver = Receiver::start().await?;
        // A folder that is given is for one server: both are to write to the same disk.
        let open = |name: &str| Place {
            data: place.data.as_ref().map(|data| data.join(name)),
            ..place.clone()
        };
        let allow = ["--egress-allow", "127.0.0.1"];
        let sites = [open("alone").open(&allow).await?, open("behind").open(&allow).await?];
        let mut topics = Vec::new();
        for site in &sites {
            topics.push(site.topics("busy", self.load.topics, self.load.partitions).await?);
        }
        let [_, site] = &sites;
        self.connect(site, &receiver).await?;
        let publish = PublishBench {
            load: self.load.clone(),
            ack: "durable".to_owned(),
            single: false,
            plugin: None,
            schema: None,
        };
        let (mut alone, mut with) = (Vec::new(), Vec::new());
        for round in 0..self.rounds {
            for step in 0..2 {
                // In turns, and each first in turn: a shared machine is not as fast one minute as
                // the next.
                let at = (round + step) % 2;
                let (Some(site), Some(topics)) = (sites.get(at), topics.get(at)) else { continue };
                for (place, other) in sites.iter().enumerate() {
                    let server = other.server.as_ref();
                    let signal = if place == at { Signal::CONT } else { Signal::STOP };
                    server.map_or(Ok(()), |server| server.signal(signal))?;
                }
                let what = if at == 0 { "alone" } else { "with connectors" };
                let measured: Measured = publish.measure(site, topics, what).await?;
                let rates = if at == 0 { &mut alone } else { &mut with };
                rates.push(measured.events_per_second());
            }
        }
        for site in &sites {
            site.server.as_ref().map_or(Ok(()), |server| server.signal(Signal::CONT))?;
        }
        let mut kinds = Vec::new();
        for kind in &self.kinds {
            let request = site.client.request(Method::GET, &["connectors", kind]);
            let told = site.client.json(request).await?;
            let number = |name: &str| told.get(name).and_then(Value::as_u64).unwrap_or_default();
            kinds.push((kind.clone(), number("taken"), number("lag")));
        }
        let webhooks = receiver.count();
        for site in sites {
            site.close().await?;
        }
        Ok(Behind { shares: Shares::new(alone, with), kinds, webhooks })
    }

    /// Has connectors take all events.
    async fn connect(&self, site: &Site, receiver: &Receiver) -> Result<(), CliError> {
        if self.kinds.iter().any(|kind| kind == "hooks") {
            let endpoint = json!({ "name": "there", "url": receiver.url });
            let request = site.client.request(Method::POST, &["webhooks", "endpoints"]);
            site.client.json(request.json(&endpoint)).await?;
        }
        for kind in &self.kinds {
            let request = site.client.request(Method::PUT, &["connectors", kind]);
            let body = json!({ "kind": kind, "match": "**" });
            site.client.json(request.json(&body)).await?;
        }
        Ok(())
    }
}

/// A service that takes every webhook. It ends when it is dropped.
struct Receiver {
    url: String,
    count: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Receiver {
    async fn start() -> Result<Self, CliError> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let count = Arc::new(AtomicU64::new(0));
        let of_task = Arc::clone(&count);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let count = Arc::clone(&of_task);
                let service = service_fn(move |request: Request<Incoming>| {
                    let count = Arc::clone(&count);
                    async move {
                        request.into_body().collect().await?;
                        count.fetch_add(1, Ordering::Relaxed);
                        Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::new())))
                    }
                });
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                // Who hangs up has got what it gets.
                tokio::spawn(async move { drop(connection.await) });
            }
        });
        Ok(Self { url, count, task })
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}
