//! Compiled code on disk, so that a component is compiled once and not at every start.
//!
//! A file is `{digest}-{compatibility}.cwasm`: 32 bytes of HMAC-SHA256 over its name and the code,
//! then the code. Loading code is as good as running it, so the key is the server's own: a file that
//! another program wrote, or that is damaged, is not loaded but compiled again.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use hmac::{Hmac, Mac};
use sha2::Sha256;

const MAC_BYTES: usize = 32;

/// A folder of compiled code.
pub(super) struct Cache {
    folder: PathBuf,
    key: [u8; 32],
}

impl Cache {
    pub(super) fn new(folder: PathBuf, key: [u8; 32]) -> Self {
        Self { folder, key }
    }

    /// The code of a component, if this server has written it.
    pub(super) fn read(&self, digest: &str, compatibility: &str) -> Option<Vec<u8>> {
        let name = file_name(digest, compatibility);
        let mut bytes = fs::read(self.folder.join(&name)).ok()?;
        let (mac, code) = bytes.split_at_checked(MAC_BYTES)?;
        if self.mac(&name, code).verify_slice(mac).is_err() {
            tracing::warn!(file = %name, "compiled code is not as it was written; it is ignored");
            return None;
        }
        bytes.drain(..MAC_BYTES);
        Some(bytes)
    }

    /// Keeps code. What was written before is replaced whole, or not at all.
    pub(super) fn write(&self, digest: &str, compatibility: &str, code: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let name = file_name(digest, compatibility);
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(&self.mac(&name, code).finalize().into_bytes())?;
        file.write_all(code)?;
        file.persist(self.folder.join(name)).map_err(|error| error.error)?;
        Ok(())
    }

    /// Whether there is anything.
    pub(super) fn is_empty(&self) -> bool {
        fs::read_dir(&self.folder).is_ok_and(|mut files| files.next().is_none())
            || !self.folder.exists()
    }

    /// Removes what is of other settings, or of components that `is_wanted` does not know.
    pub(super) fn sweep(
        &self,
        compatibility: &str,
        is_wanted: impl Fn(&str) -> bool,
    ) -> io::Result<()> {
        let files = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            files => files?,
        };
        for file in files {
            let path = file?.path();
            if !keeps(&path, compatibility, &is_wanted) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    fn mac(&self, name: &str, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::new_from_slice(&self.key).expect("any length is a key");
        mac.update(name.as_bytes());
        mac.update(code);
        mac
    }
}

fn file_name(digest: &str, compatibility: &str) -> String {
    format!("{digest}-{compatibility}.cwasm")
}

fn keeps(path: &Path, compatibility: &str, is_wanted: impl Fn(&str) -> bool) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let parts = name.strip_suffix(".cwasm").and_then(|stem| stem.split_once('-'));
    parts.is_some_and(|(digest, other)| other == compatibility && is_wanted(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(folder: &Path) -> Cache {
        Cache::new(folder.join("cache"), [7; 32])
    }

    #[test]
    fn code_reads_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        assert_eq!(cache.read("d", "c"), None);
        cache.write("d", "c", b"code").unwrap();
        assert_eq!(cache.read("d", "c").as_deref(), Some(&b"code"[..]));
        assert_eq!(cache.read("d", "other"), None);
    }

    #[test]
    fn a_damaged_a_renamed_and_a_foreign_file_are_not_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        cache.write("d", "c", b"code").unwrap();
        let path = |digest| cache.folder.join(file_name(digest, "c"));
        fs::copy(path("d"), path("e")).unwrap();
        assert_eq!(cache.read("e", "c"), None, "renamed");
        let foreign = Cache { folder: cache.folder.clone(), key: [8; 32] };
        assert_eq!(foreign.read("d", "c"), None, "of another server");
        for at in [0, MAC_BYTES, MAC_BYTES + 3] {
            let mut bytes = fs::read(path("d")).unwrap();
            bytes[at] ^= 1;
            fs::write(path("d"), &bytes).unwrap();
            assert_eq!(cache.read("d", "c"), None, "flipped at {at}");
            bytes[at] ^= 1;
            fs::write(path("d"), &bytes).unwrap();
        }
        fs::write(path("d"), b"short").unwrap();
        assert_eq!(cache.read("d", "c"), None, "cut");
    }

    #[test]
    fn a_sweep_keeps_what_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        cache.sweep("c", |_| true).unwrap();
        for (digest, compatibility) in [("a", "c"), ("b", "c"), ("a", "old")] {
            cache.write(digest, compatibility, b"code").unwrap();
        }
        fs::write(cache.folder.join(".tmp-left"), b"").unwrap();
        cache.sweep("c", |digest| digest == "a").unwrap();
        let left: Vec<_> =
            fs::read_dir(&cache.folder).unwrap().map(|f| f.unwrap().file_name()).collect();
        assert_eq!(left, ["a-c.cwasm"]);
    }
}
