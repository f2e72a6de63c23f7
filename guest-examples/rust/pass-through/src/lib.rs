//! Every role, and nothing done in any: what a plugin costs before it does anything.

use stream_plugin::{Context, Event, Outcome, Verdict};

stream_plugin::validator!(validate);
stream_plugin::partitioner!(partition);
stream_plugin::router!(route);
stream_plugin::transformer!(transform);

fn validate(_context: &Context, _event: &Event) -> Verdict {
    Verdict::Accept
}

fn partition(_context: &Context, _event: &Event) -> u32 {
    0
}

fn route(_context: &Context, _event: &Event) -> Vec<String> {
    Vec::new()
}

fn transform(_context: &Context, _event: &Event) -> Outcome {
    Outcome::Keep
}
