//! Threads on which guests run, apart from those of the async runtime: a guest that does not give
//! back its thread holds up nobody but those who wait for a plugin, too.
//!
//! Projects take turns, and none may have all threads. One whose guests take much of the processor is
//! served by a few threads of low priority: it never has all processors, and of the others it gets what
//! publishing leaves.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rustix::time::ClockId;
use stream_storage::ProjectName;

use super::guest::clock;
use crate::lock::lock;

/// Calls of one project that may wait: about what its connections can bring.
const QUEUE_MAX: usize = 1_024;

/// A guest's stack is part of its thread's.
const THREAD_STACK_BYTES: usize = 4 << 20;

/// A project is heavy whose guests take more than this share of one processor.
const HEAVY_SHARE: f64 = 0.25;
/// Over about this time.
const LOAD_SECONDS: f64 = 1.0;
/// How much the threads of heavy projects step back: beside one of usual priority they get a tenth.
const HEAVY_NICE: i32 = 10;

/// Projects whose load is remembered before those that are idle are forgotten.
const PROJECTS_KEPT: usize = 1_000;

/// A call that waits for a thread.
type Job = Box<dyn FnOnce() + Send>;

/// Too many calls of the project wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{QUEUE_MAX} calls of the project wait for a thread already")]
pub(super) struct QueueFull;

/// The threads.
pub(super) struct Workers {
    shared: Arc<Shared>,
}

/// Which threads serve a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Lane {
    #[default]
    Usual,
    Heavy,
}

struct Shared {
    usual_max: usize,
    heavy_max: usize,
    state: Mutex<State>,
    usual: Condvar,
    heavy: Condvar,
}

#[derive(Default)]
struct State {
    projects: HashMap<ProjectName, OfProject>,
    /// Projects with waiting calls, the next one first.
    turns: VecDeque<ProjectName>,
    usual: Threads,
    heavy: Threads,
    is_over: bool,
}

#[derive(Default)]
struct Threads {
    spawned: usize,
    idle: usize,
}

#[derive(Default)]
struct OfProject {
    waiting: VecDeque<Job>,
    running: usize,
    lane: Lane,
    load: Load,
}

/// The processor time that a project's guests took lately, in seconds; what is long ago counts less.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    seconds: f64,
    at: Duration,
}

impl Load {
    fn decayed(self, now: Duration) -> Self {
        let age = now.saturating_sub(self.at).as_secs_f64();
        Self { seconds: self.seconds * (-age / LOAD_SECONDS).exp(), at: now }
    }

    fn plus(self, took: Duration, now: Duration) -> Self {
        let decayed = self.decayed(now);
        Self { seconds: decayed.seconds + took.as_secs_f64(), at: now }
    }

    fn lane(self) -> Lane {
        if self.seconds > HEAVY_SHARE * LOAD_SECONDS { Lane::Heavy } else { Lane::Usual }
    }
}

impl Workers {
    /// Up to so many threads, at least 2, and for heavy projects half as many as there are
    /// processors, at least 2; each is spawned when there is something to do.
    pub(super) fn new(threads: usize) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let shared = Shared {
            usual_max: threads.max(2),
            heavy_max: processors.div_ceil(2).max(2),
            state: Mutex::default(),
            usual: Condvar::new(),
            heavy: Condvar::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Runs `job` when it is `project`'s turn.
    pub(super) fn push(&self, project: &ProjectName, job: Job) -> Result<(), QueueFull> {
        let mut state = lock(&self.shared.state);
        let of_project = state.projects.entry(project.clone()).or_default();
        if of_project.waiting.len() >= QUEUE_MAX {
            return Err(QueueFull);
        }
        of_project.waiting.push_back(job);
        of_project.lane = of_project.load.decayed(clock(ClockId::Monotonic)).lane();
        let lane = of_project.lane;
        if of_project.waiting.len() == 1 {
            state.turns.push_back(project.clone());
        }
        if let Err(error) = self.shared.wake(&mut state, lane) {
            tracing::error!(%error, "cannot spawn a thread for plugins");
            if state.threads(lane).spawned == 0 {
                state.projects.remove(project);
                state.turns.retain(|other| other != project);
                return Err(QueueFull);
            }
        }
        Ok(())
    }

    /// Calls that wait.
    pub(super) fn waiting(&self) -> usize {
        lock(&self.shared.state).projects.values().map(|project| project.waiting.len()).sum()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        lock(&self.shared.state).is_over = true;
        self.shared.usual.notify_all();
        self.shared.heavy.notify_all();
    }
}

impl Shared {
    /// Has a thread of the lane look for a call: one that is idle, a new one, or else whichever is
    /// done first.
    fn wake(self: &Arc<Self>, state: &mut State, lane: Lane) -> std::io::Result<()> {
        let threads = state.threads(lane);
        if threads.idle == 0 && threads.spawned < self.threads_max(lane) {
            Self::spawn(self, lane)?;
            threads.spawned += 1;
        } else {
            self.changed(lane).notify_one();
        }
        Ok(())
    }

