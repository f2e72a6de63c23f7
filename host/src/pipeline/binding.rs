//! A plugin's attachment to the topics of a pattern.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use stream_storage::{StoreError, Timestamp};

use crate::name::PluginName;
use crate::pattern::Pattern;
use crate::plugin::PluginConfig;
use crate::stage::{OnFault, PluginRef, Role};

/// How long a call may take if nobody says it.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_millis(100);
/// How much memory an instance may have if nobody says it: the usual language's needs, several times
/// over; an interpreter needs more.
pub const MEMORY_DEFAULT: usize = 64 << 20;
/// Less than this no guest starts with.
const MEMORY_MIN: usize = 1 << 20;
/// A config crosses with each call.
const CONFIG_BYTES_MAX: usize = 64 << 10;
/// Bindings of one role and pattern: each is a call for each publish.
const LIST_MAX: usize = 16;
/// Lists that a rollback can go back to.
const PREVIOUS_MAX: usize = 16;
/// Bytes of configs in them: they are one row, and read with it.
const PREVIOUS_BYTES_MAX: usize = 256 << 10;

/// One plugin of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The plugin and its version.
    pub plugin: PluginRef,
    /// Given to it with each call.
    pub config: String,
    /// What a fault does.
    pub on_fault: OnFault,
    /// How long a call may take, of the processor's time. Default 100 ms.
    pub timeout: Duration,
    /// Bytes of memory of an instance. Default 64 MiB.
    pub memory: usize,
    /// Start a new instance for each call.
    pub fresh: bool,
}

/// What a list of bindings is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindingPlace {
    /// What the plugins do there.
    pub role: Role,
    /// For which topics.
    pub pattern: Pattern,
}

/// The plugins of a place, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindingList {
    /// Where they are bound.
    pub place: BindingPlace,
    /// Counts the changes of this list, from 1.
    pub revision: u64,
    /// The plugins.
    pub bindings: Vec<Binding>,
    /// What was bound before, the newest last.
    pub previous: Vec<Vec<Binding>>,
    /// When it was changed last.
    pub updated_at: Timestamp,
}

/// A binding that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {field}: expected {expected}")]
pub struct InvalidBinding {
    /// The field.
    pub field: &'static str,
    /// The rule.
    pub expected: String,
}

impl InvalidBinding {
    pub(super) fn new(field: &'static str, expected: impl Into<String>) -> Self {
        Self { field, expected: expected.into() }
    }
}

impl Binding {
    /// A binding with the defaults.
    pub fn new(plugin: PluginRef) -> Self {
        Self {
            plugin,
            config: String::new(),
            on_fault: OnFault::Reject,
            timeout: TIMEOUT_DEFAULT,
            memory: MEMORY_DEFAULT,
            fresh: false,
        }
    }

    /// Checks a binding for a role.
    ///
    /// # Errors
    ///
    /// A field is outside of its limits, or a transform is to be skipped: what redacts must not leak
    /// when it breaks.
    pub fn check(&self, role: Role, limits: &PluginConfig) -> Result<(), InvalidBinding> {
        let (timeout_max, memory_max) = (limits.timeout_max, limits.memory_max);
        if !(Duration::from_millis(1)..=timeout_max).contains(&self.timeout) {
            let expected = format!("a number from 1 to {}", timeout_max.as_millis());
            return Err(InvalidBinding::new("timeout_ms", expected));
        }
        if !(MEMORY_MIN..=memory_max).contains(&self.memory) {
            let expected = format!("a number of bytes from {MEMORY_MIN} to {memory_max}");
            return Err(InvalidBinding::new("memory", expected));
        }
        if self.config.len() > CONFIG_BYTES_MAX {
            let expected = format!("at most {CONFIG_BYTES_MAX} bytes");
            return Err(InvalidBinding::new("config", expected));
        }
        if role == Role::Transform && self.on_fault == OnFault::Skip {
            let expected = "`reject` or `dead-letter`: a transform cannot be skipped, or what it \
                            redacts would be stored when it fails";
            return Err(InvalidBinding::new("on_fault", expected));
        }
        Ok(())
    }
}

impl BindingList {
    /// An empty list, never stored.
    pub fn empty(place: BindingPlace) -> Self {
        let (bindings, previous) = (Vec::new(), Vec::new());
        Self { place, revision: 0, bindings, previous, updated_at: Timestamp(0) }
    }

