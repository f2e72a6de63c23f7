//! Answers with one verdict less than there are events.

use stream_plugin::bindings::validator::{export, validate::Guest};
use stream_plugin::{Batch, Context, Verdict};

struct Plugin;

impl Guest for Plugin {
    fn validate(_context: Context, batch: Batch) -> Vec<Verdict> {
        batch.events().skip(1).map(|_| Verdict::Accept).collect()
    }
}

export!(Plugin with_types_in stream_plugin::bindings::validator);
