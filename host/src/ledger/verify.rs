//! A whole ledger, checked from its files alone: every entry, every tile, the root, the checkpoint's
//! signature, and all that is kept by its digest.

use bytes::Bytes;

use super::entry::ByDigest;
use super::integrate::CHECKPOINT;
use super::merkle::{Hash, Mark};
use super::note::{NoteError, VerifierKey};
use super::tile::{Edge, Tile};
use super::tree::{Files, Tree, TreeError};

/// What was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// The tree of the checkpoint.
    pub mark: Mark,
    /// Tiles of hashes.
    pub tiles: u64,
    /// Events that are kept by their digest.
    pub data: u64,
}

/// Why a ledger is not what its checkpoint says.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError<E> {
    /// The files cannot be read, or one is missing or damaged.
    #[error(transparent)]
    Tree(#[from] TreeError<E>),
    /// There is no checkpoint.
    #[error("there is no checkpoint")]
    NoCheckpoint,
    /// The checkpoint is not signed by the key.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The entries make another tree.
    #[error("the entries have root {found}, the checkpoint {signed}")]
    Root {
        /// The root of what is there.
        found: Hash,
        /// What was signed.
        signed: Hash,
    },
    /// An entry stands for data, and says it in no form that is known.
    #[error("entry {index} stands for data and is malformed: {reason}")]
    Entry {
        /// Its index.
        index: u64,
        /// What is wrong.
        reason: String,
    },
}

/// Checks a whole ledger. `progress` is told how many entries are checked, now and then.
///
/// # Errors
///
/// The first thing that is wrong.
pub async fn verify<F: Files>(
    files: &F,
    key: &VerifierKey,
    mut progress: impl FnMut(u64),
) -> Result<Verified, VerifyError<F::Error>> {
    let note = files.read(CHECKPOINT).await.map_err(TreeError::Files)?;
    let mark = key.checkpoint(&note.ok_or(VerifyError::NoCheckpoint)?)?;
    let mut whole = Whole { files, mark, verified: Verified { mark, tiles: 0, data: 0 } };
    let mut edge = Edge::default();
    while edge.size() < mark.size {
        let entries = Tree::new(files, mark).bundle(edge.size()).await?;
        let mut full = Vec::new();
        for entry in entries {
            whole.check_data(edge.size(), &entry).await?;
            edge.push(Hash::of_leaf(&entry), |tile, hashes| full.push((tile, hashes.to_vec())));
        }
        for (tile, hashes) in full {
            whole.check_tile(tile, &hashes).await?;
        }
        progress(edge.size());
    }
    for (tile, hashes) in edge.partial() {
        whole.check_tile(tile, hashes).await?;
    }
    let found = edge.mark().root;
    if found != mark.root {
        return Err(VerifyError::Root { found, signed: mark.root });
    }
    Ok(whole.verified)
}

struct Whole<'a, F> {
    files: &'a F,
    mark: Mark,
    verified: Verified,
}

impl<F: Files> Whole<'_, F> {
    /// Compares a tile with what its entries say it is.
    async fn check_tile(
        &mut self,
        tile: Tile,
        hashes: &[Hash],
    ) -> Result<(), VerifyError<F::Error>> {
        let mut tree = Tree::new(self.files, self.mark);
        if tree.tile(tile).await? != hashes {
            let reason = "its hashes are not those of the entries";
            return Err(TreeError::Damaged { path: tile.to_string(), reason }.into());
        }
        self.verified.tiles += 1;
        Ok(())
    }

    /// Checks the data that an entry stands for, if it does.
    async fn check_data(&mut self, index: u64, entry: &[u8]) -> Result<(), VerifyError<F::Error>> {
        let parsed = ByDigest::parse(entry);
        let malformed = |error: serde_json::Error| error.to_string();
        let parsed =
            parsed.map_err(|error| VerifyError::Entry { index, reason: malformed(error) })?;
        let Some(by_digest) = parsed else { return Ok(()) };
        let path = format!("data/{}", by_digest.data_sha256);
        let data: Option<Bytes> = self.files.read(&path).await.map_err(TreeError::Files)?;
        match data {
            None => Err(TreeError::Missing { path }.into()),
            Some(data) if by_digest.is_of(&data) => {
                self.verified.data += 1;
                Ok(())
            }
            Some(_) => Err(TreeError::Damaged { path, reason: "it has another digest" }.into()),
        }
    }
}
