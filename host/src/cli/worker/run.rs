//! `stream worker run`: takes jobs and runs a command for each.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::command::{Exit, Running};
use crate::cli::client::Client;
use crate::cli::output::{CliError, Output, say};
use crate::name::QueueName;
use crate::queue::RESULT_BYTES_MAX;

/// How long a claim waits for a job: longer and proxies may cut it.
const WAIT: Duration = Duration::from_secs(20);

/// A server that stops answers at once that there is nothing: it is not asked again at once.
const PAUSE: Duration = Duration::from_millis(200);

/// Heartbeats to a lease: two may be lost.
const HEARTBEATS: u32 = 3;

/// Exit codes with a meaning, by their names in `sysexits.h`.
const DATA_ERROR: i32 = 65;
const TEMPORARY_FAILURE: i32 = 75;

/// Run a command for each job of a queue
///
/// The command is run by `sh -c`, with the payload on standard input (what is no JSON as its bytes)
/// and STREAM_JOB_ID, STREAM_JOB_KEY, STREAM_JOB_ATTEMPT and STREAM_JOB_QUEUE in its environment.
///
/// Exit code 0: the job is done; standard output is kept as its result, if it is JSON of at most 64 KiB.
/// 65: the job is bad, and dead at once. 75: not now; it comes again after --snooze, and that was no
/// try. Any other: the try has failed, with the end of standard error as its reason, and the job is
/// tried again as the queue's settings say.
///
/// A job is held while its command runs. If it is another worker's all the same, since this one was
/// silent for too long, its command is ended. SIGTERM and Ctrl-C let the commands that run come to their
/// end; a second one ends them.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// The queue
    #[arg(long, value_name = "NAME", value_parser = QueueName::parse)]
    queue: QueueName,

    /// The command
    #[arg(long, value_name = "COMMAND")]
    exec: String,

    /// How many commands run at once
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    concurrency: u16,

    /// After how long another worker may take a job if this one is gone
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = lease)]
    lease: Duration,

    /// After how long a job comes again whose command ended with 75
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    snooze: Duration,

    /// End when no job is due
    #[arg(long)]
    once: bool,

    /// What this worker is called where its jobs are listed
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,

    /// How long to go on trying while the server cannot be reached
    #[arg(long, value_name = "TIME", default_value = "1year", value_parser = humantime::parse_duration)]
    retry_for: Duration,
}

fn lease(text: &str) -> Result<Duration, String> {
    let lease = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let is_fine = (Duration::from_secs(1)..=crate::queue::LONGEST).contains(&lease);
    if is_fine { Ok(lease) } else { Err("expected 1 second to 30 days".to_owned()) }
}

/// A job as it was taken.
#[derive(Debug, Deserialize)]
struct Job {
    id: String,
    key: Option<String>,
    attempt: u32,
    lease: u64,
    payload: Box<RawValue>,
    encoding: Option<String>,
}

#[derive(Deserialize)]
struct Jobs {
    jobs: Vec<Job>,
}

impl Job {
    fn payload(&self) -> Result<Vec<u8>, CliError> {
        if self.encoding.is_none() {
            return Ok(self.payload.get().as_bytes().to_vec());
        }
        let told = |reason: String| CliError::Answer { reason };
        let text: String =
            serde_json::from_str(self.payload.get()).map_err(|error| told(error.to_string()))?;
        BASE64_STANDARD.decode(text).map_err(|error| told(error.to_string()))
    }
}

/// How a command ended for its job.
#[derive(Debug, PartialEq)]
enum Outcome {
    Done(Option<Box<str>>),
    Failed {
        reason: String,
        is_final: bool,
    },
    NotNow,
    /// The job is another's.
    Lost,
}

struct Worker {
    options: Run,
    client: Client,
    output: Output,
    /// Whether no more jobs are to be taken.
    stop: watch::Receiver<bool>,
}

