//! The service that leads to the control planes: one address that every node and pod calls, whatever serves behind it.
//!
//! The control planes are processes in the fabric and no pods, so the lab writes their endpoints itself.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::api::{self, Api, Patch, Refusal};
use super::{NAMESPACE, spec};
use crate::address::{Families, ISTIOD_PORT, WEBHOOK_PORT, service_cidrs};
use crate::config::LabConfig;
use crate::schedule::endpoints::{OWNER_LABEL, SERVICE_LABEL};
use crate::schedule::services::family_of;
use crate::store::{Kind, ObjectKey};

/// Name of the service, and of its slice.
pub const SERVICE: &str = "istiod";
/// Its address by its place in the first service range: below what is given out unasked.
const OFFSET: u8 = 15;
/// Its ports by their names, as in the manifests: where they are asked for, and where they lead to.
const PORTS: [(&str, u16, u16); 2] =
    [("https-dns", ISTIOD_PORT, ISTIOD_PORT), ("https-webhook", 443, WEBHOOK_PORT)];

/// The service's address, in the first family in use.
pub fn address(families: Families) -> IpAddr {
    let range =
        service_cidrs(families).first().map(ipnet::IpNet::addr).expect("a lab has at least one family");
    match range {
        IpAddr::V4(net) => IpAddr::from((u32::from(net) + u32::from(OFFSET)).to_be_bytes()),
        IpAddr::V6(net) => IpAddr::from((u128::from(net) + u128::from(OFFSET)).to_be_bytes()),
    }
}

/// The name that the control planes' certificates have.
pub fn host() -> String {
    format!("{SERVICE}.{NAMESPACE}.svc")
}

/// The key of the slice that the lab keeps.
pub fn slice_key() -> ObjectKey {
    ObjectKey::new(Kind::EndpointSlice, Some(NAMESPACE), &format!("{SERVICE}-lab"))
}

/// Makes the service and its slice; nobody is behind it yet.
///
/// # Errors
/// What the API server refused.
pub async fn declare(api: &Api, config: &LabConfig) -> Result<(), Refusal> {
    let address = address(config.families);
    let ports = PORTS.map(
        |(name, port, target)| json!({"name": name, "port": port, "targetPort": target, "protocol": "TCP"}),
    );
    let targets = PORTS.map(|(name, _, target)| json!({"name": name, "port": target, "protocol": "TCP"}));
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": NAMESPACE, "name": SERVICE},
        // No selector: nobody else may write its endpoints.
        "spec": {"clusterIP": address.to_string(), "ports": ports},
    });
    let key = ObjectKey::new(Kind::Service, Some(NAMESPACE), SERVICE);
    api.patch(&api::path_of(&key), Patch::Apply, &service).await?;
    let key = slice_key();
    let labels = json!({SERVICE_LABEL: SERVICE, OWNER_LABEL: super::MANAGER});
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": NAMESPACE, "name": key.name, "labels": labels},
        "addressType": family_of(address),
        "ports": targets,
        "endpoints": endpoints(config, &vec![false; usize::from(config.kube.istiod_replicas)]),
    });
    api.patch(&api::path_of(&key), Patch::Apply, &slice).await?;
    Ok(())
}

/// The endpoints of the slice, by whether each replica is ready.
pub fn endpoints(config: &LabConfig, ready: &[bool]) -> Value {
    let endpoint = |(replica, ready): (u16, &bool)| {
        let address = spec::control_plane(config, replica).ip().to_string();
        let conditions = json!({"ready": ready, "serving": ready, "terminating": false});
        json!({"addresses": [address], "conditions": conditions})
    };
    (0..).zip(ready).map(endpoint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_in_the_range_and_not_given_out_unasked() {
        assert_eq!(address(Families::Dual).to_string(), "10.96.0.15");
        assert_eq!(address(Families::Ipv6).to_string(), "fd00:10:96::f");
    }

    #[test]
    fn each_replica_is_an_endpoint() {
        let all = endpoints(&LabConfig::default(), &[true, false]);
        let got: Vec<(&str, Option<bool>)> = all
            .as_array()
            .into_iter()
            .flatten()
            .map(|e| (e["addresses"][0].as_str().unwrap_or_default(), e["conditions"]["ready"].as_bool()))
            .collect();
        assert_eq!(got, [("172.30.0.254", Some(true)), ("172.30.0.253", Some(false))]);
    }
}
