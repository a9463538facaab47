//! The mesh configuration within a ConfigMap: what is read of it, what is passed over, and what is told.

use serde::Deserialize;

use crate::mesh::{Provider, extension_providers};
use crate::{Located, parse};

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Spec {
    name: String,
    envoy_ext_authz_grpc: Option<Way>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Way {
    service: String,
    port: u32,
}

fn config(name: &str, mesh: &str) -> Located {
    let mesh: String = mesh.lines().map(|line| format!("    {line}\n")).collect();
    let text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: istio-system}}\ndata:\n  mesh: |\n{mesh}"
    );
    let mut parsed = parse("mesh.yaml", &text);
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    parsed.objects.pop().expect("an object")
}

fn read(mesh: &str) -> Result<Vec<Provider<Spec>>, Vec<String>> {
    let read = extension_providers(&config("istio", mesh)).expect("a mesh configuration");
    read.map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

const MIXED: &str = "
accessLogFile: /dev/stdout
extensionProviders:
- {name: logs, envoyOtelAls: {service: otel, port: 4317}}
- name: opa
  envoyExtAuthzGrpc: {service: opa.iam, port: 9191}
- name: typo
  envoyExtAuthzGrpc:
    servce: opa.iam
    port: many
defaultConfig: {tracing: {}}
";

#[test]
fn a_broken_provider_is_told_with_its_line_and_its_siblings_stay() {
    let all = read(MIXED).unwrap();
    let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["opa", "typo"], "providers of logs are others' affair");
    let way = Way { service: "opa.iam".into(), port: 9191 };
    assert_eq!(all[0].spec, Ok(Spec { name: "opa".into(), envoy_ext_authz_grpc: Some(way) }));
    assert_eq!(all[1].at, "extensionProviders[2]");
    let said = all[1].spec.as_ref().unwrap_err();
    assert_eq!(said.len(), 2, "{said:?}");
    let service = said.iter().find(|one| one.contains("servce")).expect("the unknown field");
    assert!(service.starts_with("extensionProviders[2].envoyExtAuthzGrpc.servce: "), "{service}");
    assert!(
        service.contains("did you mean \"service\"?") && service.ends_with("(line 9 of mesh)"),
        "{service}"
    );
    let port = said.iter().find(|one| one.contains("port")).expect("the wrong value");
    assert!(!port.contains("many"), "what is written may be a secret: {port}");
}

#[test]
fn other_settings_and_other_objects_are_passed_over() {
    assert_eq!(read("trustDomain: cluster.local"), Ok(vec![]));
    assert_eq!(read("extensionProviders:"), Ok(vec![]));
    assert_eq!(read(""), Ok(vec![]));
    assert!(extension_providers::<Spec>(&config("istio-ca", MIXED)).is_none());
    let mut none = parse("none.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio}\n");
    let none = none.objects.pop().expect("an object");
    assert_eq!(extension_providers::<Spec>(&none), Some(Ok(vec![])));
}

#[test]
fn a_document_that_cannot_be_read_is_a_problem_with_a_place() {
    for (mesh, want) in [
        ("a: [", "not valid YAML"),
        ("- a", "settings by name are expected (line 1 of mesh)"),
        ("extensionProviders: {}", "extensionProviders: a list is expected (line 1 of mesh)"),
        (
            "extensionProviders: []\nextensionProviders: []",
            "extensionProviders: the field is given twice (line 2 of mesh)",
        ),
        (
            "extensionProvider: []",
            "extensionProvider: unknown field, did you mean \"extensionProviders\"? (line 1 of mesh)",
        ),
        ("a: 1\n---\nb: 2", "one document is expected"),
    ] {
        let said = read(mesh).expect_err(mesh);
        assert_eq!(said.len(), 1, "{mesh}: {said:?}");
        assert!(said[0].starts_with("mesh.yaml:6:") && said[0].contains(want), "{mesh}: {said:?}");
    }
}