impl Run {
    pub(super) async fn run(self, client: Client, output: Output) -> Result<(), CliError> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let client = client.retrying(self.retry_for);
        let (stopping, stop) = watch::channel(false);
        let concurrency = self.concurrency;
        let worker = Arc::new(Worker { options: self, client, output, stop });
        let mut slots = JoinSet::new();
        for _ in 0..concurrency {
            let worker = Arc::clone(&worker);
            slots.spawn(async move { worker.work().await });
        }
        loop {
            tokio::select! {
                ended = slots.join_next() => match ended {
                    // One that fails ends the others as well: their jobs come again.
                    Some(ended) => ended.map_err(io::Error::other)??,
                    None => return Ok(()),
                },
                () = either(&mut terminate, &mut interrupt) => {
                    if stopping.send_replace(true) {
                        say("stopped; the jobs that ran come again when their leases have ended\n");
                        return Ok(());
                    }
                    say("stopping: commands that run come to their end\n");
                }
            }
        }
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

impl Worker {
    /// Takes one job after the other.
    async fn work(&self) -> Result<(), CliError> {
        let mut stop = self.stop.clone();
        loop {
            let started = Instant::now();
            let jobs = tokio::select! {
                jobs = self.client.fetch(|| self.claim()) => jobs?,
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            };
            if jobs.is_empty() && self.options.once {
                return Ok(());
            }
            if jobs.is_empty() && started.elapsed() < WAIT / 2 {
                tokio::time::sleep(PAUSE).await;
            }
            for job in jobs {
                self.run(&job).await?;
            }
            if *stop.borrow() {
                return Ok(());
            }
        }
    }

    async fn claim(&self) -> Result<Vec<Job>, CliError> {
        let Run { queue, lease, once, name, .. } = &self.options;
        let wait = if *once { Duration::ZERO } else { WAIT };
        let body = json!({
            "max": 1,
            "lease_ms": millis(*lease),
            "wait_ms": millis(wait),
            "worker": name,
        });
        let request = self.client.request(Method::POST, &["queues", queue.as_str(), "claim"]);
        let response = self.client.send(request.json(&body)).await?;
        let bytes = response.bytes().await.map_err(|error| self.client.no_answer(&error))?;
        let jobs: Jobs = serde_json::from_slice(&bytes)
            .map_err(|error| CliError::Answer { reason: error.to_string() })?;
        Ok(jobs.jobs)
    }

    /// Runs the command for a job, and says how it ended.
    async fn run(&self, job: &Job) -> Result<(), CliError> {
        let outcome = match self.execute(job).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Failed { reason: error.to_string(), is_final: false },
        };
        let call = match &outcome {
            Outcome::Done(result) => Some(("complete", complete(job, result.as_deref()))),
            Outcome::Failed { reason, is_final } => {
                let body = json!({ "lease": job.lease, "reason": reason, "retry": !is_final });
                Some(("fail", body.to_string()))
            }
            Outcome::NotNow => {
                let delay = millis(self.options.snooze);
                Some(("snooze", json!({ "lease": job.lease, "delay_ms": delay }).to_string()))
            }
            Outcome::Lost => None,
        };
        let answer = match call {
            Some((what, body)) => self.client.fetch(|| self.about(job, what, body.clone())).await,
            None => Ok(Value::Null),
        };
        let (state, reason) = match (&answer, &outcome) {
            (Err(error), _) if is_lost(error) => ("lost", ""),
            (Err(_), _) => return answer.map(drop),
            (Ok(_), Outcome::Lost) => ("lost", ""),
            (Ok(told), Outcome::Failed { reason, .. }) => {
                (if state_of(told) == "dead" { "dead" } else { "failed" }, reason.as_str())
            }
            (Ok(_), Outcome::NotNow) => ("snoozed", ""),
            (Ok(_), Outcome::Done(_)) => ("done", ""),
        };
        let told =
            json!({ "id": job.id, "attempt": job.attempt, "outcome": state, "reason": reason });
        let line = |_: &Value| {
            let reason = reason.replace(char::is_control, " ");
            format!("{} {state}{}{reason}\n", job.id, if reason.is_empty() { "" } else { ": " })
        };
        Ok(self.output.show(&told, line)?)
    }

    /// Runs the command, and holds the job meanwhile.
    async fn execute(&self, job: &Job) -> Result<Outcome, CliError> {
        let mut environment = vec![
            ("STREAM_JOB_ID", job.id.clone()),
            ("STREAM_JOB_ATTEMPT", job.attempt.to_string()),
            ("STREAM_JOB_QUEUE", self.options.queue.to_string()),
            ("STREAM_JOB_KEY", job.key.clone().unwrap_or_default()),
        ];
        // No environment can hold it.
        environment.retain(|(_, value)| !value.contains('\0'));
        let mut running = Running::start(&self.options.exec, job.payload()?, environment)?;
        let exit = running.end(self.hold(job)).await?;
        Ok(exit.map_or(Outcome::Lost, |exit| outcome(&exit)))
    }

