//! Clients and servers of `AggregatedDiscoveryService`, `IstioCertificateService` and `Observer`, as generated.
//!
//! The messages are those of [`ambit_xds::proto`].
#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::too_many_lines,
    reason = "generated; the words are in the .proto files"
)]

include!(concat!(env!("OUT_DIR"), "/services.rs"));

pub use ambit::observe::v1::{observer_client, observer_server};
pub use envoy::service::discovery::v3::{
    aggregated_discovery_service_client, aggregated_discovery_service_server,
};
pub use istio::v1::auth::{istio_certificate_service_client, istio_certificate_service_server};
