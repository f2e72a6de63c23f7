//! Replaces every value by bytes that are not JSON.

use stream_plugin::{Context, Event, Outcome, OwnedEvent};

stream_plugin::transformer!(transform);

fn transform(_context: &Context, event: &Event) -> Outcome {
    Outcome::Replace(OwnedEvent { value: b"{not JSON".to_vec(), ..event.to_owned() })
}
