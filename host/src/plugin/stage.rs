//! A version of a plugin with its config and limits, behind the stages' traits.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use stream_storage::ProjectName;
use tokio::sync::oneshot;

use super::columns::{Columns, WireContext, WireEvent, WireOutcome, WireVerdict};
use super::guest::{Call, CallLimits, Failed, Guest, Prepared};
use super::runtime::{Machine, Shared};
use super::stats::{Outcome, Seen, Usage};
use crate::event::Event;
use crate::heavy::heavy;
use crate::lock::lock;
use crate::name::TopicName;
use crate::stage::{
    Cause, Change, Context, Fault, Partition, PluginRef, Role, Route, Transform, Validate, Verdict,
    Who,
};

/// Bytes that are kept of a reason.
const REASON_BYTES_MAX: usize = 1_024;

/// Topics that a router may name for one event: as many as an event may have.
const TARGETS_MAX: usize = 32;

/// What makes one use of a plugin different from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StageSpec {
    /// Whose it is.
    pub project: ProjectName,
    /// The plugin and its version.
    pub plugin: PluginRef,
    /// Given to it with each call.
    pub config: String,
    /// How long a call may take, of the processor's time.
    pub timeout: Duration,
    /// How much memory an instance may have, in bytes.
    pub memory: usize,
    /// Start a new instance for each call.
    pub fresh: bool,
}

/// A plugin in use. Its instances end with it.
#[derive(Clone)]
pub struct PluginStage(Arc<Inner>);

pub(super) struct Inner {
    spec: StageSpec,
    config: Arc<str>,
    prepared: Arc<Prepared>,
    machine: Arc<Machine>,
    shared: Arc<Shared>,
    seen: Arc<Seen>,
    /// Instances between two calls.
    kept: Mutex<Vec<Guest>>,
}

/// One outcome an event.
#[derive(Debug)]
pub enum Outcomes {
    /// A validator's.
    Verdicts(Vec<Verdict>),
    /// A partitioner's.
    Partitions(Vec<u32>),
    /// A router's.
    Topics(Vec<Vec<TopicName>>),
    /// A transform's.
    Changes(Vec<Change>),
}

impl fmt::Debug for PluginStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.spec.fmt(f)
    }
}

impl PluginStage {
    pub(super) fn new(
        spec: StageSpec,
        prepared: Arc<Prepared>,
        machine: Arc<Machine>,
        shared: Arc<Shared>,
        seen: Arc<Seen>,
    ) -> Self {
        let config = spec.config.as_str().into();
        let kept = Mutex::default();
        let inner = Arc::new(Inner { spec, config, prepared, machine, shared, seen, kept });
        inner.shared.remember(&inner);
        Self(inner)
    }

    /// What it was made of.
    pub fn spec(&self) -> &StageSpec {
        &self.0.spec
    }

