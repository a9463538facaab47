//! `ambit uninstall`: takes the mesh out of a cluster, in the order in which nothing is left behind.
//!
//! The webhook goes first, or it would refuse what comes after. Then every namespace and pod leaves the mesh, and it is
//! waited until no pod is captured: rules in a pod's namespace can be taken out only while the node agents run, and so
//! can the CNI plugin, which is why every node has to have a ready one. Then what was made for waypoints, the programs,
//! what they wrote, and what they stood on. Objects that people made stay, and are listed.

use std::time::Duration;

use ambit_kube::KubeError;
use ambit_kube::write::{self, Target};
use anyhow::Context as _;
use kube::Client;
use serde_json::{Value, json};
use tokio::time::{interval, timeout};

use super::install::cluster::{At, merge, merge_status, name_of};
use super::install::plan::is_ours;
use super::nodes::block_on;
use crate::bundle::{self, NAMESPACE};
use crate::out::{self, Failure};

mod agents;
mod order;
#[cfg(test)]
mod tests;

use order::{CRD, MADE, Phase, REPORTED, USERS, WRITTEN};

/// Label by which a namespace or pod is in the mesh.
const MODE: &str = "istio.io/dataplane-mode";
/// What the node agent writes on a captured pod.
const REDIRECTION: &str = "ambient.istio.io/redirection";
/// How often it is looked whether something is gone.
const LOOK: Duration = Duration::from_millis(500);

/// Takes the mesh out of a cluster.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do it; else it is only shown what would be done
    #[arg(long)]
    yes: bool,
    /// Remove the definitions of kinds too, and with them every object that people made of these kinds
    #[arg(long)]
    crds: bool,
    /// Go on although pods are still captured, or nodes have no ready agent; rules stay, and connections of these pods
    /// fail until they are restarted; the CNI plugin stays, and such nodes start no pod until it is taken off by hand
    #[arg(long)]
    force: bool,
    /// How long each wait may take
    #[arg(long, default_value = "3m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    at: At,
}

/// Runs the command.
///
/// # Errors
/// When the cluster refuses something, or pods stay captured.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    block_on(async {
        let client = args.at.connect().await?;
        Removal { client, args }.run().await
    })
}

struct Removal<'a> {
    client: Client,
    args: &'a Args,
}

