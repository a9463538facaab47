//! What an explanation tells, and that its JSON is read back.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ambit_policy::model::{Action, Clause, Match, Policy, Rule, Scope, StringMatch, Values};
use ambit_state::{Change, Snapshot, World};
use ambit_types::service::Port;
use ambit_types::workload::Settings;
use ambit_types::{
    AppProtocol, Egress, EgressRule, NetworkAddress, PolicyKey, Reason, Service, TunnelProtocol, Workload,
};

use crate::{
    Certificate, Explanation, Flow, Outcome, Question, Source, Step, Verdict, View, Way, explain, replay,
};

fn pod(name: &str, last: u8, is_meshed: bool) -> Workload {
    let mut workload = Workload::new(format!("Kubernetes//Pod/shop/{name}"), "shop", name);
    workload.addresses = vec![IpAddr::from([10, 0, 0, last])];
    workload.service_account = name.into();
    workload.node = format!("n{last}").into();
    workload.tunnel = if is_meshed { TunnelProtocol::Hbone } else { TunnelProtocol::None };
    workload.settings = Some(Arc::default());
    workload
}

/// `web` and `job` are in the mesh, `stranger` is not; only `web` may call `db`.
fn mesh() -> Arc<Snapshot> {
    let web = StringMatch::Exact("cluster.local/ns/shop/sa/web".into());
    let principals = Values { any: vec![web], none: Vec::new() };
    let rule = Rule {
        clauses: vec![Clause { matches: vec![Match { principals, ..Match::default() }] }],
        unevaluable: Vec::new(),
    };
    let policy = Policy {
        key: PolicyKey::new("shop", "db"),
        scope: Scope::WorkloadSelector,
        action: Action::Allow,
        rules: vec![rule],
        dry_run: false,
        until: None,
    };
    let mut db = pod("db", 4, true);
    db.policies = vec![policy.key.clone()];
    let pods = [pod("web", 1, true), pod("job", 2, true), pod("stranger", 3, false), db];
    let changes = pods.into_iter().map(Change::from).chain([policy.into()]);
    World::new("n1").apply(changes).snapshot
}

fn asked(from: &str, to: &str) -> Question {
    Question::new(from.parse().expect("a source"), to.parse().expect("a destination"))
}

fn told(from: &str, to: &str) -> Explanation {
    explain(&View::new(&mesh()), &asked(from, to))
}

#[test]
fn who_may_is_told_by_which_rule_and_who_may_not_what_is_missing() {
    let web = told("shop/web", "shop/db:5432");
    assert_eq!((web.verdict, web.code(), web.way), (Verdict::Allow, None, Some(Way::Hbone)));
    assert_eq!(web.decided_by.as_ref().map(ToString::to_string).as_deref(), Some("shop/db rule 0"));
    let steps: Vec<Step> = web.hops.iter().map(|hop| hop.step).collect();
    let want = [
        Step::Capture,
        Step::Service,
        Step::Waypoint,
        Step::Tunnel,
        Step::Certificate,
        Step::Admission,
        Step::Policy,
    ];
    assert_eq!(steps, want, "{web:#?}");
    let job = told("shop/job", "shop/db:5432");
    assert_eq!((job.verdict, job.code()), (Verdict::Deny, Some(Reason::PolicyDenied)));
    let nearest = job.nearest.expect("there is one");
    assert_eq!((nearest.policy.to_string().as_str(), nearest.met, nearest.total), ("shop/db", 0, 1));
    assert!(nearest.sentence.contains("cluster.local/ns/shop/sa/web"), "{}", nearest.sentence);
}

#[test]
fn who_is_not_in_the_mesh_has_no_identity_to_show() {
    for from in ["shop/stranger", "192.0.2.7"] {
        let stranger = told(from, "shop/db:5432");
        assert_eq!((stranger.verdict, stranger.way), (Verdict::Deny, Some(Way::Plaintext)), "{stranger:#?}");
        assert_eq!(stranger.hop(Step::Capture).map(|hop| hop.outcome), Some(Outcome::Skipped));
    }
    let away = told("shop/web", "192.0.2.7:443");
    assert_eq!((away.verdict, away.way), (Verdict::Allow, Some(Way::Passthrough)));
}

