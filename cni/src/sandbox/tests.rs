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

#[tokio::test]
async fn a_namespace_that_the_runtime_gives_counts_until_it_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let sandboxes = Sandboxes::new(dir.path()).unwrap();
    assert!(matches!(
        sandboxes.give("u1", NetNs::current().unwrap(), BTreeSet::new(), "c1"),
        Err(SandboxError::Nodes { .. })
    ));
    // Needs the right to make one.
    let Ok(netns) = NetNs::create_anonymous() else { return };
    let mut gifts = sandboxes.gifts();
    let addresses = BTreeSet::from(["10.0.0.1".parse().unwrap()]);
    let id = sandboxes.give("u1", netns, addresses.clone(), "c1").unwrap();
    assert!(gifts.has_changed().unwrap());
    gifts.mark_unchanged();
    assert_eq!(sandboxes.given("u1"), Some((id, addresses.clone())));
    assert_eq!(sandboxes.open("u1").unwrap().id(), id);
    // The address is not inside.
    let refused = sandboxes.claim("u1", &addresses).await.unwrap_err();
    assert!(matches!(refused, SandboxError::Address { .. }), "{refused}");
    let claimed = sandboxes.claim("u1", &BTreeSet::new()).await.unwrap();
    sandboxes.confirm("u1", &claimed).unwrap();
    sandboxes.take_back("u1", "an earlier container");
    assert!(sandboxes.given("u1").is_some() && !gifts.has_changed().unwrap());
    sandboxes.take_back("u1", "c1");
    assert!(gifts.has_changed().unwrap());
    assert!(sandboxes.confirm("u1", &claimed).unwrap_err().is_missing());
}
