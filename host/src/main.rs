//! The `stream` binary.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use stream_host::cli::{self, Cli};

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Runtime::new().context("cannot start the threads")?;
    Ok(runtime.block_on(cli::run(cli)))
}
