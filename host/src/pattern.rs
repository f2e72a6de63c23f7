//! Patterns over topic names: `*` is exactly one token, `**` zero or more.
//!
//! Tokens become the segments of a path, which `globset` matches; classified once, so that a name
//! without wildcards is compared and nothing more.

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};

use crate::name::TopicName;

/// A pattern that was checked and compiled. One matches names that start with `_`, the server's own,
/// only if it starts with `_` itself.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    matcher: Matcher,
}

#[derive(Debug, Clone)]
enum Matcher {
    /// No wildcard.
    Exact,
    /// One glob; two where the pattern ends in `.**`, since globset's `order/**` does not match
    /// `order`.
    Globs(Vec<GlobMatcher>),
}

/// A text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid pattern `{text}` at byte {at}: expected {expected}")]
pub struct InvalidPattern {
    /// The text.
    pub text: String,
    /// Where it breaks the rule, in bytes from 0.
    pub at: usize,
    /// The rule.
    pub expected: &'static str,
}

impl Pattern {
    /// Checks and compiles a pattern.
    ///
    /// # Errors
    ///
    /// It is too long, or one of its tokens is neither `*`, nor `**`, nor a topic's token.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        let invalid = |at, expected| InvalidPattern { text: cut(text), at, expected };
        if text.len() > TopicName::BYTES_MAX {
            return Err(invalid(TopicName::BYTES_MAX, "at most 249 bytes"));
        }
        let mut at = 0;
        for token in text.split('.') {
            let is_wildcard = token == "*" || token == "**";
            if !is_wildcard && TopicName::parse(token).is_err() {
                let expected = "tokens joined by `.`: `*`, `**` or characters of `[A-Za-z0-9_-]`";
                return Err(invalid(at, expected));
            }
            at += token.len() + 1;
        }
        let matcher = if text.contains('*') { globs(text) } else { Some(Matcher::Exact) };
        let matcher = matcher.ok_or_else(|| invalid(0, "fewer wildcards"))?;
        Ok(Self { text: text.to_owned(), matcher })
    }

    /// Whether it matches `topic`.
    pub fn matches(&self, topic: &TopicName) -> bool {
        if topic.is_reserved() != self.text.starts_with('_') {
            return false;
        }
        match &self.matcher {
            Matcher::Exact => self.text == topic.as_str(),
            Matcher::Globs(globs) => {
                let path = topic.as_str().replace('.', "/");
                globs.iter().any(|glob| glob.is_match(&path))
            }
        }
    }

    /// The topic that it names, if it has no wildcard.
    pub fn as_topic(&self) -> Option<TopicName> {
        match self.matcher {
            Matcher::Exact => TopicName::parse(&self.text).ok(),
            Matcher::Globs(_) => None,
        }
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn globs(text: &str) -> Option<Matcher> {
    let path = text.replace('.', "/");
    // What stands before a `/**` at the end is matched by itself, too; of several, before all.
    let mut stem = path.as_str();
    while let Some(shorter) = stem.strip_suffix("/**") {
        stem = shorter;
    }
    let mut paths = vec![path.as_str()];
    if stem.len() < path.len() {
        paths.push(stem);
    }
    let compile = |path: &&str| {
        let glob = GlobBuilder::new(path).literal_separator(true).build();
        glob.ok().map(|glob| glob.compile_matcher())
    };
    paths.iter().map(compile).collect::<Option<_>>().map(Matcher::Globs)
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, topic: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(&TopicName::parse(topic).unwrap())
    }

    #[test]
    fn wildcards_match_whole_tokens() {
        let cases = [
            ("order", "order", true),
            ("order", "orders", false),
            ("order.*", "order.placed", true),
            ("order.*", "order", false),
            ("order.*", "order.placed.eu", false),
            ("order.**", "order", true),
            ("order.**", "order.placed.eu", true),
            ("order.**", "orders", false),
            ("**", "a", true),
            ("**", "a.b.c", true),
            ("**.eu", "eu", true),
            ("**.eu", "order.placed.eu", true),
            ("a.**.z", "a.z", true),
            ("a.**.z", "a.b.c.z", true),
            ("a.**.**", "a", true),
            ("*.*", "a.b", true),
            ("*.**", "a", true),
            ("*", "a.b", false),
        ];
        for (pattern, topic, expected) in cases {
            assert_eq!(matches(pattern, topic), expected, "{pattern} {topic}");
        }
    }

    #[test]
    fn the_servers_own_topics_are_matched_only_where_they_are_meant() {
        assert!(!matches("**", "_dead-letter"));
        assert!(!matches("*", "_dead-letter"));
        assert!(matches("_dead-letter", "_dead-letter"));
        assert!(matches("_a.**", "_a.b"));
    }

    #[test]
    fn an_error_says_where() {
        let too_long = "a".repeat(250);
        let cases = [
            ("", 0),
            ("a..b", 2),
            ("a.b*", 2),
            ("a.***", 2),
            ("a.{b,c}", 2),
            ("a/b", 0),
            ("order.[a-z]", 6),
            (&*too_long, 249),
        ];
        for (text, at) in cases {
            assert_eq!(Pattern::parse(text).unwrap_err().at, at, "{text}");
        }
    }

    /// The definition, without any cleverness.
    fn naive(pattern: &[&str], topic: &[&str]) -> bool {
        match (pattern.split_first(), topic.split_first()) {
            (None, None) => true,
            (Some((&"**", rest)), _) => {
                (0..=topic.len()).any(|skipped| naive(rest, &topic[skipped..]))
            }
            (Some((&"*", rest)), Some((_, topic))) => naive(rest, topic),
            (Some((token, rest)), Some((first, topic))) => token == first && naive(rest, topic),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn it_matches_what_the_definition_matches(
            pattern in proptest::collection::vec("a|b|ab|\\*|\\*\\*", 1..6),
            topic in proptest::collection::vec("a|b|ab", 1..6),
        ) {
            let parts: (Vec<&str>, Vec<&str>) = (
                pattern.iter().map(String::as_str).collect(),
                topic.iter().map(String::as_str).collect(),
            );
            let expected = naive(&parts.0, &parts.1);
            prop_assert_eq!(matches(&pattern.join("."), &topic.join(".")), expected);
        }
    }
}
