//! Secrets that the server keeps for its users, sealed: what lies in the store is of no use without
//! the key, which lies elsewhere.
//!
//! A sealed secret is a text: `v1.{key id}.{base64url of nonce, ciphertext and tag}`, sealed with
//! ChaCha20-Poly1305 under a fresh random nonce. The context that it is sealed for (which secret of
//! whom) is authenticated with it, so that one moved to another place does not open there. The key id
//! tells a wrong key from damage.
//!
//! The key is drawn by HKDF-SHA-256 from `STREAM_SECRET_KEY`, any text of at least 32 characters
//! (HKDF does not slow a guesser: take a random one, such as `openssl rand -base64 32` prints), or
//! from 32 random bytes in `secret.key` in the data folder, which is made when it is not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use ring::rand::{SecureRandom, SystemRandom};

const FORMAT: &str = "v1";
const FILE: &str = "secret.key";
const FILE_BYTES: usize = 32;
/// Who may read and write the file: its owner.
const FILE_MODE: u32 = 0o600;
/// Anybody else, in any way.
const MODE_OF_OTHERS: u32 = 0o077;
const KEY_ID_BYTES: usize = 4;

/// Shorter keys can be guessed.
pub const KEY_CHARS_MIN: usize = 32;

/// Why there is no key to seal with.
#[derive(Debug, thiserror::Error)]
pub enum SecretKeyError {
    /// The file cannot be read or made.
    #[error("cannot use `{path}`: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// Others may read the file.
    #[error("`{path}` may be used by others (mode {mode:o}): `chmod 600` it")]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file does not hold what was written to it.
    #[error("`{path}` holds no key: expected the base64 of 32 bytes")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no random bytes, or the library no key.
    #[error("the system's cryptography fails")]
    System,
}

/// Why a secret was not sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Another key has sealed it.
    #[error("the secret is sealed with another key: start the server with the one it had then")]
    OtherKey,
    /// It was changed, or sealed for something else.
    #[error("the sealed secret is damaged")]
    Damaged,
    /// The system gives no random bytes, or the secret is huge.
    #[error("the system's cryptography fails")]
    System,
}

/// Seals and opens secrets.
pub struct Sealer {
    key: LessSafeKey,
    key_id: String,
    random: SystemRandom,
}

