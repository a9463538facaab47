//! What the plugin and the node agent say to each other: one packet of JSON each way, the question with the pod's
//! namespace as a descriptor. Both come from the same build, and another build's packets are refused by their version.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::spec::PodRef;

/// Version of these packets.
pub const VERSION: u32 = 1;
/// Longest packet in bytes.
pub const PACKET_MAX: usize = 16 << 10;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ask {
    /// A sandbox was made; may its pod start?
    Add,
    /// A sandbox is taken down.
    Del,
    /// Is the pod as it should be?
    Check,
}

impl Ask {
    /// The word for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Del => "del",
            Self::Check => "check",
        }
    }
}

/// The question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    /// [`VERSION`].
    pub version: u32,
    /// What is asked.
    pub ask: Ask,
    /// The sandbox's container.
    pub container: String,
    /// The pod.
    pub pod: PodRef,
    /// The addresses that earlier plugins gave it.
    pub addresses: BTreeSet<IpAddr>,
}

/// Whether a pod may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It may: it is captured, or not in the mesh.
    Proceed,
    /// Not now.
    Later,
    /// Not like this.
    Refused,
}

impl Verdict {
    /// The word for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proceed => "proceed",
            Self::Later => "later",
            Self::Refused => "refused",
        }
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Whether the pod may start.
    pub verdict: Verdict,
    /// A code such as `AMB1103`, if it may not.
    pub reason: Option<String>,
    /// In words.
    pub message: String,
}

/// A packet.
///
/// # Errors
/// In words, if it would be longer than [`PACKET_MAX`].
pub fn write(of: &impl Serialize) -> Result<Vec<u8>, String> {
    let bytes = serde_json::to_vec(of).map_err(|e| e.to_string())?;
    if bytes.len() > PACKET_MAX {
        return Err(format!("{} bytes are more than a packet holds", bytes.len()));
    }
    Ok(bytes)
}

/// What a packet says.
///
/// # Errors
/// In words, if it says something else.
pub fn read<T: DeserializeOwned>(packet: &[u8]) -> Result<T, String> {
    serde_json::from_slice(packet).map_err(|e| format!("the packet cannot be read: {e}"))
}
