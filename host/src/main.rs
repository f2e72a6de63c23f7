//! The `stream` binary.

use clap::Parser;
use stream_host::cli::Cli;

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    Ok(runtime.block_on(Cli::parse().run())?)
}
