//! The runtime with real guests, the badly behaved ones among them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stream_storage::{ManualClock, ProjectName, Timestamp};
use tempfile::TempDir;

use super::{
    CheckError, CompileLimits, Compiler, Loaded, Outcomes, PluginConfig, PluginStage, Plugins,
    Problem, Purpose, StageSpec,
};
use crate::event::Event;
use crate::name::{PluginName, TopicName};
use crate::stage::{
    Cause, Change, Context, Fault, Partition, PluginRef, Role, Route, Transform, Validate, Verdict,
};

/// A component that is committed.
fn built(name: &str) -> Bytes {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../guest-examples/built");
    std::fs::read(format!("{folder}/{name}.wasm")).unwrap().into()
}

fn project() -> ProjectName {
    ProjectName::parse("p").unwrap()
}

fn context() -> Context {
    Context { topic: TopicName::parse("order.placed").unwrap(), partitions: 4 }
}

fn event(value: &str) -> Event<'static> {
    let value = value.as_bytes().to_vec().into();
    Event { value, value_is_json: true, ..Event::default() }
}

struct Bed {
    plugins: Plugins,
    _folder: TempDir,
}

impl Bed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = PluginConfig::new(folder.path(), Compiler::Here);
        Self::with(config, folder)
    }

    fn with(config: PluginConfig, folder: TempDir) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
        Self { plugins: Plugins::new(config, [1; 32], clock), _folder: folder }
    }

    async fn check(&self, name: &str) -> Result<Loaded, CheckError> {
        self.plugins.check(&project(), built(name), Purpose::Upload).await
    }

    fn use_with(&self, loaded: &Loaded, name: &str, change: fn(&mut StageSpec)) -> PluginStage {
        let mut spec = StageSpec {
            project: project(),
            plugin: PluginRef { name: PluginName::parse(name).unwrap(), version: 1 },
            config: String::new(),
            timeout: Duration::from_millis(100),
            memory: 64 << 20,
            fresh: false,
        };
        change(&mut spec);
        self.plugins.stage(spec, loaded).unwrap()
    }

    async fn stage(&self, name: &str) -> PluginStage {
        self.stage_with(name, |_| {}).await
    }

    async fn stage_with(&self, name: &str, change: fn(&mut StageSpec)) -> PluginStage {
        let loaded = self.check(name).await.unwrap();
        self.use_with(&loaded, name, change)
    }

    fn counters(&self, stage: &PluginStage) -> super::Counters {
        self.plugins.seen(&stage.spec().project, &stage.spec().plugin).counters()
    }
}

async fn validate(stage: &PluginStage, values: &[&str]) -> Result<Vec<Verdict>, Fault> {
    let events: Vec<_> = values.iter().map(|value| event(value)).collect();
    stage.validate(&context(), &events.iter().collect::<Vec<_>>()).await
}

