//! Row 3: `tests/tables/jwt.yaml` through the lab, with tokens that are really signed, and keys that are fetched: new
//! ones, and ones that cannot be had any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, SystemTime};

use ambit_runtime::clock;
use ambit_tests::lab::{Lab, wait_until};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::keys::{Signer, set};
use super::outcome::joined;
use super::{Report, application, bound, clients, gateway, pod_of, raw, rename, send, service_of, text};
use crate::cast::security;

const TABLE: &str = include_str!("../../../tables/jwt.yaml");
const HOME: &str = "shop";
const CLIENT: &str = "shop/client";
/// Where the application listens.
const PORT: u16 = 8080;
/// Where an issuer publishes its keys.
const KEYS_PORT: u16 = 8000;
/// The issuer of the table that signs with whatever it is asked to.
const STRANGER: &str = "mallory";
/// An issuer whose keys are published in the lab.
const REMOTE: &str = "https://remote.example";
/// Times of tokens that are this near to the table's own time are moved to ours, in seconds.
const NEAR: f64 = 1e6;
/// The pause between fetches of keys that unknown ones set off (10 s), and what a busy machine adds.
const ROTATED_WITHIN: Duration = Duration::from_secs(25);
/// Rows that a second more or less decides.
const TO_THE_SECOND: [&str; 3] = ["expired for 59 s", "expired for 60 s", "valid in 61 s"];

