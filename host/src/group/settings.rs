//! What is set for a group; without a row all is as by default.

use serde::{Deserialize, Serialize};
use stream_storage::{ProjectName, StoreError, Transaction};

use super::failure::ATTEMPTS_DEFAULT;
use super::{GroupError, Groups, rows};
use crate::name::GroupName;
use crate::state;

/// What is set for a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// How often a record is tried before it becomes a dead letter; at least 1. Default 5.
    pub attempts_max: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { attempts_max: ATTEMPTS_DEFAULT }
    }
}

impl Groups {
    /// What is set for the group, whether it exists or not.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn settings(
        &self,
        project: &ProjectName,
        group: &GroupName,
    ) -> Result<Settings, StoreError> {
        let key = key(group);
        let row = self.parts.store.get(project, key.as_bytes()).await?;
        let settings = row.map(|row| state::decode(key.as_bytes(), &row)).transpose()?;
        Ok(settings.unwrap_or_default())
    }

    /// Sets it, before the group has members or later. Durable on return; holds from the next nack on.
    ///
    /// # Errors
    ///
    /// The store refused.
    pub async fn configure(
        &self,
        project: &ProjectName,
        group: &GroupName,
        settings: Settings,
    ) -> Result<(), GroupError> {
        let mut transaction = Transaction::new(project.clone());
        transaction.put(key(group), state::encode(&settings));
        self.parts.store.commit(transaction).await?;
        Ok(())
    }

    /// Whether anything was set.
    pub(super) async fn has_settings(
        &self,
        project: &ProjectName,
        group: &GroupName,
    ) -> Result<bool, StoreError> {
        Ok(self.parts.store.get(project, key(group).as_bytes()).await?.is_some())
    }

    /// All is as by default again.
    pub(super) async fn forget_settings(
        &self,
        project: &ProjectName,
        group: &GroupName,
    ) -> Result<(), GroupError> {
        let mut transaction = Transaction::new(project.clone());
        transaction.delete(key(group));
        self.parts.store.commit(transaction).await?;
        Ok(())
    }
}

fn key(group: &GroupName) -> String {
    format!("{}{group}", rows::SETTINGS)
}
