//! `stream worker`: queues of jobs, and running commands for them.

mod command;
mod jobs;
mod queue;
mod run;

use clap::{Args, Subcommand};

use super::client::Client;
use super::output::{CliError, Output};
use crate::name::QueueName;
use jobs::{Discard, Enqueue, Jobs, Redrive};
use queue::QueueCommand;
use run::Run;

/// Run commands for jobs; set up, fill and look into queues of jobs
#[derive(Debug, Args)]
pub(super) struct WorkerArgs {
    #[command(subcommand)]
    command: WorkerCommand,
}

#[derive(Debug, Subcommand)]
enum WorkerCommand {
    Run(Run),
    /// List all queues
    Queues,
    /// Set up, show, pause and delete a queue
    Queue {
        #[command(subcommand)]
        command: QueueCommand,
    },
    Enqueue(Enqueue),
    Jobs(Jobs),
    /// Show one job
    Job {
        /// The queue
        #[arg(value_parser = QueueName::parse)]
        queue: QueueName,
        /// The job's id
        id: String,
    },
    Redrive(Redrive),
    Discard(Discard),
}

impl WorkerArgs {
    pub(super) async fn run(self, client: Client, output: Output) -> Result<(), CliError> {
        match self.command {
            WorkerCommand::Run(run) => run.run(client, output).await,
            WorkerCommand::Queues => {
                Ok(output.show(&client.list("queues").await?, queue::human_list)?)
            }
            WorkerCommand::Queue { command } => command.run(&client, output).await,
            WorkerCommand::Enqueue(enqueue) => enqueue.run(client, output).await,
            WorkerCommand::Jobs(jobs) => jobs.run(&client, output).await,
            WorkerCommand::Job { queue, id } => jobs::show(&client, output, &queue, &id).await,
            WorkerCommand::Redrive(redrive) => redrive.run(&client, output).await,
            WorkerCommand::Discard(discard) => discard.run(&client, output).await,
        }
    }
}
