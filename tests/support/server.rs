//! The server under test: the same `main` as the `stream` binary.

use std::process::ExitCode;

use clap::Parser;
use stream_host::cli::{self, Cli};

fn main() -> std::io::Result<ExitCode> {
    let cli = Cli::parse();
    Ok(tokio::runtime::Runtime::new()?.block_on(cli::run(cli)))
}
