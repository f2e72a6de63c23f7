//! What all plugins of a server share: engine, threads, memory, compiled code.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use stream_storage::{Clock, ProjectName, Timestamp};
use tokio::sync::oneshot;
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

use super::cache::Cache;
use super::check::{self, CheckError};
use super::compile::{CompileError, Compiler, Purpose, Queue};
use super::engine::{self, Ticker};
use super::guest::{CallLimits, Failed, Guest, Prepared, StartError, State};
use super::limiter::Limiter;
use super::log::CallLog;
use super::stage::{Inner, PluginStage, StageSpec};
use super::stats::Seen;
use super::wasi;
use super::worker::Workers;
use crate::budget::{Budget, Permit};
use crate::heavy::heavy;
use crate::lock::lock;
use crate::name::PluginName;
use crate::stage::{Cause, PluginRef, Role};

/// Deadline of the instance that is started to look at an upload: an interpreter takes its time.
const CHECK_TIME: Duration = Duration::from_secs(3);

/// Components of one project that may be compiled or wait for it.
const COMPILATIONS_MAX: usize = 2;

/// What the runtime may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginConfig {
    /// Where compiled code is kept.
    pub cache: PathBuf,
    /// Where components are compiled.
    pub compiler: Compiler,
    /// Threads on which plugins run; 0 is two more than there are processors.
    pub threads: usize,
    /// Bytes of a component. Default 64 MiB.
    pub upload_bytes_max: usize,
    /// Bytes of memory of one instance, whatever a binding asks for. Default 256 MiB.
    pub memory_max: usize,
    /// Bytes of memory of all instances together; a project may have half of them. Default 1 GiB.
    pub memory_total: usize,
    /// Time of one call, whatever a binding asks for. Default 3 s.
    pub timeout_max: Duration,
    /// Instances at a time, of all plugins: each may take 8 GiB of addresses. Default 256.
    pub instances_max: u32,
}

impl PluginConfig {
    /// The defaults, with a folder for compiled code and a compiler.
    pub fn new(cache: impl Into<PathBuf>, compiler: Compiler) -> Self {
        Self {
            cache: cache.into(),
            compiler,
            threads: 0,
            upload_bytes_max: 64 << 20,
            memory_max: 256 << 20,
            memory_total: 1 << 30,
            timeout_max: Duration::from_secs(3),
            instances_max: engine::INSTANCES_MAX,
        }
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(2, usize::from) + 2,
            threads => threads.max(2),
        }
    }
}

/// Runs plugins.
pub struct Plugins {
    config: PluginConfig,
    shared: Arc<Shared>,
    compiling: Queue,
    cache: Cache,
    /// Made for the first component: who has no plugins pays nothing.
    machine: OnceLock<Result<Arc<Machine>, String>>,
    loaded: Mutex<HashMap<String, Weak<Prepared>>>,
    /// Compilations under way and waiting: one takes a minute at worst, one after the other.
    compilations: Arc<Budget>,
}

/// A component that can be used.
#[derive(Clone)]
pub struct Loaded {
    prepared: Arc<Prepared>,
    /// The hex SHA-256 of the component.
    pub digest: String,
}

impl Loaded {
    /// What it exports.
    pub fn roles(&self) -> &[Role] {
        self.prepared.roles()
    }
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// Engine, threads and clock of calls.
pub(super) struct Machine {
    engine: Engine,
    linker: Linker<State>,
    compatibility: String,
    pub(super) ticker: Ticker,
    pub(super) workers: Workers,
}

/// What stages need of the runtime.
pub(super) struct Shared {
    clock: Arc<dyn Clock>,
    memory: Arc<Budget>,
    stages: Mutex<Vec<Weak<Inner>>>,
    seen: Mutex<HashMap<(ProjectName, PluginRef), Arc<Seen>>>,
}

impl Plugins {
    /// A runtime that has nothing to run yet. `key` signs compiled code: it has to be the same at
    /// each start, and known to nobody else.
    pub fn new(config: PluginConfig, key: [u8; 32], clock: Arc<dyn Clock>) -> Self {
        let shared = Shared {
            clock,
            memory: Budget::new(config.memory_total / 2, config.memory_total),
            stages: Mutex::default(),
            seen: Mutex::default(),
        };
        Self {
            compiling: Queue::new(config.compiler.clone()),
            cache: Cache::new(config.cache.clone(), key),
            config,
            shared: Arc::new(shared),
            machine: OnceLock::new(),
            loaded: Mutex::default(),
            compilations: Budget::new(COMPILATIONS_MAX, usize::MAX),
        }
    }

    /// What it may use.
    pub fn config(&self) -> &PluginConfig {
        &self.config
    }

    /// Bytes of memory that instances have now.
    pub fn memory_bytes(&self) -> usize {
        self.shared.memory.bytes()
    }

