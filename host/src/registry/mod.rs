//! Plugins by name and version: which component each is, and where its bytes are.
//!
//! | state key | value |
//! | --- | --- |
//! | `plugin/{name}` | all versions of a plugin, the newest last |
//! | `component/{digest}` | how a component is stored: see `blob` |
//! | `component-chunk/{digest}/{number}` | a part of its bytes |
//! | `plugin-code-key` | in the server's own project: signs compiled code |
//!
//! A component is stored before the transaction that registers it, so that a version whose bytes are
//! missing cannot be; what a crash leaves in between is swept.

mod blob;

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stream_storage::{
    Clock, CommitError, Expected, ProjectName, StateEntry, Store, StoreError, Timestamp,
    Transaction, Version,
};

use crate::name::PluginName;
use crate::plugin::{CheckError, Loaded, Plugins, Purpose};
use crate::project::Made;
use crate::stage::{PluginRef, Role};
use crate::state::{self, Attempts, Page, PageRequest};

const PREFIX: &str = "plugin/";

/// Versions of one plugin: its row holds all of them.
const VERSIONS_MAX: usize = 1_000;

/// A plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// Its name.
    pub name: PluginName,
    /// Its versions, the newest last; at least one.
    pub versions: Vec<PluginVersion>,
    /// The last version of a plugin of this name that was deleted: a binding or a history that names
    /// it never means another component.
    deleted: u64,
}

/// One upload of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginVersion {
    /// Counted from 1.
    pub version: u64,
    /// The hex SHA-256 of the component.
    pub digest: String,
    /// Bytes of the component.
    pub size: u64,
    /// What it exports.
    pub roles: Vec<Role>,
    /// When it was uploaded.
    pub created_at: Timestamp,
}

/// A version that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("plugin `{name}`{} does not exist", version.map(|version| format!(" version `{version}`")).unwrap_or_default())]
pub struct PluginNotFound {
    /// The plugin.
    pub name: PluginName,
    /// The version; `None` if there is none at all.
    pub version: Option<u64>,
}

/// Why a plugin could not be uploaded, found or deleted.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// There is no such plugin or version.
    #[error(transparent)]
    NotFound(#[from] PluginNotFound),
    /// The upload is refused.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// It has as many versions as a plugin may have.
    #[error("plugin `{name}` has {max} versions, which is as many as there may be")]
    TooManyVersions {
        /// The plugin.
        name: PluginName,
        /// The limit.
        max: usize,
    },
    /// The store refused the write.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredPlugin {
    versions: Vec<StoredVersion>,
    #[serde(default)]
    deleted: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredVersion {
    version: u64,
    digest: String,
    size: u64,
    roles: Vec<String>,
    created_at: u64,
}

/// The plugins of all projects.
pub struct Registry {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    plugins: Arc<Plugins>,
}

impl Plugin {
    /// The newest version, or that of this number.
    ///
    /// # Errors
    ///
    /// There is none of this number.
    pub fn version(&self, version: Option<u64>) -> Result<&PluginVersion, PluginNotFound> {
        let found = match version {
            None => self.versions.last(),
            Some(number) => self.versions.iter().find(|version| version.version == number),
        };
        found.ok_or_else(|| PluginNotFound { name: self.name.clone(), version })
    }
}

impl Registry {
    /// Reads nothing yet.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, plugins: Arc<Plugins>) -> Self {
        Self { store, clock, plugins }
    }

    /// Checks a component and makes it the newest version of a plugin; if it is that already,
    /// nothing changes. Durable on return. When cancelled, the version is there or it is not.
    ///
    /// # Errors
    ///
    /// The component is refused, or the store is.
    pub async fn upload(
        &self,
        project: &ProjectName,
        name: &PluginName,
        bytes: Bytes,
    ) -> Result<(PluginVersion, Made), RegistryError> {
        let loaded = self.plugins.check(project, bytes.clone(), Purpose::Upload).await?;
        let mut attempts = Attempts::default();
        loop {
            let (mut plugin, expected) = match self.load(project, name).await? {
                Some((plugin, version)) => (plugin, Expected::Version(version)),
                None => {
                    let (name, versions, deleted) = (name.clone(), Vec::new(), 0);
                    (Plugin { name, versions, deleted }, Expected::Absent)
                }
            };
            let newest = plugin.versions.last();
            if let Some(newest) = newest.filter(|newest| newest.digest == loaded.digest) {
                return Ok((newest.clone(), Made::Existed));
            }
            if plugin.versions.len() >= VERSIONS_MAX {
                let name = name.clone();
                return Err(RegistryError::TooManyVersions { name, max: VERSIONS_MAX });
            }
            let version = PluginVersion {
                version: newest.map_or(plugin.deleted, |newest| newest.version) + 1,
                digest: loaded.digest.clone(),
                size: bytes.len() as u64,
                roles: loaded.roles().to_vec(),
                created_at: self.clock.now(),
            };
            plugin.versions.push(version.clone());
            let stored =
                blob::write(self.store.as_ref(), self.clock.now(), project, &loaded.digest, &bytes)
                    .await?;
            let mut transaction = Transaction::new(project.clone());
            transaction.expect(key(name), expected);
            transaction.expect(blob::key(&loaded.digest), Expected::Version(stored));
            transaction.put(key(name), state::encode(&StoredPlugin::of(&plugin)));
            match self.store.commit(transaction).await {
                Ok(_) => return Ok((version, Made::Created)),
                Err(error) => attempts.again(error)?,
            }
        }
    }

    /// One plugin.
    ///
    /// # Errors
    ///
    /// It does not exist, or the store could not be read.
    pub async fn get(
        &self,
        project: &ProjectName,
        name: &PluginName,
    ) -> Result<Plugin, RegistryError> {
        Ok(self.get_versioned(project, name).await?.0)
    }

    /// One plugin, with the version of its row, for a condition.
    pub(crate) async fn get_versioned(
        &self,
        project: &ProjectName,
        name: &PluginName,
    ) -> Result<(Plugin, Version), RegistryError> {
        let found = self.load(project, name).await?;
        let found = found.filter(|(plugin, _)| !plugin.versions.is_empty());
        Ok(found.ok_or_else(|| PluginNotFound { name: name.clone(), version: None })?)
    }

    /// Plugins in the order of their names.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn list(
        &self,
        project: &ProjectName,
        request: &PageRequest,
    ) -> Result<Page<Plugin>, StoreError> {
        state::page(self.store.as_ref(), project, PREFIX, request)
            .await?
            .try_map(|entry| parse_row(&entry))
    }

    /// A version that can be called: from memory, from compiled code, or compiled again.
    ///
    /// # Errors
    ///
    /// It does not exist, its bytes cannot be read, or they do not compile any more.
    pub async fn load_version(
        &self,
        project: &ProjectName,
        plugin: &PluginRef,
    ) -> Result<Loaded, RegistryError> {
        let found = self.get(project, &plugin.name).await?;
        let digest = &found.version(Some(plugin.version))?.digest;
        if let Some(loaded) = self.plugins.cached_component(digest).await {
            return Ok(loaded);
        }
        let bytes = blob::read(self.store.as_ref(), project, digest).await?;
        Ok(self.plugins.check(project, bytes, Purpose::Load).await?)
    }

    /// Adds to `transaction` that the plugin is deleted, if it is as it was read.
    pub(crate) fn delete_in(transaction: &mut Transaction, plugin: &Plugin, version: Version) {
        let deleted = plugin.versions.last().map_or(plugin.deleted, |newest| newest.version);
        let row = StoredPlugin { versions: Vec::new(), deleted };
        transaction.expect(key(&plugin.name), Expected::Version(version));
        transaction.put(key(&plugin.name), state::encode(&row));
    }

    /// Removes the bytes of components that no plugin of these projects has, unless they came within
    /// the last hour, and compiled code of components that are not there.
    ///
    /// # Errors
    ///
    /// The store could not be read or written.
    pub async fn sweep(&self, projects: &[ProjectName]) -> Result<(), RegistryError> {
        let mut wanted = std::collections::HashSet::new();
        for project in projects {
            let plugins = self.list(project, &PageRequest::default()).await?.items;
            let versions = plugins.into_iter().flat_map(|plugin| plugin.versions);
            let digests: std::collections::HashSet<String> =
                versions.map(|version| version.digest).collect();
            blob::sweep(self.store.as_ref(), self.clock.now(), project, &digests).await?;
            wanted.extend(digests);
        }
        if let Err(error) = self.plugins.sweep(|digest| wanted.contains(digest)) {
            tracing::warn!(%error, "compiled code that is not needed remains");
        }
        Ok(())
    }

    async fn load(
        &self,
        project: &ProjectName,
        name: &PluginName,
    ) -> Result<Option<(Plugin, Version)>, StoreError> {
        let key = key(name);
        let Some(row) = self.store.get(project, key.as_bytes()).await? else { return Ok(None) };
        let stored: StoredPlugin = state::decode(key.as_bytes(), &row)?;
        Ok(Some((stored.into_plugin(name.clone()), row.version)))
    }
}

