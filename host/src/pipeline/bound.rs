//! A stage in use: what a fault of it does, and a breaker that watches it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use stream_storage::{Clock, Timestamp};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::event::Event;
use crate::name::TopicName;
use crate::stage::{
    Breaker, Cause, Change, Context, Fault, OnFault, Partition, Paused, Route, Transform, Validate,
    Verdict, Who,
};

/// Calls that may be made to find the events at fault in a batch: enough for a few among 10,000.
const SEARCH_CALLS_MAX: usize = 48;

/// How long the refusal of a paused stage is held back: a client that tries again at once would
/// otherwise take the processor from the others.
const REFUSAL_DELAY: Duration = Duration::from_millis(100);

/// How long the search goes on: enough for a few calls that take all the time they may.
const SEARCH_TIME: Duration = Duration::from_secs(2);

/// A stage, its policy and its breaker.
pub struct Bound<T: ?Sized> {
    /// What is called.
    pub stage: Arc<T>,
    /// Who it is.
    pub who: Who,
    /// What a fault does.
    pub on_fault: OnFault,
    /// Watches it.
    pub breaker: Arc<Breaker>,
    /// Calls at a time: enough to keep all threads busy. What waits behind them learns of a breaker
    /// that opens meanwhile, instead of failing one after the other.
    pub turns: Arc<Semaphore>,
}

impl<T: ?Sized> Clone for Bound<T> {
    fn clone(&self) -> Self {
        let Self { stage, who, on_fault, breaker, turns } = self;
        Self {
            stage: Arc::clone(stage),
            who: who.clone(),
            on_fault: *on_fault,
            breaker: Arc::clone(breaker),
            turns: Arc::clone(turns),
        }
    }
}

/// A stage ends the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BoundError {
    /// It broke.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// It breaks so often that it is paused.
    #[error("{who} is paused, since it failed too often: {}", paused.reason)]
    Paused {
        /// Who it is.
        who: Who,
        /// Until when, and why.
        paused: Paused,
    },
}

/// One outcome an event: what the stage says, or the fault that it met.
type Outcomes<T> = Vec<Result<T, Arc<Fault>>>;

/// A stage's function.
pub trait Call: Send + Sync {
    /// What it says of an event.
    type Outcome: Send;

    /// Calls it.
    fn call<'c>(
        &'c self,
        context: &'c Context,
        events: &'c [&'c Event<'c>],
    ) -> BoxFuture<'c, Result<Vec<Self::Outcome>, Fault>>;
}

macro_rules! call {
    ($trait:ident, $method:ident, $outcome:ty) => {
        impl Call for dyn $trait + '_ {
            type Outcome = $outcome;

            fn call<'c>(
                &'c self,
                context: &'c Context,
                events: &'c [&'c Event<'c>],
            ) -> BoxFuture<'c, Result<Vec<$outcome>, Fault>> {
                self.$method(context, events)
            }
        }
    };
}

call!(Validate, validate, Verdict);
call!(Partition, partition, u32);
call!(Route, route, Vec<TopicName>);
call!(Transform, transform, Change);

impl<T: Call + ?Sized> Bound<T> {
    /// Calls the stage for these events. Faults come back as outcomes where the policy has something
    /// for them; each then is that of as few events as can be told.
    ///
    /// # Errors
    ///
    /// The policy is to refuse, the stage is paused, or the server has no room for the call.
    pub async fn run(
        &self,
        clock: &dyn Clock,
        context: &Context,
        events: &[&Event<'_>],
    ) -> Result<Outcomes<T::Outcome>, BoundError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(paused) = self.breaker.paused(clock.now()) {
            return self.paused(paused, events.len()).await;
        }
        // It is never closed.
        let turn = self.turns.acquire().await.ok();
        if let Err(paused) = self.breaker.enter(clock.now()) {
            // Nobody waits for a refusal that is held back.
            drop(turn);
            return self.paused(paused, events.len()).await;
        }
        let fault = match self.stage.call(context, events).await {
            Ok(outcomes) => {
                self.breaker.passed(events.len(), clock.now());
                return Ok(outcomes.into_iter().map(Ok).collect());
            }
            Err(fault) => fault,
        };
        if fault.cause.is_of_host() {
            return Err(fault.into());
        }
        if self.on_fault == OnFault::Reject {
            self.breaker.failed(events.len(), clock.now(), &fault.to_string());
            return Err(fault.into());
        }
        let outcomes = self.search(context, events, fault).await?;
        self.count(&outcomes, clock.now());
        Ok(outcomes)
    }

