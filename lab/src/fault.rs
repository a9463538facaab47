//! Faults of the link between a node and the fabric: cut, lossy, slow, narrow.
//!
//! What is wrong with a link is a value ([`LinkFault`]); [`apply`] makes the link so, whatever it was before.

use std::fmt::Write as _;

use serde::Serialize;

use crate::address::Families;
use crate::control::LinkChange;
use crate::error::LabError;
use crate::link::Place;
use crate::tool;
use crate::topology::{Node, UPLINK};

/// The table in a node's namespace that holds its link's faults.
const TABLE: &str = "ambit_lab_link";
/// The largest packet of a healthy link, in bytes.
const MTU_DEFAULT: u32 = 1500;
/// Below 68 bytes IPv4 does not work (RFC 791); below 1280 IPv6 does not (RFC 8200 section 5), and the kernel takes a
/// link's IPv6 addresses away.
const MTU_MIN_V4: u32 = 68;
const MTU_MIN_V6: u32 = 1280;
/// Bytes that a slow link passes at once.
const BURST: &str = "64kb";
/// How long a packet may wait on a slow link before it is dropped.
const LATENCY: &str = "100ms";

/// What is wrong with a link; the default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct LinkFault {
    /// Nothing passes.
    pub cut: bool,
    /// Packets lost in each direction, in hundredths of a percent, 0 to 10 000.
    pub loss_basis_points: u32,
    /// Rate in each direction, as tc writes it.
    pub rate: Option<String>,
    /// Largest packet in bytes.
    pub mtu_bytes: Option<u32>,
}

impl LinkFault {
    /// The fault after a change.
    ///
    /// # Errors
    /// If a number is out of range for the lab's families or the rate is none.
    pub fn after(&self, change: &LinkChange, families: Families) -> Result<Self, LabError> {
        match change {
            LinkChange::Cut => Ok(Self { cut: true, ..self.clone() }),
            LinkChange::Heal => Ok(Self::default()),
            LinkChange::Shape { loss_percent, rate, mtu_bytes } => {
                let mut fault = self.clone();
                if let Some(percent) = loss_percent {
                    fault.loss_basis_points = basis_points(*percent)?;
                }
                if let Some(rate) = rate {
                    fault.rate = Some(checked_rate(rate)?);
                }
                if let Some(mtu) = mtu_bytes {
                    fault.mtu_bytes = Some(checked_mtu(*mtu, families)?);
                }
                Ok(fault)
            }
        }
    }

    /// The rules of the node's namespace.
    pub fn rules(&self) -> String {
        let mut text = format!("table inet {TABLE}\ndelete table inet {TABLE}\n");
        let verdict = match (self.cut, self.loss_basis_points) {
            (true, _) => "drop".to_owned(),
            (false, 0) => return text,
            (false, loss) => format!("numgen random mod 10000 < {loss} drop"),
        };
        let _ = writeln!(text, "table inet {TABLE} {{");
        for (hook, side) in [("prerouting", "iifname"), ("postrouting", "oifname")] {
            let _ = writeln!(
                text,
                "  chain {hook} {{ type filter hook {hook} priority -350; {side} \"{UPLINK}\" {verdict}; }}"
            );
        }
        text.push_str("}\n");
        text
    }
}

fn basis_points(percent: f64) -> Result<u32, LabError> {
    if !(0.0..=100.0).contains(&percent) {
        return Err(LabError::Usage(format!("--loss {percent} is not a percentage from 0 to 100")));
    }
    // Within 0 to 10 000 after the check above, so nothing is cut off.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be 0 to 100")]
    Ok((percent * 100.0).round() as u32)
}

fn checked_rate(rate: &str) -> Result<String, LabError> {
    let digits = rate.trim_start_matches(|c: char| c.is_ascii_digit());
    let unit = digits.to_ascii_lowercase();
    let units = ["bit", "kbit", "mbit", "gbit", "bps", "kbps", "mbps", "gbps"];
    if digits.len() == rate.len() || !units.contains(&unit.as_str()) {
        return Err(LabError::Usage(format!(
            "--rate {rate} is not a number with a unit such as 10mbit or 500kbit"
        )));
    }
    Ok(format!("{}{unit}", &rate[..rate.len() - digits.len()]))
}

fn checked_mtu(bytes: u32, families: Families) -> Result<u32, LabError> {
    let (least, why) = match families {
        Families::Ipv4 => (MTU_MIN_V4, ""),
        Families::Ipv6 | Families::Dual => {
            (MTU_MIN_V6, "; IPv6 needs 1280, a lab with --set ip_families=ipv4 goes down to 68")
        }
    };
    if (least..=65_535).contains(&bytes) {
        return Ok(bytes);
    }
    Err(LabError::Usage(format!("--mtu {bytes} is not within {least} to 65535 bytes{why}")))
}

/// Makes a node's link as the fault says.
///
/// # Errors
/// If nft, tc or the kernel refuses.
pub fn apply(fabric: &Place, place: &Place, node: &Node, fault: &LinkFault) -> Result<(), LabError> {
    tool::run(place, "nft", &["-f", "-"], &fault.rules())?;
    let port = node.port();
    let mtu = fault.mtu_bytes.unwrap_or(MTU_DEFAULT);
    for (side, link) in [(place, UPLINK), (fabric, port.as_str())] {
        side.act(async |links| links.mtu(link, mtu).await)?;
        match &fault.rate {
            Some(rate) => {
                let args = [
                    "qdisc", "replace", "dev", link, "root", "tbf", "rate", rate, "burst", BURST, "latency",
                    LATENCY,
                ];
                tool::run(side, "tc", &args, "")?;
            }
            // A link that never had one refuses to lose it; looking first tells the two apart.
            None if tool::run(side, "tc", &["qdisc", "show", "dev", link], "")?.contains("tbf") => {
                tool::run(side, "tc", &["qdisc", "del", "dev", link, "root"], "")?;
            }
            None => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
