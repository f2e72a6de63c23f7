//! Where ledgers are written to: a folder, or another store that the server's configuration names.
//!
//! | what is promised | by a folder | by a store elsewhere |
//! | --- | --- | --- |
//! | an object is there whole or not at all | it is written under another name and renamed | a put is atomic |
//! | when `put` returns, it survives power loss | the file is synced before it is renamed, the folder after, and so are folders that are made | the store's own promise |
//! | a reader sees the new object after `put` has returned | yes | yes, where reads follow writes (S3, GCS, Azure) |
//!
//! What a crash leaves of a file that was being written has a name with `#` in it: nothing reads it.

use std::path::Path as FilePath;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use stream_storage::ProjectName;

use crate::name::LedgerName;

/// Objects that are on their way at once: a sync of one waits for no other.
const WRITES_MAX: usize = 16;

/// A store of objects.
#[derive(Clone)]
pub struct Objects(Arc<dyn ObjectStore>);

/// The store failed; what it was asked for may work later.
#[derive(Debug, thiserror::Error)]
#[error("the ledgers' store failed: {reason}")]
pub struct ObjectsError {
    reason: String,
}

impl From<object_store::Error> for ObjectsError {
    fn from(error: object_store::Error) -> Self {
        Self { reason: error.to_string() }
    }
}

impl Objects {
    /// What the server's configuration names: a folder, `file://` and a path, or `s3://` with a bucket
    /// and perhaps a prefix; how S3 is reached and with which key, the usual variables of the server's
    /// environment say (`AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT`, …).
    ///
    /// # Errors
    ///
    /// The folder cannot be made, or the kind of store is not known.
    pub fn open(place: &str) -> Result<Self, ObjectsError> {
        match place.split_once("://") {
            None => Self::open_folder(FilePath::new(place)),
            Some(("file", folder)) if folder.starts_with('/') => {
                Self::open_folder(FilePath::new(folder))
            }
            Some(("s3", bucket)) if !bucket.is_empty() => Self::open_s3(bucket),
            Some(_) => Err(ObjectsError {
                reason: format!(
                    "`{place}`: expected a folder, `file://` and an absolute path, or `s3://` and a \
                     bucket"
                ),
            }),
        }
    }

    fn open_s3(place: &str) -> Result<Self, ObjectsError> {
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        // It fails if it is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store = AmazonS3Builder::from_env().with_bucket_name(bucket).build()?;
        Ok(Self(Arc::new(PrefixStore::new(store, Path::from(prefix)))))
    }

    /// A folder, which is made if it is not there. Durable on return.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn open_folder(folder: &FilePath) -> Result<Self, ObjectsError> {
        let unusable = |error: std::io::Error| ObjectsError {
            reason: format!("`{}`: {error}", folder.display()),
        };
        std::fs::create_dir_all(folder).map_err(unusable)?;
        let folder = folder.canonicalize().map_err(unusable)?;
        // The folder's own entry, and those of its parents that may have been made with it. What
        // may not be read was there before.
        for above in folder.ancestors() {
            match std::fs::File::open(above) {
                Ok(above) => above.sync_all().map_err(unusable)?,
                Err(_) => break,
            }
        }
        Self::existing_folder(&folder)
    }

    /// A folder that is there.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn existing_folder(folder: &FilePath) -> Result<Self, ObjectsError> {
        Ok(Self::of(
            LocalFileSystem::new_with_prefix(folder)?.with_fsync(true).with_automatic_cleanup(true),
        ))
    }

    /// A store in memory, for tests.
    pub fn in_memory() -> Self {
        Self::of(InMemory::new())
    }

    /// Any store.
    pub(super) fn of(store: impl ObjectStore) -> Self {
        Self(Arc::new(store))
    }

    /// The part of the store that a ledger has for itself.
    pub(super) fn of_ledger(&self, project: &ProjectName, ledger: &LedgerName) -> Self {
        let prefix = Path::from_iter([project.as_str(), ledger.as_str()]);
        Self(Arc::new(PrefixStore::new(Arc::clone(&self.0), prefix)))
    }

    /// An object, if it is there.
    ///
    /// # Errors
    ///
    /// The store failed.
    pub async fn get(&self, path: &str) -> Result<Option<Bytes>, ObjectsError> {
        match self.0.get(&Path::from(path)).await {
            Ok(found) => Ok(Some(found.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes an object, in the place of what is there. Durable on return.
    pub(super) async fn put(&self, path: &str, bytes: Bytes) -> Result<(), ObjectsError> {
        self.0.put(&Path::from(path), PutPayload::from(bytes)).await?;
        Ok(())
    }

    /// Writes objects in any order. All are durable on return; after an error, some may be.
    pub(super) async fn put_all(&self, objects: Vec<(String, Bytes)>) -> Result<(), ObjectsError> {
        let put = |(path, bytes): (String, Bytes)| async move { self.put(&path, bytes).await };
        futures_util::stream::iter(objects)
            .map(put)
            .buffer_unordered(WRITES_MAX)
            .try_collect()
            .await
    }

    /// Removes all objects under a path, which ends without `/`.
    pub(super) async fn remove_under(&self, path: &str) -> Result<(), ObjectsError> {
        let prefix = Path::from(path);
        let found: Vec<Path> =
            self.0.list(Some(&prefix)).map_ok(|object| object.location).try_collect().await?;
        for path in found {
            match self.0.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
