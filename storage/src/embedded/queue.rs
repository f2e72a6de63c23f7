//! What waits for the committer: a queue a project, bounded in bytes, drained in fair turns.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::ProjectName;

/// The queues. `T` is what waits.
#[derive(Debug)]
pub(super) struct Queue<T> {
    inner: Mutex<Inner<T>>,
    filled: Condvar,
    bounds: QueueBounds,
}

/// How much may wait, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueBounds {
    pub(super) project_bytes_max: usize,
    pub(super) total_bytes_max: usize,
}

/// How much is drained at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct LotBounds {
    pub(super) bytes_max: usize,
    pub(super) items_max: usize,
    /// What one project may take in its turn before the next has its own.
    pub(super) turn_bytes: usize,
}

#[derive(Debug)]
struct Inner<T> {
    projects: HashMap<ProjectName, ProjectQueue<T>>,
    /// Projects that have something waiting, in the order of their turns.
    turns: VecDeque<ProjectName>,
    bytes: usize,
    closed: bool,
    /// Whether the committer waits, and nobody has woken it yet: to wake it takes a system call, also
    /// if it is awake.
    is_waiting: bool,
}

#[derive(Debug)]
struct ProjectQueue<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
}

/// Why something may not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Busy,
    Closed,
}

/// What a drain brought.
#[derive(Debug)]
pub(super) enum Drained<T> {
    /// In order of each project; at least one.
    Items(Vec<T>),
    /// Nothing came in time.
    Nothing,
    /// The queue is closed; this still waited.
    Closed(Vec<T>),
}

impl<T> Queue<T> {
    pub(super) fn new(bounds: QueueBounds) -> Self {
        let inner = Inner {
            projects: HashMap::new(),
            turns: VecDeque::new(),
            bytes: 0,
            closed: false,
            is_waiting: false,
        };
        Self { inner: Mutex::new(inner), filled: Condvar::new(), bounds }
    }

