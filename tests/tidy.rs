//! The invariants of the code map that no type holds: who may name whom, and how long a file is.
#![cfg(test)]

use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 500;

/// A word, and the only places whose code may have it.
const ALLOWED: &[(&str, &[&str])] = &[
    ("fjall", &["storage/src/embedded/", "storage/benches/", "storage/tests/"]),
    ("wasmtime", &["host/src/plugin/"]),
    ("object_store", &["host/src/ledger/"]),
    ("axum", &["host/src/http/", "host/src/cli/"]),
    ("StatusCode", &["host/src/http/", "host/src/cli/", "host/src/connector/"]),
    ("reqwest", &["host/src/cli/", "host/src/egress/", "tests/"]),
    (
        "EmbeddedStore",
        &[
            "storage/",
            "host/src/cli/serve",
            "host/src/http/tests/",
            "host/src/hooks/tests/",
            "host/src/queue/tests",
            "host/src/registry/tests",
            "host/src/ledger/tests/",
            "host/benches/",
            "tests/e2e/ledger",
            "tests/instructions/",
        ],
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every Rust file of the project, as its path from the root, with its text.
fn sources() -> Vec<(String, String)> {
    let root = root();
    let mut folders: Vec<PathBuf> =
        ["storage", "host", "tests"].iter().map(|name| root.join(name)).collect();
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                sources.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(sources.len() > 40, "the project's sources are found");
    sources
}

/// The text before the unit tests.
fn code(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

#[test]
fn each_layer_names_only_what_it_may_know() {
    let mut wrong = Vec::new();
    for (name, text) in sources().iter().filter(|(name, _)| name != "tests/tidy.rs") {
        for (word, places) in ALLOWED {
            let allowed = places.iter().any(|place| name.starts_with(place));
            let found = code(text).lines().any(|line| !is_comment(line) && line.contains(word));
            if found && !allowed {
                wrong.push(format!("{name} names {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_says_what_it_owns_and_is_short() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let lines = code(&text).lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{name} has {lines} lines before its tests"));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{name} does not begin with `//!`"));
        }
        let stem = Path::new(&name).file_stem().unwrap().to_str().unwrap();
        if ["utils", "util", "helpers", "common", "misc"].contains(&stem) {
            wrong.push(format!("{name} has a name that says nothing"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
