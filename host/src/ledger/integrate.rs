//! Integration: sequenced entries become tiles and a signed checkpoint.
//!
//! A round takes what is sequenced, and does this in this order; each step may be the last before a
//! crash, and the next round begins again:
//!
//! 1. read the published checkpoint, and stop unless it is the one that the store's state remembers;
//! 2. read the tiles at its right edge, and stop unless they have its root;
//! 3. write data, bundles and tiles of the new tree; all are durable before the next step;
//! 4. prove from what was written that the new tree begins with the published one;
//! 5. remember in state which tree is signed now: no other of this size or a smaller one is signed
//!    ever after;
//! 6. sign, and publish the checkpoint;
//! 7. remember that it is published, and drop the entries from state.
//!
//! A tree follows from the order of its entries, which is in state before: so a step that is done
//! again writes what it wrote before.

use std::ops::Range;

use bytes::Bytes;
use stream_storage::{CommitError, Expected, StateEntry, Store, StoreError, Transaction};

use super::entry;
use super::error::LedgerError;
use super::merkle::{self, Hash, Mark};
use super::note::NoteError;
use super::objects::{Objects, ObjectsError};
use super::rows::{self, Tree};
use super::sequence::load;
use super::tile::{self, Edge, Kind, Tile, WIDTH};
use super::tree::{Tree as Tiles, TreeError};
use super::{Key, Opened};
use crate::heavy::heavy;
use crate::state;

/// Where the checkpoint is published.
pub(super) const CHECKPOINT: &str = "checkpoint";

/// Batch rows of a round: they are deleted in one transaction.
const ROWS_MAX: usize = 4_000;
/// Bytes of batch rows of a round, all of which are in memory.
const BYTES_MAX: usize = 32 << 20;
/// Batch rows read at once.
const SCAN_ROWS: usize = 8;

/// What a round has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    /// There was nothing to do.
    Idle,
    /// A checkpoint was published; there may be more to do.
    Published,
}

/// Why a round came to no end.
#[derive(Debug, thiserror::Error)]
pub(super) enum RoundError {
    /// What is published is not what was signed.
    #[error("{0}")]
    Stopped(String),
    /// Another host integrates the same ledger.
    #[error("the checkpoint was published anew meanwhile")]
    Overtaken,
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn stopped(reason: impl Into<String>) -> RoundError {
    RoundError::Stopped(reason.into())
}

impl From<TreeError<ObjectsError>> for RoundError {
    fn from(error: TreeError<ObjectsError>) -> Self {
        match error {
            TreeError::Files(error) => Self::Objects(error),
            error => stopped(error.to_string()),
        }
    }
}

/// A ledger and what its rounds work on.
pub(super) struct Site<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) key: &'a Key,
    pub(super) ledger: &'a Opened,
}

/// Batch rows that follow on each other.
#[derive(Default)]
struct Rows {
    keys: Vec<Bytes>,
    /// With the index of the first entry.
    values: Vec<(u64, Bytes)>,
    bytes: usize,
}

/// The new tree, and what has to be written for it.
struct Grown {
    mark: Mark,
    objects: Vec<(String, Bytes)>,
}