#[tokio::test]
async fn a_validator_says_which_events_it_rejects_and_why() {
    let bed = Bed::new();
    let stage = bed.stage("validate-order").await;
    let good = r#"{"orderId":"1","total":2.5}"#;
    let verdicts = validate(&stage, &[good, r#"{"total":1}"#, good]).await.unwrap();
    assert_eq!((&verdicts[0], &verdicts[2]), (&Verdict::Accept, &Verdict::Accept));
    assert!(
        matches!(&verdicts[1], Verdict::Reject(reason) if reason.contains("orderId")),
        "{verdicts:?}"
    );
    let counters = bed.counters(&stage);
    assert_eq!((counters.calls, counters.events, counters.instances), (1, 3, 1));
    assert_eq!(counters.outcomes[..2], [2, 1]);
    assert!(counters.memory_peak > 0);
}

#[tokio::test]
async fn a_config_is_given_with_each_call() {
    let bed = Bed::new();
    let stage = bed.stage_with("validate-order", |spec| {
        spec.config = r#"{"max_total":10}"#.to_owned();
    });
    let verdicts = validate(&stage.await, &[r#"{"orderId":"1","total":11}"#]).await.unwrap();
    assert!(matches!(&verdicts[..], [Verdict::Reject(_)]), "{verdicts:?}");
}

#[tokio::test]
async fn the_committed_components_export_what_their_readme_says() {
    let bed = Bed::new();
    let cases: [(&str, &[Role]); 8] = [
        ("validate-order", &[Role::Validate]),
        ("require-fields", &[Role::Validate]),
        ("partition-by-field", &[Role::Partition]),
        ("route-by-content", &[Role::Route]),
        ("redact-field", &[Role::Transform]),
        ("pass-through", &Role::ALL),
        ("poison", &Role::ALL),
        ("partition-out-of-range", &[Role::Partition]),
    ];
    for (name, roles) in cases {
        assert_eq!(bed.check(name).await.unwrap().roles(), roles, "{name}");
    }
}

#[tokio::test]
async fn every_role_is_called_with_what_it_needs() {
    let bed = Bed::new();
    let loaded = bed.check("pass-through").await.unwrap();
    assert_eq!(loaded.roles(), Role::ALL);
    let by_field = bed.stage_with("partition-by-field", |spec| spec.config = "origin".to_owned());
    let by_field = by_field.await;
    let events: Vec<_> = ["JFK", "LGA", "JFK", "EWR"]
        .map(|origin| event(&format!("{{\"origin\":\"{origin}\"}}")))
        .into();
    let events: Vec<_> = events.iter().collect();
    let partitions = by_field.partition(&context(), &events).await.unwrap();
    assert_eq!(partitions[0], partitions[2]);
    assert!(partitions.iter().all(|partition| *partition < 4), "{partitions:?}");
    let router = bed.stage_with("route-by-content", |spec| {
        spec.config =
            r#"{"field":"origin","topics":{"JFK":"from.jfk"},"otherwise":"from.other"}"#.to_owned();
    });
    let topics = router.await.route(&context(), &events).await.unwrap();
    let names: Vec<Vec<&str>> =
        topics.iter().map(|topics| topics.iter().map(TopicName::as_str).collect()).collect();
    assert_eq!(names, [["from.jfk"], ["from.other"], ["from.jfk"], ["from.other"]]);
    let redact =
        bed.stage_with("redact-field", |spec| spec.config = r#"["origin"]"#.to_owned()).await;
    let other = event(r#"{"a":1}"#);
    let changes = redact.transform(&context(), &[events[0], &other]).await.unwrap();
    assert_eq!(changes[1], Change::Keep);
    match &changes[0] {
        Change::Replace(event) => assert_eq!(&*event.value, br#"{"origin":"[redacted]"}"#),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_badly_behaved_guest_is_a_fault_with_its_cause() {
    let bed = Bed::new();
    let cases = [
        ("spin", Cause::Timeout),
        ("recurse", Cause::Stack),
        ("eat-memory", Cause::Memory),
        ("huge-list", Cause::Answer),
        ("huge-reason", Cause::Answer),
        ("few-outcomes", Cause::Answer),
        ("panic", Cause::Panic),
        ("sleep-in-poll", Cause::Blocked),
    ];
    for (name, cause) in cases {
        let stage = bed
            .stage_with(name, |spec| {
                spec.memory = 200 << 20;
                // To take so much memory takes its time.
                let is_endless = spec.plugin.name.as_str() == "spin";
                spec.timeout = Duration::from_millis(if is_endless { 50 } else { 3_000 });
            })
            .await;
        for _ in 0..2 {
            let fault = validate(&stage, &["1", "2"]).await.unwrap_err();
            assert_eq!(fault.cause, cause, "{name}: {fault}");
            assert!(fault.to_string().contains(&format!("plugin `{name}@1`")), "{fault}");
        }
        let counters = bed.counters(&stage);
        assert_eq!(counters.instances, 2, "{name}: a fresh instance after a fault");
    }
    assert_eq!(bed.plugins.memory_bytes(), 0, "nothing is left of them");
}

#[tokio::test]
async fn a_partition_that_does_not_exist_is_a_fault() {
    let bed = Bed::new();
    let stage = bed.stage("partition-out-of-range").await;
    let fault = stage.partition(&context(), &[&event("1")]).await.unwrap_err();
    assert_eq!(fault.cause, Cause::Answer);
    assert!(fault.message.contains("below 4, got 4"), "{fault}");
}

#[tokio::test]
async fn a_flood_of_the_log_is_bounded_and_readable() {
    let bed = Bed::new();
    let stage = bed.stage_with("flood-log", |spec| spec.timeout = Duration::from_secs(3)).await;
    let verdicts = validate(&stage, &["1"]).await;
    let log = &bed.plugins.seen(&project(), &stage.spec().plugin).log;
    let (lines, dropped) = log.tail(usize::MAX);
    assert!(
        !lines.is_empty() && lines.iter().map(|line| line.text.len()).sum::<usize>() < 32 << 10
    );
    assert!(dropped > 1 << 20, "{dropped} {verdicts:?}");
    assert_eq!(lines[0].time, Timestamp(1_000));
}

#[tokio::test]
async fn uploads_that_are_no_plugins_are_refused_with_what_was_found() {
    let bed = Bed::new();
    let truncated = built("pass-through").slice(..1_000);
    let mut bomb = built("pass-through").to_vec();
    bomb.truncate(8);
    let cases = [
        (Bytes::from_static(b"hello"), Problem::NotWasm),
        (Bytes::from_static(b"\0asm\x01\0\0\0"), Problem::CoreModule),
        (truncated, Problem::Malformed),
        (bomb.into(), Problem::NoKnownExport),
        (built("no-export"), Problem::NoKnownExport),
        (built("wrong-type"), Problem::WrongType),
        (built("forbidden-import"), Problem::UnknownImport),
        (built("unknown-import"), Problem::UnknownImport),
    ];
    for (bytes, expected) in cases {
        match bed.plugins.check(&project(), bytes, Purpose::Upload).await {
            Err(CheckError::Invalid { problem, expected: rule, found }) => {
                assert_eq!(problem, expected, "{rule}, {found}");
                assert!(!rule.is_empty() && !found.is_empty());
            }
            other => panic!("{expected:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn the_size_of_an_upload_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let size = built("pass-through").len();
    for (max, is_fine) in [(size, true), (size - 1, false)] {
        let folder = tempfile::tempdir_in(folder.path()).unwrap();
        let config = PluginConfig {
            upload_bytes_max: max,
            ..PluginConfig::new(folder.path(), Compiler::Here)
        };
        let checked = Bed::with(config, folder).check("pass-through").await;
        assert_eq!(checked.is_ok(), is_fine, "{max}");
        assert!(is_fine || matches!(checked, Err(CheckError::TooLarge { .. })));
    }
}

#[tokio::test]
async fn instances_are_kept_between_calls_unless_told() {
    let bed = Bed::new();
    let kept = bed.stage("pass-through").await;
    for _ in 0..10 {
        validate(&kept, &["1"]).await.unwrap();
    }
    assert_eq!(bed.counters(&kept).instances, 1);
    let loaded = bed.check("pass-through").await.unwrap();
    let fresh = bed.use_with(&loaded, "fresh", |spec| spec.fresh = true);
    for _ in 0..3 {
        validate(&fresh, &["1"]).await.unwrap();
    }
    assert_eq!(bed.counters(&fresh).instances, 3);
}

#[tokio::test]
async fn an_instance_past_half_its_memory_is_replaced() {
    let bed = Bed::new();
    let stage = bed.stage_with("pass-through", |spec| spec.memory = 2 << 20).await;
    let large = format!("\"{}\"", "x".repeat(400_000));
    for _ in 0..3 {
        validate(&stage, &[&large]).await.unwrap();
    }
    let counters = bed.counters(&stage);
    assert!(counters.memory_peak > 1 << 20, "{counters:?}");
    assert_eq!(counters.instances, 3);
}

#[tokio::test]
async fn compiled_code_is_used_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().to_owned();
    let loaded = Bed::with(PluginConfig::new(&cache, Compiler::Here), folder)
        .check("pass-through")
        .await
        .unwrap();
    let digest = loaded.digest.clone();
    drop(loaded);
    let folder = tempfile::tempdir().unwrap();
    // The folder ended with the first bed: an empty cache knows nothing.
    let nothing = Bed::with(PluginConfig::new(&cache, Compiler::Here), folder);
    assert!(nothing.plugins.cached_component(&digest).await.is_none());
    nothing.check("pass-through").await.unwrap();
    let broken =
        Compiler::Child { program: "/nonexistent".into(), limits: CompileLimits::default() };
    let folder = tempfile::tempdir().unwrap();
    let again = Bed::with(PluginConfig::new(&cache, broken), folder);
    assert!(again.plugins.cached_component(&digest).await.is_some());
    again.check("pass-through").await.unwrap();
    again.plugins.sweep(|_| false).unwrap();
    let error = again.check("redact-field").await.unwrap_err();
    assert!(matches!(error, CheckError::Unavailable { .. }), "{error}");
    std::fs::remove_dir_all(&cache).unwrap();
}

#[tokio::test]
async fn a_call_tells_what_it_took() {
    let bed = Bed::new();
    let stage = bed.stage("pass-through").await;
    let (outcomes, usage) = stage.call(Role::Validate, &context(), &[&event("1")]).await.unwrap();
    assert!(matches!(outcomes, Outcomes::Verdicts(verdicts) if verdicts == [Verdict::Accept]));
    assert!(usage.memory >= 64 << 10 && usage.time > Duration::ZERO, "{usage:?}");
}

#[tokio::test]
async fn a_server_without_memory_for_plugins_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        PluginConfig { memory_total: 1 << 20, ..PluginConfig::new(folder.path(), Compiler::Here) };
    let bed = Bed::with(config, folder);
    let error = bed.check("pass-through").await.map(drop);
    match error {
        Err(CheckError::Unavailable { reason }) => assert!(reason.contains("memory"), "{reason}"),
        other => panic!("{other:?}"),
    }
}