/// The key that signs compiled code, made at the first start. Durable on return.
///
/// # Errors
///
/// The store could not be read or written.
pub async fn code_key(store: &dyn Store) -> Result<[u8; 32], RegistryError> {
    const KEY: &str = "plugin-code-key";
    let system = ProjectName::system();
    let mut attempts = Attempts::default();
    loop {
        if let Some(row) = store.get(&system, KEY.as_bytes()).await? {
            return Ok(state::decode(KEY.as_bytes(), &row)?);
        }
        let key: [u8; 32] = rand::random();
        let mut transaction = Transaction::new(system.clone());
        transaction.expect(KEY, Expected::Absent).put(KEY, state::encode(&key));
        match store.commit(transaction).await {
            Ok(_) => return Ok(key),
            Err(error) => attempts.again(error)?,
        }
    }
}

fn key(name: &PluginName) -> String {
    format!("{PREFIX}{name}")
}

fn parse_row(entry: &StateEntry) -> Result<Plugin, StoreError> {
    let stored: StoredPlugin = state::decode(&entry.key, &entry.versioned)?;
    let name = PluginName::parse(&state::name_in(&entry.key, PREFIX))
        .map_err(|error| StoreError::Corrupt { reason: error.to_string() })?;
    Ok(stored.into_plugin(name))
}

impl StoredPlugin {
    fn of(plugin: &Plugin) -> Self {
        let store = |version: &PluginVersion| StoredVersion {
            version: version.version,
            digest: version.digest.clone(),
            size: version.size,
            roles: version.roles.iter().map(|role| role.as_str().to_owned()).collect(),
            created_at: version.created_at.0,
        };
        let versions = plugin.versions.iter().map(store).collect();
        Self { versions, deleted: plugin.deleted }
    }

    fn into_plugin(self, name: PluginName) -> Plugin {
        let restore = |version: StoredVersion| PluginVersion {
            version: version.version,
            digest: version.digest,
            size: version.size,
            // A role of a later server is none that this one can call.
            roles: version.roles.iter().filter_map(|word| Role::parse(word)).collect(),
            created_at: Timestamp(version.created_at),
        };
        let versions = self.versions.into_iter().map(restore).collect();
        Plugin { name, versions, deleted: self.deleted }
    }
}

#[cfg(test)]
mod tests;
