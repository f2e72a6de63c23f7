//! Checkpoints as signed notes with Ed25519 keys (c2sp.org/signed-note, c2sp.org/tlog-checkpoint).

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use sha2::{Digest, Sha256};

use super::merkle::{Hash, Mark};

/// The signature type: Ed25519 over the note's text.
const ED25519_TYPE: u8 = 1;

/// A checkpoint that is longer is none: its text and a hundred cosignatures fit.
const NOTE_BYTES_MAX: usize = 64 << 10;

/// What checks a ledger's signatures; public. Its text is `<name>+<key id>+<key>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key: [u8; 32],
}

/// Why a key, a checkpoint or a receipt is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It does not have the form.
    #[error("malformed {what}: {reason}")]
    Malformed {
        /// What was read.
        what: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// It has no signature of the key.
    #[error("not signed by `{key}`")]
    NotSigned {
        /// The key's name.
        key: String,
    },
    /// The key's signature does not fit the text.
    #[error("the signature of `{key}` is wrong")]
    BadSignature {
        /// The key's name.
        key: String,
    },
    /// It is another ledger's.
    #[error("the origin is `{got}`, expected `{expected}`")]
    OtherOrigin {
        /// The origin of the checkpoint.
        got: String,
        /// The key's name.
        expected: String,
    },
}

impl VerifierKey {
    /// A key under its name, which has no space and no `+`.
    fn new(name: &str, key: [u8; 32]) -> Self {
        Self { name: name.to_owned(), key }
    }

    /// Reads `<name>+<key id>+<key>`.
    ///
    /// # Errors
    ///
    /// It does not have that form, or it is no Ed25519 key.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let malformed = |reason| NoteError::Malformed { what: "verifier key", reason };
        let form = malformed("expected `<name>+<key id>+<base64>`");
        let (name, rest) = text.trim().split_once('+').ok_or_else(|| form.clone())?;
        let (id, key) = rest.split_once('+').ok_or(form)?;
        let bytes = BASE64_STANDARD.decode(key).map_err(|_| malformed("the key is not base64"))?;
        let Some((&ED25519_TYPE, key)) = bytes.split_first() else {
            return Err(malformed("it is no Ed25519 key"));
        };
        let key = key.try_into().map_err(|_| malformed("an Ed25519 key has 32 bytes"))?;
        let found = Self::new(name, key);
        if !is_name(name) {
            return Err(malformed("the name is empty, or has a space"));
        }
        if id != format!("{:08x}", u32::from_be_bytes(found.id())) {
            return Err(malformed("the key id is not that of the name and the key"));
        }
        Ok(found)
    }

    /// The key's name, which is the ledger's origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> [u8; 4] {
        let hash = Sha256::new()
            .chain_update(&self.name)
            .chain_update([b'\n', ED25519_TYPE])
            .chain_update(self.key)
            .finalize();
        let [a, b, c, d, ..]: [u8; 32] = hash.into();
        [a, b, c, d]
    }

    /// The text of a note that this key has signed. Signatures of other keys are passed over.
    fn open<'n>(&self, note: &'n str) -> Result<&'n str, NoteError> {
        let malformed = |reason| NoteError::Malformed { what: "checkpoint", reason };
        if note.len() > NOTE_BYTES_MAX {
            return Err(malformed("it is too long"));
        }
        if note.bytes().any(|byte| byte < b' ' && byte != b'\n') {
            return Err(malformed("it has a control character"));
        }
        let end = note.rfind("\n\n").ok_or(malformed("there is no empty line"))?;
        let (text, signatures) = note.split_at(end + 1);
        let signatures = signatures.strip_prefix('\n').unwrap_or_default();
        let signatures = signatures
            .strip_suffix('\n')
            .ok_or(malformed("it does not end with a signature and a line break"))?;
        let mut is_signed = false;
        for line in signatures.split('\n') {
            let parts = line.strip_prefix("— ").and_then(|line| line.split_once(' '));
            let (name, signature) = parts.ok_or(malformed("a signature line is none"))?;
            let signature = BASE64_STANDARD
                .decode(signature)
                .map_err(|_| malformed("a signature is not base64"))?;
            let (id, signature) =
                signature.split_at_checked(4).ok_or(malformed("a signature has no key id"))?;
            if name != self.name || id != self.id() {
                continue;
            }
            let key = UnparsedPublicKey::new(&ED25519, self.key);
            key.verify(text.as_bytes(), signature)
                .map_err(|_| NoteError::BadSignature { key: self.name.clone() })?;
            is_signed = true;
        }
        if is_signed { Ok(text) } else { Err(NoteError::NotSigned { key: self.name.clone() }) }
    }

    /// The tree of a checkpoint that this key has signed for the origin of its own name.
    ///
    /// # Errors
    ///
    /// It is malformed, of another origin, or not signed by this key.
    pub fn checkpoint(&self, note: &[u8]) -> Result<Mark, NoteError> {
        let malformed = |reason| NoteError::Malformed { what: "checkpoint", reason };
        let note = std::str::from_utf8(note).map_err(|_| malformed("it is not UTF-8"))?;
        let text = self.open(note)?;
        let mut lines = text.split('\n');
        let mut line = || lines.next().filter(|line| !line.is_empty());
        let short = malformed("expected an origin, a size and a hash");
        let (Some(origin), Some(size), Some(root)) = (line(), line(), line()) else {
            return Err(short);
        };
        if origin != self.name {
            let expected = self.name.clone();
            return Err(NoteError::OtherOrigin { got: origin.to_owned(), expected });
        }
        let number: u64 = size.parse().map_err(|_| malformed("the size is no number"))?;
        if number.to_string() != size {
            return Err(malformed("the size is no number"));
        }
        let root = Hash::parse(root).ok_or(malformed("the hash is none"))?;
        Ok(Mark { size: number, root })
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = u32::from_be_bytes(self.id());
        let key: Vec<u8> = std::iter::once(ED25519_TYPE).chain(self.key).collect();
        write!(f, "{}+{id:08x}+{}", self.name, BASE64_STANDARD.encode(key))
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
}

