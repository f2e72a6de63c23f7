//! Plugins for Stream in Rust: write a function of one event, name its role, build a component.
//!
//! ```
//! use stream_plugin::{Context, Event, Verdict};
//!
//! stream_plugin::validator!(validate);
//!
//! /// Accepts what has a key, and at most as many bytes as the binding's config says.
//! fn validate(context: &Context, event: &Event) -> Verdict {
//!     let bytes_max = context.config.parse().unwrap_or(1_000);
//!     if event.key().is_none() {
//!         Verdict::Reject("expected a key".to_owned())
//!     } else if event.value().len() > bytes_max {
//!         Verdict::Reject(format!("expected at most {bytes_max} bytes"))
//!     } else {
//!         Verdict::Accept
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! The crate of a plugin has `crate-type = ["cdylib"]`, and becomes a component with
//! `cargo build --release --target wasm32-wasip2`.
//!
//! # Roles
//!
//! | macro | function | answer |
//! | --- | --- | --- |
//! | [`validator!`] | `fn(&Context, &Event) -> Verdict` | may the event be stored? |
//! | [`partitioner!`] | `fn(&Context, &Event) -> u32` | a partition below [`Context::partitions`] |
//! | [`router!`] | `fn(&Context, &Event) -> Vec<String>` | the topics that get a copy |
//! | [`transformer!`] | `fn(&Context, &Event) -> Outcome` | what is stored in its place |
//!
//! A plugin may have several roles: use several of the macros, each once.
//!
//! # A config that is more than text
//!
//! Each macro takes a second function, which makes of the context what the first wants in its
//! place. It runs once a call, not once an event:
//!
//! ```
//! use stream_plugin::{Context, Event};
//!
//! stream_plugin::router!(route, topics);
//!
//! fn topics(context: &Context) -> Vec<String> {
//!     context.config.split(',').map(str::to_owned).collect()
//! }
//!
//! fn route(topics: &Vec<String>, event: &Event) -> Vec<String> {
//!     if event.header("audit").is_some() { topics.clone() } else { Vec::new() }
//! }
//! # fn main() {}
//! ```
//!
//! # What goes wrong
//!
//! A panic is a fault of the plugin, not a verdict: the binding's `on_fault` says what becomes of
//! the events. Reading an event never panics; a text that is not UTF-8 reads as a missing one.
//!
//! # Tests
//!
//! On any other target a plugin is plain Rust, with nothing exported. [`Event::from_value`] makes
//! an event of a value, and a [`Batch`] is collected from [`OwnedEvent`]s.

mod batch;
#[doc(hidden)]
pub mod bindings;
mod event;

pub use batch::Events;
pub use bindings::transformer::transform::Outcome;
pub use bindings::types::{Batch, Context, Event as OwnedEvent};
pub use bindings::validator::validate::Verdict;
pub use event::{Event, Headers};

/// Exports `validate`: `validator!(function)` or `validator!(function, prepare)`.
///
/// The function gets what `prepare` made of the [`Context`], or the context itself, and an
/// [`Event`]; it answers with a [`Verdict`].
#[macro_export]
macro_rules! validator {
    ($($function:path),+ $(,)?) => {
        $crate::__role!(validator, validate, $crate::Verdict, $($function),+);
    };
}

/// Exports `partition`: `partitioner!(function)` or `partitioner!(function, prepare)`.
///
/// The function gets what `prepare` made of the [`Context`], or the context itself, and an
/// [`Event`]; it answers with a partition, below [`Context::partitions`].
#[macro_export]
macro_rules! partitioner {
    ($($function:path),+ $(,)?) => {
        $crate::__role!(partitioner, partition, u32, $($function),+);
    };
}

/// Exports `route`: `router!(function)` or `router!(function, prepare)`.
///
/// The function gets what `prepare` made of the [`Context`], or the context itself, and an
/// [`Event`]; it answers with the names of topics.
#[macro_export]
macro_rules! router {
    ($($function:path),+ $(,)?) => {
        $crate::__role!(router, route, Vec<String>, $($function),+);
    };
}

/// Exports `transform`: `transformer!(function)` or `transformer!(function, prepare)`.
///
/// The function gets what `prepare` made of the [`Context`], or the context itself, and an
/// [`Event`]; it answers with an [`Outcome`].
#[macro_export]
macro_rules! transformer {
    ($($function:path),+ $(,)?) => {
        $crate::__role!(transformer, transform, $crate::Outcome, $($function),+);
    };
}

/// One role: its world, its interface and that interface's function, of the same name.
#[doc(hidden)]
#[macro_export]
macro_rules! __role {
    ($world:ident, $interface:ident, $Answer:ty, $function:path) => {
        $crate::__role!($world, $interface, $Answer, $function, ::core::convert::identity);
    };
    ($world:ident, $interface:ident, $Answer:ty, $function:path, $prepare:path) => {
        const _: () = {
            use $crate::bindings::$world as role;

            struct Plugin;

            impl role::$interface::Guest for Plugin {
                fn $interface(context: $crate::Context, batch: $crate::Batch) -> Vec<$Answer> {
                    let prepared = $prepare(&context);
                    batch.events().map(|event| $function(&prepared, &event)).collect()
                }
            }

            // Only a linker for Wasm takes the names of exports; elsewhere, tests are what runs.
            #[cfg(target_arch = "wasm32")]
            role::export! { Plugin with_types_in role }
            #[cfg(not(target_arch = "wasm32"))]
            const _: fn($crate::Context, $crate::Batch) -> Vec<$Answer> =
                <Plugin as role::$interface::Guest>::$interface;
        };
    };
}
