//! `stream serve`: opens the store, serves until told to stop, and closes.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use stream_storage::embedded::{EmbeddedStore, OpenError};
use stream_storage::{Clock, Store, SystemClock};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tracing_subscriber::EnvFilter;

use crate::config::{Config, ConfigError, LogFormat, Settings};
use crate::drain::Drain;
use crate::egress::{Egress, EgressError};
use crate::http::{self, App, ServerConfig, TlsError};
use crate::ledger::{LedgersConfig, ObjectsError};
use crate::node::{Node, NodeConfig, NodeError};
use crate::secret::SecretKeyError;

/// How often components that no plugin has are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Run the server
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// A TOML file with these settings as keys (`tls_cert = "…"`); flags and variables take
    /// precedence over it
    #[arg(long, env = "STREAM_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    #[command(flatten)]
    settings: Settings,
}

/// Why the server did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log filter is not one.
    #[error("invalid `log`: {0}")]
    Log(#[from] tracing_subscriber::filter::ParseError),
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store does not hold what a server needs.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The ledgers' store cannot be used.
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Secrets cannot be sealed.
    #[error(transparent)]
    SecretKey(#[from] SecretKeyError),
    /// Requests cannot be sent.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// The address cannot be had.
    #[error("cannot listen on `{listen}`: {source}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What is wrong.
        source: io::Error,
    },
    /// Signals or standard output cannot be used.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Serve {
    /// Serves until SIGTERM or SIGINT, then until requests under way are answered.
    ///
    /// # Errors
    ///
    /// See [`ServeError`]: nothing was served.
    pub async fn run(self) -> Result<(), ServeError> {
        let file = self.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
        let config = self.settings.or(file).config()?;
        init_log(&config)?;
        let tls = config.tls.as_ref().map(http::load_tls).transpose()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = open_store(&config, Arc::clone(&clock)).await?;
        let node_config = node_config(&config, Arc::clone(&clock))?;
        let (node, made_key) = Node::open(Arc::clone(&store), clock, node_config).await?;
        let drain = node.drain.clone();
        let app = App::new(node, config.body_timeout);
        let listen = config.listen;
        let listener = TcpListener::bind(listen)
            .await
            .map_err(|source| ServeError::Listen { listen, source })?;
        drain_on_signal(drain.clone())?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        announce(scheme, listener.local_addr()?, made_key)?;
        let tasks = background(&app, config.retention_interval);
        let router = http::router(Arc::clone(&app), &config.cors_origins);
        let server = ServerConfig {
            tls,
            connections_max: config.limits.connections_max,
            timeouts: config.timeouts,
            drain_timeout: config.drain_timeout,
        };
        http::serve(listener, app, router, server).await;
        // A panic in it has been printed; the store is closed all the same.
        for task in tasks {
            let _ = task.await;
        }
        store.close().await;
        tracing::info!("stopped");
        Ok(())
    }
}

fn node_config(config: &Config, clock: Arc<dyn Clock>) -> Result<NodeConfig, ServeError> {
    Ok(NodeConfig {
        limits: config.limits,
        key_expiry: config.idempotency_expiry,
        admin_key: config.api_key.clone(),
        plugins: config.plugin_config()?,
        breaker: config.breaker(),
        sealer: config.sealer()?,
        egress: Egress::new(config.egress_allow.clone(), clock)?,
        ledgers: LedgersConfig {
            objects: config.ledger_objects()?,
            origin: config.ledger_origin.clone(),
        },
        webhooks_max: config.webhooks_max,
    })
}

/// What goes on beside requests, until the drain begins.
fn background(app: &Arc<App>, retention_interval: Duration) -> Vec<JoinHandle<()>> {
    let drain = app.node().drain.clone();
    let hooks = Arc::clone(&app.node().hooks);
    let queues = Arc::clone(&app.node().queues);
    let connectors = Arc::clone(&app.node().connectors);
    let ledgers = Arc::clone(&app.node().ledgers).run(drain.clone());
    let retention = {
        let (app, drain) = (Arc::clone(app), drain.clone());
        async move { app.node().retention.run(retention_interval, drain).await }
    };
    let groups = {
        let app = Arc::clone(app);
        async move { app.node().groups.run(drain).await }
    };
    let sweep = {
        let app = Arc::clone(app);
        async move { app.node().sweep_plugins(SWEEP_INTERVAL).await }
    };
    vec![
        tokio::spawn(retention),
        tokio::spawn(groups),
        tokio::spawn(async move { queues.run().await }),
        tokio::spawn(async move { connectors.run().await }),
        tokio::spawn(async move { hooks.run().await }),
        tokio::spawn(ledgers),
        tokio::spawn(sweep),
    ]
}

fn init_log(config: &Config) -> Result<(), ServeError> {
    let filter = EnvFilter::try_new(&config.log)?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    // It fails if a log is set already: then that one is meant.
    let _ = match config.log_format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    Ok(())
}

async fn open_store(config: &Config, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, ServeError> {
    let embedded = config.embedded();
    let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(embedded, clock)).await;
    let store = opened.map_err(io::Error::other)??;
    Ok(Arc::new(store))
}

/// Begins the drain at the first SIGTERM or SIGINT.
fn drain_on_signal(drain: Drain) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: requests under way are answered first");
        drain.begin();
    });
    Ok(())
}

/// Says where the server listens, on standard output for scripts, and shows a key that was made: it
/// cannot be shown again.
fn announce(scheme: &str, address: SocketAddr, made_key: Option<String>) -> io::Result<()> {
    if let Some(key) = made_key {
        let mut err = io::stderr().lock();
        writeln!(err, "\n  This is the first start. The admin key, shown only now:\n")?;
        writeln!(err, "      {key}\n")?;
        writeln!(err, "  It opens all projects. Keep it: `export STREAM_API_KEY={key}`\n")?;
    }
    tracing::info!("listening on {scheme}://{address}");
    let mut out = io::stdout().lock();
    writeln!(out, "listening on {scheme}://{address}")?;
    out.flush()
}
