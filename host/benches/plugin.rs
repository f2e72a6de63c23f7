//! What a call of a plugin costs: a pass-through validator in Rust, by batch size, on a kept and on a
//! fresh instance, and JSON Schema beside it.
//!
//! `cargo bench -p stream-host --bench plugin`. The figure of a batch is per call; divide by its size.
#![expect(clippy::expect_used, reason = "a benchmark that cannot run ends")]

use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use stream_host::event::Event;
use stream_host::name::{PluginName, TopicName};
use stream_host::plugin::{Compiler, PluginConfig, PluginStage, Plugins, Purpose, StageSpec};
use stream_host::stage::{Context, PluginRef, Schema, Validate};
use stream_storage::{ProjectName, SystemClock};

const COMPONENT: &[u8] = include_bytes!("../../guest-examples/built/pass-through.wasm");

/// An order of 256 bytes with ten fields.
fn event(number: usize) -> Event<'static> {
    let text = "x".repeat(98);
    let value = format!(
        "{{\"orderId\":\"{number:08}\",\"total\":12.5,\"currency\":\"EUR\",\"items\":3,\"paid\":true,\
         \"customer\":\"c-17\",\"country\":\"DE\",\"channel\":\"web\",\"at\":1700000000,\"note\":\"{text}\"}}"
    );
    Event {
        key: Some(format!("key-{}", number % 97).into()),
        value: value.into_bytes().into(),
        value_is_json: true,
        ..Event::default()
    }
}

fn schema() -> Schema {
    let text = serde_json::json!({ "type": "string", "maxLength": 128 });
    let number = serde_json::json!({ "type": "number", "minimum": 0 });
    Schema::compile(&serde_json::json!({
        "type": "object",
        "required": ["orderId", "total"],
        "properties": {
            "orderId": text, "total": number, "currency": text, "items": number,
            "paid": { "type": "boolean" }, "customer": text, "country": text, "channel": text,
            "at": number, "note": text,
        },
        "additionalProperties": false,
    }))
    .expect("the schema is one")
}

fn stage(runtime: &tokio::runtime::Runtime, plugins: &Plugins, fresh: bool) -> PluginStage {
    let project = ProjectName::parse("p").expect("a name");
    let loaded = runtime
        .block_on(plugins.check(&project, COMPONENT.into(), Purpose::Upload))
        .expect("a plugin");
    let name = PluginName::parse("pass-through").expect("a name");
    let spec = StageSpec {
        project,
        plugin: PluginRef { name, version: 1 },
        config: String::new(),
        timeout: Duration::from_secs(3),
        memory: 64 << 20,
        fresh,
    };
    plugins.stage(spec, &loaded).expect("an engine")
}

fn calls(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let folder = tempfile::tempdir().expect("a folder");
    let config = PluginConfig::new(folder.path(), Compiler::Here);
    let plugins = Plugins::new(config, [0; 32], Arc::new(SystemClock));
    let (kept, fresh) = (stage(&runtime, &plugins, false), stage(&runtime, &plugins, true));
    let schema = schema();
    let context = Context { topic: TopicName::parse("t").expect("a name"), partitions: 8 };
    let mut group = criterion.benchmark_group("validate");
    for size in [1, 100, 1_000] {
        let events: Vec<Event<'_>> = (0..size).map(event).collect();
        let events: Vec<&Event<'_>> = events.iter().collect();
        group.throughput(Throughput::Elements(size as u64));
        let mut bench = |name: &str, stage: &dyn Validate| {
            group.bench_with_input(BenchmarkId::new(name, size), &events, |bencher, events| {
                bencher
                    .iter(|| runtime.block_on(stage.validate(&context, events)).expect("verdicts"));
            });
        };
        bench("kept instance", &kept);
        bench("fresh instance", &fresh);
        bench("JSON Schema of ten fields", &schema);
    }
    group.finish();
    // What of it is spent in the guest and its start, without the way to the thread.
    for stage in [&kept, &fresh] {
        let one = event(1);
        let mut best = Duration::MAX;
        for _ in 0..2_000 {
            let role = stream_host::stage::Role::Validate;
            let (_, usage) =
                runtime.block_on(stage.call(role, &context, &[&one])).expect("a verdict");
            best = best.min(usage.time);
        }
        eprintln!(
            "one event on the guest's thread, at best: {best:?} (fresh: {})",
            stage.spec().fresh
        );
    }
}

criterion_group!(benches, calls);
criterion_main!(benches);
