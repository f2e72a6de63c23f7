//! What was said: flags, `STREAM_*` variables and a file, all under the same names.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::ConfigError;

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

    /// A text of at least 32 characters, from which the key is drawn that the secrets of endpoints and
    /// connectors are sealed with [default: the file `secret.key` in the data folder, made if it is
    /// not there]
    #[arg(long, env = "STREAM_SECRET_KEY", hide_env_values = true, value_name = "KEY")]
    pub secret_key: Option<String>,

    /// Ranges of addresses to which webhooks and connectors may send although they are not public,
    /// such as `127.0.0.0/8,::1`; may be given more than once [default: none]
    #[arg(long, env = "STREAM_EGRESS_ALLOW", value_name = "CIDR", value_delimiter = ',')]
    pub egress_allow: Vec<String>,

    /// Webhooks under way at once, to all endpoints together [default: 256]
    #[arg(long, env = "STREAM_WEBHOOKS_MAX", value_name = "COUNT")]
    pub webhooks_max: Option<usize>,

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

    /// Threads on which plugins run [default: two more than there are processors]
    #[arg(long, env = "STREAM_PLUGIN_THREADS", value_name = "COUNT")]
    pub plugin_threads: Option<usize>,

    /// Bytes of a plugin's component [default: 67108864]
    #[arg(long, env = "STREAM_PLUGIN_UPLOAD_BYTES_MAX", value_name = "BYTES")]
    pub plugin_upload_bytes_max: Option<usize>,

    /// Bytes of memory that a binding may ask for [default: 268435456]
    #[arg(long, env = "STREAM_PLUGIN_MEMORY_MAX", value_name = "BYTES")]
    pub plugin_memory_max: Option<usize>,

    /// Bytes of memory of all plugins together; one project may have half [default: 1073741824]
    #[arg(long, env = "STREAM_PLUGIN_MEMORY_TOTAL", value_name = "BYTES")]
    pub plugin_memory_total: Option<usize>,

    /// How long a call of a plugin may take at most, whatever its binding asks for [default: 3s]
    #[arg(long, env = "STREAM_PLUGIN_TIMEOUT_MAX", value_name = "TIME", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub plugin_timeout_max: Option<Duration>,

    /// Processor time that compiling an upload may take [default: 60s]
    #[arg(long, env = "STREAM_PLUGIN_COMPILE_TIME", value_name = "TIME", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub plugin_compile_time: Option<Duration>,

    /// A binding is paused when more than this share of its events fails, in percent [default: 50]
    #[arg(long, env = "STREAM_PLUGIN_FAULT_PERCENT", value_name = "PERCENT")]
    pub plugin_fault_percent: Option<u8>,

    /// Where ledgers are written to: a folder, or `s3://BUCKET/PREFIX`, with the usual `AWS_…`
    /// variables [default: `ledgers` in the store's folder]
    #[arg(long, env = "STREAM_LEDGER_STORE", value_name = "PLACE")]
    pub ledger_store: Option<String>,

    /// What the origins of new ledgers begin with, such as `ledgers.example.com`; best the address
    /// where they are read, without its scheme [default: a random name a ledger]
    #[arg(long, env = "STREAM_LEDGER_ORIGIN", value_name = "NAME")]
    pub ledger_origin: Option<String>,

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
        Self {
            listen: self.listen.or(other.listen),
            data: self.data.or(other.data),
            tls_cert: self.tls_cert.or(other.tls_cert),
            tls_key: self.tls_key.or(other.tls_key),
            insecure_http: self.insecure_http.or(other.insecure_http),
            cors_origin: or_list(self.cors_origin, other.cors_origin),
            api_key: self.api_key.or(other.api_key),
            secret_key: self.secret_key.or(other.secret_key),
            egress_allow: or_list(self.egress_allow, other.egress_allow),
            webhooks_max: self.webhooks_max.or(other.webhooks_max),
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
            plugin_threads: self.plugin_threads.or(other.plugin_threads),
            plugin_upload_bytes_max: self.plugin_upload_bytes_max.or(other.plugin_upload_bytes_max),
            plugin_memory_max: self.plugin_memory_max.or(other.plugin_memory_max),
            plugin_memory_total: self.plugin_memory_total.or(other.plugin_memory_total),
            plugin_timeout_max: self.plugin_timeout_max.or(other.plugin_timeout_max),
            plugin_compile_time: self.plugin_compile_time.or(other.plugin_compile_time),
            plugin_fault_percent: self.plugin_fault_percent.or(other.plugin_fault_percent),
            ledger_store: self.ledger_store.or(other.ledger_store),
            ledger_origin: self.ledger_origin.or(other.ledger_origin),
            log: self.log.or(other.log),
            log_format: self.log_format.or(other.log_format),
        }
    }
}

fn or_list(list: Vec<String>, other: Vec<String>) -> Vec<String> {
    if list.is_empty() { other } else { list }
}

/// A duration in the file: a text such as `30s`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map(Some).map_err(serde::de::Error::custom)
}
