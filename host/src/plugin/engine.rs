//! The wasmtime engine and its clock.
//!
//! There are two engines of equal code: the one that runs, with pooled memory, and the one that
//! compiles in a child process, without.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

/// How often calls under way look at the clock: a fiftieth of the usual deadline.
pub(super) const TICK: Duration = Duration::from_millis(2);

/// How deep a guest may go. Rust-like guests need tens of KiB, interpreters a few hundred.
const STACK_BYTES_MAX: usize = 512 << 10;

/// Instances at once, each of a component: kept ones and those of calls under way.
pub(super) const INSTANCES_MAX: u32 = 256;
/// Core instances in one component: those of languages with adapters need a dozen.
pub(super) const CORE_INSTANCES_MAX: u32 = 40;
/// Linear memories of one component: each takes 4 GiB of addresses, not of memory.
pub(super) const MEMORIES_MAX: u32 = 4;
/// Tables of one component.
pub(super) const TABLES_MAX: u32 = 20;
/// Elements of one table: an interpreter's has 8,000.
pub(super) const TABLE_ELEMENTS_MAX: usize = 20_000;

/// Bytes of a memory that stay in place when its slot is used again; more costs more to clear than
/// to map anew.
const KEEP_RESIDENT_BYTES: usize = 128 << 10;

/// What must be equal for compiled code to run: everything but where memory comes from.
fn config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES_MAX)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false);
    config
}

/// The engine that compiles. It runs nothing.
pub(super) fn compiling() -> wasmtime::Result<Engine> {
    Engine::new(&config())
}

/// The engine that runs, where no memory is larger than `memory_max`, and no more than `instances_max`
/// components have an instance at a time.
pub(super) fn running(memory_max: usize, instances_max: u32) -> wasmtime::Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances_max)
        .total_core_instances(instances_max * 8)
        .total_memories(instances_max * 2)
        .total_tables(instances_max * 8)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(memory_max)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(KEEP_RESIDENT_BYTES);
    let mut config = config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}

/// A word for everything that compiled code depends on: wasmtime's version, its settings, the
/// processor.
pub(super) fn compatibility(engine: &Engine) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Advances an engine's epoch while calls are under way, and costs nothing else.
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    calls: AtomicUsize,
    is_over: AtomicBool,
}

/// A call is under way; no longer when dropped.
pub(super) struct Ticking<'t>(&'t Ticker);

impl Ticker {
    /// Spawns the thread that ticks.
    pub(super) fn spawn(engine: &Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (engine, of_thread) = (engine.weak(), Arc::clone(&shared));
        let tick = move || {
            while !of_thread.is_over.load(Ordering::Acquire) {
                if of_thread.calls.load(Ordering::Acquire) == 0 {
                    std::thread::park();
                } else {
                    std::thread::park_timeout(TICK);
                    let Some(engine) = engine.upgrade() else { return };
                    engine.increment_epoch();
                }
            }
        };
        let thread = std::thread::Builder::new().name("plugin-ticker".to_owned()).spawn(tick)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Ticks until the answer is dropped.
    pub(super) fn start(&self) -> Ticking<'_> {
        if self.shared.calls.fetch_add(1, Ordering::AcqRel) == 0 {
            self.wake();
        }
        Ticking(self)
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.shared.calls.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // It cannot panic.
            let _ = thread.join();
        }
    }
}
