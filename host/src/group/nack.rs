//! Records that a member could not process. Its partition is held until such a record is read again;
//! one that has failed too often becomes a dead letter, and the partition moves on.
//!
//! A nack of a record also commits all before it, and the member owns the partition anew, in another
//! generation: what it has read behind the record it can neither commit nor nack any more, or it would
//! skip the record without meaning to. All that, and the dead letter, is one transaction, on condition
//! that the member still owns the partition.

use std::time::Duration;

use stream_storage::{Bounds, ProjectName, ReadStart, StoreError, Timestamp, Transaction};
use tokio::time::Instant;

use super::commit::Claim;
use super::failure::{Outcome, Said};
use super::live::Held;
use super::rows::{self, MemberId, StoredCommit, StoredOwner};
use super::{GroupError, Groups};
use crate::consume::{Amount, ConsumeError};
use crate::event::Event;
use crate::name::{GroupName, TopicName};
use crate::publish::{DEAD_LETTER, DeadLetter, GivenUpBy};
use crate::slot::Slot;
use crate::state::{self, Attempts};
use crate::topic::Topic;

/// The word for why a group gave a record up.
const CAUSE: &str = "nack";

/// What a dead letter says if the member gave no reason.
const NO_REASON: &str = "no reason was given";

/// A member could not process a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nack {
    /// The group.
    pub group: GroupName,
    /// The member.
    pub member: MemberId,
    /// The topic.
    pub topic: TopicName,
    /// The partition of it.
    pub partition: u32,
    /// The number of the ownership under which the record was read.
    pub generation: u64,
    /// The record. All before it is processed.
    pub offset: u64,
    /// When the record is to be read again; longer each time if `None`.
    pub delay: Option<Duration>,
    /// Why it could not be processed, for people.
    pub reason: Option<String>,
}

/// What came of a nack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nacked {
    /// How often the record has failed.
    pub attempts: u32,
    /// How often it may.
    pub attempts_max: u32,
    /// Whether it became a dead letter.
    pub is_dead_lettered: bool,
    /// Where the group reads next.
    pub next_offset: u64,
    /// When, if not at once.
    pub held_until: Option<Timestamp>,
}

/// A nack whose topic was found.
struct Asked<'a> {
    project: &'a ProjectName,
    group: &'a GroupName,
    topic: &'a Topic,
    claim: Claim<'a>,
    said: Said,
    attempts_max: u32,
}

/// What a nack leads to.
struct Weighed {
    /// The rows, as they are to be.
    row: StoredCommit,
    owner: Option<StoredOwner>,
    /// What stores them; nothing if they are stored.
    transaction: Option<Transaction>,
}

impl Groups {
    /// Notes that a member could not process a record, and commits all before it. Durable on return.
    /// The member has nothing of the partition in hand then: it gets it again. The same nack again,
    /// of the same generation, changes nothing.
    ///
    /// # Errors
    ///
    /// The member is unknown, does not own the partition or owned it in an earlier generation; the
    /// record lies before the present commit or was not handed out to the member; the topic or
    /// partition does not exist; or the store refused.
    pub async fn nack(&self, project: &ProjectName, nack: Nack) -> Result<Nacked, GroupError> {
        let Nack { group, member, topic, partition, generation, offset, delay, reason } = nack;
        let topic = self.parts.catalog.get(project, &topic).await?;
        let slot = Slot::new(topic.id, topic.partition(partition)?);
        let said = Said { offset, generation, delay, reason };
        let attempts_max = self.settings(project, &group).await?.attempts_max;
        let claim = Claim { member: &member, topic: &topic.name, slot, generation };
        let asked = Asked { project, group: &group, topic: &topic, claim, said, attempts_max };
        let live = self.live(project, &group);
        // Held until all is done: nothing is handed out of the partition meanwhile.
        let mut held = live.settled(&self.parts).await?;
        held.member(&group, &member)?.session.touch(Instant::now());
        let mut attempts = Attempts::default();
        let (row, owner) = loop {
            let Weighed { row, owner, transaction } = self.weigh(&asked, &held).await?;
            let Some(transaction) = transaction else { break (row, owner) };
            match self.parts.store.commit(transaction).await {
                Ok(receipt) => {
                    self.parts.dead_letters.count(&receipt);
                    break (row, owner);
                }
                Err(error) => attempts.again(error)?,
            }
        };
        // Also if it is known that the nack before this one was stored only now.
        let known = held.membership.slots().get(&slot).map(|ownership| ownership.generation);
        if let Some(owner) = owner.filter(|owner| known < Some(owner.generation)) {
            held.membership.set_owner(slot, owner);
        }
        live.settle(&self.parts, &mut held).await?;
        live.wake();
        Ok(asked.told(&row, self.parts.clock.now()))
    }

