//! Projects: the tenants. A project's row lives in the server's own project under
//! `project/{name}`; projects are never deleted.

use std::collections::HashSet;
use std::sync::{Arc, RwLock};

use serde::{Deserialize, Serialize};
use stream_storage::{
    Clock, CommitError, Expected, ProjectName, StateEntry, Store, StoreError, Timestamp,
    Transaction,
};

use crate::lock::{read, write};
use crate::state::{self, Page, PageRequest};

const PREFIX: &str = "project/";

/// The project that is meant where a key for all projects names none.
pub const DEFAULT_PROJECT: &str = "default";

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its name.
    pub name: ProjectName,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Why a project could not be made or found.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// Nobody has made it.
    #[error("project `{project}` does not exist")]
    NotFound {
        /// The project.
        project: ProjectName,
    },
    /// The store refused the write.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whether a call made something, or found it as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// It is new.
    Created,
    /// It was there.
    Existed,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredProject {
    created_at: u64,
}

/// All projects.
pub struct Projects {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    /// Names known to exist: since no project is ever deleted, they stay right.
    known: RwLock<HashSet<ProjectName>>,
}

impl Projects {
    /// Reads nothing yet.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, known: RwLock::default() }
    }

    /// Makes the project if it does not exist. Durable on return.
    ///
    /// # Errors
    ///
    /// The store could not be read or written.
    pub async fn ensure(&self, name: &ProjectName) -> Result<(Project, Made), ProjectError> {
        match self.get(name).await {
            Ok(project) => return Ok((project, Made::Existed)),
            Err(ProjectError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let created_at = self.clock.now();
        let mut transaction = Transaction::new(ProjectName::system());
        let row = state::encode(&StoredProject { created_at: created_at.0 });
        transaction.expect(key(name), Expected::Absent).put(key(name), row);
        match self.store.commit(transaction).await {
            Ok(_) => {
                write(&self.known).insert(name.clone());
                Ok((Project { name: name.clone(), created_at }, Made::Created))
            }
            // Somebody else made it at the same time.
            Err(CommitError::Conflict { .. }) => Ok((self.get(name).await?, Made::Existed)),
            Err(error) => Err(error.into()),
        }
    }

    /// One project.
    ///
    /// # Errors
    ///
    /// It does not exist, or the store could not be read.
    pub async fn get(&self, name: &ProjectName) -> Result<Project, ProjectError> {
        let key = key(name);
        let found = self.store.get(&ProjectName::system(), key.as_bytes()).await?;
        let row = found.ok_or_else(|| ProjectError::NotFound { project: name.clone() })?;
        let stored: StoredProject = state::decode(key.as_bytes(), &row)?;
        write(&self.known).insert(name.clone());
        Ok(Project { name: name.clone(), created_at: Timestamp(stored.created_at) })
    }

    /// Whether the project exists; asks the store only the first time.
    ///
    /// # Errors
    ///
    /// It does not exist, or the store could not be read.
    pub async fn check(&self, name: &ProjectName) -> Result<(), ProjectError> {
        if read(&self.known).contains(name) {
            return Ok(());
        }
        self.get(name).await.map(drop)
    }

    /// Projects in the order of their names.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn list(&self, request: &PageRequest) -> Result<Page<Project>, StoreError> {
        let system = ProjectName::system();
        state::page(self.store.as_ref(), &system, PREFIX, request).await?.try_map(parse_row)
    }
}

fn key(name: &ProjectName) -> String {
    format!("{PREFIX}{name}")
}

fn parse_row(entry: StateEntry) -> Result<Project, StoreError> {
    let stored: StoredProject = state::decode(&entry.key, &entry.versioned)?;
    let name = ProjectName::parse(&state::name_in(&entry.key, PREFIX))
        .map_err(|error| StoreError::Corrupt { reason: error.to_string() })?;
    Ok(Project { name, created_at: Timestamp(stored.created_at) })
}