    /// Returns when the job is another's.
    async fn hold(&self, job: &Job) {
        let period = self.options.lease / HEARTBEATS;
        let mut beats = tokio::time::interval_at(Instant::now() + period, period);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let body =
            json!({ "lease": job.lease, "lease_ms": millis(self.options.lease) }).to_string();
        loop {
            beats.tick().await;
            match self.about(job, "heartbeat", body.clone()).await {
                Err(error) if is_lost(&error) => return,
                // The server may be starting again. If another takes the job then, that is told later.
                Err(error) => say(&format!("warning: no heartbeat for `{}`: {error}\n", job.id)),
                Ok(_) => {}
            }
        }
    }

    async fn about(&self, job: &Job, what: &str, body: String) -> Result<Value, CliError> {
        let path = ["queues", self.options.queue.as_str(), "jobs", &job.id, what];
        let request = self.client.request(Method::POST, &path);
        self.client.json(request.header("content-type", "application/json").body(body)).await
    }
}

fn state_of(told: &Value) -> &str {
    told.get("state").and_then(Value::as_str).unwrap_or_default()
}

/// Whether the job is another's, or has ended.
fn is_lost(error: &CliError) -> bool {
    error.has_code("stale-lease") || error.has_code("job-not-found")
}

/// The result goes into it as it is.
fn complete(job: &Job, result: Option<&str>) -> String {
    let result = result.map(|result| format!(",\"result\":{result}")).unwrap_or_default();
    format!("{{\"lease\":{}{result}}}", job.lease)
}

/// What a command's end means for its job.
fn outcome(exit: &Exit) -> Outcome {
    let reason = || {
        let told = if exit.error.is_empty() { exit.status.to_string() } else { exit.error.clone() };
        told.trim().to_owned()
    };
    match exit.status.code() {
        Some(0) => Outcome::Done(result(&exit.output)),
        Some(DATA_ERROR) => Outcome::Failed { reason: reason(), is_final: true },
        Some(TEMPORARY_FAILURE) => Outcome::NotNow,
        _ => Outcome::Failed { reason: reason(), is_final: false },
    }
}

/// What was written, if the server takes it as a result.
fn result(output: &[u8]) -> Option<Box<str>> {
    let text = std::str::from_utf8(output).ok()?.trim();
    let is_result = text.len() <= RESULT_BYTES_MAX && crate::decode::check_value(text).is_ok();
    is_result.then(|| text.into())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    #[test]
    fn an_exit_code_says_what_becomes_of_the_job() {
        let exit = |raw: i32, output: &str, error: &str| Exit {
            status: ExitStatus::from_raw(raw),
            output: output.as_bytes().to_vec(),
            error: error.to_owned(),
        };
        let failed =
            |reason: &str, is_final| Outcome::Failed { reason: reason.to_owned(), is_final };
        let deep = "[".repeat(101) + &"]".repeat(101);
        let cases = [
            (exit(0, " {\"a\": 1.50}\n", ""), Outcome::Done(Some("{\"a\": 1.50}".into()))),
            (exit(0, "sent\n", ""), Outcome::Done(None)),
            (exit(0, "", ""), Outcome::Done(None)),
            (exit(0, &deep, ""), Outcome::Done(None)),
            (exit(0, &format!("\"{}\"", "x".repeat(RESULT_BYTES_MAX)), ""), Outcome::Done(None)),
            (exit(1 << 8, "1", "no\nhost"), failed("no\nhost", false)),
            (exit(2 << 8, "", ""), failed("exit status: 2", false)),
            (exit(65 << 8, "", "bad"), failed("bad", true)),
            (exit(75 << 8, "", "later"), Outcome::NotNow),
            (exit(9, "", ""), failed("signal: 9 (SIGKILL)", false)),
        ];
        for (exit, expected) in cases {
            assert_eq!(outcome(&exit), expected);
        }
    }

    #[test]
    fn a_lease_is_a_second_or_more() {
        assert!(lease("1s").is_ok() && lease("30days").is_ok());
        assert!(lease("999ms").is_err() && lease("31days").is_err());
    }
}
