//! Who is enrolled, as a table of labels and hard conditions.

use super::*;

/// `key=value` words as labels or annotations.
fn map(words: &str) -> BTreeMap<String, String> {
    words.split_whitespace().map(|w| w.split_once('=').unwrap()).map(|(k, v)| (k.into(), v.into())).collect()
}

/// One row: pod labels, pod annotations, what else is true of the pod, namespace labels, the answer.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("", "", "", "", "AMB1001 unlabelled"),
    ("", "", "", "istio.io/dataplane-mode=ambient", "enrol"),
    ("istio.io/dataplane-mode=ambient", "", "", "", "enrol"),
    ("istio.io/dataplane-mode=ambient", "", "", "istio.io/dataplane-mode=none", "enrol"),
    ("istio.io/dataplane-mode=none", "", "", "istio.io/dataplane-mode=ambient", "AMB1001 pod-opt-out"),
    ("istio.io/dataplane-mode=none", "", "", "", "AMB1001 pod-opt-out"),
    ("", "", "", "istio.io/dataplane-mode=none", "AMB1001 unlabelled"),
    ("", "", "", "istio.io/dataplane-mode=Ambient", "AMB1001 unlabelled"),
    ("istio.io/dataplane-mode=sidecar", "", "", "istio.io/dataplane-mode=ambient", "enrol"),
    ("istio.io/dataplane-mode=sidecar", "", "", "", "AMB1001 unlabelled"),
    ("", "", "host-network", "istio.io/dataplane-mode=ambient", "AMB1001 host-network"),
    ("istio.io/dataplane-mode=ambient", "", "host-network", "", "AMB1001 host-network"),
    ("", "", "finished", "istio.io/dataplane-mode=ambient", "AMB1001 finished"),
    ("", "", "in:kube-system", "istio.io/dataplane-mode=ambient", "AMB1001 excluded-namespace"),
    ("istio.io/dataplane-mode=ambient", "", "in:kube-system", "", "AMB1001 excluded-namespace"),
    ("", "", "in:istio-system", "", "AMB1001 unlabelled"),
    ("", "", "in:istio-system", "istio.io/dataplane-mode=ambient", "enrol"),
    ("", "sidecar.istio.io/status={}", "", "istio.io/dataplane-mode=ambient", "AMB1002 sidecar"),
    ("", "sidecar.istio.io/status={}", "", "", "AMB1001 unlabelled"),
    ("istio.io/dataplane-mode=none", "sidecar.istio.io/status={}", "", "istio.io/dataplane-mode=ambient", "AMB1001 pod-opt-out"),
    ("", "ambient.istio.io/bypass-inbound-capture=true", "", "istio.io/dataplane-mode=ambient", "enrol outbound-only"),
    ("", "ambient.istio.io/bypass-inbound-capture=false", "", "istio.io/dataplane-mode=ambient", "enrol"),
    ("", "ambient.istio.io/bypass-inbound-capture=yes", "", "istio.io/dataplane-mode=ambient", "enrol (1 ignored)"),
    ("", "istio.io/reroute-virtual-interfaces=vm0,vm1", "", "istio.io/dataplane-mode=ambient", "enrol vm0 vm1"),
    ("", "istio.io/reroute-virtual-interfaces=vm0,,a\"b", "", "istio.io/dataplane-mode=ambient", "enrol vm0 (1 ignored)"),
];

#[test]
fn labels_and_hard_conditions_decide() {
    let excluded = BTreeSet::from(["kube-system".to_owned()]);
    for (labels, annotations, traits, namespace, want) in ROWS {
        let (labels, annotations) = (map(labels), map(annotations));
        let pod = PodFacts {
            namespace: traits.strip_prefix("in:").unwrap_or("shop"),
            labels: Some(&labels),
            annotations: Some(&annotations),
            host_network: *traits == "host-network",
            finished: *traits == "finished",
        };
        let got = describe(&decide(&pod, Some(&map(namespace)), &excluded));
        assert_eq!(got, *want, "row {labels:?} {annotations:?} {traits} {namespace}");
    }
}

#[test]
fn a_pod_whose_namespace_is_not_known_is_judged_by_its_own_label() {
    let labels = map("istio.io/dataplane-mode=ambient");
    let pod = PodFacts { namespace: "shop", labels: Some(&labels), ..PodFacts::default() };
    assert_eq!(describe(&decide(&pod, None, &BTreeSet::new())), "enrol");
    let pod = PodFacts { namespace: "shop", ..PodFacts::default() };
    assert_eq!(describe(&decide(&pod, None, &BTreeSet::new())), "AMB1001 unlabelled");
}

fn describe(decision: &Decision) -> String {
    match decision {
        Decision::Enrol { facts, ignored } => {
            let mut text = String::from("enrol");
            if !facts.inbound {
                text.push_str(" outbound-only");
            }
            for interface in &facts.virtual_interfaces {
                text.push_str(&format!(" {}", interface.as_str()));
            }
            if !ignored.is_empty() {
                text.push_str(&format!(" ({} ignored)", ignored.len()));
            }
            text
        }
        Decision::Not(why) => {
            assert!(!why.why().is_empty());
            let name = match why {
                NotEnrolled::Unlabelled => "unlabelled",
                NotEnrolled::PodOptOut => "pod-opt-out",
                NotEnrolled::ExcludedNamespace => "excluded-namespace",
                NotEnrolled::HostNetwork => "host-network",
                NotEnrolled::Finished => "finished",
                NotEnrolled::Sidecar => "sidecar",
                NotEnrolled::Removed => "removed",
            };
            format!("{} {name}", why.reason().code())
        }
    }
}
