//! A published tree, read from its tiles: proofs, roots of smaller trees, and entries.
//!
//! What is read is not trusted: whoever uses a proof checks it against a signed root.

use std::collections::HashMap;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use super::entry;
use super::merkle::{self, Hash, Mark, Node};
use super::objects::{Objects, ObjectsError};
use super::tile::{self, HEIGHT, Kind, Tile, WIDTH};

/// Where a ledger's files are read from.
#[async_trait]
pub trait Files: Send + Sync {
    /// Why nothing could be read.
    type Error: std::error::Error + Send + Sync + 'static;

    /// A file by its path within the ledger, if it is there.
    async fn read(&self, path: &str) -> Result<Option<Bytes>, Self::Error>;
}

#[async_trait]
impl Files for Objects {
    type Error = ObjectsError;

    async fn read(&self, path: &str) -> Result<Option<Bytes>, ObjectsError> {
        self.get(path).await
    }
}

/// Why a tree could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError<E> {
    /// The files cannot be read; that may pass.
    #[error(transparent)]
    Files(E),
    /// A tile or a bundle is not there.
    #[error("`{path}` is missing")]
    Missing {
        /// Its path.
        path: String,
    },
    /// A tile or a bundle is not what the tree has there.
    #[error("`{path}` is damaged: {reason}")]
    Damaged {
        /// Its path.
        path: String,
        /// What is wrong.
        reason: &'static str,
    },
}

/// A tree whose tiles are read when they are needed, each once.
pub struct Tree<'a, F> {
    files: &'a F,
    mark: Mark,
    tiles: HashMap<Tile, Vec<Hash>>,
}

impl<'a, F: Files> Tree<'a, F> {
    /// Reads nothing yet.
    pub fn new(files: &'a F, mark: Mark) -> Self {
        Self { files, mark, tiles: HashMap::new() }
    }

    /// The tree.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// The hashes of a tile.
    ///
    /// # Errors
    ///
    /// It is missing, or not of its size.
    pub async fn tile(&mut self, tile: Tile) -> Result<&[Hash], TreeError<F::Error>> {
        if !self.tiles.contains_key(&tile) {
            let (found, bytes) = self.find(tile).await?;
            let hashes = tile::hashes(&bytes, found.width);
            let mut hashes = hashes.ok_or_else(|| damaged(found, "it has another size"))?;
            hashes.truncate(tile.width.into());
            self.tiles.insert(tile, hashes);
        }
        Ok(self.tiles.get(&tile).map_or(&[], Vec::as_slice))
    }

    /// A tile or a bundle: as this tree has it or, since it may be gone once it is full, the full one.
    async fn find(&self, tile: Tile) -> Result<(Tile, Bytes), TreeError<F::Error>> {
        for tile in [tile, tile.full()] {
            let bytes = self.files.read(&tile.to_string()).await.map_err(TreeError::Files)?;
            if let Some(bytes) = bytes {
                return Ok((tile, bytes));
            }
        }
        Err(TreeError::Missing { path: tile.to_string() })
    }

    /// The entries of the bundle that has this index, as far as this tree has them.
    ///
    /// # Errors
    ///
    /// It is missing, or not of its size.
    pub async fn bundle(&self, index: u64) -> Result<Vec<Bytes>, TreeError<F::Error>> {
        let place = index / u64::from(WIDTH);
        let tile = self.at(Kind::Entries, place)?;
        let (found, bytes) = self.find(tile).await?;
        let entries = entry::unbundle(&bytes, found.width);
        let mut entries = entries.ok_or_else(|| damaged(found, "it has another size"))?;
        entries.truncate(tile.width.into());
        Ok(entries)
    }

    /// An entry.
    ///
    /// # Errors
    ///
    /// Its bundle is missing or damaged.
    pub async fn entry(&self, index: u64) -> Result<Bytes, TreeError<F::Error>> {
        let entries = self.bundle(index).await?;
        let place = usize::try_from(index % u64::from(WIDTH)).unwrap_or(usize::MAX);
        let missing = || TreeError::Missing { path: format!("entry {index}") };
        entries.into_iter().nth(place).ok_or_else(missing)
    }

    /// The proof that the tree holds the leaf of an index.
    ///
    /// # Errors
    ///
    /// A tile is missing or damaged.
    pub async fn inclusion(&mut self, index: u64) -> Result<Vec<Hash>, TreeError<F::Error>> {
        self.parts(merkle::inclusion(index, self.mark.size)).await
    }

    /// The proof that the tree begins with its first `from` leaves.
    ///
    /// # Errors
    ///
    /// A tile is missing or damaged.
    pub async fn consistency(&mut self, from: u64) -> Result<Vec<Hash>, TreeError<F::Error>> {
        self.parts(merkle::consistency(from, self.mark.size)).await
    }

    /// The tree of the first `size` leaves.
    ///
    /// # Errors
    ///
    /// A tile is missing or damaged.
    pub async fn before(&mut self, size: u64) -> Result<Mark, TreeError<F::Error>> {
        let root = self.hash(0..size).await?;
        Ok(Mark { size, root: root.unwrap_or_else(Hash::of_nothing) })
    }

    /// The hashes of parts of the tree.
    ///
    /// # Errors
    ///
    /// A tile is missing or damaged.
    pub async fn parts(
        &mut self,
        parts: Vec<Range<u64>>,
    ) -> Result<Vec<Hash>, TreeError<F::Error>> {
        let mut hashes = Vec::with_capacity(parts.len());
        for part in parts {
            hashes.extend(self.hash(part).await?);
        }
        Ok(hashes)
    }

    async fn hash(&mut self, part: Range<u64>) -> Result<Option<Hash>, TreeError<F::Error>> {
        let mut hashes = Vec::new();
        for node in merkle::nodes(part) {
            hashes.push(self.node(node).await?);
        }
        Ok(merkle::join(hashes.into_iter()))
    }

    async fn node(&mut self, node: Node) -> Result<Hash, TreeError<F::Error>> {
        let (level, height) = (node.level / HEIGHT, node.level % HEIGHT);
        let first = node.index << height;
        let tile = self.at(Kind::Hashes(level), first / u64::from(WIDTH))?;
        let start = usize::try_from(first % u64::from(WIDTH)).unwrap_or(usize::MAX);
        let hashes = self.tile(tile).await?.get(start..start.saturating_add(1 << height));
        hashes.and_then(merkle::root).ok_or_else(|| damaged(tile, "it is too short"))
    }

    fn at(&self, kind: Kind, index: u64) -> Result<Tile, TreeError<F::Error>> {
        let beyond = || TreeError::Missing { path: Tile { kind, index, width: WIDTH }.to_string() };
        Tile::of_tree(kind, index, self.mark.size).ok_or_else(beyond)
    }
}

fn damaged<E>(tile: Tile, reason: &'static str) -> TreeError<E> {
    TreeError::Damaged { path: tile.to_string(), reason }
}
