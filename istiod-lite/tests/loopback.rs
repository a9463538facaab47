//! The control plane as its clients see it: real TLS and gRPC on 127.0.0.1 against a folder of manifests.

#[cfg(test)]
#[path = "loopback/admission.rs"]
mod admission;
#[cfg(test)]
#[path = "loopback/attend.rs"]
mod attend;
#[cfg(test)]
#[path = "loopback/certificates.rs"]
mod certificates;
#[cfg(test)]
#[path = "loopback/discovery.rs"]
mod discovery;
#[cfg(test)]
#[path = "loopback/plane.rs"]
mod plane;
#[cfg(test)]
#[path = "loopback/waypoints.rs"]
mod waypoints;
