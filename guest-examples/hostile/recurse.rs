//! Calls itself without end.

use std::hint::black_box;

use stream_plugin::{Context, Event, Verdict};

stream_plugin::validator!(validate);

#[expect(unconditional_recursion, reason = "what it is for")]
fn recurse(depth: u64) -> u64 {
    black_box(recurse(black_box(depth + 1))) + 1
}

fn validate(_context: &Context, _event: &Event) -> Verdict {
    Verdict::Reject(format!("{} calls", recurse(0)))
}