/// What signs a ledger's checkpoints; never shown.
pub struct Signer {
    pair: Ed25519KeyPair,
    verifier: VerifierKey,
}

impl Signer {
    /// Reads a private key (PKCS#8) for checkpoints of this origin.
    ///
    /// # Errors
    ///
    /// The bytes are no key, or no origin has this name.
    pub fn new(origin: &str, private: &[u8]) -> Result<Self, NoteError> {
        let malformed = |reason| NoteError::Malformed { what: "signing key", reason };
        if !is_name(origin) {
            return Err(malformed("the origin is empty, or has a space or a `+`"));
        }
        let pair = Ed25519KeyPair::from_pkcs8(private)
            .map_err(|_| malformed("it is no Ed25519 key in PKCS#8"))?;
        let public = pair.public_key().as_ref().try_into();
        let key = public.map_err(|_| malformed("an Ed25519 key has 32 bytes"))?;
        Ok(Self { verifier: VerifierKey::new(origin, key), pair })
    }

    /// What checks its signatures.
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// The checkpoint of a tree. The same tree has the same checkpoint: Ed25519 leaves nothing to
    /// chance.
    pub fn checkpoint(&self, tree: Mark) -> String {
        let name = self.verifier.name();
        let text = format!("{name}\n{}\n{}\n", tree.size, tree.root);
        let mut signature = self.verifier.id().to_vec();
        signature.extend_from_slice(self.pair.sign(text.as_bytes()).as_ref());
        format!("{text}\n— {name} {}\n", BASE64_STANDARD.encode(signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;

    fn signer(origin: &str) -> Signer {
        let private = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Signer::new(origin, private.as_ref()).unwrap()
    }

    /// The example of the specification.
    #[test]
    fn the_note_of_the_specification_is_opened_by_its_key() {
        let text = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
        let key = VerifierKey::parse(text).unwrap();
        assert_eq!(key.to_string(), text);
        let note = "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1Y\
                    Eq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
        assert_eq!(key.open(note), Ok("This is an example message.\n"));
        let forged = note.replace("example message", "Example message");
        assert!(matches!(key.open(&forged), Err(NoteError::BadSignature { .. })));
        let stranger = note.replace("— example.com/foo", "— example.com/bar");
        assert!(matches!(key.open(&stranger), Err(NoteError::NotSigned { .. })));
    }

    #[test]
    fn a_checkpoint_is_read_as_it_was_signed() {
        let signer = signer("a.example/log");
        let tree = Mark { size: 7, root: Hash::of_leaf(b"x") };
        let note = signer.checkpoint(tree);
        assert_eq!(signer.checkpoint(tree), note);
        let key = VerifierKey::parse(&signer.verifier().to_string()).unwrap();
        assert_eq!(key.checkpoint(note.as_bytes()), Ok(tree));
        // A witness adds its line.
        let witness = super::tests::signer("w.example");
        let line = witness.checkpoint(tree).lines().last().unwrap().to_owned();
        let both = format!("{note}{line}\n");
        assert_eq!(key.checkpoint(both.as_bytes()), Ok(tree));
    }

    #[test]
    fn what_was_changed_is_refused() {
        let signer = signer("a.example/log");
        let note = signer.checkpoint(Mark { size: 7, root: Hash::of_leaf(b"x") });
        let key = signer.verifier();
        for position in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[position] ^= 1;
            assert!(key.checkpoint(&bytes).is_err(), "byte {position}");
            assert!(key.checkpoint(&note.as_bytes()[..position]).is_err(), "cut at {position}");
        }
        // Another origin under the same key.
        let private = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let other = Signer::new("b.example/log", private.as_ref()).unwrap();
        let note = other.checkpoint(Mark::empty()).replace("— b.example", "— a.example");
        assert!(other.verifier().checkpoint(note.as_bytes()).is_err());
        assert!(key.checkpoint(note.as_bytes()).is_err());
    }

    #[test]
    fn a_key_that_is_none_is_refused() {
        let good = signer("a.example/log").verifier().to_string();
        let (name, rest) = good.split_once('+').unwrap();
        let (id, key) = rest.split_once('+').unwrap();
        for text in [
            String::new(),
            format!("{name}+{id}"),
            format!("+{id}+{key}"),
            format!("b.example+{id}+{key}"),
            format!("{name}+{}+{key}", id.to_uppercase().replace(|c: char| c.is_numeric(), "A")),
            format!("{name}+{id}+{}", &key[4..]),
            format!("{name}+{id}+AQ=="),
        ] {
            assert!(VerifierKey::parse(&text).is_err(), "{text}");
        }
        assert!(Signer::new("a b", &[]).is_err() && Signer::new("a", b"x").is_err());
    }
}
