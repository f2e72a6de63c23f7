//! State values as JSON, and lists of them in pages.

use serde::Serialize;
use serde::de::DeserializeOwned;
use stream_storage::{CommitError, ProjectName, StateEntry, Store, StoreError, Versioned};

/// How often a transaction is tried when its conditions no longer hold: far more than any contest
/// between people needs, and an end to what would never succeed.
const ATTEMPTS_MAX: usize = 16;

/// Rows read at once when a list is wanted whole.
const SCAN_ROWS: usize = 1_000;

/// Which part of a list is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// Start behind this name.
    pub after: Option<String>,
    /// At most this many; all if `None`.
    pub limit: Option<usize>,
}

/// Part of a list, in the order of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// What was asked for.
    pub items: Vec<T>,
    /// What to give as `after` to get more; `None` at the end.
    pub next: Option<String>,
}

/// Counts the attempts of a transaction that is built from what was read before it.
#[derive(Debug, Default)]
pub(crate) struct Attempts(usize);

impl Attempts {
    /// Says whether to read again and retry.
    ///
    /// # Errors
    ///
    /// The error given: it is no conflict, or there were enough attempts.
    pub(crate) fn again(&mut self, error: CommitError) -> Result<(), CommitError> {
        self.0 += 1;
        match error {
            CommitError::Conflict { .. } if self.0 < ATTEMPTS_MAX => Ok(()),
            error => Err(error),
        }
    }
}

/// The stored form of a state value.
#[expect(clippy::expect_used, reason = "plain structs with string keys always serialise")]
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("a plain struct serialises")
}

/// Reads a state value.
pub(crate) fn decode<T: DeserializeOwned>(
    key: &[u8],
    versioned: &Versioned,
) -> Result<T, StoreError> {
    serde_json::from_slice(&versioned.value).map_err(|error| StoreError::Corrupt {
        reason: format!("state key `{}`: {error}", String::from_utf8_lossy(key)),
    })
}

/// The rows whose keys are `prefix` and a name.
pub(crate) async fn page(
    store: &dyn Store,
    project: &ProjectName,
    prefix: &str,
    request: &PageRequest,
) -> Result<Page<StateEntry>, StoreError> {
    let mut items: Vec<StateEntry> = Vec::new();
    let wanted = request.limit.unwrap_or(usize::MAX);
    let mut after = request.after.as_ref().map(|name| format!("{prefix}{name}").into_bytes());
    loop {
        // One more than wanted shows whether there is a next page.
        let rows = wanted.saturating_sub(items.len()).saturating_add(1).min(SCAN_ROWS);
        let found = store.scan(project, prefix.as_bytes(), after.as_deref(), rows).await?;
        let is_last = found.len() < rows;
        items.extend(found);
        if is_last || items.len() > wanted {
            break;
        }
        after = items.last().map(|entry| entry.key.to_vec());
    }
    let has_more = items.len() > wanted;
    items.truncate(wanted);
    let next = items.last().filter(|_| has_more).map(|entry| name_in(&entry.key, prefix));
    Ok(Page { items, next })
}

/// What stands behind `prefix` in a state key.
pub(crate) fn name_in(key: &[u8], prefix: &str) -> String {
    String::from_utf8_lossy(key.get(prefix.len()..).unwrap_or_default()).into_owned()
}

impl<T> Page<T> {
    /// The same page of other items.
    pub(crate) fn try_map<U, E>(self, map: impl FnMut(T) -> Result<U, E>) -> Result<Page<U>, E> {
        let items = self.items.into_iter().map(map).collect::<Result<_, E>>()?;
        Ok(Page { items, next: self.next })
    }
}
