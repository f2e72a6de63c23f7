//! Room in memory for the records of an answer: taken before they are read, and not held by who
//! waits for them.

use std::time::Duration;

use super::App;
use super::auth::{Caller, Consume};
use super::error::ApiError;
use crate::budget::Permit;
use crate::consume::Amount;

/// Room for what a call asks for.
pub(crate) struct Room {
    permit: Permit,
    amount: Amount,
}

impl Room {
    /// Takes room for `amount`.
    ///
    /// # Errors
    ///
    /// There is none.
    pub(crate) fn take(
        app: &App,
        caller: &Caller<Consume>,
        amount: Amount,
    ) -> Result<Self, ApiError> {
        // More would never fit, and be refused for ever.
        let bytes_max = amount.bytes_max.min(app.node.limits.project_bytes_max);
        let mut permit = app.node.answer_budget.permit(caller.project.clone());
        permit.grow_to(bytes_max)?;
        Ok(Self { permit, amount: Amount { bytes_max, ..amount } })
    }

    /// What to read, without waiting.
    pub(crate) fn amount(&self) -> Amount {
        Amount { wait: Duration::ZERO, ..self.amount }
    }

    /// Gives the room back while the call waits: by reading this, which brings one record at most.
    /// `None` if it does not wait.
    pub(crate) fn leave(&mut self) -> Option<Amount> {
        if self.amount.wait.is_zero() {
            return None;
        }
        self.permit.set_to(0);
        Some(Amount { records_max: 1, bytes_max: 1, ..self.amount })
    }

    /// Takes the room again after a wait.
    ///
    /// # Errors
    ///
    /// There is none, or the key was revoked meanwhile.
    pub(crate) fn enter(&mut self, app: &App, caller: &Caller<Consume>) -> Result<(), ApiError> {
        caller.check_key(&app.node.keys)?;
        Ok(self.permit.grow_to(self.amount.bytes_max)?)
    }

    /// The permit for the answer as it is written.
    pub(crate) fn into_permit(mut self, answer: &[u8]) -> Permit {
        self.permit.set_to(answer.len());
        self.permit
    }
}
