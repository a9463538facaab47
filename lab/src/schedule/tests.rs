//! Which node and which addresses a pod gets.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::json;

use super::{
    Cluster, NodeFacts, ObjectName, Plan, Running, converge, endpoints, is_replaced, plan, services,
    spec_hash,
};
use crate::address::{Families, NodeIndex};

#[test]
fn replicas_go_round_the_nodes() {
    check(
        &[deployment("web", 3, "a")],
        &[],
        Families::Dual,
        &[
            "create shop/web-0 node1 10.244.1.2 fd00:10:244:1::2",
            "create shop/web-1 node2 10.244.2.2 fd00:10:244:2::2",
            "create shop/web-2 node1 10.244.1.3 fd00:10:244:1::3",
            "unfinished shop/web",
        ],
    );
}

#[test]
fn families_follow_the_lab() {
    check(
        &[deployment("web", 1, "a")],
        &[],
        Families::Ipv4,
        &["create shop/web-0 node1 10.244.1.2", "unfinished shop/web"],
    );
    let only_v6 = ["create shop/web-0 node1 fd00:10:244:1::2", "unfinished shop/web"];
    check(&[deployment("web", 1, "a")], &[], Families::Ipv6, &only_v6);
}

#[test]
fn pods_of_their_own_go_where_fewest_are_and_names_pin() {
    let pods = [
        pod("cart", |_| {}),
        pod("client", |_| {}),
        pod("pinned", |p| p.spec.as_mut().unwrap().node_name = Some("node2".to_owned())),
        pod("picky", |p| {
            let zone = BTreeMap::from([("zone".to_owned(), "z2".to_owned())]);
            p.spec.as_mut().unwrap().node_selector = Some(zone);
        }),
        pod("lost", |p| p.spec.as_mut().unwrap().node_name = Some("node9".to_owned())),
        pod("host", |p| p.spec.as_mut().unwrap().host_network = Some(true)),
    ];
    check(
        &[],
        &pods,
        Families::Ipv4,
        &[
            "bind shop/cart node1 10.244.1.2",
            "bind shop/client node1 10.244.1.3",
            "bind shop/host node2",
            "bind shop/picky node2 10.244.2.2",
            "bind shop/pinned node2 10.244.2.3",
            "Pod shop/lost: spec.nodeName is node9, but the nodes are node1, node2",
        ],
    );
}

#[test]
fn freed_addresses_are_used_again_at_once() {
    let mut first = bound("old", "node1", "10.244.1.2");
    let second = bound("stays", "node1", "10.244.1.3");
    let fresh = pod("fresh", |p| p.spec.as_mut().unwrap().node_name = Some("node1".to_owned()));
    let takes_freed = ["bind shop/fresh node1 10.244.1.2"];
    check(&[], &[second.clone(), fresh.clone()], Families::Ipv4, &takes_freed);
    first.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    check(&[], &[first, second, fresh], Families::Ipv4, &["bind shop/fresh node1 10.244.1.4"]);
}

#[test]
fn occupied_addresses_wait_for_their_namespace_to_go() {
    let occupied = BTreeSet::from(["10.244.1.2".parse().unwrap()]);
    let nodes = nodes();
    let pods = [pod("fresh", |_| {})];
    let cluster = Cluster {
        families: Families::Ipv4,
        nodes: &nodes,
        deployments: &[],
        pods: &pods,
        occupied: &occupied,
    };
    assert_eq!(text(&plan(&cluster)), ["bind shop/fresh node1 10.244.1.3"]);
}

#[test]
fn a_full_node_says_so() {
    let full: Vec<Pod> =
        (2..=253).map(|n| bound(&format!("p{n}"), "node1", &format!("10.244.1.{n}"))).collect();
    let mut pods = full;
    pods.push(pod("late", |p| p.spec.as_mut().unwrap().node_name = Some("node1".to_owned())));
    check(
        &[],
        &pods,
        Families::Ipv4,
        &["Pod shop/late: node 1 has no free pod address: it already has 252 pods"],
    );
}

