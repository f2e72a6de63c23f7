//! The command line: one file per subcommand.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `serve` | the server's process |
//! | `topic`, `schema`, `publish`, `tail` | a command each, all through the HTTP API |
//! | `event`, `replay`, `group` | records by what they are indexed by; records once more; consumer groups |
//! | `route`, `dead_letter`, `key`, `project` | the same |
//! | `connector` | what takes events to Worker, Hooks and Ledger |
//! | `hooks` | webhooks: endpoints, deliveries and their figures |
//! | `ledger` | ledgers; also offline, from their files |
//! | `plugin` | a folder of commands, from a new project to a binding |
//! | `worker` | a folder of commands: queues, jobs, and running commands for these |
//! | `bench` | measurements of a server, or of one that is started for it |
//! | `options` | the server's address, the key |
//! | `client` | the HTTP client: retries, the server's errors |
//! | `output` | tables or JSON, error messages, exit codes |

mod bench;
mod client;
mod connector;
mod dead_letter;
mod event;
mod follow;
mod group;
mod hooks;
mod key;
mod ledger;
mod options;
mod output;
mod plugin;
mod project;
mod publish;
mod replay;
mod route;
mod schema;
pub mod serve;
mod tail;
mod topic;
mod worker;

use std::process::ExitCode;

use client::Client;
pub use client::ServerError;
use options::ClientOptions;
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
    /// What the server runs to compile an upload, in a process of its own
    #[command(name = crate::plugin::COMMAND, hide = true)]
    CompilePlugin {
        /// Seconds of processor time
        processor: u64,
        /// Bytes of address space
        memory: u64,
    },
    Topic(topic::TopicArgs),
    Schema(schema::SchemaArgs),
    Publish(publish::PublishArgs),
    Tail(tail::TailArgs),
    Event(event::EventArgs),
    Replay(replay::ReplayArgs),
    Plugin(plugin::PluginArgs),
    Route(route::RouteArgs),
    DeadLetter(dead_letter::DeadLetterArgs),
    Group(group::GroupArgs),
    Connector(connector::ConnectorArgs),
    Worker(worker::WorkerArgs),
    Hooks(hooks::HooksArgs),
    Ledger(ledger::LedgerArgs),
    Key(key::KeyArgs),
    Project(project::ProjectArgs),
    Bench(Box<bench::BenchArgs>),
}

/// Runs the command, and says on standard error why it failed.
pub async fn run(cli: Cli) -> ExitCode {
    if let Command::CompilePlugin { processor, memory } = cli.command {
        let exit = crate::plugin::compile_in_this_process(processor, memory);
        return exit.map_or(ExitCode::FAILURE, ExitCode::from);
    }
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
        if let Command::Bench(args) = command {
            return args.run(self.client, output).await;
        }
        let client = Client::new(self.client)?;
        match command {
            Command::Serve(_) | Command::CompilePlugin { .. } | Command::Bench(_) => Ok(()),
            Command::Topic(args) => args.run(&client, output).await,
            Command::Schema(args) => args.run(&client, output).await,
            Command::Publish(args) => args.run(client, output).await,
            Command::Tail(args) => args.run(client, output).await,
            Command::Event(args) => args.run(&client, output).await,
            Command::Replay(args) => args.run(client, output).await,
            Command::Plugin(args) => args.run(client, output).await,
            Command::Route(args) => args.run(client, output).await,
            Command::DeadLetter(args) => args.run(client, output).await,
            Command::Group(args) => args.run(&client, output).await,
            Command::Connector(args) => args.run(client, output).await,
            Command::Worker(args) => args.run(client, output).await,
            Command::Hooks(args) => args.run(&client, output).await,
            Command::Ledger(args) => args.run(&client, output).await,
            Command::Key(args) => args.run(&client, output).await,
            Command::Project(args) => args.run(&client, output).await,
        }
    }
}