impl Removal<'_> {
    async fn run(&self) -> anyhow::Result<i32> {
        let (enrolled, ours) = (self.enrolled().await?, self.installed().await?);
        let made = self.all_of(MADE).await?;
        if !self.args.yes {
            tell(&enrolled, &made, &ours);
            self.tell_left().await?;
            out::say("nothing was changed; add --yes to do it");
            return Ok(out::OK);
        }
        self.remove(&ours, Phase::Webhook).await?;
        for object in &enrolled {
            self.leave(object).await?;
        }
        self.wait_released().await?;
        self.wait_agents(&ours).await?;
        // The control plane first: it would make them again.
        self.remove(&ours, Phase::ControlPlane).await?;
        self.delete_all(&made).await?;
        self.take_back_conditions().await?;
        // Again: that took its time.
        self.wait_agents(&ours).await?;
        self.remove(&ours, Phase::Agents).await?;
        self.remove(&ours, Phase::Tunnels).await?;
        self.delete_all(&self.all_of(WRITTEN).await?).await?;
        self.remove(&ours, Phase::Ground).await?;
        self.remove_definitions(&ours).await?;
        self.remove_namespace(&ours).await?;
        self.tell_left().await?;
        Ok(out::OK)
    }

    /// What was installed and is ours, by looking at each.
    async fn installed(&self) -> anyhow::Result<Vec<Value>> {
        let mut found = Vec::new();
        for known in bundle::everything()? {
            if let Some(live) = write::get(&self.client, &Target::of(&known)?).await?
                && is_ours(&live)
            {
                found.push(live);
            }
        }
        Ok(found)
    }

    /// Namespaces and pods that ask to be in the mesh by a label of their own.
    async fn enrolled(&self) -> anyhow::Result<Vec<Value>> {
        let selector = format!("{MODE}=ambient");
        let mut all = self.list("v1", "Namespace", Some(&selector)).await?;
        all.extend(self.list("v1", "Pod", Some(&selector)).await?);
        Ok(all)
    }

    /// Objects of a kind in the whole cluster; none where the kind is not served.
    async fn list(&self, version: &str, kind: &str, labels: Option<&str>) -> anyhow::Result<Vec<Value>> {
        let target = Target::new(version, kind, None, "")?;
        let mut all = match write::list(&self.client, &target, labels, None).await {
            Err(KubeError::NotFound { .. }) => Vec::new(),
            other => other?,
        };
        // Elements of a list do not say what they are.
        for object in &mut all {
            object["apiVersion"] = json!(version);
            object["kind"] = json!(kind);
        }
        Ok(all)
    }

    async fn all_of(&self, kinds: &[order::Written]) -> anyhow::Result<Vec<Value>> {
        let mut found = Vec::new();
        for written in kinds {
            let all = self.list(written.version, written.kind, written.labels).await?;
            found.extend(all.into_iter().filter(|object| written.is(object)));
        }
        Ok(found)
    }

    async fn leave(&self, object: &Value) -> anyhow::Result<()> {
        let change = json!({"metadata": {"labels": {MODE: null}}});
        match merge(&self.client, &Target::of(object)?, &change).await {
            Ok(_) => out::data(&format!("{} left the mesh", name_of(object))),
            // It is gone, and with it its label.
            Err(KubeError::NotFound { .. }) => {}
            Err(other) => return Err(other).with_context(|| format!("unlabelling {}", name_of(object))),
        }
        Ok(())
    }

    /// Takes what the control plane said in the status of people's objects out of them.
    async fn take_back_conditions(&self) -> anyhow::Result<()> {
        let mut count = 0_usize;
        for (version, kind) in REPORTED {
            for object in self.list(version, kind, None).await? {
                let Some(change) = order::taken_back(&object) else { continue };
                match merge_status(&self.client, &Target::of(&object)?, &change).await {
                    Ok(_) => count += 1,
                    // It is gone, and with it its status.
                    Err(KubeError::NotFound { .. }) => {}
                    Err(other) => {
                        return Err(other).with_context(|| format!("status of {}", name_of(&object)));
                    }
                }
            }
        }
        if count > 0 {
            out::data(&format!("conditions of {count} objects taken back"));
        }
        Ok(())
    }

    /// Waits until the node agents have taken their rules out of every pod.
    async fn wait_released(&self) -> anyhow::Result<()> {
        let mut captured = Vec::new();
        let mut ticks = interval(LOOK);
        let watched = async {
            loop {
                ticks.tick().await;
                let pods = self.list("v1", "Pod", None).await?;
                let now: Vec<String> = pods.iter().filter(|pod| is_captured(pod)).map(name_of).collect();
                if now.len() != captured.len() {
                    out::say(&format!("{} pods are still captured", now.len()));
                }
                captured = now;
                if captured.is_empty() {
                    return anyhow::Ok(());
                }
            }
        };
        if let Ok(done) = timeout(self.args.timeout, watched).await {
            return done;
        }
        let told = format!(
            "{} pods are still captured after {:?}: {}; is their node's ambit-cni running?",
            captured.len(),
            self.args.timeout,
            first(&captured)
        );
        if self.args.force {
            out::say(&format!("warning: {told}"));
            return Ok(());
        }
        let message = format!("{told} Nothing more was removed; repeat the command, or go on with --force");
        Err(Failure::new(out::FAILED, message).into())
    }

    /// Waits until an agent is ready on every node: each takes the CNI plugin off its own.
    async fn wait_agents(&self, ours: &[Value]) -> anyhow::Result<()> {
        for set in ours.iter().filter(|object| Phase::of(object) == Phase::Agents) {
            self.wait_agents_of(set).await?;
        }
        Ok(())
    }

    async fn wait_agents_of(&self, set: &Value) -> anyhow::Result<()> {
        let mut without = Vec::new();
        let mut ticks = interval(LOOK);
        let watched = async {
            loop {
                ticks.tick().await;
                let now = self.without_agent(set).await?;
                if now.len() > without.len() {
                    out::say(&format!("{} is not ready on: {}", name_of(set), first(&now)));
                }
                without = now;
                if without.is_empty() {
                    return anyhow::Ok(());
                }
            }
        };
        if let Ok(done) = timeout(self.args.timeout, watched).await {
            return done;
        }
        let told = format!(
            "{} is not ready after {:?} on: {}; a node without it keeps the CNI plugin and then starts no pods",
            name_of(set),
            self.args.timeout,
            first(&without)
        );
        if self.args.force {
            out::say(&format!("warning: {told}; run `ambit-cni uninstall-node` there"));
            return Ok(());
        }
        let message = format!(
            "{told}. Nothing more was removed; mend the agents or take the nodes away and repeat the command, or go on \
             with --force and run `ambit-cni uninstall-node` on these nodes"
        );
        Err(Failure::new(out::FAILED, message).into())
    }

    /// Names of the nodes that have no ready agent; a set that is gone needs none.
    async fn without_agent(&self, set: &Value) -> anyhow::Result<Vec<String>> {
        let target = Target::of(set)?;
        let Some(live) = write::get(&self.client, &target).await? else { return Ok(Vec::new()) };
        let pods = Target::new("v1", "Pod", target.namespace.as_deref(), "")?;
        let pods = write::list(&self.client, &pods, order::pods_of(&live).as_deref(), None).await?;
        let nodes = self.list("v1", "Node", Some("kubernetes.io/os=linux")).await?;
        Ok(agents::without_agent(&live, &pods, &nodes))
    }

    async fn remove(&self, ours: &[Value], phase: Phase) -> anyhow::Result<()> {
        let now: Vec<Value> = ours.iter().filter(|object| Phase::of(object) == phase).cloned().collect();
        self.delete_all(&now).await
    }

    /// Deletes objects and waits until they, and the pods of workloads, are gone.
    async fn delete_all(&self, objects: &[Value]) -> anyhow::Result<()> {
        for object in objects {
            let gone = write::delete(&self.client, &Target::of(object)?, None).await;
            if gone.with_context(|| format!("removing {}", name_of(object)))? {
                out::data(&format!("{} removed", name_of(object)));
            }
        }
        for object in objects {
            self.wait_gone(object).await?;
        }
        Ok(())
    }

    async fn wait_gone(&self, object: &Value) -> anyhow::Result<()> {
        let (target, selector) = (Target::of(object)?, order::pods_of(object));
        let mut ticks = interval(LOOK);
        let watched = async {
            loop {
                ticks.tick().await;
                if write::get(&self.client, &target).await?.is_some() {
                    continue;
                }
                let Some(selector) = &selector else { return anyhow::Ok(()) };
                let pods = Target::new("v1", "Pod", target.namespace.as_deref(), "")?;
                if write::list(&self.client, &pods, Some(selector), None).await?.is_empty() {
                    return Ok(());
                }
            }
        };
        match timeout(self.args.timeout, watched).await {
            Ok(done) => done,
            Err(_) => {
                let (name, waited) = (name_of(object), self.args.timeout);
                let message =
                    format!("{name}, or a pod of it, is still there after {waited:?}; repeat the command");
                Err(Failure::new(out::FAILED, message).into())
            }
        }
    }

    /// Removes definitions of which nobody has an object, or all with `--crds`.
    async fn remove_definitions(&self, ours: &[Value]) -> anyhow::Result<()> {
        let mut unused = Vec::new();
        for definition in ours.iter().filter(|object| object["kind"] == CRD) {
            if self.args.crds || self.objects_of(definition).await?.is_empty() {
                unused.push(definition.clone());
            }
        }
        self.delete_all(&unused).await
    }

    async fn objects_of(&self, definition: &Value) -> anyhow::Result<Vec<Value>> {
        let text = |pointer: &str| definition.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let version = format!("{}/{}", text("/spec/group"), text("/spec/versions/0/name"));
        self.list(&version, text("/spec/names/kind"), None).await
    }

    /// Removes the namespace if nobody else's pods are in it.
    async fn remove_namespace(&self, ours: &[Value]) -> anyhow::Result<()> {
        let Some(namespace) = ours.iter().find(|object| object["kind"] == "Namespace") else { return Ok(()) };
        let pods =
            write::list(&self.client, &Target::new("v1", "Pod", Some(NAMESPACE), "")?, None, None).await?;
        if !pods.is_empty() {
            out::say(&format!("namespace {NAMESPACE} stays: {} pods of others are in it", pods.len()));
            return Ok(());
        }
        self.delete_all(std::slice::from_ref(namespace)).await
    }

    /// Lists what people made and keep.
    async fn tell_left(&self) -> anyhow::Result<()> {
        for (version, kind) in USERS {
            let all = self.list(version, kind, None).await?;
            let names: Vec<String> = all.iter().map(name_of).collect();
            if !names.is_empty() {
                out::say(&format!("stays: {} of {kind}: {}", names.len(), first(&names)));
            }
        }
        Ok(())
    }
}