    fn spawn(shared: &Arc<Self>, lane: Lane) -> std::io::Result<()> {
        let shared = Arc::clone(shared);
        let name = match lane {
            Lane::Usual => "plugin",
            Lane::Heavy => "plugin-heavy",
        };
        let thread = std::thread::Builder::new().name(name.to_owned());
        let work = move || {
            if lane == Lane::Heavy
                && let Err(error) = rustix::process::nice(HEAVY_NICE)
            {
                tracing::warn!(%error, "heavy plugins run at the usual priority");
            }
            shared.work(lane);
        };
        thread.stack_size(THREAD_STACK_BYTES).spawn(work).map(drop)
    }

    fn threads_max(&self, lane: Lane) -> usize {
        match lane {
            Lane::Usual => self.usual_max,
            Lane::Heavy => self.heavy_max,
        }
    }

    fn changed(&self, lane: Lane) -> &Condvar {
        match lane {
            Lane::Usual => &self.usual,
            Lane::Heavy => &self.heavy,
        }
    }

    fn work(self: &Arc<Self>, lane: Lane) {
        let of_project_max = (self.threads_max(lane) - 1).max(1);
        let mut state = lock(&self.state);
        loop {
            if state.is_over {
                return;
            }
            let Some((project, job)) = state.take(lane, of_project_max) else {
                state.threads(lane).idle += 1;
                state = self.changed(lane).wait(state).unwrap_or_else(|poison| poison.into_inner());
                state.threads(lane).idle -= 1;
                continue;
            };
            drop(state);
            let began = clock(ClockId::ThreadCPUTime);
            // Whoever waits for the job hears of a panic by its channel; the thread goes on.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            let took = clock(ClockId::ThreadCPUTime).saturating_sub(began);
            state = lock(&self.state);
            // A project that had as many threads as it may have may go on, perhaps in another lane.
            if let Some(next) = state.finished(&project, took)
                && let Err(error) = self.wake(&mut state, next)
            {
                tracing::error!(%error, "cannot spawn a thread for heavy plugins");
                state.projects.entry(project).or_default().lane = lane;
                self.changed(lane).notify_one();
            }
        }
    }
}

impl State {
    fn threads(&mut self, lane: Lane) -> &mut Threads {
        match lane {
            Lane::Usual => &mut self.usual,
            Lane::Heavy => &mut self.heavy,
        }
    }

    /// The next call of a project of this lane that has fewer threads than `threads_max`.
    fn take(&mut self, lane: Lane, threads_max: usize) -> Option<(ProjectName, Job)> {
        for _ in 0..self.turns.len() {
            let project = self.turns.pop_front()?;
            let Some(of_project) = self.projects.get_mut(&project) else { continue };
            if of_project.running >= threads_max || of_project.lane != lane {
                self.turns.push_back(project);
                continue;
            }
            let Some(job) = of_project.waiting.pop_front() else { continue };
            of_project.running += 1;
            if !of_project.waiting.is_empty() {
                self.turns.push_back(project.clone());
            }
            return Some((project, job));
        }
        None
    }

