//! `stream plugin build`: cargo makes a module of a crate, and this a component of the module, if the
//! linker has not made one already.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output as Ended, Stdio};

use clap::Args;
use serde_json::{Value, json};
use tokio::process::Command;

use super::{bytes, component};
use crate::cli::output::{CliError, Output, cell, items};

/// In the order in which they are preferred: with the first, a panic's message is in the log.
const TARGETS: [&str; 2] = ["wasm32-wasip2", "wasm32-unknown-unknown"];

/// Build a plugin from its crate
///
/// Runs `cargo build --release`, with the environment as it is, and makes a component of what that
/// leaves.
#[derive(Debug, Args)]
pub(super) struct Build {
    /// The folder of the crate
    #[arg(long, value_name = "PATH", default_value = ".")]
    dir: PathBuf,

    /// Where to write the component; beside Cargo.toml under the crate's name unless given
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// What to build for; wasm32-wasip2 or wasm32-unknown-unknown, if installed, unless given
    #[arg(long, value_name = "TARGET", env = "CARGO_BUILD_TARGET")]
    target: Option<String>,
}

impl Build {
    pub(super) async fn run(self, output: Output) -> Result<(), CliError> {
        let manifest = self.dir.join("Cargo.toml");
        let name = package_name(&manifest)?;
        let target = match self.target.filter(|target| !target.is_empty()) {
            Some(target) => check_target(target)?,
            None => installed_target(&self.dir).await?,
        };
        let path = cargo_build(&self.dir, &manifest, &target).await?;
        let module = fs::read(&path).map_err(|error| CliError::unreadable(&path, error))?;
        let component = component::of_module(&module).map_err(|reason| no_component(&reason))?;
        let out = self.out.unwrap_or_else(|| self.dir.join(format!("{name}.wasm")));
        fs::write(&out, &component).map_err(|error| CliError::unwritable(&out, error))?;
        let made = json!({
            "file": out.display().to_string(),
            "size": component.len(),
            "target": target,
        });
        output.show(&made, human)?;
        Ok(())
    }
}

fn human(made: &Value) -> String {
    format!("{}  {}, for {}\n", cell(made, "file"), bytes(made, "size"), cell(made, "target"))
}

/// The name in a crate's manifest.
fn package_name(manifest: &Path) -> Result<String, CliError> {
    let text =
        fs::read_to_string(manifest).map_err(|error| CliError::unreadable(manifest, error))?;
    let table: toml::Table = text.parse().map_err(|error| CliError::unreadable(manifest, error))?;
    let name = table.get("package").and_then(|package| package.get("name")?.as_str());
    let missing = || CliError::unreadable(manifest, "expected a `name` of a `[package]`");
    name.map(ToOwned::to_owned).ok_or_else(missing)
}

/// Refuses what is built for other machines before it is built.
fn check_target(target: String) -> Result<String, CliError> {
    if target.contains("wasm") {
        return Ok(target);
    }
    let problem = format!(
        "expected a target for Wasm, such as `{}`, got `{target}`: `--target` goes before \
         CARGO_BUILD_TARGET",
        TARGETS[0]
    );
    Err(CliError::Usage(problem))
}

/// The first of [`TARGETS`] whose standard library is there, whether rustup or somebody else has
/// installed it.
async fn installed_target(dir: &Path) -> Result<String, CliError> {
    for target in TARGETS {
        let mut rustc = Command::new("rustc");
        rustc.args(["--print", "target-libdir", "--target", target]).stderr(Stdio::null());
        let ended = run(rustc, dir).await?;
        let folder = String::from_utf8_lossy(&ended.stdout).into_owned();
        if ended.status.success() && Path::new(folder.trim()).is_dir() {
            return Ok(target.to_owned());
        }
    }
    let problem = "neither `wasm32-wasip2` nor `wasm32-unknown-unknown` is installed: \
                   `rustup target add wasm32-wasip2` installs the first";
    Err(CliError::Build(problem.to_owned()))
}

/// Builds the crate and returns the file that holds the module or component.
async fn cargo_build(dir: &Path, manifest: &Path, target: &str) -> Result<PathBuf, CliError> {
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--message-format", "json-render-diagnostics"]);
    cargo.args(["--target", target]);
    let ended = run(cargo, dir).await?;
    if !ended.status.success() {
        return Err(CliError::Build(format!("`cargo build` has failed with {}", ended.status)));
    }
    let manifest =
        manifest.canonicalize().map_err(|error| CliError::unreadable(manifest, error))?;
    artifact(&String::from_utf8_lossy(&ended.stdout), &manifest).ok_or_else(|| {
        let problem = "the crate makes no Wasm library: expected `crate-type = [\"cdylib\"]` in \
                       the `[lib]` of its Cargo.toml";
        CliError::Build(problem.to_owned())
    })
}