/// What is never written to a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes a secret that came in.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Sealer {
    /// With the key that `text` stands for.
    ///
    /// # Errors
    ///
    /// The library fails.
    pub fn from_text(text: &str) -> Result<Self, SecretKeyError> {
        Self::from_bytes(text.trim().as_bytes())
    }

    /// With the key of the data folder, made if it is not there. Durable on return.
    ///
    /// # Errors
    ///
    /// It cannot be read or made, or others may read it.
    pub fn open(folder: &Path) -> Result<Self, SecretKeyError> {
        let path = folder.join(FILE);
        let file = |source| SecretKeyError::File { path: path.clone(), source };
        let found = match fs::metadata(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::make(folder),
            Err(error) => return Err(file(error)),
        };
        if found.mode() & MODE_OF_OTHERS != 0 {
            return Err(SecretKeyError::Open { path, mode: found.mode() & 0o777 });
        }
        let text = fs::read_to_string(&path).map_err(file)?;
        match STANDARD.decode(text.trim()) {
            Ok(bytes) if bytes.len() == FILE_BYTES => Self::from_bytes(&bytes),
            _ => Err(SecretKeyError::Damaged { path }),
        }
    }

    fn make(folder: &Path) -> Result<Self, SecretKeyError> {
        let path = folder.join(FILE);
        let mut bytes = [0; FILE_BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| SecretKeyError::System)?;
        let text = format!("{}\n", STANDARD.encode(bytes));
        let write = || {
            fs::create_dir_all(folder)?;
            // Written whole under another name first: a file that is there holds a key.
            let part = folder.join(format!("{FILE}.part"));
            let _ = fs::remove_file(&part);
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&part)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&part, &path)?;
            File::open(folder)?.sync_all()
        };
        write().map_err(|source| SecretKeyError::File { path: path.clone(), source })?;
        Self::from_bytes(&bytes)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, SecretKeyError> {
        let drawn = Salt::new(HKDF_SHA256, b"stream/secret").extract(bytes);
        let mut key = [0; 32];
        expand(&drawn, b"seal", &mut key)?;
        let mut key_id = [0; KEY_ID_BYTES];
        expand(&drawn, b"key id", &mut key_id)?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, &key).map_err(|_| SecretKeyError::System)?;
        Ok(Self {
            key: LessSafeKey::new(key),
            key_id: URL_SAFE_NO_PAD.encode(key_id),
            random: SystemRandom::new(),
        })
    }

    /// Seals a secret for one place: `context` names it.
    ///
    /// # Errors
    ///
    /// The system fails.
    pub fn seal(&self, context: &str, secret: &Secret) -> Result<String, SealError> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| SealError::System)?;
        let mut sealed = secret.expose().to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                self.aad(context),
                &mut sealed,
            )
            .map_err(|_| SealError::System)?;
        let bytes = [&nonce[..], &sealed].concat();
        Ok(format!("{FORMAT}.{}.{}", self.key_id, URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Opens what was sealed for the same `context`.
    ///
    /// # Errors
    ///
    /// It was sealed with another key or for another context, or was changed.
    pub fn open_sealed(&self, context: &str, sealed: &str) -> Result<Secret, SealError> {
        let mut parts = sealed.splitn(3, '.');
        let (format, key_id, text) = (parts.next(), parts.next(), parts.next());
        if format != Some(FORMAT) {
            return Err(SealError::Damaged);
        }
        if key_id != Some(&self.key_id) {
            return Err(SealError::OtherKey);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text.unwrap_or_default());
        let bytes = bytes.map_err(|_| SealError::Damaged)?;
        let (nonce, sealed) = bytes.split_first_chunk().ok_or(SealError::Damaged)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.key.open_in_place(nonce, self.aad(context), &mut sealed);
        opened.map(|bytes| Secret(bytes.to_vec())).map_err(|_| SealError::Damaged)
    }

    fn aad(&self, context: &str) -> Aad<Vec<u8>> {
        Aad::from([FORMAT, ".", &self.key_id, ".", context].concat().into_bytes())
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// So many bytes.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand(drawn: &Prk, purpose: &[u8], out: &mut [u8]) -> Result<(), SecretKeyError> {
    let length = out.len();
    let filled = drawn.expand(&[purpose], Length(length)).and_then(|okm| okm.fill(out));
    filled.map_err(|_| SecretKeyError::System)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const KEY: &str = "a text of at least thirty-two characters";

    fn secret() -> Secret {
        Secret::new(b"whsec_abc".to_vec())
    }

    #[test]
    fn what_is_sealed_opens_with_the_same_key_and_context() {
        let sealed = Sealer::from_text(KEY).unwrap().seal("endpoint/1", &secret()).unwrap();
        assert!(sealed.starts_with("v1.") && !sealed.contains("whsec"), "{sealed}");
        // With a line's end, as a file of secrets may have it.
        let again = Sealer::from_text(&format!("{KEY}\n")).unwrap();
        assert_eq!(again.open_sealed("endpoint/1", &sealed).unwrap(), secret());
        let moved = again.open_sealed("endpoint/2", &sealed);
        assert_eq!(moved, Err(SealError::Damaged));
    }

    #[test]
    fn sealed_twice_it_looks_different() {
        let sealer = Sealer::from_text(KEY).unwrap();
        assert_ne!(sealer.seal("a", &secret()).unwrap(), sealer.seal("a", &secret()).unwrap());
    }

    #[test]
    fn another_key_is_told_from_damage() {
        let sealer = Sealer::from_text(KEY).unwrap();
        let sealed = sealer.seal("a", &secret()).unwrap();
        let other = Sealer::from_text("another text of at least thirty-two characters").unwrap();
        assert_eq!(other.open_sealed("a", &sealed), Err(SealError::OtherKey));
        let last = sealed.chars().last().unwrap();
        let turned = if last == 'A' { 'Q' } else { 'A' };
        let changed = format!("{}{turned}", &sealed[..sealed.len() - 1]);
        for damaged in [changed.as_str(), &sealed[..20], "", "v1", "v2.x.y", "whsec_abc"] {
            assert!(sealer.open_sealed("a", damaged).is_err(), "{damaged}");
        }
        assert_eq!(sealer.open_sealed("a", &changed), Err(SealError::Damaged));
    }

    #[test]
    fn the_key_file_is_made_once_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let sealed = Sealer::open(&data).unwrap().seal("a", &secret()).unwrap();
        let mode = fs::metadata(data.join(FILE)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(Sealer::open(&data).unwrap().open_sealed("a", &sealed).unwrap(), secret());
    }

    #[test]
    fn a_key_file_that_others_may_read_or_that_is_damaged_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        Sealer::open(folder.path()).unwrap();
        for mode in [0o640, 0o604, 0o610, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let refused = Sealer::open(folder.path());
            assert!(matches!(refused, Err(SecretKeyError::Open { .. })), "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "c2hvcnQ=\n").unwrap();
        let refused = Sealer::open(folder.path());
        assert!(matches!(refused, Err(SecretKeyError::Damaged { .. })), "{refused:?}");
    }

    #[test]
    fn neither_key_nor_secret_is_shown() {
        let shown = format!("{:?} {:?}", Sealer::from_text(KEY).unwrap(), secret());
        assert!(!shown.contains("thirty") && !shown.contains("whsec"), "{shown}");
    }
}
