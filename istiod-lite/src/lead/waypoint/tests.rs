//! What a Gateway becomes, object by object, and what its status says.

use std::collections::{BTreeMap, BTreeSet};

use ambit_control::Name;
use ambit_control::index::Health;
use ambit_control::input::{Gateway, Labels};
use ambit_types::{Str, written};
use expect_test::expect_file;
use serde_json::{Value, json};

use super::objects::{self, Settings};
use super::standing::{Facts, Outcome, status};

fn settings() -> Settings {
    let quantities = |cpu: &str, memory: &str| {
        BTreeMap::from([("cpu".into(), cpu.into()), ("memory".into(), memory.into())])
    };
    Settings {
        image: "registry.example/waypoint:1".to_owned(),
        pull_policy: "IfNotPresent".to_owned(),
        pull_secrets: Vec::new(),
        control_plane: "https://istiod.istio-system.svc:15012".to_owned(),
        cluster_id: "Kubernetes".to_owned(),
        trust_domain: "cluster.local".to_owned(),
        replicas_min: 1,
        replicas_max: 5,
        cpu_percent: 80,
        requests: quantities("100m", "128Mi"),
        limits: quantities("2", "1Gi"),
        grace_seconds: 30,
        log: "info".to_owned(),
    }
}

fn gateway(annotations: &[(&str, &str)]) -> Gateway {
    let listener = written::Listener {
        name: "mesh".to_owned(),
        port: 15008,
        protocol: "HBONE".to_owned(),
        ..written::Listener::default()
    };
    Gateway {
        name: Name::new("shop", "waypoint"),
        uid: Str::from("u-1"),
        generation: 2,
        labels: Labels::new(),
        annotations: annotations.iter().map(|(key, value)| (Str::from(*key), Str::from(*value))).collect(),
        spec: written::Gateway {
            gateway_class_name: "istio-waypoint".to_owned(),
            listeners: vec![listener],
            ..written::Gateway::default()
        },
        has_address: false,
    }
}

#[test]
fn a_gateway_becomes_these_objects() {
    let made = objects::made_of(&gateway(&[]), &settings()).expect("an ordinary gateway");
    let text = serde_json::to_string_pretty(&made).expect("a value has a text");
    expect_file!["tests/objects.json"].assert_eq(&format!("{text}\n"));
}

#[test]
fn the_annotation_fixes_the_number_of_pods() {
    let rows = [
        (None, "ServiceAccount Service Deployment HorizontalPodAutoscaler PodDisruptionBudget", Value::Null),
        (Some("3"), "ServiceAccount Service Deployment PodDisruptionBudget", json!(3)),
        (Some("0"), "ServiceAccount Service Deployment", json!(0)),
    ];
    for (annotation, kinds, replicas) in rows {
        let gateway =
            gateway(&annotation.map(|value| (objects::REPLICAS, value)).into_iter().collect::<Vec<_>>());
        let made = objects::made_of(&gateway, &settings()).expect("a number");
        let found: Vec<&str> = made.iter().filter_map(|object| object["kind"].as_str()).collect();
        assert_eq!(found.join(" "), kinds, "{annotation:?}");
        let deployment = made.iter().find(|object| object["kind"] == "Deployment").expect("always there");
        assert_eq!(deployment["spec"]["replicas"], replicas, "{annotation:?}");
    }
    for bad in ["-1", "51", "many", ""] {
        let refused = objects::made_of(&gateway(&[(objects::REPLICAS, bad)]), &settings());
        assert!(refused.is_err_and(|words| words.contains("from 0 to 50")), "{bad:?}");
    }
}

