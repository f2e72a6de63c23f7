//! Connectors: each reads the log as any consumer does and hands what it reads to a target.
//!
//! Its cursor and what becomes of the records are one transaction: jobs, webhook deliveries and ledger
//! entries of this server are made exactly once. A service elsewhere gets requests that are jobs of the
//! connector's own queue: at least once, always under the same key. The log is the buffer: a connector
//! that is behind costs a cursor, and publishing never waits for one.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `spec` | what a connector is to do |
//! | `rows` | the stored rows and their keys |
//! | `edit`, `delete` | making, changing, pausing, sending back and deleting connectors |
//! | `runner` | one connector at work: read, sift, hand over, move on |
//! | `sift` | what its plugin makes of the records |
//! | `target` | what becomes of them |
//! | `remote` | requests to a service elsewhere |
//! | `pace` | publishers go first |
//! | `health`, `view`, `tally` | how a connector does, and all of them |

mod delete;
mod edit;
mod error;
mod health;
mod pace;
mod remote;
mod rows;
mod runner;
mod sift;
mod spec;
mod tally;
mod target;
mod view;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use stream_storage::{Clock, ProjectName, Store};
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinSet;

use crate::catalog::Catalog;
use crate::consume::Reader;
use crate::drain::Drain;
use crate::egress::Egress;
use crate::hooks::Hooks;
use crate::ledger::Ledgers;
use crate::lock::lock;
use crate::name::ConnectorName;
use crate::pipeline::Pipelines;
use crate::project::Projects;
use crate::publish::DeadLetters;
use crate::queue::Queues;
use crate::secret::Sealer;
use crate::state::{self, PageRequest};
use health::Health;
use pace::Pace;
use tally::{LastLook, Totals};

pub use delete::Deletion;
pub use edit::Replay;
pub use error::ConnectorError;
pub use health::{LostRecords, Vitals};
pub use spec::{From, Kind, Secret, Settings, Spec};
pub use tally::{Counted, Standing};
pub use view::{ConnectorView, PlaceView};

/// Connectors of a project: each looks at all its topics now and then.
pub const CONNECTORS_MAX: usize = 100;

/// Whether a connector works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It takes records.
    Running,
    /// It does not, until it is told to.
    Paused,
    /// It takes what was published before, and is then deleted.
    Draining,
}

impl State {
    /// The state's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Draining => "draining",
        }
    }
}

/// What connectors are made of.
pub struct ConnectorsParts {
    /// Where they and their cursors are.
    pub store: Arc<dyn Store>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Which topics there are.
    pub catalog: Arc<Catalog>,
    /// Whose connectors there are.
    pub projects: Arc<Projects>,
    /// The read path.
    pub reader: Arc<Reader>,
    /// Their plugins.
    pub pipelines: Arc<Pipelines>,
    /// Jobs of this server, and requests to services elsewhere.
    pub queues: Arc<Queues>,
    /// Webhooks of this server.
    pub hooks: Arc<Hooks>,
    /// Ledgers of this server.
    pub ledgers: Arc<Ledgers>,
    /// What plugins broke on.
    pub dead_letters: Arc<DeadLetters>,
    /// The way out.
    pub egress: Arc<Egress>,
    /// Keeps secrets.
    pub sealer: Arc<Sealer>,
    /// Ends them all.
    pub drain: Drain,
}

type Place = (ProjectName, ConnectorName);

/// All connectors.
pub struct Connectors {
    parts: Arc<ConnectorsParts>,
    pace: Arc<Pace>,
    health: Mutex<HashMap<Place, Arc<Health>>>,
    totals: Arc<Totals>,
    last_look: LastLook,
    /// Each held while the connector of that name is changed, so that nobody makes one while another
    /// goes away.
    edits: Mutex<HashMap<Place, Arc<tokio::sync::Mutex<()>>>>,
    /// Those at work. Held while one is changed, so that each is at work once.
    working: tokio::sync::Mutex<HashMap<Place, JoinSet<()>>>,
}

impl Connectors {
    /// None is at work yet.
    pub fn new(parts: ConnectorsParts) -> Self {
        Self {
            pace: Arc::new(Pace::new(Arc::clone(&parts.store))),
            parts: Arc::new(parts),
            health: Mutex::default(),
            totals: Arc::default(),
            last_look: LastLook::default(),
            edits: Mutex::default(),
            working: tokio::sync::Mutex::default(),
        }
    }

    /// Sets all connectors to work, until the drain begins.
    pub async fn run(&self) {
        while let Err(error) = self.start_all().await {
            tracing::error!(%error, "connectors could not be read");
            tokio::select! {
                () = self.parts.drain.begun() => return,
                () = tokio::time::sleep(runner::PAUSE_MAX) => {}
            }
        }
        self.parts.drain.begun().await;
        let working = std::mem::take(&mut *self.working.lock().await);
        for (_, mut tasks) in working {
            while tasks.join_next().await.is_some() {}
        }
    }

    async fn start_all(&self) -> Result<(), ConnectorError> {
        let store = self.parts.store.as_ref();
        let all = PageRequest::default();
        for project in self.parts.projects.list(&all).await?.items {
            let rows = state::page(store, &project.name, rows::PREFIX, &all).await?;
            for row in rows.items {
                let name = state::name_in(&row.key, rows::PREFIX);
                match ConnectorName::parse(&name) {
                    Ok(name) => self.restart(&project.name, &name).await,
                    Err(error) => tracing::error!(%error, "a connector is not set to work"),
                }
            }
        }
        Ok(())
    }

    /// Ends what a connector does now and sets it to work as it is stored, if it is to.
    async fn restart(&self, project: &ProjectName, name: &ConnectorName) {
        let place = (project.clone(), name.clone());
        let mut working = self.working.lock().await;
        // Whatever it was doing is either committed or never will be.
        if let Some(mut tasks) = working.remove(&place) {
            tasks.shutdown().await;
        }
        working.retain(|_, tasks| {
            while tasks.try_join_next().is_some() {}
            !tasks.is_empty()
        });
        if self.parts.drain.has_begun() {
            return;
        }
        let health = self.health(project, name);
        match rows::find(self.parts.store.as_ref(), project, name).await {
            Ok(Some(found)) => match found.stored.spec() {
                Ok(spec) => health.begin(&spec),
                Err(error) => tracing::error!(%error, connector = %name, "connector is unreadable"),
            },
            // The tasks end at once.
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, connector = %name, "connector is not read yet"),
        }
        let mut tasks = JoinSet::new();
        let pace = Arc::clone(&self.pace);
        runner::start(&mut tasks, &self.parts, place.clone(), (health, pace));
        working.insert(place, tasks);
    }

    /// Waits until nobody else changes the connector of this name.
    async fn edit(&self, project: &ProjectName, name: &ConnectorName) -> OwnedMutexGuard<()> {
        let edit = {
            let mut edits = lock(&self.edits);
            edits.retain(|_, edit| Arc::strong_count(edit) > 1);
            Arc::clone(edits.entry((project.clone(), name.clone())).or_default())
        };
        edit.lock_owned().await
    }

    fn health(&self, project: &ProjectName, name: &ConnectorName) -> Arc<Health> {
        let place = (project.clone(), name.clone());
        let new = || Arc::new(Health::new(Arc::clone(&self.totals)));
        Arc::clone(lock(&self.health).entry(place).or_insert_with(new))
    }

    /// Nothing is known any more of what one of this name did.
    fn forget(&self, project: &ProjectName, name: &ConnectorName) {
        lock(&self.health).remove(&(project.clone(), name.clone()));
    }
}
