//! The tasks that post: one for each endpoint, begun and ended here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use stream_storage::ProjectName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout};

use super::endpoint::EndpointId;
use super::runner::Runner;
use super::{Hooks, HooksError};
use crate::drain::Drain;
use crate::state::PageRequest;

/// Even if nothing is heard of, endpoints are looked at again: another host may have changed them.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// How often what the log no longer keeps is looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// How long requests may take to end once the server is told to stop. What is cut off then was
/// sent, and is sent again after the next start.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Requests under way at once, all endpoints together. Those whose last request failed or was slow
/// share a quarter: however many there are, the others have the rest for themselves.
pub(super) struct Lanes {
    healthy: Arc<Semaphore>,
    troubled: Arc<Semaphore>,
}

impl Lanes {
    pub(super) fn new(requests_max: usize) -> Self {
        let troubled = (requests_max / 4).max(1);
        let healthy = requests_max.saturating_sub(troubled).max(1);
        Self {
            healthy: Arc::new(Semaphore::new(healthy)),
            troubled: Arc::new(Semaphore::new(troubled)),
        }
    }

    /// The right to send one request, in turn.
    pub(super) async fn enter(&self, is_troubled: bool) -> Option<OwnedSemaphorePermit> {
        let lane = if is_troubled { &self.troubled } else { &self.healthy };
        // It fails if the lane is closed, which nobody does.
        Arc::clone(lane).acquire_owned().await.ok()
    }
}

/// The endpoints' tasks. Dropped, they are cut off.
#[derive(Default)]
struct Tasks {
    running: JoinSet<()>,
    /// What ends each of them.
    stops: HashMap<(ProjectName, EndpointId), Drain>,
}

impl Hooks {
    /// Posts what is due, until the drain begins and what is under way has ended.
    pub async fn run(self: &Arc<Self>) {
        let lanes = Arc::new(Lanes::new(self.parts.requests_max));
        let mut tasks = Tasks::default();
        let mut look = tokio::time::interval(LOOK_AGAIN);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sweep = JoinSet::new();
        sweep.spawn(Arc::clone(self).sweep_all());
        loop {
            let projects = tokio::select! {
                () = self.parts.drain.begun() => break,
                changed = self.directory.next_changes() => changed,
                _ = look.tick() => self.projects().await,
            };
            for project in projects {
                if let Err(error) = self.update(&mut tasks, &project, &lanes).await {
                    tracing::warn!(%error, %project, "endpoints could not be read");
                    self.directory.changed(&project);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
        tasks.stops.values().for_each(Drain::begin);
        let ended = async { while tasks.running.join_next().await.is_some() {} };
        if timeout(DRAIN_TIMEOUT, ended).await.is_err() {
            tracing::warn!("requests to receivers are cut off, and sent again at the next start");
        }
    }

    /// All projects, read anew.
    async fn projects(&self) -> HashSet<ProjectName> {
        match self.parts.projects.list(&PageRequest::default()).await {
            Ok(page) => {
                let names = page.items.into_iter().map(|project| project.name);
                names.inspect(|project| self.directory.forget(project)).collect()
            }
            Err(error) => {
                tracing::warn!(%error, "projects could not be read");
                HashSet::new()
            }
        }
    }

    /// Begins and ends the tasks of a project's endpoints.
    async fn update(
        self: &Arc<Self>,
        tasks: &mut Tasks,
        project: &ProjectName,
        lanes: &Arc<Lanes>,
    ) -> Result<(), HooksError> {
        let known = self.directory.known(project).await?;
        let there: HashSet<&EndpointId> = known.iter().map(|known| &known.endpoint.id).collect();
        tasks.stops.retain(|(of, id), stop| {
            let stays = of != project || there.contains(id);
            if !stays {
                stop.begin();
            }
            stays
        });
        // What has ended is forgotten.
        while tasks.running.try_join_next().is_some() {}
        for known in known.iter() {
            let place = (project.clone(), known.endpoint.id.clone());
            if tasks.stops.contains_key(&place) {
                continue;
            }
            let stop = Drain::default();
            let runner = Runner {
                hooks: Arc::clone(self),
                project: project.clone(),
                endpoint: Arc::clone(known),
                lanes: Arc::clone(lanes),
                stop: stop.clone(),
            };
            tasks.running.spawn(runner.run());
            tasks.stops.insert(place, stop);
        }
        Ok(())
    }

    async fn sweep_all(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for project in self.projects().await {
                if let Err(error) = self.sweep(&project).await {
                    tracing::warn!(%error, %project, "deliveries remain longer than they are kept");
                }
            }
        }
    }
}
