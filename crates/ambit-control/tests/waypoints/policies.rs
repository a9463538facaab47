//! Which policies reach a waypoint, with whom they ask, and what is told of one that cannot be enforced as written.

use ambit_control::Index;
use ambit_control::input::{Event, Key, Kind, Name};
use ambit_control::waypoints::resources::Reach;
use ambit_types::{PolicyKey, ServiceKey};

use super::{ALL, BOUND, OURS, key, named, put, says, waypoint};

fn policy(namespace: &str, target: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: {namespace}}}\n\
         spec: {{targetRefs: [{target}], action: DENY, rules: [{{to: [{{operation: {{methods: [DELETE]}}}}]}}]}}\n"
    )
}

#[test]
fn a_policy_reaches_the_waypoints_that_its_targets_mean() {
    let gateway = "{group: gateway.networking.k8s.io, kind: Gateway, name: wp}";
    let class = "{group: gateway.networking.k8s.io, kind: GatewayClass, name: istio-waypoint}";
    let service = "{group: '', kind: Service, name: web}";
    let web = || Reach::Services([key("web")].into());
    let rows = [
        ("a service", "shop", service, vec![("wp", web())]),
        ("a service of another namespace", "bank", service, vec![]),
        ("a waypoint", "shop", gateway, vec![("wp", Reach::All)]),
        ("a waypoint of another namespace", "bank", gateway, vec![]),
        (
            "the class, in the root namespace",
            "istio-system",
            class,
            vec![("next", Reach::All), ("wp", Reach::All)],
        ),
        ("the class, elsewhere", "shop", class, vec![]),
    ];
    for (what, namespace, target, want) in rows {
        let mut index = BOUND.index();
        let delta = put(&mut index, &policy(namespace, target));
        let key = PolicyKey::new(namespace, "p");
        let held = |name: &Name| index.waypoints()[name].policies.get(&key).cloned();
        let told = delta.waypoints.iter().map(|(name, difference)| {
            assert!(difference.changed.frontends.is_empty(), "{what}: only the policy is sent");
            let policy = held(name).expect("it is held");
            assert!(policy.of.is_some(), "{what}: compiled");
            (&*name.name, policy.reach.clone())
        });
        assert_eq!(told.collect::<Vec<_>>(), want, "{what}");
    }
}

/// A service of the waypoint's namespace and one of another, each with a policy.
const VAULT: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: bank, labels: {tier: gold}}
---
apiVersion: v1
kind: Service
metadata: {name: vault, namespace: bank, labels: {istio.io/use-waypoint: wp, istio.io/use-waypoint-namespace: shop}}
spec: {clusterIP: 10.96.0.8, ports: [{name: http, port: 80}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: closed, namespace: bank}
spec: {targetRefs: [{group: '', kind: Service, name: vault}], action: DENY, rules: [{}]}
";

const GOLD: &str = "{from: Selector, selector: {matchLabels: {tier: gold}}}";

/// Services to which the waypoint allows nothing, whatever their policies.
fn unresolved(index: &Index) -> Vec<String> {
    let policies = index.waypoints()[&Name::new("shop", "wp")].policies.values();
    let wrong = policies.filter(|policy| policy.of.is_none());
    let services = wrong.flat_map(|policy| match &policy.reach {
        Reach::All => panic!("it allows nothing to anybody"),
        Reach::Services(services) => services.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    services.collect()
}

#[test]
fn a_service_that_its_waypoint_may_not_serve_any_more_is_allowed_nothing() {
    let vault = ["bank/vault.bank.svc.cluster.local"];
    let both = ["bank/vault.bank.svc.cluster.local", "shop/web.shop.svc.cluster.local"];
    let plain = VAULT.split("---").next().unwrap_or_default().replace("tier: gold", "tier: tin");
    let rows = [
        ("it lets its own namespace attach only", ALL, waypoint(OURS, "", "{from: Same}"), &vault[..]),
        ("it is for nothing", ALL, waypoint(OURS, "istio.io/waypoint-for: none", ALL), &both[..]),
        ("it is for workloads", ALL, waypoint(OURS, "istio.io/waypoint-for: workload", ALL), &both[..]),
        ("the namespace lost its label", GOLD, plain, &vault[..]),
    ];
    for (what, from, change, want) in rows {
        let mut index = BOUND.index();
        put(&mut index, &waypoint(OURS, "", from));
        put(&mut index, VAULT);
        let web_too = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {tier: gold}}\n";
        put(&mut index, web_too);
        let held = |index: &Index| {
            let own = &index.waypoints()[&Name::new("shop", "wp")];
            own.policies.contains_key(&PolicyKey::new("bank", "closed"))
        };
        assert!(unresolved(&index).is_empty() && held(&index), "{what}: it is served at first");
        let delta = put(&mut index, &change);
        assert_eq!(unresolved(&index), want, "{what}");
        let told = &delta.waypoints[&Name::new("shop", "wp")].changed.policies;
        assert!(told.values().any(|policy| policy.of.is_none()), "{what}: and it is told");
        assert!(!held(&index), "{what}: the policy of whom it does not serve is not sent");
        let bound = &index.services()[&ServiceKey::new("bank", "vault.bank.svc.cluster.local")];
        let stays = bound.waypoint.as_ref().map(named);
        assert_eq!(stays.as_deref(), Some("shop/wp.shop"), "{what}: it stays bound");
        put(&mut index, &waypoint(OURS, "", ALL));
        assert!(unresolved(&index).is_empty() && held(&index), "{what}: and back");
    }
}

const CUSTOM: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: web}]
  action: CUSTOM
  provider: {name: opa}
  rules: [{to: [{operation: {paths: [/admin]}}]}]
