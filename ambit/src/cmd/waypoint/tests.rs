//! What the commands write, say and refuse.

use clap::Parser;
use serde_json::json;

use super::*;

/// A command line with nothing but this command.
#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

#[track_caller]
fn parse(words: &[&str]) -> Result<Args, clap::error::ErrorKind> {
    let words = std::iter::once("waypoint").chain(words.iter().copied());
    Line::try_parse_from(words).map(|line| line.args).map_err(|e| e.kind())
}

fn lab() -> LabName {
    "cart".parse().expect("a good name")
}

fn namespace(name: &str, labels: &Value) -> Value {
    json!({"kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

fn service(key: &str, labels: &Value) -> Value {
    let (namespace, name) = key.split_once('/').expect("NAMESPACE/NAME");
    json!({"kind": "Service", "metadata": {"name": name, "namespace": namespace, "labels": labels}})
}

fn gateway_of(words: &[&str]) -> Value {
    match parse(&[&["generate"], words].concat()).expect("a good line").command {
        Command::Generate(args) => gateway::of(&args),
        other => panic!("{other:?}"),
    }
}

fn pod(name: &str, is_ready: bool) -> Value {
    json!({"kind": "Pod", "metadata": {"name": name, "namespace": "shop", "labels": {
            waypoints::GATEWAY_LABEL: "waypoint", waypoints::MANAGED_LABEL: waypoints::MANAGED}},
        "spec": {"nodeName": "node1"},
        "status": {"conditions": [{"type": "Ready", "status": if is_ready { "True" } else { "False" }}]}})
}

#[test]
fn generate_prints_the_gateway_that_istioctl_would_write() {
    let text = manifests::to_yaml(&gateway_of(&["-n", "shop", "--for", "all"]));
    let parsed = manifests::to_yaml(&json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "waypoint", "namespace": "shop", "labels": {"istio.io/waypoint-for": "all"}},
        "spec": {
            "gatewayClassName": "istio-waypoint",
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE",
                "allowedRoutes": {"namespaces": {"from": "Same"}}}],
        },
    }));
    assert_eq!(text, parsed);
    assert!(gateway_of(&["--name", "edge"])["metadata"].get("labels").is_none());
    assert!(waypoints::is_waypoint(&gateway_of(&[])));
}

#[test]
fn command_lines_are_understood_or_refused() {
    use clap::error::ErrorKind;
    let good =
        parse(&["apply", "-n", "shop", "--name", "edge", "--for", "none", "--enroll-namespace", "--wait"]);
    assert!(good.is_ok_and(|args| !args.needs_nothing()));
    assert!(
        parse(&["generate"]).is_ok_and(|args| args.lab().is_none() && args.needs_nothing()),
        "it needs no mesh"
    );
    assert!(
        parse(&["status", "edge", "-n", "shop", "--lab", "two"])
            .is_ok_and(|args| args.lab().is_some_and(|lab| lab.as_str() == "two"))
    );
    assert!(parse(&["delete", "--all", "-n", "shop"]).is_ok());
    let rows = [
        (&["delete"][..], ErrorKind::MissingRequiredArgument),
        (&["delete", "x", "--all"], ErrorKind::ArgumentConflict),
        (&["apply", "--for", "pods"], ErrorKind::InvalidValue),
        (&["apply", "--overwrite"], ErrorKind::MissingRequiredArgument),
        (&["apply", "--wait", "--no-wait"], ErrorKind::ArgumentConflict),
    ];
    for (words, want) in rows {
        assert_eq!(parse(words).map(|_| ()), Err(want), "row {words:?}");
    }
}