    /// Calls the plugin in one of its roles.
    ///
    /// # Errors
    ///
    /// It broke, or answered with something malformed.
    pub async fn call(
        &self,
        role: Role,
        context: &Context,
        events: &[&Event<'_>],
    ) -> Result<(Outcomes, Usage), Fault> {
        let (outcomes, usage) = self.call_and_tell(role, context, events).await;
        outcomes.map(|outcomes| (outcomes, usage))
    }

    /// As [`call`](Self::call), with what the call took also where it failed.
    pub async fn call_and_tell(
        &self,
        role: Role,
        context: &Context,
        events: &[&Event<'_>],
    ) -> (Result<Outcomes, Fault>, Usage) {
        let mut usage = Usage::default();
        let outcomes = self.outcomes(role, context, events, &mut usage).await;
        (outcomes, usage)
    }

    async fn outcomes(
        &self,
        role: Role,
        context: &Context,
        events: &[&Event<'_>],
        usage: &mut Usage,
    ) -> Result<Outcomes, Fault> {
        match role {
            Role::Validate => {
                let verdicts = self.run(context, events, usage, Guest::validate).await?;
                Ok(Outcomes::Verdicts(self.verdicts(verdicts)))
            }
            Role::Partition => {
                let partitions = self.run(context, events, usage, Guest::partition).await?;
                Ok(Outcomes::Partitions(self.partitions(context, partitions)?))
            }
            Role::Route => {
                let names = self.run(context, events, usage, Guest::route).await?;
                Ok(Outcomes::Topics(self.topics(names)?))
            }
            Role::Transform => {
                let outcomes = self.run(context, events, usage, Guest::transform).await?;
                Ok(Outcomes::Changes(self.changes(outcomes)))
            }
        }
    }

    /// Runs one call on a worker's thread.
    async fn run<T: Send + 'static>(
        &self,
        context: &Context,
        events: &[&Event<'_>],
        usage: &mut Usage,
        call: fn(&mut Guest, Call<'_>) -> Result<Vec<T>, Failed>,
    ) -> Result<Vec<T>, Fault> {
        let bytes = events.iter().map(|event| event.byte_len()).sum();
        let columns = Arc::new(heavy(bytes, || Columns::of(events)));
        let context = Arc::new(WireContext::new(context, &self.0.config));
        let (answer, answered) = oneshot::channel();
        let (inner, pushed) = (Arc::clone(&self.0), monotonic());
        let job = move || {
            // Nobody waits for it: the client is gone.
            if answer.is_closed() {
                return;
            }
            let queued = monotonic().saturating_sub(pushed);
            // The client may be gone by now.
            let _ = answer.send(inner.call(&context, &columns, queued, call));
        };
        if let Err(full) = self.0.machine.workers.push(&self.0.spec.project, Box::new(job)) {
            self.0.seen.refused(Cause::Busy);
            return Err(self.fault(Cause::Busy, full.to_string()));
        }
        let (ended, took) = answered.await.unwrap_or_else(|_| {
            let message = "the call ended without an answer".to_owned();
            (Err(Failed { cause: Cause::Unavailable, message }), Usage::default())
        });
        *usage = took;
        ended.map_err(|Failed { cause, message }| self.fault(cause, message))
    }

    fn fault(&self, cause: Cause, message: impl Into<String>) -> Fault {
        let who = Who::Plugin(self.0.spec.plugin.clone());
        Fault { who, cause, message: message.into() }
    }

    fn malformed(&self, message: String) -> Fault {
        self.0.seen.refused(Cause::Answer);
        self.fault(Cause::Answer, message)
    }

    fn said(&self, outcomes: &[(Outcome, u64)]) {
        let mut said = [0; Outcome::ALL.len()];
        for (outcome, count) in outcomes {
            let place = Outcome::ALL.iter().position(|other| other == outcome);
            if let Some(sum) = place.and_then(|place| said.get_mut(place)) {
                *sum += count;
            }
        }
        self.0.seen.said(said);
    }

    fn verdicts(&self, verdicts: Vec<WireVerdict>) -> Vec<Verdict> {
        let total = verdicts.len() as u64;
        let verdicts: Vec<Verdict> = verdicts
            .into_iter()
            .map(|verdict| match verdict {
                WireVerdict::Accept => Verdict::Accept,
                WireVerdict::Reject(reason) => Verdict::Reject(cut(reason)),
            })
            .collect();
        let rejected =
            verdicts.iter().filter(|verdict| **verdict != Verdict::Accept).count() as u64;
        self.said(&[(Outcome::Accepted, total - rejected), (Outcome::Rejected, rejected)]);
        verdicts
    }

    fn partitions(&self, context: &Context, partitions: Vec<u32>) -> Result<Vec<u32>, Fault> {
        let count = context.partitions;
        match partitions.iter().position(|partition| *partition >= count) {
            Some(index) => {
                let got = partitions.get(index).copied().unwrap_or_default();
                let message = format!(
                    "expected partitions from 0 and below {count}, got {got} for event {index}"
                );
                Err(self.malformed(message))
            }
            None => {
                self.said(&[(Outcome::Partitioned, partitions.len() as u64)]);
                Ok(partitions)
            }
        }
    }

    fn topics(&self, names: Vec<Vec<String>>) -> Result<Vec<Vec<TopicName>>, Fault> {
        if let Some(index) = names.iter().position(|names| names.len() > TARGETS_MAX) {
            let got = names.get(index).map_or(0, Vec::len);
            let message = format!(
                "expected at most {TARGETS_MAX} topics an event, got {got} for event {index}"
            );
            return Err(self.malformed(message));
        }
        let parse = |names: Vec<String>| {
            names.iter().map(|name| TopicName::parse(name)).collect::<Result<Vec<_>, _>>()
        };
        let topics: Result<Vec<_>, _> = names.into_iter().map(parse).collect();
        let topics = topics.map_err(|error| self.malformed(error.to_string()))?;
        self.said(&[(Outcome::Routed, topics.len() as u64)]);
        Ok(topics)
    }

    fn changes(&self, outcomes: Vec<WireOutcome>) -> Vec<Change> {
        let changes: Vec<Change> = outcomes
            .into_iter()
            .map(|outcome| match outcome {
                WireOutcome::Keep => Change::Keep,
                WireOutcome::Replace(event) => Change::Replace(Box::new(replaced(event))),
                WireOutcome::Drop => Change::Drop,
            })
            .collect();
        let count =
            |kind: fn(&Change) -> bool| changes.iter().filter(|change| kind(change)).count() as u64;
        self.said(&[
            (Outcome::Kept, count(|change| matches!(change, Change::Keep))),
            (Outcome::Replaced, count(|change| matches!(change, Change::Replace(_)))),
            (Outcome::Dropped, count(|change| matches!(change, Change::Drop))),
        ]);
        changes
    }
}

/// The event that a guest gave back; its rules are checked where the limits are known.
fn replaced(event: WireEvent) -> Event<'static> {
    let WireEvent { id, key, time, content_type, headers, value } = event;
    // What has no content type and no value is a CloudEvent without data.
    let value_is_json = content_type.as_deref().is_none_or(crate::decode::is_json)
        && !(content_type.is_none() && value.is_empty());
    Event {
        key: key.map(Into::into),
        id: id.map(Into::into),
        time: time.map(Into::into),
        content_type: content_type.map(Into::into),
        headers: headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        value: value.into(),
        value_is_json,
        partition: None,
    }
}

fn cut(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    reason
}

impl Inner {
    /// One call, on a worker's thread.
    fn call<T>(
        &self,
        context: &Arc<WireContext>,
        columns: &Arc<Columns>,
        queued: Duration,
        call: fn(&mut Guest, Call<'_>) -> Result<Vec<T>, Failed>,
    ) -> (Result<Vec<T>, Failed>, Usage) {
        let began = monotonic();
        let _ticking = self.machine.ticker.start();
        let mut memory = 0;
        let mut attempt = || {
            let mut guest = self.guest()?;
            let limits = CallLimits { time: self.spec.timeout };
            let now = self.shared.now();
            let ended = call(&mut guest, Call { context, columns, limits, now });
            memory = guest.memory_bytes();
            if ended.is_ok() && !self.spec.fresh && guest.is_fresh_enough() {
                lock(&self.kept).push(guest);
            }
            ended
        };
        let ended = match attempt() {
            Err(Failed { cause: Cause::Busy, .. }) => {
                // Others sit on memory that they do not use now.
                self.shared.drop_kept();
                attempt()
            }
            ended => ended,
        };
        let usage = Usage { time: monotonic().saturating_sub(began), queued, memory };
        let fault = ended.as_ref().err().map(|failed| failed.cause);
        self.seen.called(columns.count(), usage, fault);
        (ended, usage)
    }

    /// An instance that is kept, or a new one.
    fn guest(&self) -> Result<Guest, Failed> {
        if let Some(guest) = lock(&self.kept).pop() {
            return Ok(guest);
        }
        self.seen.started();
        self.shared.start(&self.prepared, &self.spec, &self.seen)
    }

    /// Ends the instances that are between two calls.
    pub(super) fn drop_kept(&self) {
        let kept = std::mem::take(&mut *lock(&self.kept));
        drop(kept);
    }
}

/// Time that only goes forward, from a point that means nothing.
fn monotonic() -> Duration {
    super::guest::clock(rustix::time::ClockId::Monotonic)
}

macro_rules! stage {
    ($trait:ident, $method:ident, $role:ident, $outcomes:ident, $outcome:ty) => {
        #[async_trait]
        impl $trait for PluginStage {
            async fn $method(
                &self,
                context: &Context,
                events: &[&Event<'_>],
            ) -> Result<Vec<$outcome>, Fault> {
                match self.call(Role::$role, context, events).await?.0 {
                    Outcomes::$outcomes(outcomes) => Ok(outcomes),
                    _ => Err(self.fault(Cause::Answer, "an outcome of another role")),
                }
            }
        }
    };
}

stage!(Validate, validate, Validate, Verdicts, Verdict);
stage!(Partition, partition, Partition, Partitions, u32);
stage!(Route, route, Route, Topics, Vec<TopicName>);
stage!(Transform, transform, Transform, Changes, Change);
