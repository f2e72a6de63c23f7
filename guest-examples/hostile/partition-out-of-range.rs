//! Chooses the partition after the last.

use stream_plugin::{Context, Event};

stream_plugin::partitioner!(partition);

fn partition(context: &Context, _event: &Event) -> u32 {
    context.partitions
}
