//! The server as its users run it: a process, a port, HTTP and the command line.
#![cfg(test)]

mod durable;
mod flights;
mod openapi;
mod openapi_plugins;
mod plugins;
mod serve;

use std::path::Path;

use stream_tests::Server;

const EXE: &str = env!("CARGO_BIN_EXE_stream-under-test");
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/flights-sample.ndjson");

fn start(data: &Path) -> Server {
    Server::start(EXE, data)
}
