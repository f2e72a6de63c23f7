//! Appending by batch size and acknowledgement, and reading in sequence.
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

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use stream_storage::embedded::{EmbeddedConfig, EmbeddedStore};
use stream_storage::{
    Ack, Partition, ProjectName, ReadRequest, ReadStart, Record, RecordBatch, Store, SystemClock,
    TopicChange, TopicId, Transaction,
};
use tokio::runtime::Runtime;

mod event;

const TOPIC: TopicId = TopicId(1);
const PARTITION: Partition = Partition(0);

struct Log {
    runtime: Runtime,
    store: EmbeddedStore,
    project: ProjectName,
    _folder: tempfile::TempDir,
}

impl Log {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        let config = EmbeddedConfig::new(folder.path());
        let store = EmbeddedStore::open(config, Arc::new(SystemClock)).unwrap();
        let project = ProjectName::parse("bench").unwrap();
        let mut create = Transaction::new(project.clone());
        create.topics.push(TopicChange::Create(TOPIC));
        runtime.block_on(store.commit(create)).unwrap();
        Self { runtime, store, project, _folder: folder }
    }

    fn append(&self, batch: RecordBatch, ack: Ack) {
        let mut transaction = Transaction::new(self.project.clone());
        transaction.ack = ack;
        transaction.append(TOPIC, PARTITION, batch);
        self.runtime.block_on(self.store.commit(transaction)).unwrap();
    }

    /// Reads everything, and returns how many records there were and how long it took.
    fn read_all(&self) -> (u64, Duration) {
        let started = Instant::now();
        let mut next = 0;
        loop {
            let request = ReadRequest {
                topic: TOPIC,
                partition: PARTITION,
                start: ReadStart::Offset(next),
                records_max: 10_000,
                bytes_max: 4 << 20,
            };
            let records = self.runtime.block_on(self.store.read(request)).unwrap();
            for record in records.segments.iter().flat_map(stream_storage::Segment::records) {
                std::hint::black_box(record.unwrap());
            }
            if records.segments.is_empty() {
                return (next, started.elapsed());
            }
            next = records.next_offset;
        }
    }
}

fn encode(values: &[Vec<u8>]) -> RecordBatch {
    let mut batch = RecordBatch::with_capacity(values.len() * 300);
    for value in values {
        batch.push(&Record { value, value_is_json: true, ..Record::default() }).unwrap();
    }
    batch
}

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    group.sample_size(10);
    for ack in [Ack::Durable, Ack::Memory] {
        for size in [1, 100, 1_000, 8_000] {
            let log = Log::new();
            let batch = encode(&event::values(size));
            group.throughput(Throughput::Elements(size as u64));
            group.bench_function(BenchmarkId::new(format!("{ack:?}"), size), |bencher| {
                let append = |batch| log.append(batch, ack);
                bencher.iter_batched(|| batch.clone(), append, BatchSize::SmallInput);
            });
        }
    }
}

fn read(criterion: &mut Criterion) {
    const RECORDS: u64 = 400_000;
    let mut group = criterion.benchmark_group("read");
    group.sample_size(10).throughput(Throughput::Elements(RECORDS));
    for size in [1_000, 8_000] {
        let log = Log::new();
        let batch = encode(&event::values(size));
        for _ in 1..RECORDS / size as u64 {
            log.append(batch.clone(), Ack::Memory);
        }
        log.append(batch, Ack::Durable);
        group.bench_function(BenchmarkId::new("sequential", size), |bencher| {
            bencher.iter_custom(|iterations| {
                (0..iterations).map(|_| log.read_all()).fold(
                    Duration::ZERO,
                    |sum, (count, took)| {
                        assert_eq!(count, RECORDS);
                        sum + took
                    },
                )
            });
        });
    }
}

criterion_group!(benches, append, read);
criterion_main!(benches);
