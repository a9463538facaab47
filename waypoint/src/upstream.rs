//! Connections to endpoints: which there are, which of them to use, and what is known of how they fare.
//!
//! A destination is a port of a service, or a workload addressed by itself. What is known of it (loads, ejections,
//! budgets, open connections) outlives changes of the mesh; what follows from the mesh is made anew with it.

mod book;
mod client;
mod destination;
mod download;
mod endpoint;
mod error;
mod heads;
mod http1;
mod io;
mod line;
mod preface;
mod tunnel;
mod valid;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ambit_hbone::ConnId;
use ambit_net::pool_driver::Pool;
use ambit_net::socket::{SocketFactory, SocketOptions};
use ambit_route::model::Target as Backend;
use ambit_types::{Identity, ServiceKey, Uid};

pub(crate) use client::Sending;
pub(crate) use destination::{Destination, Seat, Ticket, View};
pub(crate) use download::Download;
pub(crate) use endpoint::Endpoint;
pub(crate) use error::SendError;
pub(crate) use io::Io;

use crate::terminate::Target;
use crate::{Limits, State};
use book::Book;
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
    pub(crate) seat: Seat,
}

/// All destinations, and the tunnels to their proxies.
#[derive(Debug)]
pub(crate) struct Upstream {
    book: Arc<Book>,
    tunnels: Pool<TunnelKey>,
    sockets: SocketFactory,
}

impl Upstream {
    /// No destination yet, and none before the first [`Upstream::publish`].
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            book: Book::new(limits.idle_keep),
            tunnels: Pool::new(limits.pool),
            sockets: SocketFactory::new(None, Arc::new(SocketOptions::default())),
        }
    }

    /// The destination of a backend, or of what was called itself; none if it does not exist any more, or is invalid.
    pub(crate) fn destination(
        &self,
        _: &State,
        called: &Target,
        backend: Option<&Backend>,
    ) -> Option<Arc<Destination>> {
        self.book.find(match (backend, called) {
            (Some(Backend::Service { service, port }), _) => DestinationKey::Service(service.clone(), *port),
            (Some(Backend::Invalid { .. }), _) => return None,
            (None, Target::Service { key, address, .. }) => {
                DestinationKey::Service(key.clone(), address.port())
            }
            (None, Target::Workload { workload, address }) => {
                DestinationKey::Workload(workload.uid.clone(), *address)
            }
        })
    }

    /// Goes by a state from now on: forgets destinations that do not exist any more, and drains endpoints that are
    /// gone. `store` makes the state everybody's; states that are published at the same time come one after the
    /// other, in both places in the same order.
    pub(crate) fn publish(&self, state: &Arc<State>, store: impl FnOnce()) {
        let mut newest = self.book.turn();
        store();
        self.book.reconcile(&mut newest, state);
    }
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
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
