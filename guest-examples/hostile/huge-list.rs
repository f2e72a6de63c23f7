//! Answers with 4,000 reasons of 1 MiB each, all of them the same MiB: 4 GiB to lift, of 1.

use stream_plugin::bindings::validator::{export, validate::Guest};
use stream_plugin::{Batch, Context, Verdict};

struct Plugin;

impl Guest for Plugin {
    fn validate(_context: Context, _batch: Batch) -> Vec<Verdict> {
        let reason = "x".repeat(1 << 20).leak();
        let (start, length) = (reason.as_mut_ptr(), reason.len());
        // SAFETY: none. The host sees all of them before the first is freed, which is enough.
        let alias = || unsafe { String::from_raw_parts(start, length, length) };
        (0..4_000).map(|_| Verdict::Reject(alias())).collect()
    }
}

export!(Plugin with_types_in stream_plugin::bindings::validator);
