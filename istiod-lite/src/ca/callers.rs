//! What a caller may be: a node's proxy, or a replica of a waypoint. Pure decisions over the index.
//!
//! A waypoint's account is named like its Gateway, or its token is bound to a pod whose label names the Gateway. It is
//! given that Gateway's resources and a certificate for its own account, and nothing of the pods of its node; an
//! account of node proxies is given no waypoint's resources.

use std::borrow::Cow;
use std::collections::BTreeSet;

use ambit_control::Index;
use ambit_control::csr::{self, Caller, Check, Refusal, Rules};
use ambit_control::input::{Name, Node, Pod};
use ambit_types::{Identity, Str, TunnelProtocol};
use ambit_xds::node::{self, WaypointKey};

use super::authn::Token;
use super::ledger::Required;

#[cfg(test)]
mod tests;

/// Label of a pod that belongs to a Gateway: the Gateway's name.
pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// What a caller's token lets it be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// A proxy of its node.
    Node,
    /// A replica of a waypoint.
    Waypoint(Replica),
}

/// What a caller is, once it has said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// A proxy of its node.
    Node,
    /// A replica of this waypoint.
    Waypoint(WaypointKey),
}

/// Gateways that a token may speak for, there or not, and the live pods it can be of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    gateways: BTreeSet<Name>,
    pods: BTreeSet<Str>,
}

fn refuse<T>(check: Check, detail: String) -> Result<T, Refusal> {
    Err(Refusal { check, detail })
}

/// Decides what a caller may be; a waypoint's is admitted while a Gateway of its is there.
///
/// # Errors
/// [`Refusal`] names the first check that failed.
pub fn recognise(index: &Index, rules: &Rules, token: &Token, caller: &Caller) -> Result<Admitted, Refusal> {
    let refusal = match csr::authenticate(index, rules, caller) {
        Ok(()) => return Ok(Admitted::Node),
        Err(refusal) if refusal.check == Check::CallerAccount => refusal,
        Err(refusal) => return Err(refusal),
    };
    let replica = Replica::of(index, token);
    if !replica.gateways.iter().any(|name| index.waypoints().contains_key(name)) {
        let (detail, account) = (refusal.detail, &token.service_account);
        let namespace = &token.namespace;
        return refuse(
            Check::CallerAccount,
            format!(
                "{detail}, and speaks for no waypoint that exists: expected is a Gateway {namespace}/{account} of \
                 class istio-waypoint, or a token bound to a pod whose label {GATEWAY_NAME} names one; apply the \
                 Gateway, name the account like it, or label the pod"
            ),
        );
    }
    replica.check(index, rules, token, caller)?;
    Ok(Admitted::Waypoint(replica))
}

/// Decides whether an admitted caller may be what it states. Of a Gateway that is gone there is nothing to serve: what
/// its proxies hold already stays in force.
///
/// # Errors
/// [`Refusal`] says what was expected.
pub fn role(
    index: &Index,
    admitted: &Admitted,
    token: &Token,
    stated: &node::Caller,
) -> Result<Role, Refusal> {
    let account = format!("{}/{}", token.namespace, token.service_account);
    let replica = match (admitted, &*stated.kind) {
        (Admitted::Waypoint(replica), "waypoint") => replica,
        (Admitted::Node, "waypoint") => {
            return refuse(
                Check::CallerAccount,
                format!(
                    "service account {account} is of node proxies and is served no waypoint's resources; run the \
                     waypoint under an account named like its Gateway"
                ),
            );
        }
        (Admitted::Node, _) => return Ok(Role::Node),
        (Admitted::Waypoint(_), kind) => {
            return refuse(
                Check::CallerAccount,
                format!(
                    "service account {account} is a waypoint's and is not served as a {kind}; expected is node kind \
                     waypoint, or an account of --trusted-node-accounts"
                ),
            );
        }
    };
    let key = replica.named(&account, stated)?;
    if !index.waypoints().contains_key(&gateway(&key)) {
        let detail = format!("there is no Gateway {key} of class istio-waypoint; apply the Gateway");
        return refuse(Check::CallerAccount, detail);
    }
    Ok(Role::Waypoint(key))
}

