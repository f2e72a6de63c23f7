//! Endpoints are made, found and changed.

use std::collections::BTreeMap;
use std::time::Duration;

use stream_storage::{CommitError, Expected, ProjectName, Timestamp, Transaction};

use super::endpoint::{
    Disabled, DisabledReason, Endpoint, EndpointId, EndpointSettings, Known, SealedSecret, seal,
};
use super::sign::SigningSecret;
use super::stats::EndpointStats;
use super::{Hooks, HooksError, rows};
use crate::name::EndpointName;
use crate::pattern::Pattern;
use crate::queue::Queues;
use crate::state::{self, Attempts, Page, PageRequest};

/// Endpoints of one project: every event is matched against all of them, and one that all want still
/// has to fit into a transaction.
const ENDPOINTS_MAX: usize = 500;

/// Secrets that sign at once: who rotates in a hurry leaves the oldest behind.
const SECRETS_MAX: usize = 4;

/// The longest that an old secret may go on signing.
pub(super) const OVERLAP_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// An endpoint to make.
#[derive(Debug, Clone)]
pub struct NewEndpoint {
    /// Its name.
    pub name: EndpointName,
    /// Where requests go.
    pub url: String,
    /// Which types of events it gets; all if empty.
    pub events: Vec<Pattern>,
    /// For people.
    pub description: Option<String>,
    /// For programs that keep endpoints.
    pub metadata: BTreeMap<String, String>,
    /// What is signed with; a fresh one if `None`.
    pub secret: Option<SigningSecret>,
    /// How requests are sent.
    pub settings: EndpointSettings,
    /// Whether events are not sent to it yet.
    pub is_disabled: bool,
}

/// What to change in an endpoint; `None` leaves as it is.
#[derive(Debug, Clone, Default)]
pub struct EndpointPatch {
    /// See [`Endpoint::url`].
    pub url: Option<String>,
    /// See [`Endpoint::events`].
    pub events: Option<Vec<Pattern>>,
    /// See [`Endpoint::description`].
    pub description: Option<Option<String>>,
    /// See [`Endpoint::metadata`].
    pub metadata: Option<BTreeMap<String, String>>,
    /// Whether events are sent to it. What waits for it is sent from here on, or waits.
    pub enabled: Option<bool>,
    /// See [`Endpoint::settings`].
    pub settings: Option<EndpointSettings>,
}

/// An endpoint, and its new secret: it is shown this once.
#[derive(Debug, Clone)]
pub struct Edited {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// What is signed with from here on.
    pub secret: SigningSecret,
}

impl Hooks {
    /// Makes an endpoint. Durable on return.
    ///
    /// # Errors
    ///
    /// The name is taken, the address or a field is refused, there are too many endpoints, or the
    /// store refused.
    pub async fn create(
        &self,
        project: &ProjectName,
        new: NewEndpoint,
    ) -> Result<Edited, HooksError> {
        let now = self.parts.clock.now();
        let secret = new.secret.unwrap_or_else(|| self.with_random(SigningSecret::random));
        let id = EndpointId::random();
        let disabled = Disabled { reason: DisabledReason::ByRequest, at: now.0 };
        let endpoint = Endpoint {
            secrets: vec![seal(&self.parts.sealer, &id, &secret)?],
            name: new.name,
            id,
            url: new.url,
            events: new.events,
            description: new.description,
            metadata: new.metadata,
            disabled: new.is_disabled.then_some(disabled),
            settings: new.settings,
            created_at: now,
            updated_at: now,
        };
        endpoint.check()?;
        self.parts.egress.check(&endpoint.url).await?;
        if self.directory.known(project).await?.len() >= ENDPOINTS_MAX {
            return Err(HooksError::Full { max: ENDPOINTS_MAX });
        }
        let mut transaction = Transaction::new(project.clone());
        let known = (&endpoint, Expected::Absent);
        match self.put(&mut transaction, known).await {
            Err(HooksError::Commit(CommitError::Conflict { .. })) => {
                Err(HooksError::Exists { endpoint: endpoint.name })
            }
            Err(error) => Err(error),
            Ok(()) => Ok(Edited { endpoint, secret }),
        }
    }

