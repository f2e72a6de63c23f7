//! Rejects for a reason of 32 MiB.

use stream_plugin::{Context, Event, Verdict};

stream_plugin::validator!(validate);

fn validate(_context: &Context, _event: &Event) -> Verdict {
    Verdict::Reject("x".repeat(32 << 20))
}
