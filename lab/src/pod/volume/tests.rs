//! Volumes as a pod's specification asks for them.

use serde_json::{Value, json};

use super::*;
use crate::pod::plan::{PodPlan, Values};

fn read(volume: &Value) -> Result<Volume, String> {
    seen(volume, &json!([]))
}

/// The same volume as a container with these mounts sees it.
fn seen(volume: &Value, mounts: &Value) -> Result<Volume, String> {
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "web-0", "namespace": "shop", "uid": "u1",
            "labels": {"app": "web", "tier": "front"}},
        "spec": {"nodeName": "node1", "serviceAccountName": "web", "containers": [{"name": "web", "volumeMounts": mounts}],
            "volumes": [volume]},
        "status": {"podIP": "10.244.1.2"},
    }));
    let key = ("ConfigMap", "shop".to_owned(), "cfg".to_owned());
    let keys = BTreeMap::from([("port".to_owned(), "8080".to_owned()), ("host".to_owned(), "db".to_owned())]);
    let values = Values::from([(key, keys)]);
    let mut plan = PodPlan::of(&pod.expect("a good pod"), &values)?;
    assert_eq!(plan.service_account, "web");
    Ok(plan.volumes.remove(0))
}

fn files(volume: &Value) -> Vec<(String, String)> {
    match read(volume).expect("a good volume").content {
        Content::Files(files) => files.into_iter().collect(),
        other => panic!("{other:?}"),
    }
}

fn own(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn a_projected_volume_brings_files_and_tokens_together() {
    let volume = json!({"name": "all", "projected": {"sources": [
        {"configMap": {"name": "cfg", "items": [{"key": "port", "path": "etc/port"}]}},
        {"configMap": {"name": "none", "optional": true}},
        {"downwardAPI": {"items": [
            {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        ]}},
        {"serviceAccountToken": {"path": "token", "audience": "istio-ca", "expirationSeconds": 43200}},
        {"serviceAccountToken": {"path": "short", "expirationSeconds": 60}},
    ]}});
    let want = [("etc/port", "8080"), ("labels", "app=\"web\"\ntier=\"front\""), ("name", "web-0")];
    assert_eq!(files(&volume), own(&want));
    let tokens = read(&volume).expect("a good volume").tokens;
    let said: Vec<_> = tokens.iter().map(|t| (&*t.path, &*t.audience, t.life.as_secs())).collect();
    assert_eq!(said, [("token", "istio-ca", 540), ("short", token::API_AUDIENCE, 60)]);
}

#[test]
fn single_sources_are_files_too() {
    let map = json!({"name": "v", "configMap": {"name": "cfg"}});
    assert_eq!(files(&map), own(&[("host", "db"), ("port", "8080")]));
    let field = json!({"path": "ip", "fieldRef": {"fieldPath": "status.podIP"}});
    let fields = json!({"name": "v", "downwardAPI": {"items": [field]}});
    assert_eq!(files(&fields), own(&[("ip", "10.244.1.2")]));
    let gone = json!({"name": "v", "configMap": {"name": "none", "optional": true}});
    assert_eq!(read(&gone).expect("optional").content, Content::Empty);
}

#[test]
fn what_cannot_be_carried_out_is_named() {
    let token = |more: Value| {
        let mut asked = json!({"path": "token"});
        asked.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        json!({"name": "v", "projected": {"sources": [{"serviceAccountToken": asked}]}})
    };
    let rows = [
        (
            json!({"name": "v", "configMap": {"name": "x"}}),
            "volume v shows ConfigMap x, which does not exist",
        ),
        (
            json!({"name": "v", "configMap": {"name": "cfg", "items": [{"key": "x", "path": "x"}]}}),
            "volume v: ConfigMap cfg has no key x",
        ),
        (
            json!({"name": "v", "configMap": {"name": "cfg", "items": [{"key": "port", "path": "../x"}]}}),
            "volume v: path \"../x\" does not stay inside the volume",
        ),
        (token(json!({"path": "/x"})), "volume v: path \"/x\" does not stay inside the volume"),
        (
            token(json!({"expirationSeconds": 1})),
            "volume v: serviceAccountToken.expirationSeconds must be at least 10",
        ),
        (
            json!({"name": "v", "nfs": {"server": "s", "path": "/"}}),
            "volume v: its source is not carried out in a lab; use configMap, secret, emptyDir, hostPath, \
             downwardAPI or projected",
        ),
    ];
    for (volume, want) in rows {
        assert_eq!(read(&volume).expect_err(want), want);
    }
}

#[test]
fn a_container_sees_nothing_outside_its_volumes() {
    let volume = json!({"name": "v", "emptyDir": {}});
    let mount = |path: &str| json!([{"name": "v", "mountPath": "/v", "subPath": path}]);
    for path in ["", "a", "a/b"] {
        assert!(seen(&volume, &mount(path)).is_ok(), "{path:?}");
    }
    for path in ["..", "../../../etc", "/etc", "a/../../b"] {
        let want =
            format!("container web: subPath of volume v: path {path:?} does not stay inside the volume");
        assert_eq!(seen(&volume, &mount(path)).expect_err(path), want);
    }
}
