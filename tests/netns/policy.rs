//! The policy table with real connections: the client sees the verdict, the server's node records code and policy.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ambit_tests::lab::{Lab, wait_until};
use ambit_tests::tables::{self, Group, Policy, Row, Table};
use serde_json::{Value, json};

use crate::cast::{account, namespace, oracle};

/// Groups that the second address family runs where the whole table would take too long, beside every
/// PeerAuthentication: one of each kind, and what depends on addresses.
const SAMPLE: [&str; 8] = [
    "no policy",
    "principals prefix and suffix",
    "addresses",
    "deny over allow",
    "the root namespace covers the mesh",
    "selectors",
    "dry-run never decides",
    "dry-run beside an enforced policy",
];

#[test]
fn the_policy_table_holds_for_real_connections() {
    check("policy", "dual", &[(4, |_| true), (6, is_sampled)]);
}

#[test]
fn the_policy_table_holds_over_ipv6() {
    check("policy6", "ipv6", &[(6, is_sampled)]);
}

fn is_sampled(group: &Group) -> bool {
    let strict = group.given.iter().any(|policy| policy.peer.is_some());
    ambit_tests::lab::soak() || strict || SAMPLE.contains(&&*group.name)
}

/// An address family, and which groups run over it.
type Run = (u8, fn(&Group) -> bool);

/// Runs the groups that are wanted over each address family.
#[track_caller]
fn check(name: &str, families: &str, runs: &[Run]) {
    let table = tables::policy();
    let known = |name: &str| table.groups.iter().any(|group| *group.name == *name);
    assert!(SAMPLE.iter().all(|name| known(name)), "a group of the sample is not in the table");
    let Some(lab) = Lab::up(name, &cast(&table), &[&format!("ip_families={families}")]) else { return };
    let mut wrong = Vec::new();
    for (family, wanted) in runs {
        let driver = Driver::new(&lab, &table, *family);
        let groups: Vec<&Group> = table.groups.iter().filter(|group| wanted(group)).collect();
        let rows: usize = groups.iter().map(|group| group.when.len()).sum();
        println!("{name}: IPv{family}, {} groups with {rows} rows", groups.len());
        wrong.extend(groups.into_iter().flat_map(|group| driver.run(group)));
    }
    assert!(wrong.is_empty(), "{} rows went wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// The cast as objects: servers where rows connect to, holders of a namespace elsewhere.
fn cast(table: &Table) -> Vec<Value> {
    let mut objects = vec![namespace("istio-system", false)];
    let mut seen = std::collections::BTreeSet::new();
    for (name, member) in &table.cast {
        if seen.insert(format!("ns/{}", member.namespace)) {
            objects.push(namespace(&member.namespace, member.enrolled));
        }
        let key = format!("{}/{}", member.namespace, member.service_account);
        if member.service_account != "default" && seen.insert(key.clone()) {
            objects.push(account(&key));
        }
        let serves = table.groups.iter().flat_map(|g| &g.when).any(|row| row.server == *name);
        let containers: Vec<Value> = if serves {
            table.ports.iter().map(|p| oracle(*p)).collect()
        } else {
            vec![json!({"name": "app"})]
        };
        objects.push(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": member.namespace, "labels": member.labels},
            "spec": {"nodeName": member.node, "serviceAccountName": member.service_account, "containers": containers},
        }));
    }
    objects
}

/// The table's rows as connections of one address family.
struct Driver<'a> {
    lab: &'a Lab,
    table: &'a Table,
    family: u8,
    addresses: BTreeMap<&'a str, IpAddr>,
}

impl<'a> Driver<'a> {
    fn new(lab: &'a Lab, table: &'a Table, family: u8) -> Self {
        let address = |name: &str| lab.address(&key(table, name), family);
        let addresses = table.cast.keys().map(|name| (name.as_str(), address(name))).collect();
        Self { lab, table, family, addresses }
    }

    /// Runs one group under its policies alone; what went wrong.
    fn run(&self, group: &Group) -> Vec<String> {
        let rows: Vec<&Row> = group.when.iter().filter(|row| row.is_for("namespaces")).collect();
        if rows.is_empty() {
            return Vec::new();
        }
        let policies: Vec<Value> =
            group.given.iter().map(|p| p.manifest(&|place| self.fill(place))).collect();
        if !policies.is_empty() {
            self.lab.apply(&policies);
        }
        let wrong = rows.into_iter().filter_map(|row| {
            let problem = self.one(row)?;
            Some(format!("IPv{}, {} / {}: {problem}", self.family, group.name, row.name))
        });
        let wrong: Vec<String> = wrong.collect();
        for (kind, namespace, name) in group.given.iter().map(Policy::key) {
            let _ = self.lab.lab(&["delete", kind, name, "-n", namespace]);
        }
        wrong
    }

