//! Who is to blame for a failure, and whether trying again can help.

/// The party that has to change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// The peer on the network: it is absent, broken or not who it should be.
    Peer,
    /// What a person configured: a policy, a label, a manifest.
    Configuration,
    /// The control plane: state or certificates have not arrived.
    ControlPlane,
    /// This machine: descriptors, ports, memory, kernel features.
    Local,
    /// The application inside the pod.
    Application,
}

impl Fault {
    /// Whether the same attempt may succeed later without anybody changing configuration.
    pub fn may_retry(self) -> bool {
        !matches!(self, Self::Configuration)
    }
}
