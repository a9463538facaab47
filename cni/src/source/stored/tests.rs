//! Keeping the state over a restart.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::pod::Condition;

#[test]
fn what_was_known_is_known_again_on_the_same_node_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/pods.json");
    assert_eq!(Stored::load(&path, "node1"), Ok(None));
    let pod = Pod {
        uid: "u1".to_owned(),
        name: "cart".to_owned(),
        addresses: ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()].into(),
        annotations: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        namespace_labels: Some(BTreeMap::new()),
        condition: Some(Condition::captured()),
        ..Pod::default()
    };
    let pods = Pods::from([("u1".to_owned(), pod)]);
    let namespaces =
        Namespaces::from([("shop".to_owned(), BTreeMap::from([("k".to_owned(), "v".to_owned())]))]);
    Stored::new("node1", &pods, &namespaces).save(&path).unwrap();
    Stored::new("node1", &pods, &namespaces).save(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let stored = Stored::load(&path, "node1").unwrap().unwrap();
    assert_eq!(stored.into_parts(), (pods, namespaces));
    assert_eq!(Stored::load(&path, "node2"), Ok(None));
    fs::write(&path, "half a fi").unwrap();
    assert!(Stored::load(&path, "node1").is_err());
}
