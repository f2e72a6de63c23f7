//! The guest library and the contract as files, to be written into new projects: a plugin builds with
//! nothing of this repository but what `stream` brings.

/// A file of the repository, by its path from the crate of the command line.
macro_rules! file {
    ($path:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../", $path))
    };
}

/// Every file of the library: its path from the library's folder, and its text.
pub(super) const FILES: &[(&str, &str)] = &[
    ("Cargo.toml", file!("guest-examples/library/Cargo.toml")),
    ("src/batch.rs", file!("guest-examples/library/src/batch.rs")),
    ("src/bindings.rs", file!("guest-examples/library/src/bindings.rs")),
    ("src/event.rs", file!("guest-examples/library/src/event.rs")),
    ("src/lib.rs", file!("guest-examples/library/src/lib.rs")),
    ("wit/partition.wit", file!("wit/partition.wit")),
    ("wit/route.wit", file!("wit/route.wit")),
    ("wit/transform.wit", file!("wit/transform.wit")),
    ("wit/types.wit", file!("wit/types.wit")),
    ("wit/validate.wit", file!("wit/validate.wit")),
    ("wit/worlds.wit", file!("wit/worlds.wit")),
];

/// Plugins that work, with their tests: what a new project starts from.
pub(super) mod example {
    pub(in super::super) const VALIDATE: &str =
        file!("guest-examples/rust/validate-order/src/lib.rs");
    pub(in super::super) const PARTITION: &str =
        file!("guest-examples/rust/partition-by-field/src/lib.rs");
    pub(in super::super) const ROUTE: &str =
        file!("guest-examples/rust/route-by-content/src/lib.rs");
    pub(in super::super) const TRANSFORM: &str =
        file!("guest-examples/rust/redact-field/src/lib.rs");
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::Path;

    /// The text files below a folder, by their paths from there; links are followed.
    pub(in super::super) fn files_in(folder: &Path) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(next) = folders.pop() {
            for path in next.read_dir().unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                    files.insert(name, std::fs::read_to_string(&path).unwrap());
                }
            }
        }
        files
    }

    #[test]
    fn the_library_is_embedded_whole() {
        let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest-examples/library");
        let owned = |(name, text): &(&str, &str)| (name.to_string(), text.to_string());
        let embedded: BTreeMap<_, _> = FILES.iter().map(owned).collect();
        assert!(embedded == files_in(&library), "`FILES` has what is in {library:?}");
        assert!(FILES.is_sorted());
    }
}
