//! What waypoints are made of.

use ambit_manifest::read_value;

use super::*;
use crate::pod::plan::{PodPlan, Values};
use crate::schedule::{Cluster, NodeFacts, plan};

fn snapshot(objects: &[Value]) -> Snapshot {
    let read = |value: &Value| {
        let located = read_value("test", value).expect("a good object");
        (located.key.clone(), located.into())
    };
    Snapshot { revision: 1, objects: objects.iter().map(read).collect() }
}

fn gateway(class: &str, metadata: Value, spec: Value) -> Value {
    let mut all = json!({"name": "waypoint", "namespace": "shop", "uid": "gw"});
    all.as_object_mut().unwrap().extend(metadata.as_object().cloned().unwrap());
    let mut body = json!({"gatewayClassName": class,
        "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]});
    body.as_object_mut().unwrap().extend(spec.as_object().cloned().unwrap());
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": all, "spec": body})
}

fn annotated(name: &str, value: &str) -> Value {
    gateway(CLASS, json!({"annotations": {name: value}}), json!({}))
}

fn program() -> Program {
    let env = [("ADMIN", "/run/$(POD_UID)/admin.sock"), ("RUST_LOG", "info")];
    Program {
        path: "/bin/waypoint".to_owned(),
        env: env.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec(),
        grace_seconds: 35,
    }
}

fn of(objects: &[Value]) -> Changes {
    changes(&snapshot(objects), Some(&program()))
}

fn keys(objects: &[Value]) -> Vec<String> {
    objects.iter().map(|o| crate::manifests::key_of(o).expect("a key").to_string()).collect()
}

/// A store that holds a Gateway and what it is made of.
fn settled(gateway: &Value) -> Vec<Value> {
    let mut objects = of(std::slice::from_ref(gateway)).put;
    objects.push(gateway.clone());
    objects
}

#[test]
fn a_gateway_of_the_class_is_an_account_a_service_and_a_deployment() {
    let own = gateway(CLASS, json!({}), json!({"infrastructure": {"labels": {"team": "shop"}}}));
    let made = of(std::slice::from_ref(&own));
    assert_eq!(
        keys(&made.put),
        ["ServiceAccount shop/waypoint", "Service shop/waypoint", "Deployment shop/waypoint"]
    );
    for object in &made.put {
        assert_eq!(waypoint_of(object), Some("waypoint"));
        assert_eq!(object["metadata"]["labels"]["team"], "shop");
        assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "gw");
    }
    let ports: Vec<_> = made.put[1]["spec"]["ports"].as_array().unwrap().iter().collect();
    assert_eq!((&ports[0]["name"], &ports[0]["port"]), (&json!("status-port"), &json!(15021)));
    assert_eq!((&ports[1]["name"], &ports[1]["port"]), (&json!("mesh"), &json!(15008)));
    assert_eq!(made.put[2]["spec"]["template"]["metadata"]["labels"]["istio.io/dataplane-mode"], "none");
    // What is there already is not written again, whatever the lab has added to it.
    let mut there = settled(&own);
    there[1]["spec"]["clusterIP"] = json!("10.96.0.16");
    there[1]["spec"]["clusterIPs"] = json!(["10.96.0.16"]);
    there[2]["metadata"]["uid"] = json!("d1");
    assert_eq!(of(&there), Changes::default());
}

#[test]
fn its_pods_run_the_program_with_their_own_facts() {
    let deployment: k8s_openapi::api::apps::v1::Deployment =
        serde_json::from_value(of(&[gateway(CLASS, json!({}), json!({}))]).put.remove(2)).unwrap();
    let nodes = [NodeFacts::plain("node1", crate::address::NodeIndex::nth(0).unwrap())];
    let cluster = Cluster {
        families: crate::address::Families::Dual,
        nodes: &nodes,
        deployments: &[deployment],
        pods: &[],
        occupied: &BTreeSet::new(),
    };
    let mut pod = plan(&cluster).create.remove(0);
    pod.metadata.uid = Some("u7".to_owned());
    let plan = PodPlan::of(&pod, &Values::new()).expect("a good pod");
    let container = &plan.containers[0];
    let env = |name: &str| container.env.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str());
    assert_eq!(container.argv, ["/bin/waypoint"]);
    let rows = [
        ("NODE_NAME", "node1"),
        ("POD_NAME", "waypoint-0"),
        ("POD_NAMESPACE", "shop"),
        ("SERVICE_ACCOUNT", "waypoint"),
        ("INSTANCE_IP", "10.244.1.2"),
        ("GATEWAY_NAME", "waypoint"),
        ("ADMIN", "/run/u7/admin.sock"),
    ];
    for (name, want) in rows {
        assert_eq!(env(name), Some(want), "row {name}");
    }
    assert_eq!((plan.grace.as_secs(), &*plan.service_account), (35, "waypoint"));
    let token = &plan.volumes[0].tokens[0];
    assert_eq!((&*token.path, &*token.audience, token.life), (TOKEN, "istio-ca", crate::token::LIFE));
}