";

fn mesh(providers: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\n\
         data:\n  mesh: |\n    extensionProviders: [{providers}]\n"
    )
}

#[test]
fn a_provider_goes_to_the_waypoints_whose_policies_name_it() {
    let mut index = BOUND.index();
    let wp = Name::new("shop", "wp");
    let ask = || Name::new("shop", "ask");
    let delta = put(&mut index, CUSTOM);
    let told = &delta.waypoints[&wp].changed;
    let policy = &told.policies[&PolicyKey::new("shop", "ask")];
    assert!(policy.of.is_some(), "the policy is sent, provider or not");
    assert!(told.providers.is_empty());
    let unknown = ["WaypointAccepted=true Accepted", "ResolvedRefs=false ProviderNotFound"];
    assert_eq!(says(&index, Kind::AuthorizationPolicy, ask()), unknown);

    let good = "{name: opa, envoyExtAuthzGrpc: {service: opa.iam.svc.cluster.local, port: 9191}}";
    let other = "{name: other, envoyExtAuthzGrpc: {service: other.iam, port: 1}}";
    let delta = put(&mut index, &mesh(&format!("{good}, {other}")));
    let told = &delta.waypoints[&wp];
    assert_eq!(told.changed.providers.keys().map(|name| &**name).collect::<Vec<_>>(), ["opa"]);
    assert!(told.changed.policies.is_empty(), "the policy is as before");
    let known = ["WaypointAccepted=true Accepted", "ResolvedRefs=true ResolvedRefs"];
    assert_eq!(says(&index, Kind::AuthorizationPolicy, ask()), known);
    let config = || Name::new("istio-system", "istio");
    assert_eq!(says(&index, Kind::MeshConfig, config()), ["Accepted=true Accepted"]);

    let broken =
        "{name: opa, envoyExtAuthzGrpc: {service: opa.iam, port: 9191, includeRequestBodyInCheck: {}}}";
    let delta = put(&mut index, &mesh(&format!("{broken}, {other}")));
    assert_eq!(delta.waypoints[&wp].removed_providers, ["opa".into()].into());
    assert_eq!(says(&index, Kind::AuthorizationPolicy, ask()), unknown);
    let partly = ["Accepted=true Accepted", "PartiallyInvalid=true Invalid"];
    assert_eq!(says(&index, Kind::MeshConfig, config()), partly, "the sibling stays");

    let spelt = "{name: opa, envoyExtAuthzGrpc: {servce: opa.iam, port: 9191}}";
    put(&mut index, &mesh(spelt));
    assert_eq!(says(&index, Kind::MeshConfig, config()), ["Accepted=false Invalid"]);
    index.apply([Event::Remove(Key::new(Kind::MeshConfig, config()))]);
    assert!(!index.reports().contains_key(&Key::new(Kind::MeshConfig, config())));
}

#[test]
fn a_policy_with_a_mistake_still_applies() {
    let mut index = BOUND.index();
    let wrong = policy("shop", "{group: '', kind: Service, name: web}")
        .replace("methods: [DELETE]", "paths: ['/a?b']");
    let delta = put(&mut index, &wrong);
    let told = &delta.waypoints[&Name::new("shop", "wp")].changed.policies[&PolicyKey::new("shop", "p")];
    assert_eq!((told.of.is_some(), &told.reach), (false, &Reach::Services([key("web")].into())));
}
