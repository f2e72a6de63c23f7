//! The command line: one file per subcommand.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `serve` | the server's process |
//! | `topic`, `publish`, `tail`, `key`, `project` | a command each, all through the HTTP API |
//! | `client` | the HTTP client: address, key, retries, the server's errors |
//! | `output` | tables or JSON, error messages, exit codes |

mod client;
mod key;
mod output;
mod project;
mod publish;
pub mod serve;
mod tail;
mod topic;

use std::process::ExitCode;

pub use client::ServerError;
use client::{Client, ClientOptions};
pub use output::CliError;
use output::Output;
pub use publish::InputError;

/// Stream: a durable event router
#[derive(Debug, clap::Parser)]
#[command(name = "stream", version, after_help = output::EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    client: ClientOptions,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Serve(Box<serve::Serve>),
    Topic(topic::TopicArgs),
    Publish(publish::PublishArgs),
    Tail(tail::TailArgs),
    Key(key::KeyArgs),
    Project(project::ProjectArgs),
}

/// Runs the command, and says on standard error why it failed.
pub async fn run(cli: Cli) -> ExitCode {
    match cli.run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.report();
            ExitCode::from(error.exit_code())
        }
    }
}

impl Cli {
    async fn run(self) -> Result<(), CliError> {
        let command = match self.command {
            Command::Serve(serve) => return Ok(serve.run().await?),
            command => command,
        };
        let output = Output::new(self.client.json);
        let client = Client::new(self.client)?;
        match command {
            Command::Serve(_) => Ok(()),
            Command::Topic(args) => args.run(&client, output).await,
            Command::Publish(args) => args.run(client, output).await,
            Command::Tail(args) => args.run(client, output).await,
            Command::Key(args) => args.run(&client, output).await,
            Command::Project(args) => args.run(&client, output).await,
        }
    }
}
