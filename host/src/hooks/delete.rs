//! Endpoints are deleted, with all that is kept of them.

use stream_storage::{Expected, ProjectName, StateEntry, Store, Transaction};

use super::endpoint::{EndpointId, Known};
use super::{Hooks, HooksError, rows};
use crate::name::{EndpointName, QueueName};
use crate::queue::QueueError;
use crate::state::{self, Attempts, PageRequest};

/// Rows deleted in one transaction.
const STEP: usize = 1_000;

impl Hooks {
    /// Deletes an endpoint; nothing is sent to it from here on but what is under way. Its deliveries
    /// go with it, also if this is cut off: then they go when the log is next swept.
    ///
    /// # Errors
    ///
    /// There is none of this name, or the store refused.
    pub async fn delete(
        &self,
        project: &ProjectName,
        name: &EndpointName,
    ) -> Result<(), HooksError> {
        let mut attempts = Attempts::default();
        let id = loop {
            let Known { endpoint, version } = self.load(project, name).await?;
            let mut transaction = Transaction::new(project.clone());
            let key = rows::endpoint(name);
            transaction.expect(key.clone(), Expected::Version(version)).delete(key);
            transaction.put(rows::gone(&endpoint.id), &b"{}"[..]);
            match self.parts.store.commit(transaction).await {
                Ok(_) => break endpoint.id,
                Err(error) => attempts.again(error)?,
            }
        };
        self.directory.changed(project);
        self.clear(project, &id).await
    }

    /// Deletes what is left of endpoints that were deleted.
    pub(super) async fn clear_gone(&self, project: &ProjectName) -> Result<(), HooksError> {
        let store = self.parts.store.as_ref();
        let all = PageRequest::default();
        for row in state::page(store, project, rows::GONE, &all).await?.items {
            let id = EndpointId::from(state::name_in(&row.key, rows::GONE));
            self.clear(project, &id).await?;
        }
        Ok(())
    }

    async fn clear(&self, project: &ProjectName, id: &EndpointId) -> Result<(), HooksError> {
        let queue = QueueName::parse(&format!("{}{id}", rows::QUEUE));
        if let Ok(queue) = queue {
            match self.parts.queues.delete(project, &queue).await {
                Ok(()) | Err(QueueError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for prefix in [rows::deliveries(id), rows::bodies(id), rows::all_attempts(id)] {
            self.delete_all(project, &prefix).await?;
        }
        let mut transaction = Transaction::new(project.clone());
        transaction.delete(rows::stats(id)).delete(rows::gone(id));
        self.parts.store.commit(transaction).await?;
        Ok(())
    }

    async fn delete_all(&self, project: &ProjectName, prefix: &str) -> Result<(), HooksError> {
        let store: &dyn Store = self.parts.store.as_ref();
        loop {
            let found = store.scan(project, prefix.as_bytes(), None, STEP).await?;
            if found.is_empty() {
                return Ok(());
            }
            let mut transaction = Transaction::new(project.clone());
            for StateEntry { key, .. } in found {
                transaction.delete(key);
            }
            store.commit(transaction).await?;
        }
    }
}
