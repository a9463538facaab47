//! What real manifests write is read, and means what it means in a cluster.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use crate::istio::{MutualTlsMode, PolicyAction};
use crate::{Kind, Located, Object, ObjectKey, check_set, nearest, parse, read_value, to_yaml};

const SHOP: &str = include_str!("shop.yaml");

#[test]
fn a_whole_set_as_people_write_it_is_read() {
    let objects = good(SHOP);
    let keys: Vec<String> = objects.iter().map(|o| o.key.to_string()).collect();
    assert_eq!(
        keys,
        [
            "Namespace shop",
            "Node node1",
            "ServiceAccount shop/cart",
            "ConfigMap shop/settings",
            "Secret shop/key",
            "Service shop/cart",
            "Service shop/cart-headless",
            "EndpointSlice shop/cart-abc",
            "Deployment shop/cart",
            "Pod shop/client",
            "NetworkPolicy shop/cart",
            "PeerAuthentication istio-system/mesh",
            "PeerAuthentication shop/cart",
            "AuthorizationPolicy shop/allow-client",
            "AuthorizationPolicy shop/nothing",
            "AuthorizationPolicy shop/waypoint",
            "RequestAuthentication shop/jwt",
            "ServiceEntry shop/bank",
            "WorkloadEntry shop/vm",
            "Gateway shop/waypoint",
            "HTTPRoute shop/cart",
            "GatewayClass own",
        ]
    );
    assert_eq!(check_set(&objects), []);
}

#[test]
fn values_mean_what_they_mean_in_a_cluster() {
    let objects = good(SHOP);
    let Object::Pod(pod) = object(&objects, Kind::Pod, "client") else { panic!() };
    let spec = pod.spec.as_ref().unwrap();
    let container = &spec.containers[0];
    let limits = container.resources.as_ref().unwrap().limits.as_ref().unwrap();
    assert_eq!((limits["cpu"].0.as_str(), limits["memory"].0.as_str()), ("2", "64Mi"));
    assert_eq!(container.env.as_ref().unwrap()[0].value.as_deref(), Some("yes"), "an anchor's text");
    assert_eq!(container.env.as_ref().unwrap()[1].value.as_deref(), None, "null is absent");
    let mode = spec.volumes.as_ref().unwrap()[0].config_map.as_ref().unwrap().default_mode;
    assert_eq!(mode, Some(0o644), "octal as YAML 1.1 has it");
    assert!(pod.metadata.annotations.is_none(), "a map without entries is absent");
    let probe = container.readiness_probe.as_ref().unwrap().http_get.as_ref().unwrap();
    assert_eq!(probe.port, IntOrString::String("http".into()));
    let Object::AuthorizationPolicy(policy) = object(&objects, Kind::AuthorizationPolicy, "nothing") else {
        panic!()
    };
    assert_eq!((policy.spec.rules.as_deref(), policy.spec.action), (Some(&[][..]), None));
    let Object::AuthorizationPolicy(policy) = object(&objects, Kind::AuthorizationPolicy, "allow-client")
    else {
        panic!()
    };
    assert_eq!(policy.spec.action, Some(PolicyAction::Allow));
    let rules = policy.spec.rules.as_ref().unwrap();
    assert_eq!(rules[0].to.as_ref().unwrap()[0].operation.as_ref().unwrap().ports, Some(vec!["8080".into()]));
    let Object::PeerAuthentication(policy) = object(&objects, Kind::PeerAuthentication, "cart") else {
        panic!()
    };
    let ports = policy.spec.port_level_mtls.as_ref().unwrap();
    assert_eq!(ports[&8080].mode, Some(MutualTlsMode::Strict));
    let Object::Secret(secret) = object(&objects, Kind::Secret, "key") else { panic!() };
    assert_eq!(secret.data.as_ref().unwrap()["token"].0, b"hello");
}

#[test]
fn merge_keys_and_anchors_are_resolved_per_document() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  <<: [{a: '1', b: '1'}, {b: '2', c: '2'}]\n  c: '3'\n";
    let objects = good(text);
    assert_eq!(objects[0].value["data"], json!({"a": "1", "b": "1", "c": "3"}));
    let quoted = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  '<<': 'text'\n";
    let problems = parse("f", quoted).problems;
    assert!(problems[0].to_string().contains("\"<<\" is not a valid key"), "{problems:?}");
}

