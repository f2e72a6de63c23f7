//! One instance of a component: started, called, and given up once it may no longer be trusted.

use std::sync::Arc;
use std::time::Duration;

use stream_storage::Timestamp;
use wasmtime::component::{
    Component, ComponentNamedList, Instance, InstancePre, Lift, Linker, TypedFunc,
};
use wasmtime::{PoolConcurrencyLimitError, Store, StoreContextMut, Trap, UpdateDeadline};
use wasmtime_wasi::{I32Exit, WasiCtxView, WasiView};

use super::columns::{Columns, WireContext, WireOutcome, WireVerdict};
use super::limiter::{Denied, Limiter};
use super::log::CallLog;
use super::wasi::{Blocked, Wasi};
use super::{CONTRACT, exported};
use crate::stage::{Cause, Role};

/// Bytes that an answer may have beside what the call brought: outcomes and reasons of a large
/// batch, several times over.
const ANSWER_BYTES_SPARE: usize = 4 << 20;

/// A deadline counts the processor's time, so that a busy machine is not the guest's fault. This much
/// may pass in all: longer than any call waits for its processor.
const WALL_MAX: Duration = Duration::from_secs(60);

/// Calls of one instance: what a guest leaks does not add up for ever.
const CALLS_MAX: u32 = 10_000;

/// What a store holds beside the guest.
pub(super) struct State {
    pub(super) limiter: Limiter,
    /// If the component imports any of it.
    wasi: Option<Wasi>,
    log: CallLog,
    deadline: Deadline,
}

impl WasiView for State {
    #[expect(clippy::expect_used, reason = "imports are linked only where `wasi` is made")]
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi.as_mut().expect("a component that imports WASI has it");
        WasiCtxView { ctx: &mut wasi.ctx, table: &mut wasi.table }
    }
}

/// When a call has to be over.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    /// The thread's processor time.
    processor: Duration,
    wall: Duration,
    allowed: Duration,
}

/// A call took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it took longer than the {} ms that it may", allowed.as_millis())]
struct Overdue {
    allowed: Duration,
}

impl Deadline {
    fn after(allowed: Duration) -> Self {
        let wall = clock(rustix::time::ClockId::Monotonic) + WALL_MAX;
        Self { processor: clock(rustix::time::ClockId::ThreadCPUTime) + allowed, wall, allowed }
    }

    fn check(&self) -> Result<(), Overdue> {
        let is_over = clock(rustix::time::ClockId::ThreadCPUTime) > self.processor
            || clock(rustix::time::ClockId::Monotonic) > self.wall;
        if is_over { Err(Overdue { allowed: self.allowed }) } else { Ok(()) }
    }
}

pub(super) fn clock(id: rustix::time::ClockId) -> Duration {
    let time = rustix::time::clock_gettime(id);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// A component that is ready to be instantiated.
pub(super) struct Prepared {
    pre: InstancePre<State>,
    imports_wasi: bool,
    /// What it exports, by the component's type.
    roles: Vec<Role>,
}

impl Prepared {
    /// Links a component's imports.
    pub(super) fn new(linker: &Linker<State>, component: &Component) -> wasmtime::Result<Self> {
        let engine = component.engine();
        let imports_wasi =
            component.component_type().imports(engine).any(|(name, _)| name.starts_with("wasi:"));
        let pre = linker.instantiate_pre(component)?;
        Ok(Self { pre, imports_wasi, roles: exported(component) })
    }

    pub(super) fn roles(&self) -> &[Role] {
        &self.roles
    }
}

/// What a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CallLimits {
    pub(super) time: Duration,
}

/// A call that failed: the guest is of no use any more.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) cause: Cause,
    pub(super) message: String,
}

/// Why there is no instance.
#[derive(Debug)]
pub(super) enum StartError {
    /// What it exports is not of the contract's types.
    WrongType(String),
    /// It broke while it started, or there is no room for it.
    Failed(Failed),
}

