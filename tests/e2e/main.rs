//! The server as its users run it: a process, a port, HTTP and the command line.
#![cfg(test)]

mod bench;
mod connector_cli;
mod durable;
mod flights;
mod hooks;
mod ledger;
mod live;
mod openapi;
mod openapi_connectors;
mod openapi_groups;
mod openapi_hooks;
mod openapi_jobs;
mod openapi_plugins;
mod plugin_cli;
mod plugins;
mod replay;
mod serve;
mod worker;
mod worker_cli;

use std::path::Path;
use std::process::{Command, Output};

use stream_tests::{KEY, Server};

const EXE: &str = env!("CARGO_BIN_EXE_stream-under-test");
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/flights-sample.ndjson");

fn start(data: &Path) -> Server {
    Server::start(EXE, data)
}

/// Runs the command line against a server.
fn stream(server: &Server, arguments: &[&str]) -> Output {
    Command::new(EXE)
        .args(arguments)
        .env("STREAM_URL", &server.url)
        .env("STREAM_API_KEY", KEY)
        .output()
        .unwrap()
}
