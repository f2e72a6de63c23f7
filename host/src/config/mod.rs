//! The server's configuration: flags, `STREAM_*` variables and a file, in that order of precedence.
//!
//! [`Settings`] is what was said, in all three places under the same names; [`Config`] is what holds,
//! with defaults filled in and checked.

mod settings;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;
use stream_storage::embedded::EmbeddedConfig;

use crate::egress::AllowList;
use crate::http::{Timeouts, TlsFiles};
use crate::ledger::{Objects, ObjectsError};
use crate::limit::Limits;
use crate::plugin::{CompileLimits, Compiler, PluginConfig};
use crate::secret::{KEY_CHARS_MIN, Sealer, SecretKeyError};
use crate::stage::BreakerConfig;

pub use settings::{LogFormat, Settings};

/// The most partitions that one publish could write to: the store takes 8,192 writes at once.
const PARTITIONS_LIMIT: u32 = 4_096;

/// Longer is meant as "never", which the clock cannot count to.
const TIME_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// No guest starts with less, and none can address more.
const PLUGIN_MEMORY_MIN: usize = 1 << 20;
const PLUGIN_MEMORY_LIMIT: usize = 4 << 30;

/// Shorter keys can be guessed.
const API_KEY_BYTES_MIN: usize = 16;

/// Our own news, and of libraries only what goes wrong.
const LOG_DEFAULT: &str = "warn,stream_host=info,stream_storage=info";

/// What holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The store's folder.
    pub data: PathBuf,
    /// HTTPS if given.
    pub tls: Option<TlsFiles>,
    /// Whose pages may call the API.
    pub cors_origins: Vec<HeaderValue>,
    /// A key that opens everything.
    pub api_key: Option<String>,
    /// What the key is drawn from that secrets are sealed with; a file of the store's folder if
    /// `None`.
    pub secret_key: Option<String>,
    /// Addresses that may be sent to although they are not public.
    pub egress_allow: AllowList,
    /// Webhooks under way at once.
    pub webhooks_max: usize,
    /// Start although synced data is missing.
    pub accept_loss: bool,
    /// Bytes kept free on the disk; as the store has it if `None`.
    pub reserve_bytes: Option<u64>,
    /// Bytes of the store's cache; as the store has it if `None`.
    pub cache_bytes: Option<u64>,
    /// See [`Limits`].
    pub limits: Limits,
    /// See [`Timeouts`].
    pub timeouts: Timeouts,
    /// How long a request's body may bring next to nothing.
    pub body_timeout: Duration,
    /// How long requests may take to be answered once the drain has begun.
    pub drain_timeout: Duration,
    /// How long an idempotency key is remembered.
    pub idempotency_expiry: Duration,
    /// How often topics are trimmed.
    pub retention_interval: Duration,
    /// Plugins' limits.
    pub plugins: PluginLimits,
    /// When a binding is paused: a share of its events, in percent.
    pub plugin_fault_percent: u8,
    /// Where ledgers are written to: a folder, or another store; `ledgers` in the store's folder if
    /// `None`.
    pub ledger_store: Option<String>,
    /// What the origins of new ledgers begin with.
    pub ledger_origin: Option<String>,
    /// What to log.
    pub log: String,
    /// How to log.
    pub log_format: LogFormat,
}

/// What plugins may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PluginLimits {
    /// See [`PluginConfig::threads`].
    pub threads: usize,
    /// See [`PluginConfig::upload_bytes_max`].
    pub upload_bytes_max: usize,
    /// See [`PluginConfig::memory_max`].
    pub memory_max: usize,
    /// See [`PluginConfig::memory_total`].
    pub memory_total: usize,
    /// See [`PluginConfig::timeout_max`].
    pub timeout_max: Duration,
    /// See [`CompileLimits::processor`].
    pub compile_time: Duration,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read `{path}`: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: std::io::Error,
    },
    /// The file is not TOML, or has a key that is not known.
    #[error("cannot use `{path}`: {source}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: toml::de::Error,
    },
    /// Only one half of the TLS files is given.
    #[error("`tls_cert` and `tls_key` are given both or none")]
    HalfTls,
    /// Plain HTTP that others can reach.
    #[error(
        "`{listen}` can be reached from other machines: give `--tls-cert` and `--tls-key`, or \
         `--insecure-http` if keys and events may cross in the clear"
    )]
    PlainHttp {
        /// The address.
        listen: SocketAddr,
    },
    /// A value outside of its range.
    #[error("invalid `{name}`: expected {expected}")]
    Value {
        /// The setting.
        name: &'static str,
        /// The rule.
        expected: &'static str,
    },
}

