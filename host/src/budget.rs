//! Bytes of requests and answers that are in memory, bounded per project and in all.
//!
//! A permit is taken before the memory is: a server that has no room says so instead of growing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use stream_storage::ProjectName;

use crate::lock::lock;

/// Counts the bytes in flight.
#[derive(Debug)]
pub struct Budget {
    project_bytes_max: usize,
    total_bytes_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_project: HashMap<ProjectName, usize>,
}

/// There is no room now; there will be once other requests are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many bytes in flight: `{limit}` is {max}")]
pub struct BudgetExhausted {
    /// The limit's name.
    pub limit: &'static str,
    /// Its value.
    pub max: usize,
}

impl Budget {
    /// A budget of `project_bytes_max` bytes for each project and `total_bytes_max` in all.
    pub fn new(project_bytes_max: usize, total_bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { project_bytes_max, total_bytes_max, taken: Mutex::default() })
    }

    /// A permit for no bytes yet.
    pub fn permit(self: &Arc<Self>, project: ProjectName) -> Permit {
        Permit { budget: Arc::clone(self), project, bytes: 0 }
    }

    /// Bytes in flight now.
    pub fn bytes(&self) -> usize {
        lock(&self.taken).total
    }

    fn take(&self, project: &ProjectName, bytes: usize) -> Result<(), BudgetExhausted> {
        let mut taken = lock(&self.taken);
        let total = taken.total.saturating_add(bytes);
        if total > self.total_bytes_max {
            return Err(BudgetExhausted { limit: "total_bytes", max: self.total_bytes_max });
        }
        let of_project = taken.by_project.get(project).copied().unwrap_or(0).saturating_add(bytes);
        if of_project > self.project_bytes_max {
            return Err(BudgetExhausted { limit: "project_bytes", max: self.project_bytes_max });
        }
        taken.total = total;
        taken.by_project.insert(project.clone(), of_project);
        Ok(())
    }

    fn replace(&self, project: &ProjectName, old: usize, new: usize) {
        let mut taken = lock(&self.taken);
        let replaced = |bytes: usize| bytes.saturating_sub(old).saturating_add(new);
        taken.total = replaced(taken.total);
        match replaced(taken.by_project.get(project).copied().unwrap_or(0)) {
            0 => taken.by_project.remove(project),
            bytes => taken.by_project.insert(project.clone(), bytes),
        };
    }
}

/// The right to hold some bytes in memory; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<Budget>,
    project: ProjectName,
    bytes: usize,
}

impl Permit {
    /// Makes the permit one for at least `bytes`.
    ///
    /// # Errors
    ///
    /// There is no room; the permit is as it was.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), BudgetExhausted> {
        let more = bytes.saturating_sub(self.bytes);
        if more > 0 {
            self.budget.take(&self.project, more)?;
            self.bytes = bytes;
        }
        Ok(())
    }

    /// Makes the permit one for exactly `bytes`, also beyond the budget: they are in memory
    /// already.
    pub fn set_to(&mut self, bytes: usize) {
        self.budget.replace(&self.project, self.bytes, bytes);
        self.bytes = bytes;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.replace(&self.project, self.bytes, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(name: &str) -> ProjectName {
        ProjectName::parse(name).unwrap()
    }

    #[test]
    fn a_project_may_fill_its_budget_but_not_pass_it() {
        let budget = Budget::new(10, 100);
        let mut permit = budget.permit(project("a"));
        permit.grow_to(10).unwrap();
        let exhausted = BudgetExhausted { limit: "project_bytes", max: 10 };
        assert_eq!(permit.grow_to(11), Err(exhausted));
        assert_eq!(budget.permit(project("a")).grow_to(1), Err(exhausted));
        assert_eq!(budget.permit(project("b")).grow_to(1), Ok(()));
    }

    #[test]
    fn all_projects_together_stay_within_the_whole() {
        let budget = Budget::new(10, 15);
        let mut first = budget.permit(project("a"));
        first.grow_to(10).unwrap();
        let mut second = budget.permit(project("b"));
        second.grow_to(5).unwrap();
        assert_eq!(second.grow_to(6), Err(BudgetExhausted { limit: "total_bytes", max: 15 }));
    }

    #[test]
    fn what_is_in_memory_already_counts_also_beyond_the_budget() {
        let budget = Budget::new(10, 10);
        let mut permit = budget.permit(project("a"));
        permit.grow_to(10).unwrap();
        permit.set_to(3);
        assert_eq!(budget.bytes(), 3);
        permit.set_to(12);
        assert_eq!(budget.bytes(), 12);
        assert!(budget.permit(project("a")).grow_to(1).is_err());
        permit.set_to(0);
        assert_eq!(budget.bytes(), 0);
    }

    #[test]
    fn a_dropped_permit_gives_all_back() {
        let budget = Budget::new(10, 10);
        let mut permit = budget.permit(project("a"));
        permit.grow_to(4).unwrap();
        permit.grow_to(9).unwrap();
        permit.grow_to(3).unwrap();
        assert_eq!(budget.bytes(), 9);
        drop(permit);
        assert_eq!(budget.bytes(), 0);
        assert!(lock(&budget.taken).by_project.is_empty());
    }
}