/// Runs a tool in the crate's folder, whose settings hold there; what it says comes through.
async fn run(mut tool: Command, dir: &Path) -> Result<Ended, CliError> {
    let name = tool.as_std().get_program().to_string_lossy().into_owned();
    let failed = |error| CliError::Build(format!("cannot run `{name}`: {error}"));
    tool.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    tool.spawn().map_err(failed)?.wait_with_output().await.map_err(failed)
}

/// The Wasm library of the crate with this manifest, among the messages of a build.
fn artifact(messages: &str, manifest: &Path) -> Option<PathBuf> {
    let is_ours = |message: &Value| {
        let is_of_manifest = || {
            let path = message.get("manifest_path").and_then(Value::as_str);
            path.and_then(|path| Path::new(path).canonicalize().ok()).as_deref() == Some(manifest)
        };
        let kinds = items(message.get("target").unwrap_or(&Value::Null), "kind");
        cell(message, "reason") == "compiler-artifact"
            && kinds.iter().any(|kind| kind == "cdylib")
            && is_of_manifest()
    };
    let messages = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
    let files = |message: Value| {
        let files = items(&message, "filenames").iter();
        let mut paths = files.filter_map(Value::as_str).map(PathBuf::from);
        paths.find(|path| path.extension() == Some(OsStr::new("wasm")))
    };
    messages.filter(is_ours).find_map(files)
}

/// What to do if a module cannot become a component.
fn no_component(reason: &str) -> CliError {
    let hint = if reason.contains("wasi_snapshot_preview1") {
        "; a module for `wasm32-wasip1` cannot become one: build for `wasm32-wasip2`"
    } else {
        ""
    };
    CliError::Build(format!("the module cannot become a component: {reason}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(reason: &str, manifest: &Path, kind: &str, file: &str) -> String {
        let message = json!({
            "reason": reason,
            "manifest_path": manifest,
            "target": { "kind": [kind], "name": "orders" },
            "filenames": ["/t/release/orders.d", file],
        });
        format!("{message}\n")
    }

    #[test]
    fn the_crates_own_library_is_found_among_the_messages() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = folder.path().canonicalize().unwrap().join("Cargo.toml");
        fs::write(&manifest, "").unwrap();
        let elsewhere = folder.path().join("dependency/Cargo.toml");
        let ours = message("compiler-artifact", &manifest, "cdylib", "/t/release/orders.wasm");
        let others = [
            message("compiler-artifact", &elsewhere, "cdylib", "/t/release/dependency.wasm"),
            message("compiler-artifact", &manifest, "custom-build", "/t/release/build.wasm"),
            message("compiler-artifact", &manifest, "cdylib", "/t/release/liborders.so"),
            message("build-script-executed", &manifest, "cdylib", "/t/release/script.wasm"),
            "text of a build script\n".to_owned(),
        ]
        .concat();
        assert_eq!(artifact(&others, &manifest), None);
        let found = artifact(&format!("{others}{ours}"), &manifest);
        assert_eq!(found, Some(PathBuf::from("/t/release/orders.wasm")));
    }

    #[test]
    fn a_crate_has_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = folder.path().join("Cargo.toml");
        assert_eq!(package_name(&manifest).unwrap_err().exit_code(), 4);
        for (text, name) in [
            ("[package]\nname = \"my_orders\"", Some("my_orders")),
            ("[workspace]", None),
            ("[package", None),
        ] {
            fs::write(&manifest, text).unwrap();
            assert_eq!(package_name(&manifest).ok().as_deref(), name, "{text}");
        }
    }

    #[test]
    fn other_machines_targets_are_refused() {
        for (target, is_valid) in [
            ("wasm32-wasip2", true),
            ("targets/wasm32-mine.json", true),
            ("x86_64-unknown-linux-gnu", false),
        ] {
            assert_eq!(check_target(target.to_owned()).is_ok(), is_valid, "{target}");
        }
    }

    #[test]
    fn a_build_says_what_it_made() {
        let made = json!({ "file": "./orders.wasm", "size": 85_271, "target": "wasm32-wasip2" });
        assert_eq!(human(&made), "./orders.wasm  83.27 KiB, for wasm32-wasip2\n");
    }

    #[test]
    fn a_module_for_the_old_wasi_is_told_apart() {
        let error = no_component("module requires an import of `wasi_snapshot_preview1`");
        assert!(error.to_string().contains("build for `wasm32-wasip2`"), "{error}");
        assert!(!no_component("other").to_string().contains("wasip2"));
    }
}