#[test]
fn fewer_replicas_and_no_owner_mean_deletion() {
    let web = deployment("web", 1, "a");
    let mut pods = created(&deployment("web", 3, "a"));
    check(
        std::slice::from_ref(&web),
        &pods,
        Families::Ipv4,
        &["delete shop/web-1", "delete shop/web-2", "unfinished shop/web"],
    );
    pods.truncate(1);
    check(&[], &pods, Families::Ipv4, &["delete shop/web-0"]);
}

#[test]
fn a_new_template_replaces_one_ready_replica_after_the_other() {
    let next = deployment("web", 2, "b");
    let mut pods = created(&deployment("web", 2, "a"));
    check(std::slice::from_ref(&next), &pods, Families::Ipv4, &["delete shop/web-0", "unfinished shop/web"]);
    pods.remove(0);
    let again = ["create shop/web-0 node1 10.244.1.2", "unfinished shop/web"];
    check(std::slice::from_ref(&next), &pods, Families::Ipv4, &again);
    pods.push(created(&next).remove(0));
    check(std::slice::from_ref(&next), &pods, Families::Ipv4, &["unfinished shop/web"]);
    make_ready(&mut pods[1]);
    check(std::slice::from_ref(&next), &pods, Families::Ipv4, &["delete shop/web-1", "unfinished shop/web"]);
}

#[test]
fn a_surge_makes_the_new_pod_before_an_old_one_ends() {
    let surging = |replicas: i32, arg: &str| {
        let mut web = deployment("web", replicas, arg);
        let strategy = json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
        web.spec.as_mut().unwrap().strategy = serde_json::from_value(strategy).unwrap();
        web
    };
    let now = "2026-01-01T00:00:00Z";
    let (old, next) = (surging(1, "a"), [surging(1, "b")]);
    let mut pods = created(&old);
    make_ready(&mut pods[0]);
    assert!(is_replaced(&old, &pods) && !is_replaced(&next[0], &pods));
    let made = ["create shop/web-1 node2 10.244.2.2", "unfinished shop/web"];
    check(&next, &pods, Families::Ipv4, &made);
    let mut fresh = created(&next[0]).remove(0);
    fresh.metadata.name = Some("web-1".to_owned());
    pods.push(fresh);
    // While it is not ready the old one serves on, and there is no third.
    check(&next, &pods, Families::Ipv4, &["unfinished shop/web"]);
    make_ready(&mut pods[1]);
    check(&next, &pods, Families::Ipv4, &["delete shop/web-0", "unfinished shop/web"]);
    assert!(!is_replaced(&next[0], &pods));
    pods[0].metadata.deletion_timestamp = serde_json::from_value(json!(now)).unwrap();
    assert!(is_replaced(&next[0], &pods));
    check(&next, &pods, Families::Ipv4, &["unfinished shop/web"]);
    pods.remove(0);
    check(&next, &pods, Families::Ipv4, &[]);
    // The next one has the number that is free again; fewer and more go the same way.
    let again = ["create shop/web-0 node1 10.244.1.3", "unfinished shop/web"];
    check(&[surging(1, "c")], &pods, Families::Ipv4, &again);
    check(&[surging(2, "b")], &pods, Families::Ipv4, &again);
    check(&[surging(0, "b")], &pods, Families::Ipv4, &["delete shop/web-1", "unfinished shop/web"]);
}