    /// Calls that wait for a thread.
    pub fn waiting(&self) -> usize {
        match self.machine.get() {
            Some(Ok(machine)) => machine.workers.waiting(),
            _ => 0,
        }
    }

    /// Checks an upload, compiling it if it is new. Nothing of it is kept but its code on disk.
    ///
    /// # Errors
    ///
    /// See [`CheckError`].
    pub async fn check(
        &self,
        project: &ProjectName,
        bytes: Bytes,
        purpose: Purpose,
    ) -> Result<Loaded, CheckError> {
        let (got, max) = (bytes.len(), self.config.upload_bytes_max);
        if got > max {
            return Err(CheckError::TooLarge { got, max });
        }
        check::preamble(&bytes)?;
        let machine = self.machine().map_err(|reason| CheckError::Unavailable { reason })?;
        let digest = digest(&bytes).await;
        let component = match self.cached(machine, &digest) {
            Some(component) => component,
            None => {
                let _permit = match purpose {
                    Purpose::Upload => Some(self.compilation(project)?),
                    Purpose::Load => None,
                };
                self.compile(machine, &digest, bytes, purpose).await?
            }
        };
        check::interfaces(&component, &super::exported(&component))?;
        let prepared = Prepared::new(&machine.linker, &component);
        let prepared = Arc::new(prepared.map_err(|error| check::link_failed(&error))?);
        self.try_start(machine, project, &prepared).await.map_err(check::start_failed)?;
        Ok(self.remember(digest, prepared))
    }

    /// The right to compile: a project that uploads many components waits for itself.
    fn compilation(&self, project: &ProjectName) -> Result<Permit, CheckError> {
        let mut permit = self.compilations.permit(project.clone());
        let busy = |_| CheckError::Unavailable {
            reason: format!("{COMPILATIONS_MAX} components of the project are being compiled"),
        };
        permit.grow_to(1).map_err(busy)?;
        Ok(permit)
    }

    /// A component that was checked before, if it is in memory or its code is on disk.
    pub async fn cached_component(&self, digest: &str) -> Option<Loaded> {
        let known = lock(&self.loaded).get(digest).and_then(Weak::upgrade);
        if let Some(prepared) = known {
            return Some(Loaded { prepared, digest: digest.to_owned() });
        }
        let machine = self.machine().ok()?;
        let component = self.cached(machine, digest)?;
        let prepared = Prepared::new(&machine.linker, &component).ok()?;
        Some(self.remember(digest.to_owned(), Arc::new(prepared)))
    }

    /// A plugin to use.
    ///
    /// # Errors
    ///
    /// The engine cannot be started.
    pub fn stage(&self, spec: StageSpec, loaded: &Loaded) -> Result<PluginStage, String> {
        let machine = Arc::clone(self.machine()?);
        let seen = self.shared.seen(&spec.project, &spec.plugin);
        let prepared = Arc::clone(&loaded.prepared);
        Ok(PluginStage::new(spec, prepared, machine, Arc::clone(&self.shared), seen))
    }

    /// Counters and log of a version of a plugin; empty ones if it was not used.
    pub fn seen(&self, project: &ProjectName, plugin: &PluginRef) -> Arc<Seen> {
        self.shared.seen(project, plugin)
    }

    /// All that was used, in the order of projects and names.
    pub fn all_seen(&self) -> Vec<((ProjectName, PluginRef), Arc<Seen>)> {
        let seen = lock(&self.shared.seen);
        let mut all: Vec<_> =
            seen.iter().map(|(who, seen)| (who.clone(), Arc::clone(seen))).collect();
        all.sort_by(|(one, _), (other, _)| {
            (one.0.as_str(), &one.1).cmp(&(other.0.as_str(), &other.1))
        });
        all
    }

    /// Forgets counters and log of a plugin that was deleted.
    pub fn forget(&self, project: &ProjectName, name: &PluginName) {
        let mut seen = lock(&self.shared.seen);
        seen.retain(|(of, plugin), _| !(of == project && plugin.name == *name));
    }

    /// Removes compiled code of components that are not wanted any more.
    ///
    /// # Errors
    ///
    /// A file cannot be removed.
    pub fn sweep(&self, is_wanted: impl Fn(&str) -> bool) -> std::io::Result<()> {
        if self.cache.is_empty() {
            // A server without plugins makes no engine.
            return Ok(());
        }
        match engine::compiling() {
            Ok(engine) => self.cache.sweep(&engine::compatibility(&engine), is_wanted),
            Err(error) => Err(std::io::Error::other(error.to_string())),
        }
    }

    fn machine(&self) -> Result<&Arc<Machine>, String> {
        let machine = self.machine.get_or_init(|| {
            Machine::new(&self.config).map(Arc::new).map_err(|error| format!("{error:#}"))
        });
        machine.as_ref().map_err(Clone::clone)
    }