#[test]
fn who_may_not_leave_the_mesh_is_told_by_which_policy() {
    let mut web = pod("web", 1, true);
    let (policy, rule) = (PolicyKey::new("shop", "out"), EgressRule { cidrs: Vec::new(), ports: vec![443] });
    let egress = Some(Egress { policy: policy.clone(), rules: vec![rule] });
    web.settings = Some(Arc::new(Settings { egress, ..Settings::default() }));
    let snapshot = World::new("n1").apply([Change::from(web)]).snapshot;
    let told = |to| explain(&View::new(&snapshot), &asked("shop/web", to));
    let refused = told("192.0.2.7:80");
    assert_eq!(
        (refused.verdict, refused.code()),
        (Verdict::Deny, Some(Reason::EgressDenied)),
        "{refused:#?}"
    );
    assert_eq!(refused.decided_by.map(|by| by.policy), Some(policy));
    assert_eq!(
        (told("192.0.2.7:443").verdict, told("192.0.2.7:443").way),
        (Verdict::Allow, Some(Way::Passthrough))
    );
}

#[test]
fn names_of_nobody_are_refused() {
    assert_eq!(told("shop/nobody", "shop/db:1").code(), Some(Reason::WorkloadUnknown));
    assert_eq!(told("shop/web", "shop/nobody:1").code(), Some(Reason::UnknownDestination));
    for host in
        ["nobody", "nobody.shop.svc", "nobody.shop.svc.cluster.local", "nobody.shop.svc.cluster.local."]
    {
        let answer = told("shop/web", &format!("{host}:1"));
        assert_eq!(answer.code(), Some(Reason::UnknownDestination), "{host}");
    }
}

#[test]
fn names_lead_where_the_resolver_of_a_pod_finds_them() {
    let mut cart = pod("cart", 5, true);
    let mut service = Service::new("shop", "cart", "cart.shop.svc.cluster.local");
    service.vips = vec![NetworkAddress::new("".into(), IpAddr::from([10, 0, 9, 9]))];
    service.ports = vec![Port { service_port: 80, target_port: 8080, app_protocol: AppProtocol::Unknown }];
    cart.services.insert(service.key(), Vec::new());
    let changes = [Change::from(pod("web", 1, true)), cart.into(), service.into()];
    let snapshot = World::new("n1").apply(changes).snapshot;
    for host in
        ["cart", "cart.shop", "CART.Shop.svc", "cart.shop.svc.cluster.local", "cart.shop.svc.cluster.local."]
    {
        let web = explain(&View::new(&snapshot), &asked("shop/web", &format!("{host}:80")));
        assert_eq!((web.verdict, web.way), (Verdict::Allow, Some(Way::Hbone)), "{host}: {web:#?}");
    }
    let away = told("shop/web", "Example.COM.:443");
    assert_eq!((away.verdict, away.way), (Verdict::Allow, Some(Way::Passthrough)), "{away:#?}");
    let is_said =
        |text: &String| text.contains("example.com resolves to addresses that the mesh does not know");
    assert!(away.assumed.iter().any(is_said), "{away:#?}");
}

#[test]
fn a_name_without_an_address_in_the_mesh_leaves_it_where_egress_may() {
    let service = Service::new("shop", "api", "api.example");
    let (policy, rule) = (PolicyKey::new("shop", "out"), EgressRule { cidrs: Vec::new(), ports: vec![443] });
    let mut web = pod("web", 1, true);
    let egress = Some(Egress { policy: policy.clone(), rules: vec![rule] });
    web.settings = Some(Arc::new(Settings { egress, ..Settings::default() }));
    let snapshot = World::new("n1").apply([Change::from(web), service.into()]).snapshot;
    let told = |to: &str| explain(&View::new(&snapshot), &asked("shop/web", to));
    for host in ["api.example", "elsewhere.example"] {
        let let_out = told(&format!("{host}:443"));
        assert_eq!((let_out.verdict, let_out.way), (Verdict::Allow, Some(Way::Passthrough)), "{let_out:#?}");
        assert!(let_out.assumed.iter().any(|text| text.contains("EgressPolicy shop/out")), "{let_out:#?}");
        let kept = told(&format!("{host}:80"));
        assert_eq!((kept.verdict, kept.code()), (Verdict::Deny, Some(Reason::EgressDenied)), "{kept:#?}");
        assert_eq!(kept.decided_by.map(|by| by.policy), Some(policy.clone()));
    }
}

