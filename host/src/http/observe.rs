//! What happens around every call: its id, its line in the log, its place in the metrics; and a
//! panic becomes an answer.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::HeaderName;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::App;
use super::error::{ApiError, Inside};

/// Names a request in answers and logs.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id that is taken over from a client, in bytes.
const ID_BYTES_MAX: usize = 128;

/// Whether the client is still there, for calls that run to their end all the same: one that waits
/// has no reason to when nobody does.
#[derive(Debug, Clone)]
pub(crate) struct Presence(Arc<Departure>);

/// Whether the client is gone, and who waits for that.
#[derive(Debug, Default)]
struct Departure {
    is_over: AtomicBool,
    over: Notify,
}

impl Presence {
    /// Returns when the client is gone. Cancel safe.
    pub(crate) async fn ended(&self) {
        // It waits from here on: what is over afterwards is not missed.
        let over = self.0.over.notified();
        if !self.has_ended() {
            over.await;
        }
    }

    /// Whether the client is gone.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.is_over.load(Ordering::Acquire)
    }
}

/// The client, who is there until this is dropped.
struct Here(Arc<Departure>);

impl Drop for Here {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Release);
        self.0.over.notify_waiters();
    }
}

/// A call that changes something: it runs to its end, also when the client goes away meanwhile, for
/// what is in memory has to follow what is stored. Only then it becomes a task of its own.
struct ToItsEnd {
    /// `None` once it has ended.
    call: Option<BoxFuture<'static, Response>>,
    /// Dropped when the client is gone.
    here: Option<Here>,
}

impl Future for ToItsEnd {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(call) = &mut self.call else { return Poll::Pending };
        let polled = call.as_mut().poll(context);
        if polled.is_ready() {
            self.call = None;
        }
        polled
    }
}

impl Drop for ToItsEnd {
    fn drop(&mut self) {
        drop(self.here.take());
        // Without a runtime nothing runs any more.
        if let (Some(call), Ok(runtime)) = (self.call.take(), Handle::try_current()) {
            runtime.spawn(call);
        }
    }
}

pub(crate) async fn observe(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    if request.method().is_safe() {
        return answer(app, request, next).await;
    }
    let departure = Arc::new(Departure::default());
    request.extensions_mut().insert(Presence(Arc::clone(&departure)));
    let call = answer(app, request, next);
    ToItsEnd { call: Some(call.boxed()), here: Some(Here(departure)) }.await
}

/// Answers a request and notes how: also that of a client who did not wait for it.
async fn answer(app: Arc<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = answered.unwrap_or_else(|_| {
        // The panic's own message has been printed by the panic hook.
        ApiError::Internal { inside: "the call panicked".to_owned() }.into_response()
    });
    let route = matched.as_ref().map_or("unmatched", MatchedPath::as_str);
    // `/v1` is the same API.
    let route = route.strip_prefix("/v1").unwrap_or(route);
    let (status, took) = (response.status(), started.elapsed());
    app.metrics.answered(route, &method, status, took);
    let request_id = id.to_str().unwrap_or_default();
    if let Some(Inside(inside)) = response.extensions().get::<Inside>() {
        tracing::error!(request_id, %method, route, status = status.as_u16(), inside, "failed");
    } else {
        tracing::debug!(request_id, %method, route, status = status.as_u16(), ?took, "answered");
    }
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// The client's own id, if it is 1–128 visible ASCII characters, or a new one.
#[expect(clippy::expect_used, reason = "hexadecimal digits are visible ASCII")]
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let is_valid = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        (1..=ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    };
    headers.get(REQUEST_ID).filter(is_valid).cloned().unwrap_or_else(|| {
        let mut id = *b"req_0000000000000000";
        let mut rest = rand::random::<u64>();
        for byte in id.iter_mut().rev().take(16) {
            let digit = (rest % 16) as u8;
            *byte = if digit < 10 { b'0' + digit } else { b'a' - 10 + digit };
            rest /= 16;
        }
        HeaderValue::from_bytes(&id).expect("hexadecimal digits make a header value")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_whose_client_is_gone_runs_to_its_end() {
        let departure = Arc::new(Departure::default());
        let presence = Presence(Arc::clone(&departure));
        let (ended, end) = tokio::sync::oneshot::channel();
        let (go_on, wait) = tokio::sync::oneshot::channel::<()>();
        let call = async move {
            presence.ended().await;
            wait.await.unwrap();
            ended.send(()).unwrap();
            Response::default()
        };
        let mut call = ToItsEnd { call: Some(call.boxed()), here: Some(Here(departure)) };
        assert!(futures_util::poll!(&mut call).is_pending());
        drop(call);
        go_on.send(()).unwrap();
        end.await.unwrap();
    }

    #[test]
    fn a_clients_id_is_taken_over_if_it_is_short_and_visible() {
        let longest = "i".repeat(128);
        let too_long = "i".repeat(129);
        for (id, is_valid) in
            [("a", true), (longest.as_str(), true), ("", false), ("a b", false), (&too_long, false)]
        {
            let value = HeaderValue::from_str(id).unwrap();
            let headers = HeaderMap::from_iter([(REQUEST_ID, value.clone())]);
            assert_eq!(request_id(&headers) == value, is_valid, "{id}");
        }
    }
}
