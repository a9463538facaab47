//! Whole folders as people have them: what is told of each object, and where.

use super::*;

/// A namespace in the mesh, with what a repository holds beside it.
const SHOP: &str = "apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec:
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: c, image: i}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: all, namespace: shop}
spec: {rules: [{}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: i, namespace: shop}
";

#[track_caller]
fn check(more: &str, want: &[&str]) -> Objects {
    let objects = Objects::of_text(&format!("{SHOP}{more}")).unwrap();
    let compiled = objects.clone().staged().unwrap();
    let (found, _) = look(&objects, &compiled, Scope::Whole).unwrap();
    let told = |told: &Told| format!("{} {} {}", told.code, told.object, told.place);
    assert_eq!(found.iter().map(told).collect::<Vec<_>>(), want);
    objects
}

#[test]
fn kinds_that_are_not_read_are_passed_over_and_counted() {
    let objects = check("", &[]);
    let told = objects.passed_over().unwrap();
    assert!(told.starts_with("1 objects passed over"), "{told}");
    assert!(told.contains("1 Ingress of networking.k8s.io/v1"), "{told}");
}

#[test]
fn what_makes_pods_is_looked_at_and_what_is_not_honoured_is_told() {
    let more = "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: np, namespace: shop}
spec: {podSelector: {matchLabels: {app: db}}}
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: filter, namespace: shop}
spec: {anything: [1, 2]}
";
    check(
        more,
        &["AMB4001 NetworkPolicy shop/np test.yaml:25:1", "IST0167 EnvoyFilter shop/filter test.yaml:28:7"],
    );
}

#[test]
fn a_misspelt_kind_or_field_stays_a_mistake() {
    for wrong in [
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolcy\nmetadata: {name: a}\n",
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {rulez: []}\n",
    ] {
        assert!(Objects::of_text(&format!("{SHOP}{wrong}")).is_err(), "{wrong}");
    }
}

#[test]
fn names_of_anybody_steer_no_terminal() {
    let more = "---\napiVersion: networking.istio.io/v1\nkind: \"X\\e[2J\"\nmetadata: {name: \"a\\e[2J\", namespace: shop}\n";
    let objects = Objects::of_text(&format!("{SHOP}{more}")).unwrap();
    let (found, _) = look(&objects, &objects, Scope::Part).unwrap();
    let lines: Vec<String> = found.iter().map(Told::line).collect();
    assert!(lines.iter().all(|line| !line.contains('\u{1b}')), "{lines:?}");
    assert_eq!(found.len(), 1);
}
