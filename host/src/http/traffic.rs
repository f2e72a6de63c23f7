//! What one connection is doing, and by when it has to do something else.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::server::Timeouts;
use crate::lock::lock;

/// How long a connection that is told to end may take, if nothing is under way on it.
const GRACE: Duration = Duration::from_secs(1);

/// The requests and answers of one connection.
#[derive(Debug)]
pub(super) struct Traffic {
    timeouts: Timeouts,
    state: Mutex<State>,
    /// The deadline may have come nearer.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// Whether there was a request.
    has_begun: bool,
    /// Requests that are not answered yet.
    open: usize,
    /// Answers of which something is not written yet.
    unsent: usize,
    /// When one of these began or ended, or some of an answer was written.
    moved: Instant,
    /// When the connection was told to end.
    closing: Option<Instant>,
    /// When the deadline is looked at again. It may have moved away by then: a request and its answer
    /// do not set the timer anew.
    looked_at: Option<Instant>,
}

impl State {
    /// When the connection is to end unless something moves; never while a request is open, which
    /// has timeouts of its own.
    fn deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        if self.unsent > 0 {
            Some(self.moved + timeouts.write)
        } else if self.open > 0 {
            None
        } else if let Some(closing) = self.closing {
            Some(closing.max(self.moved) + GRACE)
        } else if self.has_begun {
            Some(self.moved + timeouts.idle)
        } else {
            Some(self.moved + timeouts.header)
        }
    }
}

impl Traffic {
    pub(super) fn new(timeouts: Timeouts) -> Arc<Self> {
        let state = State {
            has_begun: false,
            open: 0,
            unsent: 0,
            moved: Instant::now(),
            closing: None,
            looked_at: None,
        };
        Arc::new(Self { timeouts, state: Mutex::new(state), changed: Notify::new() })
    }

    /// Counts a request until it is answered and the answer is written.
    pub(super) fn begin(self: &Arc<Self>) -> Exchange {
        self.update(|state| {
            state.has_begun = true;
            state.open += 1;
        });
        Exchange { traffic: Arc::clone(self), is_answered: false }
    }

    /// The connection was told to end.
    pub(super) fn close(&self) {
        lock(&self.state).closing = Some(Instant::now());
    }

    /// Returns when the connection has overstayed. Cancel safe.
    pub(super) async fn overdue(&self) {
        loop {
            let deadline = {
                let mut state = lock(&self.state);
                state.looked_at = state.deadline(&self.timeouts);
                state.looked_at
            };
            let passed = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = passed => {
                    let now_due = lock(&self.state).deadline(&self.timeouts);
                    if now_due.is_some() && now_due <= deadline {
                        return;
                    }
                }
                () = self.changed.notified() => {}
            }
        }
    }

    /// Some of an answer was written.
    fn wrote(&self) {
        let mut state = lock(&self.state);
        if state.unsent > 0 {
            state.moved = Instant::now();
        }
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        change(&mut state);
        state.moved = Instant::now();
        let deadline = state.deadline(&self.timeouts);
        let looked_at = state.looked_at;
        if deadline.is_some_and(|due| looked_at.is_none_or(|looked_at| due < looked_at)) {
            self.changed.notify_one();
        }
    }
}

/// A request and its answer.
#[derive(Debug)]
pub(super) struct Exchange {
    traffic: Arc<Traffic>,
    is_answered: bool,
}

impl Exchange {
    /// The request is answered: what counts from here on is that the answer is taken.
    pub(super) fn answered(mut self, response: Response) -> Response {
        self.is_answered = true;
        self.traffic.update(|state| {
            state.open -= 1;
            state.unsent += 1;
        });
        let exchange = Arc::new(self);
        response.map(|body| Body::new(Answering { body, exchange }))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let is_answered = self.is_answered;
        self.traffic.update(|state| {
            let counter = if is_answered { &mut state.unsent } else { &mut state.open };
            *counter -= 1;
        });
    }
}

/// The body of an answer; all its bytes hold on to their exchange.
struct Answering {
    body: Body,
    exchange: Arc<Exchange>,
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let exchange = Arc::clone(&self.exchange);
        Pin::new(&mut self.body).poll_frame(context).map_ok(|frame| {
            frame.map_data(|bytes| Bytes::from_owner(Unsent { bytes, _exchange: exchange }))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

struct Unsent {
    bytes: Bytes,
    _exchange: Arc<Exchange>,
}

impl AsRef<[u8]> for Unsent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A stream whose writes are told to its traffic.
pub(super) struct Watched<S> {
    pub(super) stream: S,
    pub(super) traffic: Arc<Traffic>,
}

impl<S> Watched<S> {
    fn told(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(_))) {
            self.traffic.wrote();
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.told(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.told(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_request_may_outlast_the_idle_timeout_and_its_connection_ends_after_it() {
        let timeouts = Timeouts { header: SECOND, idle: SECOND, write: SECOND };
        let traffic = Traffic::new(timeouts);
        let mut overdue = std::pin::pin!(traffic.overdue());
        assert!(futures_util::poll!(&mut overdue).is_pending());
        let exchange = traffic.begin();
        assert!(tokio::time::timeout(10 * SECOND, &mut overdue).await.is_err());
        drop(exchange);
        let ended = Instant::now();
        overdue.await;
        assert!(ended.elapsed() >= SECOND);
    }
}
