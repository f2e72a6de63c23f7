//! Sockets: accept, limit, time out, drain.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::App;

/// How long to wait after the system refused a connection, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Requests that one HTTP/2 connection may have open.
const HTTP2_STREAMS_MAX: u32 = 250;

/// How connections are served.
#[derive(Clone)]
pub struct ServerConfig {
    /// HTTPS if given.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Connections open at once; more wait in the system's queue.
    pub connections_max: usize,
    /// How long a client may take for the TLS handshake, and for a request's head.
    pub header_timeout: Duration,
    /// How long a connection may be idle between two requests, the next one's head included.
    pub idle_timeout: Duration,
    /// How long requests may take to be answered once the drain has begun.
    pub drain_timeout: Duration,
}

/// Who is at the other end of the connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Serves until the node's drain begins, then waits for requests that are under way.
pub async fn serve(listener: TcpListener, app: Arc<App>, router: Router, config: ServerConfig) {
    let drain = app.node.drain.clone();
    let permits = Arc::new(Semaphore::new(config.connections_max));
    let connections = GracefulShutdown::new();
    let server = Server { app, router, config: config.clone() };
    loop {
        let accepted = tokio::select! {
            () = drain.begun() => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        match accepted {
            Ok((stream, peer, permit)) => {
                let (server, watcher) = (server.clone(), connections.watcher());
                tokio::spawn(async move {
                    server.connection(stream, peer, watcher).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(config.drain_timeout, connections.shutdown()).await.is_err() {
        tracing::warn!("some requests were not answered in time and are cut off");
    }
}

type Accepted = (TcpStream, SocketAddr, Option<tokio::sync::OwnedSemaphorePermit>);

async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> io::Result<Accepted> {
    // The semaphore is never closed.
    let permit = Arc::clone(permits).acquire_owned().await.ok();
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, permit))
}

#[derive(Clone)]
struct Server {
    app: Arc<App>,
    router: Router,
    config: ServerConfig,
}

impl Server {
    async fn connection(self, stream: TcpStream, peer: SocketAddr, watcher: Watcher) {
        let _connected = self.app.metrics.connected();
        // An answer is one write: waiting for more only delays it.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.config.tls else {
            return self.requests(stream, peer, watcher).await;
        };
        let handshake = TlsAcceptor::from(Arc::clone(tls)).accept(stream);
        match tokio::time::timeout(self.config.header_timeout, handshake).await {
            Ok(Ok(stream)) => self.requests(stream, peer, watcher).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
        }
    }

    async fn requests<S>(&self, stream: S, peer: SocketAddr, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let first = Arc::new(Notify::new());
        let (router, begun) = (self.router.clone(), Arc::clone(&first));
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            begun.notify_one();
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer));
            router.clone().oneshot(request)
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(self.config.idle_timeout);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(HTTP2_STREAMS_MAX);
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        // hyper's own timeout begins once it knows which HTTP is spoken, and is the one of idleness.
        let silent = async {
            if tokio::time::timeout(self.config.header_timeout, first.notified()).await.is_ok() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            ended = watcher.watch(connection) => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "connection ended");
                }
            }
            () = silent => tracing::debug!(%peer, "connection brought no request in time"),
        }
    }
}
