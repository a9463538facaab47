//! Which namespace is provably a pod's.

use std::os::unix::fs::symlink;

use super::*;

#[tokio::test]
async fn what_cannot_be_a_pods_namespace_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let sandboxes = Sandboxes::new(dir.path()).unwrap();
    let link = |uid: &str, target: &str| symlink(target, dir.path().join(uid)).unwrap();
    link("ours", "/proc/self/ns/net");
    link("mount", "/proc/self/ns/mnt");
    link("file", "/etc/hostname");
    link("dangling", "/nowhere");
    for (uid, want) in [
        ("ours", Reason::NetnsMismatch),
        ("mount", Reason::NetnsMismatch),
        ("file", Reason::NetnsMismatch),
        ("dangling", Reason::NotCaptured),
        ("absent", Reason::NotCaptured),
        ("../ours", Reason::NetnsMismatch),
        (".", Reason::NetnsMismatch),
        ("", Reason::NetnsMismatch),
    ] {
        let refused = sandboxes.claim(uid, &BTreeSet::new()).await.unwrap_err();
        assert_eq!(refused.reason(), want, "{uid}: {refused}");
        assert_eq!(refused.is_missing(), want == Reason::NotCaptured, "{uid}: {refused}");
    }
    assert_eq!(sandboxes.claimed(), 0);
}
