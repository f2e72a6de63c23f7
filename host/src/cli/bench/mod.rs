//! `stream bench`: a load generator, for figures that anyone can repeat.
//!
//! | module | what it does |
//! | --- | --- |
//! | `publish`, `consume`, `e2e`, `wasm`, `connectors`, `growth`, `soak` | a measurement each |
//! | `suite` | all of them, beside what is aimed at |
//! | `site` | where it takes place: a server, and what is made on it |
//! | `own_server` | a server that is started for it |
//! | `payload` | what is sent |
//! | `load` | connections that send it, as fast as it is taken or by a schedule |
//! | `wire` | one connection |
//! | `figures` | what was measured, and how it is told |
//! | `progress` | how far it is, on a terminal |

mod connectors;
mod consume;
mod e2e;
mod figures;
mod growth;
mod load;
mod machine;
mod own_server;
mod payload;
mod progress;
mod publish;
mod site;
mod soak;
mod suite;
mod wasm;
mod wire;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::options::ClientOptions;
use super::output::{CliError, Output};
use site::Place;

/// Measure how fast a server is
///
/// Without `--url` (or STREAM_URL) a server is started for it, with settings from the environment as
/// for `stream serve`, and stopped afterwards. Topics and plugins that a measurement makes on a server
/// that was there before are deleted again. Generator and server share the machine then: what is shown
/// is what both reach together.
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// Where a server that is started keeps its data: a folder on the disk to be measured, which should
    /// be empty [default: a temporary one in /var/tmp]
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,

    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    Publish(publish::PublishBench),
    Consume(consume::ConsumeBench),
    E2e(e2e::E2eBench),
    Wasm(wasm::WasmBench),
    Connectors(connectors::ConnectorsBench),
    Growth(growth::GrowthBench),
    Soak(soak::SoakBench),
    Suite(suite::SuiteBench),
}

impl BenchArgs {
    pub(super) async fn run(self, client: ClientOptions, output: Output) -> Result<(), CliError> {
        let place = Place { client, data: self.data };
        let told = match self.command {
            BenchCommand::Publish(bench) => bench.run(&place).await,
            BenchCommand::Consume(bench) => bench.run(&place).await,
            BenchCommand::E2e(bench) => bench.run(&place).await,
            BenchCommand::Wasm(bench) => bench.run(&place).await,
            BenchCommand::Connectors(bench) => bench.run(&place).await,
            BenchCommand::Growth(bench) => bench.run(&place).await,
            BenchCommand::Soak(bench) => bench.run(&place).await,
            BenchCommand::Suite(bench) => bench.run(&place).await,
        }?;
        told.show(output)
    }
}

/// What a measurement tells.
pub(super) struct Told {
    /// For scripts.
    figures: Value,
    /// For people.
    text: String,
}

impl Told {
    fn show(self, output: Output) -> Result<(), CliError> {
        Ok(output.show(&self.figures, |_| self.text + "\n")?)
    }
}