impl Site<'_> {
    /// Integrates what is sequenced, up to some bound.
    pub(super) async fn round(&self) -> Result<Round, RoundError> {
        let (tree, expected) = self.tree().await?;
        let note = self.files().get(CHECKPOINT).await?;
        let published = self.check_published(note.as_deref(), &tree)?;
        let (edge, bundle) = self.edge(published).await?;
        if tree.signed == Some(published) && tree.published != tree.signed {
            // The last round ended between publishing and remembering it.
            let rows = self.rows(tree.mark().size..published.size, usize::MAX).await?;
            self.settle(&tree, expected, rows).await?;
            return Ok(Round::Published);
        }
        let goal = tree.signed.filter(|signed| signed.size > published.size);
        let rows = match goal {
            Some(goal) => self.rows(published.size..goal.size, usize::MAX).await?,
            None => self.rows(published.size..u64::MAX, BYTES_MAX).await?,
        };
        if rows.keys.is_empty() && goal.is_none() {
            return Ok(Round::Idle);
        }
        let Grown { mark, objects } = heavy(rows.bytes, || grow(edge, bundle, &rows.values))?;
        if goal.is_some_and(|goal| goal != mark) {
            return Err(stopped(format!(
                "a tree of {} entries was signed, and the entries in the store make another",
                mark.size,
            )));
        }
        self.files().put_all(objects).await?;
        self.check_written(published, mark).await?;
        let (tree, expected) = self.remember(&tree, expected, published, mark).await?;
        if self.files().get(CHECKPOINT).await? != note {
            return Err(RoundError::Overtaken);
        }
        let checkpoint = self.ledger.signer.checkpoint(mark);
        self.files().put(CHECKPOINT, checkpoint.into()).await?;
        self.settle(&tree, expected, rows).await?;
        Ok(Round::Published)
    }

    fn files(&self) -> &Objects {
        &self.ledger.files
    }

    async fn tree(&self) -> Result<(Tree, Expected), StoreError> {
        load(self.store, &self.key.project, &rows::tree(&self.key.ledger)).await
    }

    /// The published tree, which is one that the state knows.
    fn check_published(&self, note: Option<&[u8]>, tree: &Tree) -> Result<Mark, RoundError> {
        let Some(note) = note else {
            return match tree.published {
                None => Ok(Mark::empty()),
                Some(mark) => Err(stopped(format!(
                    "the checkpoint of {} entries that was published is gone",
                    mark.size,
                ))),
            };
        };
        let mark = self.ledger.signer.verifier().checkpoint(note).map_err(|error: NoteError| {
            stopped(format!("the published checkpoint is not what was signed: {error}"))
        })?;
        if Some(mark) == tree.published || Some(mark) == tree.signed {
            return Ok(mark);
        }
        let known = tree.signed.or(tree.published).unwrap_or_else(Mark::empty);
        Err(stopped(format!(
            "the published checkpoint has {} entries and root {}, the last that this store signed \
             has {} and {}: one of the two was put back or changed",
            mark.size, mark.root, known.size, known.root,
        )))
    }

    /// The right edge of the published tree and the bundle that is not full, which fit its root.
    async fn edge(&self, published: Mark) -> Result<(Edge, Vec<u8>), RoundError> {
        let mut tiles = Tiles::new(self.files(), published);
        let mut levels = Vec::new();
        for tile in Edge::tiles(published.size) {
            levels.push(match tile {
                Some(tile) => tiles.tile(tile).await?.to_vec(),
                None => Vec::new(),
            });
        }
        let edge = Edge::new(published.size, levels);
        if edge.mark() != published {
            return Err(stopped(format!(
                "the tiles of {} entries have root {}, and their checkpoint {}",
                published.size,
                edge.mark().root,
                published.root,
            )));
        }
        let mut bundle = Vec::new();
        if !edge.leaves().is_empty() {
            let entries = tiles.bundle(published.size - 1).await?;
            if !entries.iter().map(|entry| Hash::of_leaf(entry)).eq(edge.leaves().iter().copied()) {
                return Err(stopped("the last entries are not those of their tile"));
            }
            entries.iter().for_each(|entry| entry::put(&mut bundle, entry));
        }
        Ok((edge, bundle))
    }

    /// Batch rows that have the entries of this range, from its start on, up to some bound.
    async fn rows(&self, range: Range<u64>, bytes_max: usize) -> Result<Rows, RoundError> {
        let (project, ledger) = (&self.key.project, &self.key.ledger);
        let prefix = rows::batches(ledger);
        let (mut rows, mut after) = (Rows::default(), None::<Bytes>);
        loop {
            let after_key = after.as_deref();
            let found = self.store.scan(project, prefix.as_bytes(), after_key, SCAN_ROWS).await?;
            let is_last = found.len() < SCAN_ROWS;
            for StateEntry { key, versioned } in found {
                let first = rows::first_of(ledger, &key)?;
                if first >= range.end || rows.keys.len() == ROWS_MAX || rows.bytes >= bytes_max {
                    return Ok(rows);
                }
                rows.bytes += versioned.value.len();
                rows.values.push((first, versioned.value));
                after = Some(key.clone());
                rows.keys.push(key);
            }
            if is_last {
                return Ok(rows);
            }
        }
    }

    /// Reads from what was written that the new tree begins with the published one.
    async fn check_written(&self, published: Mark, mark: Mark) -> Result<(), RoundError> {
        let mut tiles = Tiles::new(self.files(), mark);
        let proof = tiles.consistency(published.size).await?;
        let is_whole = tiles.before(mark.size).await? == mark;
        if is_whole && merkle::extends(published, mark, &proof) {
            Ok(())
        } else {
            Err(stopped("what was written does not extend what is published"))
        }
    }

    /// Remembers which tree is about to be signed.
    async fn remember(
        &self,
        tree: &Tree,
        expected: Expected,
        published: Mark,
        mark: Mark,
    ) -> Result<(Tree, Expected), RoundError> {
        if tree.signed == Some(mark) {
            return Ok((tree.clone(), expected));
        }
        let published = (published.size > 0).then_some(published);
        let tree = Tree { published, signed: Some(mark), ..tree.clone() };
        let key = rows::tree(&self.key.ledger);
        let mut transaction = Transaction::new(self.key.project.clone());
        transaction.expect(key.clone(), expected).put(key, state::encode(&tree));
        self.store.commit(transaction).await?;
        let (found, expected) = self.tree().await?;
        if found == tree { Ok((found, expected)) } else { Err(RoundError::Overtaken) }
    }

    /// Remembers that what is signed is published, and drops its entries from state.
    async fn settle(&self, tree: &Tree, expected: Expected, rows: Rows) -> Result<(), RoundError> {
        let before = tree.mark().size;
        let settled = Tree {
            published: tree.signed,
            signed: tree.signed,
            bytes: tree.bytes + rows.bytes as u64,
        };
        let key = rows::tree(&self.key.ledger);
        let mut transaction = Transaction::new(self.key.project.clone());
        transaction.expect(key.clone(), expected).put(key, state::encode(&settled));
        for key in rows.keys {
            transaction.delete(key);
        }
        self.store.commit(transaction).await?;
        self.remove_partial(before, settled.mark().size).await;
        Ok(())
    }

    /// Removes the partial tiles of those that have become full: who looks for them finds these.
    async fn remove_partial(&self, before: u64, after: u64) {
        let partial = Edge::tiles(before).flatten();
        let bundle = Tile::of_tree(Kind::Entries, before / u64::from(WIDTH), before);
        for tile in partial.chain(bundle) {
            let now = Tile::of_tree(tile.kind, tile.index, after);
            if !now.is_some_and(Tile::is_full) {
                continue;
            }
            let path = format!("{}.p", tile.full());
            if let Err(error) = self.files().remove_under(&path).await {
                tracing::warn!(%error, path, "partial tiles that are not needed remain");
            }
        }
    }
}

