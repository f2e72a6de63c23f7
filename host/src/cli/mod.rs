//! The command line: one file per subcommand.

pub mod serve;

/// Stream: a durable event router.
#[derive(Debug, clap::Parser)]
#[command(name = "stream", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Serve(Box<serve::Serve>),
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// The command failed.
    pub async fn run(self) -> Result<(), serve::ServeError> {
        match self.command {
            Command::Serve(serve) => serve.run().await,
        }
    }
}
