//! `stream ledger verify`: a whole ledger, from a folder, a server, or any address that has its files.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use clap::Args;
use reqwest::{Method, Url};
use serde_json::{Value, json};

use crate::cli::client::Client;
use crate::cli::output::{CliError, Output, cell, fields, say};
use crate::ledger::tree::{Files, TreeError};
use crate::ledger::verify::{Verified, VerifyError, verify};
use crate::ledger::{Objects, VerifierKey};
use crate::name::LedgerName;

/// Check a whole ledger: every entry and tile, the root and its signature, and all events that are
/// kept by their digest
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// A folder with a ledger's files, an address where they are, or the name of a ledger of the
    /// server
    #[arg(value_name = "FOLDER|URL|NAME")]
    place: String,

    /// The key of the ledger, as `ledger show` shows it; a folder needs it, and without it a server
    /// is taken at its word
    #[arg(long, value_name = "KEY", value_parser = VerifierKey::parse)]
    vkey: Option<VerifierKey>,
}

impl Verify {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        let (verified, key) = match Place::parse(&self.place) {
            Place::Folder(path) => {
                let hint = "a folder needs `--vkey`: its files do not say which key is right";
                let key = self.vkey.ok_or_else(|| CliError::Usage(hint.to_owned()))?;
                let unreadable = |error| CliError::unreadable(&path, error);
                let files = Objects::existing_folder(&path).map_err(unreadable)?;
                let verified = verify(&files, &key, |_| {}).await;
                (verified.map_err(|error| of_verify(error, unreadable))?, key)
            }
            Place::Url(url) => {
                let files = Remote { client: &client.at(url)?, name: None };
                files.verify(self.vkey).await?
            }
            Place::Name(name) => {
                let name = LedgerName::parse(&name);
                let name = name.map_err(|error| CliError::Usage(error.to_string()))?;
                Remote { client, name: Some(name) }.verify(self.vkey).await?
            }
        };
        let told = json!({
            "origin": key.name(),
            "size": verified.mark.size,
            "root": verified.mark.root,
            "tiles": verified.tiles,
            "data": verified.data,
        });
        Ok(output.show(&told, human)?)
    }
}

fn human(told: &Value) -> String {
    let names = ["origin", "size", "root", "tiles", "data"];
    format!("the ledger is whole\n{}", fields(names.map(|name| (name, cell(told, name)))))
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    Folder(PathBuf),
    Url(Url),
    Name(String),
}

impl Place {
    /// What looks like a path is one; a name is taken for a folder only if there is one.
    fn parse(text: &str) -> Self {
        let url = Url::parse(text).ok();
        if let Some(url) = url.filter(|url| matches!(url.scheme(), "http" | "https")) {
            return Self::Url(url);
        }
        let path = Path::new(text);
        if text.contains('/') || text == "." || text == ".." || path.is_dir() {
            return Self::Folder(path.to_owned());
        }
        Self::Name(text.to_owned())
    }
}

/// A ledger's files at an address, or those of a server's ledger.
struct Remote<'a> {
    client: &'a Client,
    name: Option<LedgerName>,
}

impl Remote<'_> {
    async fn verify(&self, vkey: Option<VerifierKey>) -> Result<(Verified, VerifierKey), CliError> {
        let key = match vkey {
            Some(key) => key,
            None => self.told_key().await?,
        };
        let verified = verify(self, &key, |_| {}).await;
        Ok((verified.map_err(|error| of_verify(error, |error| error))?, key))
    }

    /// The key that the server says is the ledger's.
    async fn told_key(&self) -> Result<VerifierKey, CliError> {
        say("note: the key is the server's word; `--vkey` checks against one that you hold\n");
        let ledger = self.client.json(self.request(&[])).await?;
        VerifierKey::parse(&cell(&ledger, "vkey"))
            .map_err(|error| CliError::Answer { reason: error.to_string() })
    }

    fn request(&self, parts: &[&str]) -> reqwest::RequestBuilder {
        match &self.name {
            Some(name) => {
                let path: Vec<&str> =
                    ["ledgers", name.as_str()].iter().chain(parts).copied().collect();
                self.client.request(Method::GET, &path)
            }
            None => self.client.request_outside(Method::GET, parts),
        }
    }
}

#[async_trait]
impl Files for Remote<'_> {
    type Error = CliError;

    async fn read(&self, path: &str) -> Result<Option<Bytes>, CliError> {
        let parts: Vec<&str> = path.split('/').collect();
        match self.client.send(self.request(&parts)).await {
            Ok(found) => {
                found.bytes().await.map(Some).map_err(|error| self.client.no_answer(&error))
            }
            Err(error) if error.status() == Some(404) && !error.has_code("ledger-not-found") => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

fn of_verify<E: std::error::Error>(
    error: VerifyError<E>,
    unreadable: impl FnOnce(E) -> CliError,
) -> CliError {
    match error {
        VerifyError::Tree(TreeError::Files(error)) => unreadable(error),
        error => CliError::Unverified(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_an_address_a_folder_or_a_name() {
        let folder = |path: &str| Place::Folder(path.into());
        for (text, place) in [
            ("http://a.b/l", Place::Url("http://a.b/l".parse().unwrap())),
            ("./l", folder("./l")),
            ("/x/l", folder("/x/l")),
            ("src", folder("src")),
            ("orders", Place::Name("orders".to_owned())),
            ("ftp:x", Place::Name("ftp:x".to_owned())),
        ] {
            assert_eq!(Place::parse(text), place, "{text}");
        }
    }
}