#[test]
fn deployments_the_api_would_refuse_make_nothing() {
    let mut wrong_labels = deployment("web", 1, "a");
    let spec = wrong_labels.spec.as_mut().unwrap();
    spec.template.metadata.as_mut().unwrap().labels =
        Some(BTreeMap::from([("app".to_owned(), "x".to_owned())]));
    let mut no_selector = deployment("api", 1, "a");
    no_selector.spec.as_mut().unwrap().selector = serde_json::from_value(json!({})).unwrap();
    check(
        &[wrong_labels, no_selector],
        &[],
        Families::Ipv4,
        &[
            "Deployment shop/api: spec.selector is empty; give it the labels of spec.template.metadata.labels",
            r#"Deployment shop/web: spec.selector does not match spec.template.metadata.labels {"app": "x"}; its pods would not be its own"#,
        ],
    );
    let squatter = bound("web-0", "node1", "10.244.1.2");
    check(
        &[deployment("web", 1, "a")],
        &[squatter],
        Families::Ipv4,
        &["Deployment shop/web: replica shop/web-0 cannot be made: a pod of that name exists"],
    );
}

#[test]
fn what_runs_converges_on_what_is_stored() {
    let stored = |name: &str, uid: &str| {
        let mut pod = bound(name, "node1", "10.244.1.2");
        pod.metadata.uid = Some(uid.to_owned());
        pod
    };
    let mut changed = stored("changed", "2");
    changed.spec.as_mut().unwrap().containers[0].args = Some(vec!["new".to_owned()]);
    let mut ending = stored("ending", "4");
    ending.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    let pods = [
        stored("kept", "1"),
        changed,
        stored("reborn", "3b"),
        ending,
        stored("new", "5"),
        pod("unbound", |_| {}),
    ];
    let hash = spec_hash(&stored("any", "0"));
    let running = ["kept 1", "changed 2", "reborn 3a", "ending 4", "gone 6"].map(|line| {
        let (name, uid) = line.split_once(' ').unwrap();
        (object(name), Running { uid: uid.to_owned(), spec_hash: hash })
    });
    let out = converge(&pods, &BTreeMap::from(running));
    assert_eq!(out.start, [object("new")]);
    assert_eq!(out.end, [object("ending"), object("gone"), object("reborn")]);
    assert_eq!(out.replace, [object("changed")]);
    assert_eq!(out.keep, [object("kept")]);
}

#[test]
fn services_get_addresses() {
    let all = [
        service("a", json!({"ports": [{"port": 80}]})),
        service("b", json!({"clusterIP": "10.96.0.16"})),
        service("c", json!({"clusterIP": "None"})),
        service("d", json!({"ipFamilyPolicy": "PreferDualStack"})),
        service("e", json!({"ipFamilies": ["IPv6"]})),
        service("f", json!({"type": "ExternalName", "externalName": "example.test"})),
        service("g", json!({"clusterIP": "10.96.0.10"})),
        service("h", json!({"clusterIP": "10.1.2.3"})),
        service("i", json!({"clusterIP": "10.96.0.16"})),
        service("j", json!({"clusterIPs": ["10.96.9.9", "fd00:10:96::9"]})),
    ];
    check_services(
        &all,
        Families::Dual,
        &[
            "shop/a 10.96.0.17 IPv4 SingleStack",
            "shop/b 10.96.0.16 IPv4 SingleStack",
            "shop/c None IPv4 SingleStack",
            "shop/d 10.96.0.18,fd00:10:96::12 IPv4,IPv6 PreferDualStack",
            "shop/e fd00:10:96::10 IPv6 SingleStack",
            "shop/j 10.96.9.9,fd00:10:96::9 IPv4,IPv6 RequireDualStack",
            "Service shop/g: clusterIP 10.96.0.10 is the cluster DNS's own; leave clusterIP out or choose another",
            "Service shop/h: clusterIP 10.1.2.3 is not in the lab's service range 10.96.0.0/16, fd00:10:96::/112",
            "Service shop/i: clusterIP 10.96.0.16 belongs to Service shop/b already",
        ],
    );
    let single = [service("a", json!({})), service("d", json!({"ipFamilyPolicy": "RequireDualStack"}))];
    check_services(
        &single,
        Families::Ipv6,
        &[
            "shop/a fd00:10:96::10 IPv6 SingleStack",
            "Service shop/d: ipFamilyPolicy is RequireDualStack, but the lab has only IPv6",
        ],
    );
}

