//! Connections that send requests: each its next when the one before is answered, or all at the times
//! of a schedule, whatever the answers do.
//!
//! With a schedule the time of a request counts from when it was due, not from when it could be sent:
//! a server that stalls is charged for all that it keeps waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::figures::Measured;
use super::progress::Progress;
use super::wire::{Answer, Endpoint, Request};
use crate::cli::output::CliError;

/// A request, and what it stands for.
pub(super) struct Shot {
    pub(super) request: Request,
    pub(super) events: u64,
    pub(super) bytes: u64,
}

/// Who sends, and for how long.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) connections: usize,
    /// What is not counted at first.
    pub(super) warm_up: Duration,
    pub(super) end: End,
    /// Requests a second in all; as many as are answered if `None`.
    pub(super) rate: Option<f64>,
}

/// Checks how many requests a second are asked for, of a rate in events.
///
/// # Errors
///
/// It is out of bounds.
pub(super) fn check_rate(events: f64, batch: f64) -> Result<(), CliError> {
    if (1e-3..=1e9).contains(&(events / batch)) {
        return Ok(());
    }
    let problem = "`--rate` is 0.001 to 1,000,000,000 requests a second";
    Err(CliError::Usage(problem.to_owned()))
}

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// So long after the warm-up.
    After(Duration),
    /// When so many requests are answered.
    Requests(u64),
}

impl End {
    fn is_over(self, number: u64, now: Duration, warm_up: Duration) -> bool {
        match self {
            Self::After(span) => now >= warm_up + span,
            Self::Requests(count) => number >= count,
        }
    }
}

/// Which request it is among all, and when it is due, from the start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    pub(super) number: u64,
    pub(super) due: Duration,
}

/// Sends until the time is up; what was answered between the warm-up and the end counts.
///
/// # Errors
///
/// The server cannot be reached, or refuses a request other than for now.
pub(super) async fn run<S>(
    endpoint: &Endpoint,
    plan: &Plan,
    progress: &Progress,
    shot: S,
) -> Result<Measured, CliError>
where
    S: Fn(Turn) -> Shot + Clone + Send + 'static,
{
    run_from(endpoint, plan, progress, (shot, drop)).await
}

/// As [`run`]; tells when it starts, just before it does.
///
/// # Errors
///
/// As [`run`].
pub(super) async fn run_from<S>(
    endpoint: &Endpoint,
    plan: &Plan,
    progress: &Progress,
    (shot, on_start): (S, impl FnOnce(Instant)),
) -> Result<Measured, CliError>
where
    S: Fn(Turn) -> Shot + Clone + Send + 'static,
{
    let mut wires = Vec::with_capacity(plan.connections);
    for _ in 0..plan.connections {
        wires.push(endpoint.connect().await?);
    }
    let done = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    on_start(started);
    let mut tasks: JoinSet<Result<Measured, CliError>> = JoinSet::new();
    let mut dues = Dues::new(plan, started);
    for (connection, mut wire) in wires.into_iter().enumerate() {
        let (shot, done, plan) = (shot.clone(), Arc::clone(&done), plan.clone());
        let mut schedule = dues.schedule();
        tasks.spawn(async move {
            let mut measured = Measured::default();
            let mut next = connection as u64;
            loop {
                let now = started.elapsed();
                let (number, due) = match &mut schedule {
                    None => (next, now),
                    Some(schedule) => match schedule.recv().await {
                        Some(due) => due,
                        None => break,
                    },
                };
                if plan.end.is_over(number, due, plan.warm_up) {
                    break;
                }
                let Shot { request, events, bytes } = shot(Turn { number, due });
                let (Answer { .. }, refusals) = wire.insist(&request).await?;
                next += plan.connections as u64;
                let answered = started.elapsed();
                let is_late =
                    matches!(plan.end, End::After(span) if answered >= plan.warm_up + span);
                if answered >= plan.warm_up && !is_late {
                    measured.requests += 1;
                    measured.events += events;
                    measured.bytes += bytes;
                }
                // Of a schedule every request counts that was due, however late its answer was.
                let is_of_schedule = plan.rate.is_some() && due >= plan.warm_up;
                if is_of_schedule || plan.rate.is_none() && answered >= plan.warm_up && !is_late {
                    measured.times.record(answered.saturating_sub(due));
                }
                measured.refusals += refusals;
                done.fetch_add(events, Ordering::Relaxed);
            }
            Ok(measured)
        });
    }
    dues.start();
    let mut measured = Measured::default();
    let mut shown = tokio::time::interval(super::progress::INTERVAL);
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                None => break,
                Some(Ok(ended)) => measured.merge(&ended?),
                Some(Err(panic)) => return Err(CliError::Output(std::io::Error::other(panic))),
            },
            _ = shown.tick() => progress.show(done.load(Ordering::Relaxed), started.elapsed()),
        }
    }
    progress.clear();
    measured.span = match plan.end {
        End::After(span) => span,
        End::Requests(_) => started.elapsed().saturating_sub(plan.warm_up),
    };
    Ok(measured)
}

/// The times of a schedule, given out in turns.
struct Dues {
    started: Instant,
    interval: Option<Duration>,
    end: End,
    warm_up: Duration,
    schedules: Vec<mpsc::UnboundedSender<(u64, Duration)>>,
}

type Schedule = mpsc::UnboundedReceiver<(u64, Duration)>;

impl Dues {
    fn new(plan: &Plan, started: Instant) -> Self {
        let interval = plan.rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
        let (end, warm_up) = (plan.end, plan.warm_up);
        Self { started, interval, end, warm_up, schedules: Vec::new() }
    }

    fn schedule(&mut self) -> Option<Schedule> {
        self.interval?;
        let (sender, receiver) = mpsc::unbounded_channel();
        self.schedules.push(sender);
        Some(receiver)
    }

    /// Gives out times as they come: on a thread of its own, whose sleeps end within tens of
    /// microseconds, where those of the runtime end within a millisecond.
    fn start(self) {
        let Some(interval) = self.interval else { return };
        std::thread::spawn(move || {
            let started = self.started.into_std();
            for (number, schedule) in (0..).zip(self.schedules.iter().cycle()) {
                let due = interval.mul_f64(number_f64(number));
                if self.end.is_over(number, due, self.warm_up) {
                    return;
                }
                let now = started.elapsed();
                if due > now {
                    #[expect(clippy::disallowed_methods, reason = "a schedule of real time")]
                    std::thread::sleep(due - now);
                }
                // Who is gone has told why.
                if schedule.send((number, due)).is_err() {
                    return;
                }
            }
        });
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn number_f64(number: u64) -> f64 {
    number as f64
}