    /// A call is over. Returns the lane of a project that has more of them.
    fn finished(&mut self, project: &ProjectName, took: Duration) -> Option<Lane> {
        let now = clock(ClockId::Monotonic);
        let of_project = self.projects.get_mut(project)?;
        of_project.running -= 1;
        of_project.load = of_project.load.plus(took, now);
        of_project.lane = of_project.load.lane();
        let (lane, has_more) = (of_project.lane, !of_project.waiting.is_empty());
        if of_project.running == 0 && !has_more && self.projects.len() > PROJECTS_KEPT {
            // What has been idle for long is light again, whether it is known or not.
            self.projects.retain(|_, project| {
                let is_idle = project.running == 0 && project.waiting.is_empty();
                !is_idle || project.load.decayed(now).seconds > 0.01
            });
        }
        has_more.then_some(lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn project(name: &str) -> ProjectName {
        ProjectName::parse(name).unwrap()
    }

    #[test]
    fn a_project_never_has_all_threads() {
        let workers = Workers::new(2);
        let (release, held) = mpsc::channel::<()>();
        let (started, starts) = mpsc::channel();
        let held = Arc::new(Mutex::new(held));
        for _ in 0..4 {
            let (held, started) = (Arc::clone(&held), started.clone());
            let job = move || {
                started.send(()).unwrap();
                // Held until the channel closes.
                let _ = lock(&held).recv();
            };
            workers.push(&project("bad"), Box::new(job)).unwrap();
        }
        starts.recv().unwrap();
        let (done, answer) = mpsc::channel();
        workers.push(&project("good"), Box::new(move || done.send(7).unwrap())).unwrap();
        assert_eq!(answer.recv(), Ok(7), "the other thread is free for it");
        assert!(starts.try_recv().is_err(), "the first still holds its only thread");
        drop(release);
        (0..3).for_each(|_| starts.recv().unwrap());
    }

    #[test]
    fn projects_take_turns() {
        let mut state = State::default();
        for (name, jobs) in [("a", 3), ("b", 1), ("c", 2)] {
            let waiting = (0..jobs).map(|_| Box::new(|| {}) as Job).collect();
            let of_project = OfProject { waiting, ..OfProject::default() };
            state.projects.insert(project(name), of_project);
            state.turns.push_back(project(name));
        }
        let order: Vec<String> = std::iter::from_fn(|| state.take(Lane::Usual, 9))
            .map(|(project, _)| project.as_str().to_owned())
            .collect();
        assert_eq!(order.concat(), "abcaca");
    }

    #[test]
    fn a_queue_is_bounded_and_a_panic_costs_no_thread() {
        let workers = Workers::new(2);
        let (release, held) = mpsc::channel::<()>();
        let job = move || {
            let _ = held.recv();
            panic!("on purpose");
        };
        workers.push(&project("p"), Box::new(job)).unwrap();
        while workers.waiting() > 0 {
            std::thread::yield_now();
        }
        for _ in 0..QUEUE_MAX {
            workers.push(&project("p"), Box::new(|| {})).unwrap();
        }
        assert_eq!(workers.push(&project("p"), Box::new(|| {})), Err(QueueFull));
        drop(release);
        while workers.waiting() > 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_project_is_heavy_while_its_guests_take_much_of_a_processor() {
        let at = Duration::from_millis;
        let mut load = Load::default();
        for call in 0..10 {
            load = load.plus(at(10), at(100 * call));
        }
        assert_eq!(load.lane(), Lane::Usual, "a tenth of a processor");
        for call in 10..30 {
            load = load.plus(at(90), at(100 * call));
        }
        assert_eq!(load.lane(), Lane::Heavy, "nine tenths");
        assert_eq!(load.decayed(at(3_500)).lane(), Lane::Heavy);
        assert_eq!(load.decayed(at(6_000)).lane(), Lane::Usual, "it has calmed down");
    }

    #[test]
    fn heavy_calls_are_run_apart_and_all_of_them() {
        let workers = Workers::new(2);
        let (done, answers) = mpsc::channel();
        for _ in 0..40 {
            let done = done.clone();
            let spin = move || {
                let began = clock(ClockId::ThreadCPUTime);
                while clock(ClockId::ThreadCPUTime) < began + Duration::from_millis(40) {}
                done.send(std::thread::current().name().map(ToOwned::to_owned)).unwrap();
            };
            workers.push(&project("p"), Box::new(spin)).unwrap();
        }
        drop(done);
        let names: Vec<_> = answers.iter().flatten().collect();
        assert_eq!(names.len(), 40, "none is left behind when the lane changes");
        assert!(names.contains(&"plugin".to_owned()) && names.contains(&"plugin-heavy".to_owned()));
    }
}
