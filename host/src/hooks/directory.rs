//! The endpoints of projects, in memory: every event is matched against them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, RwLock};

use stream_storage::{ProjectName, StateEntry, Store, StoreError};
use tokio::sync::Notify;

use super::endpoint::Known;
use super::rows;
use crate::lock::{lock, read, write};
use crate::state::{self, PageRequest};

/// Projects whose endpoints are in memory; all are read anew when there are more.
const PROJECTS_MAX: usize = 1_000;

/// What is known, and who has changed since somebody looked.
pub(super) struct Directory {
    store: Arc<dyn Store>,
    cache: RwLock<Cache>,
    changed: Mutex<HashSet<ProjectName>>,
    news: Notify,
}

#[derive(Default)]
struct Cache {
    projects: HashMap<ProjectName, Arc<Vec<Arc<Known>>>>,
    /// Counts changes, so that what was read before one is not put in after it.
    changes: u64,
}

impl Directory {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        let (cache, changed, news) = (RwLock::default(), Mutex::default(), Notify::new());
        Self { store, cache, changed, news }
    }

    /// The endpoints of a project in the order of their names. A transaction that relies on one has
    /// to expect its version.
    pub(super) async fn known(
        &self,
        project: &ProjectName,
    ) -> Result<Arc<Vec<Arc<Known>>>, StoreError> {
        let changes = {
            let cache = read(&self.cache);
            if let Some(known) = cache.projects.get(project) {
                return Ok(Arc::clone(known));
            }
            cache.changes
        };
        let all = PageRequest::default();
        let rows = state::page(self.store.as_ref(), project, rows::ENDPOINT, &all).await?.items;
        let decode = |row: &StateEntry| Known::decode(row).map(Arc::new);
        let known = Arc::new(rows.iter().map(decode).collect::<Result<Vec<_>, _>>()?);
        let mut cache = write(&self.cache);
        if cache.changes == changes {
            if cache.projects.len() >= PROJECTS_MAX {
                cache.projects.clear();
            }
            cache.projects.insert(project.clone(), Arc::clone(&known));
        }
        Ok(known)
    }

    /// Reads the project's endpoints anew when they are next asked for.
    pub(super) fn forget(&self, project: &ProjectName) {
        let mut cache = write(&self.cache);
        cache.projects.remove(project);
        cache.changes = cache.changes.wrapping_add(1);
    }

    /// An endpoint was made, changed or deleted.
    pub(super) fn changed(&self, project: &ProjectName) {
        self.forget(project);
        lock(&self.changed).insert(project.clone());
        self.news.notify_one();
    }

    /// Waits until something has changed, and says where. Cancel safe.
    pub(super) async fn next_changes(&self) -> HashSet<ProjectName> {
        loop {
            let changed = std::mem::take(&mut *lock(&self.changed));
            if !changed.is_empty() {
                return changed;
            }
            self.news.notified().await;
        }
    }
}
