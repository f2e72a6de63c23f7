//! `stream plugin new`: writes a project that becomes a plugin: a crate with an example that works,
//! and beside it the guest library, so that it builds without this repository.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::library::{self, example};
use crate::cli::output::{CliError, Output, cell, items};
use crate::stage::Role;

const MANIFEST: &str = include_str!("template/manifest.toml");
const README: &str = include_str!("template/README.md");

/// The library's folder in the project, which the manifest names.
const LIBRARY: &str = "stream-plugin";

/// Crates that the project's own must not hide.
const TAKEN: [&str; 6] = ["alloc", "core", "serde", "serde_json", "std", "stream_plugin"];

/// Write a project that becomes a plugin
///
/// It is a crate with a working example of the role, its test, and the library for plugins.
#[derive(Debug, Args)]
pub(super) struct New {
    /// What the crate and the plugin are called
    #[arg(value_parser = parse_name)]
    name: String,

    /// The language: `rust`
    #[arg(long, default_value = "rust", value_parser = parse_language)]
    lang: String,

    /// What the plugin does with events
    #[arg(long, default_value = "validate", value_parser = super::role())]
    role: Role,

    /// The folder to make; NAME unless given
    #[arg(long, value_name = "PATH")]
    dir: Option<PathBuf>,
}

fn parse_name(text: &str) -> Result<String, String> {
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let starts_well = text.starts_with(|first: char| first.is_ascii_alphabetic());
    if !starts_well || !text.bytes().all(is_name_byte) || text.len() > 64 {
        let expected = "expected a letter, and then letters, digits, `-` and `_`, at most 64";
        return Err(expected.to_owned());
    }
    if TAKEN.contains(&text.replace('-', "_").as_str()) {
        return Err("expected another name: the plugin uses a crate of this one".to_owned());
    }
    Ok(text.to_owned())
}

fn parse_language(text: &str) -> Result<String, String> {
    if text == "rust" {
        return Ok(text.to_owned());
    }
    Err("expected `rust`; for JavaScript and Python, copy `guest-examples/javascript` or \
         `guest-examples/python` of Stream's repository"
        .to_owned())
}

impl New {
    pub(super) fn run(self, output: Output) -> Result<(), CliError> {
        output.show(&self.make()?, human)?;
        Ok(())
    }

    fn make(&self) -> Result<Value, CliError> {
        let dir = self.dir.clone().unwrap_or_else(|| PathBuf::from(&self.name));
        check_empty(&dir)?;
        let files = files(&self.name, self.role);
        for (name, text) in &files {
            write(&dir.join(name), text)?;
        }
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        Ok(json!({ "name": self.name, "dir": dir.display().to_string(), "files": names }))
    }
}

fn human(made: &Value) -> String {
    let (dir, files) = (cell(made, "dir"), items(made, "files").len());
    format!("wrote {files} files into `{dir}`; its README.md says how to go on\n")
}

/// Refuses a folder with something in it.
fn check_empty(dir: &Path) -> Result<(), CliError> {
    let is_empty = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == ErrorKind::NotFound => true,
        Err(error) => return Err(CliError::unwritable(dir, error)),
    };
    if is_empty {
        return Ok(());
    }
    let problem = format!("`{}` is not empty: give another folder with `--dir`", dir.display());
    Err(CliError::Usage(problem))
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| fs::write(path, text)).map_err(|error| CliError::unwritable(path, error))
}

/// The project: paths from its folder, and texts.
fn files(name: &str, role: Role) -> Vec<(String, String)> {
    let example = Example::of(role);
    let own = [
        ("Cargo.toml", MANIFEST.replace("{name}", name)),
        ("README.md", example.readme(name, role)),
        (".gitignore", format!("/target\n/{name}.wasm\n")),
        ("src/lib.rs", example.source.to_owned()),
    ];
    let own = own.into_iter().map(|(path, text)| (path.to_owned(), text));
    let library = library::FILES.iter();
    own.chain(library.map(|(path, text)| (format!("{LIBRARY}/{path}"), text.to_string()))).collect()
}

/// What the project starts from, and what its README has to try it with.
struct Example {
    source: &'static str,
    topic: &'static str,
    config: &'static str,
    event: &'static str,
}

impl Example {
    fn of(role: Role) -> Self {
        match role {
            Role::Validate => Self {
                source: example::VALIDATE,
                topic: "order.placed",
                config: r#"{"max_total": 1000}"#,
                event: r#"{"value": {"orderId": "a", "total": 12.5}}"#,
            },
            Role::Partition => Self {
                source: example::PARTITION,
                topic: "flight.departed",
                config: "origin",
                event: r#"{"value": {"origin": "JFK", "dest": "ATL"}}"#,
            },
            Role::Route => Self {
                source: example::ROUTE,
                topic: "flight.departed",
                config: r#"{"field": "carrier", "topics": {"UA": "carrier.ua"}}"#,
                event: r#"{"value": {"carrier": "UA"}}"#,
            },
            Role::Transform => Self {
                source: example::TRANSFORM,
                topic: "order.placed",
                config: r#"["card", "email"]"#,
                event: r#"{"value": {"total": 12.5, "card": "4111"}}"#,
            },
        }
    }

