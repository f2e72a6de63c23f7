//! Names that clients give: topics, groups, plugins, routes, queues and endpoints.
//!
//! Owns the rules and nothing else: whether a topic exists or may be written is decided elsewhere.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use stream_storage::InvalidName;

/// A topic: tokens of `[A-Za-z0-9_-]`, joined by `.`, at most 249 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// Longest name, in bytes: what Kafka allows, so that topics can be mirrored.
    pub const BYTES_MAX: usize = 249;

    /// Checks a name. Reserved names pass: clients may read those topics, see
    /// [`is_reserved`](Self::is_reserved).
    ///
    /// # Errors
    ///
    /// The name is too long, or one of its tokens is empty or has another character than
    /// `[A-Za-z0-9_-]`.
    pub fn parse(name: &str) -> Result<Self, InvalidName> {
        let is_token = |token: &str| !token.is_empty() && token.bytes().all(is_name_byte);
        if name.len() > Self::BYTES_MAX || !name.split('.').all(is_token) {
            let expected = "tokens of `[A-Za-z0-9_-]` joined by `.`, at most 249 bytes";
            return Err(InvalidName::new("topic", name, expected));
        }
        Ok(Self(name.into()))
    }

    /// Whether only the server may create, write, change or delete this topic: its name starts
    /// with `_`.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('_')
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! short_name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $may_be:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Longest name, in bytes.
            pub const BYTES_MAX: usize = 128;

            /// Checks a name.
            ///
            /// # Errors
            ///
            /// The name is empty, too long, or has another character than `[A-Za-z0-9._-]`.
            pub fn parse(name: &str) -> Result<Self, InvalidName> {
                let allowed = |byte| is_name_byte(byte) || byte == b'.';
                let is_fine = name.bytes().all(allowed) && Self::may_be(name);
                if name.is_empty() || name.len() > Self::BYTES_MAX || !is_fine {
                    let expected = "1–128 characters of `[A-Za-z0-9._-]`";
                    return Err(InvalidName::new($what, name, expected));
                }
                Ok(Self(name.into()))
            }

            /// The name.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            fn may_be(name: &str) -> bool {
                let may_be: fn(&str) -> bool = $may_be;
                may_be(name)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

short_name! {
    /// A consumer group: 1–128 bytes of `[A-Za-z0-9._-]`.
    GroupName, "group", |_| true
}

short_name! {
    /// A plugin: 1–128 bytes of `[A-Za-z0-9._-]`, and not `.` or `..`, which no path can hold.
    PluginName, "plugin", |name| name != "." && name != ".."
}

short_name! {
    /// A route: 1–128 bytes of `[A-Za-z0-9._-]`, and not `.` or `..`, which no path can hold.
    RouteName, "route", |name| name != "." && name != ".."
}

short_name! {
    /// A ledger: 1–128 bytes of `[A-Za-z0-9._-]`, and not `.` or `..`, which no path can hold.
    LedgerName, "ledger", |name| name != "." && name != ".."
}

short_name! {
    /// A connector: 1–128 bytes of `[A-Za-z0-9._-]`, and not `.` or `..`, which no path can hold.
    ConnectorName, "connector", |name| name != "." && name != ".."
}

short_name! {
    /// A delivery queue: 1–128 bytes of `[A-Za-z0-9._-]`, and not `.` or `..`, which no path can
    /// hold. Names that start with `_` are the server's own.
    QueueName, "queue", |name| name != "." && name != ".."
}

short_name! {
    /// An endpoint of webhooks: 1–128 bytes of `[A-Za-z0-9._-]`, and not `.` or `..`, which no path
    /// can hold.
    EndpointName, "endpoint", |name| name != "." && name != ".."
}

impl QueueName {
    /// Whether only the server may put jobs in it.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('_')
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_are_dotted_tokens() {
        let longest = "t".repeat(249);
        for name in ["orders", "order.placed", "a.b.c", "A-9_b.0", "_dead-letter", &longest] {
            assert_eq!(TopicName::parse(name).unwrap().as_str(), name);
        }
        let too_long = "t".repeat(250);
        for name in ["", ".", "a.", ".a", "a..b", "a b", "a/b", "a*", "é", "a\n", &too_long] {
            assert_eq!(TopicName::parse(name).unwrap_err().what, "topic", "{name}");
        }
    }

    #[test]
    fn only_a_leading_underscore_reserves_a_topic() {
        for (name, reserved) in [("_dead-letter", true), ("_a.b", true), ("a._b", false)] {
            assert_eq!(TopicName::parse(name).unwrap().is_reserved(), reserved, "{name}");
        }
    }

    #[test]
    fn names_that_stand_alone_in_a_path_are_no_dots() {
        for name in [".", ".."] {
            assert!(PluginName::parse(name).is_err() && RouteName::parse(name).is_err(), "{name}");
        }
        assert!(PluginName::parse("orders.v2").is_ok());
    }

    #[test]
    fn group_names_follow_the_rule() {
        let longest = "g".repeat(128);
        for name in ["g", "billing.v2", "..", "A-9_b", &longest] {
            assert_eq!(GroupName::parse(name).unwrap().as_str(), name);
        }
        let too_long = "g".repeat(129);
        for name in ["", "a b", "a/b", "é", &too_long] {
            assert_eq!(GroupName::parse(name).unwrap_err().what, "group", "{name}");
        }
    }
}
