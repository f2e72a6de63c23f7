//! The Merkle tree of RFC 6962 with SHA-256: its hashes, which parts of it a proof is made of, and how
//! a proof is checked. Pure: where hashes are kept is not known here.
//!
//! A part of the tree is a range of leaves; [`nodes`] splits it into whole subtrees, whose hashes
//! [`join`] puts together again.

use std::fmt;
use std::ops::Range;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// A hash of the tree.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; Hash::BYTES]);

impl Hash {
    /// Its size.
    pub const BYTES: usize = 32;

    /// The hash of a tree without leaves.
    pub fn of_nothing() -> Self {
        Self(Sha256::digest([]).into())
    }

    /// The hash of a leaf.
    pub fn of_leaf(entry: &[u8]) -> Self {
        Self(Sha256::new().chain_update([0]).chain_update(entry).finalize().into())
    }

    /// The hash of two neighbours.
    pub fn of_nodes(left: &Self, right: &Self) -> Self {
        let hash = Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0);
        Self(hash.finalize().into())
    }

    /// Reads base64.
    pub fn parse(text: &str) -> Option<Self> {
        BASE64_STANDARD.decode(text).ok()?.try_into().ok().map(Self)
    }
}

/// Base64, as checkpoints and proofs have it.
impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("expected a hash in base64"))
    }
}

/// The leaves `index << level .. (index + 1) << level`: a subtree without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Node {
    /// How many levels above the leaves; at most 63.
    pub level: u32,
    /// Its place among those of its level.
    pub index: u64,
}

/// The whole subtrees that make up a part of the tree, from left to right.
pub fn nodes(range: Range<u64>) -> Vec<Node> {
    let (mut start, mut nodes) = (range.start, Vec::new());
    while start < range.end {
        let level = start.trailing_zeros().min((range.end - start).ilog2());
        nodes.push(Node { level, index: start >> level });
        start += 1 << level;
    }
    nodes
}

/// The hash of a part of the tree from those of its [`nodes`]; `None` if there are none.
pub fn join(hashes: impl DoubleEndedIterator<Item = Hash>) -> Option<Hash> {
    hashes.rev().reduce(|right, left| Hash::of_nodes(&left, &right))
}

/// The hash over hashes of neighbours of the same height.
pub fn root(hashes: &[Hash]) -> Option<Hash> {
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        let pair = |pair: &[Hash]| match pair {
            [left, right] => Some(Hash::of_nodes(left, right)),
            // The last of an odd row is taken up as it is.
            alone => alone.first().copied(),
        };
        row = row.chunks(2).filter_map(pair).collect();
    }
    row.first().copied()
}

/// The greatest power of two below `count`, which is at least 2.
fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

/// The parts of the tree whose hashes prove that it holds the leaf, in the proof's order.
pub fn inclusion(index: u64, size: u64) -> Vec<Range<u64>> {
    let (mut start, mut end, mut parts) = (0, size, Vec::new());
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            parts.push(middle..end);
            end = middle;
        } else {
            parts.push(start..middle);
            start = middle;
        }
    }
    parts.reverse();
    parts
}

/// The parts of the tree of size `to` whose hashes prove that it begins with that of size `from`.
pub fn consistency(from: u64, to: u64) -> Vec<Range<u64>> {
    let (mut start, mut end, mut parts) = (0, to, Vec::new());
    if from == 0 {
        return parts;
    }
    while from < end {
        let middle = start + split(end - start);
        if from <= middle {
            parts.push(middle..end);
            end = middle;
        } else {
            parts.push(start..middle);
            start = middle;
        }
    }
    // Where the old tree is a whole subtree of the new one, its root is known to whoever checks.
    if start > 0 {
        parts.push(start..end);
    }
    parts.reverse();
    parts
}

