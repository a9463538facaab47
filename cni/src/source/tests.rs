//! What is written to a pod's status, and what is left alone.

use std::time::Duration;

use ambit_runtime::readiness::Readiness;
use ambit_types::reason::Reason;
use tokio::time::timeout;

use super::*;
use crate::pod::Condition;

const PATIENCE: Duration = Duration::from_secs(5);

fn captured() -> Announcement {
    Announcement { redirection: Some("enabled"), condition: Some(Condition::captured()) }
}

fn left() -> Announcement {
    Announcement { redirection: None, condition: Some(Condition::not_captured(Reason::NotEnrolled, "why")) }
}

#[test]
fn status_is_added_replaced_and_taken_back_and_nothing_else_is_touched() {
    let mut object = json!({
        "metadata": {"name": "a", "annotations": {"mine": "1"}},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    let before = object.clone();
    say(&mut object, &captured(), "t1");
    assert_eq!(object["metadata"]["annotations"], json!({"mine": "1", REDIRECTION: "enabled"}));
    let condition = |object: &Value| object["status"]["conditions"][1].clone();
    assert_eq!(condition(&object)["status"], "True");
    let once = object.clone();
    say(&mut object, &captured(), "t2");
    assert_eq!(object, once, "said already, and since t1");
    say(&mut object, &left(), "t3");
    let want = json!({"type": CAPTURED, "status": "False", "reason": "AMB1001", "message": "why", "lastTransitionTime": "t3"});
    assert_eq!(condition(&object), want);
    object["status"]["conditions"].as_array_mut().unwrap().pop();
    assert_eq!(object, before);
    // From nothing.
    let mut bare = json!({"metadata": {"name": "a", "annotations": null}});
    say(&mut bare, &left(), "t1");
    say(&mut bare, &captured(), "t2");
    assert_eq!(bare["metadata"]["annotations"][REDIRECTION], "enabled");
    assert_eq!(bare["status"]["conditions"][0]["lastTransitionTime"], "t2");
}

fn pod_object(uid: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "a", "namespace": "shop", "uid": uid},
        "spec": {"nodeName": node, "containers": [{"name": "app"}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1"},
    })
}

#[tokio::test]
async fn changes_arrive_and_what_is_said_of_a_pod_reaches_only_that_pod() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    folder.put(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"k": "1"}}})).unwrap();
    folder.put(&pod_object("u1", "node1")).unwrap();
    let (readiness, drain) = (Readiness::new(), Drain::new());
    let mut objects = open(dir.path(), "node1", readiness.part("objects"), &drain).unwrap();
    readiness.complete();
    readiness.ready().await;
    let first = objects.pods.borrow_and_update()["u1"].clone();
    assert_eq!(first.namespace_labels.as_ref().unwrap()["k"], "1");

    objects.announce.announce(&first, &captured()).await.unwrap();
    let said = |pods: &Arc<Pods>| pods.get("u1").is_some_and(|pod| captured().is_said_by(pod));
    timeout(PATIENCE, objects.pods.wait_for(said)).await.unwrap().unwrap();
    folder.put(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"k": "2"}}})).unwrap();
    let relabelled = |pods: &Arc<Pods>| pods["u1"].namespace_labels.as_ref().is_some_and(|l| l["k"] == "2");
    timeout(PATIENCE, objects.pods.wait_for(relabelled)).await.unwrap().unwrap();

    // The same name, another pod: what was meant for the first does not reach it.
    folder.put(&pod_object("u2", "node1")).unwrap();
    timeout(PATIENCE, objects.pods.wait_for(|pods| pods.contains_key("u2"))).await.unwrap().unwrap();
    assert!(!objects.pods.borrow().contains_key("u1"));
    objects.announce.announce(&first, &left()).await.unwrap();
    let key = ObjectKey::new(Kind::Pod, Some("shop"), "a");
    assert_eq!(folder.object(&key).unwrap().value["metadata"].get("annotations"), None);
    folder.remove(&key).unwrap();
    objects.announce.announce(&first, &captured()).await.unwrap();
    timeout(PATIENCE, objects.pods.wait_for(|pods| pods.is_empty())).await.unwrap().unwrap();
    drain.begin();
}
