//! `stream plugin`: makes plugins, uploads them, tries them, and binds them to topics.
//!
//! | module | what it does |
//! | --- | --- |
//! | `new`, `library` | writes a project that becomes a plugin, with the guest library in it |
//! | `build`, `component` | builds one: cargo's module becomes a component |
//! | `upload`, `show`, `delete` | what there is |
//! | `try_out` | what a plugin would do with events |
//! | `binding`, `settings` | what a plugin does with events from now on, and how |

mod binding;
mod build;
mod component;
mod delete;
mod library;
mod new;
pub(super) mod settings;
mod show;
mod try_out;
mod upload;

use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use indicatif::HumanBytes;
use serde_json::Value;

use super::client::Client;
use super::output::{CliError, Output};
use crate::name::PluginName;
use crate::stage::Role;

/// How long calls may be silent that make the server compile: it may take two minutes, and before
/// that 64 MiB may go over a line of 1 Mbit/s.
pub(super) const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Make, build, upload, try and bind plugins
#[derive(Debug, Args)]
pub(super) struct PluginArgs {
    #[command(subcommand)]
    command: PluginCommand,
}

#[derive(Debug, Subcommand)]
enum PluginCommand {
    New(new::New),
    Build(build::Build),
    Upload(upload::Upload),
    /// List all plugins
    List,
    /// Show a plugin's versions, where it is bound, and how it does
    Describe {
        /// The plugin
        #[arg(value_parser = PluginName::parse)]
        name: PluginName,
    },
    Logs(show::Logs),
    Delete(delete::Delete),
    Try(Box<try_out::Try>),
    Bind(Box<binding::Bind>),
    Unbind(binding::Unbind),
    Rollback(binding::Rollback),
    /// List all places where plugins are bound, but for routes
    Bindings,
}

impl PluginArgs {
    pub(super) async fn run(self, client: Client, output: Output) -> Result<(), CliError> {
        match self.command {
            PluginCommand::New(args) => args.run(output),
            PluginCommand::Build(args) => args.run(output).await,
            PluginCommand::Upload(args) => args.run(&client.patient(PATIENCE)?, output).await,
            PluginCommand::List => show::list(&client, output).await,
            PluginCommand::Describe { name } => show::describe(&client, &name, output).await,
            PluginCommand::Logs(args) => args.run(&client, output).await,
            PluginCommand::Delete(args) => args.run(&client, output).await,
            PluginCommand::Try(args) => args.run(&client.patient(PATIENCE)?, output).await,
            PluginCommand::Bind(args) => args.run(&client.patient(PATIENCE)?, output).await,
            PluginCommand::Unbind(args) => args.run(&client.patient(PATIENCE)?, output).await,
            PluginCommand::Rollback(args) => args.run(&client.patient(PATIENCE)?, output).await,
            PluginCommand::Bindings => binding::list(&client, output).await,
        }
    }
}

/// One of all roles.
fn role() -> impl TypedValueParser<Value = Role> {
    let words = PossibleValuesParser::new(Role::ALL.map(Role::as_str));
    words.try_map(|word| Role::parse(&word).ok_or("expected a role"))
}

/// A number of bytes as a table shows it; `-` if it is absent.
pub(super) fn bytes(object: &Value, field: &str) -> String {
    let bytes = object.get(field).and_then(Value::as_u64);
    bytes.map_or("-".to_owned(), |bytes| HumanBytes(bytes).to_string())
}

/// A text of at most so many characters, which ends in `…` if it was longer.
pub(super) fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some(_) => text.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

/// A plugin and its version, as `name@version`; `-` if there is none.
pub(super) fn versioned(plugin: &str, of: &Value) -> String {
    match (of.get(plugin).and_then(Value::as_str), of.get("version").and_then(Value::as_u64)) {
        (Some(name), Some(version)) => format!("{name}@{version}"),
        (Some(name), None) => name.to_owned(),
        _ => "-".to_owned(),
    }
}