    /// `NAME.ip` or `NAME.cidr` of the cast.
    fn fill(&self, place: &str) -> String {
        let (name, what) = place.split_once('.').expect("NAME.ip or NAME.cidr");
        match (what, self.addresses[name]) {
            ("ip", address) => address.to_string(),
            ("cidr", IpAddr::V4(v4)) => {
                let [a, b, c, _] = v4.octets();
                format!("{a}.{b}.{c}.0/24")
            }
            ("cidr", IpAddr::V6(v6)) => {
                let s = v6.segments();
                format!("{:x}:{:x}:{:x}:{:x}::/64", s[0], s[1], s[2], s[3])
            }
            (other, _) => panic!("{other} is neither ip nor cidr"),
        }
    }

    /// Connects as a row says; what differs from what it expects.
    fn one(&self, row: &Row) -> Option<String> {
        let (client, server) = (key(self.table, &row.client), key(self.table, &row.server));
        let source = self.addresses[&*row.client].to_string();
        let target = SocketAddr::new(self.addresses[&*row.server], row.port).to_string();
        let before = records(self.lab, &server, &source, row).len();
        let summary = self.lab.call(
            &client,
            &target,
            &["--connections", "1", "--connect-timeout", "3s", "--stall-timeout", "3s"],
        );
        let verdict = if summary["ok"] == true { "allow" } else { "deny" };
        if verdict != row.expect.verdict {
            return Some(format!("{verdict} instead of {}: {}", row.expect.verdict, summary["first_error"]));
        }
        let mut found = Vec::new();
        wait_until(&format!("a record of {client} to {target}"), Duration::from_secs(5), || {
            found = records(self.lab, &server, &source, row);
            found.len() > before
        });
        differs(found.last().expect("one at least"), row)
    }
}

/// `NAMESPACE/NAME` of one of the cast.
fn key(table: &Table, name: &str) -> String {
    format!("{}/{name}", table.cast[name].namespace)
}

/// Records of connections from an address to a row's server and port, as the server's node wrote them.
fn records(lab: &Lab, server: &str, source: &str, row: &Row) -> Vec<Value> {
    let port = format!(":{}", row.port);
    let is_it = |flow: &Value| {
        let at = flow["hbone_addr"].as_str().or_else(|| flow["dst"]["addr"].as_str()).unwrap_or_default();
        let from = flow["src"]["addr"].as_str().unwrap_or_default();
        flow["direction"] == "inbound"
            && at.ends_with(&port)
            && from.rsplit_once(':').is_some_and(|(ip, _)| ip.trim_matches(['[', ']']) == source)
    };
    lab.flows(&["--to-pod", server]).into_iter().filter(is_it).collect()
}

fn differs(record: &Value, row: &Row) -> Option<String> {
    // Where no single policy decided, the record says who would have had to.
    let dry_run =
        |text: &String| if text == "deny" { "deny by no ALLOW policy".to_owned() } else { text.clone() };
    let dry_run: Vec<String> = row.expect.dry_run.iter().map(dry_run).collect();
    let mut want = vec![
        ("verdict", json!(if row.expect.verdict == "allow" { "allowed" } else { "denied" })),
        ("code", json!(row.expect.code)),
        ("dry_run", json!(dry_run)),
    ];
    // A refusal for want of an ALLOW names the policy that came nearest, which the table leaves open.
    if row.expect.code.as_deref() == Some("AMB2104") && row.expect.policy.is_none() {
        if !record["error"].as_str().is_some_and(|e| e.starts_with("no ALLOW rule matched")) {
            return Some(format!("the record does not say that no ALLOW matched: {record}"));
        }
    } else {
        want.push(("policy", json!(row.expect.policy)));
    }
    let wrong = want.into_iter().filter(|(key, want)| record[*key] != *want);
    let wrong: Vec<String> =
        wrong.map(|(key, want)| format!("{key} is {} instead of {want}", record[key])).collect();
    (!wrong.is_empty()).then(|| format!("{} in {record}", wrong.join(", ")))
}
