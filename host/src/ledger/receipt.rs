//! Receipts: that an entry is in a signed tree, as a text that can be checked offline
//! (c2sp.org/tlog-proof). Ours bring the entry along, as `extra`.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::merkle::{self, Hash, Mark};
use super::note::{NoteError, VerifierKey};

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

/// A tree of 2^63 leaves is that high.
const PROOF_MAX: usize = 63;

/// A receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The entry; not proven by itself, but by its hash.
    pub entry: Option<Vec<u8>>,
    /// Its index.
    pub index: u64,
    /// From the leaf's sibling up.
    pub proof: Vec<Hash>,
    /// The signed checkpoint, as it was published.
    pub checkpoint: String,
}

/// Why a receipt proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// It does not have the form, or its checkpoint is not the ledger's.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// It brings no entry, and none is given.
    #[error("the receipt has no entry")]
    NoEntry,
    /// The entry is not in the tree at this index.
    #[error("the entry is not at index {index} of the tree of {size} entries")]
    NotIncluded {
        /// The index.
        index: u64,
        /// The tree's size.
        size: u64,
    },
}

impl Receipt {
    /// Reads a receipt.
    ///
    /// # Errors
    ///
    /// It does not have the form.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let malformed = |reason| NoteError::Malformed { what: "receipt", reason };
        let (head, checkpoint) =
            text.split_once("\n\n").ok_or(malformed("there is no empty line"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(FIRST_LINE) {
            return Err(malformed("expected `c2sp.org/tlog-proof@v1` in the first line"));
        }
        let entry = match lines.peek().and_then(|line| line.strip_prefix("extra ")) {
            Some(extra) => {
                let extra = BASE64_STANDARD.decode(extra);
                lines.next();
                Some(extra.map_err(|_| malformed("`extra` is not base64"))?)
            }
            None => None,
        };
        let index = lines.next().and_then(|line| line.strip_prefix("index "));
        let index = index.ok_or(malformed("expected `index` and a number"))?;
        let number: u64 = index.parse().map_err(|_| malformed("the index is no number"))?;
        if number.to_string() != index {
            return Err(malformed("the index is no number"));
        }
        let proof: Option<Vec<Hash>> = lines.map(Hash::parse).collect();
        let proof = proof.ok_or(malformed("a line of the proof is no hash"))?;
        if proof.len() > PROOF_MAX {
            return Err(malformed("the proof is too long"));
        }
        Ok(Self { entry, index: number, proof, checkpoint: checkpoint.to_owned() })
    }

    /// Checks the whole, and returns the entry and the tree that holds it. Whether the entry says
    /// what it should is for the caller to see.
    ///
    /// # Errors
    ///
    /// The checkpoint is not signed by this key, or the entry is not in its tree.
    pub fn verify(&self, key: &VerifierKey) -> Result<(&[u8], Mark), ReceiptError> {
        let entry = self.entry.as_deref().ok_or(ReceiptError::NoEntry)?;
        let tree = key.checkpoint(self.checkpoint.as_bytes())?;
        if merkle::includes(Hash::of_leaf(entry), self.index, tree, &self.proof) {
            Ok((entry, tree))
        } else {
            Err(ReceiptError::NotIncluded { index: self.index, size: tree.size })
        }
    }
}

/// The text.
impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}")?;
        if let Some(entry) = &self.entry {
            writeln!(f, "extra {}", BASE64_STANDARD.encode(entry))?;
        }
        writeln!(f, "index {}", self.index)?;
        for hash in &self.proof {
            writeln!(f, "{hash}")?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::note::Signer;
    use ring::rand::SystemRandom;
    use ring::signature::Ed25519KeyPair;

    fn receipt() -> (Receipt, VerifierKey) {
        let private = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let signer = Signer::new("a.example/log", private.as_ref()).unwrap();
        let entries: [&[u8]; 3] = [b"zero", b"one", b"two"];
        let leaves = entries.map(Hash::of_leaf);
        let tree = Mark { size: 3, root: merkle::root(&leaves).unwrap() };
        let receipt = Receipt {
            entry: Some(entries[1].to_vec()),
            index: 1,
            proof: vec![leaves[0], leaves[2]],
            checkpoint: signer.checkpoint(tree),
        };
        (receipt, signer.verifier().clone())
    }

    #[test]
    fn a_receipt_reads_back_and_proves_its_entry() {
        let (receipt, key) = receipt();
        let text = receipt.to_string();
        assert_eq!(Receipt::parse(&text), Ok(receipt.clone()));
        let (entry, tree) = receipt.verify(&key).unwrap();
        assert_eq!((entry, tree.size), (&b"one"[..], 3));
        let bare = Receipt { entry: None, ..receipt };
        assert_eq!(Receipt::parse(&bare.to_string()), Ok(bare.clone()));
        assert_eq!(bare.verify(&key), Err(ReceiptError::NoEntry));
    }

    #[test]
    fn no_byte_of_a_receipt_can_be_changed() {
        let (receipt, key) = receipt();
        let text = receipt.to_string();
        for position in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[position] ^= 1;
            let changed = String::from_utf8(bytes).ok().and_then(|text| Receipt::parse(&text).ok());
            let proves = changed.as_ref().map(|changed| changed.verify(&key).is_ok());
            assert_ne!(proves, Some(true), "byte {position} of\n{text}");
        }
    }
}
