//! A stage that broke, and what is done with the events then.

use std::fmt;

use crate::name::{PluginName, RouteName};

/// What to do with events for which a stage broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnFault {
    /// Refuse the request; nothing is stored.
    #[default]
    Reject,
    /// Store the events in the dead-letter topic instead.
    DeadLetter,
    /// Go on as if the stage were not there; a validator's events are marked.
    Skip,
}

impl OnFault {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Reject, Self::DeadLetter, Self::Skip];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::DeadLetter => "dead-letter",
            Self::Skip => "skip",
        }
    }

    /// The one of that word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == word)
    }
}

/// A version of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PluginRef {
    /// Its name.
    pub name: PluginName,
    /// Its version, from 1.
    pub version: u64,
}

impl fmt::Display for PluginRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

/// Why a stage broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// A call took longer than it may.
    Timeout,
    /// It needed more memory than it may have.
    Memory,
    /// It went deeper than its stack.
    Stack,
    /// It gave up: a Rust panic, or an `unreachable` of another language.
    Panic,
    /// Another trap: a division by zero, an access out of bounds, ….
    Trap,
    /// It wanted to wait for something.
    Blocked,
    /// It answered with something that is no answer: too few outcomes, a partition that does not
    /// exist, more bytes than an answer may have, ….
    Answer,
    /// No instance could be started.
    Start,
    /// The server has no room for the call now.
    Busy,
    /// The server cannot load the component.
    Unavailable,
    /// A route leads to a topic that does not exist.
    MissingTarget,
}

impl Cause {
    /// All causes, in the order of their declaration.
    pub const ALL: [Self; 11] = [
        Self::Timeout,
        Self::Memory,
        Self::Stack,
        Self::Panic,
        Self::Trap,
        Self::Blocked,
        Self::Answer,
        Self::Start,
        Self::Busy,
        Self::Unavailable,
        Self::MissingTarget,
    ];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::Stack => "stack",
            Self::Panic => "panic",
            Self::Trap => "trap",
            Self::Blocked => "blocked",
            Self::Answer => "answer",
            Self::Start => "start",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::MissingTarget => "missing-target",
        }
    }

    /// Whether the fault is the server's, not the guest's: such events are never dead-lettered, since
    /// the same request may succeed in a moment.
    pub fn is_of_host(self) -> bool {
        matches!(self, Self::Busy | Self::Unavailable)
    }
}

/// A stage broke: there is no outcome for any of the events it was called with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{who} failed ({}): {message}", cause.as_str())]
pub struct Fault {
    /// Which stage: a plugin with its version, or a route.
    pub who: Who,
    /// Why.
    pub cause: Cause,
    /// What happened, for people.
    pub message: String,
}

/// Whose fault it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// A plugin's.
    Plugin(PluginRef),
    /// A route's.
    Route(RouteName),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plugin(plugin) => write!(f, "plugin `{plugin}`"),
            Self::Route(route) => write!(f, "route `{route}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_a_word_of_its_own() {
        let mut words: Vec<_> = Cause::ALL.iter().map(|cause| cause.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Cause::ALL.len());
    }

    #[test]
    fn policies_are_read_by_their_words() {
        for policy in OnFault::ALL {
            assert_eq!(OnFault::parse(policy.as_str()), Some(policy));
        }
        assert_eq!(OnFault::parse("ignore"), None);
    }

    #[test]
    fn a_fault_names_the_plugin_and_the_cause() {
        let plugin = PluginRef { name: PluginName::parse("p").unwrap(), version: 3 };
        let message = "over 100 ms".to_owned();
        let fault = Fault { who: Who::Plugin(plugin), cause: Cause::Timeout, message };
        assert_eq!(fault.to_string(), "plugin `p@3` failed (timeout): over 100 ms");
    }
}
