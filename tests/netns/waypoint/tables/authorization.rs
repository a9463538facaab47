//! Row 3: `tests/tables/http_policy.yaml` through the lab, each request byte for byte.
//!
//! Every group has services of its own in front of one application: one whose port speaks HTTP, one whose port does
//! not. Policies name both, and rows choose. Claims of a row are signed by one issuer for all, whom rules of the group
//! trust under every name that its tokens use.

use std::collections::{BTreeMap, BTreeSet};

use ambit_tests::lab::{Lab, soak};
use serde::Deserialize;
use serde_json::{Value, json};

use super::keys::{Signer, set};
use super::outcome::joined;
use super::{Report, application, bound, clients, gateway, pod_of, raw, rename, send, service_of, text};
use crate::cast::{security, split};

const TABLE: &str = include_str!("../../../tables/http_policy.yaml");
/// Namespace of services and policies.
const HOME: &str = "shop";
/// Where the application listens.
const PORT: u16 = 8080;
/// Callers in the short form: one of each kind. In full, everybody.
const CALLERS: [&str; 12] = [
    "shop/cart",
    "shop/cart2",
    "shop/pay",
    "shop/a.b",
    "shop/axb",
    "jobs/cron",
    "jobs/cron.v1",
    "jobs/cronxv1",
    "jobs-eu/cron",
    "bank/web",
    "a/x",
    "b/y",
];

#[derive(Debug, Deserialize)]
struct Table {
    groups: Vec<Group>,
    truth: Vec<Truth>,
}

#[derive(Debug, Deserialize)]
struct Group {
    name: String,
    #[serde(default)]
    settings: Value,
    given: Vec<Given>,
    when: Vec<Row>,
}

