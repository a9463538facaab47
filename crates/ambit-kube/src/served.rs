//! Objects as an API server serves them, read as manifests are.

use ambit_manifest::{Located, Problem};
use serde_json::Value;

/// Reads one object. What a newer server adds is passed over; `metadata.managedFields` is dropped.
///
/// # Errors
/// Everything about it that cannot be read; the version before it should stay in force.
pub fn read(value: Value) -> Result<Located, Vec<Problem>> {
    ambit_manifest::read_served(value)
}
