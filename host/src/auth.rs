//! API keys: what a bearer may do, and where.
//!
//! A key is shown once, when it is made. The store keeps its SHA-256 hash only, in the server's own
//! project under `key/{id}`: a key is 32 random bytes, so a plain hash cannot be searched. All keys
//! are held in memory, since every request asks for one; so making and revoking have to run to their
//! end, or memory and store differ until the next start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use stream_storage::{Clock, CommitError, ProjectName, Store, StoreError, Timestamp, Transaction};

use crate::lock::{read, write};
use crate::state::{self, Page, PageRequest};

const PREFIX: &str = "key/";

/// Longest API key that is looked at, in bytes.
const KEY_BYTES_MAX: usize = 256;

/// Longest name of a key, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// What a key allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// To publish events.
    Publish,
    /// To read events and to commit a group's offsets.
    Consume,
    /// To make, change and delete topics, keys and projects.
    Manage,
    /// To upload code.
    Deploy,
}

impl Scope {
    /// Every scope, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::Publish, Self::Consume, Self::Manage, Self::Deploy];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Consume => "consume",
            Self::Manage => "manage",
            Self::Deploy => "deploy",
        }
    }
}

/// A key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// What names it in lists and for revoking.
    pub id: String,
    /// What its maker calls it.
    pub name: Option<String>,
    /// The one project that it opens; all if `None`.
    pub project: Option<ProjectName>,
    /// What it allows.
    pub scopes: BTreeSet<Scope>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl ApiKey {
    /// Whether the key allows `scope`.
    pub fn allows(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// Whether the key opens `project`.
    pub fn opens(&self, project: &ProjectName) -> bool {
        self.project.as_ref().is_none_or(|own| own == project)
    }
}

/// A key to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// What its maker calls it; at most 128 bytes.
    pub name: Option<String>,
    /// The one project that it opens; all if `None`.
    pub project: Option<ProjectName>,
    /// What it allows; at least one scope.
    pub scopes: BTreeSet<Scope>,
}

/// Why a key could not be made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No such key, or not one that the caller may see.
    #[error("key `{id}` does not exist")]
    NotFound {
        /// The key's id, cut at 64 characters.
        id: String,
    },
    /// A field breaks its rule.
    #[error("invalid {field}: expected {expected}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// The rule.
        expected: &'static str,
    },
    /// A key cannot give what it does not have.
    #[error("a key cannot grant scope `{}` without having it", scope.as_str())]
    ScopeNotHeld {
        /// The scope.
        scope: Scope,
    },
    /// Only a key for all projects may make another one.
    #[error("only a key for all projects can make a key for all projects")]
    AllProjectsNotHeld,
    /// The store refused the write.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredKey {
    /// SHA-256 of the key, base64url.
    hash: String,
    name: Option<String>,
    project: Option<String>,
    scopes: BTreeSet<Scope>,
    created_at: u64,
}

type Hash = [u8; 32];

/// All keys.
pub struct Keys {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    held: RwLock<Held>,
}

#[derive(Default)]
struct Held {
    by_id: BTreeMap<String, (Hash, Arc<ApiKey>)>,
    by_hash: BTreeMap<Hash, Arc<ApiKey>>,
}

impl Held {
    fn insert(&mut self, hash: Hash, key: Arc<ApiKey>) {
        self.by_hash.insert(hash, Arc::clone(&key));
        self.by_id.insert(key.id.clone(), (hash, key));
    }

    fn remove(&mut self, id: &str) {
        if let Some((hash, _)) = self.by_id.remove(id) {
            self.by_hash.remove(&hash);
        }
    }
}

