//! Sockets: accept, limit, time out, drain.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::App;
use super::traffic::Traffic;

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
    /// How long the other end of a connection may take.
    pub timeouts: Timeouts,
    /// How long requests may take to be answered once the drain has begun.
    pub drain_timeout: Duration,
}

/// How long the other end of a connection may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For the TLS handshake, and for the first request's head.
    pub header: Duration,
    /// Between two requests, the next one's head included.
    pub idle: Duration,
    /// To take some of an answer.
    pub write: Duration,
}

/// Who is at the other end of the connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Serves until the node's drain begins, then waits for requests that are under way.
pub async fn serve(listener: TcpListener, app: Arc<App>, router: Router, config: ServerConfig) {
    let drain = app.node.drain.clone();
    let permits = Arc::new(Semaphore::new(config.connections_max));
    let (connections, _) = watch::channel(());
    let server = Server { app, router, config: config.clone() };
    loop {
        let accepted = tokio::select! {
            () = drain.begun() => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        match accepted {
            Ok((stream, peer, permit)) => {
                let (server, open) = (server.clone(), connections.subscribe());
                tokio::spawn(async move {
                    server.connection(stream, peer).await;
                    drop((permit, open));
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(config.drain_timeout, connections.closed()).await.is_err() {
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
    async fn connection(self, stream: TcpStream, peer: SocketAddr) {
        let _connected = self.app.metrics.connected();
        // An answer is one write: waiting for more only delays it.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.config.tls else {
            return self.requests(stream, peer).await;
        };
        let handshake = TlsAcceptor::from(Arc::clone(tls)).accept(stream);
        let shaken = tokio::select! {
            () = self.app.node.drain.begun() => return,
            shaken = tokio::time::timeout(self.config.timeouts.header, handshake) => shaken,
        };
        match shaken {
            Ok(Ok(stream)) => self.requests(stream, peer).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
        }
    }

    async fn requests<S>(&self, stream: S, peer: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let traffic = Traffic::new(self.config.timeouts);
        let (router, of_requests) = (self.router.clone(), Arc::clone(&traffic));
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let exchange = of_requests.begin();
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer));
            let call = router.clone().oneshot(request);
            async move { call.await.map(|response| exchange.answered(response)) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http2().max_concurrent_streams(HTTP2_STREAMS_MAX);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let drain = &self.app.node.drain;
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = drain.begun() => None,
            () = traffic.overdue() => None,
        };
        if let Some(ended) = ended {
            return told(peer, ended);
        }
        // What is under way is answered, and then the connection ends, in time or not.
        traffic.close();
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            ended = connection => told(peer, ended),
            () = traffic.overdue() => tracing::debug!(%peer, "connection was cut off"),
        }
    }
}

fn told<E: Display>(peer: SocketAddr, ended: Result<(), E>) {
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
    }
}
