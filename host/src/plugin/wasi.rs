//! The part of WASI 0.2 that guests see: no files, no network, no environment, no arguments, a clock
//! that stands still during a call, random numbers that are a function of the events, and a log
//! instead of standard output and error.
//!
//! It is there for languages whose runtimes import it whether they use it or not. No import may
//! block: a guest asleep on the host's side is beyond any deadline.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{SeedableRng, TryRng};
use tokio::io::AsyncWrite;
use wasmtime::component::{Linker, Resource, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{DynPollable, OutputStream, Pollable, StreamError, StreamResult};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder};

use super::guest::State;
use super::log::CallLog;
use crate::lock::lock;

/// The interfaces that a component may import, without their versions.
pub(super) const ALLOWED: [&str; 19] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure-seed",
    "wasi:random/random",
];

/// Random bytes that a guest may ask for at once.
const RANDOM_BYTES_MAX: u64 = 64 << 10;

/// Handles that a guest may hold: each is memory of the host's.
const RESOURCES_MAX: usize = 1_024;

/// A guest wanted to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it called `{call}`, which waits; a plugin may not wait")]
pub(super) struct Blocked {
    call: &'static str,
}

/// What a guest's imports act on.
pub(super) struct Wasi {
    pub(super) ctx: WasiCtx,
    pub(super) table: ResourceTable,
    clock: Arc<AtomicU64>,
    random: Seeded,
}

impl Wasi {
    /// A world with nothing in it, whose output goes to `log`.
    pub(super) fn new(log: &CallLog) -> Self {
        let clock = Arc::new(AtomicU64::new(0));
        let random = Seeded(Arc::new(Mutex::new(SmallRng::seed_from_u64(0))));
        let ctx = WasiCtxBuilder::new()
            .stdout(log.clone())
            .stderr(log.clone())
            .wall_clock(StillClock(Arc::clone(&clock)))
            .monotonic_clock(StillClock(Arc::clone(&clock)))
            .secure_random(random.clone())
            .insecure_random(random.clone())
            .insecure_random_seed(0)
            .max_random_size(RANDOM_BYTES_MAX)
            .allow_tcp(false)
            .allow_udp(false)
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        Self { ctx, table, clock, random }
    }

    /// Sets the clock, in milliseconds since 1970, and the seed for a call.
    pub(super) fn begin(&self, now: u64, seed: u64) {
        self.clock.store(now, Ordering::Relaxed);
        *lock(&self.random.0) = SmallRng::seed_from_u64(seed);
    }
}

/// Links all that may be imported; what waits traps.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_sync(linker)?;
    linker.allow_shadowing(true);
    let mut poll = linker.instance("wasi:io/poll@0.2.12")?;
    poll.func_wrap("poll", |_, (_,): (Vec<Resource<DynPollable>>,)| {
        Err::<(Vec<u32>,), _>(wasmtime::Error::new(Blocked { call: "poll" }))
    })?;
    poll.func_wrap("[method]pollable.block", |_, (_,): (Resource<DynPollable>,)| {
        Err::<(), _>(wasmtime::Error::new(Blocked { call: "pollable.block" }))
    })?;
    // A timer would be a clock that does not stand still.
    let mut clock = linker.instance("wasi:clocks/monotonic-clock@0.2.12")?;
    for call in ["subscribe-duration", "subscribe-instant"] {
        clock.func_wrap(call, move |_, (_,): (u64,)| {
            Err::<(Resource<DynPollable>,), _>(wasmtime::Error::new(Blocked { call }))
        })?;
    }
    linker.allow_shadowing(false);
    Ok(())
}

/// Shows the time at which the call began.
struct StillClock(Arc<AtomicU64>);

impl HostWallClock for StillClock {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

impl HostMonotonicClock for StillClock {
    fn resolution(&self) -> u64 {
        1_000_000
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed).saturating_mul(1_000_000)
    }
}

/// A generator that each call seeds anew.
#[derive(Clone)]
struct Seeded(Arc<Mutex<SmallRng>>);

impl TryRng for Seeded {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        lock(&self.0).try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        lock(&self.0).try_next_u64()
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        lock(&self.0).try_fill_bytes(bytes)
    }
}

impl IsTerminal for CallLog {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for CallLog {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only WASI 0.3 takes it, which is not linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for CallLog {
    async fn ready(&mut self) {}
}

impl OutputStream for CallLog {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(64 << 10)
    }
}
