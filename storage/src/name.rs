//! Names that the store itself has to understand: the project, its unit of fairness and of
//! isolation.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// A name that breaks its rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} `{name}`: expected {expected}")]
pub struct InvalidName {
    /// What was being named: `project`, `topic`, ….
    pub what: &'static str,
    /// The input, cut at 64 characters.
    pub name: String,
    /// The rule.
    pub expected: &'static str,
}

impl InvalidName {
    /// An error that quotes at most 64 characters of `name`.
    pub fn new(what: &'static str, name: &str, expected: &'static str) -> Self {
        Self { what, name: name.chars().take(64).collect(), expected }
    }
}

/// A project: the tenant that owns topics, keys and state. 1–64 bytes of `[A-Za-z0-9_-]`; a name
/// that starts with `_` is the server's own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProjectName(Arc<str>);

impl ProjectName {
    /// Longest name, in bytes.
    pub const BYTES_MAX: usize = 64;

    /// Checks a name that a client gave.
    ///
    /// # Errors
    ///
    /// The name is empty, too long, has another character than `[A-Za-z0-9_-]`, or starts with
    /// `_`.
    pub fn parse(name: &str) -> Result<Self, InvalidName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if name.is_empty()
            || name.len() > Self::BYTES_MAX
            || name.starts_with('_')
            || !name.bytes().all(allowed)
        {
            let expected = "1–64 characters of `[A-Za-z0-9_-]`, not starting with `_`";
            return Err(InvalidName::new("project", name, expected));
        }
        Ok(Self(name.into()))
    }

    /// The server's own project, `_system`, which holds what belongs to no tenant.
    pub fn system() -> Self {
        Self("_system".into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for ProjectName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn project_names_follow_the_rule() {
        let longest = "p".repeat(64);
        for name in ["default", "a", "A-9_b", &longest] {
            assert_eq!(ProjectName::parse(name).unwrap().as_str(), name);
        }
        let too_long = "p".repeat(65);
        for name in ["", "_system", "a.b", "a b", "é", "a/b", &too_long] {
            let error = ProjectName::parse(name).unwrap_err();
            assert_eq!(error.name, name.chars().take(64).collect::<String>());
        }
    }
}