#[test]
fn what_cannot_be_done_says_what_why_and_the_next_command() {
    let namespaces = [namespace("default", &json!({})), namespace("shop", &json!({}))];
    let absent =
        gateway::check_namespace(&namespaces, "shpo", Mesh::Lab(&lab())).expect_err("no such namespace");
    assert_eq!(
        absent.to_string(),
        "lab cart has no namespace shpo, only default, shop; make it with a manifest: ambit lab apply -f FILE \
         --name cart"
    );
    let mut foreign = gateway_of(&["-n", "shop"]);
    foreign["spec"]["gatewayClassName"] = json!("nginx");
    let taken = gateway::check_free(std::slice::from_ref(&foreign), "shop", "waypoint").expect_err("taken");
    assert_eq!(
        taken.to_string(),
        "Gateway shop/waypoint is there and is no waypoint of ours (class nginx); nothing was changed; choose \
         another name with --name"
    );
    assert!(gateway::check_free(&[gateway_of(&["-n", "shop"])], "shop", "waypoint").is_ok());
    let enrolled = namespace("shop", &json!({"istio.io/use-waypoint": "edge"}));
    let other = gateway::check_enrolment(&enrolled, "waypoint", false).expect_err("another one");
    assert_eq!(
        other.to_string(),
        "namespace shop is labelled istio.io/use-waypoint=edge; nothing was changed; to use waypoint instead, add \
         --overwrite"
    );
    assert!(gateway::check_enrolment(&enrolled, "waypoint", true).is_ok());
    assert!(gateway::check_enrolment(&enrolled, "edge", false).is_ok());
    let none =
        gateway::check_exists(&[foreign], "shop", "waypoint", Mesh::Lab(&lab())).expect_err("no waypoint");
    assert_eq!(
        none.to_string(),
        "no waypoint shop/waypoint, there is none; make one with: ambit waypoint apply -n shop --lab cart"
    );
    let edge = [gateway_of(&["-n", "shop", "--name", "edge"])];
    let wrong =
        gateway::check_exists(&edge, "shop", "waypoint", Mesh::Lab(&lab())).expect_err("another name");
    assert_eq!(wrong.to_string(), "no waypoint shop/waypoint, only shop/edge");
}

#[test]
fn services_are_bound_by_their_own_label_or_their_namespaces() {
    let namespaces = [
        namespace("shop", &json!({"istio.io/use-waypoint": "waypoint"})),
        namespace("bank", &json!({})),
        namespace(
            "far",
            &json!({"istio.io/use-waypoint": "waypoint", "istio.io/use-waypoint-namespace": "shop"}),
        ),
    ];
    let own = json!({waypoints::GATEWAY_LABEL: "waypoint", waypoints::MANAGED_LABEL: waypoints::MANAGED});
    let services = [
        service("shop/web", &json!({})),
        service("shop/out", &json!({"istio.io/use-waypoint": "none"})),
        service("shop/edge", &json!({"istio.io/use-waypoint": "edge"})),
        service("shop/waypoint", &own),
        service("bank/web", &json!({})),
        service(
            "bank/sent",
            &json!({"istio.io/use-waypoint": "waypoint", "istio.io/use-waypoint-namespace": "shop"}),
        ),
        service("bank/own", &json!({"istio.io/use-waypoint": "waypoint"})),
        service("far/web", &json!({})),
    ];
    let bound = |gateway: &Value| facts::bound(gateway, &services, &namespaces);
    assert_eq!(bound(&gateway_of(&["-n", "shop"])), ["shop/web", "bank/sent", "far/web"]);
    assert_eq!(bound(&gateway_of(&["-n", "shop", "--name", "edge", "--for", "all"])), ["shop/edge"]);
    assert!(bound(&gateway_of(&["-n", "shop", "--for", "workload"])).is_empty());
    assert!(bound(&gateway_of(&["-n", "shop", "--for", "none"])).is_empty());
}

