//! Tiles: where they lie, how they follow from the tree's size, and how they grow at its right edge
//! (c2sp.org/tlog-tiles).

use std::fmt;

use super::merkle::{self, Hash, Mark};

/// Hashes of a full tile, and entries of a full bundle.
pub const WIDTH: u16 = 256;
/// Two to this power is [`WIDTH`].
pub const HEIGHT: u32 = 8;
/// The highest level that a path may name.
const LEVEL_MAX: u32 = 63;

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Hashes; of leaves at level 0, and of full tiles of the level below above.
    Hashes(u32),
    /// The entries of the level 0 tile of the same index.
    Entries,
}

/// A tile's place, and how much of it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tile {
    /// What it holds.
    pub kind: Kind,
    /// Its place among those of its kind.
    pub index: u64,
    /// How many hashes or entries: 1 to [`WIDTH`].
    pub width: u16,
}

impl Kind {
    /// How many hashes or entries of this kind a tree has.
    pub fn count(self, size: u64) -> u64 {
        match self {
            Self::Hashes(level) => size.checked_shr(level.saturating_mul(HEIGHT)).unwrap_or(0),
            Self::Entries => size,
        }
    }
}

impl Tile {
    /// The tile at this place as a tree of `size` has it; `None` if the tree has nothing there.
    pub fn of_tree(kind: Kind, index: u64, size: u64) -> Option<Self> {
        let before = index.checked_mul(WIDTH.into())?;
        let left = kind.count(size).checked_sub(before)?;
        let width = u16::try_from(left).unwrap_or(WIDTH).min(WIDTH);
        (width > 0).then_some(Self { kind, index, width })
    }

    /// The whole tile at the same place.
    #[must_use]
    pub fn full(self) -> Self {
        Self { width: WIDTH, ..self }
    }

    /// Whether nothing more comes into it.
    pub fn is_full(self) -> bool {
        self.width == WIDTH
    }

    /// Reads a path, such as `tile/0/x001/234.p/7`.
    pub fn parse(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("tile/")?;
        let (kind, rest) = rest.split_once('/')?;
        let kind = match kind {
            "entries" => Kind::Entries,
            level => {
                let level = u32::try_from(decimal(level)?).ok()?;
                Kind::Hashes(Some(level).filter(|level| *level <= LEVEL_MAX)?)
            }
        };
        let (rest, width) = match rest.split_once(".p/") {
            Some((rest, width)) => {
                let width = decimal(width).filter(|width| (1..WIDTH.into()).contains(width))?;
                (rest, u16::try_from(width).ok()?)
            }
            None => (rest, WIDTH),
        };
        let mut index = 0_u64;
        for part in rest.split('/') {
            let digits = part.strip_prefix('x').unwrap_or(part);
            if digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            index = index.checked_mul(1_000)?.checked_add(digits.parse().ok()?)?;
        }
        // There is one way to write a number: it is this one if it is written so again.
        let tile = Self { kind, index, width };
        (tile.to_string() == path).then_some(tile)
    }
}

/// A number without leading zeroes.
fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// The path.
impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Hashes(level) => write!(f, "tile/{level}/")?,
            Kind::Entries => f.write_str("tile/entries/")?,
        }
        let mut groups = vec![self.index % 1_000];
        let mut rest = self.index / 1_000;
        while rest > 0 {
            groups.push(rest % 1_000);
            rest /= 1_000;
        }
        for (place, group) in groups.iter().enumerate().rev() {
            match place {
                0 => write!(f, "{group:03}")?,
                _ => write!(f, "x{group:03}/")?,
            }
        }
        if self.is_full() { Ok(()) } else { write!(f, ".p/{}", self.width) }
    }
}

/// The bytes of a tile of hashes.
pub fn bytes(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// The hashes of a tile that has so many; `None` if the bytes are not so many hashes.
pub fn hashes(bytes: &[u8], width: u16) -> Option<Vec<Hash>> {
    let (hashes, rest) = bytes.as_chunks::<{ Hash::BYTES }>();
    let is_whole = rest.is_empty() && hashes.len() == usize::from(width);
    is_whole.then(|| hashes.iter().copied().map(Hash).collect())
}

/// The right edge of a tree: the tiles that are not full yet, a level each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edge {
    size: u64,
    levels: Vec<Vec<Hash>>,
}