    fn remember(&self, digest: String, prepared: Arc<Prepared>) -> Loaded {
        let mut loaded = lock(&self.loaded);
        loaded.retain(|_, prepared| prepared.strong_count() > 0);
        loaded.insert(digest.clone(), Arc::downgrade(&prepared));
        Loaded { prepared, digest }
    }

    fn cached(&self, machine: &Machine, digest: &str) -> Option<Component> {
        // Tens of MB for an interpreter, read and checked whole.
        let loaded = heavy(usize::MAX, || {
            let code = self.cache.read(digest, &machine.compatibility)?;
            Some(machine.deserialize(&code))
        });
        match loaded? {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!(%error, %digest, "compiled code does not load; it is made again");
                None
            }
        }
    }

    async fn compile(
        &self,
        machine: &Machine,
        digest: &str,
        bytes: Bytes,
        purpose: Purpose,
    ) -> Result<Component, CompileError> {
        let _turn = self.compiling.turn(purpose).await?;
        // Another upload of the same bytes may have had the turn before.
        if let Some(component) = self.cached(machine, digest) {
            return Ok(component);
        }
        let code = self.compiling.compile(bytes).await?;
        let too_large = |error| CompileError::DoesNotFit { message: format!("{error:#}") };
        heavy(usize::MAX, || {
            let component = machine.deserialize(&code).map_err(too_large)?;
            if let Err(error) = self.cache.write(digest, &machine.compatibility, &code) {
                tracing::warn!(%error, "compiled code cannot be kept; each start compiles again");
            }
            Ok(component)
        })
    }

    /// Starts an instance on a worker's thread and ends it: whether it starts, and is of the right
    /// types, only an instance tells.
    async fn try_start(
        &self,
        machine: &Arc<Machine>,
        project: &ProjectName,
        prepared: &Arc<Prepared>,
    ) -> Result<(), StartError> {
        let (answer, answered) = oneshot::channel();
        let (shared, prepared) = (Arc::clone(&self.shared), Arc::clone(prepared));
        let limiter = Limiter::new(self.config.memory_max, &shared.memory, project.clone());
        let ticking = Arc::clone(machine);
        let job = move || {
            let _ticking = ticking.ticker.start();
            let log = CallLog::new(Arc::default());
            let limits = CallLimits { time: CHECK_TIME };
            // The client may be gone by now.
            let _ = answer.send(Guest::start(&prepared, limiter, log, limits).map(drop));
        };
        let busy = |message| StartError::Failed(Failed { cause: Cause::Busy, message });
        let pushed = machine.workers.push(project, Box::new(job));
        pushed.map_err(|full| busy(full.to_string()))?;
        answered.await.unwrap_or_else(|_| Err(busy("the check ended without an answer".to_owned())))
    }
}

impl Machine {
    fn new(config: &PluginConfig) -> wasmtime::Result<Self> {
        let engine = engine::running(config.memory_max, config.instances_max)?;
        let mut linker = Linker::new(&engine);
        wasi::link(&mut linker)?;
        Ok(Self {
            compatibility: engine::compatibility(&engine),
            ticker: Ticker::spawn(&engine)?,
            workers: Workers::new(config.threads()),
            linker,
            engine,
        })
    }

    /// Loads code that this server has compiled: the cache checks that it did.
    #[expect(unsafe_code, reason = "wasmtime cannot tell its own code from other bytes")]
    fn deserialize(&self, code: &[u8]) -> wasmtime::Result<Component> {
        // SAFETY: `code` comes from the compiler just now, or from the cache, which returns only
        // what carries the MAC of a key that no one else knows.
        unsafe { Component::deserialize(&self.engine, code) }
    }
}

impl Shared {
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn start(
        &self,
        prepared: &Prepared,
        spec: &StageSpec,
        seen: &Seen,
    ) -> Result<Guest, Failed> {
        let limiter = Limiter::new(spec.memory, &self.memory, spec.project.clone());
        let log = CallLog::new(Arc::clone(&seen.log));
        Ok(Guest::start(prepared, limiter, log, CallLimits { time: spec.timeout })?)
    }

    pub(super) fn remember(&self, stage: &Arc<Inner>) {
        let mut stages = lock(&self.stages);
        stages.retain(|stage| stage.strong_count() > 0);
        stages.push(Arc::downgrade(stage));
    }

    /// Ends all instances that are between two calls.
    pub(super) fn drop_kept(&self) {
        let stages = lock(&self.stages).clone();
        for stage in stages.iter().filter_map(Weak::upgrade) {
            stage.drop_kept();
        }
    }

    fn seen(&self, project: &ProjectName, plugin: &PluginRef) -> Arc<Seen> {
        let mut seen = lock(&self.seen);
        Arc::clone(seen.entry((project.clone(), plugin.clone())).or_default())
    }
}

/// The hex SHA-256 of a component.
async fn digest(bytes: &Bytes) -> String {
    let digest = heavy(bytes.len(), || Sha256::digest(bytes));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