#[test]
fn hints_name_what_is_still_to_do() {
    let mut objects = Objects {
        namespaces: vec![namespace("shop", &json!({}))],
        gateways: vec![gateway_of(&["-n", "shop"])],
        services: vec![service("shop/web", &json!({}))],
        pods: Vec::new(),
    };
    let hints = gateway::hints(&objects, "shop", "waypoint", Mesh::Lab(&lab()));
    assert_eq!(
        hints,
        [
            "warning: namespace shop is not in the mesh, so nothing of it goes through a waypoint: ambit lab label \
             namespace shop istio.io/dataplane-mode=ambient --name cart",
            "nothing uses it yet; a whole namespace: ambit lab label namespace shop istio.io/use-waypoint=waypoint \
             --name cart; one service: ambit lab label service SERVICE -n shop istio.io/use-waypoint=waypoint --name \
             cart",
        ]
    );
    assert_eq!(gateway::orphans(&objects, "shop", "waypoint", Mesh::Lab(&lab())), None);
    let labels = json!({"istio.io/dataplane-mode": "ambient", "istio.io/use-waypoint": "waypoint"});
    objects.namespaces = vec![namespace("shop", &labels)];
    assert!(gateway::hints(&objects, "shop", "waypoint", Mesh::Lab(&lab())).is_empty());
    assert_eq!(
        gateway::orphans(&objects, "shop", "waypoint", Mesh::Lab(&lab())).as_deref(),
        Some(
            "warning: still asked for by shop/web: without it their connections are refused (AMB3101) until they ask \
             for none, for example: ambit lab label namespace shop istio.io/use-waypoint- --name cart"
        )
    );
}

#[test]
fn a_waypoint_is_shown_with_its_conditions_pods_and_services() {
    let mut own = gateway_of(&["-n", "shop"]);
    let pods = [pod("waypoint-0", true)];
    let refused = json!({"kind": "HttpPolicy", "name": "shop/strict", "reason": "too many rules"});
    let sync = |acked: u64, rejected: Value| {
        json!({"revision": 9, "waypoints": [{"gateway": "shop/waypoint", "pod": "waypoint-0", "connected": true,
            "acked_revision": acked, "rejected": rejected}]})
    };
    let bound = ["shop/web".to_owned()];
    let early = facts::item(&own, &[], &[], &Value::Null);
    assert!(!facts::is_well(&early));
    assert_eq!(
        show::status_table(&[early]),
        "NAMESPACE   NAME       STATUS    TYPE         REASON    MESSAGE\n\
         shop        waypoint   Unknown   Programmed   Pending   no pod of it has been ready yet\n"
    );
    own["status"] = json!({"conditions": [
        {"type": "Programmed", "status": "True", "reason": "Programmed", "message": "made"}]});
    let item = facts::item(&own, &pods, &bound, &sync(9, json!([refused])));
    assert!(facts::is_well(&item), "the last good configuration is in force: {item:#}");
    assert_eq!(
        show::status_table(std::slice::from_ref(&item)),
        "NAMESPACE   NAME       STATUS   TYPE         REASON       MESSAGE\n\
         shop        waypoint   True     Programmed   Programmed   made\n\
         \n\
         WAYPOINT        POD          NODE    READY   SYNCED   REVISION   REJECTED\n\
         shop/waypoint   waypoint-0   node1   true    true     9          HttpPolicy shop/strict: too many rules\n\
         \n\
         SERVICE    WAYPOINT\n\
         shop/web   shop/waypoint\n"
    );
    assert_eq!(
        show::list_table(std::slice::from_ref(&item)),
        "NAMESPACE   NAME       REVISION   TRAFFIC TYPE   PROGRAMMED\n\
         shop        waypoint   default    service        True\n"
    );
    let behind = facts::item(&own, &pods, &bound, &sync(8, json!([])));
    assert!(!facts::is_well(&behind));
    let mut moved = sync(9, json!([]));
    let mut left = moved["waypoints"][0].clone();
    left["connected"] = json!(false);
    moved["waypoints"].as_array_mut().unwrap().push(left);
    assert!(facts::is_well(&facts::item(&own, &pods, &bound, &moved)), "what an old pod left does not count");
    let unready = facts::item(&own, &[pod("waypoint-0", false)], &bound, &sync(9, json!([])));
    assert!(!facts::is_well(&unready));
    // In a cluster the control plane is not asked: conditions and pods tell, and nothing is invented.
    let item = |gateway: &Value, ready: bool| {
        let pods = [pod("waypoint-7f-x", ready), pod("waypoint-7f-y", true)];
        facts::without_control_plane(facts::item(gateway, &pods, &bound, &Value::Null))
    };
    assert!(facts::is_well(&item(&own, true)));
    assert!(!facts::is_well(&item(&own, false)));
    let row = show::pod_row(&item(&own, true)["pods"][0]);
    assert_eq!(row, ["shop/waypoint", "waypoint-7f-x", "node1", "true", "-", "-", "-"]);
    own["status"]["conditions"][0]["status"] = json!("False");
    assert!(!facts::is_well(&item(&own, true)));
}