    /// What the nack leads to.
    async fn weigh(&self, asked: &Asked<'_>, held: &Held) -> Result<Weighed, GroupError> {
        let Asked { project, group, topic, claim, said, attempts_max } = asked;
        let slot = claim.slot;
        let (owner, present) = self.rows_of(project, group, slot).await?;
        let Bounds { start, end, .. } = self.parts.store.bounds(slot.topic, slot.partition).await?;
        let nothing = || StoredCommit { offset: start, committed_at: 0, failed: None };
        let before = present.row.clone().unwrap_or_else(nothing);
        let now = self.parts.clock.now();
        let outcome = before.nacked(said, *attempts_max, now, &mut rand::rng());
        if outcome == Some(Outcome::Repeat) {
            return Ok(Weighed { row: before, owner: owner.row, transaction: None });
        }
        claim.check(owner.row.as_ref(), present.row.as_ref())?;
        let (partition, offset) = (slot.partition, said.offset);
        let (row, is_given_up) = match outcome {
            Some(Outcome::Again(row)) => (row, false),
            Some(Outcome::GiveUp(row)) => (row, true),
            Some(Outcome::Repeat) | None => {
                return Err(GroupError::Overtaken { offset, committed: before.offset });
            }
        };
        if offset >= end {
            return Err(ConsumeError::BeyondEnd { partition, offset, log_end: end }.into());
        }
        if offset < start {
            return Err(ConsumeError::Trimmed { partition, offset, earliest: start }.into());
        }
        let ownership = held.membership.slots().get(&slot);
        if !ownership.is_some_and(|ownership| ownership.has_reached(offset)) {
            return Err(GroupError::NotHandedOut { offset });
        }
        let anew = StoredOwner {
            member: Some(claim.member.clone()),
            generation: claim.generation.saturating_add(1),
        };
        let mut transaction = Transaction::new((*project).clone());
        let key = rows::key::<StoredOwner>(group, slot);
        transaction.expect(key.clone(), owner.expected).put(key, state::encode(&anew));
        self.put_row(&mut transaction, group, slot, (&row, &present));
        // One that could not be processed as a dead letter is one already, and stays it.
        if is_given_up && topic.name.as_str() != DEAD_LETTER {
            self.give_up(&mut transaction, asked, &row).await?;
        }
        Ok(Weighed { row, owner: Some(anew), transaction: Some(transaction) })
    }

    /// Adds the record to the dead letters.
    async fn give_up(
        &self,
        transaction: &mut Transaction,
        asked: &Asked<'_>,
        row: &StoredCommit,
    ) -> Result<(), GroupError> {
        let (slot, offset) = (asked.claim.slot, asked.said.offset);
        let one = Amount { records_max: 1, bytes_max: 1, wait: Duration::ZERO };
        let start = ReadStart::Offset(offset);
        let found = self.parts.reader.read_once(slot.topic, slot.partition, start, one).await?;
        let record = found.segments.first().and_then(|segment| segment.records().next());
        let record = record.transpose().map_err(|error| StoreError::Corrupt {
            reason: format!("partition {} at {offset}: {error}", slot.partition),
        })?;
        let Some((_, record)) = record else {
            let partition = slot.partition;
            return Err(ConsumeError::BeyondEnd { partition, offset, log_end: offset }.into());
        };
        let letter = DeadLetter {
            by: GivenUpBy::Group(asked.group),
            topic: Some(&asked.topic.name),
            place: Some((slot.partition, offset)),
            cause: CAUSE,
            reason: asked.said.reason.as_deref().unwrap_or(NO_REASON),
            attempts: row.failed.as_ref().map_or(0, |failed| failed.attempts),
            event: &Event::of(record),
        };
        self.parts.dead_letters.add(transaction, &[letter]).await?;
        Ok(())
    }
}

impl Asked<'_> {
    fn told(&self, row: &StoredCommit, now: Timestamp) -> Nacked {
        let failed = row.failed.as_ref();
        Nacked {
            attempts: failed.map_or(0, |failed| failed.attempts),
            attempts_max: self.attempts_max,
            is_dead_lettered: self.said.offset < row.offset,
            next_offset: row.offset,
            held_until: failed.and_then(|failed| failed.held_until(now)),
        }
    }
}
