//! Hooks: events posted to addresses that users name, signed, and tried again until they are taken.
//!
//! An endpoint's deliveries are jobs of a queue of its own, so that one that is slow or dead holds up
//! no other. A delivery is made in the transaction that makes it necessary, a connector's cursor say,
//! exactly once; it reaches its receiver at least once, under an id that stays the same.
//!
//! An endpoint that is disabled gets no new deliveries. Those that it had before wait in its queue
//! until it is enabled again or they are cancelled, whoever disabled it: nothing is lost by an outage
//! but what came after the endpoint was given up, and that can be replayed from its topic.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `endpoint`, `delivery`, `rows` | what is stored |
//! | `sign`, `message` | what receivers see |
//! | `edit`, `directory` | endpoints made, changed and deleted; those of a project in memory |
//! | `deliver`, `redeliver` | deliveries made, and made again |
//! | `log`, `stats` | what became of them, and for how long that is kept |
//! | `executor`, `runner` | the tasks that post, one for each endpoint |
//! | `outcome`, `health` | what an answer means for the delivery, and for the endpoint |
//! | `record`, `news` | what happened, written down; what its owner is told |

mod delete;
mod deliver;
mod delivery;
mod directory;
mod edit;
mod endpoint;
mod error;
mod executor;
mod health;
mod log;
mod message;
mod news;
mod outcome;
mod record;
mod redeliver;
mod rows;
mod runner;
pub mod sign;
mod stats;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use stream_storage::{Clock, ProjectName, Store, StoreError};

use crate::catalog::Catalog;
use crate::drain::Drain;
use crate::egress::Egress;
use crate::lock::lock;
use crate::name::EndpointName;
use crate::project::Projects;
use crate::queue::Queues;
use crate::secret::Sealer;
use directory::Directory;
use endpoint::Known;

pub use deliver::{HookJobs, Message, Sent};
pub use delivery::{Attempt, Delivery, DeliveryId, DeliveryStatus};
pub use edit::{Edited, EndpointPatch, NewEndpoint};
pub use endpoint::{Disabled, DisabledReason, Endpoint, EndpointId, EndpointSettings};
pub use error::{HooksError, InvalidEndpoint};
pub use log::{DeliveryFilter, DeliveryView};
pub use message::HookEvent;
pub use news::HOOKS;
pub use redeliver::RedeliverRange;
pub use stats::EndpointStats;

/// What Hooks is made of.
pub struct HooksParts {
    /// Where endpoints and deliveries are.
    pub store: Arc<dyn Store>,
    /// For timestamps.
    pub clock: Arc<dyn Clock>,
    /// Where the topic of news is.
    pub catalog: Arc<Catalog>,
    /// Whose endpoints there are.
    pub projects: Arc<Projects>,
    /// Where deliveries wait.
    pub queues: Arc<Queues>,
    /// Seals signing secrets.
    pub sealer: Arc<Sealer>,
    /// The way out.
    pub egress: Arc<Egress>,
    /// Ends the posting.
    pub drain: Drain,
    /// Requests under way at once, all endpoints together; at least 2.
    pub requests_max: usize,
}

/// Endpoints, and what is sent to them.
pub struct Hooks {
    parts: HooksParts,
    directory: Arc<Directory>,
    random: Mutex<StdRng>,
}

impl Hooks {
    /// Reads nothing yet, and sends nothing before [`run`](Self::run).
    pub fn new(parts: HooksParts, random: StdRng) -> Self {
        let directory = Arc::new(Directory::new(Arc::clone(&parts.store)));
        Self { parts, directory, random: Mutex::new(random) }
    }

    /// An endpoint as it is stored now.
    async fn load(&self, project: &ProjectName, name: &EndpointName) -> Result<Known, HooksError> {
        let key = rows::endpoint(name);
        let found = self.parts.store.get(project, key.as_bytes()).await?;
        let versioned = found.ok_or_else(|| HooksError::NotFound { endpoint: name.clone() })?;
        Ok(Known::decode(&stream_storage::StateEntry { key: key.into(), versioned })?)
    }

    /// A row that is JSON, with what to expect of it at the commit.
    async fn row<T: serde::de::DeserializeOwned>(
        &self,
        project: &ProjectName,
        key: &str,
    ) -> Result<(Option<T>, stream_storage::Expected), StoreError> {
        let found = self.parts.store.get(project, key.as_bytes()).await?;
        Ok(match found {
            Some(row) => (
                Some(crate::state::decode(key.as_bytes(), &row)?),
                stream_storage::Expected::Version(row.version),
            ),
            None => (None, stream_storage::Expected::Absent),
        })
    }

    fn with_random<T>(&self, use_it: impl FnOnce(&mut StdRng) -> T) -> T {
        use_it(&mut lock(&self.random))
    }
}
