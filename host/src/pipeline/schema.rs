//! A topic's JSON Schema and its versions, kept under the topic's id: a topic made again under the
//! same name starts without one.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use stream_storage::{
    Clock, CommitError, Expected, ProjectName, Store, StoreError, Timestamp, TopicId, Transaction,
};

use crate::stage::{Schema, SchemaError};
use crate::state::{self, Attempts};

/// Versions that are kept of one topic, the newest.
const VERSIONS_MAX: usize = 32;

/// A schema that was set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSchema {
    /// Counted from 1.
    pub version: u64,
    /// The schema; null once it was removed.
    pub schema: Value,
    /// When it was set, in milliseconds since 1970.
    pub created_at: u64,
}

/// Why a schema was not set.
#[derive(Debug, thiserror::Error)]
pub enum SchemasError {
    /// It is refused.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The store refused the write.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The schemas of all topics.
pub struct Schemas {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

impl Schemas {
    /// Reads nothing yet.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    /// All kept versions, the newest last; the last may be a removal.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn versions(
        &self,
        project: &ProjectName,
        topic: TopicId,
    ) -> Result<Vec<StoredSchema>, StoreError> {
        let key = key(topic);
        match self.store.get(project, key.as_bytes()).await? {
            Some(row) => state::decode(key.as_bytes(), &row),
            None => Ok(Vec::new()),
        }
    }

    /// The schema that holds, compiled.
    pub(super) async fn compiled(
        &self,
        project: &ProjectName,
        topic: TopicId,
    ) -> Result<Option<Arc<Schema>>, StoreError> {
        let versions = self.versions(project, topic).await?;
        let Some(newest) = versions.last().filter(|newest| !newest.schema.is_null()) else {
            return Ok(None);
        };
        let compiled = Schema::compile(&newest.schema);
        let corrupt = |error: SchemaError| StoreError::Corrupt { reason: error.to_string() };
        Ok(Some(Arc::new(compiled.map_err(corrupt)?)))
    }

    /// Sets a topic's schema, or removes it if it is null. One that is set already changes nothing.
    /// Durable on return.
    pub(super) async fn set(
        &self,
        project: &ProjectName,
        topic: TopicId,
        schema: Value,
    ) -> Result<StoredSchema, SchemasError> {
        if !schema.is_null() {
            Schema::compile(&schema)?;
        }
        let key = key(topic);
        let mut attempts = Attempts::default();
        loop {
            let row = self.store.get(project, key.as_bytes()).await?;
            let (mut versions, expected) = match &row {
                Some(row) => (state::decode(key.as_bytes(), row)?, Expected::Version(row.version)),
                None => (Vec::<StoredSchema>::new(), Expected::Absent),
            };
            if let Some(newest) = versions.last().filter(|newest| newest.schema == schema) {
                return Ok(newest.clone());
            }
            let version = versions.last().map_or(0, |newest| newest.version) + 1;
            let Timestamp(created_at) = self.clock.now();
            let stored = StoredSchema { version, schema: schema.clone(), created_at };
            versions.push(stored.clone());
            let surplus = versions.len().saturating_sub(VERSIONS_MAX);
            versions.drain(..surplus);
            let mut transaction = Transaction::new(project.clone());
            transaction.expect(key.clone(), expected);
            transaction.put(key.clone(), state::encode(&versions));
            match self.store.commit(transaction).await {
                Ok(_) => return Ok(stored),
                Err(error) => attempts.again(error)?,
            }
        }
    }

    /// Removes all that is kept of a topic that was deleted.
    ///
    /// # Errors
    ///
    /// The store refused.
    pub async fn forget(&self, project: &ProjectName, topic: TopicId) -> Result<(), SchemasError> {
        let key = key(topic);
        if self.store.get(project, key.as_bytes()).await?.is_some() {
            let mut transaction = Transaction::new(project.clone());
            transaction.delete(key);
            self.store.commit(transaction).await?;
        }
        Ok(())
    }
}

fn key(topic: TopicId) -> String {
    format!("schema/{topic}")
}
