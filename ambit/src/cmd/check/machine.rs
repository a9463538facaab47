//! This machine as a node of a mesh: what its kernel can do, tried in a network namespace that is gone afterwards.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time;

use super::finding::{Category, Outcome};

/// Longest run of `nft`.
const RUN: Duration = Duration::from_secs(10);
/// Ports of the proxies and of the control plane.
const PORTS: &[u16] = &[15001, 15006, 15008, 15012, 15017, 15020, 15021];
/// Where CNI configuration is.
const CNI: &str = "/etc/cni/net.d";

/// Something the kernel has to be able to do.
pub(super) struct Feature {
    /// What it is.
    pub(super) what: &'static str,
    /// The chain that a rule of it stands in.
    pub(super) chain: &'static str,
    /// The rule.
    pub(super) rule: &'static str,
    /// What is lost without.
    pub(super) without: &'static str,
    /// Module that has it.
    pub(super) module: &'static str,
    /// How bad that is.
    pub(super) outcome: Outcome,
}

const MANGLE: &str = "type filter hook prerouting priority mangle; policy accept;";
const NAT: &str = "type nat hook output priority -100; policy accept;";

/// What the rules in a pod are made of, as the node agent writes them, each on its own.
pub(super) const FEATURES: &[Feature] = &[
    Feature {
        what: "packet rules (nf_tables, family inet)",
        chain: MANGLE,
        rule: "meta l4proto tcp counter accept",
        without: "no pod can be captured (AMB1103)",
        module: "nf_tables",
        outcome: Outcome::Error,
    },
    Feature {
        what: "marks of connections (nft_ct)",
        chain: MANGLE,
        rule: "ct mark & 0xfff == 0x111 counter meta mark set ct mark",
        without: "no pod can be captured (AMB1103)",
        module: "nf_conntrack",
        outcome: Outcome::Error,
    },
    Feature {
        what: "redirection (nft_redir)",
        chain: NAT,
        rule: "tcp flags & (fin | syn | rst | ack) == syn meta mark & 0xfff != 0x539 counter redirect to :15001",
        without: "no pod can be captured (AMB1103)",
        module: "nft_redir",
        outcome: Outcome::Error,
    },
    Feature {
        what: "kinds of addresses (nft_fib_inet)",
        chain: MANGLE,
        rule: "fib daddr type local counter accept",
        without: "a closed port of a captured pod accepts plaintext first, so that tcpSocket probes tell nothing",
        module: "nft_fib_inet",
        outcome: Outcome::Warning,
    },
    Feature {
        what: "listening sockets (nft_socket)",
        chain: MANGLE,
        rule: "socket transparent { 0, 1 } return",
        without: "a closed port of a captured pod accepts plaintext first, so that tcpSocket probes tell nothing",
        module: "nft_socket",
        outcome: Outcome::Warning,
    },
    Feature {
        what: "refusals before routing (nft_reject_inet)",
        chain: MANGLE,
        rule: "meta l4proto tcp counter reject with tcp reset",
        without: "a closed port of a captured pod accepts plaintext first, so that tcpSocket probes tell nothing",
        module: "nft_reject_inet",
        outcome: Outcome::Warning,
    },
];

/// Looks at this machine.
pub(super) async fn look() -> Vec<Category> {
    let mut kernel = Category::new("This machine as a node: kernel");
    match scratch("list ruleset\n").await {
        Ok(()) => {
            kernel.good("a network namespace can be made, and nft runs in it");
            for feature in FEATURES {
                judge(&mut kernel, feature, scratch(&ruleset(feature)).await);
            }
        }
        Err(cause) => kernel.warn(
            "what the kernel can do was not tried",
            cause,
            "install nftables and util-linux, and run this as root: sudo ambit check --pre",
        ),
    }
    let mut rest = Category::new("This machine as a node: surroundings");
    cni(&mut rest);
    ports(&mut rest);
    vec![kernel, rest]
}

/// A table with the one rule.
pub(super) fn ruleset(feature: &Feature) -> String {
    let Feature { chain, rule, .. } = feature;
    format!("table inet ambit-check {{\n\tchain probe {{\n\t\t{chain}\n\t\t{rule}\n\t}}\n}}\n")
}

/// What became of a rule.
pub(super) fn judge(kernel: &mut Category, feature: &Feature, tried: Result<(), String>) {
    match tried {
        Ok(()) => kernel.good(feature.what),
        Err(cause) => {
            let why = format!("{cause}; {}", feature.without);
            kernel.tell(feature.outcome, feature.what, why, format!("sudo modprobe {}", feature.module));
        }
    }
}

/// Runs `nft` in a network namespace of its own; without root, in a user namespace too.
async fn scratch(rules: &str) -> Result<(), String> {
    let mut command = Command::new("unshare");
    if ambit_lab::rootless::is_ordinary_user() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--", "nft", "-f", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|cause| format!("unshare does not start: {cause}"))?;
    if let Some(mut input) = child.stdin.take() {
        // One that does not read has said why on its standard error.
        let _ = input.write_all(rules.as_bytes()).await;
    }
    let run = time::timeout(RUN, child.wait_with_output()).await;
    let output = run.map_err(|_| "nft does not end".to_owned())?.map_err(|cause| cause.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it gives no reason");
    Err(line.trim().to_owned())
}

fn cni(rest: &mut Category) {
    let Ok(entries) = std::fs::read_dir(Path::new(CNI)) else {
        return rest.warn(
            format!("there is no {CNI}"),
            "this machine is no node of a cluster, or its CNI configuration is elsewhere",
            "on a node: ambit install --set cni.confDir=DIR",
        );
    };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names.retain(|name| name.ends_with(".conflist") || name.ends_with(".conf"));
    match names.first() {
        Some(first) => rest.good(format!("CNI configuration {CNI}/{first} is there to be extended")),
        None => rest.warn(format!("{CNI} holds no configuration"), "no CNI plugin was installed yet", ""),
    }
}

fn ports(rest: &mut Category) {
    let is_taken = |port: &u16| {
        let six = TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port));
        let four = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port));
        six.or_else(|_| four()).is_err()
    };
    let taken: Vec<String> = PORTS.iter().copied().filter(is_taken).map(|port| port.to_string()).collect();
    if taken.is_empty() {
        return rest.good("the ports of the mesh are free");
    }
    rest.warn(
        format!("something listens on {}", taken.join(", ")),
        "pods are not concerned; what runs on this machine itself cannot have these ports twice",
        format!("sudo ss -ltnp 'sport = :{}'", taken[0]),
    );
}
