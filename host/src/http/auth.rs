//! Who calls, for which project, and whether the call is allowed.

use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use stream_storage::ProjectName;

use super::App;
use super::error::ApiError;
use crate::auth::{ApiKey, Keys, Scope};
use crate::node::default_project;

/// What a call asks of its caller.
pub(crate) trait Access: Send + Sync {
    /// One of these scopes is needed.
    const SCOPES: &'static [Scope];
    /// Whether the project may be one that does not exist yet.
    const MAKES_PROJECT: bool = false;
}

/// The call publishes.
pub(crate) struct Publish;
/// The call reads.
pub(crate) struct Consume;
/// The call changes topics, keys or projects.
pub(crate) struct Manage;
/// The call changes something, and makes its project if there is none.
pub(crate) struct ManageNew;
/// The call uploads or runs code.
pub(crate) struct Deploy;
/// The call shows what code printed or how it is set: that may hold parts of events.
pub(crate) struct Inspect;
/// Any key will do.
pub(crate) struct Any;

impl Access for Publish {
    const SCOPES: &'static [Scope] = &[Scope::Publish];
}

impl Access for Consume {
    const SCOPES: &'static [Scope] = &[Scope::Consume];
}

impl Access for Manage {
    const SCOPES: &'static [Scope] = &[Scope::Manage];
}

impl Access for Deploy {
    const SCOPES: &'static [Scope] = &[Scope::Deploy];
}

impl Access for Inspect {
    const SCOPES: &'static [Scope] = &[Scope::Deploy, Scope::Manage];
}

impl Access for ManageNew {
    const SCOPES: &'static [Scope] = &[Scope::Manage];
    const MAKES_PROJECT: bool = true;
}

impl Access for Any {
    const SCOPES: &'static [Scope] = &Scope::ALL;
}

/// A caller that may do what `A` says, in `project`.
pub(crate) struct Caller<A> {
    pub(crate) key: Arc<ApiKey>,
    /// The project of the path, or the one that the key means.
    pub(crate) project: ProjectName,
    access: PhantomData<A>,
}

impl<A: Access> FromRequestParts<Arc<App>> for Caller<A> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let node = &app.node;
        let key = bearer(&node.keys, &parts.headers)?;
        let project = match path_param(parts, "project").await? {
            Some(name) => ProjectName::parse(&name)?,
            None => key.project.clone().unwrap_or_else(default_project),
        };
        if !key.opens(&project) {
            return Err(ApiError::ForeignProject { project });
        }
        if !A::SCOPES.iter().any(|scope| key.allows(*scope)) {
            return Err(ApiError::MissingScope { scopes: A::SCOPES });
        }
        if !A::MAKES_PROJECT {
            node.projects.check(&project).await?;
        }
        Ok(Self { key, project, access: PhantomData })
    }
}

impl<A> Caller<A> {
    /// Checks that the key has a further scope.
    pub(crate) fn check_scope(&self, scope: &'static [Scope]) -> Result<(), ApiError> {
        if scope.iter().any(|scope| self.key.allows(*scope)) {
            Ok(())
        } else {
            Err(ApiError::MissingScope { scopes: scope })
        }
    }

    /// Checks once more that the key holds: it may have been revoked during a long wait.
    pub(crate) fn check_key(&self, keys: &Keys) -> Result<(), ApiError> {
        if keys.holds(&self.key) { Ok(()) } else { Err(ApiError::InvalidKey) }
    }
}

/// The key that a request presents.
pub(crate) fn bearer(keys: &Keys, headers: &HeaderMap) -> Result<Arc<ApiKey>, ApiError> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let value = given.next().ok_or(ApiError::NoKey)?;
    if given.any(|other| other != value) {
        return Err(ApiError::InvalidKey);
    }
    let (scheme, secret) =
        value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(ApiError::InvalidKey)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(ApiError::InvalidKey);
    }
    keys.find(secret.trim()).ok_or(ApiError::InvalidKey)
}

/// A part of the path by its name, percent-decoded.
pub(crate) async fn path_param(
    parts: &mut Parts,
    name: &'static str,
) -> Result<Option<String>, ApiError> {
    let params = RawPathParams::from_request_parts(parts, &())
        .await
        .map_err(|error| ApiError::invalid("path", error.body_text()))?;
    Ok(params.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned()))
}
