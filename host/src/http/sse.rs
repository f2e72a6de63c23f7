//! Server-Sent Events: how a stream of records is sent, and what is sent when there are none.
//!
//! The next chunk is asked for when the connection has taken the one before: what a client does not
//! take is not read.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;

use super::App;
use super::answer;
use super::auth::{Caller, Consume};
use super::error::ApiError;
use crate::consume::Amount;
use crate::live::Cursor;

/// Silence for longer and proxies may cut a connection; shorter and idle ones cost something.
const PING: Duration = Duration::from_secs(15);

/// What is read at once: a slow client holds no more than this.
pub(super) const AMOUNT: Amount = Amount { records_max: 1_000, bytes_max: 64 << 10, wait: PING };

/// Sent first, so that a client knows that it is heard; with the milliseconds before it tries again.
const HELLO: &str = "retry: 1000\n: subscribed\n";
const PING_LINE: &[u8] = b": ping\n\n";

/// Where the events come from.
pub(super) trait Source: Send + 'static {
    /// What resumes before the first event, if there is such a thing.
    fn begun(&self) -> Option<Cursor> {
        None
    }

    /// More events, as they are sent; waits for some, and is empty if there are none by then.
    fn next(&mut self, of: &Client) -> impl Future<Output = Result<Vec<u8>, ApiError>> + Send;
}

/// Who is sent events, and by whom.
pub(super) struct Client {
    pub(super) app: Arc<App>,
    pub(super) caller: Caller<Consume>,
}

struct Events<S> {
    client: Client,
    source: S,
    has_begun: bool,
}

/// An answer that ends when the server is about to stop, or with an event that tells of an error.
pub(super) fn answer<S: Source>(client: Client, source: S) -> Response {
    let events = Some(Events { client, source, has_begun: false });
    answer::events(stream::unfold(events, |events| async {
        let mut events = events?;
        match events.next().await {
            Ok(chunk) => chunk.map(|chunk| (chunk, Some(events))),
            Err(error) => Some((format!("event: error\ndata: {}\n\n", error.body()).into(), None)),
        }
    }))
}

impl<S: Source> Events<S> {
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        if !std::mem::replace(&mut self.has_begun, true) {
            let id = self.source.begun().map_or_else(String::new, |id| format!("id: {id}\n"));
            return Ok(Some(format!("{HELLO}{id}\n").into()));
        }
        let node = &self.client.app.node;
        let chunk = self.source.next(&self.client).await?;
        self.client.caller.check_key(&node.keys)?;
        if !chunk.is_empty() {
            let mut permit = node.answer_budget.permit(self.client.caller.project.clone());
            permit.grow_to(chunk.len())?;
            return Ok(Some(answer::chunk(chunk, permit)));
        }
        Ok((!node.drain.has_begun()).then_some(Bytes::from_static(PING_LINE)))
    }
}
