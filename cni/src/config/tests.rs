//! Settings: defaults, and values refused where they are read.

use super::*;

const REQUIRED: [&str; 7] =
    ["ambit-cni", "--folder", "/run/objects", "--node", "node1", "--sandbox-dir", "/run/sandboxes"];

fn read(more: &[&str]) -> Result<(Config, String), clap::Error> {
    Config::read(REQUIRED.iter().chain(more))
}

#[test]
fn defaults_are_those_of_the_reference() {
    let (config, origins) = read(&[]).unwrap();
    assert_eq!(config.source, Source::Folder);
    assert_eq!(config.excluded(), BTreeSet::from(["kube-system".to_owned()]));
    let limits = config.limits();
    assert_eq!((limits.verify.as_secs(), limits.notice.as_secs()), (5, 2));
    assert!(origins.contains("node = node1 (flag)\n"), "{origins}");
    assert!(origins.contains("verify-interval = 5s (default)\n"), "{origins}");
}

#[test]
fn values_are_checked_where_they_are_read() {
    let (config, _) = read(&["--exclude-namespaces", "a, b,,c", "--verify-interval", "250ms"]).unwrap();
    assert_eq!(config.excluded().into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(config.verify_interval, Duration::from_millis(250));
    for bad in [
        ["--verify-interval", "0s"],
        ["--verify-interval", "5"],
        ["--verify-interval", "2h"],
        ["--log-format", "xml"],
        ["--source", "files"],
        ["--nodes", "x"],
    ] {
        assert!(read(&bad).is_err(), "{bad:?}");
    }
    assert!(Config::read(["ambit-cni"]).is_err(), "the folder, node and sandboxes are required");
    let folderless = Config::read(["ambit-cni", "--node", "n", "--sandbox-dir", "/x"]).unwrap_err();
    assert!(folderless.to_string().contains("--folder is required"), "{folderless}");
    let kube = ["ambit-cni", "--source", "kube"];
    assert!(Config::read(kube).is_err(), "the node is required");
    assert!(read(&["--chained-cni-plugin", "perhaps"]).is_err());
}

#[test]
fn a_cluster_needs_only_the_nodes_name_and_the_plugin_is_installed_when_asked_for() {
    let kube = ["ambit-cni", "--source", "kube", "--node", "n"];
    let (config, origins) = Config::read(kube).unwrap();
    assert_eq!((&config.folder, &config.sandbox_dir), (&None, &None));
    assert!(config.serves_plugin() && config.installer().is_none());
    assert!(origins.contains("plugin-socket = /var/run/ambit/cni/plugin.sock (default)\n"), "{origins}");
    assert!(!origins.contains("PluginConfig"), "{origins}");
    let (config, _) = read(&["--chained-cni-plugin", "true", "--pod-namespace", "istio-system"]).unwrap();
    let entry = config.installer().unwrap().entry;
    assert_eq!(entry.socket, "/var/run/ambit/cni/plugin.sock");
    assert_eq!(
        (entry.exclude_namespaces, entry.agent_namespace.as_deref()),
        (vec!["kube-system".to_owned()], Some("istio-system"))
    );
}
