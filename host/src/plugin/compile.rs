//! From a component to code, in a child process.
//!
//! Compiling is no sandboxed act: a few KB can keep a compiler busy for hours or fill its memory. So
//! it happens in a process of its own that the operating system stops, and that has a low priority.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::engine;

/// The hidden command that the child runs.
pub const COMMAND: &str = "compile-plugin";

/// How the child says that the component is at fault; any other end is the limits' or ours.
const EXIT_REFUSED: u8 = 65;

/// Bytes of a compiler's message that are told.
const MESSAGE_BYTES_MAX: usize = 2_048;

/// What one compilation may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    /// Processor time. Default 60 s: a JavaScript component takes 15.
    pub processor: Duration,
    /// Address space, in bytes. Default 2 GiB: a JavaScript component takes 512 MiB.
    pub memory: u64,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self { processor: Duration::from_secs(60), memory: 2 << 30 }
    }
}

/// Where components are compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compiler {
    /// In a child: this program with [`COMMAND`].
    Child {
        /// The program.
        program: PathBuf,
        /// The child's limits.
        limits: CompileLimits,
    },
    /// In this process, without limits: for tests and benchmarks of what was built here.
    Here,
}

/// Why there is no code.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The component is not valid.
    #[error("{message}")]
    Refused {
        /// What is wrong, as the compiler says it.
        message: String,
    },
    /// It takes more than it may.
    #[error("compiling it takes more than {} s of processor time or {} MiB of memory", limits.processor.as_secs(), limits.memory >> 20)]
    Limits {
        /// What it may take.
        limits: CompileLimits,
    },
    /// Its code does not fit the engine: more memory, tables or globals than an instance may have.
    #[error("{message}")]
    DoesNotFit {
        /// What is too large.
        message: String,
    },
    /// The compiler could not be run.
    #[error("the compiler cannot be run: {message}")]
    Broken {
        /// Why not.
        message: String,
    },
}

impl CompileError {
    fn broken(error: impl std::fmt::Display) -> Self {
        Self::Broken { message: error.to_string() }
    }
}

/// Compiles, one component of each purpose at a time: each may take all of a processor.
pub(super) struct Queue {
    compiler: Compiler,
    uploads: Semaphore,
    loads: Semaphore,
}

/// What a component is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It is new, and may be anything.
    Upload,
    /// It was checked before: requests wait for it, and it does not wait behind uploads.
    Load,
}

impl Queue {
    pub(super) fn new(compiler: Compiler) -> Self {
        Self { compiler, uploads: Semaphore::new(1), loads: Semaphore::new(1) }
    }

    /// Waits for its turn, which is over when the answer is dropped.
    pub(super) async fn turn(&self, purpose: Purpose) -> Result<SemaphorePermit<'_>, CompileError> {
        let turns = match purpose {
            Purpose::Upload => &self.uploads,
            Purpose::Load => &self.loads,
        };
        turns.acquire().await.map_err(CompileError::broken)
    }

    /// The code of a component.
    pub(super) async fn compile(&self, component: bytes::Bytes) -> Result<Vec<u8>, CompileError> {
        match &self.compiler {
            Compiler::Child { program, limits } => in_child(program, *limits, &component).await,
            Compiler::Here => {
                let compiled = tokio::task::spawn_blocking(move || compile(&component)).await;
                compiled
                    .map_err(CompileError::broken)?
                    .map_err(|message| CompileError::Refused { message })
            }
        }
    }
}

async fn in_child(
    program: &std::path::Path,
    limits: CompileLimits,
    component: &[u8],
) -> Result<Vec<u8>, CompileError> {
    let mut child = Command::new(program)
        .arg(COMMAND)
        .arg(limits.processor.as_secs().max(1).to_string())
        .arg(limits.memory.to_string())
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(CompileError::broken)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(mut stdout), Some(stderr)) = (stdin, stdout, stderr) else {
        return Err(CompileError::broken("it has no pipes"));
    };
    let give = async {
        // A child that ends early closes the pipe: how it ended says why.
        let _ = stdin.write_all(component).await;
        drop(stdin);
    };
    let mut code = Vec::new();
    let mut message = Vec::new();
    let mut told = stderr.take(MESSAGE_BYTES_MAX as u64);
    let talk = async {
        let (_, read, told) =
            tokio::join!(give, stdout.read_to_end(&mut code), told.read_to_end(&mut message));
        read.and(told).map_err(CompileError::broken)?;
        child.wait().await.map_err(CompileError::broken)
    };
    // It may wait for a processor, but not for ever.
    let patience = limits.processor * 4;
    let status = match tokio::time::timeout(patience, talk).await {
        Ok(status) => status?,
        Err(_) => return Err(CompileError::Limits { limits }),
    };
    let message = String::from_utf8_lossy(&message).into_owned();
    match status.code() {
        Some(0) => Ok(code),
        Some(code) if code == i32::from(EXIT_REFUSED) => Err(CompileError::Refused { message }),
        // Ended by a signal, or a panic of the compiler: out of time or out of memory.
        None | Some(101) => Err(CompileError::Limits { limits }),
        Some(code) => {
            Err(CompileError::Broken { message: format!("it ended with {code}: {message}") })
        }
    }
}

fn compile(component: &[u8]) -> Result<Vec<u8>, String> {
    let engine = engine::compiling().map_err(|error| format!("{error:#}"))?;
    engine.precompile_component(component).map_err(|error| format!("{error:#}"))
}

/// The child's side: reads a component from standard input and writes its code to standard output.
/// Returns what to exit with.
///
/// # Errors
///
/// The limits cannot be set, or the pipes are broken.
pub fn compile_in_this_process(processor: u64, memory: u64) -> std::io::Result<u8> {
    let limit = |value| Rlimit { current: Some(value), maximum: Some(value) };
    setrlimit(Resource::Cpu, limit(processor))?;
    setrlimit(Resource::As, limit(memory))?;
    setrlimit(Resource::Core, limit(0))?;
    // Uploads wait for publishes, not the other way round.
    rustix::process::nice(10)?;
    let mut component = Vec::new();
    std::io::stdin().lock().read_to_end(&mut component)?;
    match compile(&component) {
        Ok(code) => {
            std::io::stdout().lock().write_all(&code)?;
            Ok(0)
        }
        Err(message) => {
            let message = message.get(..message.floor_char_boundary(MESSAGE_BYTES_MAX));
            std::io::stderr().lock().write_all(message.unwrap_or_default().as_bytes())?;
            Ok(EXIT_REFUSED)
        }
    }
}
