//! One change that discovery asks for. The codec's own types are mapped to it by the program.

use std::sync::Arc;

use ambit_policy::model::{Policy, Scope};
use ambit_types::{PolicyKey, Service, Workload};

/// One change of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A workload as it is from now on.
    Workload(Arc<Workload>),
    /// A service as it is from now on.
    Service(Arc<Service>),
    /// A policy as it is from now on.
    Policy(Arc<Policy>),
    /// A policy was sent that cannot be used.
    ///
    /// A good version held before stays in force. Without one, the workloads it may cover refuse everything
    /// (AMB2105) until a good version or a removal arrives.
    PolicyRejected {
        /// Its key, from the resource name.
        key: PolicyKey,
        /// Which workloads it covers, as far as that could be read; unknown counts as the whole mesh.
        scope: Option<Scope>,
    },
    /// A policy that is held has gone out of force by itself: a pass (break-glass) whose time is over.
    ///
    /// It decides nothing from then on, and is not missing either where a workload names it, until it is sent anew.
    PolicyEnded(PolicyKey),
    /// The workload with this uid, or else the service `NAMESPACE/HOSTNAME`, is gone.
    RemoveAddress(String),
    /// The policy `NAMESPACE/NAME` is gone.
    RemovePolicy(String),
}

impl Change {
    /// Whether the change takes something away; such changes of a batch are applied first.
    pub fn is_removal(&self) -> bool {
        match self {
            Self::RemoveAddress(_) | Self::RemovePolicy(_) => true,
            Self::Workload(_)
            | Self::Service(_)
            | Self::Policy(_)
            | Self::PolicyRejected { .. }
            | Self::PolicyEnded(_) => false,
        }
    }
}

impl From<Workload> for Change {
    fn from(workload: Workload) -> Self {
        Self::Workload(Arc::new(workload))
    }
}

impl From<Service> for Change {
    fn from(service: Service) -> Self {
        Self::Service(Arc::new(service))
    }
}

impl From<Policy> for Change {
    fn from(policy: Policy) -> Self {
        Self::Policy(Arc::new(policy))
    }
}
