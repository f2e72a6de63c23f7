//! Why nothing was sent, or no answer came.

use std::error::Error;
use std::time::Duration;

/// Why a request failed before there was an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    /// It is not an address that requests are sent to.
    #[error("invalid url: {reason}")]
    Url {
        /// The rule.
        reason: String,
    },
    /// It leads to an address that is not to be reached. Which one is not said: it may be a name of
    /// the server's own network.
    #[error("`{host}` is {what}, to which nothing is sent")]
    Forbidden {
        /// The host of the URL.
        host: String,
        /// What kind of address it has.
        what: &'static str,
    },
    /// The name has no address now.
    #[error("`{host}` does not resolve: {reason}")]
    Resolve {
        /// The host of the URL.
        host: String,
        /// What the resolver says.
        reason: String,
    },
    /// Nobody took the connection.
    #[error("no connection: {reason}")]
    Connect {
        /// What went wrong.
        reason: String,
    },
    /// There was no answer in time.
    #[error("no answer within {after:?}")]
    Timeout {
        /// The time.
        after: Duration,
    },
    /// What came back is not HTTP, or ended early.
    #[error("no answer that can be read: {reason}")]
    Broken {
        /// What went wrong.
        reason: String,
    },
    /// The client cannot be made.
    #[error("requests cannot be sent: {reason}")]
    Setup {
        /// What went wrong.
        reason: String,
    },
}

impl EgressError {
    /// Whether the same request may succeed later. What is refused is refused for good.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Url { .. } | Self::Forbidden { .. } | Self::Setup { .. } => false,
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Broken { .. } => true,
        }
    }

    /// What the client reports: what the guard refused, found among the causes, is told as that.
    pub(super) fn of(error: &reqwest::Error) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        let mut innermost = String::new();
        while let Some(error) = cause {
            if let Some(ours) = error.downcast_ref::<Self>() {
                return ours.clone();
            }
            innermost = error.to_string();
            cause = error.source();
        }
        if error.is_connect() {
            Self::Connect { reason: innermost }
        } else {
            Self::Broken { reason: innermost }
        }
    }
}
