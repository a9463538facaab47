//! `ambit explain … --bundle FILE`: the objects of a support bundle, compiled as the control plane compiles them, and the
//! engine of the proxies on that.
//!
//! What no object says is not known here: certificates, settings of proxies, and what had not reached a proxy yet.

use std::path::Path;

use ambit_explain::{Compiled, Explanation, Question, explain};
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
    let anywhere = explain(&Compiled::of(&index, "").view(), &question);
    // Pods of one node are joined without a tunnel, which only that node's proxy plans.
    Ok(match &anywhere.source_node {
        Some(node) => explain(&Compiled::of(&index, node).view(), &question),
        None => anywhere,
    })
}

#[cfg(test)]
mod tests;
