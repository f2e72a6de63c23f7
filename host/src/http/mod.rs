//! HTTP: turns requests into calls of the core, and what they return into answers. Decides nothing.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `router` | which call answers which route, and what wraps them all |
//! | `server`, `traffic`, `tls` | sockets: accept, limit, time out, drain |
//! | `error` | the one map from errors to statuses |
//! | `auth` | who calls, for which project |
//! | `body`, `fields`, `params` | what a request says, or the name of what is wrong with it |
//! | `identity` | how a publish says that it is a repeat |
//! | `observe`, `metrics` | request ids, logs, counters |
//! | `room` | room in memory for records, taken before they are read |
//! | `answer`, `record_json`, `job_json` | how answers are written |
//! | `topics`, `events`, `records`, `lookups`, `groups`, `queues`, `jobs`, `ledgers`, `schemas`, `plugins`, `trials`, `bindings`, `routes`, `connectors`, `endpoints`, `webhooks`, `keys`, `projects`, `meta` | the calls, by resource |

mod answer;
mod auth;
mod bindings;
mod body;
mod connectors;
mod consume;
mod endpoints;
mod error;
mod events;
mod fields;
mod groups;
mod identity;
mod job_json;
mod jobs;
mod keys;
mod ledgers;
mod lookups;
mod members;
mod meta;
mod metrics;
mod observe;
mod params;
mod plugins;
mod projects;
mod queues;
mod record_json;
mod records;
mod room;
mod router;
mod routes;
mod schemas;
mod server;
mod sse;
mod subscribe;
mod tls;
mod topics;
mod traffic;
mod transactions;
mod trials;
mod webhooks;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::node::Node;
use metrics::HttpMetrics;

pub use router::{ROUTES, Route, router};
pub use server::{ServerConfig, Timeouts, serve};
pub use tls::{TlsError, TlsFiles, load_tls};

/// What all calls share.
pub struct App {
    /// The core.
    pub(crate) node: Node,
    pub(crate) metrics: HttpMetrics,
    /// How long a request's body may bring next to nothing.
    pub(crate) body_timeout: Duration,
}

impl App {
    /// Serves `node`. A body that brings next to nothing for `body_timeout` ends its request.
    pub fn new(node: Node, body_timeout: Duration) -> Arc<Self> {
        Arc::new(Self { node, metrics: HttpMetrics::default(), body_timeout })
    }

    /// The core.
    pub fn node(&self) -> &Node {
        &self.node
    }
}
