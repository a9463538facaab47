//! The name of a lab and of the namespaces that belong to it.
//!
//! A name is checked once, here, so that no lab can own or remove a namespace of another one.

use std::fmt;
use std::str::FromStr;

/// The longest name of a lab, in bytes; the rest of a namespace's file name holds node, namespace and pod.
pub const NAME_BYTES_MAX: usize = 32;

/// The kinds of namespace a lab has; a lab's own name may not hold one of them as a word.
const KINDS: [&str; 3] = ["fabric", "node", "pod"];

/// Why a text cannot be the name of a lab.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Wrong length or characters.
    #[error(
        "lab name {0:?} must be 1 to {NAME_BYTES_MAX} lower-case letters, digits and single dashes inside; try \"lab\""
    )]
    Shape(String),
    /// A word that names a kind of namespace.
    #[error(
        "lab name {0:?} holds the word {1:?}, which would make its namespaces look like another lab's; leave it out"
    )]
    Reserved(String, &'static str),
}

/// The name of a lab: 1 to 32 lower-case letters, digits and dashes. Default `lab`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LabName(String);

impl LabName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A command of this lab as somebody types it.
    pub fn command(&self, words: &str) -> String {
        if *self == Self::default() {
            return format!("ambit lab {words}");
        }
        format!("ambit lab {words} --name {self}")
    }

    /// Namespace of the fabric, which holds `br0` and the control plane.
    pub fn fabric(&self) -> String {
        format!("{}-fabric", self.0)
    }

    /// Namespace of a node.
    pub fn node(&self, node: &str) -> String {
        format!("{}-node-{node}", self.0)
    }

    /// Namespace of a pod.
    pub fn pod(&self, namespace: &str, pod: &str) -> String {
        format!("{}-pod-{namespace}-{pod}", self.0)
    }

    /// Whether a namespace's file name belongs to this lab.
    pub fn owns(&self, netns: &str) -> bool {
        let Some(rest) = netns.strip_prefix(self.as_str()).and_then(|r| r.strip_prefix('-')) else {
            return false;
        };
        rest == "fabric" || rest.starts_with("node-") || rest.starts_with("pod-")
    }
}

impl FromStr for LabName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let shaped = text.len() <= NAME_BYTES_MAX
            && text.split('-').all(|word| !word.is_empty() && word.chars().all(plain));
        if !shaped {
            return Err(NameError::Shape(text.to_owned()));
        }
        if let Some(kind) = KINDS.into_iter().find(|kind| text.split('-').any(|word| word == *kind)) {
            return Err(NameError::Reserved(text.to_owned(), kind));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Default for LabName {
    fn default() -> Self {
        Self("lab".to_owned())
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