#[test]
fn complete_services_are_left_alone() {
    let done = json!({"clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"});
    check_services(&[service("a", done)], Families::Dual, &[]);
}

#[test]
fn endpoints_follow_readiness_names_and_families() {
    let service = service(
        "web",
        json!({
            "selector": {"app": "web"}, "ipFamilies": ["IPv4", "IPv6"],
            "ports": [{"name": "http", "port": 80, "targetPort": "web"}, {"name": "raw", "port": 9000}],
        }),
    );
    let make = |name: &str, ip: &str, port: i32, change: fn(&mut Pod)| {
        let mut pod = bound(name, "node1", ip);
        pod.metadata.labels = Some(BTreeMap::from([("app".to_owned(), "web".to_owned())]));
        let ports = json!([{"name": "web", "containerPort": port}]);
        pod.spec.as_mut().unwrap().containers[0].ports = serde_json::from_value(ports).unwrap();
        change(&mut pod);
        pod
    };
    let leaving = |pod: &mut Pod| {
        make_ready(pod);
        pod.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    };
    let done = |pod: &mut Pod| pod.status.as_mut().unwrap().phase = Some("Succeeded".to_owned());
    let pods = [
        make("ready", "10.244.1.2", 8080, make_ready),
        make("slow", "10.244.1.3", 8080, |_| {}),
        make("leaving", "10.244.1.4", 8080, leaving),
        make("other-port", "10.244.1.5", 8081, make_ready),
        make("done", "10.244.1.6", 8080, done),
        make("six", "fd00:10:244:1::2", 8080, make_ready),
        bound("stranger", "node1", "10.244.1.9"),
    ];
    let zones = BTreeMap::from([("node1".to_owned(), "z1".to_owned())]);
    let slices = endpoints::slices(std::slice::from_ref(&service), &pods, &zones, Families::Dual);
    let lines: Vec<String> = slices.iter().flat_map(slice_lines).collect();
    assert_eq!(
        lines,
        [
            "web-ipv4 http/TCP:8080 raw/TCP:9000",
            "  10.244.1.4 ready=false serving=true terminating=true node1 z1",
            "  10.244.1.2 ready=true serving=true terminating=false node1 z1",
            "  10.244.1.3 ready=false serving=false terminating=false node1 z1",
            "web-ipv4-1 http/TCP:8081 raw/TCP:9000",
            "  10.244.1.5 ready=true serving=true terminating=false node1 z1",
            "web-ipv6 http/TCP:8080 raw/TCP:9000",
            "  fd00:10:244:1::2 ready=true serving=true terminating=false node1 z1",
        ]
    );
    let fewer = endpoints::slices(&[service], &pods[..3], &zones, Families::Dual);
    let (put, removed) = endpoints::changes(&fewer, &slices);
    assert!(put.is_empty(), "{put:?}");
    assert_eq!(removed, [object("web-ipv4-1"), object("web-ipv6")]);
}

#[track_caller]
fn check(deployments: &[Deployment], pods: &[Pod], families: Families, want: &[&str]) {
    let (nodes, occupied) = (nodes(), BTreeSet::new());
    let cluster = Cluster { families, nodes: &nodes, deployments, pods, occupied: &occupied };
    assert_eq!(text(&plan(&cluster)), want);
}

#[track_caller]
fn check_services(all: &[Service], families: Families, want: &[&str]) {
    let (assigned, problems) = services::assign(all, families);
    let line = |a: &services::Assigned| {
        let (ips, families) = (a.cluster_ips.join(","), a.ip_families.join(","));
        format!("{} {ips} {families} {}", a.service, a.ip_family_policy)
    };
    let lines: Vec<String> =
        assigned.iter().map(line).chain(problems.iter().map(ToString::to_string)).collect();
    assert_eq!(lines, want);
}

