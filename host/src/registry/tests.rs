//! Uploads, versions, and what is left of those that did not come to an end.

use std::time::Duration;

use stream_storage::ManualClock;
use stream_storage::embedded::{EmbeddedConfig, EmbeddedStore};
use tempfile::TempDir;

use super::*;
use crate::plugin::{Compiler, PluginConfig};

struct Bed {
    registry: Registry,
    store: Arc<dyn Store>,
    clock: Arc<ManualClock>,
    _folder: TempDir,
}

fn bed() -> Bed {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
    let config =
        EmbeddedConfig { reserve_bytes: 0, ..EmbeddedConfig::new(folder.path().join("data")) };
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(config, clock.clone()).unwrap());
    let config = PluginConfig::new(folder.path().join("cache"), Compiler::Here);
    let plugins = Arc::new(Plugins::new(config, [1; 32], clock.clone()));
    let registry = Registry::new(store.clone(), clock.clone(), plugins);
    Bed { registry, store, clock, _folder: folder }
}

fn built(name: &str) -> Bytes {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../guest-examples/built");
    std::fs::read(format!("{folder}/{name}.wasm")).unwrap().into()
}

fn project() -> ProjectName {
    ProjectName::parse("p").unwrap()
}

fn name() -> PluginName {
    PluginName::parse("orders").unwrap()
}

impl Bed {
    async fn rows(&self, prefix: &str) -> usize {
        self.store.scan(&project(), prefix.as_bytes(), None, 1_000).await.unwrap().len()
    }

    async fn upload(&self, component: &str) -> (PluginVersion, Made) {
        self.registry.upload(&project(), &name(), built(component)).await.unwrap()
    }
}

#[tokio::test]
async fn each_new_component_is_a_version_and_the_same_one_is_none() {
    let bed = bed();
    let (first, made) = bed.upload("pass-through").await;
    assert_eq!((first.version, made), (1, Made::Created));
    assert_eq!(first.roles, Role::ALL);
    assert_eq!(bed.upload("pass-through").await, (first.clone(), Made::Existed));
    let (second, _) = bed.upload("validate-order").await;
    assert_eq!((second.version, second.roles.as_slice()), (2, &[Role::Validate][..]));
    // Back to what was: a version of its own, with the bytes that are there.
    let (third, made) = bed.upload("pass-through").await;
    assert_eq!((third.version, third.digest, made), (3, first.digest, Made::Created));
    assert_eq!(bed.rows("component/").await, 2);
    let plugin = bed.registry.get(&project(), &name()).await.unwrap();
    assert_eq!(plugin.version(None).unwrap().version, 3);
    assert_eq!(plugin.version(Some(9)).unwrap_err().version, Some(9));
}

#[tokio::test]
async fn a_version_is_loaded_from_the_store_where_no_code_is_kept() {
    let bed = bed();
    let (version, _) = bed.upload("validate-order").await;
    let other = tempfile::tempdir().unwrap();
    let config = PluginConfig::new(other.path(), Compiler::Here);
    let plugins = Arc::new(Plugins::new(config, [1; 32], bed.clock.clone()));
    let elsewhere = Registry::new(bed.store.clone(), bed.clock.clone(), plugins);
    let plugin = PluginRef { name: name(), version: 1 };
    let loaded = elsewhere.load_version(&project(), &plugin).await.unwrap();
    assert_eq!(
        (loaded.digest.as_str(), loaded.roles()),
        (version.digest.as_str(), &[Role::Validate][..])
    );
}

#[tokio::test]
async fn what_is_refused_leaves_nothing() {
    let bed = bed();
    let refused = bed.registry.upload(&project(), &name(), built("no-export")).await;
    assert!(matches!(refused, Err(RegistryError::Check(_))), "{refused:?}");
    assert_eq!(bed.rows("").await, 0);
}

#[tokio::test]
async fn large_components_are_stored_in_chunks() {
    let bed = bed();
    let bytes = Bytes::from(vec![7; 4 * CHUNK + 1]);
    const CHUNK: usize = 4 << 20;
    blob::write(bed.store.as_ref(), Timestamp(1), &project(), "d", &bytes).await.unwrap();
    assert_eq!(bed.rows("component-chunk/d/").await, 5);
    assert_eq!(blob::read(bed.store.as_ref(), &project(), "d").await.unwrap(), bytes);
}

#[tokio::test]
async fn orphans_are_swept_once_they_are_old_and_what_is_used_stays() {
    let bed = bed();
    bed.upload("validate-order").await;
    // An upload that a crash ended before it was registered.
    let bytes = built("redact-field");
    blob::write(bed.store.as_ref(), bed.clock.now(), &project(), "orphan", &bytes).await.unwrap();
    bed.registry.sweep(&[project()]).await.unwrap();
    assert_eq!((bed.rows("component/").await, bed.rows("component-chunk/").await), (2, 2));
    bed.clock.advance(Duration::from_secs(3_600));
    bed.registry.sweep(&[project()]).await.unwrap();
    assert_eq!((bed.rows("component/").await, bed.rows("component-chunk/").await), (1, 1));
    let plugin = PluginRef { name: name(), version: 1 };
    bed.registry.load_version(&project(), &plugin).await.unwrap();
}