    /// Puts other plugins in the place of these, which can be brought back.
    ///
    /// # Errors
    ///
    /// There are too many, one is there twice, or is outside of its limits.
    pub fn replace(
        &mut self,
        bindings: Vec<Binding>,
        limits: &PluginConfig,
        now: Timestamp,
    ) -> Result<(), InvalidBinding> {
        if bindings.len() > LIST_MAX {
            return Err(InvalidBinding::new("bindings", format!("at most {LIST_MAX}")));
        }
        for (index, binding) in bindings.iter().enumerate() {
            binding.check(self.place.role, limits)?;
            let before = bindings.iter().take(index);
            if before.into_iter().any(|other| other.plugin.name == binding.plugin.name) {
                return Err(InvalidBinding::new("bindings", "each plugin at most once"));
            }
        }
        let before = std::mem::replace(&mut self.bindings, bindings);
        if self.revision > 0 && !(before.is_empty() && self.previous.is_empty()) {
            self.previous.push(before);
        }
        let mut bytes = 0;
        let newest_first = self.previous.iter().rev().take(PREVIOUS_MAX).enumerate();
        let kept = newest_first
            .take_while(|(age, list)| {
                bytes += list.iter().map(|binding| binding.config.len()).sum::<usize>();
                // The last one can always be brought back.
                *age == 0 || bytes <= PREVIOUS_BYTES_MAX
            })
            .count();
        let surplus = self.previous.len() - kept;
        self.previous.drain(..surplus);
        self.changed(now);
        Ok(())
    }

    /// Brings back what was bound before the last change. Done again, it goes further back.
    ///
    /// # Errors
    ///
    /// Nothing was bound before.
    pub fn roll_back(&mut self, now: Timestamp) -> Result<(), InvalidBinding> {
        let nothing = || InvalidBinding::new("rollback", "something that was bound before");
        self.bindings = self.previous.pop().ok_or_else(nothing)?;
        self.changed(now);
        Ok(())
    }

    /// Whether nothing is bound, nor can be brought back: to those who look, it does not exist.
    pub fn is_gone(&self) -> bool {
        self.bindings.is_empty() && self.previous.is_empty()
    }

    /// Unbinds all, for good.
    pub(super) fn clear(&mut self, now: Timestamp) {
        self.bindings.clear();
        self.previous.clear();
        self.changed(now);
    }

    fn changed(&mut self, now: Timestamp) {
        self.revision += 1;
        self.updated_at = now;
    }
}

/// The stored form of a binding; of a route's or a connector's plugin, too.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StoredBinding {
    plugin: String,
    version: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    config: String,
    on_fault: String,
    timeout_ms: u64,
    memory: usize,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    fresh: bool,
}

/// The value of a list's state key.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredList {
    revision: u64,
    bindings: Vec<StoredBinding>,
    previous: Vec<Vec<StoredBinding>>,
    updated_at: u64,
}

impl StoredBinding {
    pub(crate) fn of(binding: &Binding) -> Self {
        Self {
            plugin: binding.plugin.name.to_string(),
            version: binding.plugin.version,
            config: binding.config.clone(),
            on_fault: binding.on_fault.as_str().to_owned(),
            timeout_ms: u64::try_from(binding.timeout.as_millis()).unwrap_or(u64::MAX),
            memory: binding.memory,
            fresh: binding.fresh,
        }
    }

    pub(crate) fn into_binding(self) -> Result<Binding, StoreError> {
        let corrupt = |reason: String| StoreError::Corrupt { reason };
        let name = PluginName::parse(&self.plugin).map_err(|error| corrupt(error.to_string()))?;
        let on_fault = OnFault::parse(&self.on_fault)
            .ok_or_else(|| corrupt(format!("fault policy `{}`", self.on_fault)))?;
        Ok(Binding {
            plugin: PluginRef { name, version: self.version },
            config: self.config,
            on_fault,
            timeout: Duration::from_millis(self.timeout_ms),
            memory: self.memory,
            fresh: self.fresh,
        })
    }
}

impl StoredList {
    pub(super) fn of(list: &BindingList) -> Self {
        let store = |bindings: &Vec<Binding>| bindings.iter().map(StoredBinding::of).collect();
        Self {
            revision: list.revision,
            bindings: store(&list.bindings),
            previous: list.previous.iter().map(store).collect(),
            updated_at: list.updated_at.0,
        }
    }

