//! `stream plugin upload`: a component becomes a version of a plugin.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::bytes;
use super::component::Kind;
use crate::cli::client::Client;
use crate::cli::output::{CliError, Output, cell, fields};
use crate::name::PluginName;

/// Upload a component as a plugin's newest version
///
/// The very bytes of the newest version are no new one. What is bound stays at its version.
#[derive(Debug, Args)]
pub(super) struct Upload {
    /// The plugin
    #[arg(value_parser = PluginName::parse)]
    name: PluginName,

    /// The component
    file: PathBuf,
}

impl Upload {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        let (plugin, is_new) = self.send(client).await?;
        output.show(&plugin, |plugin| human(plugin, is_new))?;
        Ok(())
    }

    /// The version, and whether there was none with these bytes before.
    async fn send(&self, client: &Client) -> Result<(Value, bool), CliError> {
        let component =
            fs::read(&self.file).map_err(|error| CliError::unreadable(&self.file, error))?;
        if Kind::of(&component) == Kind::Module {
            let problem = format!(
                "`{}` is a core module, not a component: `stream plugin build` makes one, as does \
                 `wasm-tools component new`",
                self.file.display()
            );
            return Err(CliError::Usage(problem));
        }
        let request = client
            .request(Method::PUT, &["plugins", self.name.as_str()])
            .header(CONTENT_TYPE, "application/wasm")
            .body(component);
        let response = client.send(request).await?;
        let is_new = response.status() == StatusCode::CREATED;
        Ok((client.read_json(response).await?, is_new))
    }
}

fn human(plugin: &Value, is_new: bool) -> String {
    let note = if is_new { "" } else { " (as before: these are its bytes)" };
    fields([
        ("name", cell(plugin, "name")),
        ("version", cell(plugin, "version") + note),
        ("digest", cell(plugin, "digest")),
        ("roles", cell(plugin, "roles")),
        ("size", bytes(plugin, "size")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::tests::serve;
    use axum::body::Bytes;
    use axum::http::HeaderMap;
    use axum::routing::put;
    use serde_json::json;

    fn upload(file: &std::path::Path) -> Upload {
        Upload { name: PluginName::parse("orders").unwrap(), file: file.to_owned() }
    }

    #[tokio::test]
    async fn a_component_is_sent_as_it_is() {
        let answer = |headers: HeaderMap, body: Bytes| async move {
            assert_eq!(headers["content-type"], "application/wasm");
            assert_eq!(body, &b"\0asm\x0d\0\x01\0"[..]);
            (axum::http::StatusCode::CREATED, axum::Json(json!({ "version": 1 })))
        };
        let router = axum::Router::new().route("/projects/p/plugins/orders", put(answer));
        let client = serve(router).await.patient(super::super::PATIENCE).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), b"\0asm\x0d\0\x01\0").unwrap();
        let sent = upload(file.path()).send(&client).await.unwrap();
        assert_eq!(sent, (json!({ "version": 1 }), true));
    }

    #[tokio::test]
    async fn a_core_module_is_not_sent() {
        let client = serve(axum::Router::new()).await;
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), b"\0asm\x01\0\0\0").unwrap();
        let error = upload(file.path()).send(&client).await.unwrap_err();
        assert!(error.to_string().contains("`stream plugin build`"), "{error}");
        let missing = upload("gone.wasm".as_ref()).send(&client).await;
        assert_eq!(missing.unwrap_err().exit_code(), 4);
    }

    #[test]
    fn an_upload_shows_the_version_and_whether_it_is_new() {
        let plugin = json!({
            "name": "orders", "version": 3, "digest": "sha256:ab", "size": 2_048,
            "roles": ["validate", "route"], "limits": {},
        });
        let expected = "name     orders\nversion  3\ndigest   sha256:ab\n\
                        roles    validate,route\nsize     2.00 KiB\n";
        assert_eq!(human(&plugin, true), expected);
        assert!(human(&plugin, false).contains("version  3 (as before"));
    }
}
