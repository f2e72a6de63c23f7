//! Printing the records of all topics that a pattern matches, in the order of their commits.
//!
//! They come as Server-Sent Events; when the connection breaks it is opened again behind the last
//! record that was printed.

use reqwest::{Method, Response};

use super::client::{Client, ServerError};
use super::output::CliError;
use crate::pattern::Pattern;

/// The bytes of a stream, cut into events.
#[derive(Debug, Default)]
struct Events {
    buffer: Vec<u8>,
}

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    kind: String,
    id: String,
    /// Empty for an event that carries nothing.
    data: Vec<u8>,
}

impl Events {
    fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next event that is there as a whole. The server ends lines with a line feed alone, and
    /// gives each event one line of data.
    fn next(&mut self) -> Option<Event> {
        let end = self.buffer.windows(2).position(|pair| pair == b"\n\n")?;
        let rest = self.buffer.split_off(end + 2);
        let whole = std::mem::replace(&mut self.buffer, rest);
        let mut event = Event::default();
        for line in whole.split(|byte| *byte == b'\n') {
            let text = |rest: &[u8]| String::from_utf8_lossy(rest).into_owned();
            if let Some(rest) = line.strip_prefix(b"data: ") {
                event.data = rest.to_vec();
            } else if let Some(rest) = line.strip_prefix(b"id: ") {
                event.id = text(rest);
            } else if let Some(rest) = line.strip_prefix(b"event: ") {
                event.kind = text(rest);
            }
        }
        Some(event)
    }
}

/// Prints records as they come until `limit` of them are printed. Ends by itself only then.
///
/// # Errors
///
/// The subscription is refused or cannot go on, the server cannot be reached for as long as the
/// client tries, or `print` fails.
pub(super) async fn follow(
    client: &Client,
    (pattern, from): (&Pattern, &str),
    limit: u64,
    mut print: impl FnMut(&[&[u8]]) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let (mut left, mut last) = (limit, None::<String>);
    while left > 0 {
        let open = async || {
            let request = client.request(Method::GET, &["subscribe"]);
            let request = match &last {
                Some(id) => {
                    request.query(&[("pattern", pattern.as_str())]).header("last-event-id", id)
                }
                None => request.query(&[("pattern", pattern.as_str()), ("from", from)]),
            };
            client.send(request).await
        };
        let mut response = client.fetch(open).await?;
        let mut events = Events::default();
        // An end without an error is a server that stops, or a connection that breaks.
        while left > 0
            && let Ok(Some(chunk)) = response.chunk().await
        {
            events.push(&chunk);
            while left > 0
                && let Some(event) = events.next()
            {
                match event.kind.as_str() {
                    "" if !event.data.is_empty() => {
                        print(&[&event.data])?;
                        left -= 1;
                    }
                    "error" => return Err(refusal(&response, &event.data)),
                    _ => {}
                }
                // The greeting has one too: where the stream begins.
                if !event.id.is_empty() {
                    last = Some(event.id);
                }
            }
        }
    }
    Ok(())
}

/// The error that ends a stream. Its status is not told again: what it would have been is unknown.
fn refusal(response: &Response, data: &[u8]) -> CliError {
    let status = response.status().as_u16();
    CliError::Server(Box::new(ServerError::new(status, response.headers(), data)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &str = "retry: 1000\n: subscribed\n\nid: 1.1.0.0\ndata: {\"a\":1}\n\n: ping\n\n\
                          event: error\ndata: {\"error\":{}}\n\n";

    proptest! {
        #[test]
        fn events_are_found_however_the_bytes_are_cut(cut in 0..STREAM.len(), second in 0..STREAM.len()) {
            let (first, second) = (cut.min(second), cut.max(second));
            let (mut events, mut found) = (Events::default(), Vec::new());
            for part in [&STREAM[..first], &STREAM[first..second], &STREAM[second..]] {
                events.push(part.as_bytes());
                while let Some(event) = events.next() {
                    found.push(event);
                }
            }
            let record = Event { id: "1.1.0.0".into(), data: b"{\"a\":1}".to_vec(), ..Event::default() };
            let error = Event { kind: "error".into(), data: b"{\"error\":{}}".to_vec(), ..Event::default() };
            prop_assert_eq!(found, [Event::default(), record, Event::default(), error]);
        }
    }

    #[tokio::test]
    async fn a_broken_connection_is_opened_again_where_it_was_also_before_the_first_record() {
        use axum::http::HeaderMap;
        use axum::routing::get;

        let answer = async |headers: HeaderMap| match headers.get("last-event-id") {
            None => "retry: 1000\n: subscribed\nid: 7.0.0.0\n\n",
            Some(id) if id == "7.0.0.0" => "id: 8.1.0.0\ndata: 1\n\n",
            Some(id) if id == "8.1.0.0" => "id: 9.1.0.1\ndata: 2\n\nevent: error\ndata: {}\n\n",
            Some(_) => "",
        };
        let router = axum::Router::new().route("/projects/{project}/subscribe", get(answer));
        let client = crate::cli::client::tests::serve(router).await;
        let (pattern, mut printed) = (Pattern::parse("**").unwrap(), Vec::new());
        let end = follow(&client, (&pattern, "latest"), u64::MAX, |lines| {
            printed.extend(lines.iter().map(|line| line.to_vec()));
            Ok(())
        });
        assert!(matches!(end.await, Err(CliError::Server(_))));
        assert_eq!(printed, [b"1", b"2"]);
    }
}