    pub(super) fn into_list(self, place: BindingPlace) -> Result<BindingList, StoreError> {
        let restore = |bindings: Vec<StoredBinding>| {
            bindings.into_iter().map(StoredBinding::into_binding).collect::<Result<Vec<_>, _>>()
        };
        Ok(BindingList {
            place,
            revision: self.revision,
            bindings: restore(self.bindings)?,
            previous: self.previous.into_iter().map(restore).collect::<Result<_, _>>()?,
            updated_at: Timestamp(self.updated_at),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::Compiler;

    fn limits() -> PluginConfig {
        PluginConfig::new("unused", Compiler::Here)
    }

    fn binding(version: u64) -> Binding {
        Binding::new(PluginRef { name: PluginName::parse("p").unwrap(), version })
    }

    fn list(role: Role) -> BindingList {
        BindingList::empty(BindingPlace { role, pattern: Pattern::parse("t").unwrap() })
    }

    #[test]
    fn each_limit_has_a_value_that_passes_and_one_that_does_not() {
        type Change = fn(&mut Binding);
        let cases: [(&str, Change, Change); 4] = [
            (
                "timeout_ms",
                |binding| binding.timeout = Duration::from_secs(3),
                |binding| binding.timeout = Duration::from_millis(3_001),
            ),
            (
                "timeout_ms",
                |binding| binding.timeout = Duration::from_millis(1),
                |binding| binding.timeout = Duration::ZERO,
            ),
            (
                "memory",
                |binding| binding.memory = 256 << 20,
                |binding| binding.memory = (256 << 20) + 1,
            ),
            (
                "config",
                |binding| binding.config = "c".repeat(CONFIG_BYTES_MAX),
                |binding| binding.config = "c".repeat(CONFIG_BYTES_MAX + 1),
            ),
        ];
        for (field, at_the_limit, beyond) in cases {
            let mut binding = binding(1);
            at_the_limit(&mut binding);
            assert_eq!(binding.check(Role::Validate, &limits()), Ok(()), "{field}");
            beyond(&mut binding);
            assert_eq!(binding.check(Role::Validate, &limits()).unwrap_err().field, field);
        }
    }

    #[test]
    fn a_transform_cannot_be_skipped() {
        let skipped = Binding { on_fault: OnFault::Skip, ..binding(1) };
        assert_eq!(skipped.check(Role::Validate, &limits()), Ok(()));
        assert_eq!(skipped.check(Role::Transform, &limits()).unwrap_err().field, "on_fault");
    }

    #[test]
    fn a_rollback_goes_back_change_by_change() {
        let mut list = list(Role::Validate);
        assert!(list.roll_back(Timestamp(0)).is_err(), "nothing was ever bound");
        for version in 1..=3 {
            list.replace(vec![binding(version)], &limits(), Timestamp(version)).unwrap();
        }
        let versions = |list: &BindingList| list.bindings[0].plugin.version;
        list.roll_back(Timestamp(4)).unwrap();
        assert_eq!((versions(&list), list.revision), (2, 4));
        list.roll_back(Timestamp(5)).unwrap();
        assert_eq!(versions(&list), 1);
        assert!(list.roll_back(Timestamp(6)).is_err());
    }

    #[test]
    fn only_the_newest_changes_can_be_brought_back() {
        let mut list = list(Role::Validate);
        for version in 1..=40 {
            list.replace(vec![binding(version)], &limits(), Timestamp(0)).unwrap();
        }
        assert_eq!(list.previous.len(), PREVIOUS_MAX);
        list.roll_back(Timestamp(0)).unwrap();
        assert_eq!(list.bindings[0].plugin.version, 39);
    }

    #[test]
    fn a_plugin_is_bound_once_in_a_list() {
        let twice =
            list(Role::Validate).replace(vec![binding(1), binding(2)], &limits(), Timestamp(0));
        assert_eq!(twice.unwrap_err().field, "bindings");
    }

    #[test]
    fn a_list_reads_back_as_it_was_stored() {
        let mut list = list(Role::Transform);
        let full = Binding {
            config: "{}".to_owned(),
            on_fault: OnFault::DeadLetter,
            timeout: Duration::from_millis(7),
            memory: 9 << 20,
            fresh: true,
            ..binding(3)
        };
        list.replace(vec![binding(1)], &limits(), Timestamp(1)).unwrap();
        list.replace(vec![full], &limits(), Timestamp(2)).unwrap();
        let bytes = crate::state::encode(&StoredList::of(&list));
        let stored: StoredList = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(stored.into_list(list.place.clone()).unwrap(), list);
    }
}