    fn readme(&self, name: &str, role: Role) -> String {
        let Self { topic, event, .. } = self;
        let role_word = role.as_str();
        let config = format!(" --config '{}'", self.config);
        let bind = if role == Role::Route {
            let to = "stream route put {name} --match {topic} --to 'carrier.*' --plugin {name}";
            to.to_owned() + "{config}"
        } else {
            "stream plugin bind {name} --role {role} --topic {topic}{config}".to_owned()
        };
        README
            .replace("{bind}", &bind)
            .replace("{config}", &config)
            .replace("{topic}", topic)
            .replace("{event}", event)
            .replace("{name}", name)
            .replace("{role}", role_word)
    }
}

#[cfg(test)]
mod tests {
    use super::library::tests::files_in;
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    fn new(args: &[&str]) -> Result<New, clap::Error> {
        let cli = Cli::try_parse_from(["stream", "plugin", "new"].iter().chain(args))?;
        match cli.command {
            crate::cli::Command::Plugin(super::super::PluginArgs {
                command: super::super::PluginCommand::New(new),
            }) => Ok(new),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_name_is_one_for_a_crate() {
        let cases = [
            ("orders", true),
            ("Order-checks_2", true),
            ("2nd", false),
            ("-a", false),
            ("a.b", false),
            ("a b", false),
            ("", false),
            ("stream-plugin", false),
            ("serde", false),
        ];
        for (name, is_valid) in cases {
            assert_eq!(parse_name(name).is_ok(), is_valid, "{name}");
        }
    }

    #[test]
    fn other_languages_are_pointed_to_their_examples() {
        assert_eq!(new(&["a"]).unwrap().role, Role::Validate);
        assert_eq!(new(&["a", "--lang", "rust", "--role", "route"]).unwrap().role, Role::Route);
        assert!(new(&["a", "--role", "cook"]).is_err());
        let error = new(&["a", "--lang", "javascript"]).unwrap_err().to_string();
        for part in ["`rust`", "guest-examples/javascript", "guest-examples/python"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn what_is_written_is_an_example_beside_the_library_as_it_is_here() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (role, source) in [
            ("validate", "validate-order"),
            ("partition", "partition-by-field"),
            ("route", "route-by-content"),
            ("transform", "redact-field"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let dir = folder.path().join("deep/orders");
            let args = ["orders", "--role", role, "--dir", dir.to_str().unwrap()];
            let made = new(&args).unwrap().make().unwrap();
            assert!(human(&made).starts_with("wrote 15 files into `"), "{made}");
            let mut written = files_in(&dir);
            for (name, text) in files_in(&repository.join("guest-examples/library")) {
                assert_eq!(written.remove(&format!("{LIBRARY}/{name}")), Some(text), "{name}");
            }
            let source = repository.join(format!("guest-examples/rust/{source}/src/lib.rs"));
            assert_eq!(written.remove("src/lib.rs"), Some(fs::read_to_string(source).unwrap()));
            let readme = written.remove("README.md").unwrap();
            for placeholder in ["{name}", "{role}", "{event}", "{topic}", "{config}", "{bind}"] {
                assert!(!readme.contains(placeholder), "{readme}");
            }
            assert!(readme.contains(&format!("role `{role}`")), "{readme}");
            assert_eq!(written.keys().collect::<Vec<_>>(), [".gitignore", "Cargo.toml"]);
        }
    }

    #[test]
    fn a_project_is_built_as_the_examples_are() {
        let here: toml::Table = MANIFEST.parse().unwrap();
        let manifest =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../guest-examples/Cargo.toml").to_owned();
        let there: toml::Table = fs::read_to_string(manifest).unwrap().parse().unwrap();
        assert_eq!(here["profile"], there["profile"]);
        assert_eq!(here["package"]["edition"], there["workspace"]["package"]["edition"]);
        assert_eq!(here["workspace"], toml::Value::Table(toml::Table::new()));
        assert_eq!(here["dependencies"]["stream-plugin"]["path"].as_str(), Some(LIBRARY));
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().to_str().unwrap();
        fs::write(folder.path().join("note"), "mine").unwrap();
        let error = new(&["a", "--dir", dir]).unwrap().make().unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert_eq!(files_in(folder.path()).len(), 1);
        let file = folder.path().join("note");
        let args = ["a", "--dir", file.to_str().unwrap()];
        assert_eq!(new(&args).unwrap().make().unwrap_err().exit_code(), 4);
    }

    #[test]
    fn the_readme_tells_commands_that_there_are() {
        for role in Role::ALL {
            let readme = Example::of(role).readme("orders", role);
            let commands: Vec<&str> = readme
                .lines()
                .filter_map(|line| line.trim_start().strip_prefix("stream "))
                .collect();
            assert_eq!(commands.len(), 4, "{readme}");
            for command in commands {
                let parsed = Cli::try_parse_from(shell(&format!("stream {command}")));
                assert!(parsed.is_ok(), "{command}: {}", parsed.unwrap_err());
            }
        }
    }

    /// The words of a command line with single quotes.
    fn shell(line: &str) -> Vec<String> {
        let mut words = Vec::new();
        for (index, part) in line.split('\'').enumerate() {
            if index % 2 == 1 {
                words.push(part.to_owned());
            } else {
                words.extend(part.split_whitespace().map(ToOwned::to_owned));
            }
        }
        words
    }
}