impl Edge {
    /// The tiles of hashes at the right edge of a tree of `size` that are not full, from the leaves
    /// up; `None` for levels whose last tile is full.
    pub fn tiles(size: u64) -> impl Iterator<Item = Option<Tile>> {
        let levels = (0..).take_while(move |level| Kind::Hashes(*level).count(size) > 0);
        levels.map(move |level| {
            let kind = Kind::Hashes(level);
            Tile::of_tree(kind, kind.count(size) / u64::from(WIDTH), size)
        })
    }

    /// The edge of a tree, from the hashes in its [`tiles`](Self::tiles).
    pub fn new(size: u64, levels: Vec<Vec<Hash>>) -> Self {
        Self { size, levels }
    }

    /// How many leaves the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The hashes of leaves in the tile that is not full.
    pub fn leaves(&self) -> &[Hash] {
        self.levels.first().map_or(&[], Vec::as_slice)
    }

    /// Appends a leaf, and hands on each tile that becomes full.
    pub fn push(&mut self, leaf: Hash, mut full: impl FnMut(Tile, &[Hash])) {
        self.size += 1;
        let mut hash = leaf;
        for level in 0_u32.. {
            let place = level as usize;
            if self.levels.len() <= place {
                self.levels.push(Vec::new());
            }
            let Some(hashes) = self.levels.get_mut(place) else { return };
            hashes.push(hash);
            if hashes.len() < usize::from(WIDTH) {
                return;
            }
            let hashes = std::mem::take(hashes);
            let kind = Kind::Hashes(level);
            let index = (kind.count(self.size) / u64::from(WIDTH)).saturating_sub(1);
            full(Tile { kind, index, width: WIDTH }, &hashes);
            let Some(root) = merkle::root(&hashes) else { return };
            hash = root;
        }
    }

    /// The tiles that are not full.
    pub fn partial(&self) -> impl Iterator<Item = (Tile, &[Hash])> {
        let tiles = Self::tiles(self.size).zip(&self.levels);
        tiles.filter_map(|(tile, hashes)| Some((tile?, hashes.as_slice())))
    }

