//! Which packet rules a pod has: from facts about the pod to the text of one nftables transaction.
//!
//! Pure. The text replaces the whole table `inet ambit` of the namespace it is run in and touches nothing else. What
//! it means is Istio ambient's in-pod contract (marks 0x539 and 0x111, ports 15001, 15006 and 15008), with four
//! differences: redirection only ever begins with a connection's first packet, so that connections opened before
//! capture stay as they are; loopback means all of 127.0.0.0/8; no source address passes by the proxy, which decides
//! about probes itself; and a port that nothing listens on refuses connections as it would without a mesh, because a
//! `tcpSocket` probe succeeds with the handshake, which for a redirected connection is the proxy's. DNS is not captured;
//! its rules would go into `nat_output` and a raw chain.

use std::fmt::Write as _;

#[cfg(test)]
mod tests;

/// The mark of every socket that the proxy opens, within [`MARK_MASK`].
pub const PROXY_MARK: u32 = 0x539;
/// The mark of connections that the proxy opened towards the application with the client's address.
pub const CONNECTION_MARK: u32 = 0x111;
/// The bits of a mark that are ours.
pub const MARK_MASK: u32 = 0xfff;
/// Where outbound connections are redirected.
pub const OUTBOUND_PORT: u16 = 15001;
/// Where inbound plaintext is redirected.
pub const INBOUND_PORT: u16 = 15006;
/// Where HBONE arrives; never redirected.
pub const HBONE_PORT: u16 = 15008;
/// Family and name of our table, as `nft` takes them.
pub const TABLE: &str = "inet ambit";
/// First word of the comment on our table; the stage and the stamp follow.
pub const COMMENT: &str = "ambit";

const CLOSED_PORT: &str = "closed-port";

/// The packet that begins a TCP connection. A connection that was open before there were rules is new to conntrack
/// too, and its next packet would pass through the nat chains: without this match it would be redirected and die.
const FIRST_PACKET: &str = "tcp flags & (fin | syn | rst | ack) == syn";

/// What of a pod decides its rules.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Facts {
    /// Whether inbound plaintext is redirected to the proxy; `false` for `ambient.istio.io/bypass-inbound-capture`.
    pub inbound: bool,
    /// Interfaces whose incoming connections count as outbound ones of the pod, such as those of a virtual machine.
    pub virtual_interfaces: Vec<InterfaceName>,
}

impl Default for Facts {
    fn default() -> Self {
        Self { inbound: true, virtual_interfaces: Vec::new() }
    }
}

/// The name of a network interface: 1 to 15 letters, digits, dots, dashes, underscores, `@` or `:`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// Takes `name` if it can be the name of an interface and needs no quoting in a rule.
    pub fn parse(name: &str) -> Option<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@' | ':');
        let fits = (1..=15).contains(&name.len()) && name != "." && name != "..";
        (fits && name.chars().all(plain)).then(|| Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What the rules are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// New connections are redirected to the proxy.
    Capture,
    /// Nothing new is redirected; connections that the proxy still carries go on until they end.
    Residue,
}

impl Stage {
    /// The word in the comment.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Residue => "residue",
        }
    }
}

/// The rules of one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// What they are for.
    pub stage: Stage,
    /// Sixteen hex digits that change when the rules do.
    pub stamp: String,
    /// One transaction for `nft -f`.
    pub text: String,
    /// The same for a kernel that cannot look for listening sockets (`nft_socket`, `nft_reject_inet`, `nft_fib_inet`): there
    /// the proxy takes every connection, and a `tcpSocket` probe tells nothing.
    pub without_socket_match: Option<String>,
}

impl Rules {
    /// The comment that the table carries.
    pub fn comment(&self) -> String {
        format!("{COMMENT} {} {}", self.stage.word(), self.stamp)
    }
}

/// The rules that capture a pod.
pub fn capture(facts: &Facts) -> Rules {
    let chains = |refusal: &str| {
        let all = [mangle_prerouting(refusal), mangle_output(), nat_prerouting(facts), nat_output()];
        all.join("\n")
    };
    if !facts.inbound {
        return stamped(Stage::Capture, &chains(""));
    }
    let rules =
        stamped(Stage::Capture, &format!("{}\n{}", closed_port(), chains(&refuse_closed_ports(facts))));
    let without = table(&rules.comment(), &chains(""));
    Rules { without_socket_match: Some(without), ..rules }
}

/// The rules of a pod that has left while the proxy still carries some of its connections.
///
/// The kernel keeps translating a redirected connection only while some nat chain is there, and what the proxy opened
/// towards the application needs its mark restored: so the empty chains are not decoration.
pub fn residue() -> Rules {
    let bypass = |hook| base_chain("nat", hook, -100, "nat", "");
    let chains = [mangle_prerouting(""), mangle_output(), bypass("prerouting"), bypass("output")];
    stamped(Stage::Residue, &chains.join("\n"))
}

/// The transaction that takes our table away, whether or not it is there.
pub fn removal() -> String {
    format!("add table {TABLE}\ndelete table {TABLE}\n")
}

/// Reads the stage and the stamp back from a table's comment.
pub fn read_comment(comment: &str) -> Option<(Stage, &str)> {
    let rest = comment.strip_prefix(COMMENT)?.strip_prefix(' ')?;
    [Stage::Capture, Stage::Residue]
        .into_iter()
        .find_map(|stage| Some((stage, rest.strip_prefix(stage.word())?.strip_prefix(' ')?)))
}

