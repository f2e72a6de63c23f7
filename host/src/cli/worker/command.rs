//! A command that runs for a job: what it is given, what it says, and how it is ended.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::FusedFuture;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::cli::output::say;

/// How much of its standard output is kept: as much as a result may have, and a byte more.
const OUTPUT_BYTES_MAX: usize = crate::queue::RESULT_BYTES_MAX + 1;

/// How much of the end of its standard error is kept.
const ERROR_BYTES_MAX: usize = 1_024;

/// What it wrote is waited for so long after its end: something that it started may hold on to it.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);

/// How long it may take to end when it is asked to.
const END_GRACE: Duration = Duration::from_secs(5);

/// A command under way, with all that it has started. Killed when dropped before its end.
pub(super) struct Running {
    child: Child,
    group: Option<Pid>,
    input: Vec<u8>,
}

/// What a command has left.
pub(super) struct Exit {
    pub(super) status: ExitStatus,
    /// Standard output.
    pub(super) output: Vec<u8>,
    /// The end of standard error.
    pub(super) error: String,
}

impl Running {
    /// Starts `command` in a shell, with `input` as its standard input.
    ///
    /// # Errors
    ///
    /// There is no shell, or no process is to be had.
    pub(super) fn start(
        command: &str,
        input: Vec<u8>,
        environment: Vec<(&str, String)>,
    ) -> io::Result<Self> {
        let child = Command::new("sh")
            .args(["-c", command])
            .envs(environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // What it starts ends with it; and Ctrl-C on a terminal is for the worker alone.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self { child, group, input })
    }

    /// Returns when it has ended, with what it wrote; or when `lost` has come first and has been the
    /// end of it. Then it is asked to end, and killed if it does not.
    ///
    /// # Errors
    ///
    /// It cannot be waited for.
    pub(super) async fn end(&mut self, lost: impl Future<Output = ()>) -> io::Result<Option<Exit>> {
        let (mut output, mut error) = (Vec::new(), Vec::new());
        let child = &mut self.child;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let input = std::mem::take(&mut self.input);
        let feed = async {
            if let Some(mut stdin) = stdin {
                // Whoever does not read all of it has seen enough.
                let _ = stdin.write_all(&input).await;
            }
        };
        let talk = async {
            tokio::join!(feed, keep(stdout, &mut output), pass_on(stderr, &mut error));
        };
        let mut talk = Box::pin(talk.fuse());
        let ended = tokio::select! {
            status = wait(child, &mut talk) => Some(status?),
            () = lost => None,
        };
        if ended.is_none() {
            signal(self.group, Signal::TERM);
            // It may still have something to say.
            if timeout(END_GRACE, wait(child, &mut talk)).await.is_err() {
                signal(self.group, Signal::KILL);
                child.wait().await?;
            }
            // The shell has ended; what it has started may not have.
            signal(self.group, Signal::KILL);
        }
        drop(talk);
        self.group = None;
        let error = String::from_utf8_lossy(&error).trim().to_owned();
        Ok(ended.map(|status| Exit { status, output, error }))
    }
}

/// Returns when the command has ended and what it wrote is read.
async fn wait(
    child: &mut Child,
    talk: &mut (impl FusedFuture<Output = ()> + Unpin),
) -> io::Result<ExitStatus> {
    let status = tokio::select! {
        status = child.wait() => status?,
        () = &mut *talk => child.wait().await?,
    };
    if !talk.is_terminated() {
        let _ = timeout(OUTPUT_GRACE, talk).await;
    }
    Ok(status)
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // It fails if all of it has ended.
        let _ = kill_process_group(group, signal);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        signal(self.group, Signal::KILL);
    }
}

/// Keeps the start of what is read; all is read, so that nobody is held up.
async fn keep(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut chunk = [0; 4_096];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len());
        kept.extend(chunk.iter().take(length.min(room)));
    }
}

/// Passes on what is read to standard error, and keeps its end.
async fn pass_on(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut chunk = [0; 4_096];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        let read = chunk.get(..length).unwrap_or_default();
        say(&String::from_utf8_lossy(read));
        kept.extend_from_slice(read);
        let surplus = kept.len().saturating_sub(ERROR_BYTES_MAX);
        kept.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(command: &str, input: &[u8]) -> Exit {
        let environment = vec![("NAME", "value".to_owned())];
        let mut running = Running::start(command, input.to_vec(), environment).unwrap();
        running.end(std::future::pending()).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_command_reads_its_input_and_what_it_says_is_kept() {
        let exit = run("cat; echo $NAME; echo problem >&2; exit 3", b"input,").await;
        assert_eq!(
            (exit.output.as_slice(), exit.error.as_str()),
            (&b"input,value\n"[..], "problem")
        );
        assert_eq!(exit.status.code(), Some(3));
    }

    #[tokio::test]
    async fn more_than_is_kept_holds_up_nobody() {
        let input = vec![b'x'; 4 << 20];
        let exit = run("cat; cat /dev/zero | head -c 3000000 >&2", &input).await;
        assert_eq!((exit.output.len(), exit.error.len()), (OUTPUT_BYTES_MAX, ERROR_BYTES_MAX));
        // And one that reads nothing of it.
        assert!(run("true", &input).await.status.success());
    }

    #[tokio::test]
    async fn a_command_that_is_lost_ends_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let text = |name: &str| std::fs::read_to_string(path(name)).unwrap_or_default();
        // What it says at its end has to be heard: it would end too early otherwise.
        let command = format!(
            "trap 'echo asked; echo yes > {}; exit 0' TERM; sleep 1000 & echo $! > {}; wait",
            path("asked").display(),
            path("pid").display(),
        );
        let mut running = Running::start(&command, Vec::new(), Vec::new()).unwrap();
        let started = async {
            while !text("pid").ends_with('\n') {
                tokio::task::yield_now().await;
            }
        };
        assert!(running.end(started).await.unwrap().is_none());
        assert_eq!(text("asked"), "yes\n");
        // Whoever inherits it may not have waited for it yet: it is no more than a name then.
        let stat = format!("/proc/{}/stat", text("pid").trim());
        let is_over = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        let ended = async {
            while !is_over() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap();
    }
}
