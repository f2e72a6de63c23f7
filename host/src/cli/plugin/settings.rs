//! How a plugin is called where it is bound: the options that bindings and routes share.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{BoolishValueParser, PossibleValuesParser, RangedU64ValueParser};
use serde_json::{Map, Value};

use crate::cli::output::{CliError, cell};
use crate::stage::OnFault;

/// What is not given is the server's default.
#[derive(Debug, Default, Args)]
pub(in crate::cli) struct Settings {
    /// The plugin's version; the newest unless given
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    version: Option<u64>,

    /// How long a call may take, of the processor's time
    #[arg(long, value_name = "N")]
    timeout_ms: Option<u64>,

    /// How much memory an instance may have
    #[arg(long, value_name = "BYTES")]
    memory: Option<u64>,

    /// Start a new instance for each call
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new()
    )]
    fresh: Option<bool>,
}

/// What a plugin is told with each call.
#[derive(Debug, Default, Args)]
pub(in crate::cli) struct Config {
    /// What the plugin is told with each call: JSON or any text
    #[arg(long, value_name = "TEXT")]
    config: Option<String>,

    /// A file with the config; a line break at its end is left out
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    config_file: Option<PathBuf>,
}

impl Config {
    /// The config, if it is given: byte for byte what the plugin gets.
    pub(super) fn text(&self) -> Result<Option<String>, CliError> {
        let Some(path) = &self.config_file else { return Ok(self.config.clone()) };
        let text = fs::read_to_string(path).map_err(|error| CliError::unreadable(path, error))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        Ok(Some(text.strip_suffix('\r').unwrap_or(text).to_owned()))
    }
}

impl Settings {
    /// Sets the fields of a binding that are given. The version always is: without one, the server
    /// takes the newest.
    pub(in crate::cli) fn apply(
        &self,
        config: &Config,
        binding: &mut Map<String, Value>,
    ) -> Result<(), CliError> {
        let instance = self.fresh.map(|fresh| if fresh { "fresh" } else { "kept" });
        let given = [
            ("config", config.text()?.map(Value::from)),
            ("timeout_ms", self.timeout_ms.map(Value::from)),
            ("memory", self.memory.map(Value::from)),
            ("instance", instance.map(Value::from)),
            ("version", self.version.map(Value::from)),
        ];
        binding.remove("version");
        let given = given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        binding.extend(given);
        Ok(())
    }
}

/// The words for what a fault does.
pub(in crate::cli) fn on_fault() -> PossibleValuesParser {
    PossibleValuesParser::new(OnFault::ALL.map(OnFault::as_str))
}

/// A binding's config as a table shows it, on one line.
pub(in crate::cli) fn config_cell(binding: &Value) -> String {
    /// A config may be long; `--json` shows all of it.
    const CHARS_MAX: usize = 60;
    super::cut(&cell(binding, "config"), CHARS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::json;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        config: Config,
    }

    fn applied(args: &[&str], before: Value) -> Option<Value> {
        let line = Line::try_parse_from(["line"].iter().chain(args)).ok()?;
        let mut binding = before.as_object().unwrap().clone();
        line.settings.apply(&line.config, &mut binding).unwrap();
        Some(Value::Object(binding))
    }

    #[test]
    fn only_what_is_given_is_set_and_the_version_is_never_kept() {
        let before = json!({ "plugin": "p", "version": 3, "config": "a", "timeout_ms": 7 });
        let cases: [(&[&str], Option<Value>); 8] = [
            (&[], Some(json!({ "plugin": "p", "config": "a", "timeout_ms": 7 }))),
            (
                &["--version", "4", "--config", "", "--memory", "9", "--fresh"],
                Some(json!({
                    "plugin": "p", "version": 4, "config": "", "timeout_ms": 7, "memory": 9,
                    "instance": "fresh",
                })),
            ),
            (
                &["--fresh=false", "--timeout-ms", "8"],
                Some(json!({
                    "plugin": "p", "config": "a", "timeout_ms": 8, "instance": "kept",
                })),
            ),
            (
                &["--config", r#"{ "a": 1 }"#],
                Some(json!({ "plugin": "p", "config": "{ \"a\": 1 }", "timeout_ms": 7 })),
            ),
            (&["--version", "0"], None),
            (&["--config", "a", "--config-file", "f"], None),
            (&["--fresh=perhaps"], None),
            (&["--memory", "-1"], None),
        ];
        for (args, expected) in cases {
            assert_eq!(applied(args, before.clone()), expected, "{args:?}");
        }
    }

    #[test]
    fn a_file_is_the_config_but_for_its_last_line_break() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, config) in [("a\n", "a"), ("a\r\n", "a"), ("{\n}\n\n", "{\n}\n"), ("a", "a")] {
            fs::write(file.path(), text).unwrap();
            let args = ["--config-file", file.path().to_str().unwrap()];
            assert_eq!(applied(&args, json!({})), Some(json!({ "config": config })), "{text:?}");
        }
        let gone = Config { config_file: Some("gone".into()), ..Config::default() };
        assert_eq!(gone.text().unwrap_err().exit_code(), 4);
    }
}
