//! What is served of ledgers: status, files, receipts and consistency proofs.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use stream_storage::{Partition, ProjectName, StoreError, Timestamp, TopicId, Watch};
use tokio::time::Instant;

use super::entry;
use super::error::LedgerError;
use super::integrate::CHECKPOINT;
use super::merkle::{self, Hash, Mark};
use super::receipt::Receipt;
use super::rows::{self, Head, StoredLedger, Tree};
use super::sequence::load;
use super::tile::Tile;
use super::tree::Tree as Tiles;
use super::wake::Health;
use super::{Key, Ledgers, Opened, Source};
use crate::name::{LedgerName, TopicName};
use crate::slot::Slot;
use crate::state::{self, Page, PageRequest};

/// How long a receipt waits for its entry: integration promises that.
const WAIT: Duration = Duration::from_secs(1);

/// How a ledger fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerStatus {
    /// Its name.
    pub name: LedgerName,
    /// What its checkpoints begin with.
    pub origin: String,
    /// What checks its checkpoints.
    pub vkey: String,
    /// Entries that have an index.
    pub size: u64,
    /// The published tree.
    pub published: Mark,
    /// How it fares on this host.
    pub health: Health,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Which entry a receipt is wanted of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// That of a record. Of several topics that had this name, the newest that has one.
    Place {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: Partition,
        /// The offset.
        offset: u64,
    },
    /// That of an event: the newest if several have the id.
    Id(String),
}

/// That a tree begins with a smaller one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Consistency {
    /// The smaller tree.
    pub from: Mark,
    /// The larger one.
    pub to: Mark,
    /// As RFC 6962 orders it.
    pub proof: Vec<Hash>,
}

