//! How fast a request's body becomes events: 1,000 events of about 256 bytes, and the sample of
//! real flights.
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

use std::fmt::Write;
use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue};
use stream_host::decode;
use stream_host::limit::Limits;

const FLIGHTS: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/flights-sample.ndjson"));

/// Orders as a shop would send them, with numbers spread by a multiplicative hash.
fn orders() -> String {
    let mut lines = String::new();
    for n in 0..1000_u64 {
        let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let _ = writeln!(
            lines,
            r#"{{"key":"customer-{}","value":{{"order":"{hash:016x}","customer":"customer-{}","items":[{{"sku":"{:08x}","count":{},"price_cents":{}}},{{"sku":"{:08x}","count":1,"price_cents":{}}}],"currency":"EUR","note":"leave it at the door","card":"{:016x}"}}}}"#,
            hash % 200,
            hash % 200,
            hash >> 32,
            n % 7 + 1,
            hash % 99_999,
            hash & 0xffff_ffff,
            hash % 9_999,
            hash.rotate_left(17),
        );
    }
    lines
}

fn array(lines: &str) -> String {
    format!("[{}]", lines.lines().collect::<Vec<_>>().join(","))
}

fn bench(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    content_type: &'static str,
    body: &str,
) {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
    let limits = Limits::default();
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function(name, |bencher| {
        bencher.iter(|| decode::events(black_box(body.as_bytes()), &headers, &limits));
    });
}

fn decode_events(criterion: &mut Criterion) {
    let lines = orders();
    let mut group = criterion.benchmark_group("decode");
    bench(&mut group, "ndjson/1000", "application/x-ndjson", &lines);
    bench(&mut group, "json-array/1000", "application/json", &array(&lines));
    bench(&mut group, "ndjson/flights-608", "application/x-ndjson", FLIGHTS);
}

criterion_group!(benches, decode_events);
criterion_main!(benches);
