//! Carrying an installation out: looks at what is there, writes stage by stage, and waits until each stands.

use std::time::Duration;

use ambit_kube::KubeError;
use ambit_kube::write::{self, Target};
use anyhow::Context as _;
use kube::Client;
use serde_json::Value;
use tokio::time::{interval, timeout};

use super::cluster::{MANAGER, name_of, rehearse};
use super::plan::{self, Change, Stage, change, is_ours};
use crate::bundle::{self, PART_OF};
use crate::out::{self, Failure};

/// How often a workload is looked at while it is waited for.
const LOOK: Duration = Duration::from_secs(1);
/// What is never removed by an upgrade: it would take what people made with it.
const KEPT: &[&str] = &["Namespace", "CustomResourceDefinition"];

/// One object and what becomes of it.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// When it is its turn.
    pub(crate) stage: Stage,
    /// The object.
    pub(crate) object: Value,
    /// What becomes of it.
    pub(crate) change: Change,
}

/// What applying `objects` would change, in order; nothing is changed.
///
/// # Errors
/// When the API server does not answer, or refuses one of them.
pub(crate) async fn look(client: &Client, objects: &[Value]) -> anyhow::Result<Vec<Step>> {
    let mut steps = Vec::new();
    for object in objects {
        let live = get(client, object).await?;
        let (object, would) = match &live {
            Some(live) => {
                let object = plan::over(object, live);
                let would = rehearse(client, &object).await?;
                (object, would)
            }
            None => (object.clone(), None),
        };
        let change = change(&object, live.as_ref(), would.as_ref());
        steps.push(Step { stage: Stage::of(&object), object, change });
    }
    steps.extend(unwanted(client, objects).await?);
    steps.sort_by_key(|step| step.stage);
    Ok(steps)
}

/// The live object; none if it, or its kind, is not there.
async fn get(client: &Client, object: &Value) -> anyhow::Result<Option<Value>> {
    let target = Target::of(object)?;
    write::get(client, &target).await.with_context(|| format!("looking for {}", name_of(object)))
}

/// Ours that an earlier version or other settings installed, and `objects` does not hold.
async fn unwanted(client: &Client, objects: &[Value]) -> anyhow::Result<Vec<Step>> {
    let key = |object: &Value| (object["kind"].clone(), name_of(object));
    let wanted: Vec<_> = objects.iter().map(key).collect();
    let mut gone = Vec::new();
    for known in bundle::everything()? {
        let is_kept = known["kind"].as_str().is_some_and(|kind| KEPT.contains(&kind));
        if is_kept || wanted.contains(&key(&known)) {
            continue;
        }
        if let Some(live) = get(client, &known).await?
            && is_ours(&live)
        {
            gone.push(Step { stage: Stage::of(&live), object: live, change: Change::Remove });
        }
    }
    Ok(gone)
}

/// Says no while an object is somebody else's that cannot be shared.
///
/// # Errors
/// [`Failure`] with every one of them.
pub(crate) fn check(steps: &[Step]) -> anyhow::Result<()> {
    let clashes: Vec<String> =
        steps.iter().filter(|s| s.change == Change::Clash).map(|s| name_of(&s.object)).collect();
    if clashes.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        out::FAILED,
        format!(
            "nothing was changed: these objects belong to another installation (they lack the label {}={}): {}; \
             remove it first, Istio's for one with `istioctl uninstall`",
            PART_OF.0,
            PART_OF.1,
            clashes.join(", ")
        ),
    )
    .into())
}

/// Carries the steps out, stage by stage; each stage stands before the next begins.
///
/// # Errors
/// The first thing that does not work; what was done stays done, and it may be repeated.
pub(crate) async fn carry_out(client: &Client, steps: &[Step], patience: Duration) -> anyhow::Result<()> {
    let mut rest = steps;
    while let Some(first) = rest.first() {
        let count = rest.iter().take_while(|step| step.stage == first.stage).count();
        let (now, later) = rest.split_at(count);
        for step in now {
            act(client, step).await?;
        }
        for step in now.iter().filter(|step| !matches!(step.change, Change::Remove | Change::Leave)) {
            stand(client, &step.object, patience).await?;
        }
        rest = later;
    }
    Ok(())
}

