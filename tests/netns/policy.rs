//! The policy table with real connections: the client sees the verdict, the server's node records code and policy.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ambit_tests::certs::{Shown, Template, TestCa};
use ambit_tests::corpus::PEER;
use ambit_tests::lab::{Lab, peer, wait_until};
use ambit_tests::tables::{self, Group, Policy, Row, Table};
use serde_json::{Value, json};

use crate::cast::{account, namespace, oracle, pod, security};
use crate::stranger;

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

/// Fewest rows that count as having run the table over a family.
const ROWS_MIN: usize = 60;

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

/// The one thing of the table that two pods of one mesh cannot play: the same names under another root of trust, also
/// where a policy would let them in by those names.
#[test]
fn the_same_names_under_another_trust_domain_are_refused_at_a_real_pod() {
    let by_name = json!({"rules": [{"from": [{"source": {"principals": ["*/ns/shop/sa/cart"]}}]}]});
    let cast = [
        namespace("bank", true),
        namespace("legacy", false),
        pod("bank/web", "node2", &["python3", &peer("echo.py"), "8000"]),
        pod("legacy/stranger", "node1", &[]),
        security("AuthorizationPolicy", "bank/by-name", &by_name),
    ];
    let Some(lab) = Lab::up("foreign", &cast, &[]) else { return };
    let (ca, web) = (stranger::authority(&lab), lab.address("bank/web", 4));
    let at = |port| SocketAddr::new(web, port);
    let ask = |shown: &Shown| {
        stranger::ask(&lab, "legacy/stranger", at(15008), shown, &at(8000).to_string(), b"let me in")
    };
    let own = signed_for(&ca, PEER);
    wait_until("a leaf of our trust domain is let in", Duration::from_secs(10), || {
        ask(&own).said == b"let me in"
    });
    let heard = lab.log_lines("connection from").len();
    let answer = ask(&signed_for(&ca, "spiffe://other.example/ns/shop/sa/cart"));
    assert!(answer.status.is_err() && answer.said.is_empty(), "{answer:?}");
    let from = answer.from.to_string();
    let mut records = Vec::new();
    wait_until("the refusal is recorded", Duration::from_secs(5), || {
        records = lab.flows(&[]);
        records.retain(|flow| flow["src"]["addr"] == *from);
        !records.is_empty()
    });
    assert_eq!(records.len(), 1, "{records:#?}");
    assert_eq!((&records[0]["verdict"], &records[0]["code"]), (&json!("denied"), &json!("AMB2004")));
    let error = records[0]["error"].as_str().unwrap_or_default();
    assert!(error.contains("trust domain other.example, we trust cluster.local"), "{error}");
    assert_eq!(lab.log_lines("connection from").len(), heard, "the application heard of it");
}

/// A leaf for an identity, by a signer under the mesh's own root that names no trust domain itself: only the leaf's name
/// can be wrong.
fn signed_for(ca: &TestCa, identity: &str) -> Shown {
    let template = Template::leaf(identity);
    let signer = ca.root.issuer(&Template::signer("unnamed"));
    let key = rcgen::KeyPair::generate().expect("a key");
    let leaf = signer.certify(&template, rcgen::PublicKeyData::subject_public_key_info(&key));
    Shown { chain: vec![leaf, signer.der], key: key.serialize_der() }
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
        let mut rows = 0;
        for group in table.groups.iter().filter(|group| wanted(group)) {
            let (ran, went_wrong) = driver.run(group);
            rows += ran;
            wrong.extend(went_wrong);
        }
        println!("{name}: {rows} rows ran over IPv{family}");
        assert!(rows >= ROWS_MIN, "{name}: only {rows} rows ran over IPv{family}");
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

    /// Runs one group under its policies alone; how many rows that were, and what went wrong.
    fn run(&self, group: &Group) -> (usize, Vec<String>) {
        let rows: Vec<&Row> = group.when.iter().filter(|row| row.is_for("namespaces")).collect();
        if rows.is_empty() {
            return (0, Vec::new());
        }
        let policies: Vec<Value> =
            group.given.iter().map(|p| p.manifest(&|place| self.fill(place))).collect();
        if !policies.is_empty() {
            self.lab.apply(&policies);
        }
        let wrong = rows.iter().filter_map(|row| {
            let problem = self.one(row)?;
            Some(format!("IPv{}, {} / {}: {problem}", self.family, group.name, row.name))
        });
        let wrong: Vec<String> = wrong.collect();
        for (kind, namespace, name) in group.given.iter().map(Policy::key) {
            let _ = self.lab.lab(&["delete", kind, name, "-n", namespace]);
        }
        (rows.len(), wrong)
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
        differs(found.last().expect("one at least"), row).or_else(|| self.is_explained_otherwise(row))
    }

    /// What the nodes say beforehand, if it is not what happened.
    fn is_explained_otherwise(&self, row: &Row) -> Option<String> {
        let client = key(self.table, &row.client);
        let target = SocketAddr::new(self.addresses[&*row.server], row.port).to_string();
        let told = self.lab.ambit(&["explain", &client, &target, "-o", "json"]).ok();
        let told: Value = serde_json::from_str(&told).expect("JSON");
        let told = &told["items"][0];
        let is_so =
            told["verdict"] == *row.expect.verdict && told["reason"]["code"] == json!(row.expect.code);
        (!is_so).then(|| format!("`ambit explain` tells otherwise: {told}"))
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
