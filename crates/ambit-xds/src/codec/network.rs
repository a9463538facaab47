//! Addresses, ranges and gateways: the pieces workloads, services and policies share.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ambit_types::{Destination, GatewayAddress, Network, NetworkAddress, NetworkCidr, ServiceKey};
use bytes::Bytes;
use ipnet::{IpNet, Ipv4Net};

use super::{Malformed, Problem, port, required};
use crate::proto::istio::workload as wire;

/// Bits that IPv4-mapped IPv6 addresses have before the IPv4 address.
const MAPPED_BITS: u8 = 96;

/// Four or sixteen bytes; an IPv4-mapped address becomes IPv4.
pub(super) fn ip(field: &str, bytes: &[u8]) -> Result<IpAddr, Malformed> {
    raw_ip(field, bytes).map(|ip| ip.to_canonical())
}

fn raw_ip(field: &str, bytes: &[u8]) -> Result<IpAddr, Malformed> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::V4(Ipv4Addr::from(four)));
    }
    match <[u8; 16]>::try_from(bytes) {
        Ok(sixteen) => Ok(IpAddr::V6(Ipv6Addr::from(sixteen))),
        Err(_) => Err(Malformed::at(field, Problem::AddressLength { bytes: bytes.len() })),
    }
}

/// The shortest form of an address.
pub(super) fn encode_ip(ip: IpAddr) -> Bytes {
    match ip.to_canonical() {
        IpAddr::V4(v4) => Bytes::copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => Bytes::copy_from_slice(&v6.octets()),
    }
}

/// An address and its prefix length, host bits cleared; a mapped range becomes the IPv4 range it stands for.
pub(super) fn range(field: &str, bytes: &[u8], length: u32) -> Result<IpNet, Malformed> {
    let ip = raw_ip(&format!("{field}.address"), bytes)?;
    let max = if ip.is_ipv4() { 32 } else { 128 };
    let too_long = || Malformed::at(format!("{field}.length"), Problem::Prefix { length, max });
    let prefix = u8::try_from(length).map_err(|_| too_long())?;
    if let (IpAddr::V6(v6), true) = (ip, (MAPPED_BITS..=128).contains(&prefix))
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Ipv4Net::new(v4, prefix - MAPPED_BITS)
            .map(|net| IpNet::V4(net.trunc()))
            .map_err(|_| too_long());
    }
    IpNet::new(ip, prefix).map(|net| net.trunc()).map_err(|_| too_long())
}

/// What a network address with an optional prefix length stands for.
pub(super) enum Vip {
    Host(NetworkAddress),
    Range(NetworkCidr),
}

/// A host, or a range if the prefix is shorter than the address.
pub(super) fn vip(field: &str, message: &wire::NetworkAddress) -> Result<Vip, Malformed> {
    let network = Network::from(message.network.as_str());
    let Some(length) = message.length else {
        return Ok(Vip::Host(host(field, message)?));
    };
    let range = range(field, &message.address, length)?;
    if range.prefix_len() == range.max_prefix_len() {
        return Ok(Vip::Host(NetworkAddress::new(network, range.addr())));
    }
    Ok(Vip::Range(NetworkCidr { network, range }))
}

/// A host; a prefix length is of no meaning here and ignored, as the contract says of gateways.
fn host(field: &str, message: &wire::NetworkAddress) -> Result<NetworkAddress, Malformed> {
    let ip = ip(&format!("{field}.address"), &message.address)?;
    Ok(NetworkAddress::new(Network::from(message.network.as_str()), ip))
}

pub(super) fn encode_host(address: &NetworkAddress) -> wire::NetworkAddress {
    wire::NetworkAddress {
        network: address.network.as_str().to_owned(),
        address: encode_ip(address.ip),
        length: None,
    }
}

pub(super) fn encode_range(cidr: &NetworkCidr) -> wire::NetworkAddress {
    let (address, length) = encode_net(cidr.range);
    wire::NetworkAddress { network: cidr.network.as_str().to_owned(), address, length: Some(length) }
}

/// First address and prefix length; a mapped range is written as the IPv4 range it stands for.
pub(super) fn encode_net(net: IpNet) -> (Bytes, u32) {
    let (first, length) = (net.network(), net.prefix_len());
    let mapped = first.is_ipv6() && first.to_canonical().is_ipv4() && length >= MAPPED_BITS;
    let length = if mapped { length - MAPPED_BITS } else { length };
    let bytes = match first {
        IpAddr::V6(v6) if !mapped => Bytes::copy_from_slice(&v6.octets()),
        IpAddr::V4(_) | IpAddr::V6(_) => encode_ip(first),
    };
    (bytes, length.into())
}

/// A waypoint or network gateway.
pub(super) fn gateway(field: &str, message: &wire::GatewayAddress) -> Result<GatewayAddress, Malformed> {
    let destination = match &message.destination {
        Some(wire::gateway_address::Destination::Hostname(name)) => Destination::Hostname(ServiceKey::new(
            required(&format!("{field}.hostname.namespace"), &name.namespace)?,
            required(&format!("{field}.hostname.hostname"), &name.hostname)?,
        )),
        Some(wire::gateway_address::Destination::Address(address)) => {
            Destination::Address(host(&format!("{field}.address"), address)?)
        }
        None => return Err(Malformed::at(format!("{field}.destination"), Problem::Missing)),
    };
    let hbone_mtls_port = port(&format!("{field}.hbone_mtls_port"), message.hbone_mtls_port)?;
    Ok(GatewayAddress { destination, hbone_mtls_port })
}

pub(super) fn encode_gateway(gateway: &GatewayAddress) -> wire::GatewayAddress {
    let destination = match &gateway.destination {
        Destination::Hostname(key) => {
            wire::gateway_address::Destination::Hostname(wire::NamespacedHostname {
                namespace: key.namespace.to_string(),
                hostname: key.hostname.to_string(),
            })
        }
        Destination::Address(address) => wire::gateway_address::Destination::Address(encode_host(address)),
    };
    wire::GatewayAddress { destination: Some(destination), hbone_mtls_port: gateway.hbone_mtls_port.into() }
}
