//! The signal that the server is about to stop: nothing new is accepted, and what waits for news
//! answers with what it has.

use tokio::sync::watch;

/// Shared by everything that has to know of the end; clones see the same signal.
#[derive(Debug, Clone)]
pub struct Drain(watch::Sender<bool>);

impl Default for Drain {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Drain {
    /// Begins the end. There is no way back.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Whether the end has begun.
    pub fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once the end has begun. Cancel safe.
    pub async fn begun(&self) {
        // The sender is `self`, so the channel is open.
        let _ = self.0.subscribe().wait_for(|begun| *begun).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_clone_learns_that_the_end_has_begun() {
        let drain = Drain::default();
        let other = drain.clone();
        assert!(!other.has_begun());
        let waiting = tokio::spawn(async move { other.begun().await });
        drain.begin();
        waiting.await.unwrap();
        assert!(drain.has_begun());
    }
}
