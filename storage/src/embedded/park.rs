//! Transactions whose producer's sequence is ahead: they wait a little for the ones between.

use std::collections::HashMap;
use std::time::Duration;

use super::commit::{Reply, send};
use super::staged::Staged;
use crate::{CommitError, ProducerStep, ProjectName};

/// How long one waits.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(1);
/// How many of one producer wait.
const PRODUCER_PARKED_MAX: usize = 16;
/// How many bytes wait in all: they are outside the queues' bounds.
const PARKED_BYTES_MAX: usize = 32 << 20;
/// How many bytes of a project wait, unless they are one transaction's: others need room, too.
const PROJECT_PARKED_BYTES_MAX: usize = 8 << 20;

/// Who waits: few at any time, so that a look at all of them is cheap.
#[derive(Default)]
pub(super) struct Parking {
    producers: HashMap<ProducerKey, Vec<Waiting>>,
    bytes: usize,
}

pub(super) type ProducerKey = (ProjectName, String);

/// A transaction that waits, or is about to.
pub(super) struct Parked {
    pub(super) staged: Box<Staged>,
    pub(super) reply: Reply,
    /// What it weighs.
    pub(super) bytes: usize,
    /// On the monotonic clock.
    pub(super) deadline: Duration,
}

struct Waiting {
    parked: Parked,
    sequence: u64,
    gap: CommitError,
}

impl Parked {
    pub(super) fn producer(&self) -> Option<ProducerKey> {
        let step = self.staged.transaction.producer.as_ref()?;
        Some((self.staged.transaction.project.clone(), step.id.clone()))
    }
}

impl Parking {
    /// Lets a transaction wait, or returns why not.
    pub(super) fn park(
        &mut self,
        parked: Parked,
        expected: u64,
    ) -> Result<(), (Reply, CommitError)> {
        let received = match parked.staged.transaction.producer {
            Some(ProducerStep { sequence, .. }) => sequence,
            None => 0,
        };
        let gap = CommitError::SequenceGap { expected, received };
        let Some(key) = parked.producer() else { return Err((parked.reply, gap)) };
        let waiting = self.producers.get(&key).map_or(0, Vec::len);
        let of_project = self.project_bytes(&key.0);
        let is_full = waiting >= PRODUCER_PARKED_MAX
            || self.bytes + parked.bytes > PARKED_BYTES_MAX
            || of_project > 0 && of_project + parked.bytes > PROJECT_PARKED_BYTES_MAX;
        if is_full {
            return Err((parked.reply, gap));
        }
        self.bytes += parked.bytes;
        let waiting = Waiting { parked, sequence: received, gap };
        self.producers.entry(key).or_default().push(waiting);
        Ok(())
    }

    fn project_bytes(&self, project: &ProjectName) -> usize {
        let own = self.producers.iter().filter(|((of, _), _)| of == project);
        own.flat_map(|(_, waiting)| waiting).map(|waiting| waiting.parked.bytes).sum()
    }

    /// Takes all that wait for a producer, in the order of their sequences.
    pub(super) fn take(&mut self, key: &ProducerKey) -> Vec<Parked> {
        let mut waiting = self.producers.remove(key).unwrap_or_default();
        self.bytes -= waiting.iter().map(|waiting| waiting.parked.bytes).sum::<usize>();
        waiting.sort_by_key(|waiting| waiting.sequence);
        waiting.into_iter().map(|waiting| waiting.parked).collect()
    }

    /// Refuses all that have waited long enough.
    pub(super) fn refuse_late(&mut self, now: Duration) {
        self.refuse_if(|waiting| now >= waiting.parked.deadline, |waiting| waiting.gap.clone());
    }

    /// Refuses all.
    pub(super) fn refuse_all(&mut self, error: &CommitError) {
        self.refuse_if(|_| true, |_| error.clone());
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.producers.values().flatten().map(|waiting| waiting.parked.deadline).min()
    }

    fn refuse_if(
        &mut self,
        refused: impl Fn(&Waiting) -> bool,
        error: impl Fn(&Waiting) -> CommitError,
    ) {
        let mut bytes = 0;
        self.producers.retain(|_, waiting| {
            for late in waiting.extract_if(.., |waiting| refused(waiting)) {
                let error = error(&late);
                send(late.parked.reply, Err(error));
            }
            bytes += waiting.iter().map(|waiting| waiting.parked.bytes).sum::<usize>();
            !waiting.is_empty()
        });
        self.bytes = bytes;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::oneshot;

    use super::*;
    use crate::Transaction;

    fn is_parked(parking: &mut Parking, project: &str, producer: &str, bytes: usize) -> bool {
        let mut transaction = Transaction::new(ProjectName::parse(project).unwrap());
        transaction.producer = Some(ProducerStep {
            id: producer.to_owned(),
            epoch: 0,
            sequence: 1,
            payload_digest: None,
            expires: None,
            note: Bytes::new(),
        });
        let (reply, _) = oneshot::channel();
        let deadline = WAIT_MAX;
        let parked = Parked { staged: Box::new(Staged::new(transaction)), reply, bytes, deadline };
        parking.park(parked, 0).is_ok()
    }

    #[test]
    fn one_project_leaves_room_for_others() {
        let mut parking = Parking::default();
        assert!(is_parked(&mut parking, "a", "large", 16 << 20), "one passes alone");
        assert!(!is_parked(&mut parking, "a", "next", 1));
        assert!(is_parked(&mut parking, "b", "p-1", PROJECT_PARKED_BYTES_MAX));
        assert!(!is_parked(&mut parking, "b", "p-2", 1));
        assert!(!is_parked(&mut parking, "c", "p", 16 << 20), "all have a bound, too");
        assert!(is_parked(&mut parking, "c", "p", 8 << 20));
    }
}
