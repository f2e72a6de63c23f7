//! A project's state: small values with versions.

use bytes::Bytes;

use super::cursor::Cursor;
use super::project_prefix;
use crate::{DecodeError, ProjectName, Version, Versioned};

/// The stored key of a project's state key.
pub(in crate::embedded) fn key(project: &ProjectName, key: &[u8]) -> Vec<u8> {
    let mut stored = project_prefix(super::STATE, project);
    stored.extend_from_slice(key);
    stored
}

/// How many bytes stand before the project's own key.
pub(in crate::embedded) fn prefix_len(project: &ProjectName) -> usize {
    2 + project.as_str().len()
}

pub(in crate::embedded) fn encode(version: Version, value: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(8 + value.len());
    stored.extend_from_slice(&version.0.to_le_bytes());
    stored.extend_from_slice(value);
    stored
}

pub(in crate::embedded) fn decode(stored: &Bytes) -> Result<Versioned, DecodeError> {
    let version = Version(Cursor::new(stored, "state").u64()?);
    Ok(Versioned { value: stored.slice(8..), version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_reads_back_with_its_version() {
        let stored = Bytes::from(encode(Version(7), b"value"));
        let expected = Versioned { value: Bytes::from_static(b"value"), version: Version(7) };
        assert_eq!(decode(&stored), Ok(expected));
    }

    #[test]
    fn no_project_sees_the_keys_of_another_whose_name_starts_alike() {
        let (short, long) = (ProjectName::parse("a").unwrap(), ProjectName::parse("ab").unwrap());
        assert!(!key(&long, b"x").starts_with(&key(&short, b"")));
        assert!(!key(&short, b"bx").starts_with(&key(&long, b"")));
    }
}
