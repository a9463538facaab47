//! Whose word counts, and when it is looked at again.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

struct Folder {
    dir: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join(NODE_ADDRESSES_FILE)
    }

    fn write(&self, text: &str, mode: u32) {
        fs::write(self.file(), text).unwrap();
        fs::set_permissions(self.file(), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Whether a proxy that starts now believes that the node has 10.244.1.1.
    fn believed(&self) -> bool {
        NodeAddresses::beside(&self.dir.path().join("ztunnel.sock")).contains(ip("10.244.1.1"))
    }
}

#[test]
fn what_the_agent_wrote_counts() {
    let folder = Folder::new();
    assert!(!folder.believed(), "there is no file");
    folder.write("10.244.1.1\nfd00::1\n", 0o600);
    assert!(folder.believed());
    let addresses = NodeAddresses::beside(&folder.dir.path().join("ztunnel.sock"));
    for (address, want) in
        [("10.244.1.1", true), ("::ffff:10.244.1.1", true), ("fd00::1", true), ("10.244.1.2", false)]
    {
        assert_eq!(addresses.contains(ip(address)), want, "{address}");
    }
}

#[test]
fn what_others_could_have_written_does_not_count() {
    let folder = Folder::new();
    for mode in [0o620, 0o602, 0o666] {
        folder.write("10.244.1.1\n", mode);
        assert!(!folder.believed(), "{mode:o}");
    }
    for text in ["10.244.1.1\n10.244.0.0/16\n", "10.244.1.1\n0.0.0.0\n", "10.244.1.1\n127.0.0.1\n"] {
        folder.write(text, 0o600);
        assert!(!folder.believed(), "{text:?}");
    }
    fs::remove_file(folder.file()).unwrap();
    fs::write(folder.dir.path().join("elsewhere"), "10.244.1.1\n").unwrap();
    symlink("elsewhere", folder.file()).unwrap();
    assert!(!folder.believed(), "a link");
}

#[test]
fn an_address_that_the_node_lost_opens_nothing() {
    let mut known = Known::default();
    known.take(Ok(BTreeSet::from([ip("10.244.1.1")])));
    known.take(Ok(BTreeSet::from([ip("10.244.1.2")])));
    assert_eq!(known.addresses, BTreeSet::from([ip("10.244.1.2")]));
    known.take(Err(Refused::NoText));
    assert!(known.addresses.is_empty() && known.said.is_some());
    known.take(Err(io::Error::from(io::ErrorKind::NotFound).into()));
    assert!(known.addresses.is_empty() && known.said.is_none());
}