fn gateway(key: &WaypointKey) -> Name {
    Name::new(key.namespace.clone(), key.name.clone())
}

/// Decides whether a caller still may be what it is, but for its token. A Gateway that is gone ends no stream, so that
/// its proxies, which still run, are told to allow nothing.
///
/// # Errors
/// [`Refusal`] names the first check that failed.
pub fn still(
    index: &Index,
    rules: &Rules,
    token: &Token,
    caller: &Caller,
    role: &Role,
) -> Result<(), Refusal> {
    let key = match role {
        Role::Node => return csr::authenticate(index, rules, caller),
        Role::Waypoint(key) => key,
    };
    let replica = Replica::of(index, token);
    if !replica.gateways.contains(&gateway(key)) {
        let detail = format!("the token's pod does not belong to waypoint {key} any more");
        return refuse(Check::CallerAccount, detail);
    }
    replica.check(index, rules, token, caller)
}

/// The proxy that a certificate goes to, as [`required`] names it.
pub fn proxy(admitted: &Admitted, token: &Token) -> Str {
    match admitted {
        Admitted::Node => token.node.clone(),
        Admitted::Waypoint(_) => Str::from(format!("{}/{}", token.namespace, token.pod)),
    }
}

/// The proxies that a caller can be, as [`required`] names them, before it is known what it may be.
pub fn possible_proxies(token: &Token) -> [Str; 2] {
    [token.node.clone(), Str::from(format!("{}/{}", token.namespace, token.pod))]
}

/// The proxies of the mesh, and the identities that each of them must have a certificate of.
pub fn required(index: &Index) -> Required {
    let mut required = Required::new();
    for workload in index.workloads().values() {
        if workload.native_tunnel || workload.tunnel == TunnelProtocol::Hbone {
            required.entry(workload.node.clone()).or_default().insert(workload.identity());
        }
    }
    // Who is on no node of ours has no proxy of ours.
    required.retain(|node, _| index.node(node).is_some());
    let domain = &index.settings().trust_domain;
    for pod in index.nodes().flat_map(|node| index.pods_on(&node.name)).filter(|pod| has_identity(pod)) {
        let of = |name: &Str| Name::new(pod.name.namespace.clone(), name.clone());
        let mut gateways = pod.labels.get(GATEWAY_NAME).into_iter().chain([&pod.service_account]).map(of);
        if gateways.any(|gateway| index.waypoints().contains_key(&gateway)) {
            let (namespace, account) = (pod.name.namespace.clone(), pod.service_account.clone());
            let identity = Identity::new(domain.clone(), namespace, account);
            let replica = Str::from(format!("{}/{}", pod.name.namespace, pod.name.name));
            required.entry(replica).or_default().insert(identity);
        }
    }
    required
}

/// Live, and with a network of its own.
fn has_identity(pod: &Pod) -> bool {
    !pod.phase.is_final() && !pod.host_network
}

/// A token that names a pod and no node is of the node that this pod is on, as long as it is there. An API server that
/// names the node has the last word.
pub fn placed(index: &Index, token: Token) -> Token {
    let is_missing = |uid: &Str, name: &Str| uid.is_empty() || name.is_empty();
    if !is_missing(&token.node_uid, &token.node) || token.pod_uid.is_empty() {
        return token;
    }
    let is_it = |pod: &&Pod| {
        pod.uid == token.pod_uid
            && pod.name.namespace == token.namespace
            && pod.name.name == token.pod
            && pod.service_account == token.service_account
            && !pod.phase.is_final()
    };
    let on = |node: &&Node| index.pods_on(&node.name).any(|pod| is_it(&pod));
    let node = match token.node.is_empty() {
        true => index.nodes().find(on),
        false => index.node(&token.node).filter(on),
    };
    match node {
        Some(node) => Token { node: node.name.clone(), node_uid: node.uid.clone(), ..token },
        None => token,
    }
}

