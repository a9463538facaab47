//! Starting the mesh, and what commands do to one part of the lab.

use std::future::Future;
use std::pin::Pin;

use serde_json::Value;
use tokio::sync::mpsc;

use super::owner::Owner;
use super::served;
use super::wait::Watch;
use crate::control::{Action, Line, LinkChange};
use crate::error::LabError;
use crate::fault::{self, LinkFault};
use crate::programs::{Command, Target};
use crate::schedule::ObjectName;

mod on_pod;
mod on_waypoint;

/// Work that goes on beside the daemon's loop.
pub(super) type Work = Pin<Box<dyn Future<Output = Result<(), LabError>> + Send>>;

/// Starts control plane, node agents and proxies, in the order they need each other.
pub(super) async fn start_mesh(watch: &Watch, lines: &mpsc::Sender<Line>) -> Result<(), LabError> {
    if !watch.home.config.mesh {
        return Ok(());
    }
    let is_istiod = |target: &Target| matches!(target, Target::Istiod | Target::Replica(_));
    let istiods = watch.programs.iter().filter(|(target, _)| is_istiod(target));
    let starts = istiods.map(|(_, part)| part.tell(Command::Start));
    futures_util::future::try_join_all(starts).await?;
    let ready = Line::Progress(format!(
        "control plane   ready at {}",
        crate::programs::spec::control_plane(&watch.home.config)
    ));
    let _ = lines.try_send(ready);
    if watch.home.kube.is_some() {
        served::trust_bundle(&watch.home).await?;
    }
    // Node agents and proxies wait for each other, so they are started together.
    let rest =
        watch.programs.iter().filter(|(target, _)| matches!(target, Target::Cni(_) | Target::Ztunnel(_)));
    let starts = rest.map(|(_, part)| part.tell(Command::Start));
    futures_util::future::try_join_all(starts).await?;
    let nodes = watch.home.config.nodes.join(" ");
    let _ = lines.try_send(Line::Progress(format!("nodes           ready: {nodes}")));
    Ok(())
}

/// Begins an action on one part.
pub(super) fn begin(
    owner: &mut Owner,
    action: Action,
    target: &str,
    lines: &mpsc::Sender<Line>,
) -> Result<Work, LabError> {
    match target.parse::<Target>()? {
        Target::Pod { namespace, name } => {
            on_pod::begin(owner, action, &ObjectName { namespace, name }, lines.clone())
        }
        Target::Waypoint { namespace, name } => {
            if owner.home.kube.is_some() {
                return Err(LabError::Failed(format!(
                    "waypoint/{namespace}/{name} is a Deployment here, which the control plane keeps; use: {}",
                    owner
                        .home
                        .lab
                        .command(&format!("kubectl -n {namespace} rollout restart deployment/{name}"))
                )));
            }
            on_waypoint::begin(owner, action, &ObjectName { namespace, name }, lines.clone())
        }
        program @ (Target::Kube(_)
        | Target::Istiod
        | Target::Replica(_)
        | Target::Cni(_)
        | Target::Ztunnel(_)) => {
            let command = match action {
                Action::Stop => Command::Stop,
                Action::Start => Command::Start,
                Action::Restart => Command::Restart,
                Action::Kill => Command::Kill,
            };
            Ok(Box::pin(owner.programs.part(&program)?.tell(command)))
        }
    }
}

/// Changes a node's link.
pub(super) fn link(owner: &mut Owner, node: &str, change: &LinkChange) -> Result<Value, LabError> {
    let known = || owner.sites.keys().cloned().collect::<Vec<_>>().join(", ");
    let site = owner.sites.get(node).cloned();
    let site = site.ok_or_else(|| LabError::Failed(format!("no node {node}; the nodes are: {}", known())))?;
    let before = owner.links.get(node).cloned().unwrap_or_default();
    let after = before.after(change, site.families)?;
    tokio::task::block_in_place(|| fault::apply(&owner.home.fabric, &site.place, &site.node, &after))?;
    if after == LinkFault::default() {
        owner.links.remove(node);
    } else {
        owner.links.insert(node.to_owned(), after);
    }
    Ok(Value::Null)
}
