//! What one request, one topic, one project and the whole server may ask for.
//!
//! Owns the figures and their defaults; each limit is held where the thing it bounds is made.

use serde::Deserialize;

/// The server's limits, each configurable.
///
/// A limit is the largest value that passes; one more is refused with an error that names the limit
/// and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of one event: value, key, headers (names and values), id, time and content type
    /// together. Default 1 MiB.
    pub event_bytes_max: usize,
    /// Bytes of one request's body, after unpacking. Default 16 MiB.
    pub request_bytes_max: usize,
    /// Events of one request. Default 10,000.
    pub request_events_max: usize,
    /// Headers of one event, `ce-…` headers included. Default 64.
    pub headers_max: usize,
    /// Partitions of one topic. Default 1,024.
    pub partitions_max: u32,
    /// Client connections open at once. Default 10,000.
    pub connections_max: usize,
    /// Bytes of request bodies that one project may have in flight, from their arrival to their
    /// answer, and as many of answers. At least `request_bytes_max`. Default 64 MiB.
    pub project_bytes_max: usize,
    /// The same for all projects together, at least `project_bytes_max`, which bounds the server's memory. Default 256 MiB.
    pub total_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            event_bytes_max: 1 << 20,
            request_bytes_max: 16 << 20,
            request_events_max: 10_000,
            headers_max: 64,
            partitions_max: 1024,
            connections_max: 10_000,
            project_bytes_max: 64 << 20,
            total_bytes_max: 256 << 20,
        }
    }
}