    /// The tree.
    pub fn mark(&self) -> Mark {
        // Each level's hashes lie left of all that the levels below have.
        let level = |hashes: &Vec<Hash>| {
            let nodes = merkle::nodes(0..hashes.len() as u64);
            let node = |node: merkle::Node| {
                let start = usize::try_from(node.index << node.level).ok()?;
                merkle::root(hashes.get(start..start + (1 << node.level))?)
            };
            nodes.into_iter().filter_map(node).collect::<Vec<Hash>>()
        };
        let hashes: Vec<Hash> = self.levels.iter().rev().flat_map(level).collect();
        let root = merkle::join(hashes.into_iter()).unwrap_or_else(Hash::of_nothing);
        Mark { size: self.size, root }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn paths_are_those_of_the_specification() {
        let cases = [
            (Kind::Hashes(0), 1_234_067, WIDTH, "tile/0/x001/x234/067"),
            (Kind::Hashes(0), 0, WIDTH, "tile/0/000"),
            (Kind::Hashes(2), 0, 1, "tile/2/000.p/1"),
            (Kind::Entries, 273, 112, "tile/entries/273.p/112"),
            (Kind::Entries, 1_000, 255, "tile/entries/x001/000.p/255"),
            (Kind::Hashes(63), u64::MAX / 256, WIDTH, "tile/63/x072/x057/x594/x037/x927/935"),
        ];
        for (kind, index, width, path) in cases {
            let tile = Tile { kind, index, width };
            assert_eq!(tile.to_string(), path);
            assert_eq!(Tile::parse(path), Some(tile), "{path}");
        }
    }

    #[test]
    fn there_is_one_way_to_write_a_path() {
        for path in [
            "tile/0/00",
            "tile/0/0000",
            "tile/00/000",
            "tile/64/000",
            "tile/-1/000",
            "tile/+1/000",
            "tile/0/x000/001",
            "tile/0/x001",
            "tile/0/001/001",
            "tile/0/001.p/0",
            "tile/0/001.p/256",
            "tile/0/001.p/01",
            "tile/0/001.p/",
            "tile/0/001.p",
            "tile/data/000",
            "tile/0/../000",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
            "tile/0/000/",
            "/tile/0/000",
            "tile/0/",
            "tile/entries/0 1",
            "tile/0/000.p/1/2",
            "checkpoint",
            "",
            "tile/0/٠٠٠",
        ] {
            assert_eq!(Tile::parse(path), None, "{path}");
        }
    }

    #[test]
    fn a_tree_of_70_000_has_the_tiles_of_the_specification() {
        let widths: Vec<_> = Edge::tiles(70_000).map(|tile| tile.map(|tile| tile.width)).collect();
        assert_eq!(widths, [Some(112), Some(17), Some(1)]);
        let widths: Vec<_> = Edge::tiles(256).map(|tile| tile.map(|tile| tile.width)).collect();
        assert_eq!(widths, [None, Some(1)]);
        let last = Tile::of_tree(Kind::Hashes(0), 272, 70_000).unwrap();
        assert!(last.is_full());
        assert_eq!(Tile::of_tree(Kind::Hashes(0), 274, 70_000), None);
        assert_eq!(
            Tile::of_tree(Kind::Hashes(1), 1, 70_000).unwrap().to_string(),
            "tile/1/001.p/17"
        );
        assert_eq!(Tile::of_tree(Kind::Hashes(63), u64::MAX, u64::MAX), None);
    }

    /// The tiles of a tree, straight from the definition.
    fn naive_tile(leaves: &[Hash], tile: Tile) -> Vec<Hash> {
        let Kind::Hashes(level) = tile.kind else { panic!() };
        let span = 256_usize.pow(level);
        let first = usize::try_from(tile.index).unwrap() * 256;
        (first..first + usize::from(tile.width))
            .map(|place| merkle::root(&leaves[place * span..(place + 1) * span]).unwrap())
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn tiles_grow_as_the_definition_has_them(steps in proptest::collection::vec(0_u64..30_000, 1..6)) {
            let total: u64 = steps.iter().sum();
            let leaves: Vec<Hash> =
                (0..total).map(|index| Hash::of_leaf(&index.to_be_bytes())).collect();
            let mut edge = Edge::default();
            let mut kept: BTreeMap<String, Vec<Hash>> = BTreeMap::new();
            let mut at = 0_usize;
            for step in steps {
                for _ in 0..step {
                    edge.push(leaves[at], |tile, hashes| {
                        kept.insert(tile.to_string(), hashes.to_vec());
                    });
                    at += 1;
                }
                for (tile, hashes) in edge.partial() {
                    kept.insert(tile.to_string(), hashes.to_vec());
                }
                let root = merkle::root(&leaves[..at]).unwrap_or_else(Hash::of_nothing);
                prop_assert_eq!(edge.mark(), Mark { size: at as u64, root });
                // The edge is found again in its tiles.
                let levels = Edge::tiles(at as u64)
                    .map(|tile| tile.map_or_else(Vec::new, |tile| kept[&tile.to_string()].clone()))
                    .collect();
                prop_assert_eq!(&Edge::new(at as u64, levels), &edge);
            }
            for (path, hashes) in &kept {
                let tile = Tile::parse(path).unwrap();
                prop_assert_eq!(hashes, &naive_tile(&leaves, tile), "{}", path);
                let read = super::hashes(&bytes(hashes), tile.width);
                prop_assert_eq!(read.as_ref(), Some(hashes));
            }
            // None is missing.
            for level in 0..3 {
                let kind = Kind::Hashes(level);
                for index in 0..kind.count(total).div_ceil(256) {
                    let tile = Tile::of_tree(kind, index, total).unwrap();
                    prop_assert!(kept.contains_key(&tile.to_string()), "{}", tile);
                }
            }
        }
    }
}