/// Appends the entries of batch rows to a tree.
fn grow(mut edge: Edge, mut bundle: Vec<u8>, rows: &[(u64, Bytes)]) -> Result<Grown, RoundError> {
    let mut objects = Vec::new();
    let before = edge.size();
    for (first, row) in rows {
        if *first != edge.size() {
            let missing = edge.size();
            return Err(stopped(format!("the store has no entries from index {missing} on")));
        }
        for leaf in rows::leaves(row)? {
            if !leaf.data.is_empty() {
                let path = format!("data/{}", entry::digest(&leaf.data));
                objects.push((path, leaf.data));
            }
            entry::put(&mut bundle, &leaf.entry);
            edge.push(Hash::of_leaf(&leaf.entry), |tile, hashes| {
                if tile.kind == Kind::Hashes(0) {
                    let entries = Tile { kind: Kind::Entries, ..tile };
                    let bundle = std::mem::take(&mut bundle);
                    objects.push((entries.to_string(), bundle.into()));
                }
                objects.push((tile.to_string(), tile::bytes(hashes).into()));
            });
        }
    }
    for (tile, hashes) in edge.partial() {
        if tile.kind.count(edge.size()) > tile.kind.count(before) {
            objects.push((tile.to_string(), tile::bytes(hashes).into()));
        }
    }
    let place = edge.size() / u64::from(WIDTH);
    if let Some(tile) = Tile::of_tree(Kind::Entries, place, edge.size()) {
        objects.push((tile.to_string(), bundle.into()));
    }
    Ok(Grown { mark: edge.mark(), objects })
}
