//! Services: their addresses and endpoints in the objects, and what each node's network does about them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ambit_runtime::tasks;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use super::nodes::{labels_of, merge};
use super::owner::Owner;
use crate::dns::{self, Table};
use crate::error::LabError;
use crate::pod::sandbox::Site;
use crate::schedule::{ObjectName, Problem, endpoints, services};
use crate::service::{self, rules};
use crate::store::{Kind, ObjectKey, Snapshot};

/// Pause before rules that a node refused are tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// What each node's network was told.
pub(super) struct Network {
    tables: watch::Sender<Arc<Table>>,
    nodes: BTreeMap<String, NodeRules>,
}

/// The service rules of one node: those wanted, and how far they are in force.
struct NodeRules {
    wanted: watch::Sender<String>,
    applied: watch::Receiver<Applied>,
}

/// The rules in force, or why newer ones are not.
#[derive(Debug, Clone, Default)]
struct Applied {
    ruleset: String,
    refused: Option<String>,
}

impl Network {
    /// Begins DNS and service rules on every node; both know nothing yet.
    pub(super) fn begin(sites: &BTreeMap<String, Arc<Site>>, wake: &Arc<Notify>) -> Result<Self, LabError> {
        let (tables, told) = watch::channel(Arc::new(Table::default()));
        let mut nodes = BTreeMap::new();
        for (name, site) in sites {
            let sockets = dns::open(&site.place.netns, site.families)?;
            let told = told.clone();
            tasks::spawn("cluster DNS", async move {
                if let Err(error) = dns::serve(sockets, told).await {
                    tracing::error!(error = error.full(), "cluster DNS ended");
                }
            });
            let (wanted, rules) = watch::channel(String::new());
            let (done, applied) = watch::channel(Applied::default());
            tasks::spawn("service rules", keep_rules(Arc::clone(site), rules, done, Arc::clone(wake)));
            nodes.insert(name.clone(), NodeRules { wanted, applied });
        }
        Ok(Self { tables, nodes })
    }
}

/// Puts the newest rules in force, whenever there are newer ones.
async fn keep_rules(
    site: Arc<Site>,
    mut rules: watch::Receiver<String>,
    done: watch::Sender<Applied>,
    wake: Arc<Notify>,
) {
    while rules.changed().await.is_ok() {
        let ruleset = rules.borrow_and_update().clone();
        let result = service::apply_aside(Arc::clone(&site.place), ruleset.clone()).await;
        let refused = result.err().map(|e| e.full());
        if let Some(error) = &refused {
            tracing::error!(node = site.node.name, error, "writing service rules");
            tokio::time::sleep(AGAIN).await;
            rules.mark_changed();
        }
        done.send_modify(|now| {
            if refused.is_none() {
                now.ruleset = ruleset;
            }
            now.refused = refused;
        });
        wake.notify_one();
    }
}

/// Tells DNS and every node's rules what the objects say now; returns what is not in force yet.
pub(super) fn carry_out(owner: &Owner) -> Vec<String> {
    let snapshot = owner.store.snapshot();
    let (services, pods) = (snapshot.services(), snapshot.pods());
    let slices = snapshot.slices();
    owner.network.tables.send_if_modified(|now| {
        let next = Table::build(&services, &slices, &pods, now.serial());
        if next == **now {
            return false;
        }
        *now = Arc::new(Table::build(&services, &slices, &pods, now.serial().wrapping_add(1)));
        true
    });
    let mut missing = Vec::new();
    for (name, node) in &owner.network.nodes {
        let ruleset = rules::ruleset(name, &services, &slices, owner.home.config.families);
        let applied = node.applied.borrow().clone();
        if applied.ruleset != ruleset {
            let why = applied.refused.unwrap_or_else(|| "they are being written".to_owned());
            missing.push(format!("service rules of {name} are not in force: {why}"));
        }
        node.wanted.send_if_modified(|now| {
            let changed = *now != ruleset;
            *now = ruleset;
            changed
        });
    }
    missing
}

/// Gives Services their addresses and endpoints; what cannot be done is returned.
pub(super) fn describe(owner: &Owner) -> Result<Vec<Problem>, LabError> {
    let families = owner.home.config.families;
    let snapshot = owner.store.snapshot();
    let (assigned, problems) = services::assign(&snapshot.services(), families);
    for one in assigned {
        owner.store.change(&key(Kind::Service, &one.service), |service| {
            let spec = json!({
                "clusterIP": one.cluster_ips.first(), "clusterIPs": one.cluster_ips,
                "ipFamilies": one.ip_families, "ipFamilyPolicy": one.ip_family_policy,
            });
            merge(service, "", json!({"spec": spec}));
        })?;
    }
    let snapshot = owner.store.snapshot();
    let (services, pods) = (snapshot.services(), snapshot.pods());
    let wanted = endpoints::slices(&services, &pods, &zones(&snapshot), families);
    let (put, remove) = endpoints::changes(&wanted, &snapshot.slices());
    let mut slices = Vec::new();
    for slice in put {
        let object = serde_json::to_value(&slice).map_err(|e| LabError::Failed(e.to_string()))?;
        let kept = snapshot.find(&key(Kind::EndpointSlice, &ObjectName::of(&slice.metadata))).cloned();
        slices.push(with_identity(object, kept.as_ref()));
    }
    owner.store.put(&slices)?;
    for name in remove {
        owner.store.remove(&key(Kind::EndpointSlice, &name))?;
    }
    Ok(problems)
}

/// Keeps uid and time of the object that is replaced.
fn with_identity(mut object: Value, old: Option<&Value>) -> Value {
    for field in ["uid", "creationTimestamp"] {
        if let Some(kept) = old.and_then(|o| o.pointer(&format!("/metadata/{field}"))) {
            merge(&mut object, "/metadata", json!({field: kept}));
        }
    }
    object
}

fn zones(snapshot: &Snapshot) -> BTreeMap<String, String> {
    let zone = |(key, node): (&ObjectKey, &Value)| {
        Some((key.name.clone(), labels_of(node).remove(endpoints::ZONE_LABEL)?))
    };
    snapshot.of_kind(Kind::Node).filter_map(zone).collect()
}

fn key(kind: Kind, name: &ObjectName) -> ObjectKey {
    ObjectKey::new(kind, Some(&name.namespace), &name.name)
}