#[test]
fn json_and_windows_line_ends_are_read_too() {
    let json =
        "{\"apiVersion\": \"v1\",\r\n\t\"kind\": \"Namespace\",\r\n\t\"metadata\": {\"name\": \"shop\"}}\r\n";
    assert_eq!(good(json)[0].key, ObjectKey::new(Kind::Namespace, None, "shop"));
    assert_eq!(good("\u{feff}apiVersion: v1\r\nkind: Namespace\r\nmetadata:\r\n  name: shop\r\n").len(), 1);
    assert_eq!(good("").len() + good("---\n---\n# nothing\n").len(), 0);
}

#[test]
fn fields_are_found_again_by_their_path() {
    let objects = good(SHOP);
    let policy = objects.iter().find(|o| o.key.name == "allow-client").unwrap();
    let start = policy.location.line;
    let at = |path: &str| {
        let place = policy.at(path);
        (place.line - start, place.column)
    };
    assert_eq!(at(""), (0, 1));
    assert_eq!(at("spec.action"), (6, 11));
    assert_eq!(at("spec.rules[0].from[0].source.principals[0]"), (13, 11));
    assert_eq!(at("spec.rules[0].from"), (10, 5));
    assert_eq!(at("spec.rules[7]"), (9, 3), "what is not there is placed where it would be");
    assert_eq!(at("spec.selector.matchLabels[app]"), (8, 26));
    assert_eq!(at("metadata.labels[istio.io/rev]"), (2, 1));
}

#[test]
fn the_namespace_is_filled_in_everywhere() {
    let object = &good("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n")[0];
    assert_eq!(object.key, ObjectKey::new(Kind::ConfigMap, Some("default"), "a"));
    assert_eq!(object.object.metadata().namespace.as_deref(), Some("default"));
    assert_eq!(object.value["metadata"]["namespace"], "default");
}

#[test]
fn objects_written_as_yaml_are_read_back_the_same() {
    for object in good(SHOP) {
        let again = read_value("again", &object.value).unwrap_or_else(|p| panic!("{}: {p:?}", object.key));
        assert_eq!(again.value, object.value, "{}\n{}", object.key, to_yaml(&object.value));
        assert_eq!(again.object, object.object);
    }
}

#[test]
fn kinds_have_the_names_that_command_lines_use() {
    for (word, kind) in [
        ("pod", Some(Kind::Pod)),
        ("Pods", Some(Kind::Pod)),
        ("po", Some(Kind::Pod)),
        ("ns", Some(Kind::Namespace)),
        ("AuthorizationPolicy", Some(Kind::AuthorizationPolicy)),
        ("endpointslices", Some(Kind::EndpointSlice)),
        ("cronjob", None),
    ] {
        assert_eq!(Kind::from_argument(word), kind, "{word}");
    }
    let mut words: Vec<&str> = Kind::ALL.iter().flat_map(|k| k.short_names()).copied().collect();
    words.extend(Kind::ALL.iter().map(|k| k.plural()));
    let all = words.len();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), all, "every name means one kind");
}

#[test]
fn a_near_name_is_suggested_and_a_far_one_is_not() {
    let known = ["rules", "action", "selector", "targetRefs"];
    for (name, want) in [
        ("rulez", Some("rules")),
        ("rule", Some("rules")),
        ("labelSelector", Some("selector")),
        ("TARGETREFS", Some("targetRefs")),
        ("actoin", Some("action")),
        ("x", None),
        ("principals", None),
    ] {
        assert_eq!(nearest(name, known), want, "{name}");
    }
}

#[track_caller]
fn good(text: &str) -> Vec<Located> {
    let parsed = parse("f.yaml", text);
    let said: Vec<String> = parsed.problems.iter().map(ToString::to_string).collect();
    assert!(said.is_empty(), "{}", said.join("\n"));
    parsed.objects
}

fn object<'o>(objects: &'o [Located], kind: Kind, name: &str) -> &'o Object {
    &objects.iter().find(|o| o.kind() == kind && o.key.name == name).unwrap().object
}

#[test]
fn the_example_of_the_egress_policy_page_is_right() {
    let page = include_str!("../../../../docs/egress-policy.md");
    let (_, rest) = page.split_once("```yaml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    assert_eq!(good(example)[0].key, ObjectKey::new(Kind::EgressPolicy, Some("shop"), "out"));
}

#[test]
fn the_example_of_the_traffic_policy_page_is_right() {
    let page = include_str!("../../../../docs/traffic-policy.md");
    let (_, rest) = page.split_once("```yaml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    assert_eq!(good(example)[0].key, ObjectKey::new(Kind::TrafficPolicy, Some("shop"), "calm"));
}