#[test]
fn the_number_of_pods_stands_on_the_gateway() {
    let count = |gateway: &Value| of(std::slice::from_ref(gateway)).put[2]["spec"]["replicas"].clone();
    assert_eq!(count(&gateway(CLASS, json!({}), json!({}))), 1);
    assert_eq!(count(&annotated(REPLICAS, "0")), 0);
    assert_eq!(count(&annotated(REPLICAS, "3")), 3);
    assert_eq!(count(&gateway(CLASS, json!({"labels": {REPLICAS: "2"}}), json!({}))), 2);
    assert_eq!(count(&annotated(STOPPED, "true")), 0);
    let wrong = of(&[annotated(REPLICAS, "many")]);
    let told: Vec<String> = wrong.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        ["Gateway shop/waypoint: ambit.internal/replicas is \"many\", not a number from 0 to 50"]
    );
}

#[test]
fn changes_of_the_gateway_are_carried_over() {
    let mut there = settled(&gateway(CLASS, json!({}), json!({})));
    there[1]["spec"]["clusterIP"] = json!("10.96.0.16");
    *there.last_mut().unwrap() = annotated(REPLICAS, "2");
    assert_eq!(keys(&of(&there).put), ["Deployment shop/waypoint"]);
    *there.last_mut().unwrap() = annotated(RESTARTED, "once");
    let restarted = of(&there).put;
    assert_eq!(keys(&restarted), ["Deployment shop/waypoint"]);
    assert_eq!(restarted[0]["spec"]["template"]["metadata"]["annotations"][RESTARTED], "once");
    let more = json!({"infrastructure": {"labels": {"team": "shop"}}});
    *there.last_mut().unwrap() = gateway(CLASS, json!({}), more);
    let labelled = of(&there).put;
    assert_eq!(labelled.len(), 3);
    assert_eq!(labelled[1]["spec"]["clusterIP"], "10.96.0.16");
}

#[test]
fn what_no_gateway_asks_for_any_more_is_removed() {
    let own = gateway(CLASS, json!({}), json!({}));
    let mut there = settled(&own);
    let gone = ["Deployment shop/waypoint", "Service shop/waypoint", "ServiceAccount shop/waypoint"];
    let removed = |objects: &[Value]| of(objects).remove.iter().map(ToString::to_string).collect::<Vec<_>>();
    there.pop();
    assert_eq!(removed(&there), gone);
    // Another class, or addresses of its own, is somebody else's.
    there.push(gateway("other", json!({}), json!({})));
    assert_eq!(removed(&there), gone);
    there.pop();
    there.push(gateway(CLASS, json!({}), json!({"addresses": [{"value": "10.0.0.1"}]})));
    assert_eq!(removed(&there), gone);
    there.pop();
    there.push(own);
    assert_eq!(changes(&snapshot(&there), None).remove.len(), 3, "without a mesh there are no waypoints");
}

#[test]
fn objects_of_somebody_else_are_left_alone() {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "waypoint", "namespace": "shop"}});
    let made = of(&[gateway(CLASS, json!({}), json!({})), account]);
    assert_eq!(keys(&made.put), ["Service shop/waypoint", "Deployment shop/waypoint"]);
    assert_eq!(
        made.problems[0].to_string(),
        "Gateway shop/waypoint: ServiceAccount shop/waypoint exists and was not made for this waypoint; \
         rename one of the two, or remove it"
    );
    assert!(made.remove.is_empty());
}

#[test]
fn addresses_are_those_of_the_service_and_its_name() {
    let name = ObjectName { namespace: "shop".to_owned(), name: "waypoint".to_owned() };
    let mut own = gateway(CLASS, json!({}), json!({}));
    assert!(!has_address(&own));
    let ip = "10.96.0.16".parse().unwrap();
    own["status"] = json!({"addresses": addresses(&name, &[ip], "cluster.local")});
    assert!(has_address(&own));
    assert_eq!(
        own["status"]["addresses"],
        json!([
            {"type": "IPAddress", "value": "10.96.0.16"},
            {"type": "Hostname", "value": "waypoint.shop.svc.cluster.local"},
        ])
    );
}
