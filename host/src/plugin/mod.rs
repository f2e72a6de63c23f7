//! Plugins: WebAssembly components that validate, partition, route and transform events.
//!
//! The only folder that names wasmtime. It knows nothing of topics' bindings, of the store or of HTTP:
//! the core hands it a component and gets back something behind the traits of [`stage`](crate::stage).
//!
//! | module | what it owns |
//! | --- | --- |
//! | `engine` | wasmtime's settings, its pool, its clock |
//! | `compile`, `cache` | from a component to code: in a child process, kept on disk |
//! | `check` | what an upload has to be |
//! | `columns` | events as they cross to a guest |
//! | `guest`, `limiter`, `wasi` | an instance, what it may hold, what it may import |
//! | `worker` | threads on which guests run, fair between projects |
//! | `runtime` | what all plugins share |
//! | `stage` | a version of a plugin behind the stages' traits |
//! | `stats`, `log` | what can be seen of it |

mod cache;
mod check;
mod columns;
mod compile;
mod engine;
mod guest;
mod limiter;
mod log;
mod runtime;
mod stage;
mod stats;
mod wasi;
mod worker;

use wasmtime::component::Component;

use crate::stage::Role;

pub use check::{CheckError, Problem};
pub use compile::{COMMAND, CompileLimits, Compiler, Purpose, compile_in_this_process};
pub use log::{GuestLog, LogLine};
pub use runtime::{Loaded, PluginConfig, Plugins};
pub use stage::{Outcomes, PluginStage, StageSpec};
pub use stats::{BUCKETS, Counters, Outcome, Seen, Usage};

/// The contract's package.
const CONTRACT: &str = "fourbyfour:events@0.1.0";

/// The name of the interface of a role, as a component exports it.
fn interface(role: Role) -> String {
    format!("fourbyfour:events/{}@0.1.0", role.as_str())
}

/// The roles whose interfaces a component exports; whether with the right types, its instance tells.
fn exported(component: &Component) -> Vec<Role> {
    let engine = component.engine();
    let ty = component.component_type();
    let exports = |role: &Role| ty.exports(engine).any(|(name, _)| name == interface(*role));
    Role::ALL.into_iter().filter(exports).collect()
}

#[cfg(test)]
mod tests;