/// Whether the proof shows that the tree of this size and root holds the leaf at `index`
/// (RFC 9162, 2.1.3.2).
pub fn includes(leaf: Hash, index: u64, tree: Mark, proof: &[Hash]) -> bool {
    if index >= tree.size {
        return false;
    }
    let (mut node, mut last, mut hash) = (index, tree.size - 1, leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = Hash::of_nodes(sibling, &hash);
            let up = node.trailing_zeros().min(u64::BITS - 1);
            if node != 0 {
                (node, last) = (node >> up, last >> up);
            }
        } else {
            hash = Hash::of_nodes(&hash, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    last == 0 && hash == tree.root
}

/// Whether the proof shows that the tree `new` begins with the tree `old` (RFC 9162, 2.1.4.2).
pub fn extends(old: Mark, new: Mark, proof: &[Hash]) -> bool {
    if old.size == 0 {
        return proof.is_empty() && old.root == Hash::of_nothing();
    }
    if old.size >= new.size {
        return old == new && proof.is_empty();
    }
    let known = old.size.is_power_of_two().then_some(old.root);
    let mut path = known.into_iter().chain(proof.iter().copied());
    let Some(first) = path.next() else { return false };
    let up = (old.size - 1).trailing_ones();
    let (mut node, mut last) = ((old.size - 1) >> up, (new.size - 1) >> up);
    let (mut old_hash, mut new_hash) = (first, first);
    for hash in path {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            old_hash = Hash::of_nodes(&hash, &old_hash);
            new_hash = Hash::of_nodes(&hash, &new_hash);
            if node != 0 {
                let up = node.trailing_zeros();
                (node, last) = (node >> up, last >> up);
            }
        } else {
            new_hash = Hash::of_nodes(&new_hash, &hash);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    last == 0 && old_hash == old.root && new_hash == new.root
}

/// A tree, by how many leaves it has and their hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// How many leaves.
    pub size: u64,
    /// The hash over them.
    pub root: Hash,
}

impl Mark {
    /// The tree without leaves.
    pub fn empty() -> Self {
        Self { size: 0, root: Hash::of_nothing() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, word for word.
    fn naive(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Hash::of_nothing(),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                Hash::of_nodes(&naive(left), &naive(right))
            }
        }
    }

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|index| Hash::of_leaf(&index.to_be_bytes())).collect()
    }

    fn part(leaves: &[Hash], range: &Range<u64>) -> Hash {
        naive(&leaves[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()])
    }

    fn mark(leaves: &[Hash], size: u64) -> Mark {
        Mark { size, root: part(leaves, &(0..size)) }
    }

    fn hex(hash: Hash) -> String {
        hash.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The vectors of the reference implementation of RFC 6962 (`merkle_tree_test` of Google's
    /// certificate-transparency).
    #[test]
    fn roots_are_those_of_the_reference_implementation() {
        let entries: [&[u8]; 8] = [
            &[],
            &[0x00],
            &[0x10],
            &[0x20, 0x21],
            &[0x30, 0x31],
            &[0x40, 0x41, 0x42, 0x43],
            &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
            &[
                0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d,
                0x6e, 0x6f,
            ],
        ];
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let leaves: Vec<Hash> = entries.iter().map(|entry| Hash::of_leaf(entry)).collect();
        for (size, expected) in roots.iter().enumerate() {
            let root = root(&leaves[..size]).unwrap_or_else(Hash::of_nothing);
            assert_eq!(hex(root), *expected, "{size}");
        }
        // The paths of the leaves 0 and 5 of the same tests, from the leaf up.
        let path = |index, size| {
            let parts = inclusion(index, size);
            parts.iter().map(|range| hex(part(&leaves, range))).collect::<Vec<_>>()
        };
        let expected = [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ];
        assert_eq!(path(0, 8), expected);
        let expected = [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ];
        assert_eq!(path(5, 8), expected);
    }

    #[test]
    fn every_proof_of_a_small_tree_holds_and_no_other() {
        let all = leaves(40);
        for size in 1..=40 {
            let tree = mark(&all, size);
            for index in 0..size {
                let parts = inclusion(index, size);
                let proof: Vec<Hash> = parts.iter().map(|range| part(&all, range)).collect();
                let leaf = all[usize::try_from(index).unwrap()];
                assert!(includes(leaf, index, tree, &proof), "{index} in {size}");
                assert!(!includes(leaf, index + 1, tree, &proof), "{index} in {size}");
                assert!(!includes(Hash::of_nothing(), index, tree, &proof));
                let longer = [proof.as_slice(), &[leaf]].concat();
                assert!(!includes(leaf, index, tree, &longer));
                if let Some((_, shorter)) = proof.split_last() {
                    assert!(!includes(leaf, index, tree, &proof[1..]));
                    assert!(!includes(leaf, index, tree, shorter));
                }
            }
            for from in 0..=size {
                let old = mark(&all, from);
                let parts = consistency(from, size);
                let proof: Vec<Hash> = parts.iter().map(|range| part(&all, range)).collect();
                assert!(extends(old, tree, &proof), "{from} to {size}");
                let forged = Mark { root: all[0], ..old };
                assert!(from == 1 || !extends(forged, tree, &proof), "{from} to {size}");
                let longer = [proof.as_slice(), &[all[0]]].concat();
                assert!(!extends(old, tree, &longer), "{from} to {size}");
                if let Some((_, shorter)) = proof.split_last() {
                    assert!(!extends(old, tree, shorter), "{from} to {size}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_part_is_joined_from_its_nodes(size in 1_u64..600, index: u64) {
            let all = leaves(size);
            let index = index % size;
            for range in inclusion(index, size).into_iter().chain(consistency(index, size)) {
                let hashes: Vec<Hash> = nodes(range.clone())
                    .iter()
                    .map(|node| part(&all, &(node.index << node.level..(node.index + 1) << node.level)))
                    .collect();
                prop_assert_eq!(join(hashes.into_iter()), Some(part(&all, &range)));
            }
            prop_assert_eq!(root(&all), Some(naive(&all)));
        }
    }
}
