//! Backends, and what their references lead to.
//!
//! A reference of an unknown kind is one that cannot be sent to: its share answers 500.

use ambit_route::model::limits::{BACKENDS_MAX, WEIGHT_MAX};
use ambit_route::model::{Backend, BackendFault, Target};
use ambit_types::ServiceKey;

use super::filters;
use crate::codec::bounds::{each_of, encode_service, number, present, service, within};
use crate::codec::{Malformed, Notes, port};
use crate::proto::ambit::waypoint::v1 as wire;

/// Reads the backends of a rule or stream route.
pub(in crate::codec) fn decode(list: &[wire::Backend], notes: &mut Notes) -> Result<Vec<Backend>, Malformed> {
    each_of("backends", list, BACKENDS_MAX, |one| {
        Ok(Backend {
            target: within("target", target(present("target", one.target.as_ref())?, notes))?,
            weight: number("weight", one.weight, (0, WEIGHT_MAX))?,
            filters: filters::decode(&one.filters, notes)?,
        })
    })
}

/// Writes backends.
pub(in crate::codec) fn encode(list: &[Backend]) -> Vec<wire::Backend> {
    let one = |one: &Backend| wire::Backend {
        target: Some(encode_target(&one.target)),
        weight: one.weight,
        filters: filters::encode(&one.filters),
    };
    list.iter().map(one).collect()
}

pub(super) fn target(message: &wire::Target, notes: &mut Notes) -> Result<Target, Malformed> {
    use wire::BackendFault as Fault;
    use wire::target::Kind;
    let invalid = match &message.kind {
        Some(Kind::Service(one)) => {
            let (service, port) = within("service", service_port(one))?;
            return Ok(Target::Service { service, port });
        }
        Some(Kind::Invalid(invalid)) => invalid,
        None => {
            notes.add("target", "a reference of an unknown kind; its share answers 500");
            let what = "a reference of an unknown kind".into();
            return Ok(Target::Invalid { fault: BackendFault::InvalidKind, what });
        }
    };
    let fault = match Fault::try_from(invalid.fault) {
        Ok(Fault::BackendNotFound) => BackendFault::BackendNotFound,
        Ok(Fault::InvalidKind) => BackendFault::InvalidKind,
        Ok(Fault::RefNotPermitted) => BackendFault::RefNotPermitted,
        Ok(Fault::UnsupportedProtocol) => BackendFault::UnsupportedProtocol,
        // Whatever it is, nothing can be sent there.
        Err(_) => notes.unknown("target.invalid.fault", invalid.fault, BackendFault::InvalidKind),
    };
    Ok(Target::Invalid { fault, what: (&*invalid.what).into() })
}

pub(super) fn encode_target(target: &Target) -> wire::Target {
    use wire::target::Kind;
    let kind = match target {
        Target::Service { service, port } => Kind::Service(encode_service_port(service, *port)),
        Target::Invalid { fault, what } => {
            let fault = match fault {
                BackendFault::BackendNotFound => wire::BackendFault::BackendNotFound,
                BackendFault::InvalidKind => wire::BackendFault::InvalidKind,
                BackendFault::RefNotPermitted => wire::BackendFault::RefNotPermitted,
                BackendFault::UnsupportedProtocol => wire::BackendFault::UnsupportedProtocol,
            };
            Kind::Invalid(wire::InvalidTarget { fault: fault.into(), what: what.to_string() })
        }
    };
    wire::Target { kind: Some(kind) }
}

/// Reads a service and one of its ports.
pub(super) fn service_port(message: &wire::ServicePort) -> Result<(ServiceKey, u16), Malformed> {
    Ok((service(message.service.as_ref())?, port("port", message.port)?))
}

pub(super) fn encode_service_port(service: &ServiceKey, port: u16) -> wire::ServicePort {
    wire::ServicePort { service: Some(encode_service(service)), port: port.into() }
}
