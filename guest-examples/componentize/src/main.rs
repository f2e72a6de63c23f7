//! Makes a component of each core module that a linker for `wasm32-unknown-unknown` left.
//!
//! `componentize TO FROM…` writes a component into the folder `TO` for each module `FROM`, under
//! its name with `-` for `_`. What it exports and imports is in the sections that wit-bindgen left
//! in the module; what the module does not use is not imported.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result};
use wit_component::ComponentEncoder;

fn main() -> Result<()> {
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    let to = arguments.next().context("expected a folder, then core modules")?;
    for from in arguments {
        let name = from.file_name().context("expected a file")?.to_string_lossy().replace('_', "-");
        let component = componentize(&from).with_context(|| from.display().to_string())?;
        fs::write(to.join(name), component)?;
    }
    Ok(())
}

fn componentize(module: &Path) -> Result<Vec<u8>> {
    ComponentEncoder::default()
        .debug_names(false)
        .module(&fs::read(module)?)?
        .validate(true)
        .encode()
}
