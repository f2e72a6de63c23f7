//! Who waits for something new.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::Watch;

/// A sender for each thing that somebody watches.
#[derive(Debug, Default)]
pub(super) struct Watches(Mutex<HashMap<Watch, watch::Sender<u64>>>);

impl Watches {
    /// A receiver that changes with every [`notify`](Watches::notify) from here on.
    pub(super) fn subscribe(&self, watch: Watch) -> watch::Receiver<u64> {
        let mut senders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        senders.entry(watch).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// Wakes everybody.
    pub(super) fn notify_all(&self) {
        let senders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        senders.values().for_each(|sender| sender.send_modify(|count| *count += 1));
    }

    /// Forgets what can never be new again: who still watches it is told that nothing comes.
    pub(super) fn forget(&self, watch: &Watch) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(watch);
    }

    /// Wakes who watches one of these; forgets what nobody watches any more.
    pub(super) fn notify(&self, watches: impl Iterator<Item = Watch>) {
        let mut senders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if senders.is_empty() {
            return;
        }
        for watch in watches {
            if let Some(sender) = senders.get(&watch) {
                if sender.receiver_count() == 0 {
                    senders.remove(&watch);
                } else {
                    sender.send_modify(|count| *count += 1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ProjectName, TopicId};

    #[test]
    fn only_who_watches_the_thing_is_woken() {
        let watches = Watches::default();
        let topic = watches.subscribe(Watch::Topic(TopicId(1)));
        let other = watches.subscribe(Watch::Topic(TopicId(2)));
        let state = watches.subscribe(Watch::State(ProjectName::system()));
        watches.notify([Watch::Topic(TopicId(1)), Watch::State(ProjectName::system())].into_iter());
        assert_eq!(
            [topic, other, state].map(|receiver| receiver.has_changed().unwrap()),
            [true, false, true]
        );
    }

    #[test]
    fn what_nobody_watches_any_more_is_forgotten() {
        let watches = Watches::default();
        drop(watches.subscribe(Watch::Topic(TopicId(1))));
        watches.notify([Watch::Topic(TopicId(1))].into_iter());
        assert!(watches.0.lock().unwrap().is_empty());
    }
}