async fn act(client: &Client, step: &Step) -> anyhow::Result<()> {
    let name = name_of(&step.object);
    match &step.change {
        Change::Create | Change::Update(_) => {
            match write::apply(client, MANAGER, &step.object, true).await {
                Ok(_) => {}
                // Its definition belongs to the cluster: everything else works without.
                Err(KubeError::NotFound { .. }) if step.stage == Stage::Around => {
                    let kind = step.object["kind"].as_str().unwrap_or_default();
                    let why =
                        format!("this cluster has no {kind}; see docs/install.md, and repeat the command");
                    out::say(&format!("{name} is left out: {why}"));
                    return Ok(());
                }
                Err(error) => return Err(error).with_context(|| format!("applying {name}")),
            }
            let done = if step.change == Change::Create { "created" } else { "changed" };
            out::data(&format!("{name} {done}"));
        }
        Change::Remove => {
            write::delete(client, &Target::of(&step.object)?, None).await?;
            out::data(&format!("{name} removed"));
        }
        Change::Keep => {}
        Change::Leave => out::say(&format!("{name} is somebody else's and stays as it is")),
        Change::Clash => anyhow::bail!("{name} belongs to another installation"),
    }
    Ok(())
}

/// Waits until an object does its work.
///
/// # Errors
/// [`Failure`] when it does not in time, with what it lacks.
pub(crate) async fn stand(client: &Client, object: &Value, patience: Duration) -> anyhow::Result<()> {
    let lacks: fn(&Value) -> Option<String> = match object["kind"].as_str() {
        Some("Deployment" | "DaemonSet") => plan::pending,
        Some("CustomResourceDefinition") => |live| {
            let conditions = live.pointer("/status/conditions").and_then(Value::as_array);
            let is_served = |c: &Value| c["type"] == "Established" && c["status"] == "True";
            let served = conditions.is_some_and(|all| all.iter().any(is_served));
            (!served).then(|| "it is not served yet".to_owned())
        },
        Some(_) | None => return Ok(()),
    };
    let name = name_of(object);
    let mut told = None;
    let mut ticks = interval(LOOK);
    let watched = async {
        loop {
            ticks.tick().await;
            let live = get(client, object).await?;
            let Some(missing) = live.as_ref().map_or_else(|| Some("it is gone".to_owned()), lacks) else {
                return anyhow::Ok(());
            };
            if told.as_ref() != Some(&missing) {
                out::say(&format!("waiting for {name}: {missing}"));
                told = Some(missing);
            }
        }
    };
    if let Ok(result) = timeout(patience, watched).await {
        return result;
    }
    let why = told.unwrap_or_else(|| "it was not seen".to_owned());
    let hint = match object["kind"].as_str() {
        Some("Deployment" | "DaemonSet") => {
            "; see `kubectl -n istio-system describe pods`, then repeat the command"
        }
        Some(_) | None => "",
    };
    Err(Failure::new(out::FAILED, format!("{name} does not stand after {patience:?}: {why}{hint}")).into())
}

/// A plan as a table, with every change of a field and what restarts.
pub(crate) fn shown(steps: &[Step]) -> String {
    let rows: Vec<Vec<String>> = steps
        .iter()
        .filter(|step| step.change != Change::Keep)
        .map(|step| {
            vec![step.stage.as_str().to_owned(), step.change.as_str().to_owned(), name_of(&step.object)]
        })
        .collect();
    if rows.is_empty() {
        return "nothing to change\n".to_owned();
    }
    let mut text = out::table(&["STAGE", "ACTION", "OBJECT"], &rows);
    for step in steps {
        let Change::Update(found) = &step.change else { continue };
        text.push_str(&format!("\n{}\n", name_of(&step.object)));
        for difference in found {
            let side = |value: &Option<String>| value.clone().unwrap_or_else(|| "(nothing)".to_owned());
            let (before, after) = (side(&difference.before), side(&difference.after));
            text.push_str(&format!("  {}: {before} -> {after}\n", difference.path));
        }
        if let Some(what) = plan::restarts(&step.object, &step.change) {
            text.push_str(&format!("  restarts: {what}\n"));
        }
    }
    text
}