impl Settings {
    /// Fills in the defaults and checks the whole.
    ///
    /// # Errors
    ///
    /// A value is outside of its range, or two of them do not go together.
    pub fn config(self) -> Result<Config, ConfigError> {
        let listen = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4404);
        let listen = self.listen.unwrap_or(listen);
        let limits = self.limits()?;
        let plugins = self.plugin_limits()?;
        let plugin_fault_percent = self.plugin_fault_percent.unwrap_or(50);
        if !(1..=100).contains(&plugin_fault_percent) {
            let expected = "a number from 1 to 100";
            return Err(ConfigError::Value { name: "plugin_fault_percent", expected });
        }
        let tls = match (self.tls_cert, self.tls_key) {
            (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
            (None, None) => None,
            _ => return Err(ConfigError::HalfTls),
        };
        let may_be_plain = listen.ip().is_loopback() || self.insecure_http.unwrap_or(false);
        if tls.is_none() && !may_be_plain {
            return Err(ConfigError::PlainHttp { listen });
        }
        Ok(Config {
            listen,
            data: self.data.unwrap_or_else(|| PathBuf::from("stream-data")),
            tls,
            cors_origins: origins(&self.cors_origin)?,
            api_key: api_key(self.api_key)?,
            secret_key: secret_key(self.secret_key)?,
            egress_allow: egress_allow(&self.egress_allow)?,
            webhooks_max: webhooks_max(self.webhooks_max)?,
            accept_loss: self.accept_loss.unwrap_or(false),
            reserve_bytes: self.reserve_bytes,
            cache_bytes: self.cache_bytes,
            limits,
            timeouts: Timeouts {
                header: time("header_timeout", self.header_timeout, 10)?,
                idle: time("idle_timeout", self.idle_timeout, 75)?,
                write: time("write_timeout", self.write_timeout, 60)?,
            },
            body_timeout: time("body_timeout", self.body_timeout, 30)?,
            drain_timeout: within("drain_timeout", self.drain_timeout, 30)?,
            idempotency_expiry: time("idempotency_expiry", self.idempotency_expiry, 24 * 60 * 60)?,
            retention_interval: time("retention_interval", self.retention_interval, 60)?,
            plugins,
            plugin_fault_percent,
            ledger_store: self.ledger_store,
            ledger_origin: ledger_origin(self.ledger_origin)?,
            log: self.log.unwrap_or_else(|| LOG_DEFAULT.to_owned()),
            log_format: self.log_format.unwrap_or_default(),
        })
    }

    fn plugin_limits(&self) -> Result<PluginLimits, ConfigError> {
        let defaults = PluginConfig::new("", Compiler::Here);
        let default_time = defaults.timeout_max.as_secs();
        let compile_time = CompileLimits::default().processor.as_secs();
        let limits = PluginLimits {
            threads: self.plugin_threads.unwrap_or(defaults.threads),
            upload_bytes_max: self.plugin_upload_bytes_max.unwrap_or(defaults.upload_bytes_max),
            memory_max: self.plugin_memory_max.unwrap_or(defaults.memory_max),
            memory_total: self.plugin_memory_total.unwrap_or(defaults.memory_total),
            timeout_max: time("plugin_timeout_max", self.plugin_timeout_max, default_time)?,
            compile_time: time("plugin_compile_time", self.plugin_compile_time, compile_time)?,
        };
        if !(PLUGIN_MEMORY_MIN..=PLUGIN_MEMORY_LIMIT).contains(&limits.memory_max) {
            let expected = "a number of bytes from 1 MiB to 4 GiB";
            return Err(ConfigError::Value { name: "plugin_memory_max", expected });
        }
        if limits.memory_total / 2 < limits.memory_max {
            let expected = "at least twice `plugin_memory_max`";
            return Err(ConfigError::Value { name: "plugin_memory_total", expected });
        }
        Ok(limits)
    }