fn text(plan: &Plan) -> Vec<String> {
    let mut out: Vec<String> = plan.delete.iter().map(|d| format!("delete {d}")).collect();
    for pod in &plan.create {
        let node = pod.spec.as_ref().unwrap().node_name.clone().unwrap();
        let ips: Vec<String> = super::addresses(pod).iter().map(ToString::to_string).collect();
        out.push(format!("create {} {node} {}", ObjectName::of(&pod.metadata), ips.join(" ")));
    }
    for binding in &plan.bind {
        let ips: String = binding.addresses.iter().map(|a| format!(" {a}")).collect();
        out.push(format!("bind {} {}{ips}", binding.pod, binding.node));
    }
    out.extend(plan.unfinished.iter().map(|name| format!("unfinished {name}")));
    out.extend(plan.problems.iter().map(ToString::to_string));
    out
}

fn slice_lines(slice: &k8s_openapi::api::discovery::v1::EndpointSlice) -> Vec<String> {
    let port = |p: &k8s_openapi::api::discovery::v1::EndpointPort| {
        format!(" {}/{}:{}", p.name.clone().unwrap(), p.protocol.clone().unwrap(), p.port.unwrap())
    };
    let ports: String = slice.ports.iter().flatten().map(port).collect();
    let mut lines = vec![format!("{}{ports}", slice.metadata.name.as_deref().unwrap())];
    for e in &slice.endpoints {
        let c = e.conditions.as_ref().unwrap();
        let (ready, serving, terminating) = (c.ready.unwrap(), c.serving.unwrap(), c.terminating.unwrap());
        let (node, zone) = (e.node_name.as_deref().unwrap(), e.zone.as_deref().unwrap());
        let ip = &e.addresses[0];
        lines.push(format!("  {ip} ready={ready} serving={serving} terminating={terminating} {node} {zone}"));
    }
    lines
}

fn nodes() -> Vec<NodeFacts> {
    let mut nodes: Vec<NodeFacts> =
        (0..2).map(|n| NodeFacts::plain(&format!("node{}", n + 1), NodeIndex::nth(n).unwrap())).collect();
    nodes[1].labels.insert("zone".to_owned(), "z2".to_owned());
    nodes
}

fn object(name: &str) -> ObjectName {
    ObjectName { namespace: "shop".to_owned(), name: name.to_owned() }
}

fn deployment(name: &str, replicas: i32, arg: &str) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}")},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "args": [arg]}]},
            },
        },
    }))
    .unwrap()
}

fn pod(name: &str, change: impl FnOnce(&mut Pod)) -> Pod {
    let mut pod: Pod = serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"containers": [{"name": "main"}]},
    }))
    .unwrap();
    change(&mut pod);
    pod
}

fn bound(name: &str, node: &str, ip: &str) -> Pod {
    pod(name, |p| {
        p.spec.as_mut().unwrap().node_name = Some(node.to_owned());
        p.status =
            serde_json::from_value(json!({"podIP": ip, "podIPs": [{"ip": ip}], "phase": "Running"})).unwrap();
    })
}

fn service(name: &str, spec: serde_json::Value) -> Service {
    serde_json::from_value(json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec})).unwrap()
}

fn created(deployment: &Deployment) -> Vec<Pod> {
    let (nodes, occupied) = (nodes(), BTreeSet::new());
    let deployments = std::slice::from_ref(deployment);
    let cluster =
        Cluster { families: Families::Ipv4, nodes: &nodes, deployments, pods: &[], occupied: &occupied };
    plan(&cluster).create
}

fn make_ready(pod: &mut Pod) {
    let ready = json!([{"type": "Ready", "status": "True"}]);
    pod.status.get_or_insert_default().conditions = serde_json::from_value(ready).unwrap();
}