#[test]
fn where_a_name_leads_is_assumed_and_said() {
    let mut api = pod("api", 9, false);
    (api.addresses, api.hostname) = (Vec::new(), "api.example".into());
    let mut service = Service::new("shop", "api", "api.example");
    service.vips = vec![NetworkAddress::new("".into(), IpAddr::from([10, 0, 9, 9]))];
    service.ports = vec![Port { service_port: 443, target_port: 8443, app_protocol: AppProtocol::Unknown }];
    api.services.insert(service.key(), Vec::new());
    for (is_meshed, way) in [(false, Way::Plaintext), (true, Way::Hbone)] {
        let mut api = api.clone();
        api.tunnel = if is_meshed { TunnelProtocol::Hbone } else { TunnelProtocol::None };
        let changes = [Change::from(pod("web", 1, true)), api.into(), service.clone().into()];
        let mesh = World::new("n1").apply(changes).snapshot;
        let told = explain(&View::new(&mesh), &asked("shop/web", "10.0.9.9:443"));
        assert_eq!((told.verdict, told.code(), told.way), (Verdict::Allow, None, Some(way)), "{told:#?}");
        assert_eq!(told.endpoint.as_deref(), Some("shop/api"));
        let step = told.hop(Step::Service).expect("a step");
        assert!(step.what.contains("where api.example resolves to, port 8443"), "{}", step.what);
        assert!(told.assumed.iter().any(|what| what.contains("resolves api.example")), "{told:#?}");
    }
}

#[test]
fn a_certificate_is_judged_where_it_is_known() {
    let (mesh, question) = (mesh(), asked("shop/web", "shop/db:5432"));
    let web = mesh.workload(&"Kubernetes//Pod/shop/web".into()).expect("a pod").identity();
    let with = |held| {
        let certificates = BTreeMap::from([(web.clone(), held)]);
        explain(&View::new(&mesh).with_certificates(&certificates), &question).code()
    };
    assert_eq!(with(Certificate::Valid { remaining_s: 60 }), None);
    assert_eq!(with(Certificate::Expired), Some(Reason::CertificateOutsideValidity));
    assert_eq!(with(Certificate::Missing), Some(Reason::NoCertificate));
    assert_eq!(with(Certificate::Refused), Some(Reason::IssuanceRefused));
    assert!(!told("shop/web", "shop/db:5432").assumed.is_empty(), "what is not known is assumed and said");
}

#[test]
fn json_is_read_back() {
    for from in ["shop/web", "shop/job", "shop/stranger"] {
        let explanation = told(from, "shop/db:5432");
        let text = serde_json::to_string(&explanation).expect("it is written");
        assert_eq!(serde_json::from_str::<Explanation>(&text).expect("it is read"), explanation);
    }
    let question = r#"{"source": "shop/web", "destination": "shop/db:80", "http": {"path": "/a"}}"#;
    let question: Question = serde_json::from_str(question).expect("a question");
    assert_eq!(question.source, Source::Named { namespace: "shop".into(), name: "web".into() });
    assert_eq!(question.http.map(|http| http.method).as_deref(), Some("GET"));
    let unknown = r#"{"source": "shop/web", "destination": "shop/db:80", "pathh": "/a"}"#;
    assert!(serde_json::from_str::<Question>(unknown).is_err(), "a mistake is not passed over");
}

#[test]
fn a_record_is_asked_again() {
    let line = r#"{"time": "2026-01-01T00:00:00.000Z", "node": "n2", "direction": "outbound", "verdict": "allowed",
        "code": null, "policy": null, "rule": null, "path": "hbone", "conn_id": "00", "client": null,
        "src": {"addr": "10.0.0.2:4000", "workload": "job", "namespace": "shop"},
        "dst": {"addr": "10.0.0.4:15008", "workload": "db"}, "service": null, "hbone_addr": "10.0.0.4:5432",
        "bytes_sent": 1, "bytes_recv": 2, "duration_ms": 3, "error": null}"#;
    let flow = Flow::read(line).expect("a record");
    assert!(flow.is_allowed());
    let now = replay(&View::new(&mesh()), &flow).expect("it says enough");
    assert_eq!((now.verdict, now.code()), (Verdict::Deny, Some(Reason::PolicyDenied)));
    assert_eq!(Flow::read(r#"{"footer": {"records": 1}}"#), None);
    assert_eq!(replay(&View::new(&mesh()), &Flow::default()).ok(), None, "it says nothing");
}