    /// Endpoints in the order of their names.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn list(
        &self,
        project: &ProjectName,
        request: &PageRequest,
    ) -> Result<Page<Endpoint>, HooksError> {
        let store = self.parts.store.as_ref();
        let page = state::page(store, project, rows::ENDPOINT, request).await?;
        Ok(page.try_map(|row| Known::decode(&row).map(|known| known.endpoint))?)
    }

    /// One endpoint.
    ///
    /// # Errors
    ///
    /// There is none of this name, or the store could not be read.
    pub async fn get(
        &self,
        project: &ProjectName,
        name: &EndpointName,
    ) -> Result<Endpoint, HooksError> {
        Ok(self.load(project, name).await?.endpoint)
    }

    /// Changes an endpoint. Requests under way end as they began. Durable on return.
    ///
    /// # Errors
    ///
    /// There is none of this name, the address or a field is refused, or the store refused.
    pub async fn patch(
        &self,
        project: &ProjectName,
        name: &EndpointName,
        patch: EndpointPatch,
    ) -> Result<Endpoint, HooksError> {
        if let Some(url) = &patch.url {
            self.parts.egress.check(url).await?;
        }
        self.change(project, name, |endpoint, now| {
            let EndpointPatch { url, events, description, metadata, enabled, settings } =
                patch.clone();
            endpoint.url = url.unwrap_or_else(|| endpoint.url.clone());
            endpoint.events = events.unwrap_or_else(|| endpoint.events.clone());
            endpoint.description = description.unwrap_or_else(|| endpoint.description.clone());
            endpoint.metadata = metadata.unwrap_or_else(|| endpoint.metadata.clone());
            endpoint.settings = settings.unwrap_or_else(|| endpoint.settings.clone());
            match enabled {
                Some(true) => endpoint.disabled = None,
                Some(false) if endpoint.is_enabled() => {
                    let reason = DisabledReason::ByRequest;
                    endpoint.disabled = Some(Disabled { reason, at: now.0 });
                }
                Some(false) | None => {}
            }
            Ok(())
        })
        .await
    }

    /// Gives an endpoint another secret. The ones before go on signing for `overlap`, at most 30
    /// days, so that the receiver has time to learn it. Durable on return.
    ///
    /// # Errors
    ///
    /// There is none of this name, or the store refused.
    pub async fn rotate(
        &self,
        project: &ProjectName,
        name: &EndpointName,
        secret: Option<SigningSecret>,
        overlap: Duration,
    ) -> Result<Edited, HooksError> {
        let secret = secret.unwrap_or_else(|| self.with_random(SigningSecret::random));
        let overlap = u64::try_from(overlap.min(OVERLAP_MAX).as_millis()).unwrap_or(u64::MAX);
        let rotate = |endpoint: &mut Endpoint, now: Timestamp| {
            let until = now.0.saturating_add(overlap);
            let old = endpoint.secrets.iter().map(|old| SealedSecret {
                until: Some(old.until.unwrap_or(until).min(until)),
                ..old.clone()
            });
            let old = old.filter(|old| old.until.is_some_and(|until| until > now.0));
            let newest = seal(&self.parts.sealer, &endpoint.id, &secret)?;
            endpoint.secrets = std::iter::once(newest).chain(old).take(SECRETS_MAX).collect();
            Ok(())
        };
        let endpoint = self.change(project, name, rotate).await?;
        Ok(Edited { endpoint, secret })
    }

    async fn change(
        &self,
        project: &ProjectName,
        name: &EndpointName,
        change: impl Fn(&mut Endpoint, Timestamp) -> Result<(), HooksError> + Send,
    ) -> Result<Endpoint, HooksError> {
        let mut attempts = Attempts::default();
        loop {
            let Known { mut endpoint, version } = self.load(project, name).await?;
            let was_enabled = endpoint.is_enabled();
            let now = self.parts.clock.now();
            change(&mut endpoint, now)?;
            endpoint.check()?;
            endpoint.updated_at = now;
            let mut transaction = Transaction::new(project.clone());
            if !was_enabled && endpoint.is_enabled() {
                self.pardon(&mut transaction, &endpoint.id).await?;
            }
            match self.put(&mut transaction, (&endpoint, Expected::Version(version))).await {
                Ok(()) => return Ok(endpoint),
                Err(HooksError::Commit(error)) => attempts.again(error)?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Forgets that an endpoint has failed: what failed before it was enabled again counts no more.
    async fn pardon(
        &self,
        transaction: &mut Transaction,
        id: &EndpointId,
    ) -> Result<(), HooksError> {
        let key = rows::stats(id);
        let project = transaction.project.clone();
        let (stats, expected) = self.row::<EndpointStats>(&project, &key).await?;
        if let Some(stats) = stats {
            let stats = EndpointStats { failing_since: None, ..stats };
            transaction.expect(key.clone(), expected).put(key, state::encode(&stats));
        }
        Ok(())
    }

    /// Stores an endpoint and how its queue works.
    async fn put(
        &self,
        transaction: &mut Transaction,
        (endpoint, expected): (&Endpoint, Expected),
    ) -> Result<(), HooksError> {
        let queue = endpoint.queue()?;
        Self::put_in(transaction, endpoint, expected)?;
        self.parts.store.commit(transaction.clone()).await?;
        self.parts.queues.configured(&transaction.project, &queue);
        self.directory.changed(&transaction.project);
        Ok(())
    }

    /// Adds an endpoint and how its queue works to `transaction`.
    pub(super) fn put_in(
        transaction: &mut Transaction,
        endpoint: &Endpoint,
        expected: Expected,
    ) -> Result<(), HooksError> {
        let settings = endpoint.settings.queue(!endpoint.is_enabled());
        settings.check().map_err(crate::queue::QueueError::from)?;
        Queues::add_settings(transaction, &endpoint.queue()?, &settings);
        let key = rows::endpoint(&endpoint.name);
        transaction.expect(key.clone(), expected).put(key, endpoint.encode());
        Ok(())
    }
}
