//! The other forms of the manifests, the Helm chart and the kustomize base, against what `ambit install` prints.
//!
//! Where a tool is missing a test says so and passes, unless `AMBIT_REQUIRE_PEERS=1` demands it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use ambit::bundle::{self, SETTINGS, Settings, Shape};
use ambit_tests::peers;
use serde_json::Value;

use super::programs::read_by_their_programs;
use super::text;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Runs a tool; its output, if it is there.
fn run(tool: &str, args: &[&str]) -> Option<String> {
    let output = match Command::new(peers::kube_tool(tool)).args(args).current_dir(root()).output() {
        Ok(output) => output,
        Err(error) => {
            peers::not_run(&format!(
                "{tool} cannot be started: {error}; install it with: xtask/need.sh test"
            ));
            return None;
        }
    };
    assert!(output.status.success(), "{tool} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).expect("UTF-8"))
}

/// Objects by kind, namespace and name.
fn by_name(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let name = |o: &Value| {
        format!("{} {}/{}", text(o, "/kind"), text(o, "/metadata/namespace"), text(o, "/metadata/name"))
    };
    objects.into_iter().map(|object| (name(&object), object)).collect()
}

fn read(yaml: &str) -> BTreeMap<String, Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).expect("YAML");
    by_name(documents.into_iter().filter(Value::is_object).collect())
}

fn template(settings: &[String]) -> Option<BTreeMap<String, Value>> {
    let mut args = vec!["template", "ambit", "deploy/helm/ambit", "--kube-version", "1.35.0"];
    for setting in settings {
        let key = setting.split('=').next();
        let is_text = SETTINGS.iter().any(|s| Some(s.key) == key && s.shape == Shape::Word);
        args.extend([if is_text { "--set-string" } else { "--set" }, setting]);
    }
    Some(read(&run("helm", &args)?))
}

#[track_caller]
fn check(settings: &[&str]) {
    let own = Settings::parse(settings).expect("settings");
    // Helm takes a comma for the end of a value.
    let theirs: Vec<String> = settings.iter().map(|s| s.replace(',', "\\,")).collect();
    let Some(templated) = template(&theirs) else { return };
    let printed = by_name(bundle::objects(&own).expect("objects"));
    let names = |of: &BTreeMap<String, Value>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&templated), names(&printed), "{settings:?}");
    read_by_their_programs(&format!("helm {settings:?}"), templated.values());
    for (name, object) in &printed {
        assert_eq!(&templated[name], object, "{settings:?}: {name}");
    }
}

#[test]
fn the_chart_renders_what_install_prints() {
    check(&[]);
    check(&["image.registry=registry.example.com/mesh", "image.tag=1.2.3", "image.pullPolicy=Always"]);
    check(&["logLevel=ztunnel=debug,info", "logFormat=plain", "trustDomain=prod.example"]);
    check(&[
        "clusterDomain=corp.local",
        "clusterId=east",
        "istiod.replicas=3",
        "cni.binDir=/home/kubernetes/bin",
    ]);
    check(&["crds.istio=false", "gatewayClass=false", "webhook=false", "networkPolicies=false"]);
    check(&["podMonitor=true", "istiod.autoscaling=true", "cni.confDir=/var/lib/cni/net.d"]);
}

#[test]
fn the_chart_has_the_settings_of_install() {
    let values = std::fs::read_to_string(root().join("deploy/helm/ambit/values.yaml")).unwrap();
    let values: Value = serde_saphyr::from_str(&values).unwrap();
    let mut count = 0;
    for setting in SETTINGS {
        let value = &values.pointer(&format!("/{}", setting.key.replace('.', "/")));
        let value = value.unwrap_or_else(|| panic!("{} is no value of the chart", setting.key));
        let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        assert_eq!(shown, setting.default, "{}", setting.key);
        count += 1;
    }
    assert_eq!(leaves(&values), count, "the chart has values that install does not know");
}

fn leaves(value: &Value) -> usize {
    value.as_object().map_or(1, |members| members.values().map(leaves).sum())
}

#[test]
fn the_kustomize_base_is_what_install_prints_and_overlays_build_on_it() {
    let Some(base) = run("kubectl", &["kustomize", "deploy/kustomize/base"]) else { return };
    let printed = by_name(bundle::objects(&Settings::default()).unwrap());
    assert_eq!(read(&base), printed);
    for overlay in ["one-node", "k3s", "gke", "openshift", "private-registry"] {
        let folder = format!("deploy/kustomize/overlays/{overlay}");
        let built = read(&run("kubectl", &["kustomize", &folder]).unwrap());
        assert!(printed.keys().all(|name| built.contains_key(name)), "{overlay} lost an object");
        assert_ne!(built, printed, "{overlay} changes nothing");
        read_by_their_programs(overlay, built.values());
    }
}