#[derive(Debug, Deserialize)]
struct Table {
    now: i64,
    keys: BTreeMap<String, BTreeMap<String, String>>,
    tokens: BTreeMap<String, Token>,
    groups: Vec<Group>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Token {
    header: Map<String, Value>,
    claims: Value,
    signed_by: Option<String>,
    payload: Option<String>,
    raw: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Group {
    name: String,
    rules: Vec<Value>,
    #[serde(default)]
    options: Value,
    when: Vec<Row>,
}

impl Group {
    /// Whom the group's tokens name, each once.
    fn principals(&self) -> BTreeSet<&str> {
        self.when.iter().filter_map(|row| row.expect.principal.as_deref()).collect()
    }

    /// A service that lets in nobody but whom a row's token names; nobody at all if it names none.
    fn door(&self, row: &Row) -> String {
        let place =
            self.principals().into_iter().position(|name| row.expect.principal.as_deref() == Some(name));
        place.map_or_else(|| "nobody".to_owned(), |place| format!("member{place}"))
    }
}

#[derive(Debug, Deserialize)]
struct Row {
    name: String,
    method: Option<String>,
    path: Option<String>,
    #[serde(default)]
    headers: Vec<[String; 2]>,
    expect: Expect,
}

#[derive(Debug, Deserialize)]
struct Expect {
    outcome: String,
    principal: Option<String>,
    code: Option<String>,
    remove: Option<Remove>,
    set: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
struct Remove {
    headers: Vec<String>,
}

/// The table with its keys made and its tokens signed.
struct Issued {
    signers: BTreeMap<(String, String), Signer>,
    tokens: BTreeMap<String, String>,
}

impl Issued {
    fn new(table: &Table) -> Self {
        let each = table.keys.iter().flat_map(|(issuer, keys)| keys.iter().map(move |key| (issuer, key)));
        let made = |(issuer, (id, algorithm)): (&String, (&String, &String))| {
            ((issuer.clone(), id.clone()), Signer::new(id, algorithm))
        };
        let signers: BTreeMap<_, _> = each.map(made).collect();
        let stranger = Signer::new("k1", "RS256");
        let now = clock::wall().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
        let shift = i64::try_from(now).expect("a time") - table.now;
        let signed = |(name, token): (&String, &Token)| {
            (name.clone(), token.text(&signers, &stranger, (table.now, shift)))
        };
        let tokens = table.tokens.iter().map(signed).collect();
        Self { signers, tokens }
    }

    /// A text with every `{NAME}` replaced.
    fn filled(&self, text: &str) -> String {
        let each =
            |text: String, (name, token): (&String, &String)| text.replace(&format!("{{{name}}}"), token);
        self.tokens.iter().fold(text.to_owned(), each)
    }

    /// The tokens that stand in a row.
    fn of(&self, row: &Row) -> Vec<&str> {
        let texts: Vec<&str> =
            row.headers.iter().map(|[_, value]| &**value).chain(row.path.as_deref()).collect();
        let stands = |name: &String| texts.iter().any(|text| text.contains(&format!("{{{name}}}")));
        self.tokens.iter().filter(|(name, _)| stands(name)).map(|(_, token)| &**token).collect()
    }

    /// A rule with the keys of its issuer; one without keys has them where nobody answers.
    fn rule(&self, rule: &Value) -> Value {
        let mut rule = rule.clone();
        let issuer = text(&rule, "issuer").to_owned();
        let mut keys =
            self.signers.iter().filter(|((of, _), _)| *of == issuer).map(|(_, key)| key).peekable();
        if keys.peek().is_some() {
            rule["jwks"] = json!(set(keys));
        } else {
            rule["jwksUri"] = json!(format!("http://nobody.{HOME}.svc.cluster.local:{KEYS_PORT}/keys.json"));
        }
        rule
    }
}

impl Token {
    fn text(
        &self,
        signers: &BTreeMap<(String, String), Signer>,
        stranger: &Signer,
        (now, shift): (i64, i64),
    ) -> String {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        let mut header =
            Map::from_iter([("alg".to_owned(), json!("RS256")), ("kid".to_owned(), json!("k1"))]);
        header.extend(self.header.clone());
        header.retain(|_, value| !value.is_null());
        let mut claims = self.claims.clone();
        for name in ["exp", "nbf"] {
            if claims[name].as_f64().is_some_and(|at| (at - seconds(now)).abs() < NEAR) {
                claims[name] = moved(&claims[name], shift);
            }
        }
        claims.as_object_mut().into_iter().for_each(|map| map.retain(|_, value| !value.is_null()));
        let payload = self.payload.clone().unwrap_or_else(|| claims.to_string());
        let issuer = self.claims["iss"].as_str().unwrap_or("https://id.example");
        let by = self.signed_by.as_deref().unwrap_or("k1");
        let key = (issuer.to_owned(), by.to_owned());
        let signer = signers.get(&key).filter(|_| by != STRANGER).unwrap_or(stranger);
        signer.token(&Value::Object(header), &payload)
    }
}

#[expect(clippy::cast_precision_loss, reason = "seconds of this century are exact")]
fn seconds(at: i64) -> f64 {
    at as f64
}

fn moved(at: &Value, shift: i64) -> Value {
    at.as_i64()
        .map_or_else(|| json!(at.as_f64().unwrap_or_default() + seconds(shift)), |at| json!(at + shift))
}

#[test]
fn the_token_table_holds_through_a_waypoint() {
    let table: Table = serde_saphyr::from_str(TABLE).unwrap_or_else(|e| panic!("jwt.yaml: {e}"));
    let issued = Issued::new(&table);
    let mut cast = clients([CLIENT].into_iter());
    let keys = crate::cast::pod("shop/keys", "node1", &[]);
    cast.extend([gateway(HOME), application("shop/apps", "node2", &[PORT]), keys]);
    let Some(lab) = Lab::up("wp-tokens", &cast, &[]) else { return };
    let (mut report, mut runs, mut objects) = (Report::default(), Vec::new(), Vec::new());
    for (number, group) in table.groups.iter().enumerate() {
        objects.extend(in_force(group, number, &issued));
        for row in &group.when {
            let name = format!("jwt / {} / {}", group.name, row.name);
            match unfit(group, row) {
                Some(why) => report.left_out(&name, why),
                None => runs.push((number, name, group, row)),
            }
        }
    }
    lab.apply(&objects);
    let at = |service: &str, number: usize, row: &Row| request(service, number, row, &issued);
    let requests = runs.iter().map(|(number, _, _, row)| at("web", *number, row));
    let members = runs.iter().map(|(number, _, group, row)| at(&group.door(row), *number, row));
    let requests: Vec<Value> = requests.chain(members).collect();
    let seen = send(&lab, &pod_of(CLIENT), &requests, 4);
    let (seen, let_in) = seen.split_at(runs.len());
    for (((_, name, group, row), seen), door) in runs.iter().zip(seen).zip(let_in) {
        let mut problems = wrong(&issued, group, row, &seen["last"]);
        problems.extend(not_known(row, &door["last"]));
        report.ran(name, problems);
    }
    fetched_keys(&lab);
    report.end("jwt.yaml", 90);
}

/// The group's services, its rules for each of them, and who is let in at the doors.
fn in_force(group: &Group, number: usize, issued: &Issued) -> Vec<Value> {
    let rules: Vec<Value> = group.rules.iter().map(|rule| issued.rule(rule)).collect();
    let has_rules = !rules.is_empty() && group.rules.iter().all(|rule| rule["jwksUri"].is_null());
    let doors = group.principals().into_iter().enumerate();
    let doors = doors.map(|(place, principal)| (format!("member{place}"), Some(principal)));
    let services = [("web".to_owned(), None), ("nobody".to_owned(), Some("no issuer/no subject"))];
    let mut objects = Vec::new();
    for (name, member) in services.into_iter().chain(doors) {
        let name = format!("{}{name}", rename::prefix(number));
        objects.push(bound(service_of(&format!("{HOME}/{name}"), "apps", &[(80, "http", PORT)]), HOME));
        objects.extend(has_rules.then(|| authentication(&name, &json!(rules))));
        objects.extend(member.map(|principal| {
            let target = json!([{"group": "", "kind": "Service", "name": name}]);
            let from = json!([{"source": {"requestPrincipals": [principal]}}]);
            let spec = json!({"targetRefs": target, "rules": [{"from": from}]});
            security("AuthorizationPolicy", &format!("{HOME}/{name}"), &spec)
        }));
    }
    objects
}

fn authentication(name: &str, rules: &Value) -> Value {
    let target = json!([{"group": "", "kind": "Service", "name": name}]);
    let spec = json!({"targetRefs": target, "jwtRules": rules});
    security("RequestAuthentication", &format!("{HOME}/{name}"), &spec)
}

/// Why a row cannot be run here; none if it can.
fn unfit(group: &Group, row: &Row) -> Option<&'static str> {
    if !group.options.is_null() {
        Some("settings of the whole mesh, and this one has the usual ones")
    } else if group.rules.iter().any(|rule| !rule["jwksUri"].is_null()) {
        Some("its keys are fetched: see below in this test")
    } else if TO_THE_SECOND.contains(&&*row.name) {
        Some("a second more or less decides")
    } else {
        None
    }
}

fn request(service: &str, number: usize, row: &Row, issued: &Issued) -> Value {
    let address = format!("{}{service}.{HOME}.svc.cluster.local:80", rename::prefix(number));
    let headers: Vec<[String; 2]> =
        row.headers.iter().map(|[name, value]| [name.clone(), issued.filled(value)]).collect();
    let path = issued.filled(row.path.as_deref().unwrap_or("/"));
    sent(&address, row.method.as_deref().unwrap_or("GET"), &path, headers)
}

fn sent(address: &str, method: &str, path: &str, mut headers: Vec<[String; 2]>) -> Value {
    headers.push(["x-peer-row".to_owned(), "any".to_owned()]);
    let bytes = raw::request(method, path, &["web.shop".to_owned()], &headers);
    json!({"address": address, "raw": raw::hexadecimal(&bytes)})
}

/// What is not as the row expects.
fn wrong(issued: &Issued, group: &Group, row: &Row, last: &Value) -> Vec<String> {
    let status = last["status"].as_u64().unwrap_or_default();
    let header = |name: &str| joined(&last["headers"], name);
    let served = header("x-peer").is_some();
    let got =
        format!("{status}, reason {:?}, served {served}, error {}", header("x-ambit-reason"), last["error"]);
    if row.expect.outcome == "401" {
        let code = row.expect.code.as_deref().unwrap_or("AMB2203");
        let told = (header("x-ambit-reason").as_deref() == Some(code), header("www-authenticate").is_some());
        let is_right = status == 401 && !served && told == (true, true);
        return (!is_right)
            .then(|| format!("expected 401 {code} with a challenge, got {got}"))
            .into_iter()
            .collect();
    }
    if status != 200 || !served {
        return vec![format!("expected {}, got {got}", row.expect.outcome)];
    }
    let Ok(told) = serde_json::from_str::<Value>(text(last, "body")) else {
        return vec![format!("the application told nothing: {last}")];
    };
    let seen = |name: &str| joined(&told["headers"], name);
    let mut problems = Vec::new();
    // The table says that a token is taken out, unless the rule wants it on.
    let keeps =
        row.expect.outcome == "none" || group.rules.iter().any(|rule| rule["forwardOriginalToken"] == true);
    for token in issued.of(row) {
        if told.to_string().contains(token) != keeps {
            problems.push(format!("the token reached the application: {}, expected {keeps}", !keeps));
        }
    }
    let nothing = BTreeMap::new();
    let wanted = row.expect.set.as_ref().unwrap_or(&nothing);
    for (name, value) in wanted {
        let filled = issued.filled(value);
        let value =
            if filled == *value { filled } else { filled.split('.').nth(1).unwrap_or_default().to_owned() };
        if seen(name).as_ref() != Some(&value) {
            problems.push(format!("{name} is {:?}, expected {value:?}", seen(name)));
        }
    }
    let removed = row.expect.remove.iter().flat_map(|remove| &remove.headers);
    for name in removed.filter(|name| !wanted.contains_key(*name)) {
        if let Some(value) = seen(name) {
            problems.push(format!("{name} reached the application: {value:?}"));
        }
    }
    problems
}

/// Whether policy knows the row's principal: at its door it is let in, and whoever has none is not.
fn not_known(row: &Row, last: &Value) -> Option<String> {
    let status = last["status"].as_u64().unwrap_or_default();
    let want = match (&*row.expect.outcome, &row.expect.principal) {
        ("401", _) => 401,
        ("accepted", Some(_)) => 200,
        // Who is not said may be anybody.
        ("accepted", None) if row.name != "no subject is no principal" => return None,
        (_, _) => 403,
    };
    let principal = &row.expect.principal;
    (status != want).then(|| format!("as principal {principal:?} it got {status}, expected {want}"))
}

/// Keys that are fetched through the mesh: used, renewed for a token whose key is not known, given up when the issuer
/// does not list them any more, and kept while the issuer cannot be reached.
fn fetched_keys(lab: &Lab) {
    let (first, second) = (Signer::new("first", "RS256"), Signer::new("second", "ES256"));
    let folder = lab.folder("keys");
    let file = format!("{folder}/keys.json");
    let publish = |key: &Signer| {
        // Replaced as a whole: nobody reads half of it.
        let fresh = format!("{file}.new");
        fs::write(&fresh, set([key].into_iter())).and_then(|()| fs::rename(&fresh, &file)).expect("a file");
    };
    publish(&first);
    let port = KEYS_PORT.to_string();
    let issuer = lab.spawn("shop/keys", &["python3", "-m", "http.server", &port, "--directory", &folder]);
    wait_until("the issuer listens", Duration::from_secs(10), || {
        lab.exec("shop/keys", &["ss", "-Hltn"]).stdout.contains(&format!(":{port} "))
    });
    let uri = format!("http://keys.{HOME}.svc.cluster.local:{port}/keys.json");
    lab.apply(&[service_of("shop/keys", "keys", &[(KEYS_PORT, "http", KEYS_PORT)])]);
    lab.apply(&[
        bound(service_of("shop/remote", "apps", &[(80, "http", PORT)]), HOME),
        authentication("remote", &json!([{"issuer": REMOTE, "jwksUri": uri}])),
    ]);
    let ask = |key: &Signer| {
        let bearer = format!("Bearer {}", key.claims(&json!({"iss": REMOTE, "sub": "rosa"})));
        let headers = vec![["authorization".to_owned(), bearer]];
        let row = sent(&format!("remote.{HOME}.svc.cluster.local:80"), "GET", "/", headers);
        let last = send(lab, &pod_of(CLIENT), &[row], 1).remove(0)["last"].clone();
        (
            last["status"].as_u64().unwrap_or_default(),
            joined(&last["headers"], "x-ambit-reason").unwrap_or_default(),
        )
    };
    let unknown = (401, "AMB2203".to_owned());
    wait_until("the fetched key is used", ROTATED_WITHIN, || ask(&first).0 == 200);
    assert_eq!(ask(&second), unknown, "a key that is not published");
    publish(&second);
    let took = wait_until("the new key is fetched because a token names it", ROTATED_WITHIN, || {
        ask(&second).0 == 200
    });
    println!("keys: a new one was used {took:?} after it was published");
    assert_eq!(ask(&first), unknown, "a key that is not published any more");
    drop(issuer.stop());
    assert_eq!(ask(&second).0, 200, "the last keys are used while the issuer is away");
    assert_eq!(ask(&first), unknown, "and no others");
}
