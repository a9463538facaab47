//! The names that kubelets and container runtimes give to control groups.

use super::*;

const UID: &str = "8dbc5577-d0e2-4706-8787-57d52c03ddf2";

#[test]
fn every_layout_names_the_pod() {
    let low = "8dbc5577_d0e2_4706_8787_57d52c03ddf2";
    for path in [
        // cgroupfs driver: guaranteed, burstable, best effort; below another tree; in a namespace of groups.
        format!("0::/kubepods/pod{UID}/1d2f"),
        format!("0::/kubepods/burstable/pod{UID}/1d2f"),
        format!("0::/kubepods/besteffort/pod{UID}"),
        format!("0::/kubelet/kubepods/besteffort/pod{UID}/crio-1d2f"),
        format!("0::/docker/ab12/kubelet/kubepods/burstable/pod{UID}/1d2f/init"),
        format!("0::/../../pod{UID}/1d2f"),
        // systemd driver: containerd, CRI-O, nested, and a path that systemd has not resolved.
        format!("0::/kubepods.slice/kubepods-pod{low}.slice/cri-containerd-1d2f.scope"),
        format!(
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{low}.slice/crio-1d2f.scope"
        ),
        format!(
            "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{low}.slice/crio-1d2f.scope/container"
        ),
        format!(
            "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{low}.slice/cri-containerd-1d2f.scope"
        ),
        format!("0::/system.slice/containerd.service/kubepods-burstable-pod{low}.slice:cri-containerd:1d2f"),
        format!("0::/../../kubepods-besteffort-pod{low}.slice/cri-containerd-1d2f.scope"),
        // Version 1, every controller the same.
        format!(
            "12:cpu,cpuacct:/kubepods/burstable/pod{UID}/1d2f\n1:name=systemd:/kubepods/burstable/pod{UID}/1d2f\n0::/\n"
        ),
        format!(
            "2:pids:/kubepods.slice/kubepods-pod{low}.slice/crio-1.scope\n1:name=systemd:/kubepods.slice/kubepods-pod{low}.slice/crio-1.scope"
        ),
    ] {
        assert_eq!(pod_uid(&path).as_deref(), Some(UID), "{path}");
    }
    // A static pod is named by the hash of its file.
    let hash = "0123456789abcdef0123456789abcdef";
    assert_eq!(pod_uid(&format!("0::/kubepods/burstable/pod{hash}/x")).as_deref(), Some(hash));
}

#[test]
fn what_is_no_pods_group_names_none() {
    for text in [
        "",
        "0::/",
        "0::/system.slice/sshd.service",
        "0::/user.slice/user-1000.slice/session-1.scope",
        "0::/kubepods/burstable",
        "0::/kubepods.slice/kubepods-burstable.slice",
        "0::/machine.slice/libpod-8dbc5577d0e24706878757d52c03ddf2.scope",
        "0::/kubepods/podshop",
        "0::/kubepods/pod8dbc5577-d0e2-4706-8787-57d52c03ddf2-more",
        "0::/kubepods/pod8DBC5577-D0E2-4706-8787-57D52C03DDF2",
        "0::/kubepods/pod8dbc5577-d0e2-4706-8787-57d52c03ddf2.scope",
        "nonsense",
    ] {
        assert_eq!(pod_uid(text), None, "{text}");
    }
}

#[test]
fn a_pod_cannot_pass_its_processes_off_as_another_pods() {
    let other = "11111111-2222-3333-4444-555555555555";
    let nested = format!("0::/kubepods/pod{UID}/1d2f/kubepods/pod{other}/x");
    assert_eq!(pod_uid(&nested).as_deref(), Some(UID), "the outermost counts");
    let torn = format!("2:cpu:/kubepods/pod{UID}/1\n1:pids:/kubepods/pod{other}/1");
    assert_eq!(pod_uid(&torn), None, "groups that disagree prove nothing");
}
