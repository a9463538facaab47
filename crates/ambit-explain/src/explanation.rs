//! The answer: the verdict, what decided it, and the way there.
//!
//! The JSON is part of the envelope `cli.ambit.internal/v1`, kind `Explanation`: keys are those of the fields here in
//! snake case, what does not apply is `null` or an empty list.

use std::fmt;
use std::net::SocketAddr;

use ambit_types::{PolicyKey, Reason};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What happens, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Who calls, as it was found: `shop/web-1`, or an address.
    pub source: String,
    /// Whom, as it was asked for.
    pub destination: String,
    /// Method and path of the request asked about.
    pub request: Option<String>,
    /// Whether the connection, and the request if there is one, goes through.
    pub verdict: Verdict,
    /// The code that its record would have; also of what went through and is worth knowing.
    pub reason: Option<Code>,
    /// The policy and rule that decided.
    pub decided_by: Option<DecidedBy>,
    /// The rule that came nearest to deciding otherwise.
    pub nearest: Option<Nearest>,
    /// The status that an HTTP client gets, if the mesh answers itself.
    pub status: Option<u16>,
    /// How the connection is carried from the source.
    pub way: Option<Way>,
    /// The rule and backend that the waypoint chooses.
    pub route: Option<Routed>,
    /// The workload that it ends at, as `NS/NAME`.
    pub endpoint: Option<String>,
    /// The node of that workload.
    pub endpoint_node: Option<String>,
    /// The node of the caller's workload.
    pub source_node: Option<String>,
    /// The way, in the order in which it is gone.
    pub hops: Vec<Hop>,
    /// What had to be assumed because nobody here can know it.
    pub assumed: Vec<String>,
    /// The second leg, of what goes through a waypoint that is known.
    pub onward: Option<Onward>,
}

/// A waypoint's own connection to the endpoint that it chose: what the endpoint's proxy can be asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Onward {
    /// Key of the waypoint's instance.
    pub waypoint: String,
    /// Address and port of the application.
    pub address: SocketAddr,
    /// On whose behalf it calls, as a SPIFFE ID.
    pub client: String,
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It goes through.
    Allow,
    /// It is refused.
    Deny,
}

/// A reason code. In JSON: `{"code": "AMB2104", "name": "policy-denied"}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(pub Reason);

/// What decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecidedBy {
    /// The policy, as `NS/NAME`.
    #[serde(with = "key")]
    pub policy: PolicyKey,
    /// Its rule that agreed, counted from 0; none if the policy decides by being there.
    pub rule: Option<usize>,
}

/// The rule that came nearest to deciding otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nearest {
    /// Its policy.
    #[serde(with = "key")]
    pub policy: PolicyKey,
    /// The rule, counted from 0.
    pub rule: usize,
    /// How many of its conditions hold.
    pub met: usize,
    /// How many it has.
    pub total: usize,
    /// What would have to be so, in one sentence.
    pub sentence: String,
}

/// How a connection is carried from the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Joined in the process, on one node.
    Local,
    /// Through a tunnel to the endpoint.
    Hbone,
    /// Through a tunnel to the waypoint.
    Waypoint,
    /// Plain, to a workload outside the tunnel or from somebody outside the mesh.
    Plaintext,
    /// Plain, to somewhere that the mesh does not know.
    Passthrough,
    /// A probe of the node.
    Probe,
}

/// What the waypoint chose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routed {
    /// The route, as `NS/NAME`; none if no route is attached to the service.
    pub route: Option<String>,
    /// Its rule, counted from 0.
    pub rule: Option<usize>,
    /// The service it is sent to, as `NS/HOST:PORT`.
    pub backend: Option<String>,
    /// Other backends that a request may be sent to, if the draw had been another.
    pub others: Vec<String>,
}

/// One step of the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hop {
    /// Which step.
    pub step: Step,
    /// What came of it.
    pub outcome: Outcome,
    /// What was found, in one line.
    pub what: String,
    /// The code, if there is one.
    pub reason: Option<Code>,
    /// More of it, a line each.
    pub details: Vec<String>,
    /// The policies that were compared here, in the order of evaluation.
    pub policies: Vec<PolicyConsidered>,
}

/// The steps of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Whether the source is of the mesh, so that its connection is captured.
    Capture,
    /// What the destination is to the source, and which endpoint is chosen.
    Service,
    /// Which waypoint has to be passed, or why none.
    Waypoint,
    /// How the connection is carried to the next proxy.
    Tunnel,
    /// Whether its certificates allow that.
    Certificate,
    /// Whether the next proxy takes it.
    Admission,
    /// Policies of the waypoint, for the connection or the request.
    WaypointPolicy,
    /// Where the waypoint sends it.
    Route,
    /// Policies at the destination.
    Policy,
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It goes on.
    Passed,
    /// It ends here.
    Refused,
    /// The step does not apply.
    Skipped,
    /// It cannot be known here.
    Unknown,
}

/// A policy that was compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyConsidered {
    /// Its key.
    #[serde(with = "key")]
    pub policy: PolicyKey,
    /// What it does when it matches.
    pub action: Action,
    /// Whether it is only recorded.
    pub dry_run: bool,
    /// Its rules that agree, counted from 0.
    pub agrees: Vec<usize>,
    /// How many rules it has.
    pub rules: usize,
}

/// What a policy does when it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Permits.
    Allow,
    /// Refuses.
    Deny,
    /// Marks.
    Audit,
    /// Asks a provider.
    Custom,
}

impl Explanation {
    /// Whether it goes through.
    pub fn is_allow(&self) -> bool {
        match self.verdict {
            Verdict::Allow => true,
            Verdict::Deny => false,
        }
    }

    /// The code as a reason.
    pub fn code(&self) -> Option<Reason> {
        self.reason.map(|code| code.0)
    }

    /// The hop of a step, the first if there are several.
    pub fn hop(&self, step: Step) -> Option<&Hop> {
        self.hops.iter().find(|hop| hop.step == step)
    }
}

impl Step {
    /// The name used in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Service => "service",
            Self::Waypoint => "waypoint",
            Self::Tunnel => "tunnel",
            Self::Certificate => "certificate",
            Self::Admission => "admission",
            Self::WaypointPolicy => "waypoint policy",
            Self::Route => "route",
            Self::Policy => "policy",
        }
    }
}

impl Way {
    /// The name used in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Hbone => "hbone",
            Self::Waypoint => "waypoint",
            Self::Plaintext => "plaintext",
            Self::Passthrough => "passthrough",
            Self::Probe => "probe",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
            Self::Audit => "AUDIT",
            Self::Custom => "CUSTOM",
        })
    }
}

impl fmt::Display for DecidedBy {
    /// `shop/web rule 0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.policy)?;
        self.rule.map_or(Ok(()), |rule| write!(f, " rule {rule}"))
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut code = serializer.serialize_struct("Code", 2)?;
        code.serialize_field("code", self.0.code())?;
        code.serialize_field("name", self.0.name())?;
        code.end()
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// The one field that says it all.
        #[derive(Deserialize)]
        struct Written {
            code: String,
        }
        let Written { code } = Written::deserialize(deserializer)?;
        code.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// A policy's key as text.
mod key {
    use ambit_types::PolicyKey;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(key: &PolicyKey, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(key)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PolicyKey, D::Error> {
        let text = String::deserialize(deserializer)?;
        PolicyKey::parse(&text).map_err(serde::de::Error::custom)
    }
}
