//! The lists of well-known network plugins with our entry in them, and what is left alone.

use expect_test::{Expect, expect};

use super::*;

fn entry() -> Entry {
    Entry {
        kind: PLUGIN_TYPE.to_owned(),
        socket: "/run/a.sock".to_owned(),
        exclude_namespaces: vec!["kube-system".to_owned()],
        agent_namespace: Some("istio-system".to_owned()),
    }
}

fn file(name: &str, text: &str) -> ConfFile {
    ConfFile { name: name.to_owned(), text: text.to_owned() }
}

/// Installs into one file; then a second look changes nothing, and removing restores the bytes.
fn check(name: &str, text: &str, want: Expect) {
    let plan = install(&[file(name, text)], &entry(), None);
    assert_eq!(plan.primary.as_deref(), Some(name));
    assert_eq!((&plan.problems, &plan.findings), (&Vec::new(), &Vec::new()));
    let [Change::Write { name: written, text: new, like }] = plan.changes.as_slice() else {
        panic!("{:?}", plan.changes)
    };
    assert_eq!((written.as_str(), like.as_str()), (name, name));
    want.assert_eq(new);
    let after = [file(name, new)];
    assert_eq!(install(&after, &entry(), None).changes, [], "it is there already");
    let back = uninstall(&after);
    assert_eq!(back.problems, []);
    let [Change::Write { text: restored, .. }] = back.changes.as_slice() else {
        panic!("{:?}", back.changes)
    };
    assert_eq!(restored, text, "every byte as before");
}

const FLANNEL: &str = r#"{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "plugins": [
    {
      "type": "flannel",
      "delegate": {
        "hairpinMode": true,
        "isDefaultGateway": true
      }
    },
    {
      "type": "portmap",
      "capabilities": {
        "portMappings": true
      }
    }
  ]
}
"#;

