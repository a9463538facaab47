//! Connections to endpoints: which there are, which of them to use, and what is known of how they fare.
//!
//! A destination is a port of a service, or a workload addressed by itself. What is known of it (loads, ejections,
//! budgets, open connections) outlives changes of the mesh; what follows from the mesh is made anew with it.

mod client;
mod destination;
mod download;
mod endpoint;
mod io;
mod tunnel;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use ambit_hbone::ConnId;
use ambit_net::pool_driver::Pool;
use ambit_net::socket::{SocketFactory, SocketOptions};
use ambit_route::model::Target as Backend;
use ambit_types::{Identity, ServiceKey, Uid};
use arc_swap::ArcSwap;

pub(crate) use client::{SendError, Sending};
pub(crate) use destination::{Destination, Ticket};
pub(crate) use download::Download;
pub(crate) use endpoint::Endpoint;
pub(crate) use io::Io;

use crate::terminate::Target;
use crate::{Limits, State};
use tunnel::TunnelKey;

/// What tells destinations apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum DestinationKey {
    /// A port of a service.
    Service(ServiceKey, u16),
    /// A workload and its port.
    Workload(Uid, SocketAddr),
}

/// On whose behalf a connection is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'a> {
    /// The caller's proven identity.
    pub(crate) peer: Option<&'a Identity>,
    /// The caller's address.
    pub(crate) address: SocketAddr,
    /// The id of its connection.
    pub(crate) id: ConnId,
}

/// A connection, and where it leads.
#[derive(Debug)]
pub(crate) struct Reached<T> {
    pub(crate) io: T,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) destination: Arc<Destination>,
}

type Destinations = HashMap<DestinationKey, Arc<Destination>>;

/// All destinations, and the tunnels to their proxies.
#[derive(Debug)]
pub(crate) struct Upstream {
    destinations: ArcSwap<Destinations>,
    tunnels: Pool<TunnelKey>,
    sockets: SocketFactory,
}

impl Upstream {
    /// No destination yet.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            destinations: ArcSwap::default(),
            tunnels: Pool::new(limits.pool),
            sockets: SocketFactory::new(None, Arc::new(SocketOptions::default())),
        }
    }

    /// The destination of a backend, or of what was called itself; none if it does not exist.
    pub(crate) fn destination(
        &self,
        state: &State,
        called: &Target,
        backend: Option<&Backend>,
    ) -> Option<Arc<Destination>> {
        let key = match (backend, called) {
            (Some(Backend::Service { service, port }), _) => DestinationKey::Service(service.clone(), *port),
            (Some(Backend::Invalid { .. }), _) => return None,
            (None, Target::Service { key, address, .. }) => {
                DestinationKey::Service(key.clone(), address.port())
            }
            (None, Target::Workload { workload, address }) => {
                DestinationKey::Workload(workload.uid.clone(), *address)
            }
        };
        if let Some(known) = self.destinations.load().get(&key) {
            return Some(known.clone());
        }
        if !key.exists(state) {
            return None;
        }
        // Others may add theirs at the same time, and then this is done again.
        let made = Arc::new(Destination::new(key.clone(), state));
        let mut kept = made.clone();
        self.destinations.rcu(|now| {
            let mut next = Destinations::clone(now);
            kept = next.entry(key.clone()).or_insert_with(|| made.clone()).clone();
            next
        });
        Some(kept)
    }

    /// Forgets destinations that do not exist any more, and drains endpoints that are gone.
    pub(crate) fn reconcile(&self, state: &State) {
        let before = self.destinations.load_full();
        for (key, destination) in before.as_ref() {
            if key.exists(state) {
                drop(destination.view(state));
            } else {
                destination.retire();
            }
        }
        if before.keys().any(|key| !key.exists(state)) {
            self.destinations.rcu(|now| {
                let mut next = Destinations::clone(now);
                next.retain(|key, _| key.exists(state));
                next
            });
        }
    }
}

impl DestinationKey {
    fn exists(&self, state: &State) -> bool {
        match self {
            Self::Service(key, port) => {
                state.mesh.service(key).is_some_and(|entry| entry.service().port(*port).is_some())
            }
            Self::Workload(uid, _) => state.mesh.workload(uid).is_some(),
        }
    }
}