impl Ledgers {
    /// Ledgers in the order of their names.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn list(
        &self,
        project: &ProjectName,
        request: &PageRequest,
    ) -> Result<Page<LedgerStatus>, StoreError> {
        let store = self.store.as_ref();
        let rows = state::page(store, project, rows::PREFIX, request).await?;
        let mut items = Vec::with_capacity(rows.items.len());
        for row in rows.items {
            let name = LedgerName::parse(&state::name_in(&row.key, rows::PREFIX));
            let name = name.map_err(|error| StoreError::Corrupt { reason: error.to_string() })?;
            let stored = state::decode(&row.key, &row.versioned)?;
            items.push(self.status_of(project, name, stored).await?);
        }
        Ok(Page { items, next: rows.next })
    }

    /// How one ledger fares.
    ///
    /// # Errors
    ///
    /// It does not exist, or the store could not be read.
    pub async fn status(
        &self,
        project: &ProjectName,
        name: &LedgerName,
    ) -> Result<LedgerStatus, LedgerError> {
        let key = rows::ledger(name);
        let row = self.store.get(project, key.as_bytes()).await?;
        let row = row.ok_or_else(|| LedgerError::NotFound { ledger: name.clone() })?;
        let stored = state::decode(key.as_bytes(), &row)?;
        Ok(self.status_of(project, name.clone(), stored).await?)
    }

    /// Does not need the private key: what it is sealed with may be gone.
    async fn status_of(
        &self,
        project: &ProjectName,
        name: LedgerName,
        stored: StoredLedger,
    ) -> Result<LedgerStatus, StoreError> {
        let key = Key { project: project.clone(), ledger: name };
        let ((head, _), (tree, _)) = (self.head(&key).await?, self.tree(&key).await?);
        Ok(LedgerStatus {
            origin: stored.origin,
            vkey: stored.vkey,
            size: head.next,
            published: tree.mark(),
            health: self.health.get(&key),
            created_at: Timestamp(stored.created_at),
            name: key.ledger,
        })
    }

    pub(super) async fn head(
        &self,
        key: &Key,
    ) -> Result<(Head, stream_storage::Expected), StoreError> {
        load(self.store.as_ref(), &key.project, &rows::head(&key.ledger)).await
    }

    pub(super) async fn tree(
        &self,
        key: &Key,
    ) -> Result<(Tree, stream_storage::Expected), StoreError> {
        load(self.store.as_ref(), &key.project, &rows::tree(&key.ledger)).await
    }

    /// The published checkpoint, which is checked to be one that was signed.
    ///
    /// # Errors
    ///
    /// The ledger does not exist or has published none, or what it has published was changed.
    pub async fn checkpoint(
        &self,
        project: &ProjectName,
        name: &LedgerName,
    ) -> Result<Bytes, LedgerError> {
        let key = Key { project: project.clone(), ledger: name.clone() };
        let opened = self.existing(&key).await?;
        Ok(self.published(&key, &opened).await?.0)
    }

    async fn published(&self, key: &Key, opened: &Opened) -> Result<(Bytes, Mark), LedgerError> {
        let damaged = |reason| LedgerError::Damaged { ledger: key.ledger.clone(), reason };
        let note = self.note_of(key, opened).await?;
        let mark = opened.signer.verifier().checkpoint(&note);
        let mark = mark.map_err(|error| damaged(error.to_string()))?;
        // Read after the checkpoint: state knows of each before it is published.
        let (tree, _) = self.tree(key).await?;
        if Some(mark) == tree.published || Some(mark) == tree.signed {
            return Ok((note, mark));
        }
        // It may have been published anew meanwhile.
        match tree.published {
            Some(now) if now.size > mark.size => {
                let mut tiles = Tiles::new(&opened.files, now);
                let before = tiles.before(mark.size).await;
                let before = before.map_err(|error| LedgerError::of_tree(&key.ledger, error))?;
                if before == mark { Ok((note, mark)) } else { Err(damaged(rolled_back(mark))) }
            }
            _ => Err(damaged(rolled_back(mark))),
        }
    }

    /// The text of the published checkpoint.
    async fn note_of(&self, key: &Key, opened: &Opened) -> Result<Bytes, LedgerError> {
        if let Some(note) = opened.files.get(CHECKPOINT).await? {
            return Ok(note);
        }
        let ledger = || key.ledger.clone();
        if self.tree(key).await?.0.published.is_none() {
            return Err(LedgerError::NotPublished {
                ledger: ledger(),
                path: CHECKPOINT.to_owned(),
            });
        }
        // The first may have been published between the two reads.
        let note = opened.files.get(CHECKPOINT).await?;
        let reason = "its checkpoint is gone".to_owned();
        note.ok_or_else(|| LedgerError::Damaged { ledger: ledger(), reason })
    }

    /// A tile or a bundle of the published tree.
    ///
    /// # Errors
    ///
    /// The ledger does not exist or has no such tile, or its store failed.
    pub async fn tile(
        &self,
        project: &ProjectName,
        name: &LedgerName,
        tile: Tile,
    ) -> Result<Bytes, LedgerError> {
        let key = Key { project: project.clone(), ledger: name.clone() };
        let opened = self.existing(&key).await?;
        let (tree, _) = self.tree(&key).await?;
        // All that is signed is there, also while its checkpoint is on its way.
        let size = tree.signed.or(tree.published).map_or(0, |mark| mark.size);
        let path = tile.to_string();
        let whole = Tile::of_tree(tile.kind, tile.index, size);
        let found = match whole {
            Some(whole) if tile.width <= whole.width => opened.files.get(&path).await?,
            _ => None,
        };
        found.ok_or_else(|| LedgerError::NotPublished { ledger: name.clone(), path })
    }

    /// An event that is kept by its digest.
    ///
    /// # Errors
    ///
    /// The ledger does not exist or has no such event, or its store failed.
    pub async fn data(
        &self,
        project: &ProjectName,
        name: &LedgerName,
        digest: &str,
    ) -> Result<Bytes, LedgerError> {
        let key = Key { project: project.clone(), ledger: name.clone() };
        let opened = self.existing(&key).await?;
        let path = format!("data/{digest}");
        let found = match entry::is_digest(digest) {
            true => opened.files.get(&path).await?,
            false => None,
        };
        found.ok_or_else(|| LedgerError::NotPublished { ledger: name.clone(), path })
    }

    /// The receipt of an entry. Waits up to a second for the entry to come and to be published.
    ///
    /// # Errors
    ///
    /// The ledger does not exist or has stopped, the entry is not there or not published yet, or the
    /// tree is damaged.
    pub async fn receipt(
        &self,
        project: &ProjectName,
        name: &LedgerName,
        wanted: &Wanted,
    ) -> Result<Receipt, LedgerError> {
        let key = Key { project: project.clone(), ledger: name.clone() };
        let opened = self.existing(&key).await?;
        let deadline = Instant::now() + WAIT;
        let mut changes = self.store.watch(Watch::State(project.clone()));
        loop {
            changes.mark_unchanged();
            let not_yet = match self.find(&key, wanted).await? {
                Some(index) => match self.receipt_of(&key, &opened, index).await {
                    Err(LedgerError::NotPublished { .. }) => {
                        LedgerError::NotIntegrated { index, size: 0 }
                    }
                    Err(error @ LedgerError::NotIntegrated { .. }) => error,
                    done => return done,
                },
                None => LedgerError::NoEntry { ledger: name.clone(), what: wanted.to_string() },
            };
            if let Some(reason) = self.health.stopped(&key) {
                return Err(LedgerError::Stopped { ledger: name.clone(), reason });
            }
            match tokio::time::timeout_at(deadline, changes.changed()).await {
                Ok(Ok(())) => {}
                // The time is over, or the store is closing.
                Ok(Err(_)) | Err(_) => return Err(not_yet),
            }
        }
    }

    async fn receipt_of(
        &self,
        key: &Key,
        opened: &Opened,
        index: u64,
    ) -> Result<Receipt, LedgerError> {
        let (note, tree) = self.published(key, opened).await?;
        if index >= tree.size {
            return Err(LedgerError::NotIntegrated { index, size: tree.size });
        }
        let of_tree = |error| LedgerError::of_tree(&key.ledger, error);
        let mut tiles = Tiles::new(&opened.files, tree);
        let entry = tiles.entry(index).await.map_err(of_tree)?;
        let proof = tiles.inclusion(index).await.map_err(of_tree)?;
        if !merkle::includes(Hash::of_leaf(&entry), index, tree, &proof) {
            let reason = format!("entry {index} and its tiles do not have the checkpoint's root");
            return Err(LedgerError::Damaged { ledger: key.ledger.clone(), reason });
        }
        let checkpoint = String::from_utf8_lossy(&note).into_owned();
        Ok(Receipt { entry: Some(entry.to_vec()), index, proof, checkpoint })
    }

    /// That the published tree, or its first `to` entries, begins with the first `from`.
    ///
    /// # Errors
    ///
    /// The ledger does not exist, has fewer entries, or is damaged.
    pub async fn consistency(
        &self,
        project: &ProjectName,
        name: &LedgerName,
        from: u64,
        to: Option<u64>,
    ) -> Result<Consistency, LedgerError> {
        let key = Key { project: project.clone(), ledger: name.clone() };
        let opened = self.existing(&key).await?;
        let (_, published) = self.published(&key, &opened).await?;
        let size = to.unwrap_or(published.size);
        if size > published.size || from > size {
            return Err(LedgerError::BeyondEnd { size: published.size });
        }
        let of_tree = |error| LedgerError::of_tree(name, error);
        let mut tiles = Tiles::new(&opened.files, published);
        let whole = tiles.before(published.size).await.map_err(of_tree)?;
        let (old, new) = (
            tiles.before(from).await.map_err(of_tree)?,
            tiles.before(size).await.map_err(of_tree)?,
        );
        let proof = tiles.parts(merkle::consistency(from, size)).await.map_err(of_tree)?;
        let rest = tiles.consistency(size).await.map_err(of_tree)?;
        let holds = merkle::extends(old, new, &proof) && merkle::extends(new, published, &rest);
        if whole != published || !holds {
            let reason = "its tiles do not have the checkpoint's root".to_owned();
            return Err(LedgerError::Damaged { ledger: name.clone(), reason });
        }
        Ok(Consistency { from: old, to: new, proof })
    }

    async fn existing(&self, key: &Key) -> Result<std::sync::Arc<Opened>, LedgerError> {
        let opened = self.open(key).await?;
        opened.ok_or_else(|| LedgerError::NotFound { ledger: key.ledger.clone() })
    }

    async fn find(&self, key: &Key, wanted: &Wanted) -> Result<Option<u64>, StoreError> {
        match wanted {
            Wanted::Place { topic, partition, offset } => {
                self.find_place(key, topic, *partition, *offset).await
            }
            Wanted::Id(id) => {
                let prefix = rows::ids(&key.ledger, id);
                let mut newest = None;
                let mut after = None;
                // A row a topic that had an event of the id.
                loop {
                    let found =
                        self.store.scan(&key.project, &prefix, after.as_deref(), 100).await?;
                    let Some(last) = found.last() else { return Ok(newest) };
                    after = Some(last.key.clone());
                    for row in &found {
                        newest = newest.max(Some(state::decode(&row.key, &row.versioned)?));
                    }
                }
            }
        }
    }

    async fn find_place(
        &self,
        key: &Key,
        topic: &TopicName,
        partition: Partition,
        offset: u64,
    ) -> Result<Option<u64>, StoreError> {
        let prefix = rows::places(&key.ledger, topic);
        let (mut newest, mut after) = (None, None::<Vec<u8>>);
        // Of each topic id that had the name, one row tells the id.
        loop {
            let project = &key.project;
            let found = self.store.scan(project, prefix.as_bytes(), after.as_deref(), 1).await?;
            let Some(row) = found.first() else { return Ok(newest) };
            let rest = state::name_in(&row.key, &prefix);
            let id = rest.split('/').next().and_then(|id| u64::from_str_radix(id, 16).ok());
            let id = TopicId(id.ok_or_else(|| StoreError::Corrupt {
                reason: "the place of a ledger's entry".to_owned(),
            })?);
            let source = Source { topic: topic.clone(), slot: Slot::new(id, partition), offset };
            let place_key = rows::place(&key.ledger, &source);
            if let Some(row) = self.store.get(project, place_key.as_bytes()).await? {
                let place: rows::Place = state::decode(place_key.as_bytes(), &row)?;
                newest = place.index(offset).or(newest);
            }
            after = Some(format!("{}~", rows::places_of(&key.ledger, topic, id)).into_bytes());
        }
    }
}

fn rolled_back(mark: Mark) -> String {
    format!("its checkpoint of {} entries is not the last that was signed", mark.size)
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Place { topic, partition, offset } => {
                write!(f, "topic `{topic}`, partition {partition}, offset {offset}")
            }
            Self::Id(id) => write!(f, "id `{}`", id.chars().take(64).collect::<String>()),
        }
    }
}
