//! A stream of Server-Sent Events, as a client reads it.

use reqwest::Response;
use serde_json::Value;

/// An open subscription.
pub struct Subscription {
    response: Response,
    buffer: Vec<u8>,
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its name; empty for a record.
    pub kind: String,
    /// What resumes behind it.
    pub id: String,
    /// What it carries.
    pub data: Value,
}

impl Subscription {
    pub(crate) fn new(response: Response) -> Self {
        Self { response, buffer: Vec::new() }
    }

    /// The next event that carries something; `None` when the stream has ended or broken.
    ///
    /// # Panics
    ///
    /// What it carries is not JSON.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let rest = self.buffer.split_off(end + 2);
                let whole = std::mem::replace(&mut self.buffer, rest);
                if let Some(event) = parse(&String::from_utf8_lossy(&whole)) {
                    return Some(event);
                }
            }
            let chunk = self.response.chunk().await.ok()??;
            self.buffer.extend_from_slice(&chunk);
        }
    }
}

fn parse(text: &str) -> Option<Event> {
    let field =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let data = serde_json::from_str(field("data")?).expect("an event carries JSON");
    let text = |name| field(name).unwrap_or_default().to_owned();
    Some(Event { kind: text("event"), id: text("id"), data })
}
