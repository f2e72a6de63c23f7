//! `stream plugin delete`: removes a plugin with all its versions.

use clap::Args;
use reqwest::Method;

use crate::cli::client::Client;
use crate::cli::output::{CliError, Output, confirm};
use crate::name::PluginName;

/// Delete a plugin with all its versions; one that is bound stays
#[derive(Debug, Args)]
pub(super) struct Delete {
    /// The plugin
    #[arg(value_parser = PluginName::parse)]
    name: PluginName,

    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl Delete {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        let name = self.name.as_str();
        let question = format!("delete `{name}` with all its versions?");
        if !self.yes && !confirm(name, &question)? {
            return output.done("nothing was deleted").map_err(CliError::from);
        }
        client.send(client.request(Method::DELETE, &["plugins", name])).await?;
        output.done(&format!("deleted `{name}`"))?;
        Ok(())
    }
}
