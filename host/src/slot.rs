//! A partition of any topic, where several topics are read at once.

use stream_storage::{Partition, TopicId};

/// One partition of one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// The topic.
    pub topic: TopicId,
    /// The partition of it.
    pub partition: Partition,
}

impl Slot {
    /// The partition of the topic.
    pub fn new(topic: TopicId, partition: Partition) -> Self {
        Self { topic, partition }
    }
}
