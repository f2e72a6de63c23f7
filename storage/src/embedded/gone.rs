//! What is there and what is gone: live topics, dropped topics and trim points, known to the
//! committer, to readers, and to the compaction that gives space back.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use fjall::compaction::filter::{CompactionFilter, Context, Factory, ItemAccessor, Verdict};

use super::keys::topic::Life;
use super::keys::trim::TrimPoint;
use super::keys::{PartitionKey, index, log};
use crate::{DecodeError, TopicId};

/// All trim points, all live topics, and the dropped ones whose space is not reclaimed. Only what is
/// durable is in here: compaction destroys by it.
#[derive(Debug, Default)]
pub(super) struct Gone(RwLock<Inner>);

#[derive(Debug, Default)]
struct Inner {
    points: HashMap<PartitionKey, TrimPoint>,
    topics: HashMap<TopicId, Life>,
}

impl Gone {
    /// The trim point of a partition.
    pub(super) fn point(&self, partition: PartitionKey) -> TrimPoint {
        self.read().points.get(&partition).copied().unwrap_or_default()
    }

    /// Whether a topic takes appends.
    pub(super) fn is_live(&self, topic: TopicId) -> bool {
        self.read().topics.get(&topic) == Some(&Life::Live)
    }

    pub(super) fn is_dropped(&self, topic: TopicId) -> bool {
        self.read().is_dropped(topic)
    }

    pub(super) fn dropped(&self) -> Vec<TopicId> {
        let inner = self.read();
        let dropped = inner.topics.iter().filter(|(_, life)| **life == Life::Dropped);
        dropped.map(|(topic, _)| *topic).collect()
    }

    /// All trim points.
    pub(super) fn points(&self) -> Vec<(PartitionKey, TrimPoint)> {
        self.read().points.iter().map(|(partition, point)| (*partition, *point)).collect()
    }

    pub(super) fn trim(&self, partition: PartitionKey, point: TrimPoint) {
        self.write().points.insert(partition, point);
    }

    /// Notes what became of a topic. One whose space is reclaimed is forgotten.
    pub(super) fn set_life(&self, topic: TopicId, life: Life) {
        let mut inner = self.write();
        if life == Life::Reclaimed {
            // At a start most are not there: the points of none of them are looked for then.
            if inner.topics.remove(&topic).is_some() {
                inner.points.retain(|(of, _), _| *of != topic);
            }
        } else {
            inner.topics.insert(topic, life);
        }
    }

    fn covers(&self, partition: PartitionKey, offset: u64) -> bool {
        let inner = self.read();
        inner.is_dropped(partition.0)
            || inner.points.get(&partition).is_some_and(|point| offset < point.offset)
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn is_dropped(&self, topic: TopicId) -> bool {
        self.topics.get(&topic) == Some(&Life::Dropped)
    }
}

/// Which record a stored key stands for: the last one of an entry, or the one an index entry
/// points at.
type ParseKey = fn(&[u8]) -> Result<(PartitionKey, u64), DecodeError>;

/// Destroys entries below their partition's trim point and those of dropped topics, as compaction
/// meets them. Their keys are written once, so that no older version can come back.
pub(super) struct GoneFilterFactory {
    gone: Arc<Gone>,
    parse_key: ParseKey,
}

impl GoneFilterFactory {
    /// The filter of a keyspace, if it needs one.
    pub(super) fn for_keyspace(keyspace: &str, gone: Arc<Gone>) -> Option<Self> {
        let parse_key: ParseKey = match keyspace {
            "index" => index::parse,
            name if name.starts_with("log-") => log::parse_key,
            _ => return None,
        };
        Some(Self { gone, parse_key })
    }
}

impl Factory for GoneFilterFactory {
    #[expect(clippy::unnecessary_literal_bound, reason = "the trait says so")]
    fn name(&self) -> &str {
        "gone"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(GoneFilter { gone: Arc::clone(&self.gone), parse_key: self.parse_key })
    }
}

struct GoneFilter {
    gone: Arc<Gone>,
    parse_key: ParseKey,
}

impl CompactionFilter for GoneFilter {
    fn filter_item(
        &mut self,
        item: ItemAccessor<'_>,
        _: &Context,
    ) -> Result<Verdict, fjall::LsmError> {
        // A key that does not parse is damage: it is kept for whoever looks into it.
        Ok(match (self.parse_key)(item.key()) {
            Ok((partition, offset)) if self.gone.covers(partition, offset) => Verdict::Destroy,
            _ => Verdict::Keep,
        })
    }
}
