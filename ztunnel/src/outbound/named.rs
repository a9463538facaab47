//! To a workload that has a host name instead of an address: ask DNS, judge what it answers, connect.
//!
//! The name is resolved at every connection, by nameservers that are asked from within the client's pod; what they
//! answered is kept no longer than they said. What is not resolved is refused, with the nameserver's word in the record.

use std::net::IpAddr;
use std::sync::Arc;

use ambit_net::dns::DnsError;
use ambit_state::plan::outbound::{ByName, plan_named};
use ambit_types::service::IpFamily;
use ambit_types::{Reason, TunnelProtocol};

use super::{ATTEMPT_TIMEOUT, Captured, Reached, Unreached};
use crate::admit::describe;
use crate::flow::{End, Flow, Path, Route};

impl Captured<'_> {
    /// To where the workload's name leads now; `others` says whether another endpoint is left to try.
    pub(super) async fn named(&self, by: &ByName, others: bool) -> Result<Reached, (Flow, Unreached)> {
        let resolving = self.resolved(by);
        let resolved = match others {
            true => tokio::time::timeout(ATTEMPT_TIMEOUT, resolving)
                .await
                .unwrap_or_else(|_| Err(DnsError::Late { host: by.host.clone(), waited: ATTEMPT_TIMEOUT })),
            false => resolving.await,
        };
        let addresses = match resolved {
            Ok(addresses) => addresses,
            Err(error) => return Err(self.unnamed(by, error.reason(), describe(&error))),
        };
        let planned = plan_named(&self.proxy.mesh.snapshot(), &self.facts(&[]), by, &addresses);
        let hop = match planned {
            Ok(hop) => hop,
            Err(refusal) => return Err(self.unnamed(by, refusal.reason, refusal.to_string())),
        };
        match hop.workload.tunnel {
            TunnelProtocol::Hbone => self.hbone(&hop, others).await,
            // The plan has refused what is not spoken here.
            TunnelProtocol::None | TunnelProtocol::LegacyIstioMtls => self.plaintext(&hop, others).await,
        }
    }

    /// What the name resolves to: addresses of the family the application asked for, of the other one if it has none.
    async fn resolved(&self, by: &ByName) -> Result<Arc<[IpAddr]>, DnsError> {
        let ipv6 = self.proxy.settings.ipv6;
        let mut failed = None;
        for family in by.families(self.dst.ip()).filter(|family| ipv6 || *family == IpFamily::V4) {
            match self.pod.resolver.resolve(&by.host, family).await {
                Ok(addresses) if addresses.is_empty() => {}
                Ok(addresses) => return Ok(addresses),
                // A nameserver that fails for one family may answer for the other.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(failed.unwrap_or_else(|| DnsError::NoAddress { host: by.host.clone() }))
    }

    /// The record of a connection whose endpoint has no address; another endpoint may have one.
    fn unnamed(&self, by: &ByName, reason: Reason, error: String) -> (Flow, Unreached) {
        let path = match by.workload.tunnel {
            TunnelProtocol::Hbone => Path::Hbone,
            TunnelProtocol::None | TunnelProtocol::LegacyIstioMtls => Path::Plaintext,
        };
        let route = Route {
            dst: End { addr: Some(self.dst), workload: Some(by.workload.clone()), ..End::default() },
            service: by.service.as_ref().map(|service| service.key()),
            service_name: by.service.as_ref().map(|service| service.name.clone()),
            ..Route::default()
        };
        (self.flow(path, route), Unreached { reason, error, policy: None, retry: true, early: false })
    }
}
