//! Follows kinds of objects on an API server and hands on what changed, in batches.
//!
//! One task a kind lists and watches; one task gathers. Kinds that are not served yet are waited for. While the
//! server cannot be reached, the last state stays in force and the batch says what is stale. Of an object only its
//! name and version are kept, so that a new listing shows what has gone; the object itself is handed on as what the
//! caller makes of it.

use std::sync::Arc;

use ambit_manifest::{Kind, Located, ObjectKey, Problem};
use ambit_runtime::tasks;
use kube::Client;
use tokio::sync::{mpsc, oneshot};

mod backoff;
mod collect;
mod discover;
mod follow;
mod object;
mod seen;
mod slim;
#[cfg(test)]
mod tests;

pub use collect::{BATCH_MAX, COALESCE_MAX};

/// News between the tasks of the kinds and the one that gathers.
const NOTES_MAX: usize = 1024;
/// Batches nobody has taken yet; then the watches wait.
const QUEUE_MAX: usize = 16;

/// What is followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Each kind at most once.
    pub kinds: Vec<Selection>,
}

/// A kind, and which objects of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The kind.
    pub kind: Kind,
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only those that match, such as `metadata.name=istio`.
    pub fields: Option<String>,
    /// Only those that match, such as `app=cart`.
    pub labels: Option<String>,
}

impl Selection {
    /// Every object of a kind.
    pub fn all(kind: Kind) -> Self {
        Self { kind, namespace: None, fields: None, labels: None }
    }

    /// Only those whose fields match.
    #[must_use]
    pub fn fields(mut self, fields: &str) -> Self {
        self.fields = Some(fields.to_owned());
        self
    }

    /// Only those of a namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }
}

impl Scope {
    /// Every kind a control plane of the mesh reads; of ConfigMaps the mesh configuration of the root namespace, of
    /// pods those that have not ended.
    pub fn everything(root_namespace: &str) -> Self {
        let config = format!("metadata.name={}", ambit_manifest::mesh::CONFIG_MAP);
        let mut kinds = vec![
            Selection::all(Kind::Pod).fields("status.phase!=Succeeded,status.phase!=Failed"),
            Selection::all(Kind::ConfigMap).namespace(root_namespace).fields(&config),
        ];
        kinds.extend(
            [
                Kind::Namespace,
                Kind::Node,
                Kind::Service,
                Kind::EndpointSlice,
                Kind::NetworkPolicy,
                Kind::PeerAuthentication,
                Kind::AuthorizationPolicy,
                Kind::RequestAuthentication,
                Kind::ServiceEntry,
                Kind::WorkloadEntry,
                Kind::GatewayClass,
                Kind::Gateway,
                Kind::HTTPRoute,
                Kind::GRPCRoute,
                Kind::TCPRoute,
                Kind::TLSRoute,
                Kind::ReferenceGrant,
                Kind::TrafficPolicy,
                Kind::EgressPolicy,
                Kind::VirtualService,
            ]
            .map(Selection::all),
        );
        Self { kinds }
    }
}

/// What there is when every kind has been listed once.
#[derive(Clone, Debug)]
pub struct State<T = Located> {
    /// The objects.
    pub objects: Vec<T>,
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
    /// Highest version of an object seen.
    pub revision: u64,
}

/// What changed since the last batch or the first state.
#[derive(Clone, Debug)]
pub struct Batch<T = Located> {
    /// Objects that are new or were changed.
    pub changed: Vec<T>,
    /// Objects that are gone.
    pub removed: Vec<ObjectKey>,
    /// Everything that is wrong with objects now, the whole list; of a namespace with very many, the first hundred.
    pub problems: Vec<Problem>,
    /// Highest version of an object seen.
    pub revision: u64,
    /// Kinds whose last state stands because the server does not let us follow them, in words; empty if all is well.
    pub stale: Vec<String>,
}

/// How much of an object is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// All of it.
    Whole,
    /// What a control plane reads.
    Lean,
}

/// Follows `scope`. Waits until every kind has been listed once, or is known not to be served; that may take for ever,
/// and causes are logged meanwhile. Everything ends when the receiver is dropped.
pub async fn watch(client: Client, scope: Scope) -> (State, mpsc::Receiver<Batch>) {
    begin(client, scope, Form::Whole, Arc::new(Ok)).await
}

/// As [`watch`], with `make` applied to each object as soon as it is read, so that no more is kept of it, and for many
/// objects: pods and nodes have only the fields a control plane reads, and `Located::value` may be `null`.
///
/// What `make` refuses is listed among the problems, and the version of the object before it stays in force.
pub async fn watch_as<T, F>(client: Client, scope: Scope, make: F) -> (State<T>, mpsc::Receiver<Batch<T>>)
where
    T: Send + 'static,
    F: Fn(Located) -> Result<T, Vec<Problem>> + Send + Sync + 'static,
{
    begin(client, scope, Form::Lean, Arc::new(make)).await
}

async fn begin<T: Send + 'static>(
    client: Client,
    scope: Scope,
    form: Form,
    make: follow::Make<T>,
) -> (State<T>, mpsc::Receiver<Batch<T>>) {
    let (notes, gathered) = mpsc::channel(NOTES_MAX);
    let (first, complete) = oneshot::channel();
    let (batches, receiver) = mpsc::channel(QUEUE_MAX);
    let selections: Vec<String> = scope.kinds.iter().map(|s| s.kind.plural().to_owned()).collect();
    let followers: Vec<_> = scope
        .kinds
        .into_iter()
        .enumerate()
        .map(|(index, selection)| {
            let outlet = follow::Outlet { index, notes: notes.clone(), make: make.clone() };
            tasks::spawn("watch", follow::follow(client.clone(), selection, form, outlet))
        })
        .collect();
    drop(notes);
    drop(tasks::spawn("watches", collect::gather(selections, gathered, followers, first, batches)));
    match complete.await {
        Ok(state) => (state, receiver),
        // The gatherer has ended, so the receiver says that it is over.
        Err(_) => (State { objects: Vec::new(), problems: Vec::new(), revision: 0 }, receiver),
    }
}