#[test]
fn a_deployment_keeps_its_pods_until_somebody_else_counts_them() {
    let owner = |manager: &str, part: &str, fields: Value| json!({"manager": manager, "operation": "Apply", "subresource": part, "fieldsV1": fields});
    let counts = || json!({"f:spec": {"f:replicas": {}, "f:template": {}}});
    let ours = || owner("ambit-istiod", "", counts());
    let rows = [
        ("ours alone", vec![ours()], 4, Some(4)),
        ("ours, from nothing", vec![ours()], 0, Some(2)),
        ("the scaler's", vec![owner("kube-controller-manager", "scale", counts())], 4, None),
        ("of both", vec![ours(), owner("kube-controller-manager", "scale", counts())], 4, None),
        ("somebody's", vec![owner("kubectl", "scale", counts())], 0, None),
        (
            "ours beside other fields of others",
            vec![ours(), owner("kubectl", "", json!({"f:spec": {}}))],
            3,
            Some(3),
        ),
        ("nobody's", vec![owner("ambit-istiod", "", json!({"f:spec": {"f:template": {}}}))], 1, None),
        ("not told", Vec::new(), 4, None),
    ];
    let settings = Settings { replicas_min: 2, ..settings() };
    for (what, owners, number, want) in rows {
        let live = json!({"metadata": {"managedFields": owners}, "spec": {"replicas": number}});
        assert_eq!(objects::kept_replicas(&live, "ambit-istiod", &settings), want, "{what}");
    }
    // Its owner leaves the subresource out where there is none.
    let live = json!({
        "metadata": {"managedFields": [{"manager": "ambit-istiod", "fieldsV1": counts()}]}, "spec": {"replicas": 9},
    });
    assert_eq!(objects::kept_replicas(&live, "ambit-istiod", &settings), Some(9));
}

#[test]
fn what_a_gateway_wants_on_its_objects_cannot_be_of_the_mesh() {
    let mut gateway = gateway(&[]);
    let wanted =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    gateway.spec.infrastructure = Some(written::Infrastructure {
        labels: wanted(&[
            ("team", "a"),
            ("istio.io/use-waypoint", "other"),
            ("gateway.networking.k8s.io/gateway-name", "other"),
        ]),
        annotations: wanted(&[("note", "b"), ("ambient.istio.io/redirection", "enabled")]),
        parameters_ref: None,
    });
    for object in objects::made_of(&gateway, &settings()).expect("an ordinary gateway") {
        let metadata = &object["metadata"];
        assert_eq!(metadata["labels"]["team"], "a");
        assert_eq!(metadata["annotations"]["note"], "b");
        assert_eq!(metadata["labels"].get("istio.io/use-waypoint"), None);
        assert_eq!(metadata["labels"]["gateway.networking.k8s.io/gateway-name"], "waypoint");
        assert_eq!(metadata["annotations"].get("ambient.istio.io/redirection"), None);
        assert_eq!(metadata["ownerReferences"][0]["uid"], "u-1");
    }
    if let Some(infrastructure) = &mut gateway.spec.infrastructure {
        infrastructure.parameters_ref = Some(written::LocalRef::default());
    }
    assert!(objects::made_of(&gateway, &settings()).is_err(), "what is not carried out is not passed over");
}

/// The program's own parser is asked elsewhere; a name that it does not know cannot get this far.
#[test]
fn every_variable_is_a_setting_of_the_program() {
    let sources = [
        include_str!("../../../../waypoint/src/config.rs"),
        include_str!("../../../../waypoint/src/config/bounds.rs"),
        include_str!("../../../../waypoint/src/config/sessions.rs"),
    ];
    let made = objects::made_of(&gateway(&[]), &settings()).expect("an ordinary gateway");
    let deployment = made.iter().find(|object| object["kind"] == "Deployment").expect("always there");
    let env = deployment["spec"]["template"]["spec"]["containers"][0]["env"].as_array().expect("a list");
    let names: BTreeSet<&str> = env.iter().filter_map(|one| one["name"].as_str()).collect();
    for name in &names {
        let setting = format!("env = \"{name}\"");
        assert!(sources.iter().any(|source| source.contains(&setting)), "{name} is no setting of a waypoint");
    }
    assert_eq!(names.len(), env.len(), "each once");
    for needed in ["POD_NAME", "POD_NAMESPACE", "SERVICE_ACCOUNT", "NODE_NAME"] {
        assert!(names.contains(needed), "{needed}");
    }
}