impl Keys {
    /// Loads all keys.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn open(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let all = PageRequest::default();
        let rows = state::page(store.as_ref(), &ProjectName::system(), PREFIX, &all).await?;
        let mut held = Held::default();
        for entry in rows.items {
            let stored: StoredKey = state::decode(&entry.key, &entry.versioned)?;
            let (hash, key) = parse_stored(state::name_in(&entry.key, PREFIX), stored)?;
            held.insert(hash, Arc::new(key));
        }
        Ok(Self { store, clock, held: RwLock::new(held) })
    }

    /// Whether there is no key at all: the first start.
    pub fn is_empty(&self) -> bool {
        read(&self.held).by_id.is_empty()
    }

    /// The key that a bearer presents.
    pub fn find(&self, secret: &str) -> Option<Arc<ApiKey>> {
        if secret.len() > KEY_BYTES_MAX {
            return None;
        }
        read(&self.held).by_hash.get(&hash(secret)).cloned()
    }

    /// Whether the key is not revoked yet.
    pub fn holds(&self, key: &ApiKey) -> bool {
        read(&self.held).by_id.contains_key(&key.id)
    }

    /// Makes a key that `maker` may make, and returns it with its secret. Durable on return.
    ///
    /// # Errors
    ///
    /// The key would allow more than its maker may, a field is invalid, or the store refused.
    pub async fn create(
        &self,
        maker: &ApiKey,
        new: NewKey,
    ) -> Result<(Arc<ApiKey>, String), KeyError> {
        if let Some(&scope) = new.scopes.iter().find(|scope| !maker.allows(**scope)) {
            return Err(KeyError::ScopeNotHeld { scope });
        }
        if new.project.is_none() && maker.project.is_some() {
            return Err(KeyError::AllProjectsNotHeld);
        }
        let secret = generate();
        let key = self.insert(&secret, new).await?;
        Ok((key, secret))
    }

    /// Makes a key for all projects and scopes, and returns its secret. Durable on return.
    ///
    /// # Errors
    ///
    /// The store refused.
    pub async fn create_admin(&self) -> Result<String, KeyError> {
        let secret = generate();
        self.insert(&secret, admin()).await?;
        Ok(secret)
    }

    /// Sees to it that `secret` opens all projects with all scopes. Durable on return.
    ///
    /// # Errors
    ///
    /// The secret is not 1–256 visible ASCII characters, or the store refused.
    pub async fn ensure_admin(&self, secret: &str) -> Result<(), KeyError> {
        let is_visible = secret.bytes().all(|byte| byte.is_ascii_graphic());
        if secret.is_empty() || secret.len() > KEY_BYTES_MAX || !is_visible {
            let expected = "1–256 visible ASCII characters";
            return Err(KeyError::Invalid { field: "api_key", expected });
        }
        if let Some(known) = self.find(secret) {
            if known.project.is_none() && known.scopes == admin().scopes {
                return Ok(());
            }
            self.remove(&known.id).await?;
        }
        self.insert(secret, admin()).await.map(drop)
    }

    /// The keys of `project`, and with them those for all projects if `viewer` is one; in the order
    /// of their ids.
    pub fn list(
        &self,
        viewer: &ApiKey,
        project: &ProjectName,
        request: &PageRequest,
    ) -> Page<Arc<ApiKey>> {
        let held = read(&self.held);
        let mut visible = held
            .by_id
            .values()
            .map(|(_, key)| key)
            .filter(|key| is_visible(viewer, project, key))
            .filter(|key| request.after.as_ref().is_none_or(|after| key.id > *after));
        let wanted = request.limit.unwrap_or(usize::MAX);
        let items: Vec<_> = visible.by_ref().take(wanted).cloned().collect();
        let has_more = visible.next().is_some();
        let next = items.last().filter(|_| has_more).map(|key| key.id.clone());
        Page { items, next }
    }

    /// Revokes a key that `viewer` sees in `project`. When this returns, the key opens nothing, and
    /// that is durable.
    ///
    /// # Errors
    ///
    /// There is no such key, or the store refused: then the key still works.
    pub async fn revoke(
        &self,
        viewer: &ApiKey,
        project: &ProjectName,
        id: &str,
    ) -> Result<(), KeyError> {
        let known = read(&self.held).by_id.get(id).map(|(_, key)| Arc::clone(key));
        match known {
            Some(key) if is_visible(viewer, project, &key) => self.remove(id).await,
            _ => Err(KeyError::NotFound { id: id.chars().take(64).collect() }),
        }
    }

    async fn insert(&self, secret: &str, new: NewKey) -> Result<Arc<ApiKey>, KeyError> {
        if new.scopes.is_empty() {
            return Err(KeyError::Invalid { field: "scopes", expected: "at least one scope" });
        }
        if new.name.as_ref().is_some_and(|name| name.len() > NAME_BYTES_MAX) {
            return Err(KeyError::Invalid { field: "name", expected: "at most 128 bytes" });
        }
        let hash = hash(secret);
        let key = ApiKey {
            id: format!("key_{:016x}", rand::random::<u64>()),
            name: new.name,
            project: new.project,
            scopes: new.scopes,
            created_at: self.clock.now(),
        };
        let stored = StoredKey {
            hash: BASE64_URL_SAFE_NO_PAD.encode(hash),
            name: key.name.clone(),
            project: key.project.as_ref().map(ToString::to_string),
            scopes: key.scopes.clone(),
            created_at: key.created_at.0,
        };
        let mut transaction = Transaction::new(ProjectName::system());
        transaction.put(format!("{PREFIX}{}", key.id), state::encode(&stored));
        self.store.commit(transaction).await?;
        let key = Arc::new(key);
        write(&self.held).insert(hash, Arc::clone(&key));
        Ok(key)
    }

    async fn remove(&self, id: &str) -> Result<(), KeyError> {
        let mut transaction = Transaction::new(ProjectName::system());
        transaction.delete(format!("{PREFIX}{id}"));
        self.store.commit(transaction).await?;
        write(&self.held).remove(id);
        Ok(())
    }
}

fn is_visible(viewer: &ApiKey, project: &ProjectName, key: &ApiKey) -> bool {
    match &key.project {
        Some(own) => own == project,
        None => viewer.project.is_none(),
    }
}

fn admin() -> NewKey {
    NewKey { name: Some("admin".to_owned()), project: None, scopes: Scope::ALL.into() }
}

fn generate() -> String {
    format!("sk_{}", BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
}

fn hash(secret: &str) -> Hash {
    Sha256::digest(secret).into()
}

fn parse_stored(id: String, stored: StoredKey) -> Result<(Hash, ApiKey), StoreError> {
    let corrupt = |what| StoreError::Corrupt { reason: format!("key `{id}` has a bad {what}") };
    let hash = BASE64_URL_SAFE_NO_PAD.decode(&stored.hash).ok();
    let hash = hash.and_then(|hash| Hash::try_from(hash).ok()).ok_or_else(|| corrupt("hash"))?;
    let project = stored.project.as_deref().map(ProjectName::parse).transpose();
    let project = project.map_err(|_| corrupt("project"))?;
    let created_at = Timestamp(stored.created_at);
    Ok((hash, ApiKey { id, name: stored.name, project, scopes: stored.scopes, created_at }))
}
