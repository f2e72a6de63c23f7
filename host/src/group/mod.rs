//! Consumer groups: what they have committed, who belongs to them, and who may read what.
//!
//! Ownership and commits live in the store, sessions in memory. Any connection may serve any member;
//! after a restart every stored member gets one fresh session.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `rows` | the stored rows and their keys |
//! | `assign` | who is to own what: a pure function |
//! | `membership`, `session` | members and owners: a state machine without a store |
//! | `live` | one group in memory, brought up to date and stored |
//! | `member` | joining, heartbeats, leaving |
//! | `records` | what a member reads |
//! | `commit` | commits of offsets, with and without a member |
//! | `nack` | records that a member could not process: read again later, or dead letters |
//! | `failure` | what a nack makes of a partition's row: a pure function |
//! | `settings` | what is set for a group |
//! | `position` | where a group reads next |
//! | `describe` | how a group stands, and why a partition of it does not move |
//! | `reset` | going back or forth on purpose, and deleting |

mod assign;
mod commit;
mod describe;
mod error;
mod failure;
mod live;
mod member;
mod membership;
mod nack;
mod position;
mod records;
mod reset;
mod rows;
mod session;
mod settings;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stream_storage::{Clock, ProjectName, Store};

use crate::catalog::Catalog;
use crate::consume::Reader;
use crate::drain::Drain;
use crate::lock::lock;
use crate::name::GroupName;
use crate::publish::DeadLetters;
use live::LiveGroup;

pub use commit::{MemberCommit, MemberOffsets, OffsetCommit, PartitionCommit, Reset};
pub use describe::{DescribedMember, Description, PartitionState, Stuck};
pub use error::{Current, GroupError};
pub use failure::{ATTEMPTS_DEFAULT, ATTEMPTS_MAX, Failure, NACK_DELAY_MAX, REASON_BYTES_MAX};
pub use member::{Assigned, Join, MemberView, Release};
pub use nack::{Nack, Nacked};
pub use position::Progress;
pub use records::{Followed, Lost, MemberRecords, Scope};
pub use reset::{Force, ResetTo};
pub use rows::MemberId;
pub use settings::Settings;

/// How often groups are looked after when nobody asks: a crashed member's partitions move on at most
/// this much later than its session ends.
const TICK: Duration = Duration::from_millis(100);

/// Groups without members that are kept in memory.
const IDLE_MAX: usize = 1_000;

/// All groups.
pub struct Groups {
    parts: GroupsParts,
    live: Mutex<HashMap<(ProjectName, GroupName), Arc<LiveGroup>>>,
}

/// What groups are made of.
pub struct GroupsParts {
    /// Where commits and ownership are.
    pub store: Arc<dyn Store>,
    /// When commits were made.
    pub clock: Arc<dyn Clock>,
    /// Which topics there are.
    pub catalog: Arc<Catalog>,
    /// Reads for members.
    pub reader: Arc<Reader>,
    /// Where records go that no member could process.
    pub dead_letters: Arc<DeadLetters>,
}

impl Groups {
    /// Reads nothing yet.
    pub fn new(parts: GroupsParts) -> Self {
        Self { parts, live: Mutex::default() }
    }

    /// Moves partitions on whose owners are gone or whose time is up, until the drain begins.
    pub async fn run(&self, drain: Drain) {
        let mut beat = tokio::time::interval(TICK);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = drain.begun() => return,
                _ = beat.tick() => {}
            }
            let groups: Vec<Arc<LiveGroup>> = lock(&self.live).values().cloned().collect();
            for group in groups {
                if let Err(error) = group.look_after(&self.parts).await {
                    tracing::warn!(%error, group = %group.name(), "a group could not be settled");
                }
            }
            self.forget_idle();
        }
    }

    fn live(&self, project: &ProjectName, group: &GroupName) -> Arc<LiveGroup> {
        let place = (project.clone(), group.clone());
        let mut live = lock(&self.live);
        let group = live
            .entry(place)
            .or_insert_with(|| Arc::new(LiveGroup::new(project.clone(), group.clone())));
        Arc::clone(group)
    }

    fn forget_idle(&self) {
        let mut live = lock(&self.live);
        if live.len() > IDLE_MAX {
            live.retain(|_, group| Arc::strong_count(group) > 1 || !group.is_idle());
        }
    }
}
