//! Why a request's events cannot be read.

use std::fmt;

/// Why nothing of a request was read: the first fault met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The content type is none that this call reads.
    #[error("content type `{got}` is not supported, expected {expected}")]
    UnsupportedMediaType {
        /// The content type; empty if there is none.
        got: String,
        /// What the call reads.
        expected: &'static str,
    },
    /// The request holds no event.
    #[error("the request holds no event")]
    Empty,
    /// An event cannot be read.
    #[error("event `{index}`{}: {message}", at(*byte, field.as_deref()))]
    Malformed {
        /// The event's place in the request, from 0; blank lines do not count.
        index: usize,
        /// Where in the body the fault lies, from 0; a missing field is missed at its event's
        /// start. `None` if it lies in an HTTP header.
        byte: Option<usize>,
        /// The field at fault, if the fault is in a field.
        field: Option<String>,
        /// What is wrong.
        message: String,
    },
    /// An event is too large.
    #[error("event `{index}` takes `{got}` bytes, at most {max} allowed (`event_bytes_max`)")]
    EventTooLarge {
        /// The event's place in the request, from 0.
        index: usize,
        /// The limit, in bytes.
        max: usize,
        /// Its size, in bytes.
        got: usize,
    },
    /// An event has too many headers.
    #[error("event `{index}` has more than {max} headers (`headers_max`)")]
    TooManyHeaders {
        /// The event's place in the request, from 0.
        index: usize,
        /// The limit.
        max: usize,
    },
    /// The request has too many events.
    #[error("the request has more than {max} events (`request_events_max`)")]
    TooManyEvents {
        /// The limit.
        max: usize,
    },
}

impl DecodeError {
    /// The same error where so many events came before those that it is about.
    pub(crate) fn behind(self, events: usize) -> Self {
        match self {
            Self::Malformed { index, byte, field, message } => {
                Self::Malformed { index: index + events, byte, field, message }
            }
            Self::EventTooLarge { index, max, got } => {
                Self::EventTooLarge { index: index + events, max, got }
            }
            Self::TooManyHeaders { index, max } => {
                Self::TooManyHeaders { index: index + events, max }
            }
            other => other,
        }
    }

    /// The same error where what was read begins so many bytes into its body.
    pub(crate) fn moved(self, bytes: usize) -> Self {
        match self {
            Self::Malformed { index, byte, field, message } => {
                let byte = byte.map(|byte| byte + bytes);
                Self::Malformed { index, byte, field, message }
            }
            other => other,
        }
    }
}

fn at(byte: Option<usize>, field: Option<&str>) -> String {
    let byte = byte.map(|byte| format!(", byte `{byte}`")).unwrap_or_default();
    let field = field.map(|field| format!(", field `{field}`")).unwrap_or_default();
    byte + &field
}

/// What is wrong, before the event's index and the place in the body are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault<'a> {
    Malformed {
        /// The rest of the body, or of a part of it, from where the fault lies.
        rest: Option<&'a [u8]>,
        field: Option<String>,
        message: String,
    },
    EventTooLarge {
        max: usize,
        got: usize,
    },
    TooManyHeaders {
        max: usize,
    },
    TooManyEvents {
        max: usize,
    },
}

impl fmt::Display for Fault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { message, .. } => f.write_str(message),
            Self::EventTooLarge { max, got } => write!(f, "{got} bytes, at most {max} allowed"),
            Self::TooManyHeaders { max } => write!(f, "more than {max} headers"),
            Self::TooManyEvents { max } => write!(f, "more than {max} events"),
        }
    }
}

impl<'a> Fault<'a> {
    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self::Malformed { rest: None, field: None, message: message.into() }
    }

    /// Places the fault at the start of `part`, a part of the body, unless it has a place.
    pub(super) fn at(mut self, part: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        if let Self::Malformed { rest, .. } = &mut self {
            rest.get_or_insert(part.as_ref());
        }
        self
    }

    /// Names the field at fault, cut at 64 characters, unless it has a name.
    pub(super) fn field(mut self, name: &str) -> Self {
        if let Self::Malformed { field, .. } = &mut self {
            field.get_or_insert_with(|| name.chars().take(64).collect());
        }
        self
    }

    /// Whether it is that the text ended too early.
    pub(super) fn is_at_end(&self) -> bool {
        matches!(self, Self::Malformed { rest: Some([]), .. })
    }

    /// The error of the event `index` of `body`.
    pub(super) fn locate(self, index: usize, body: &[u8]) -> DecodeError {
        match self {
            Self::Malformed { rest, field, message } => {
                let start = body.as_ptr().addr();
                let byte = rest.map(|rest| rest.as_ptr().addr().saturating_sub(start));
                DecodeError::Malformed { index, byte, field, message }
            }
            Self::EventTooLarge { max, got } => DecodeError::EventTooLarge { index, max, got },
            Self::TooManyHeaders { max } => DecodeError::TooManyHeaders { index, max },
            Self::TooManyEvents { max } => DecodeError::TooManyEvents { max },
        }
    }
}
