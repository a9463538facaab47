//! What flow records say of who used which port of which workload.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ambit_types::{Identity, Uid};

use super::{Caller, Known, Member, Seen};
use crate::{Flow, FlowEnd};

/// Names in the notes of one kind.
const NAMED_MAX: usize = 20;
/// Longest of them.
const NAME_CHARS_MAX: usize = 200;

/// Who used what, and what a person should know of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gathered {
    /// Connections of callers to ports of members.
    pub seen: Vec<Seen>,
    /// Whoever is gone, and of whom no rule is made.
    pub notes: Vec<String>,
}

/// Connections to members, of those records that `wanted` takes.
///
/// Only what the destination's own node wrote counts, once a connection: there it is decided by the rules that are
/// suggested. Probes of the node need no rule. Of who was refused without an identity nothing is taken: no rule of ours
/// could let it in where plaintext is refused. A connection that was let in counts however it ended, but for one that a
/// change of policy cut (AMB2107): a rule for it would take the change back. A caller that is gone is named by the
/// identity it proved; one that proved none is not named at all, since its address is somebody else's tomorrow. What
/// only a break-glass let in was allowed by no rule: it counts where `wanted` takes it, and is told where not.
pub fn seen(
    namespace: &str,
    flows: &[Flow],
    members: &[Member],
    known: &Known,
    wanted: impl Fn(&Flow) -> bool,
) -> Gathered {
    let members = Members::of(members);
    let mut counts: BTreeMap<(Uid, Caller, u16), u64> = BTreeMap::new();
    let mut missing = Missing::default();
    let is_here = |flow: &&Flow| is_of_destination(flow) && flow.dst.namespace.as_deref() == Some(namespace);
    for flow in flows.iter().filter(is_here) {
        if !wanted(flow) {
            if flow.is_let_in() && flow.is_by_breakglass() {
                missing.by_breakglass = missing.by_breakglass.saturating_add(flow.connections);
            }
            if flow.is_cut_by_policy() {
                missing.cut_by_policy = missing.cut_by_policy.saturating_add(flow.connections);
            }
            continue;
        }
        let Some(uid) = members.find(&flow.dst) else {
            missing.note(Why::NoDestination, name_of(&flow.dst), flow);
            continue;
        };
        let Some(caller) = caller(flow) else {
            if flow.is_let_in() {
                missing.note(Why::NoCaller, "callers outside the mesh".to_owned(), flow);
            }
            continue;
        };
        match &caller {
            Caller::Address(_) if known.is_pod_gone(&flow.src) => {
                missing.note(Why::NoIdentity, name_of(&flow.src), flow);
                continue;
            }
            Caller::Identity(identity) if known.is_gone(identity) => {
                missing.note(Why::OnlyIdentity, caller.to_string(), flow);
            }
            Caller::Address(_) | Caller::Identity(_) => {}
        }
        let Some(port) = port(flow) else { continue };
        let count = counts.entry((uid.clone(), caller, port)).or_default();
        *count = count.saturating_add(flow.connections);
    }
    let one = |((destination, caller, port), connections)| Seen { destination, caller, port, connections };
    Gathered { seen: counts.into_iter().map(one).collect(), notes: missing.notes() }
}

/// Members by what records call them.
struct Members<'m> {
    pods: BTreeMap<&'m str, &'m Uid>,
    controllers: BTreeMap<&'m str, &'m Uid>,
}

impl<'m> Members<'m> {
    fn of(members: &'m [Member]) -> Self {
        Self {
            pods: members.iter().map(|member| (&*member.name, &member.uid)).collect(),
            controllers: members.iter().map(|member| (&*member.controller, &member.uid)).collect(),
        }
    }

    /// The pod, or another one of its controller: they share their labels.
    fn find(&self, end: &FlowEnd) -> Option<&'m Uid> {
        let pod = end.workload.as_deref().and_then(|name| self.pods.get(name));
        let controller = end.controller.as_deref().filter(|name| !name.is_empty());
        pod.or_else(|| self.controllers.get(controller?)).copied()
    }
}

