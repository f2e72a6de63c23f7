//! Panics in every role when a value contains `poison`; does nothing to the others.

use stream_plugin::{Context, Event, Outcome, Verdict};

stream_plugin::validator!(validate);
stream_plugin::partitioner!(partition);
stream_plugin::router!(route);
stream_plugin::transformer!(transform);

fn taste(event: &Event) {
    assert!(!event.value().windows(6).any(|bytes| bytes == b"poison"), "poisoned");
}

fn validate(_context: &Context, event: &Event) -> Verdict {
    taste(event);
    Verdict::Accept
}

fn partition(_context: &Context, event: &Event) -> u32 {
    taste(event);
    0
}

fn route(_context: &Context, event: &Event) -> Vec<String> {
    taste(event);
    Vec::new()
}

fn transform(_context: &Context, event: &Event) -> Outcome {
    taste(event);
    Outcome::Keep
}
