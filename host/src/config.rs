//! The server's configuration: flags, `STREAM_*` variables and a file, in that order of precedence.
//!
//! [`Settings`] is what was said, in all three places under the same names; [`Config`] is what holds,
//! with defaults filled in and checked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderValue;
use serde::{Deserialize, Deserializer};
use stream_storage::embedded::EmbeddedConfig;

use crate::http::{Timeouts, TlsFiles};
use crate::limit::Limits;

/// The most partitions that one publish could write to: the store takes 8,192 writes at once.
const PARTITIONS_LIMIT: u32 = 4_096;

/// Longer is meant as "never", which the clock cannot count to.
const TIME_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Shorter keys can be guessed.
const API_KEY_BYTES_MIN: usize = 16;

/// Our own news, and of libraries only what goes wrong.
const LOG_DEFAULT: &str = "warn,stream_host=info,stream_storage=info";

/// What flags, variables or the file say. Their help is the manual.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Address and port to listen on; port 0 takes a free one [default: 127.0.0.1:4404]
    #[arg(long, env = "STREAM_LISTEN", value_name = "ADDR")]
    pub listen: Option<SocketAddr>,

    /// Folder of the store; made if it is not there [default: ./stream-data]
    #[arg(long, env = "STREAM_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Certificate chain for HTTPS, PEM; goes with --tls-key
    #[arg(long, env = "STREAM_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// Private key for HTTPS, PEM; goes with --tls-cert
    #[arg(long, env = "STREAM_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Allow plain HTTP on an address that others can reach: keys and events cross in the clear
    #[arg(long, env = "STREAM_INSECURE_HTTP", num_args = 0..=1, default_missing_value = "true")]
    pub insecure_http: Option<bool>,

    /// A web origin whose pages may call the API, such as `https://example.com`, or `*` for all; may
    /// be given more than once [default: none]
    #[arg(long, env = "STREAM_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub cors_origin: Vec<String>,

    /// An API key that opens everything; without one, the first start makes one and prints it
    #[arg(long, env = "STREAM_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub api_key: Option<String>,

    /// Start although synced data is missing, giving it up
    #[arg(long, env = "STREAM_ACCEPT_LOSS", num_args = 0..=1, default_missing_value = "true")]
    pub accept_loss: Option<bool>,

    /// Refuse writes while fewer bytes than this are free on the disk [default: 268435456]
    #[arg(long, env = "STREAM_RESERVE_BYTES", value_name = "BYTES")]
    pub reserve_bytes: Option<u64>,

    /// Bytes of stored blocks kept in memory for reading [default: 33554432]
    #[arg(long, env = "STREAM_CACHE_BYTES", value_name = "BYTES")]
    pub cache_bytes: Option<u64>,

    /// Bytes of one event [default: 1048576]
    #[arg(long, env = "STREAM_EVENT_BYTES_MAX", value_name = "BYTES")]
    pub event_bytes_max: Option<usize>,

    /// Bytes of one request's body, after unpacking [default: 16777216]
    #[arg(long, env = "STREAM_REQUEST_BYTES_MAX", value_name = "BYTES")]
    pub request_bytes_max: Option<usize>,

    /// Events of one request [default: 10000]
    #[arg(long, env = "STREAM_REQUEST_EVENTS_MAX", value_name = "COUNT")]
    pub request_events_max: Option<usize>,

    /// Headers of one event [default: 64]
    #[arg(long, env = "STREAM_HEADERS_MAX", value_name = "COUNT")]
    pub headers_max: Option<usize>,

    /// Partitions of one topic [default: 1024]
    #[arg(long, env = "STREAM_PARTITIONS_MAX", value_name = "COUNT")]
    pub partitions_max: Option<u32>,

    /// Client connections open at once [default: 10000]
    #[arg(long, env = "STREAM_CONNECTIONS_MAX", value_name = "COUNT")]
    pub connections_max: Option<usize>,

    /// Bytes of requests and answers that one project may have in memory [default: 67108864]
    #[arg(long, env = "STREAM_PROJECT_BYTES_MAX", value_name = "BYTES")]
    pub project_bytes_max: Option<usize>,

    /// The same for all projects together [default: 268435456]
    #[arg(long, env = "STREAM_TOTAL_BYTES_MAX", value_name = "BYTES")]
    pub total_bytes_max: Option<usize>,

    /// How long a client may take for the TLS handshake and a request's head [default: 10s]
    #[arg(long, env = "STREAM_HEADER_TIMEOUT", value_name = "TIME", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub header_timeout: Option<Duration>,

    /// How long a connection may be idle between two requests [default: 75s]
    #[arg(long, env = "STREAM_IDLE_TIMEOUT", value_name = "TIME", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub idle_timeout: Option<Duration>,

    /// How long a request's body may take for each 16 KiB [default: 30s]
    #[arg(long, env = "STREAM_BODY_TIMEOUT", value_name = "TIME", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub body_timeout: Option<Duration>,

    /// How long a client may take nothing of an answer [default: 60s]
    #[arg(long, env = "STREAM_WRITE_TIMEOUT", value_name = "TIME", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub write_timeout: Option<Duration>,

    /// How long requests may take to be answered once the server is told to stop [default: 30s]
    #[arg(long, env = "STREAM_DRAIN_TIMEOUT", value_name = "TIME", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub drain_timeout: Option<Duration>,

    /// How long an Idempotency-Key is remembered [default: 24h]
    #[arg(long, env = "STREAM_IDEMPOTENCY_EXPIRY", value_name = "TIME", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub idempotency_expiry: Option<Duration>,

    /// How often topics are trimmed to what they keep [default: 1m]
    #[arg(long, env = "STREAM_RETENTION_INTERVAL", value_name = "TIME", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub retention_interval: Option<Duration>,

    /// What to log, such as `warn` or `info,stream_host=debug`
    /// [default: warn,stream_host=info,stream_storage=info]
    #[arg(long, env = "RUST_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    /// How to log [default: text]
    #[arg(long, env = "STREAM_LOG_FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
}

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// An object a line.
    Json,
}

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
    /// What to log.
    pub log: String,
    /// How to log.
    pub log_format: LogFormat,
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
    /// Reads a TOML file with these settings as keys.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or has a key or a value that is not known.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let file = |source| ConfigError::File { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(file)?;
        toml::from_str(&text).map_err(|source| ConfigError::Toml { path: path.to_owned(), source })
    }

    /// These settings, and where they say nothing, those of `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let is_silent = self.cors_origin.is_empty();
        Self {
            listen: self.listen.or(other.listen),
            data: self.data.or(other.data),
            tls_cert: self.tls_cert.or(other.tls_cert),
            tls_key: self.tls_key.or(other.tls_key),
            insecure_http: self.insecure_http.or(other.insecure_http),
            cors_origin: if is_silent { other.cors_origin } else { self.cors_origin },
            api_key: self.api_key.or(other.api_key),
            accept_loss: self.accept_loss.or(other.accept_loss),
            reserve_bytes: self.reserve_bytes.or(other.reserve_bytes),
            cache_bytes: self.cache_bytes.or(other.cache_bytes),
            event_bytes_max: self.event_bytes_max.or(other.event_bytes_max),
            request_bytes_max: self.request_bytes_max.or(other.request_bytes_max),
            request_events_max: self.request_events_max.or(other.request_events_max),
            headers_max: self.headers_max.or(other.headers_max),
            partitions_max: self.partitions_max.or(other.partitions_max),
            connections_max: self.connections_max.or(other.connections_max),
            project_bytes_max: self.project_bytes_max.or(other.project_bytes_max),
            total_bytes_max: self.total_bytes_max.or(other.total_bytes_max),
            header_timeout: self.header_timeout.or(other.header_timeout),
            idle_timeout: self.idle_timeout.or(other.idle_timeout),
            body_timeout: self.body_timeout.or(other.body_timeout),
            write_timeout: self.write_timeout.or(other.write_timeout),
            drain_timeout: self.drain_timeout.or(other.drain_timeout),
            idempotency_expiry: self.idempotency_expiry.or(other.idempotency_expiry),
            retention_interval: self.retention_interval.or(other.retention_interval),
            log: self.log.or(other.log),
            log_format: self.log_format.or(other.log_format),
        }
    }

    /// Fills in the defaults and checks the whole.
    ///
    /// # Errors
    ///
    /// A value is outside of its range, or two of them do not go together.
    pub fn config(self) -> Result<Config, ConfigError> {
        let listen = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4404);
        let listen = self.listen.unwrap_or(listen);
        let limits = self.limits()?;
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
            log: self.log.unwrap_or_else(|| LOG_DEFAULT.to_owned()),
            log_format: self.log_format.unwrap_or_default(),
        })
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

fn origins(texts: &[String]) -> Result<Vec<HeaderValue>, ConfigError> {
    let expected = "an origin such as `https://example.com`, or `*`";
    let parse = |text: &String| {
        let is_origin = text == "*" || (text.contains("://") && !text.ends_with('/'));
        let value = HeaderValue::try_from(text).ok().filter(|_| is_origin);
        value.ok_or(ConfigError::Value { name: "cors_origin", expected })
    };
    texts.iter().map(parse).collect()
}

/// A duration in the file: a text such as `30s`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map(Some).map_err(serde::de::Error::custom)
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
        assert_eq!(config.data, Path::new("stream-data"));
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
        ];
        for (text, name) in cases {
            let error = settings(text).config().unwrap_err().to_string();
            assert!(error.contains(name), "{text}: {error}");
        }
    }
}
