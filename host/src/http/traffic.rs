//! What one connection is doing, and by when it has to do something else.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use bytes::Buf;
use hyper::body::{Frame, SizeHint};
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
    /// Turns that are ours.
    open: usize,
    /// Turns that are the client's.
    unsent: usize,
    /// When one of these began or ended, or some of an answer was written. What else is written,
    /// such as HTTP/2's answer to a ping, is no reason to wait for longer.
    moved: Instant,
    /// When the connection was told to end.
    closing: Option<Instant>,
    /// When the deadline is looked at again. It may have moved away by then: a request and its answer
    /// do not set the timer anew.
    looked_at: Option<Instant>,
}

/// Who has to do something next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// We: a request is not answered yet, or the next part of its answer is not there yet.
    Ours,
    /// The client: there is some of an answer to be taken.
    Theirs,
}

impl State {
    fn counter(&mut self, turn: Turn) -> &mut usize {
        match turn {
            Turn::Ours => &mut self.open,
            Turn::Theirs => &mut self.unsent,
        }
    }

    /// When the connection is to end unless something moves; never while all turns are ours: a
    /// request has timeouts of its own, and a stream of events may be quiet for any time.
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
        self.count(Turn::Ours)
    }

    fn count(self: &Arc<Self>, turn: Turn) -> Exchange {
        self.update(|state| {
            state.has_begun = true;
            *state.counter(turn) += 1;
        });
        Exchange { traffic: Arc::clone(self), turn }
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
        lock(&self.state).moved = Instant::now();
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

/// A turn in a request and its answer; it counts until it is dropped. A part of an answer may still
/// be the client's to take while the next one is ours to find: these are two turns.
#[derive(Debug)]
pub(super) struct Exchange {
    traffic: Arc<Traffic>,
    turn: Turn,
}

impl Exchange {
    /// The request is answered: what counts from here on is that the answer is taken.
    pub(super) fn answered(mut self, response: Response) -> Response<Answering> {
        self.turn = Turn::Theirs;
        self.traffic.update(|state| {
            state.open -= 1;
            state.unsent += 1;
        });
        let exchange = Arc::new(self);
        response.map(|body| Answering { body, exchange })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let turn = self.turn;
        self.traffic.update(|state| *state.counter(turn) -= 1);
    }
}

/// The body of an answer. It is not asked for more than the client takes: it is the client's turn
/// until the body was asked and had nothing.
pub(super) struct Answering {
    body: Body,
    exchange: Arc<Exchange>,
}

impl Answering {
    /// What counts for this turn.
    fn turned(&mut self, turn: Turn) -> Arc<Exchange> {
        if self.exchange.turn != turn {
            // This one counts before the other one no longer does: the connection is not idle.
            self.exchange = Arc::new(self.exchange.traffic.count(turn));
        }
        Arc::clone(&self.exchange)
    }
}

impl HttpBody for Answering {
    type Data = Unsent;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Unsent>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let turn = if polled.is_ready() { Turn::Theirs } else { Turn::Ours };
        let exchange = self.turned(turn);
        polled.map_ok(|frame| frame.map_data(|bytes| Unsent { bytes, exchange }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes of an answer. They hold on to their exchange until they are written, and tell of each part
/// that is.
#[derive(Debug)]
pub(super) struct Unsent {
    bytes: Bytes,
    exchange: Arc<Exchange>,
}

impl Buf for Unsent {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.exchange.traffic.wrote();
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{poll, stream};
    use http_body_util::BodyExt;
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn traffic() -> Arc<Traffic> {
        Traffic::new(Timeouts { header: SECOND, idle: SECOND, write: SECOND })
    }

    /// An answer whose parts are sent to it.
    fn stream_of(traffic: &Arc<Traffic>) -> (mpsc::Sender<Result<Bytes, Infallible>>, Answering) {
        let (sender, mut parts) = mpsc::channel(1);
        let body = Body::from_stream(stream::poll_fn(move |context| parts.poll_recv(context)));
        (sender, traffic.begin().answered(Response::new(body)).into_body())
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_may_outlast_the_idle_timeout_and_its_connection_ends_after_it() {
        let traffic = traffic();
        let mut overdue = std::pin::pin!(traffic.overdue());
        assert!(poll!(&mut overdue).is_pending());
        let exchange = traffic.begin();
        assert!(timeout(10 * SECOND, &mut overdue).await.is_err());
        drop(exchange);
        let ended = Instant::now();
        overdue.await;
        assert!(ended.elapsed() >= SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_be_quiet_for_longer_than_it_may_wait_to_be_taken() {
        let traffic = traffic();
        let mut overdue = std::pin::pin!(traffic.overdue());
        let (sender, mut answer) = stream_of(&traffic);
        for _ in 0..2 {
            assert!(poll!(answer.frame()).is_pending());
            assert!(timeout(10 * SECOND, &mut overdue).await.is_err());
            sender.send(Ok(Bytes::from_static(b"taken"))).await.unwrap();
            drop(answer.frame().await.unwrap().unwrap());
        }
        sender.send(Ok(Bytes::from_static(b"not taken"))).await.unwrap();
        let _unsent = answer.frame().await.unwrap().unwrap();
        // That there is nothing behind it does not change whose turn it is.
        assert!(poll!(answer.frame()).is_pending());
        let sent = Instant::now();
        overdue.await;
        assert!((SECOND..2 * SECOND).contains(&sent.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_asks_for_is_not_taken() {
        let traffic = traffic();
        let (_sender, _answer) = stream_of(&traffic);
        let answered = Instant::now();
        traffic.overdue().await;
        assert!((SECOND..2 * SECOND).contains(&answered.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_an_answer_slowly_is_waited_for_until_it_stops() {
        let traffic = traffic();
        let mut overdue = std::pin::pin!(traffic.overdue());
        let (sender, mut answer) = stream_of(&traffic);
        sender.send(Ok(Bytes::from_static(b"slow"))).await.unwrap();
        let mut unsent = answer.frame().await.unwrap().unwrap().into_data().unwrap();
        for _ in 0..3 {
            assert!(timeout(3 * SECOND / 4, &mut overdue).await.is_err());
            unsent.advance(1);
        }
        let stopped = Instant::now();
        overdue.await;
        assert!((SECOND..2 * SECOND).contains(&stopped.elapsed()));
    }
}