fn tell(enrolled: &[Value], made: &[Value], ours: &[Value]) {
    let mut rows = Vec::new();
    let mut add = |what: &str, objects: &[&Value]| {
        rows.extend(objects.iter().map(|object| vec![what.to_owned(), name_of(object)]));
    };
    let of = |phase: Phase| ours.iter().filter(|object| Phase::of(object) == phase).collect::<Vec<_>>();
    add("remove", &of(Phase::Webhook));
    add("leave the mesh", &enrolled.iter().collect::<Vec<_>>());
    add("remove", &of(Phase::ControlPlane));
    add("remove", &made.iter().collect::<Vec<_>>());
    for phase in [Phase::Agents, Phase::Tunnels, Phase::Ground] {
        add("remove", &of(phase));
    }
    add("remove if unused", &of(Phase::Last));
    if rows.is_empty() {
        return out::say("nothing of ours is in this cluster");
    }
    out::data(&out::table(&["ACTION", "OBJECT"], &rows));
}

/// Whether the node agent says that a pod is captured, or on its way; a pod that has ended is neither.
fn is_captured(pod: &Value) -> bool {
    let ended = matches!(pod.pointer("/status/phase").and_then(Value::as_str), Some("Succeeded" | "Failed"));
    !ended && pod["metadata"]["annotations"][REDIRECTION].is_string()
}

/// The first few of a list.
fn first(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}