impl Group {
    fn has_action(&self, action: &str) -> bool {
        self.given.iter().any(|given| text(&given.spec, "action") == action)
    }
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Given {
    #[serde(rename = "AuthorizationPolicy")]
    policy: Option<String>,
    spec: Value,
    dry_run: bool,
}

/// One case; `Default` is what a row leaves out.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
struct Row {
    name: String,
    from: String,
    source: Option<String>,
    destination: Option<String>,
    port: u16,
    method: String,
    scheme: Option<String>,
    authority: Option<String>,
    host: String,
    hosts: Option<Vec<String>>,
    path: String,
    protocol: Option<String>,
    headers: Vec<[String; 2]>,
    token: Option<Value>,
    tcp: bool,
    sni: Option<String>,
    expect: Expect,
}

impl Default for Row {
    fn default() -> Self {
        Self {
            name: String::new(),
            from: "shop/cart".to_owned(),
            source: None,
            destination: None,
            port: 80,
            method: "GET".to_owned(),
            scheme: None,
            authority: None,
            host: "web.shop".to_owned(),
            hosts: None,
            path: "/".to_owned(),
            protocol: None,
            headers: Vec::new(),
            token: None,
            tcp: false,
            sni: None,
            expect: Expect::default(),
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Expect {
    verdict: String,
    code: Option<String>,
    why: Option<String>,
}

/// Signs the claims of rows.
struct Issuer(Signer);

impl Issuer {
    /// Claims with an issuer, which the table leaves out where it is about other claims.
    fn claims(row: &Row) -> Option<Value> {
        let mut claims = row.token.clone()?;
        if claims["iss"].is_null() {
            claims["iss"] = json!("https://any.name");
        }
        Some(claims)
    }

    /// The header of a row's token.
    fn header(&self, row: &Row) -> Option<[String; 2]> {
        let claims = Self::claims(row)?;
        Some(["authorization".to_owned(), format!("Bearer {}", self.0.claims(&claims))])
    }

    /// The rules by which a service trusts the tokens of a group's rows; none if they have none.
    fn trusted(&self, group: &Group, service: &str) -> Option<Value> {
        let named = group.when.iter().filter_map(|row| Some(text(&Self::claims(row)?, "iss").to_owned()));
        let names: BTreeSet<String> = named.collect();
        if names.is_empty() {
            return None;
        }
        let keys = set([&self.0].into_iter());
        let rules: Vec<Value> = names.iter().map(|name| json!({"issuer": name, "jwks": keys})).collect();
        let target = json!([{"group": "", "kind": "Service", "name": service}]);
        let spec = json!({"targetRefs": target, "jwtRules": rules});
        Some(security("RequestAuthentication", &format!("{HOME}/{service}"), &spec))
    }
}

/// Every way to compare one attribute.
#[derive(Debug, Deserialize)]
struct Truth {
    attribute: String,
    key: String,
    kinds: BTreeMap<String, String>,
    facts: BTreeMap<String, Row>,
    rows: Vec<[String; 5]>,
}

#[test]
fn the_policy_table_holds_through_a_waypoint() {
    let table: Table = serde_saphyr::from_str(TABLE).unwrap_or_else(|e| panic!("http_policy.yaml: {e}"));
    let truth = table.truth.iter().flat_map(Truth::groups);
    let groups: Vec<Group> = table.groups.into_iter().chain(truth).collect();
    let issuer = Issuer(Signer::new("table", "ES256"));
    let (mut report, mut runs, mut objects) = (Report::default(), Vec::new(), Vec::new());
    for (number, group) in groups.iter().enumerate() {
        let before = runs.len();
        for row in &group.when {
            let name = format!("http_policy / {} / {}", group.name, row.name);
            match unfit(group, row) {
                Some(why) => report.left_out(&name, &why),
                None => runs.push((number, name, row)),
            }
        }
        if runs.len() > before {
            objects.extend(in_force(group, number, &issuer));
        }
    }
    let callers: BTreeSet<&str> = runs.iter().map(|(_, _, row)| &*row.from).collect();
    let Some(lab) = Lab::up("wp-policies", &cast(&callers), &[]) else { return };
    lab.apply(&objects);
    for caller in callers {
        let of: Vec<_> = runs.iter().filter(|(_, _, row)| row.from == caller).collect();
        let requests: Vec<Value> = of.iter().map(|(number, _, row)| request(*number, row, &issuer)).collect();
        for ((number, name, row), seen) in of.into_iter().zip(send(&lab, &pod_of(caller), &requests, 4)) {
            let denies = groups[*number].has_action("DENY");
            report.ran(name, row.wrong(denies, &seen["last"]));
        }
    }
    report.end("http_policy.yaml", 75);
}

fn cast(callers: &BTreeSet<&str>) -> Vec<Value> {
    let mut cast = clients(callers.iter().copied());
    cast.extend([gateway(HOME), application("shop/apps", "node2", &[PORT])]);
    cast
}

/// The group's services and policies.
fn in_force(group: &Group, number: usize, issuer: &Issuer) -> Vec<Value> {
    let prefix = rename::prefix(number);
    let names = ["http", "tcp"].map(|name| format!("{prefix}{name}"));
    let of = |is_tcp: bool| {
        let rows = group.when.iter().filter(move |row| row.tcp == is_tcp);
        rows.map(|row| row.port).collect::<BTreeSet<u16>>()
    };
    let mut objects = Vec::new();
    for (name, kind, is_tcp) in [(&names[0], "http", false), (&names[1], "tcp", true)] {
        let named: Vec<(u16, String)> =
            of(is_tcp).into_iter().map(|port| (port, format!("{kind}-{port}"))).collect();
        let ports: Vec<_> = named.iter().map(|(port, name)| (*port, &**name, PORT)).collect();
        if !ports.is_empty() {
            objects.push(bound(service_of(&format!("{HOME}/{name}"), "apps", &ports), HOME));
        }
    }
    let services: Vec<String> =
        objects.iter().map(|object| text(&object["metadata"], "name").to_owned()).collect();
    objects.extend(issuer.trusted(group, &names[0]));
    for given in &group.given {
        // Rows that are run under such a policy are refused before anybody is asked.
        let Some(key) = given.policy.as_ref().filter(|_| text(&given.spec, "action") != "CUSTOM") else {
            continue;
        };
        let (space, name) = split(key);
        let mut spec = if given.spec.is_null() { json!({}) } else { given.spec.clone() };
        let target = |name: &String| json!({"group": "", "kind": "Service", "name": name});
        spec["targetRefs"] = services.iter().map(target).collect();
        let mut policy = security("AuthorizationPolicy", &format!("{space}/{prefix}{name}"), &spec);
        if given.dry_run {
            policy["metadata"]["annotations"] = json!({"istio.io/dry-run": "true"});
        }
        objects.push(policy);
    }
    objects
}

/// Why a row cannot be run here; none if it can.
fn unfit(group: &Group, row: &Row) -> Option<String> {
    let has_break = |[name, value]: &[String; 2]| name.contains("\\x0a") || value.contains("\\x0a");
    let why = if !group.settings.is_null() {
        "settings of the whole mesh, and this one has the usual ones"
    } else if group.given.iter().any(|given| given.policy.is_none()) {
        "a policy that does not come cannot be applied"
    } else if group.has_action("CUSTOM") && row.expect.verdict != "refuse" {
        "an authorizer is asked: a test of its own"
    } else if group.given.iter().any(|given| given.spec.to_string().contains("destination.ip")) {
        "addresses are the lab's"
    } else if row.path.starts_with("http://") {
        "on a wire of HTTP/1.1 it is the absolute form of a good target"
    } else if row.source.is_some() || row.destination.is_some() {
        "addresses are the lab's"
    } else if row.from == "plain" {
        "who is not in the mesh does not reach a waypoint (row 4)"
    } else if row.from.contains(':') {
        "the lab's authority signs for one trust domain, and nothing malformed"
    } else if row.scheme.is_some()
        || row.protocol.is_some()
        || (row.authority.is_some() && row.hosts.is_some())
    {
        "only HTTP/2 can say it"
    } else if row.headers.iter().any(has_break) {
        "on a wire a line break begins another header"
    } else if row.sni.is_some() {
        "a connection with a server's name: a test of its own"
    } else if !soak() && !CALLERS.contains(&&*row.from) {
        "its caller takes part in the full form only"
    } else {
        return None;
    };
    Some(why.to_owned())
}

fn request(number: usize, row: &Row, issuer: &Issuer) -> Value {
    let kind = if row.tcp { "tcp" } else { "http" };
    let address = format!("{}{kind}.{HOME}.svc.cluster.local:{}", rename::prefix(number), row.port);
    let target = match &row.authority {
        Some(authority) => format!("http://{authority}{}", row.path),
        None if row.path.is_empty() => "web.shop:80".to_owned(),
        None => row.path.clone(),
    };
    let hosts = row.hosts.clone().unwrap_or_else(|| vec![row.host.clone()]);
    // The application describes what it got, whatever the path.
    let script = [["x-peer-row".to_owned(), "any".to_owned()]];
    let headers: Vec<_> = row.headers.iter().cloned().chain(script).chain(issuer.header(row)).collect();
    let bytes = raw::request(&row.method, &target, &hosts, &headers);
    json!({"address": address, "raw": raw::hexadecimal(&bytes)})
}

impl Row {
    /// What is not as expected; `denies` if the group's policies deny what they name.
    fn wrong(&self, denies: bool, last: &Value) -> Vec<String> {
        let (status, reason) =
            (last["status"].as_u64().unwrap_or_default(), joined(&last["headers"], "x-ambit-reason"));
        let served = joined(&last["headers"], "x-peer").is_some();
        let is_right = match &*self.expect.verdict {
            "allow" => status == 200 && served,
            // A connection has no status: it ends without an answer.
            "deny" if self.tcp => status == 0 && !served,
            "deny" => status == 403 && !served && reason == self.expect.code,
            // What stands behind `#` never gets past the parser: nobody sees it, neither policy nor application.
            "refuse" if self.expect.why.as_deref() == Some("fragment") => {
                let seen: Value = serde_json::from_str(text(last, "body")).unwrap_or_default();
                let is_cut = served && text(&seen, "path") == self.path.split('#').next().unwrap_or_default();
                !served && matches!(status, 400 | 403) || is_cut && !denies
            }
            "refuse" => status == 400 && !served,
            other => panic!("verdict {other}"),
        };
        let got = format!("{status}, reason {reason:?}, served {served}, error {}", last["error"]);
        (!is_right).then(|| format!("expected {:?}, got {got}", self.expect)).into_iter().collect()
    }
}

impl Truth {
    /// A group for each kind of value, list and action, with a row for each fact.
    fn groups(&self) -> Vec<Group> {
        let mut groups: BTreeMap<(&str, &str, &str), Vec<Row>> = BTreeMap::new();
        for [kind, list, fact, in_allow, in_deny] in &self.rows {
            for (action, agrees) in [("ALLOW", in_allow), ("DENY", in_deny)] {
                let is_allowed = (agrees == "yes") == (action == "ALLOW");
                let mut row = self.facts[fact].clone();
                row.name.clone_from(fact);
                let code = if action == "ALLOW" { "AMB2202" } else { "AMB2201" };
                row.expect.verdict = if is_allowed { "allow" } else { "deny" }.to_owned();
                row.expect.code = (!is_allowed).then(|| code.to_owned());
                groups.entry((kind, list, action)).or_default().push(row);
            }
        }
        let group = |((kind, list, action), when): ((&str, &str, &str), Vec<Row>)| {
            let condition = json!({"key": self.key, list: [self.kinds[kind]]});
            let spec = json!({"action": action, "rules": [{"when": [condition]}]});
            let given = Given { policy: Some("shop/truth".to_owned()), spec, dry_run: false };
            let name = format!("truth of {} {kind} {list} {action}", self.attribute);
            Group { name, settings: Value::Null, given: vec![given], when }
        };
        groups.into_iter().map(group).collect()
    }
}