#[test]
fn flannel() {
    check(
        "10-flannel.conflist",
        FLANNEL,
        expect![[r#"
            {
              "name": "cbr0",
              "cniVersion": "0.3.1",
              "plugins": [
                {
                  "type": "flannel",
                  "delegate": {
                    "hairpinMode": true,
                    "isDefaultGateway": true
                  }
                },
                {
                  "type": "portmap",
                  "capabilities": {
                    "portMappings": true
                  }
                },
                {
                  "type": "ambit-cni",
                  "socket": "/run/a.sock",
                  "excludeNamespaces": [
                    "kube-system"
                  ],
                  "agentNamespace": "istio-system"
                }
              ]
            }
        "#]],
    );
}

#[test]
fn calico() {
    let text = r#"{
  "name": "k8s-pod-network",
  "cniVersion": "0.3.1",
  "plugins": [
    {"container_settings":{"allow_ip_forwarding":false},"datastore_type":"kubernetes","ipam":{"assign_ipv4":"true","type":"calico-ipam"},"kubernetes":{"k8s_api_root":"https://10.96.0.1:443","kubeconfig":"/etc/cni/net.d/calico-kubeconfig"},"policy":{"type":"k8s"},"type":"calico"},
    {"capabilities":{"bandwidth":true},"type":"bandwidth"},
    {"capabilities":{"portMappings":true},"snat":true,"type":"portmap"}
  ]
}"#;
    check(
        "10-calico.conflist",
        text,
        expect![[r#"
            {
              "name": "k8s-pod-network",
              "cniVersion": "0.3.1",
              "plugins": [
                {"container_settings":{"allow_ip_forwarding":false},"datastore_type":"kubernetes","ipam":{"assign_ipv4":"true","type":"calico-ipam"},"kubernetes":{"k8s_api_root":"https://10.96.0.1:443","kubeconfig":"/etc/cni/net.d/calico-kubeconfig"},"policy":{"type":"k8s"},"type":"calico"},
                {"capabilities":{"bandwidth":true},"type":"bandwidth"},
                {"capabilities":{"portMappings":true},"snat":true,"type":"portmap"},
                {
                  "type": "ambit-cni",
                  "socket": "/run/a.sock",
                  "excludeNamespaces": [
                    "kube-system"
                  ],
                  "agentNamespace": "istio-system"
                }
              ]
            }"#]],
    );
}

#[test]
fn cilium() {
    let text = r#"
{
  "cniVersion": "0.3.1",
  "name": "cilium",
  "plugins": [
    {
       "type": "cilium-cni",
       "enable-debug": false,
       "log-file": "/var/run/cilium/cilium-cni.log"
    }
  ]
}
"#;
    check(
        "05-cilium.conflist",
        text,
        expect![[r#"

            {
              "cniVersion": "0.3.1",
              "name": "cilium",
              "plugins": [
                {
                   "type": "cilium-cni",
                   "enable-debug": false,
                   "log-file": "/var/run/cilium/cilium-cni.log"
                },
                {
                  "type": "ambit-cni",
                  "socket": "/run/a.sock",
                  "excludeNamespaces": [
                    "kube-system"
                  ],
                  "agentNamespace": "istio-system"
                }
              ]
            }
        "#]],
    );
}

#[test]
fn kindnet_with_tabs() {
    let text = "{\n\t\"cniVersion\": \"0.3.1\",\n\t\"name\": \"kindnet\",\n\t\"plugins\": [\n\t{\n\t\t\"type\": \"ptp\",\n\t\t\"ipMasq\": false,\n\t\t\"ipam\": {\n\t\t\t\"type\": \"host-local\",\n\t\t\t\"dataDir\": \"/run/cni-ipam-state\"\n\t\t},\n\t\t\"mtu\": 1500\n\t},\n\t{\n\t\t\"type\": \"portmap\"\n\t}\n\t]\n}\n";
    check(
        "10-kindnet.conflist",
        text,
        expect![[r#"
            {
            	"cniVersion": "0.3.1",
            	"name": "kindnet",
            	"plugins": [
            	{
            		"type": "ptp",
            		"ipMasq": false,
            		"ipam": {
            			"type": "host-local",
            			"dataDir": "/run/cni-ipam-state"
            		},
            		"mtu": 1500
            	},
            	{
            		"type": "portmap"
            	},
            	{
            	  "type": "ambit-cni",
            	  "socket": "/run/a.sock",
            	  "excludeNamespaces": [
            	    "kube-system"
            	  ],
            	  "agentNamespace": "istio-system"
            	}
            	]
            }
        "#]],
    );
}

#[test]
fn a_list_on_one_line() {
    check(
        "87-podman.conflist",
        r#"{"cniVersion":"1.0.0","name":"a","note":"\"plugins\": [\\","plugins":[{"type":"bridge","x":[1,{"y":"}"}]}]}"#,
        expect![[
            r#"{"cniVersion":"1.0.0","name":"a","note":"\"plugins\": [\\","plugins":[{"type":"bridge","x":[1,{"y":"}"}]},{"type":"ambit-cni","socket":"/run/a.sock","excludeNamespaces":["kube-system"],"agentNamespace":"istio-system"}]}"#
        ]],
    );
}

const BRIDGE: &str = r#"{
    "cniVersion": "1.0.0",
    "name": "mynet",
    "type": "bridge",
    "bridge": "cni0",
    "ipam": {"type": "host-local", "subnet": "10.22.0.0/16"}
}
"#;

#[test]
fn a_single_configuration_becomes_a_list_and_comes_back() {
    let plan = install(&[file("10-bridge.conf", BRIDGE)], &entry(), None);
    assert_eq!(plan.primary.as_deref(), Some("10-bridge.conflist"));
    let [Change::Write { name, text, .. }, Change::Rename { from, to }] = plan.changes.as_slice() else {
        panic!("{:?}", plan.changes)
    };
    assert_eq!(name, "10-bridge.conflist");
    assert_eq!((from.as_str(), to.as_str()), ("10-bridge.conf", "10-bridge.conf.ambit-saved"));
    expect![[r#"
        {
          "cniVersion": "1.0.0",
          "name": "mynet",
          "plugins": [
            {
                "cniVersion": "1.0.0",
                "name": "mynet",
                "type": "bridge",
                "bridge": "cni0",
                "ipam": {"type": "host-local", "subnet": "10.22.0.0/16"}
            },
            {
              "type": "ambit-cni",
              "socket": "/run/a.sock",
              "excludeNamespaces": [
                "kube-system"
              ],
              "agentNamespace": "istio-system"
            }
          ]
        }
    "#]]
    .assert_eq(text);
    let after = [file("10-bridge.conf.ambit-saved", BRIDGE), file("10-bridge.conflist", text)];
    assert_eq!(install(&after, &entry(), None).changes, []);
    let rename =
        Change::Rename { from: "10-bridge.conf.ambit-saved".to_owned(), to: "10-bridge.conf".to_owned() };
    let remove = |name: &str| Change::Remove { name: name.to_owned() };
    assert_eq!(uninstall(&after).changes, [rename, remove("10-bridge.conflist")]);

    // Its owner wrote it again: what is newer counts.
    let again = [&after[..], &[file("10-bridge.conf", BRIDGE)]].concat();
    assert_eq!(install(&again, &entry(), None).changes.len(), 2);
    assert_eq!(
        uninstall(&again).changes,
        [remove("10-bridge.conf.ambit-saved"), remove("10-bridge.conflist")]
    );
}

#[test]
fn an_entry_of_another_version_is_replaced_where_it_stands_and_doubles_go() {
    let old = r#"{"name":"a","plugins":[{"type":"x"},{"type":"ambit-cni","socket":"/old"},{"type":"y"}]}"#;
    let plan = install(&[file("a.conflist", old)], &entry(), None);
    let [Change::Write { text, .. }] = plan.changes.as_slice() else { panic!("{:?}", plan.changes) };
    let value: Value = serde_json::from_str(text).unwrap();
    assert_eq!(value["plugins"][1], serde_json::to_value(entry()).unwrap());
    assert_eq!(value["plugins"][2]["type"], "y");
    let doubled = r#"{"name":"a","plugins":[{"type":"ambit-cni"},{"type":"x"},{"type":"ambit-cni"}]}"#;
    let plan = install(&[file("a.conflist", doubled)], &entry(), None);
    let [Change::Write { text, .. }] = plan.changes.as_slice() else { panic!("{:?}", plan.changes) };
    let value: Value = serde_json::from_str(text).unwrap();
    assert_eq!(value["plugins"].as_array().unwrap().len(), 2);
    assert_eq!(value["plugins"][1]["socket"], "/run/a.sock");
}

#[test]
fn what_cannot_be_read_is_reported_and_the_next_file_is_used() {
    let bad = [
        ("01-a.conflist", "{\"name\": \"a\", \"plugins\": ["),
        ("02-b.conflist", "{\"name\": \"a\", \"plugins\": []}"),
        ("03-c.conflist", "{\"name\": \"a\", \"plugins\": {\"type\": \"x\"}}"),
        ("04-d.conflist", "{\"plugins\": [{\"type\": \"x\"}]}"),
        ("05-e.conflist", "{\"name\": \"a\", \"plugins\": [{\"kind\": \"x\"}]}"),
        ("06-f.conf", "{\"name\": \"a\"}"),
        ("07-g.conf", ""),
        ("08-h.json", "[]"),
    ];
    let mut files: Vec<ConfFile> = bad.iter().map(|(name, text)| file(name, text)).collect();
    let plan = install(&files, &entry(), None);
    assert_eq!((plan.primary, plan.changes), (None, Vec::new()));
    let named: Vec<&str> = plan.problems.iter().map(|p| p.file.as_str()).collect();
    assert_eq!(named, bad.map(|(name, _)| name));
    files.push(file("10-flannel.conflist", FLANNEL));
    let plan = install(&files, &entry(), None);
    assert_eq!(plan.primary.as_deref(), Some("10-flannel.conflist"));
    assert_eq!(plan.changes.len(), 1);
    assert_eq!(uninstall(&files), Plan::default());
}

#[test]
fn the_first_by_name_is_used_or_the_one_that_is_asked_for() {
    let files = [
        file("10-flannel.conflist", FLANNEL),
        file("05-bridge.conf", BRIDGE),
        file(".00-hidden.conflist", FLANNEL),
        file("00-readme.txt", "x"),
    ];
    let primary = |only| install(&files, &entry(), only).primary;
    assert_eq!(primary(None).as_deref(), Some("05-bridge.conflist"));
    assert_eq!(primary(Some("10-flannel.conflist")).as_deref(), Some("10-flannel.conflist"));
    assert_eq!(primary(Some("05-bridge.conf")).as_deref(), Some("05-bridge.conflist"));
    assert_eq!(primary(Some("20-x.conflist")), None);
    assert_eq!(install(&[], &entry(), None), Plan::default(), "an empty directory is waited for");
}

#[test]
fn ciliums_exclusive_mode_and_istios_plugin_are_told() {
    let istio = r#"{"name":"a","plugins":[{"type":"x"},{"type":"istio-cni"}]}"#;
    let files = [file("10-flannel.conflist.cilium_bak", FLANNEL), file("05-cilium.conflist", istio)];
    let found = install(&files, &entry(), None).findings;
    assert_eq!(
        found,
        [
            Finding::CiliumExclusive { backups: vec!["10-flannel.conflist.cilium_bak".to_owned()] },
            Finding::IstioPlugin { file: "05-cilium.conflist".to_owned() },
        ]
    );
    assert!(found[0].to_string().contains("cni.exclusive=false"));
    // Our entry in a file that was put aside goes too.
    let plan = install(&[file("a.conflist", FLANNEL)], &entry(), None);
    let [Change::Write { text, .. }] = plan.changes.as_slice() else { panic!("{:?}", plan.changes) };
    let aside = uninstall(&[file("a.conflist.cilium_bak", text)]);
    let [Change::Write { name, text, .. }] = aside.changes.as_slice() else { panic!("{:?}", aside.changes) };
    assert_eq!((name.as_str(), text.as_str()), ("a.conflist.cilium_bak", FLANNEL));
}