impl From<StartError> for Failed {
    fn from(error: StartError) -> Self {
        match error {
            StartError::WrongType(message) => Self { cause: Cause::Start, message },
            StartError::Failed(failed) => failed,
        }
    }
}

/// An instance.
pub(super) struct Guest {
    store: Store<State>,
    functions: Functions,
    calls: u32,
}

/// The functions that it exports.
#[derive(Default)]
struct Functions {
    validate: Option<Function<(Vec<WireVerdict>,)>>,
    partition: Option<Function<(Vec<u32>,)>>,
    route: Option<Function<(Vec<Vec<String>>,)>>,
    transform: Option<Function<(Vec<WireOutcome>,)>>,
}

type Function<R> = TypedFunc<(Arc<WireContext>, Arc<Columns>), R>;

impl Guest {
    /// Starts an instance. Its start counts as a call.
    pub(super) fn start(
        prepared: &Prepared,
        limiter: Limiter,
        log: CallLog,
        limits: CallLimits,
    ) -> Result<Self, StartError> {
        let wasi = prepared.imports_wasi.then(|| Wasi::new(&log));
        let deadline = Deadline::after(limits.time);
        let mut store = Store::new(prepared.pre.engine(), State { limiter, wasi, log, deadline });
        store.limiter(|state| &mut state.limiter);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|store: StoreContextMut<'_, State>| {
            store.data().deadline.check()?;
            Ok(UpdateDeadline::Continue(1))
        });
        store.set_hostcall_fuel(ANSWER_BYTES_SPARE);
        let failed = |error: &wasmtime::Error, store: &Store<State>| {
            let Failed { cause, message } = classify(error, store);
            // A start has no answer to be malformed.
            let cause = if cause == Cause::Answer { Cause::Start } else { cause };
            StartError::Failed(Failed { cause, message })
        };
        let instance =
            prepared.pre.instantiate(&mut store).map_err(|error| failed(&error, &store))?;
        let functions = Functions::of(&instance, &mut store, prepared.roles())
            .map_err(|error| StartError::WrongType(format!("{error:#}")))?;
        Ok(Self { store, functions, calls: 0 })
    }

    pub(super) fn validate(&mut self, call: Call<'_>) -> Result<Vec<WireVerdict>, Failed> {
        self.call(|functions| functions.validate.as_ref(), call)
    }

    pub(super) fn partition(&mut self, call: Call<'_>) -> Result<Vec<u32>, Failed> {
        self.call(|functions| functions.partition.as_ref(), call)
    }

    pub(super) fn route(&mut self, call: Call<'_>) -> Result<Vec<Vec<String>>, Failed> {
        self.call(|functions| functions.route.as_ref(), call)
    }

    pub(super) fn transform(&mut self, call: Call<'_>) -> Result<Vec<WireOutcome>, Failed> {
        self.call(|functions| functions.transform.as_ref(), call)
    }

    /// Whether it may be called again: it has not grown far, nor been called often.
    pub(super) fn is_fresh_enough(&self) -> bool {
        let limiter = &self.store.data().limiter;
        self.calls < CALLS_MAX && limiter.bytes() <= limiter.max() / 2
    }

    /// Bytes of its memories.
    pub(super) fn memory_bytes(&self) -> usize {
        self.store.data().limiter.bytes()
    }

    fn call<T>(
        &mut self,
        function: impl Fn(&Functions) -> Option<&Function<(Vec<T>,)>>,
        call: Call<'_>,
    ) -> Result<Vec<T>, Failed>
    where
        T: Lift + Send + Sync + 'static,
        (Vec<T>,): ComponentNamedList + Lift,
    {
        let missing = || Failed {
            cause: Cause::Unavailable,
            message: "the component does not export the interface".to_owned(),
        };
        let function = *function(&self.functions).ok_or_else(missing)?;
        self.begin(&call);
        let params = (Arc::clone(call.context), Arc::clone(call.columns));
        let answered = function.call(&mut self.store, params).map(|(outcomes,)| outcomes);
        self.store.data().log.end();
        let outcomes = answered.map_err(|error| classify(&error, &self.store))?;
        if outcomes.len() != call.columns.count() {
            let (expected, got) = (call.columns.count(), outcomes.len());
            let message = format!("expected {expected} outcomes, one an event, got {got}");
            return Err(Failed { cause: Cause::Answer, message });
        }
        Ok(outcomes)
    }

    fn begin(&mut self, call: &Call<'_>) {
        self.calls += 1;
        // An answer may give back what the call brought, changed, and each list in it once more.
        let spare = ANSWER_BYTES_SPARE + 2 * call.columns.byte_len();
        self.store.set_hostcall_fuel(spare);
        self.store.set_epoch_deadline(1);
        let state = self.store.data_mut();
        state.deadline = Deadline::after(call.limits.time);
        state.log.begin(call.now);
        if let Some(wasi) = &state.wasi {
            wasi.begin(call.now.0, call.columns.seed());
        }
    }
}

