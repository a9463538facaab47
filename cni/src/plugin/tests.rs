//! Calls of a container runtime that need no agent, or find none.

use super::*;

const NETWORK: &str = r#"{"cniVersion":"1.0.0","name":"n","type":"ambit-cni","socket":"/nowhere/at.sock",
    "excludeNamespaces":["kube-system"],"agentNamespace":"istio-system",
    "prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"veth1","sandbox":""},{"name":"eth0","sandbox":"/run/netns/a"}],
    "ips":[{"address":"10.0.0.5/24","interface":1},{"address":"10.0.0.1/24","interface":0},{"address":"fd00::5/64"}]}}"#;
const QUICK: Limits = Limits { connecting: Duration::from_millis(10), answering: Duration::from_millis(10) };

fn environment(command: &str, namespace: &str) -> Environment {
    let pod = format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME=cart;K8S_POD_UID=u1;K8S_POD_INFRA_CONTAINER_ID=c1"
    );
    let variables = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/proc/self/ns/net"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", &pod),
    ];
    Environment::of(variables.map(|(name, value)| (name.to_owned(), value.to_owned())))
}

fn call_with(command: &str, namespace: &str, network: &str) -> (u8, serde_json::Value) {
    let output = run(&environment(command, namespace), network.as_bytes(), QUICK);
    let value =
        if output.text.is_empty() { json!(null) } else { serde_json::from_str(&output.text).unwrap() };
    (output.code, value)
}

#[test]
fn the_calls_parts_are_understood() {
    let pod = environment("ADD", "shop").pod().unwrap();
    assert_eq!((pod.namespace.as_str(), pod.name.as_str(), pod.uid.as_deref()), ("shop", "cart", Some("u1")));
    let addresses: Vec<String> =
        Network::read(NETWORK).unwrap().addresses().iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.0.0.5", "fd00::5"], "not that of the node's end");
    let old = r#"{"cniVersion":"0.2.0","prevResult":{"ip4":{"ip":"10.1.2.3/16"}}}"#;
    assert_eq!(Network::read(old).unwrap().addresses().len(), 1);
}

#[test]
fn without_an_agent_a_pod_waits_unless_its_namespace_is_excluded_or_the_agents_own() {
    let (code, error) = call_with("ADD", "shop", NETWORK);
    assert_eq!((code, &error["code"], &error["cniVersion"]), (1, &json!(11), &json!("1.0.0")));
    assert!(error["msg"].as_str().unwrap().contains("is ambit-cni running on this node?"), "{error}");
    for namespace in ["kube-system", "istio-system"] {
        let (code, result) = call_with("ADD", namespace, NETWORK);
        assert_eq!((code, &result["ips"][0]["address"]), (0, &json!("10.0.0.5/24")), "{namespace}");
    }
    let own = run(&environment("ADD", "istio-system"), NETWORK.as_bytes(), QUICK);
    assert!(own.remark.unwrap().contains("the agent's own namespace"));
    assert_eq!(call_with("CHECK", "shop", NETWORK).1["code"], 11);
    // A container that is no pod is none of our business.
    let no_pod = Environment { args: None, ..environment("ADD", "shop") };
    assert_eq!(run(&no_pod, NETWORK.as_bytes(), QUICK).code, 0);
}

#[test]
fn taking_down_never_fails() {
    for network in [NETWORK, "nonsense", "{\"cniVersion\":\"9.0.0\"}"] {
        assert_eq!(call_with("DEL", "shop", network), (0, json!(null)), "{network}");
    }
    assert_eq!(call_with("STATUS", "shop", NETWORK), (0, json!(null)), "the node stays in service");
    assert_eq!(call_with("GC", "shop", NETWORK), (0, json!(null)));
}

#[test]
fn versions_are_told_and_nonsense_is_named_by_its_code() {
    let (code, said) = call_with("VERSION", "shop", r#"{"cniVersion":"0.4.0"}"#);
    assert_eq!((code, &said["cniVersion"]), (0, &json!("0.4.0")));
    assert_eq!(said["supportedVersions"], json!(SUPPORTED));
    let chainless = r#"{"cniVersion":"1.0.0","name":"n","type":"ambit-cni"}"#;
    for (command, network, want) in [
        ("ADD", chainless, 7),
        ("ADD", "nonsense", 6),
        ("ADD", r#"{"cniVersion":"2.0.0"}"#, 1),
        ("ADD", r#"{"cniVersion":"1.0.0","excludeNamespaces":"a","prevResult":{}}"#, 7),
        ("NONE", NETWORK, 4),
    ] {
        let (code, error) = call_with(command, "shop", network);
        assert_eq!((code, &error["code"]), (1, &json!(want)), "{command} {network}: {error}");
    }
    let lost = Environment { netns: Some("/nowhere".to_owned()), ..environment("ADD", "shop") };
    assert!(run(&lost, NETWORK.as_bytes(), QUICK).text.contains("\"code\":4"));
}
