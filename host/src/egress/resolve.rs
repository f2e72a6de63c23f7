//! Names to addresses: all are checked before a connection may be made to one.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

use super::address::refusal;
use super::allow::AllowList;
use super::error::EgressError;

/// Lookups at once: each has a thread for as long as the system takes, and somebody's slow name
/// server must not take all there are.
const LOOKUPS_MAX: usize = 64;

/// Where addresses of names come from.
#[async_trait]
pub trait Resolver: Send + Sync + 'static {
    /// All addresses of `name`.
    ///
    /// # Errors
    ///
    /// It has none now.
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// What the system says: its hosts file and its name servers.
pub struct SystemResolver {
    lookups: Arc<Semaphore>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self { lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }
}

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let permit = Arc::clone(&self.lookups).acquire_owned().await.map_err(io::Error::other)?;
        let name = name.to_owned();
        let lookup = tokio::task::spawn_blocking(move || {
            // Held until the thread is free, also if nobody waits for it any more.
            let _permit = permit;
            let found = (name.as_str(), 0).to_socket_addrs()?;
            Ok(found.map(|address| address.ip()).collect())
        });
        lookup.await.map_err(io::Error::other)?
    }
}

/// Lets through only what may be reached.
pub(super) struct Guard {
    pub(super) allow: AllowList,
    pub(super) resolver: Arc<dyn Resolver>,
}

impl Guard {
    /// The addresses of a name, each of them checked: one that is refused refuses all, since which
    /// of them is taken is not ours to say.
    pub(super) async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, EgressError> {
        let unresolved = |reason| EgressError::Resolve { host: name.to_owned(), reason };
        let found = self.resolver.resolve(name).await;
        let found = found.map_err(|error| unresolved(error.to_string()))?;
        if found.is_empty() {
            return Err(unresolved("it has no address".to_owned()));
        }
        for address in &found {
            self.check(name, *address)?;
        }
        Ok(found)
    }

    /// Refuses an address that is not to be reached.
    pub(super) fn check(&self, host: &str, address: IpAddr) -> Result<(), EgressError> {
        match refusal(address, &self.allow) {
            None => Ok(()),
            Some(what) => {
                tracing::debug!(host, %address, what, "nothing is sent to this address");
                Err(EgressError::Forbidden { host: host.to_owned(), what })
            }
        }
    }
}

/// The client asks here, and connects to what it is told.
pub(super) struct Checked(pub(super) Arc<Guard>);

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = Arc::clone(&self.0);
        Box::pin(async move {
            let found = guard.resolve(name.as_str()).await?;
            let addresses = found.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}