    fn limits(&self) -> Result<Limits, ConfigError> {
        let defaults = Limits::default();
        let partitions_max = self.partitions_max.unwrap_or(defaults.partitions_max);
        if !(1..=PARTITIONS_LIMIT).contains(&partitions_max) {
            let expected = "a number from 1 to 4096";
            return Err(ConfigError::Value { name: "partitions_max", expected });
        }
        let count = |name, value: Option<usize>, default| match value.unwrap_or(default) {
            0 => Err(ConfigError::Value { name, expected: "at least 1" }),
            value => Ok(value),
        };
        let Self { event_bytes_max, request_bytes_max, request_events_max, .. } = *self;
        let Self { headers_max, connections_max, project_bytes_max, total_bytes_max, .. } = *self;
        let limits = Limits {
            event_bytes_max: count("event_bytes_max", event_bytes_max, defaults.event_bytes_max)?,
            request_bytes_max: count(
                "request_bytes_max",
                request_bytes_max,
                defaults.request_bytes_max,
            )?,
            request_events_max: count(
                "request_events_max",
                request_events_max,
                defaults.request_events_max,
            )?,
            headers_max: headers_max.unwrap_or(defaults.headers_max),
            partitions_max,
            connections_max: count("connections_max", connections_max, defaults.connections_max)?,
            project_bytes_max: count(
                "project_bytes_max",
                project_bytes_max,
                defaults.project_bytes_max,
            )?,
            total_bytes_max: count("total_bytes_max", total_bytes_max, defaults.total_bytes_max)?,
        };
        if limits.project_bytes_max < limits.request_bytes_max {
            let expected = "at least `request_bytes_max`";
            return Err(ConfigError::Value { name: "project_bytes_max", expected });
        }
        if limits.total_bytes_max < limits.project_bytes_max {
            let expected = "at least `project_bytes_max`";
            return Err(ConfigError::Value { name: "total_bytes_max", expected });
        }
        Ok(limits)
    }
}

impl Config {
    /// What plugins are run with: their code is kept beside the store, and this program compiles
    /// them.
    ///
    /// # Errors
    ///
    /// This program's own file cannot be found.
    pub fn plugin_config(&self) -> std::io::Result<PluginConfig> {
        let PluginLimits { threads, upload_bytes_max, memory_max, memory_total, .. } = self.plugins;
        let PluginLimits { timeout_max, compile_time, .. } = self.plugins;
        let program = std::env::current_exe()?;
        let limits = CompileLimits { processor: compile_time, ..CompileLimits::default() };
        let compiler = Compiler::Child { program, limits };
        Ok(PluginConfig {
            threads,
            upload_bytes_max,
            memory_max,
            memory_total,
            timeout_max,
            ..PluginConfig::new(self.data.join("plugin-code"), compiler)
        })
    }

    /// What secrets are sealed with.
    ///
    /// # Errors
    ///
    /// The key's file cannot be used.
    pub fn sealer(&self) -> Result<Sealer, SecretKeyError> {
        match &self.secret_key {
            Some(key) => Sealer::from_text(key),
            None => Sealer::open(&self.data),
        }
    }

    /// Where ledgers are written to.
    ///
    /// # Errors
    ///
    /// The folder cannot be made, or the store is not known.
    pub fn ledger_objects(&self) -> Result<Objects, ObjectsError> {
        match &self.ledger_store {
            Some(place) => Objects::open(place),
            None => Objects::open_folder(&self.data.join("ledgers")),
        }
    }

    /// When a binding is paused.
    pub fn breaker(&self) -> BreakerConfig {
        let share_max = f64::from(self.plugin_fault_percent) / 100.0;
        BreakerConfig { share_max, ..BreakerConfig::default() }
    }

    /// What the embedded store is opened with.
    pub fn embedded(&self) -> EmbeddedConfig {
        let mut embedded = EmbeddedConfig::new(&self.data);
        embedded.accept_loss = self.accept_loss;
        embedded.project_queue_bytes = self.limits.project_bytes_max;
        embedded.total_queue_bytes = self.limits.total_bytes_max;
        embedded.reserve_bytes = self.reserve_bytes.unwrap_or(embedded.reserve_bytes);
        embedded.cache_bytes = self.cache_bytes.unwrap_or(embedded.cache_bytes);
        embedded
    }
}

fn time(
    name: &'static str,
    value: Option<Duration>,
    default_secs: u64,
) -> Result<Duration, ConfigError> {
    match within(name, value, default_secs)? {
        Duration::ZERO => Err(ConfigError::Value { name, expected: "a time above zero" }),
        value => Ok(value),
    }
}

fn within(
    name: &'static str,
    value: Option<Duration>,
    default_secs: u64,
) -> Result<Duration, ConfigError> {
    let value = value.unwrap_or(Duration::from_secs(default_secs));
    if value > TIME_MAX {
        return Err(ConfigError::Value { name, expected: "at most 365 days" });
    }
    Ok(value)
}

fn api_key(key: Option<String>) -> Result<Option<String>, ConfigError> {
    if key.as_ref().is_some_and(|key| key.len() < API_KEY_BYTES_MIN) {
        return Err(ConfigError::Value { name: "api_key", expected: "at least 16 characters" });
    }
    Ok(key)
}

fn secret_key(key: Option<String>) -> Result<Option<String>, ConfigError> {
    if key.as_ref().is_some_and(|key| key.trim().chars().count() < KEY_CHARS_MIN) {
        return Err(ConfigError::Value { name: "secret_key", expected: "at least 32 characters" });
    }
    Ok(key)
}

