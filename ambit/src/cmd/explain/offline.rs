//! `ambit explain … --bundle FILE`: the objects of a support bundle, compiled as the control plane compiles them, and the
//! engine of the proxies on that.
//!
//! What no object says is not known here: certificates, settings of proxies, and what had not reached a proxy yet. The
//! time is that of the bundle, so that a break-glass that was open then is.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use ambit_explain::{Compiled, Explanation, Question, explain};
use ambit_runtime::clock;
use serde_json::Value;

use crate::cmd::bundle;
use crate::cmd::objects::Objects;
use crate::out::{self, Failure};

/// What would happen in the mesh that a support bundle is of.
///
/// # Errors
/// When the file is no support bundle, its objects make no mesh, or the question is none.
pub(super) fn explained(file: &Path, question: Value) -> anyhow::Result<Explanation> {
    let question: Question =
        serde_json::from_value(question).map_err(|error| Failure::new(out::USAGE, error.to_string()))?;
    question.check().map_err(|error| Failure::new(out::USAGE, error.to_string()))?;
    let index = Objects::of_served(bundle::objects_of(file)?)?.index()?;
    let wall = made(file);
    let anywhere = explain(&Compiled::of(&index, "", wall).view(), &question);
    // Pods of one node are joined without a tunnel, which only that node's proxy plans.
    Ok(match &anywhere.source_node {
        Some(node) => explain(&Compiled::of(&index, node, wall).view(), &question),
        None => anywhere,
    })
}

/// When a bundle was made, since 1970; now if it does not tell.
fn made(file: &Path) -> Duration {
    let made = bundle::made(file).unwrap_or_else(|| {
        out::say("warning: the bundle does not say when it was made; break-glass policies are judged by the time now");
        clock::wall()
    });
    made.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