fn stamped(stage: Stage, chains: &str) -> Rules {
    let stamp = format!("{:016x}", xxhash_rust::xxh64::xxh64(chains.as_bytes(), 0));
    let mut rules = Rules { stage, stamp, text: String::new(), without_socket_match: None };
    rules.text = table(&rules.comment(), chains);
    rules
}

/// Adding before deleting makes the deletion valid in a namespace that has no such table yet.
fn table(comment: &str, chains: &str) -> String {
    format!("{}table {TABLE} {{\n\tcomment \"{comment}\"\n\n{chains}}}\n", removal())
}

/// Refuses what no socket of the namespace would take. Any value of the flag will do: there is one only with a socket.
fn closed_port() -> String {
    let rules = "\t\tsocket transparent { 0, 1 } return\n\t\tcounter reject with tcp reset\n";
    format!("\tchain {CLOSED_PORT} {{\n{rules}\t}}\n")
}

/// Sends the first packet of what would be redirected inbound past [`closed_port`]. It is refused here and not merely
/// left alone, so that a port which opens at that very moment is not reached around the proxy.
fn refuse_closed_ports(facts: &Facts) -> String {
    let mut rules = String::new();
    let outbound: Vec<_> = facts.virtual_interfaces.iter().map(|i| format!("\"{}\"", i.as_str())).collect();
    let not_outbound = match outbound.is_empty() {
        true => String::new(),
        false => format!("iifname != {{ {} }} ", outbound.join(", ")),
    };
    for not_loopback in NOT_LOOPBACK {
        line(
            &mut rules,
            &format!(
                "{not_outbound}{not_loopback} tcp dport != {HBONE_PORT} {FIRST_PACKET} \
                 meta mark & {MARK_MASK:#x} != {PROXY_MARK:#x} fib daddr type local jump {CLOSED_PORT}"
            ),
        );
    }
    rules
}

/// Remembers, on the connection, that the proxy opened it with somebody else's address. `refusal` are rules in front.
fn mangle_prerouting(refusal: &str) -> String {
    let rule = format!(
        "meta mark & {MARK_MASK:#x} == {PROXY_MARK:#x} counter ct mark set ct mark & {:#010x} | {CONNECTION_MARK:#x}",
        !MARK_MASK
    );
    base_chain("filter", "prerouting", -150, "mangle", &format!("{refusal}\t\t{rule}\n"))
}

/// Marks the application's replies on such a connection, so that policy routing brings them to the proxy over `lo`.
fn mangle_output() -> String {
    let rule = format!("ct mark & {MARK_MASK:#x} == {CONNECTION_MARK:#x} counter meta mark set ct mark");
    base_chain("route", "output", -150, "mangle", &format!("\t\t{rule}\n"))
}

fn nat_prerouting(facts: &Facts) -> String {
    let mut rules = String::new();
    for interface in &facts.virtual_interfaces {
        let name = interface.as_str();
        line(&mut rules, &format!("iifname \"{name}\" {FIRST_PACKET} counter redirect to :{OUTBOUND_PORT}"));
        line(&mut rules, &format!("iifname \"{name}\" meta l4proto tcp counter return"));
    }
    if facts.inbound {
        for not_loopback in NOT_LOOPBACK {
            line(
                &mut rules,
                &format!(
                    "{not_loopback} tcp dport != {HBONE_PORT} {FIRST_PACKET} \
                     meta mark & {MARK_MASK:#x} != {PROXY_MARK:#x} counter redirect to :{INBOUND_PORT}"
                ),
            );
        }
    }
    base_chain("nat", "prerouting", -100, "nat", &rules)
}

fn nat_output() -> String {
    let mut rules = String::new();
    line(
        &mut rules,
        &format!("meta l4proto tcp meta mark & {MARK_MASK:#x} == {CONNECTION_MARK:#x} counter accept"),
    );
    // A pod that calls itself by one of its own addresses talks over lo and is left alone.
    for not_loopback in NOT_LOOPBACK {
        line(&mut rules, &format!("oifname \"lo\" {not_loopback} counter accept"));
    }
    for not_loopback in NOT_LOOPBACK {
        line(
            &mut rules,
            &format!(
                "{not_loopback} {FIRST_PACKET} meta mark & {MARK_MASK:#x} != {PROXY_MARK:#x} \
                 counter redirect to :{OUTBOUND_PORT}"
            ),
        );
    }
    base_chain("nat", "output", -100, "nat", &rules)
}

/// Both families are always named: a pod that gains IPv6 later is captured from its first packet.
const NOT_LOOPBACK: [&str; 2] = ["ip daddr != 127.0.0.0/8", "ip6 daddr != ::1"];

fn line(rules: &mut String, rule: &str) {
    writeln!(rules, "\t\t{rule}").expect("writing to a string cannot fail");
}

fn base_chain(kind: &str, hook: &str, priority: i32, table: &str, rules: &str) -> String {
    format!(
        "\tchain {table}-{hook} {{\n\t\ttype {kind} hook {hook} priority {priority}; policy accept;\n{rules}\t}}\n"
    )
}