#[test]
fn in_a_cluster_the_words_are_those_of_kubectl() {
    let absent = gateway::check_namespace(&[], "shpo", Mesh::Cluster).expect_err("no such namespace");
    assert_eq!(
        absent.to_string(),
        "the cluster has no namespace shpo; make it with: kubectl create namespace shpo"
    );
    let objects = Objects {
        namespaces: vec![namespace("shop", &json!({}))],
        gateways: vec![gateway_of(&["-n", "shop"])],
        services: vec![service("shop/web", &json!({"istio.io/use-waypoint": "waypoint"}))],
        pods: Vec::new(),
    };
    assert_eq!(
        gateway::hints(&objects, "shop", "waypoint", Mesh::Cluster),
        [
            "warning: namespace shop is not in the mesh, so nothing of it goes through a waypoint: kubectl label \
          namespace shop istio.io/dataplane-mode=ambient"
        ]
    );
    let orphans =
        gateway::orphans(&objects, "shop", "waypoint", Mesh::Cluster).expect("shop/web asks for it");
    assert!(
        orphans.ends_with("for example: kubectl label namespace shop istio.io/use-waypoint-"),
        "{orphans}"
    );
    let none = gateway::check_exists(&[], "shop", "edge", Mesh::Cluster).expect_err("no waypoint");
    assert_eq!(
        none.to_string(),
        "no waypoint shop/edge, there is none; make one with: ambit waypoint apply -n shop"
    );
}

#[test]
fn a_cluster_is_waited_for_only_where_that_is_asked_or_needed() {
    let waits = |words: &[&str]| match parse(&[&["apply"], words].concat()).expect("a good line").command {
        Command::Apply(args) => args.waits_in_cluster(),
        other => panic!("{other:?}"),
    };
    assert!(!waits(&[]));
    assert!(waits(&["--wait"]));
    // What asks for a waypoint that is not there is refused.
    assert!(waits(&["--enroll-namespace"]));
    assert!(!waits(&["--enroll-namespace", "--no-wait"]));
}

#[test]
fn a_gateway_is_in_force_when_its_newest_version_is_programmed() {
    let gateway = |generation: u64, status: &str, observed: u64| {
        json!({"metadata": {"generation": generation}, "status": {"conditions": [
            {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "observedGeneration": observed},
            {"type": "Programmed", "status": status, "reason": "NoResources", "message": "no pod is ready",
                "observedGeneration": observed}]}})
    };
    let rows = [
        (json!({}), Err("nothing has been said of it yet: is istiod-lite running (ambit check)?")),
        (gateway(2, "True", 2), Ok(())),
        (gateway(2, "True", 1), Err("nothing has been said of its newest version yet")),
        (gateway(2, "False", 2), Err("Programmed=False NoResources: no pod is ready")),
    ];
    for (gateway, want) in rows {
        assert_eq!(cluster::standing(&gateway), want.map_err(str::to_owned), "row {gateway}");
    }
}
