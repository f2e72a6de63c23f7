//! The delivery queue: jobs that are leased, tried, tried again, and end done or dead.

mod backoff;

pub use backoff::{Backoff, Delays, jittered};