/// Rules under which an admitted caller gets the certificate it asks for.
///
/// # Errors
/// [`Refusal`] if a waypoint asks for another identity than its own.
pub fn rules_of<'r>(
    admitted: &Admitted,
    rules: &'r Rules,
    caller: &Caller,
    asked: Option<&str>,
) -> Result<Cow<'r, Rules>, Refusal> {
    match admitted {
        Admitted::Node => Ok(Cow::Borrowed(rules)),
        Admitted::Waypoint(_) => {
            let (namespace, account) = (caller.namespace.clone(), caller.service_account.clone());
            let own = Identity::new(rules.trust_domain.clone(), namespace, account).to_string();
            match asked.filter(|text| *text != own) {
                Some(other) => {
                    refuse(Check::OwnIdentity, format!("a waypoint may have {own} only, not {other:?}"))
                }
                None => Ok(Cow::Owned(own_rules(rules, caller))),
            }
        }
    }
}

/// Rules for an account that was recognised by other means than a list.
fn own_rules(rules: &Rules, caller: &Caller) -> Rules {
    rules.for_own_identity(&caller.namespace, &caller.service_account)
}

impl Replica {
    fn of(index: &Index, token: &Token) -> Self {
        let own = Name::new(token.namespace.clone(), token.service_account.clone());
        // Which of an account's pods calls is known only of a token that is bound to one.
        let labelled = pods(index, token).filter(|_| !token.pod.is_empty());
        let labelled = labelled
            .filter_map(|pod| pod.labels.get(GATEWAY_NAME))
            .map(|name| Name::new(token.namespace.clone(), name.clone()));
        Self {
            gateways: labelled.chain([own]).collect(),
            pods: pods(index, token).map(|pod| pod.name.name.clone()).collect(),
        }
    }

    /// The waypoint that a caller states it is of, if it speaks for that one and is one of these pods.
    fn named(&self, account: &str, stated: &node::Caller) -> Result<WaypointKey, Refusal> {
        let Some(key) = stated.waypoint() else {
            let detail = "a waypoint names its Gateway in the metadata GATEWAY_NAME of its node, and this one does not";
            return refuse(Check::CallerAccount, detail.to_owned());
        };
        if !self.gateways.contains(&gateway(&key)) {
            let name = &key.name;
            return refuse(
                Check::CallerAccount,
                format!(
                    "service account {account} does not speak for waypoint {key}: expected is account {key}, or \
                     a token bound to a pod with label {GATEWAY_NAME}={name}; name the account like the Gateway, \
                     or label the pod"
                ),
            );
        }
        if !self.pods.contains(&*stated.pod_name) {
            let pod = &stated.pod_name;
            let detail =
                format!("pod {pod:?} is no live pod of service account {account} that the token is for");
            return refuse(Check::CallerAccount, detail);
        }
        Ok(key)
    }

    /// Node, pod and source: what every caller has to prove, and that it calls from its pod or its node.
    fn check(&self, index: &Index, rules: &Rules, token: &Token, caller: &Caller) -> Result<(), Refusal> {
        csr::authenticate(index, &own_rules(rules, caller), caller)?;
        let account = format!("{}/{}", token.namespace, token.service_account);
        if self.pods.is_empty() {
            let of_token = if token.pod.is_empty() { String::new() } else { format!(" named {}", token.pod) };
            return refuse(
                Check::PodUnknown,
                format!("no live pod{of_token} of service account {account} is on node {}", token.node),
            );
        }
        let source = caller.source.to_canonical();
        let of_node = index.node(&token.node).into_iter().flat_map(|node| &node.addresses);
        let of_pods = pods(index, token).flat_map(|pod| &pod.addresses);
        if rules.bind_token_to_node_address
            && !of_node.chain(of_pods).any(|address| address.to_canonical() == source)
        {
            let detail = format!(
                "{source} is no address of a pod of {account} on node {}, nor the node's",
                token.node
            );
            return refuse(Check::SourceAddress, detail);
        }
        Ok(())
    }
}

/// Live pods with a network of their own that a token can be of.
fn pods<'a>(index: &'a Index, token: &'a Token) -> impl Iterator<Item = &'a Pod> {
    index.pods_on(&token.node).filter(move |pod| {
        let is_bound = pod.name.name == token.pod && (token.pod_uid.is_empty() || pod.uid == token.pod_uid);
        pod.name.namespace == token.namespace
            && pod.service_account == token.service_account
            && (token.pod.is_empty() || is_bound)
            && has_identity(pod)
    })
}