fn egress_allow(ranges: &[String]) -> Result<AllowList, ConfigError> {
    let expected = "ranges such as `127.0.0.0/8` or `::1`";
    AllowList::parse(&ranges.join(","))
        .map_err(|_| ConfigError::Value { name: "egress_allow", expected })
}

fn webhooks_max(count: Option<usize>) -> Result<usize, ConfigError> {
    match count.unwrap_or(256) {
        count @ 2..=10_000 => Ok(count),
        _ => Err(ConfigError::Value { name: "webhooks_max", expected: "a number from 2 to 10000" }),
    }
}

fn ledger_origin(origin: Option<String>) -> Result<Option<String>, ConfigError> {
    let is_fine = |origin: &String| {
        let may_be = |byte: u8| byte.is_ascii_graphic() && byte != b'+';
        !origin.is_empty() && origin.bytes().all(may_be) && !origin.ends_with('/')
    };
    if origin.as_ref().is_some_and(|origin| !is_fine(origin) || origin.contains("://")) {
        let expected = "a host and a path without its scheme, such as `ledgers.example.com`";
        return Err(ConfigError::Value { name: "ledger_origin", expected });
    }
    Ok(origin)
}

fn origins(texts: &[String]) -> Result<Vec<HeaderValue>, ConfigError> {
    let expected = "an origin such as `https://example.com`, or `*`";
    let parse = |text: &String| {
        let is_origin = text == "*" || (text.contains("://") && !text.ends_with('/'));
        let value = HeaderValue::try_from(text).ok().filter(|_| is_origin);
        value.ok_or(ConfigError::Value { name: "cors_origin", expected })
    };
    texts.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn nothing_said_means_loopback_and_a_folder_here() {
        let config = Settings::default().config().unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:4404");
        assert_eq!(config.data, PathBuf::from("stream-data"));
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.idempotency_expiry, Duration::from_secs(86_400));
    }

    #[test]
    fn what_is_said_first_holds() {
        let flags = settings("listen = \"127.0.0.1:1\"\ncors_origin = [\"*\"]");
        let file = settings(
            "listen = \"127.0.0.1:2\"\ncors_origin = [\"https://a.b\"]\nbody_timeout = \"5s\"",
        );
        let config = flags.or(file).config().unwrap();
        assert_eq!(config.listen.port(), 1);
        assert_eq!(config.cors_origins, ["*"]);
        assert_eq!(config.body_timeout, Duration::from_secs(5));
    }

    #[test]
    fn an_unknown_key_in_the_file_is_refused() {
        let error = toml::from_str::<Settings>("lissten = \"127.0.0.1:1\"").unwrap_err();
        assert!(error.to_string().contains("lissten"), "{error}");
    }

    #[test]
    fn plain_http_beyond_loopback_needs_a_word() {
        let open = "listen = \"0.0.0.0:4404\"";
        assert!(matches!(settings(open).config(), Err(ConfigError::PlainHttp { .. })));
        let cases = ["insecure_http = true", "tls_cert = \"c\"\ntls_key = \"k\""];
        for case in cases {
            assert!(settings(&format!("{open}\n{case}")).config().is_ok(), "{case}");
        }
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        let cases = [
            ("event_bytes_max = 0", "event_bytes_max"),
            ("connections_max = 0", "connections_max"),
            ("partitions_max = 0", "partitions_max"),
            ("partitions_max = 4097", "partitions_max"),
            ("body_timeout = \"0s\"", "body_timeout"),
            ("cors_origin = [\"example.com\"]", "cors_origin"),
            ("tls_cert = \"c\"", "tls_cert"),
            ("write_timeout = \"0s\"", "write_timeout"),
            ("idle_timeout = \"18446744073709551615s\"", "idle_timeout"),
            ("drain_timeout = \"366days\"", "drain_timeout"),
            ("request_bytes_max = 67108865", "project_bytes_max"),
            ("project_bytes_max = 16777215", "project_bytes_max"),
            ("project_bytes_max = 268435457", "total_bytes_max"),
            ("api_key = \"sk_short-key-15\"", "api_key"),
            ("ledger_origin = \"https://a.b\"", "ledger_origin"),
            ("ledger_origin = \"a b\"", "ledger_origin"),
            ("secret_key = \"a text of only thirty-one chars\"", "secret_key"),
            ("webhooks_max = 1", "webhooks_max"),
            ("egress_allow = [\"10.0.0.0/8\", \"10.0.0.1/8\"]", "egress_allow"),
        ];
        for (text, name) in cases {
            let error = settings(text).config().unwrap_err().to_string();
            assert!(error.contains(name), "{text}: {error}");
        }
    }
}
