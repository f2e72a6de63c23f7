//! Opening: what is on the disk is checked, mended, opened and loaded.

use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::EmbeddedConfig;
use super::engine::Engine;
use super::gone::Gone;
use super::keys::commit::{self, LastCommit};
use super::keys::end::{self, End};
use super::keys::topic::{self, Life};
use super::keys::trim::{self, TrimPoint};
use super::keys::{FORMAT, FORMAT_KEY, TRIMMED_KEY, log};
use super::recovery::{self, RecoveryError};
use super::{high_water, journal};
use crate::batch::parse_header;
use crate::{CommitNumber, StoreError};

/// Why a store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made.
    #[error("cannot use data folder `{}`: {source}", path.display())]
    Folder {
        /// The data folder.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// Another process has the folder open.
    #[error("data folder `{}` is in use by another server", path.display())]
    Locked {
        /// The data folder.
        path: PathBuf,
    },
    /// The folder was written by a later version.
    #[error("data folder `{}` has format `{got}`, this version reads `{FORMAT}`", path.display())]
    Format {
        /// The data folder.
        path: PathBuf,
        /// The format found.
        got: u32,
    },
    /// Synced data is missing, or what a crash left cannot be mended.
    #[error("cannot recover data folder `{}`: {reason}", path.display())]
    Recovery {
        /// The data folder.
        path: PathBuf,
        /// What is missing or wrong, and what can be done.
        reason: String,
    },
    /// The database does not open.
    #[error("cannot open data folder `{}`: {reason}", path.display())]
    Database {
        /// The data folder.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
}

/// An engine and where it stands.
pub(super) struct Opened {
    pub(super) engine: Engine,
    pub(super) last_commit: CommitNumber,
}

/// Where fjall keeps its files.
const DATABASE: &str = "db";

/// Opens the data folder, or makes it. `gone` is loaded from it. All that is seen is durable when
/// this returns.
pub(super) fn open_engine(config: &EmbeddedConfig, gone: &Arc<Gone>) -> Result<Opened, OpenError> {
    let EmbeddedConfig { path, accept_loss, .. } = config;
    let accept_loss = *accept_loss;
    std::fs::create_dir_all(path)
        .map_err(|source| OpenError::Folder { path: path.clone(), source })?;
    let database = path.join(DATABASE);
    let recovered = |error| OpenError::recovery(path, &error);
    let prepared = recovery::prepare(&database, accept_loss).map_err(recovered)?;
    gone.clear();
    let engine =
        Engine::open(&database, config.cache_bytes, gone).map_err(|error| match error {
            fjall::Error::Locked => OpenError::Locked { path: path.clone() },
            error => OpenError::database(path, &error),
        })?;
    let failed = |error: StoreError| OpenError::database(path, &error);
    check_format(&engine, path)?;
    load_gone(&engine, gone).map_err(failed)?;
    let last_commit = last_commit(&engine).map_err(failed)?;
    recovery::check_journals(path, &prepared, last_commit, accept_loss)
        .and_then(|()| recovery::check_high_water(path, last_commit, accept_loss))
        .map_err(recovered)?;
    reconcile(&engine, gone, accept_loss).map_err(failed)?;
    engine.sync().map_err(|error| OpenError::database(path, &error))?;
    Ok(Opened { engine, last_commit })
}

/// Writes the last journal anew. After a failed sync the system may hold in memory, as if it were on
/// the disk, what never got there: a copy that is synced is what the next start will find.
pub(super) fn rewrite_journal(data: &Path) -> Result<(), OpenError> {
    let folder = |source| OpenError::Folder { path: data.to_owned(), source };
    let journals = journal::list(&data.join(DATABASE)).map_err(folder)?;
    let Some(last) = journals.last() else { return Ok(()) };
    let copy = data.join("journal.copy");
    std::fs::copy(&last.path, &copy).map_err(folder)?;
    std::fs::File::open(&copy).and_then(|file| file.sync_all()).map_err(folder)?;
    std::fs::rename(&copy, &last.path).map_err(folder)?;
    high_water::sync_folder(&data.join(DATABASE)).map_err(folder)
}

fn check_format(engine: &Engine, path: &Path) -> Result<(), OpenError> {
    let database = |error: &dyn std::fmt::Display| OpenError::database(path, error);
    match engine.meta(&FORMAT_KEY).map_err(|error| database(&error))? {
        Some(stored) if *stored == FORMAT.to_le_bytes() => Ok(()),
        Some(stored) => {
            let got = stored.as_ref().try_into().map_or(u32::MAX, u32::from_le_bytes);
            Err(OpenError::Format { path: path.to_owned(), got })
        }
        None => {
            let format = FORMAT.to_le_bytes().to_vec();
            engine.meta.insert(FORMAT_KEY.to_vec(), format).map_err(|error| database(&error))
        }
    }
}

fn load_gone(engine: &Engine, gone: &Gone) -> Result<(), StoreError> {
    for guard in engine.meta.prefix(trim::PREFIX) {
        let (key, value) = guard.into_inner()?;
        gone.trim(trim::parse_key(&key)?, TrimPoint::decode(&value)?);
    }
    for guard in engine.meta.prefix(topic::PREFIX) {
        let (key, value) = guard.into_inner()?;
        gone.set_life(topic::parse_key(&key)?, Life::decode(&value)?);
    }
    Ok(())
}

fn last_commit(engine: &Engine) -> Result<CommitNumber, StoreError> {
    let stored = engine.meta(&commit::KEY)?;
    let row = stored.as_deref().map(LastCommit::decode).transpose()?;
    Ok(row.unwrap_or_default().last)
}

/// Makes entries and partition ends agree.
///
/// A crash may leave entries beyond their partition's end: records that were acknowledged from
/// memory only, flushed before they were synced. They were never seen by a reader and are deleted,
/// since their offsets will be given again. After an accepted loss it may be the end that is
/// missing: then what is there is kept.
fn reconcile(engine: &Engine, gone: &Gone, accept_loss: bool) -> Result<(), StoreError> {
    for keyspace in engine.logs() {
        let mut next = keyspace.range(..TRIMMED_KEY).next();
        while let Some(guard) = next {
            let (partition, _) = log::parse_key(&guard.key()?)?;
            let stored = engine.meta(&end::key(partition))?;
            let end = stored.as_deref().map(End::decode).transpose()?.unwrap_or_default();
            let beyond = log::key(partition, end.offset)..=log::key(partition, u64::MAX);
            for guard in keyspace.range(beyond) {
                if gone.is_dropped(partition.0) {
                    break;
                }
                let (key, value) = guard.into_inner()?;
                let (_, last_offset) = log::parse_key(&key)?;
                if accept_loss {
                    let end = end_after(&value, last_offset)?;
                    tracing::warn!(topic = %partition.0, partition = %partition.1,
                        offset = end.offset, "keeping records whose partition's end was lost");
                    engine.meta.insert(end::key(partition).to_vec(), end.encode())?;
                } else {
                    tracing::warn!(topic = %partition.0, partition = %partition.1, last_offset,
                        "discarding records that were never synced");
                    keyspace.remove(key)?;
                }
            }
            let behind = log::key(partition, u64::MAX);
            next = keyspace
                .range::<&[u8], _>((
                    Bound::Excluded(&behind[..]),
                    Bound::Excluded(&TRIMMED_KEY[..]),
                ))
                .next();
        }
    }
    Ok(())
}

/// The end of a partition whose last entry is this.
fn end_after(entry: &[u8], last_offset: u64) -> Result<End, StoreError> {
    let (place, sections) = parse_header(entry)?;
    let last = sections.last().ok_or(crate::DecodeError { what: "entry header" })?;
    Ok(End {
        offset: last_offset + 1,
        bytes: place.bytes_before + crate::batch::body_len(entry, sections.len()),
        timestamp: last.timestamp,
        commit: last.commit,
    })
}

impl OpenError {
    fn recovery(path: &Path, error: &RecoveryError) -> Self {
        match error {
            RecoveryError::Locked { .. } => Self::Locked { path: path.to_owned() },
            error => Self::Recovery { path: path.to_owned(), reason: error.to_string() },
        }
    }

    pub(super) fn database(path: &Path, error: &dyn std::fmt::Display) -> Self {
        Self::Database { path: path.to_owned(), reason: error.to_string() }
    }
}
