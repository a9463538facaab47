//! `istio.workload.Address`: a workload or a service, with the names discovery knows it by.

use std::sync::Arc;

use ambit_types::{Service, Workload};
use prost::Message;

use super::{Malformed, Notes, Problem, service, workload};
use crate::any::Any;
use crate::proto::istio::workload as wire;

/// A workload or a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A workload.
    Workload(Arc<Workload>),
    /// A service.
    Service(Arc<Service>),
}

impl Address {
    /// Name of its resource: the uid of a workload, `NAMESPACE/HOSTNAME` of a service.
    pub fn name(&self) -> String {
        match self {
            Self::Workload(workload) => workload.uid.as_str().to_owned(),
            Self::Service(service) => service.key().to_string(),
        }
    }

    /// Other names it is found by: `NETWORK/IP` of each address, `NETWORK/IP/LENGTH` of each range.
    pub fn aliases(&self) -> Vec<String> {
        match self {
            Self::Workload(workload) => {
                workload.addresses.iter().map(|ip| format!("{}/{ip}", workload.network)).collect()
            }
            Self::Service(service) => {
                let hosts = service.vips.iter().map(ToString::to_string);
                hosts.chain(service.cidr_vips.iter().map(ToString::to_string)).collect()
            }
        }
    }

    /// Writes it as a message of its type.
    pub fn encode(&self) -> Any {
        let content = match self {
            Self::Workload(each) => wire::address::Type::Workload(workload::encode(each)),
            Self::Service(each) => wire::address::Type::Service(service::encode(each)),
        };
        Any::pack(super::ADDRESS, &wire::Address { r#type: Some(content) })
    }

    /// Reads what a response carries under `name`.
    ///
    /// # Errors
    /// [`Malformed`] for bytes that are no address, an empty one, or one that [`workload::decode`] and
    /// [`service::decode`] refuse.
    pub fn decode(any: &Any, notes: &mut Notes) -> Result<Self, Malformed> {
        // The type inside the Any is not compared: the type of the response decides, as the contract says.
        let message = wire::Address::decode(any.value.clone())
            .map_err(|cause| Malformed::at("address", Problem::Encoding(cause.to_string())))?;
        match &message.r#type {
            Some(wire::address::Type::Workload(each)) => {
                Ok(Self::Workload(Arc::new(workload::decode(each, notes)?)))
            }
            Some(wire::address::Type::Service(each)) => {
                Ok(Self::Service(Arc::new(service::decode(each, notes)?)))
            }
            None => Err(Malformed::at("type", Problem::Missing)),
        }
    }
}

impl From<Workload> for Address {
    fn from(workload: Workload) -> Self {
        Self::Workload(Arc::new(workload))
    }
}

impl From<Service> for Address {
    fn from(service: Service) -> Self {
        Self::Service(Arc::new(service))
    }
}