/// A call to make.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) context: &'a Arc<WireContext>,
    pub(super) columns: &'a Arc<Columns>,
    pub(super) limits: CallLimits,
    pub(super) now: Timestamp,
}

impl Functions {
    fn of(instance: &Instance, store: &mut Store<State>, roles: &[Role]) -> wasmtime::Result<Self> {
        let mut functions = Self::default();
        for role in roles {
            match role {
                Role::Validate => functions.validate = Some(find(instance, store, *role)?),
                Role::Partition => functions.partition = Some(find(instance, store, *role)?),
                Role::Route => functions.route = Some(find(instance, store, *role)?),
                Role::Transform => functions.transform = Some(find(instance, store, *role)?),
            }
        }
        Ok(functions)
    }
}

/// The function of a role, if its type is the contract's.
fn find<T>(
    instance: &Instance,
    store: &mut Store<State>,
    role: Role,
) -> wasmtime::Result<Function<(Vec<T>,)>>
where
    T: Lift + Send + Sync + 'static,
    (Vec<T>,): ComponentNamedList + Lift,
{
    let word = role.as_str();
    let missing = || wasmtime::Error::msg(format!("interface `{word}` has no function `{word}`"));
    let interface = super::interface(role);
    let index = instance.get_export_index(&mut *store, None, &interface).ok_or_else(missing)?;
    let index = instance.get_export_index(&mut *store, Some(&index), word).ok_or_else(missing)?;
    let function = instance.get_func(&mut *store, index).ok_or_else(missing)?;
    function.typed(&*store).map_err(|error| {
        error.context(format!("function `{word}` is not of the type that {CONTRACT} gives it"))
    })
}

/// Why a guest failed.
fn classify(error: &wasmtime::Error, store: &Store<State>) -> Failed {
    let limiter = &store.data().limiter;
    let denied = error.downcast_ref::<Denied>().copied().or(limiter.denied());
    let (cause, message) = if let Some(denied) = denied {
        let cause = match denied {
            Denied::Limit { .. } => Cause::Memory,
            Denied::Budget { .. } => Cause::Busy,
        };
        (cause, denied.to_string())
    } else if let Some(overdue) = error.downcast_ref::<Overdue>() {
        (Cause::Timeout, overdue.to_string())
    } else if let Some(blocked) = error.downcast_ref::<Blocked>() {
        (Cause::Blocked, blocked.to_string())
    } else if let Some(trap) = error.downcast_ref::<Trap>() {
        let cause = match trap {
            Trap::StackOverflow => Cause::Stack,
            Trap::UnreachableCodeReached => Cause::Panic,
            Trap::Interrupt => Cause::Timeout,
            _ => Cause::Trap,
        };
        (cause, trap.to_string())
    } else if error.is::<PoolConcurrencyLimitError>() {
        (Cause::Busy, error.to_string())
    } else if let Some(exit) = error.downcast_ref::<I32Exit>() {
        (Cause::Panic, format!("it exited with status {}", exit.0))
    } else {
        (Cause::Answer, error.root_cause().to_string())
    };
    Failed { cause, message }
}