    /// A paused stage that may be skipped is; others end the request rather than flood the
    /// dead-letter topic.
    async fn paused(
        &self,
        paused: Paused,
        count: usize,
    ) -> Result<Outcomes<T::Outcome>, BoundError> {
        let who = self.who.clone();
        if self.on_fault != OnFault::Skip {
            tokio::time::sleep(REFUSAL_DELAY).await;
            return Err(BoundError::Paused { who, paused });
        }
        let fault = Arc::new(Fault { who, cause: Cause::Unavailable, message: paused.reason });
        Ok((0..count).map(|_| Err(Arc::clone(&fault))).collect())
    }

    /// Halves a batch that met `fault` until the events at fault stand alone.
    async fn search(
        &self,
        context: &Context,
        events: &[&Event<'_>],
        fault: Fault,
    ) -> Result<Outcomes<T::Outcome>, BoundError> {
        let mut outcomes: Outcomes<T::Outcome> = Vec::new();
        let mut pending: Vec<(Range<usize>, Option<Fault>)> = vec![(0..events.len(), Some(fault))];
        let mut calls = SEARCH_CALLS_MAX;
        let ends = Instant::now() + SEARCH_TIME;
        // The first part is always on top, so that outcomes come in the order of events.
        while let Some((range, known)) = pending.pop() {
            let fault = match known {
                Some(fault) => fault,
                None => {
                    calls = calls.saturating_sub(1);
                    let part = events.get(range.clone()).unwrap_or_default();
                    match self.stage.call(context, part).await {
                        Ok(found) => {
                            outcomes.extend(found.into_iter().map(Ok));
                            continue;
                        }
                        Err(fault) if fault.cause.is_of_host() => return Err(fault.into()),
                        Err(fault) => fault,
                    }
                }
            };
            if range.len() > 1 && calls > 0 && Instant::now() < ends {
                let middle = range.start + range.len() / 2;
                pending.push((middle..range.end, None));
                pending.push((range.start..middle, None));
                continue;
            }
            let fault = Arc::new(fault);
            outcomes.extend(range.map(|_| Err(Arc::clone(&fault))));
        }
        Ok(outcomes)
    }

    fn count(&self, outcomes: &Outcomes<T::Outcome>, now: Timestamp) {
        let last = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).next_back();
        let faulted = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        let reason = last.map(|fault| fault.to_string()).unwrap_or_default();
        self.breaker.ended(outcomes.len(), faulted, now, &reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::PluginName;
    use crate::stage::{BreakerConfig, PluginRef};
    use async_trait::async_trait;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use stream_storage::ManualClock;

    fn who() -> Who {
        Who::Plugin(PluginRef { name: PluginName::parse("p").unwrap(), version: 1 })
    }

    /// Breaks on every batch with a value `x`.
    struct Poisoned {
        cause: Cause,
        calls: AtomicUsize,
    }

    #[async_trait]
    impl Validate for Poisoned {
        async fn validate(
            &self,
            _: &Context,
            events: &[&Event<'_>],
        ) -> Result<Vec<Verdict>, Fault> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            if events.iter().any(|event| *event.value == *b"x") {
                return Err(Fault { who: who(), cause: self.cause, message: "x".to_owned() });
            }
            Ok(events.iter().map(|_| Verdict::Accept).collect())
        }
    }

    struct Bed {
        stage: Arc<Poisoned>,
        bound: Bound<dyn Validate>,
        clock: ManualClock,
    }

    fn bed(on_fault: OnFault, cause: Cause) -> Bed {
        let stage = Arc::new(Poisoned { cause, calls: AtomicUsize::new(0) });
        let breaker = Arc::new(Breaker::new(BreakerConfig::default()));
        let bound = Bound {
            stage: stage.clone() as Arc<dyn Validate>,
            who: who(),
            on_fault,
            breaker,
            turns: Arc::new(Semaphore::new(2)),
        };
        Bed { stage, bound, clock: ManualClock::new(Timestamp(1_000)) }
    }

    impl Bed {
        /// Of each event, whether it passed.
        async fn run(&self, values: &str) -> Result<Vec<bool>, BoundError> {
            let event = |value: char| Event {
                value: value.to_string().into_bytes().into(),
                ..Event::default()
            };
            let events: Vec<_> = values.chars().map(event).collect();
            let events: Vec<_> = events.iter().collect();
            let context = Context { topic: TopicName::parse("t").unwrap(), partitions: 1 };
            let outcomes = self.bound.run(&self.clock, &context, &events).await?;
            Ok(outcomes.iter().map(Result::is_ok).collect())
        }

        fn calls(&self) -> usize {
            self.stage.calls.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn only_the_events_at_fault_fault() {
        let bed = bed(OnFault::DeadLetter, Cause::Panic);
        let values = "aaxaaaaxa";
        let expected: Vec<bool> = values.chars().map(|value| value != 'x').collect();
        assert_eq!(bed.run(values).await.unwrap(), expected);
    }

    #[tokio::test]
    async fn the_search_ends_even_if_all_are_at_fault() {
        let bed = bed(OnFault::DeadLetter, Cause::Panic);
        let passed = bed.run(&"x".repeat(1_000)).await.unwrap();
        assert_eq!(passed, [false; 1_000]);
        assert!(bed.calls() <= 1 + 2 * SEARCH_CALLS_MAX, "{}", bed.calls());
    }

    #[tokio::test]
    async fn one_event_that_takes_too_long_faults_alone() {
        let bed = bed(OnFault::DeadLetter, Cause::Timeout);
        assert_eq!(bed.run("axa").await.unwrap(), [true, false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_good_event_among_many_bad_ones_keeps_no_breaker_closed() {
        let bed = bed(OnFault::DeadLetter, Cause::Panic);
        for _ in 0..5 {
            bed.run("xxxxa").await.unwrap();
        }
        assert!(matches!(bed.run("a").await, Err(BoundError::Paused { .. })));
        bed.clock.advance(Duration::from_secs(1));
        bed.run("xxxxa").await.unwrap();
        bed.clock.advance(Duration::from_secs(1));
        assert!(matches!(bed.run("a").await, Err(BoundError::Paused { .. })), "twice as long");
    }

    #[tokio::test]
    async fn a_fault_is_an_error_where_the_policy_is_to_refuse() {
        let bed = bed(OnFault::Reject, Cause::Panic);
        assert!(matches!(bed.run("axa").await, Err(BoundError::Fault(_))));
        assert_eq!(bed.calls(), 1);
    }

    #[tokio::test]
    async fn the_servers_own_faults_are_never_dead_lettered() {
        let bed = bed(OnFault::DeadLetter, Cause::Busy);
        for _ in 0..9 {
            assert!(matches!(bed.run("x").await, Err(BoundError::Fault(_))), "and never paused");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_faults_pauses_the_stage_unless_it_may_be_skipped() {
        for (on_fault, is_paused) in
            [(OnFault::Reject, true), (OnFault::DeadLetter, true), (OnFault::Skip, false)]
        {
            let bed = bed(on_fault, Cause::Panic);
            for _ in 0..5 {
                let _ = bed.run("x").await;
            }
            let calls = bed.calls();
            let answer = bed.run("a").await;
            assert_eq!(matches!(answer, Err(BoundError::Paused { .. })), is_paused, "{on_fault:?}");
            assert_eq!(bed.calls(), calls, "it is not called");
            bed.clock.advance(Duration::from_secs(1));
            assert_eq!(bed.run("a").await.unwrap(), [true]);
        }
    }
}
