//! Which policies are told of a workload, and where each is enforced.

use ambit_control::Settings;

use super::*;
use crate::ingest;

const OBJECTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/use-waypoint: waypoint}}
---
apiVersion: v1
kind: Pod
metadata: {name: cart-0, namespace: shop, uid: c0, labels: {app: cart}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {nodeName: n1, serviceAccountName: cart, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.244.1.11, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.7, selector: {app: cart}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: waypoint, namespace: shop}
spec: {clusterIP: 10.96.0.8, selector: {app: waypoint}, ports: [{name: mesh, port: 15008, targetPort: 15008}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {addresses: [{type: IPAddress, value: 10.96.0.8}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: everywhere, namespace: istio-system}
spec: {action: DENY, rules: [{to: [{operation: {ports: ["23"]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: whole, namespace: shop}
spec: {rules: [{to: [{operation: {ports: ["8080"]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: own, namespace: shop}
spec: {selector: {matchLabels: {app: cart}}, rules: [{to: [{operation: {ports: ["8080"]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: others, namespace: shop}
spec: {selector: {matchLabels: {app: db}}, rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: elsewhere, namespace: bank}
spec: {rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: methods, namespace: shop}
spec: {targetRefs: [{kind: Service, group: "", name: cart}], action: DENY, rules: [{to: [{operation: {methods: [PUT]}}]}]}
"#;

fn index() -> Index {
    let parsed = ambit_manifest::parse("m.yaml", OBJECTS);
    assert!(parsed.problems.is_empty(), "{}", parsed.problems[0]);
    let mut index = Index::new(Settings::default());
    let events = parsed.objects.iter().filter_map(|object| ingest::put(object).unwrap());
    index.apply(events.collect::<Vec<_>>());
    index
}

#[test]
fn those_of_the_mesh_the_namespace_the_workload_and_its_waypoint_apply_and_no_others() {
    let index = index();
    let cart = find(&index, "shop", "cart-0").expect("the workload is known");
    let told = of(&index, cart);
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let rows: Vec<String> = told
        .iter()
        .map(|one| [&one["name"], &one["from"], &one["action"], &one["at"]].map(text).join(" "))
        .collect();
    assert_eq!(
        rows,
        [
            "istio-system/everywhere mesh DENY ztunnel",
            "shop/whole namespace ALLOW ztunnel",
            "shop/own workload ALLOW ztunnel",
            "shop/methods service DENY waypoint shop/waypoint",
        ],
        "{told:#?}"
    );
    assert!(find(&index, "shop", "nobody").is_none());
}

#[test]
fn what_is_attached_to_other_services_does_not_reach() {
    let key = |name: &str| ServiceKey {
        namespace: "shop".into(),
        hostname: format!("{name}.shop.svc.cluster.local").into(),
    };
    let (cart, db) = (key("cart"), key("db"));
    let own: BTreeSet<&ServiceKey> = [&cart].into();
    let rows = [
        (Reach::All, true),
        (Reach::Services([cart.clone(), db.clone()].into()), true),
        (Reach::Services([db.clone()].into()), false),
        (Reach::Services(BTreeSet::new()), false),
    ];
    for (reach, want) in rows {
        assert_eq!(reaches(&reach, &own), want, "{reach:?}");
    }
}
