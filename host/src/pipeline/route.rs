//! A pattern's further topics.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use stream_storage::StoreError;

use super::binding::{Binding, StoredBinding};
use crate::event::Event;
use crate::name::{RouteName, TopicName};
use crate::pattern::Pattern;
use crate::stage::{Context, Fault, OnFault, Route};

/// Targets of one event, by all routes together: each is a copy.
pub(crate) const TARGETS_MAX: usize = 32;

/// What is set for a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteConfig {
    /// Its name.
    pub name: RouteName,
    /// Whose events get copies.
    pub pattern: Pattern,
    /// Where the copies go; with a plugin, where they may go.
    pub to: Vec<Pattern>,
    /// Chooses among `to`.
    pub plugin: Option<Binding>,
    /// What a fault of the plugin, or a topic that is missing, does.
    pub on_fault: OnFault,
}

/// A route that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {field}: expected {expected}")]
pub struct InvalidRoute {
    /// The field.
    pub field: &'static str,
    /// The rule.
    pub expected: String,
}

impl RouteConfig {
    /// Checks a route.
    ///
    /// # Errors
    ///
    /// It leads nowhere or to too many topics, to the server's own, or to a pattern without a plugin
    /// that would choose.
    pub fn check(&self) -> Result<(), InvalidRoute> {
        if self.pattern.as_str().starts_with('_') {
            let expected = "topics of your own: what the server writes follows no route".to_owned();
            return Err(InvalidRoute { field: "match", expected });
        }
        let invalid = |expected: String| Err(InvalidRoute { field: "to", expected });
        if !(1..=TARGETS_MAX).contains(&self.to.len()) {
            return invalid(format!("1 to {TARGETS_MAX} topics or patterns"));
        }
        for target in &self.to {
            if target.as_str().starts_with('_') {
                let expected = "topics of your own: names that start with `_` are written by the \
                                server only";
                return invalid(expected.to_owned());
            }
            if self.plugin.is_none() && target.as_topic().is_none() {
                return invalid(format!(
                    "topics, got the pattern `{target}`: a pattern needs a `plugin` that chooses \
                     among its topics"
                ));
            }
        }
        Ok(())
    }
}

/// The built-in router: every event goes to all topics that its route names.
#[derive(Debug)]
pub(super) struct FixedTopics(Vec<TopicName>);

impl FixedTopics {
    pub(super) fn new(to: &[Pattern]) -> Self {
        Self(to.iter().filter_map(Pattern::as_topic).collect())
    }
}

#[async_trait]
impl Route for FixedTopics {
    async fn route(
        &self,
        _: &Context,
        events: &[&Event<'_>],
    ) -> Result<Vec<Vec<TopicName>>, Fault> {
        Ok(events.iter().map(|_| self.0.clone()).collect())
    }
}

/// The value of a route's state key.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredRoute {
    r#match: String,
    to: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plugin: Option<StoredBinding>,
    on_fault: String,
}

impl StoredRoute {
    pub(super) fn of(route: &RouteConfig) -> Self {
        Self {
            r#match: route.pattern.to_string(),
            to: route.to.iter().map(ToString::to_string).collect(),
            plugin: route.plugin.as_ref().map(StoredBinding::of),
            on_fault: route.on_fault.as_str().to_owned(),
        }
    }

    pub(super) fn into_route(self, name: RouteName) -> Result<RouteConfig, StoreError> {
        let corrupt = |reason: String| StoreError::Corrupt { reason };
        let pattern =
            |text: &String| Pattern::parse(text).map_err(|error| corrupt(error.to_string()));
        Ok(RouteConfig {
            name,
            pattern: pattern(&self.r#match)?,
            to: self.to.iter().map(pattern).collect::<Result<_, _>>()?,
            plugin: self.plugin.map(StoredBinding::into_binding).transpose()?,
            on_fault: OnFault::parse(&self.on_fault)
                .ok_or_else(|| corrupt(format!("fault policy `{}`", self.on_fault)))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::PluginName;
    use crate::stage::PluginRef;

    fn route(to: &[&str], has_plugin: bool) -> RouteConfig {
        let plugin = PluginRef { name: PluginName::parse("p").unwrap(), version: 1 };
        RouteConfig {
            name: RouteName::parse("r").unwrap(),
            pattern: Pattern::parse("order.**").unwrap(),
            to: to.iter().map(|target| Pattern::parse(target).unwrap()).collect(),
            plugin: has_plugin.then(|| Binding::new(plugin)),
            on_fault: OnFault::Skip,
        }
    }

    #[test]
    fn targets_follow_the_rules() {
        let many: Vec<String> = (0..33).map(|n| format!("t{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let cases: [(&[&str], bool, bool); 7] = [
            (&["a", "b.c"], false, true),
            (&[], false, false),
            (&["a.*"], false, false),
            (&["a.*", "b"], true, true),
            (&["_dead-letter"], false, false),
            (&many[..32], false, true),
            (&many, false, false),
        ];
        for (to, has_plugin, is_fine) in cases {
            assert_eq!(route(to, has_plugin).check().is_ok(), is_fine, "{to:?}");
        }
    }

    #[test]
    fn a_route_reads_back_as_it_was_stored() {
        for has_plugin in [false, true] {
            let route = route(&["a", "b"], has_plugin);
            let bytes = crate::state::encode(&StoredRoute::of(&route));
            let stored: StoredRoute = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(stored.into_route(route.name.clone()).unwrap(), route);
        }
    }
}
