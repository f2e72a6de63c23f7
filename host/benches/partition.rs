//! How fast events find their partitions: 1,000 events, each with a key of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a benchmark measures real time, prints, and ends when something fails"
)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stream_host::event::Event;
use stream_host::partition::{RoundRobin, place};

fn place_events(criterion: &mut Criterion) {
    let event = |n| Event { key: Some(format!("customer-{n}").into()), ..Event::default() };
    let events: Vec<Event<'_>> = (0..1000).map(event).collect();
    let round_robin = RoundRobin::default();
    let mut group = criterion.benchmark_group("partition");
    group.throughput(Throughput::Elements(1000));
    group.bench_function("keys/1000", |bencher| {
        bencher.iter(|| place(black_box(&events), 8, &round_robin));
    });
}

criterion_group!(benches, place_events);
criterion_main!(benches);
