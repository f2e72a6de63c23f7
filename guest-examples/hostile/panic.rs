//! Panics at every event.

use stream_plugin::{Context, Event, Verdict};

stream_plugin::validator!(validate);

fn validate(_context: &Context, _event: &Event) -> Verdict {
    panic!("as it always does")
}
