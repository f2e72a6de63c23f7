//! Options that all commands but `serve` have: where the server is, and as whom to speak to it.

use std::path::PathBuf;

use reqwest::Url;
use stream_storage::ProjectName;

const DEFAULT_URL: &str = "http://127.0.0.1:4404";

/// Where the server is, and as whom to speak to it.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Client options")]
pub(super) struct ClientOptions {
    /// The server's address [default: http://127.0.0.1:4404]
    #[arg(long, global = true, env = "STREAM_URL", value_parser = parse_url)]
    pub(super) url: Option<Url>,

    /// The API key
    #[arg(long, global = true, env = "STREAM_API_KEY", hide_env_values = true)]
    pub(super) key: Option<String>,

    /// The project
    #[arg(
        long,
        global = true,
        env = "STREAM_PROJECT",
        default_value = "default",
        value_parser = ProjectName::parse
    )]
    pub(super) project: ProjectName,

    /// Print JSON, for scripts
    #[arg(long, global = true)]
    pub(super) json: bool,

    /// Trust the certificates in this PEM file, and no others
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) ca_cert: Option<PathBuf>,
}

impl ClientOptions {
    /// The server's address, or the one that `stream serve` has unless it is told otherwise.
    pub(super) fn url(&self) -> Url {
        #[expect(clippy::expect_used, reason = "it is a constant")]
        self.url.clone().unwrap_or_else(|| Url::parse(DEFAULT_URL).expect("an address"))
    }
}

pub(super) fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err("expected an address that starts with `http://` or `https://`".to_owned()),
    }
}
