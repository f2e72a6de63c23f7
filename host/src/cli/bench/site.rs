//! Where a benchmark takes place: a server, and topics and plugins of its own, which are gone
//! afterwards.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rand::RngExt;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};

use super::own_server::{KEY, Memory, OwnServer};
use super::payload::TEN_FIELDS;
use super::wire::Endpoint;
use crate::cli::client::Client;
use crate::cli::options::ClientOptions;
use crate::cli::output::{CliError, say};
use crate::lock::lock;
use crate::project::DEFAULT_PROJECT;
use stream_storage::ProjectName;

/// A component that lets every event pass.
const PASS_THROUGH: &[u8] = include_bytes!("../../../../guest-examples/built/pass-through.wasm");

/// Where to measure, as the command line says it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// As for all commands; without an address a server is started.
    pub(super) client: ClientOptions,
    /// Where a server that is started keeps its data.
    pub(super) data: Option<PathBuf>,
}

pub(super) struct Site {
    pub(super) client: Client,
    pub(super) endpoint: Endpoint,
    pub(super) server: Option<OwnServer>,
    options: ClientOptions,
    /// What names of this run begin with.
    run: String,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    topics: Vec<String>,
    plugins: Vec<String>,
}

impl Place {
    /// Opens it; `arguments` are for a server that is started.
    ///
    /// # Errors
    ///
    /// The server does not start, or cannot be spoken to.
    pub(super) async fn open(&self, arguments: &[&str]) -> Result<Site, CliError> {
        let mut options = self.client.clone();
        let mut server = None;
        if options.url.is_none() {
            let arguments: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
            let own = OwnServer::start(self.data.as_deref(), arguments).await?;
            options.url = Some(own.url.clone());
            options.key = Some(KEY.to_owned());
            options.project = default_project()?;
            server = Some(own);
        }
        let endpoint = Endpoint::new(&options.url(), options.key.as_deref(), &options.project)?;
        let run = format!("bench-{:08x}", rand::rng().random::<u32>());
        let client = Client::new(options.clone())?;
        Ok(Site { client, endpoint, server, options, run, made: Mutex::default() })
    }

    /// Opens it for a measurement, and cleans up whatever comes of that.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open); the measurement's.
    pub(super) async fn with<T>(
        &self,
        measure: impl AsyncFnOnce(&Site) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        let site = self.open(&[]).await?;
        let measured = measure(&site).await;
        let closed = site.close().await;
        let measured = measured?;
        closed?;
        Ok(measured)
    }

    /// # Errors
    ///
    /// A server is given: what is measured needs one that it can stop.
    pub(super) fn own_only(&self, what: &str) -> Result<(), CliError> {
        match self.client.url {
            None => Ok(()),
            Some(_) => {
                let problem = format!("`{what}` starts servers of its own: leave out `--url`");
                Err(CliError::Usage(problem))
            }
        }
    }
}

fn default_project() -> Result<ProjectName, CliError> {
    ProjectName::parse(DEFAULT_PROJECT).map_err(|error| CliError::Usage(error.to_string()))
}

impl Site {
    /// Makes a topic and returns its name.
    pub(super) async fn topic(
        &self,
        name: &str,
        partitions: u32,
        config: &[(&str, Value)],
    ) -> Result<String, CliError> {
        let name = format!("{}.{name}", self.run);
        let mut topic = Map::new();
        topic.insert("name".to_owned(), json!(name));
        topic.insert("partitions".to_owned(), json!(partitions));
        topic.extend(config.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        self.client.json(self.client.request(Method::POST, &["topics"]).json(&topic)).await?;
        lock(&self.made).topics.push(name.clone());
        Ok(name)
    }

    /// Makes so many topics.
    pub(super) async fn topics(
        &self,
        name: &str,
        count: usize,
        partitions: u32,
    ) -> Result<Vec<String>, CliError> {
        let mut topics = Vec::with_capacity(count);
        for number in 0..count {
            topics.push(self.topic(&format!("{name}-{number}"), partitions, &[]).await?);
        }
        Ok(topics)
    }

    /// Has the values of a topic follow the schema of a file, or that of made events if there is none.
    pub(super) async fn set_schema(
        &self,
        topic: &str,
        file: Option<&Path>,
    ) -> Result<(), CliError> {
        let schema = match file {
            Some(file) => {
                std::fs::read_to_string(file).map_err(|error| CliError::unreadable(file, error))?
            }
            None => TEN_FIELDS.to_owned(),
        };
        let request = self.client.request(Method::PUT, &["topics", topic, "schema"]);
        let request = request.header(CONTENT_TYPE, "application/json").body(schema);
        self.client.json(request).await.map(drop)
    }

    /// Has a component validate the events of topics: that of a file, or one that lets all pass.
    pub(super) async fn validate(
        &self,
        topics: &[String],
        file: Option<&Path>,
    ) -> Result<(), CliError> {
        let component = match file {
            Some(file) => std::fs::read(file).map_err(|error| CliError::unreadable(file, error))?,
            None => PASS_THROUGH.to_vec(),
        };
        let plugin = format!("{}-validator", self.run);
        let request = self.client.request(Method::PUT, &["plugins", &plugin]);
        let request = request.header(CONTENT_TYPE, "application/wasm").body(component);
        self.client.json(request).await?;
        lock(&self.made).plugins.push(plugin.clone());
        for topic in topics {
            self.bind(topic, &[json!({ "plugin": plugin })]).await?;
        }
        Ok(())
    }

    async fn bind(&self, topic: &str, bindings: &[Value]) -> Result<(), CliError> {
        let request = self.client.request(Method::PUT, &["bindings", "validate", topic]);
        self.client.json(request.json(&json!({ "bindings": bindings }))).await.map(drop)
    }

    /// Stops the server and starts it again on its data, and says how long it took to listen.
    pub(super) async fn restart(&mut self) -> Result<Duration, CliError> {
        let Some(server) = &mut self.server else {
            return Err(CliError::Usage("a server that is given is not restarted".to_owned()));
        };
        let took = server.restart().await?;
        self.options.url = Some(server.url.clone());
        let ClientOptions { key, project, .. } = &self.options;
        self.endpoint = Endpoint::new(&server.url, key.as_deref(), project)?;
        self.client = Client::new(self.options.clone())?;
        Ok(took)
    }

    /// What its own server takes.
    pub(super) fn memory(&self) -> Option<Memory> {
        self.server.as_ref().and_then(OwnServer::memory)
    }

    /// Deletes what was made, and stops the server if it is of its own.
    pub(super) async fn close(self) -> Result<(), CliError> {
        if let Some(server) = self.server {
            return server.stop().await;
        }
        let made = std::mem::take(&mut *lock(&self.made));
        for topic in &made.topics {
            if !made.plugins.is_empty() {
                self.clean(self.bind(topic, &[]).await, topic);
            }
            let request = self.client.request(Method::DELETE, &["topics", topic]);
            self.clean(self.client.json(request).await.map(drop), topic);
        }
        for plugin in &made.plugins {
            let request = self.client.request(Method::DELETE, &["plugins", plugin]);
            self.clean(self.client.json(request).await.map(drop), plugin);
        }
        Ok(())
    }

    fn clean(&self, result: Result<(), CliError>, name: &str) {
        if let Err(error) = result {
            say(&format!("warning: `{name}` is left: {error}\n"));
        }
    }
}