fn words(facts: Facts<'_>) -> Vec<String> {
    let status = status(facts);
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let mut words: Vec<String> = conditions
        .iter()
        .map(|one| format!("{}={} {}", one["type"], one["status"], one["reason"]).replace('"', ""))
        .collect();
    words.push(format!("{} addresses", status["addresses"].as_array().map_or(0, Vec::len)));
    words
}

#[test]
fn a_gateway_says_what_keeps_it_from_being_used() {
    let health = |has_service: bool, is_ready: bool| Health {
        has_service,
        addresses: if has_service { vec!["10.2.0.9".parse().expect("an address")] } else { Vec::new() },
        is_ready,
    };
    let refused = Outcome::Refused("no".to_owned());
    let (failed, waiting) = (Outcome::Failed("no".to_owned()), Outcome::Waiting("not yet".to_owned()));
    let rows = [
        (&Outcome::Made, health(false, false), false, "Programmed=False AddressNotAssigned", 0),
        (&Outcome::Made, health(true, false), false, "Programmed=False AddressNotAssigned", 0),
        (&Outcome::Made, health(true, true), false, "Programmed=True Programmed", 2),
        (&Outcome::Made, health(true, true), true, "Programmed=True Programmed", 2),
        (&Outcome::Made, health(true, false), true, "Programmed=False NoResources", 2),
        (&Outcome::Made, health(false, false), true, "Programmed=False AddressNotAssigned", 1),
        (&refused, health(true, true), true, "Programmed=False Invalid", 2),
        (&failed, health(true, true), true, "Programmed=False Invalid", 2),
        (&waiting, health(true, true), true, "Programmed=False Pending", 2),
    ];
    for (outcome, health, has_address, programmed, addresses) in rows {
        let gateway = Gateway { has_address, ..gateway(&[]) };
        let facts = Facts {
            gateway: &gateway,
            report: None,
            health: &health,
            outcome: Some(outcome),
            domain: "cluster.local",
        };
        let accepted = match outcome {
            Outcome::Refused(_) => "Accepted=False InvalidParameters",
            Outcome::Made | Outcome::Failed(_) | Outcome::Waiting(_) => "Accepted=True Accepted",
        };
        let want = [
            accepted.to_owned(),
            programmed.to_owned(),
            "ResolvedRefs=True ResolvedRefs".to_owned(),
            format!("{addresses} addresses"),
        ];
        assert_eq!(words(facts), want, "{outcome:?} {health:?} {has_address}");
    }
}

#[test]
fn the_status_of_a_gateway_that_can_be_reached() {
    let health = Health {
        has_service: true,
        addresses: vec!["10.2.0.9".parse().expect("an address")],
        is_ready: true,
    };
    let gateway = gateway(&[]);
    let facts = Facts {
        gateway: &gateway,
        report: None,
        health: &health,
        outcome: Some(&Outcome::Made),
        domain: "cluster.local",
    };
    let text = serde_json::to_string_pretty(&status(facts)).expect("a value has a text");
    expect_file!["tests/status.json"].assert_eq(&format!("{text}\n"));
}

#[test]
fn a_stopped_waypoint_says_that_it_was_stopped() {
    let gateway = Gateway { has_address: true, ..gateway(&[(objects::REPLICAS, "0")]) };
    let health = Health {
        has_service: true,
        addresses: vec!["10.2.0.9".parse().expect("an address")],
        is_ready: false,
    };
    let facts = Facts {
        gateway: &gateway,
        report: None,
        health: &health,
        outcome: Some(&Outcome::Made),
        domain: "cluster.local",
    };
    let status = status(facts);
    let message = status["conditions"][1]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("annotation ambit.internal/replicas is 0"), "{message}");
}
