//! What an upload has to be: a component that exports at least one interface of the contract, with
//! the right types, and imports nothing that is not given.

use wasmtime::component::Component;

use super::compile::CompileError;
use super::guest::{Failed, StartError};
use super::{CONTRACT, interface, wasi};
use crate::stage::Role;

/// Why an upload is refused: always the component's fault, but for
/// [`Unavailable`](Self::Unavailable).
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It is larger than an upload may be.
    #[error("the component has {got} bytes, at most {max} are allowed")]
    TooLarge {
        /// Its size.
        got: usize,
        /// The limit.
        max: usize,
    },
    /// It is not what it has to be.
    #[error("expected {expected}, found {found}")]
    Invalid {
        /// A stable word for the problem.
        problem: Problem,
        /// What a component has to be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// It is the server's fault: the compiler cannot be run, or there is no room for an instance.
    #[error("{reason}")]
    Unavailable {
        /// What happened.
        reason: String,
    },
}

/// What is wrong with a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// The bytes are something else.
    NotWasm,
    /// A core module, not a component.
    CoreModule,
    /// It is cut short or breaks a rule of WebAssembly.
    Malformed,
    /// It exports no interface of the contract.
    NoKnownExport,
    /// An interface that it exports is not of the contract's type.
    WrongType,
    /// It imports what is not given.
    UnknownImport,
    /// Compiling it takes too much.
    CompileLimits,
    /// It declares more memory, tables or globals than an instance may have.
    HostLimits,
    /// It cannot be started.
    Start,
}

impl Problem {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotWasm => "not-wasm",
            Self::CoreModule => "core-module",
            Self::Malformed => "malformed",
            Self::NoKnownExport => "no-known-export",
            Self::WrongType => "wrong-type",
            Self::UnknownImport => "unknown-import",
            Self::CompileLimits => "compile-limits",
            Self::HostLimits => "host-limits",
            Self::Start => "start",
        }
    }
}

impl CheckError {
    fn invalid(problem: Problem, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Invalid { problem, expected: expected.into(), found: found.into() }
    }
}

/// The first bytes: a magic number, a version, and the layer, which tells modules and components
/// apart.
pub(super) fn preamble(bytes: &[u8]) -> Result<(), CheckError> {
    const EXPECTED: &str = "a WebAssembly component";
    let found = match bytes {
        [b'\0', b'a', b's', b'm', _, _, 1, 0, ..] => return Ok(()),
        [b'\0', b'a', b's', b'm', _, _, 0, 0, ..] => {
            let found = "a core module; `stream plugin build` or `wasm-tools component new` makes \
                         a component of it";
            return Err(CheckError::invalid(Problem::CoreModule, EXPECTED, found));
        }
        [b'\0', b'a', b's', b'm', ..] => {
            return Err(CheckError::invalid(Problem::Malformed, EXPECTED, "a damaged preamble"));
        }
        [] => "nothing".to_owned(),
        other => {
            let start: String = other.iter().take(8).map(|byte| format!("{byte:02x} ")).collect();
            format!("bytes that start with {}", start.trim_end())
        }
    };
    Err(CheckError::invalid(Problem::NotWasm, EXPECTED, found))
}

/// The imports and exports, by the component's own account of itself.
pub(super) fn interfaces(component: &Component, roles: &[Role]) -> Result<(), CheckError> {
    let (engine, ty) = (component.engine(), component.component_type());
    for (name, _) in ty.imports(engine) {
        let (base, version) = name.split_once('@').unwrap_or((name, ""));
        // A component that uses the contract's types imports them; there is nothing in them to call.
        let is_given = (wasi::ALLOWED.contains(&base) && version.starts_with("0.2."))
            || name == "fourbyfour:events/types@0.1.0";
        if !is_given {
            let expected = "no imports but those of WASI 0.2 that need no file or network";
            let found = format!("an import of `{}`", cut(name));
            return Err(CheckError::invalid(Problem::UnknownImport, expected, found));
        }
    }
    if roles.is_empty() {
        let known: Vec<String> =
            Role::ALL.iter().map(|role| format!("`{}`", interface(*role))).collect();
        let found: Vec<String> =
            ty.exports(engine).take(8).map(|(name, _)| format!("`{}`", cut(name))).collect();
        let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
        let expected = format!("at least one export of {}", known.join(", "));
        return Err(CheckError::invalid(Problem::NoKnownExport, expected, found));
    }
    Ok(())
}

/// A component that imports something with another type than is given.
pub(super) fn link_failed(error: &wasmtime::Error) -> CheckError {
    let expected = "imports of the types that WASI 0.2 gives them";
    CheckError::invalid(Problem::UnknownImport, expected, format!("{error:#}"))
}

/// A component whose first instance failed to start.
pub(super) fn start_failed(error: StartError) -> CheckError {
    match error {
        StartError::WrongType(found) => {
            let expected = format!("the functions of `{CONTRACT}`");
            CheckError::invalid(Problem::WrongType, expected, found)
        }
        StartError::Failed(Failed { cause, message }) if cause.is_of_host() => {
            CheckError::Unavailable { reason: message }
        }
        StartError::Failed(Failed { cause, message }) => {
            let found = format!("one that fails ({}): {message}", cause.as_str());
            CheckError::invalid(Problem::Start, "a component that starts", found)
        }
    }
}

impl From<CompileError> for CheckError {
    fn from(error: CompileError) -> Self {
        match error {
            CompileError::Refused { message } => {
                Self::invalid(Problem::Malformed, "a valid component", message)
            }
            CompileError::Limits { limits } => Self::invalid(
                Problem::CompileLimits,
                format!(
                    "a component that compiles within {} s and {} MiB",
                    limits.processor.as_secs(),
                    limits.memory >> 20
                ),
                "one that takes more",
            ),
            CompileError::DoesNotFit { message } => Self::invalid(
                Problem::HostLimits,
                "a component within an instance's limits",
                message,
            ),
            CompileError::Broken { message } => Self::Unavailable { reason: message },
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(128).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preamble_tells_components_modules_and_the_rest_apart() {
        let problem = |bytes: &[u8]| match preamble(bytes) {
            Ok(()) => None,
            Err(CheckError::Invalid { problem, .. }) => Some(problem),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(problem(b"\0asm\x0d\0\x01\0"), None);
        assert_eq!(problem(b"\0asm\x01\0\0\0"), Some(Problem::CoreModule));
        assert_eq!(problem(b"\0asm\x01\0"), Some(Problem::Malformed));
        assert_eq!(problem(b""), Some(Problem::NotWasm));
        assert_eq!(problem(b"{\"a\":1}"), Some(Problem::NotWasm));
    }
}
