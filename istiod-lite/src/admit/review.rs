//! AdmissionReview (`admission.k8s.io/v1`), of which only what is decided by is read.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::judge::{Cause, Verdict};

/// The one version that is spoken.
pub(super) const API_VERSION: &str = "admission.k8s.io/v1";
/// Its kind.
pub(super) const KIND: &str = "AdmissionReview";
/// Longest uid that is given back.
const UID_BYTES_MAX: usize = 256;
/// Most causes that are listed one by one for programs.
const CAUSES_MAX: usize = 64;

/// A question.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Review {
    /// `admission.k8s.io/v1`.
    #[serde(default)]
    pub api_version: String,
    /// `AdmissionReview`.
    #[serde(default)]
    pub kind: String,
    /// What is asked; an answer has none.
    pub request: Option<Request>,
}

/// What is asked.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Number of the question, which the answer repeats.
    pub uid: String,
    /// What somebody does.
    #[serde(default)]
    pub operation: Operation,
    /// The part that is written, such as `status`; the object itself if it is empty.
    #[serde(default)]
    pub sub_resource: String,
    /// The object as it would be.
    #[serde(default)]
    pub object: Value,
    /// The object as it is.
    #[serde(default)]
    pub old_object: Value,
}

/// What somebody does.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operation {
    /// A new object.
    Create,
    /// A changed object.
    Update,
    /// Something that writes nothing to be judged: a deletion, a connection, or what a newer API server has.
    #[default]
    #[serde(other)]
    Other,
}

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    api_version: &'static str,
    kind: &'static str,
    response: Response,
}

#[derive(Debug, Serialize)]
struct Response {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Status {
    status: &'static str,
    code: u16,
    reason: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
}

#[derive(Debug, Serialize)]
struct Details {
    causes: Vec<Cause>,
}

impl Request {
    /// Whether its uid can be given back.
    pub(super) fn has_uid(&self) -> bool {
        !self.uid.is_empty() && self.uid.len() <= UID_BYTES_MAX
    }
}

impl Answer {
    /// The answer to a question.
    pub(super) fn new(uid: String, verdict: Verdict) -> Self {
        let response = match verdict {
            Verdict::Allowed { warnings } => Response { uid, allowed: true, status: None, warnings },
            Verdict::Refused { code, reason, message, mut causes } => {
                causes.truncate(CAUSES_MAX);
                let details = (!causes.is_empty()).then_some(Details { causes });
                let status = Status { status: "Failure", code, reason, message, details };
                Response { uid, allowed: false, status: Some(status), warnings: Vec::new() }
            }
        };
        Self { api_version: API_VERSION, kind: KIND, response }
    }
}
