//! A server of the benchmark's own, in a process of its own: on a free port, with a folder of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use reqwest::Url;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::figures::Times;
use crate::cli::output::CliError;

/// The key that it is started with.
pub(super) const KEY: &str = "sk_bench-key-of-a-server-that-only-the-benchmark-knows";
/// Not `/tmp`, which may be memory: a sync of that costs nothing.
const FOLDER: &str = "/var/tmp";

/// A running server. Killed when dropped.
pub(super) struct OwnServer {
    child: Child,
    pub(super) url: Url,
    data: DataFolder,
    arguments: Vec<String>,
}

enum DataFolder {
    Temporary(TempDir),
    Given(PathBuf),
}

/// What a process holds, in MiB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    pub(super) now: f64,
    /// At most so far.
    pub(super) peak: f64,
}

impl OwnServer {
    /// Starts the server of this binary; its other settings come from the environment, as those of
    /// `stream serve` do.
    ///
    /// # Errors
    ///
    /// There is no folder, or the server does not start.
    pub(super) async fn start(
        folder: Option<&Path>,
        arguments: Vec<String>,
    ) -> Result<Self, CliError> {
        let data = match folder {
            Some(folder) => DataFolder::Given(folder.to_owned()),
            None => {
                let place = if Path::new(FOLDER).is_dir() { FOLDER } else { "." };
                let made = tempfile::Builder::new().prefix("stream-bench-").tempdir_in(place);
                DataFolder::Temporary(
                    made.map_err(|error| CliError::unwritable(Path::new(place), error))?,
                )
            }
        };
        let (child, url) = spawn(data.path(), &arguments).await?;
        Ok(Self { child, url, data, arguments })
    }

    /// Stops it, starts it again on the same data, and says how long it took until it listened.
    ///
    /// # Errors
    ///
    /// It does not stop, or does not start.
    pub(super) async fn restart(&mut self) -> Result<Duration, CliError> {
        self.signal(Signal::TERM)?;
        self.child.wait().await?;
        let started = Instant::now();
        let (child, url) = spawn(self.data.path(), &self.arguments).await?;
        (self.child, self.url) = (child, url);
        Ok(started.elapsed())
    }

    /// Stops it in good order.
    ///
    /// # Errors
    ///
    /// It ended otherwise.
    pub(super) async fn stop(mut self) -> Result<(), CliError> {
        self.signal(Signal::TERM)?;
        let ended = self.child.wait().await?;
        if ended.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("the server: {ended}")).into())
        }
    }

    /// # Errors
    ///
    /// It has ended.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), CliError> {
        let pid = self.pid().ok_or_else(|| io::Error::other("the server has ended"))?;
        kill_process(pid, signal).map_err(io::Error::from)?;
        Ok(())
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.id()?).ok()?)
    }

    pub(super) fn data(&self) -> &Path {
        self.data.path()
    }

    /// `None` where the system does not tell.
    pub(super) fn memory(&self) -> Option<Memory> {
        let status = self.proc("status")?;
        let mib = |name: &str| Some(f64::from(u32::try_from(field(&status, name)?).ok()?) / 1024.0);
        Some(Memory { now: mib("VmRSS:")?, peak: mib("VmHWM:")? })
    }

    /// Bytes that the process has had written to disks so far.
    pub(super) fn written(&self) -> Option<u64> {
        field(&self.proc("io")?, "write_bytes:")
    }

    fn proc(&self, file: &str) -> Option<String> {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id()?)).ok()
    }
}

impl DataFolder {
    fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Given(folder) => folder,
        }
    }
}

async fn spawn(data: &Path, arguments: &[String]) -> Result<(Child, Url), CliError> {
    let exe = std::env::current_exe()?;
    let mut child = Command::new(exe)
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .args(arguments)
        .env("STREAM_API_KEY", KEY)
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no standard output"))?;
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await? {
        if let Some(url) = line.strip_prefix("listening on ").and_then(|url| Url::parse(url).ok()) {
            return Ok((child, url));
        }
    }
    let ended = child.wait().await?;
    Err(io::Error::other(format!("the server did not start: {ended}")).into())
}

/// The first number behind a name.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// How long a sync of a page takes in a folder while nothing else goes on: what no synced
/// acknowledgement can be faster than.
///
/// # Errors
///
/// The folder cannot be written.
pub(super) fn sync_alone(folder: &Path) -> io::Result<Times> {
    use std::io::Write;
    let path = folder.join("sync-alone");
    let mut file = fs::File::create(&path)?;
    // As a journal is: its room is taken before it is written.
    file.set_len(64 << 20)?;
    let mut times = Times::default();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(1) {
        let begun = Instant::now();
        file.write_all(&[7; 512])?;
        file.sync_data()?;
        times.record(begun.elapsed());
    }
    fs::remove_file(path)?;
    Ok(times)
}

/// Bytes that files of a folder take on the disk.
///
/// # Errors
///
/// The folder cannot be read.
pub(super) fn disk_bytes(folder: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // What is gone by now takes nothing.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes +=
            if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

impl Memory {
    pub(super) fn json(self) -> Value {
        json!({ "now_mib": self.now.round(), "peak_mib": self.peak.round() })
    }
}