    /// Lets `item`, which weighs `bytes`, wait behind its project's others. A project that has
    /// nothing waiting may pass its own bound with one item.
    pub(super) fn push(&self, project: &ProjectName, item: T, bytes: usize) -> Result<(), Refused> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(Refused::Closed);
        }
        let waiting = inner.projects.get(project).map_or(0, |queue| queue.bytes);
        let fits = waiting + bytes <= self.bounds.project_bytes_max
            && inner.bytes + bytes <= self.bounds.total_bytes_max;
        if waiting > 0 && !fits || inner.bytes > self.bounds.total_bytes_max {
            return Err(Refused::Busy);
        }
        inner.bytes += bytes;
        if let Some(queue) = inner.projects.get_mut(project) {
            queue.items.push_back((item, bytes));
            queue.bytes += bytes;
        } else {
            let queue = ProjectQueue { items: VecDeque::from([(item, bytes)]), bytes };
            inner.projects.insert(project.clone(), queue);
            inner.turns.push_back(project.clone());
        }
        let is_waiting = std::mem::take(&mut inner.is_waiting);
        drop(inner);
        if is_waiting {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Waits until something is there, for `timeout` at most if it is given, and takes a lot.
    /// For one thread alone: who adds something wakes one, if it waits.
    pub(super) fn drain(&self, lot: LotBounds, timeout: Option<Duration>) -> Drained<T> {
        let mut inner = self.lock();
        let idle = |inner: &mut Inner<T>| {
            inner.is_waiting = inner.turns.is_empty() && !inner.closed;
            inner.is_waiting
        };
        inner = match timeout {
            None => self.filled.wait_while(inner, idle).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = self.filled.wait_timeout_while(inner, timeout, idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        inner.is_waiting = false;
        if inner.closed {
            return Drained::Closed(inner.take(LotBounds {
                bytes_max: usize::MAX,
                items_max: usize::MAX,
                ..lot
            }));
        }
        let items = inner.take(lot);
        if items.is_empty() { Drained::Nothing } else { Drained::Items(items) }
    }

    /// Refuses all that comes from here on and wakes the committer.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Bytes that wait now.
    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Inner<T> {
    /// Takes turns until the lot is full or nothing is left.
    fn take(&mut self, lot: LotBounds) -> Vec<T> {
        let mut taken = Vec::new();
        let mut taken_bytes = 0;
        while taken_bytes < lot.bytes_max && taken.len() < lot.items_max {
            let Some(project) = self.turns.pop_front() else { break };
            let Some(queue) = self.projects.get_mut(&project) else { continue };
            let mut turn_bytes = 0;
            while turn_bytes < lot.turn_bytes
                && taken_bytes < lot.bytes_max
                && taken.len() < lot.items_max
            {
                let Some((item, bytes)) = queue.items.pop_front() else { break };
                queue.bytes -= bytes;
                self.bytes -= bytes;
                turn_bytes += bytes;
                taken_bytes += bytes;
                taken.push(item);
            }
            if queue.items.is_empty() {
                self.projects.remove(&project);
            } else {
                self.turns.push_back(project);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOT: LotBounds = LotBounds { bytes_max: 100, items_max: 10, turn_bytes: 10 };
    const NOW: Option<Duration> = Some(Duration::ZERO);

    fn queue() -> Queue<&'static str> {
        Queue::new(QueueBounds { project_bytes_max: 100, total_bytes_max: 150 })
    }

    fn project(name: &str) -> ProjectName {
        ProjectName::parse(name).unwrap()
    }

    fn drain(queue: &Queue<&'static str>, lot: LotBounds) -> Vec<&'static str> {
        match queue.drain(lot, NOW) {
            Drained::Items(items) => items,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn projects_take_turns_and_each_keeps_its_order() {
        let queue = queue();
        for item in ["a1", "a2", "a3"] {
            queue.push(&project("a"), item, 10).unwrap();
        }
        queue.push(&project("b"), "b1", 10).unwrap();
        assert_eq!(drain(&queue, LOT), ["a1", "b1", "a2", "a3"]);
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn who_waits_is_woken_by_each_item_and_by_the_end() {
        let queue = Queue::new(QueueBounds { project_bytes_max: 100, total_bytes_max: 100 });
        let (taken, took) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                loop {
                    match queue.drain(LOT, None) {
                        Drained::Items(items) => {
                            items.into_iter().for_each(|item| taken.send(item).unwrap())
                        }
                        Drained::Closed(_) => return,
                        Drained::Nothing => panic!("it waits without an end"),
                    }
                }
            });
            for item in 0..1_000 {
                queue.push(&project("a"), item, 1).unwrap();
                assert_eq!(took.recv().unwrap(), item);
                // Once it waits, and once perhaps not yet.
                while item % 2 == 0 && !queue.lock().is_waiting {
                    std::thread::yield_now();
                }
            }
            queue.close();
        });
    }

    #[test]
    fn a_lot_ends_at_its_bytes_and_at_its_items() {
        let queue = queue();
        for item in ["1", "2", "3"] {
            queue.push(&project("a"), item, 10).unwrap();
        }
        assert_eq!(drain(&queue, LotBounds { bytes_max: 15, ..LOT }), ["1", "2"]);
        queue.push(&project("a"), "4", 10).unwrap();
        assert_eq!(drain(&queue, LotBounds { items_max: 1, ..LOT }), ["3"]);
        assert_eq!(drain(&queue, LOT), ["4"]);
    }

    #[test]
    fn a_full_project_is_refused_and_others_are_not() {
        let queue = queue();
        queue.push(&project("a"), "at the bound", 100).unwrap();
        assert_eq!(queue.push(&project("a"), "over", 1), Err(Refused::Busy));
        queue.push(&project("b"), "other", 50).unwrap();
        assert_eq!(queue.push(&project("b"), "over in all", 1), Err(Refused::Busy));
        drain(&queue, LOT);
        queue.push(&project("a"), "room again", 1).unwrap();
    }

    #[test]
    fn one_item_larger_than_the_bound_passes_alone() {
        let queue = queue();
        queue.push(&project("a"), "large", 1000).unwrap();
        assert_eq!(queue.push(&project("b"), "next", 1), Err(Refused::Busy));
        assert_eq!(drain(&queue, LOT), ["large"]);
    }

    #[test]
    fn a_closed_queue_refuses_and_hands_out_what_waited() {
        let queue = queue();
        assert!(matches!(queue.drain(LOT, NOW), Drained::Nothing));
        queue.push(&project("a"), "waited", 1).unwrap();
        queue.close();
        assert_eq!(queue.push(&project("a"), "late", 1), Err(Refused::Closed));
        assert!(matches!(queue.drain(LOT, None), Drained::Closed(items) if items == ["waited"]));
    }
}
