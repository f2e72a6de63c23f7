//! How private keys are kept: sealed before they reach the store, opened to sign.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// Seals secrets. What `context` names is bound to the secret: it opens under the same name only.
pub trait Sealer: Send + Sync {
    /// Seals a secret as a text.
    ///
    /// # Errors
    ///
    /// There is no key to seal with.
    fn seal(&self, context: &str, secret: &[u8]) -> Result<String, SealError>;

    /// Opens what was sealed.
    ///
    /// # Errors
    ///
    /// It was sealed with another key or under another name, or is damaged.
    fn open(&self, context: &str, sealed: &str) -> Result<Vec<u8>, SealError>;
}

/// A secret cannot be sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealError(pub String);

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SealError {}

/// Seals nothing: what is in the store can be read by whoever reads the store.
pub struct Unsealed;

impl Sealer for Unsealed {
    fn seal(&self, _: &str, secret: &[u8]) -> Result<String, SealError> {
        Ok(BASE64_STANDARD.encode(secret))
    }

    fn open(&self, _: &str, sealed: &str) -> Result<Vec<u8>, SealError> {
        BASE64_STANDARD.decode(sealed).map_err(|_| SealError("the secret is damaged".to_owned()))
    }
}