/// Why something is worth a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    OnlyIdentity,
    NoIdentity,
    NoCaller,
    NoDestination,
}

/// Connections of whom or to whom there is nobody any more, by name.
#[derive(Debug, Default)]
struct Missing {
    by_name: BTreeMap<(Why, String), u64>,
    by_breakglass: u64,
    cut_by_policy: u64,
}

impl Missing {
    fn note(&mut self, why: Why, name: String, flow: &Flow) {
        let count = self.by_name.entry((why, name)).or_default();
        *count = count.saturating_add(flow.connections);
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for why in [Why::OnlyIdentity, Why::NoIdentity, Why::NoCaller, Why::NoDestination] {
            let of_why = || self.by_name.iter().filter(move |((own, _), _)| *own == why);
            notes.extend(of_why().take(NAMED_MAX).map(|((_, name), count)| said(why, name, *count)));
            let more = of_why().count().saturating_sub(NAMED_MAX);
            if more > 0 {
                notes.push(format!("and {more} more like the last one"));
            }
        }
        if self.by_breakglass > 0 {
            notes.push(format!(
                "{} connections came in only by a break-glass (AMB2305), and no rule is made of them: name what is to be \
                 let in with `ambit policy suggest --allow ID`",
                self.by_breakglass
            ));
        }
        if self.cut_by_policy > 0 {
            notes.push(format!(
                "{} connections were let in and cut by a change of policy (AMB2107), and no rule is made of them: name \
                 what is to be let in with `ambit policy suggest --allow ID`",
                self.cut_by_policy
            ));
        }
        notes
    }
}

fn said(why: Why, name: &str, count: u64) -> String {
    match why {
        Why::OnlyIdentity => format!(
            "{name} is nobody any more: its rule is made of the identity in the records of its {count} connections; take \
             it out if nobody is to come back as it"
        ),
        Why::NoIdentity => {
            format!("{name} is gone and had no identity: no rule is made of its {count} connections")
        }
        Why::NoCaller => {
            format!(
                "{count} connections of {name} are counted without their addresses: no rule is made of them"
            )
        }
        Why::NoDestination => {
            format!("nothing of {name} is in the mesh any more: no rule is made of {count} connections to it")
        }
    }
}

fn name_of(end: &FlowEnd) -> String {
    let name = end.controller.as_deref().filter(|name| !name.is_empty()).or(end.workload.as_deref());
    let text = format!("{}/{}", end.namespace.as_deref().unwrap_or("?"), name.unwrap_or("?"));
    // It gets into comments of manifests, and a proxy may have made it up.
    text.chars().filter(char::is_ascii_graphic).take(NAME_CHARS_MAX).collect()
}

/// Whether the node of the workload that was called wrote it.
fn is_of_destination(flow: &Flow) -> bool {
    flow.direction.as_deref() == Some("inbound")
        && ["hbone", "local", "plaintext"].contains(&flow.path.as_str())
}

fn caller(flow: &Flow) -> Option<Caller> {
    let identity = |text: &Option<String>| text.as_deref().and_then(|text| Identity::parse(text).ok());
    let proven = identity(&flow.client).or_else(|| identity(&flow.src.identity));
    match proven {
        Some(identity) => Some(Caller::Identity(identity)),
        None if flow.is_let_in() => address(flow.src.addr.as_deref()?).map(Caller::Address),
        None => None,
    }
}

fn address(text: &str) -> Option<IpAddr> {
    let socket = text.parse::<SocketAddr>().map(|socket| socket.ip());
    socket.or_else(|_| text.parse()).ok().map(|ip| ip.to_canonical())
}

/// The port of the application.
fn port(flow: &Flow) -> Option<u16> {
    let asked = flow.hbone_addr.as_deref().or(flow.dst.addr.as_deref())?;
    asked.rsplit_once(':')?.1.parse().ok()
}
