//! Threads on which guests run, apart from those of the async runtime: a guest that does not give
//! back its thread holds up nobody but those who wait for a plugin, too.
//!
//! Projects take turns, and none may have all threads.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex};

use stream_storage::ProjectName;

use crate::lock::lock;

/// Calls of one project that may wait: about what its connections can bring.
const QUEUE_MAX: usize = 1_024;

/// A guest's stack is part of its thread's.
const THREAD_STACK_BYTES: usize = 4 << 20;

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

struct Shared {
    threads: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    projects: HashMap<ProjectName, OfProject>,
    /// Projects with waiting calls, the next one first.
    turns: VecDeque<ProjectName>,
    spawned: usize,
    idle: usize,
    is_over: bool,
}

#[derive(Default)]
struct OfProject {
    waiting: VecDeque<Job>,
    running: usize,
}

impl Workers {
    /// Up to so many threads, at least 2; each is spawned when there is something to do.
    pub(super) fn new(threads: usize) -> Self {
        let shared =
            Shared { threads: threads.max(2), state: Mutex::default(), changed: Condvar::new() };
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
        if of_project.waiting.len() == 1 {
            state.turns.push_back(project.clone());
        }
        if state.idle == 0 && state.spawned < self.shared.threads {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new()
                .name("plugin".to_owned())
                .stack_size(THREAD_STACK_BYTES)
                .spawn(move || shared.work());
            match thread {
                Ok(_) => state.spawned += 1,
                Err(error) => {
                    tracing::error!(%error, "cannot spawn a thread for plugins");
                    if state.spawned == 0 {
                        state.projects.remove(project);
                        state.turns.retain(|other| other != project);
                        return Err(QueueFull);
                    }
                }
            }
        }
        drop(state);
        self.shared.changed.notify_one();
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
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn work(&self) {
        let mut state = lock(&self.state);
        loop {
            if state.is_over {
                return;
            }
            let Some((project, job)) = state.take(self.threads - 1) else {
                state.idle += 1;
                state = self.changed.wait(state).unwrap_or_else(|poison| poison.into_inner());
                state.idle -= 1;
                continue;
            };
            drop(state);
            // Whoever waits for the job hears of a panic by its channel; the thread goes on.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            state = lock(&self.state);
            state.finished(&project);
            // A project that had as many threads as it may have may go on.
            self.changed.notify_one();
        }
    }
}

impl State {
    /// The next call of a project that has fewer threads than `threads_max`.
    fn take(&mut self, threads_max: usize) -> Option<(ProjectName, Job)> {
        for _ in 0..self.turns.len() {
            let project = self.turns.pop_front()?;
            let Some(of_project) = self.projects.get_mut(&project) else { continue };
            if of_project.running >= threads_max {
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

    fn finished(&mut self, project: &ProjectName) {
        let Some(of_project) = self.projects.get_mut(project) else { return };
        of_project.running -= 1;
        if of_project.running == 0 && of_project.waiting.is_empty() {
            self.projects.remove(project);
        }
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
            state.projects.insert(project(name), OfProject { waiting, running: 0 });
            state.turns.push_back(project(name));
        }
        let order: Vec<String> = std::iter::from_fn(|| state.take(9))
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
}
