//! One flow record, as ztunnel and waypoint answer it at `/flows` and the control plane gathers it.

use std::net::SocketAddr;

use ambit_route::Hidden;
use ambit_types::{Identity, Reason};
use serde::{Deserialize, Serialize};

use crate::explanation::Verdict;
use crate::question::{Destination, HttpQuestion, Question, QuestionError, Source};

/// Longest text of a request that is whole for certain, in bytes: waypoints cut at 256, between two characters.
const WHOLE_BYTES_MAX: usize = 252;

/// Codes of refusals by rules. Those for other reasons say nothing of what the rules would have said.
const BY_RULES: [Reason; 17] = [
    Reason::ForwardedIdentityRefused,
    Reason::DenyRuleMatched,
    Reason::PolicyDenied,
    Reason::PolicyUnresolved,
    Reason::PolicyUnevaluable,
    Reason::PolicyChanged,
    Reason::HttpDenyRuleMatched,
    Reason::HttpPolicyDenied,
    Reason::TokenRejected,
    Reason::ExtAuthzDenied,
    Reason::RequestAmbiguous,
    Reason::PlaintextRefused,
    Reason::MeshedSourcePlaintext,
    Reason::RouteNotFound,
    Reason::EgressDenied,
    Reason::WaypointUnbound,
    Reason::WaypointBypassed,
];

/// One record. Fields that a record does not have are empty; those that are not here are passed over.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Flow {
    /// When it ended, RFC 3339.
    pub time: String,
    /// Node, or waypoint, that wrote it.
    pub node: String,
    /// `inbound` or `outbound`.
    pub direction: Option<String>,
    /// `allowed` or `denied`.
    pub verdict: String,
    /// Whether it had been let in, however it ended; not everybody tells it.
    pub opened: Option<bool>,
    /// The code, such as `AMB2104`.
    pub code: Option<String>,
    /// The policy that decided.
    pub policy: Option<String>,
    /// Its rule.
    pub rule: Option<usize>,
    /// How it was carried.
    pub path: String,
    /// The same in the records of all proxies on the way.
    pub conn_id: String,
    /// Who called.
    pub src: FlowEnd,
    /// On whose behalf, where a waypoint called.
    pub client: Option<String>,
    /// Who was called.
    pub dst: FlowEnd,
    /// Host name of the service that was meant.
    pub service: Option<String>,
    /// Address and port that the tunnel was asked for.
    pub hbone_addr: Option<String>,
    /// What is told of a request.
    pub http: Option<FlowHttp>,
    /// How many connections it stands for; one unless it is an aggregate.
    #[serde(default = "one")]
    pub connections: u64,
}

/// One end of a record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowEnd {
    /// Address and port.
    pub addr: Option<String>,
    /// Name of the pod; one of them, in an aggregate.
    pub workload: Option<String>,
    /// Name of its controller, else its own; only aggregates tell it.
    pub controller: Option<String>,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its identity, where it was proven.
    pub identity: Option<String>,
}

/// What a waypoint's record tells of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowHttp {
    /// Method.
    pub method: String,
    /// Path, without its query.
    pub path: String,
    /// Host.
    pub authority: String,
    /// Status of the answer.
    pub status: u16,
}

fn one() -> u64 {
    1
}

impl Flow {
    /// Reads a line of `/flows`; none for its footer, and for what is no record.
    pub fn read(line: &str) -> Option<Self> {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        value.get("verdict")?;
        serde_json::from_value(value).ok()
    }

    /// Whether it went through.
    pub fn is_allowed(&self) -> bool {
        self.verdict == "allowed"
    }

    /// Whether it was let in, also if it was cut later.
    pub fn was_let_in(&self) -> bool {
        self.opened.unwrap_or_else(|| self.is_allowed())
    }

    /// Whether it was let in and a change of policy has cut it since (AMB2107): the rules refuse it now.
    pub fn is_cut_by_policy(&self) -> bool {
        self.was_let_in() && self.reason() == Some(Reason::PolicyChanged)
    }

    /// Whether it was let in and no change of policy has taken that back. A connection that was cut for another reason
    /// counts: a drain (AMB7006), a peer that went silent.
    pub fn is_let_in(&self) -> bool {
        (self.is_allowed() || self.was_let_in()) && !self.is_cut_by_policy()
    }

    /// Whether only an open break-glass let it in: no rule did.
    pub fn is_by_breakglass(&self) -> bool {
        self.reason() == Some(Reason::BreakglassAdmitted)
    }

    /// Whether it was let in as the rules have it, without a break-glass, and they have not been changed against it.
    pub fn is_let_in_by_rules(&self) -> bool {
        self.is_let_in() && !self.is_by_breakglass()
    }

    /// What the rules said of it; none where something else decided: a break-glass, or a failure before they were asked.
    pub(crate) fn told_by_rules(&self) -> Option<Verdict> {
        let reason = self.reason();
        if self.is_by_breakglass() {
            return None;
        }
        if !self.is_allowed() && reason.is_some_and(|reason| BY_RULES.contains(&reason)) {
            return Some(Verdict::Deny);
        }
        self.was_let_in().then_some(Verdict::Allow)
    }

    /// What it does not tell of its request, beyond what no record tells.
    pub(crate) fn hidden(&self) -> Hidden {
        let is_whole = |text: &str| text.len() <= WHOLE_BYTES_MAX;
        match &self.http {
            Some(http) => Hidden {
                host: http.authority.is_empty() || !is_whole(&http.authority),
                request: !is_whole(&http.path) || !is_whole(&http.method),
            },
            None => Hidden { host: true, request: true },
        }
    }

    /// Its code.
    pub fn reason(&self) -> Option<Reason> {
        self.code.as_deref().and_then(|code| code.parse().ok())
    }

    /// The proven identity of who called.
    pub fn source_identity(&self) -> Option<Identity> {
        self.src.identity.as_deref().and_then(|text| Identity::parse(text).ok())
    }

    /// The same again, as a question: from the workload that called, to what it asked for.
    ///
    /// # Errors
    /// [`QuestionError::Incomplete`] says what is missing.
    pub fn question(&self) -> Result<Question, QuestionError> {
        let source = self.src.source().ok_or(QuestionError::Incomplete("who called"))?;
        let http = self.http.as_ref().map(|http| HttpQuestion {
            method: http.method.clone(),
            path: http.path.clone(),
            host: Some(http.authority.clone()).filter(|host| !host.is_empty()),
            headers: Vec::new(),
        });
        let client = self.client.as_deref().and_then(|text| Identity::parse(text).ok());
        Ok(Question { source, destination: self.destination()?, http, draw: 0, client })
    }

    fn destination(&self) -> Result<Destination, QuestionError> {
        let missing = QuestionError::Incomplete("who was called, or at which port");
        let asked = self.hbone_addr.as_deref().or(self.dst.addr.as_deref());
        let asked = asked.ok_or_else(|| missing.clone())?;
        match asked.parse::<SocketAddr>() {
            Ok(address) => Ok(Destination::Address(address)),
            Err(_) => asked.parse().map_err(|_| missing),
        }
    }
}

impl FlowEnd {
    fn source(&self) -> Option<Source> {
        let text = |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(Into::into);
        match (text(&self.namespace), text(&self.workload).or_else(|| text(&self.controller))) {
            (Some(namespace), Some(name)) => Some(Source::Named { namespace, name }),
            _ => {
                let address: SocketAddr = self.addr.as_deref()?.parse().ok()?;
                Some(Source::Address(address.ip().to_canonical()))
            }
        }
    }
}
