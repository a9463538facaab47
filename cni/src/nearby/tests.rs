//! Which of a node's addresses are told, and that the file says so.

use std::os::unix::fs::PermissionsExt as _;

use ambit_types::nearby::read_node_addresses;

use super::*;

fn found(all: &[&str]) -> Found {
    of_node(all.iter().map(|text| text.parse().unwrap()))
}

#[test]
fn an_address_that_could_be_any_nodes_is_not_told() {
    let told = found(&[
        "127.0.0.1",
        "::1",
        "172.18.0.2",
        "169.254.20.10",
        "fe80::42:acff:fe12:2",
        "10.244.1.1",
        "10.244.1.1",
        "fd00:10:244:1::1",
    ]);
    let want = ["172.18.0.2", "10.244.1.1", "fd00:10:244:1::1"];
    let want: BTreeSet<IpAddr> = want.into_iter().map(|text| text.parse().unwrap()).collect();
    assert_eq!(told, Found { addresses: want, omitted: 0 });
}

#[test]
fn there_are_only_so_many_and_the_first_ones_stay() {
    let many: Vec<IpAddr> =
        (0..300_u32).rev().map(|n| IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + n))).collect();
    let told = of_node(many.iter().copied());
    assert_eq!((told.addresses.len(), told.omitted), (NODE_ADDRESSES_MAX, 300 - NODE_ADDRESSES_MAX));
    assert!(told.addresses.contains(&many[0]));
    assert_eq!(read_node_addresses(&write_node_addresses(&told.addresses)), Ok(told.addresses));
}

#[test]
fn the_file_is_replaced_as_a_whole_and_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = file_beside(&dir.path().join("ztunnel.sock"));
    fs::write(file.with_extension("new"), "left over").unwrap();
    for text in ["10.0.0.1\n10.0.0.2\n", "10.0.0.3\n"] {
        replace(&file, text).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn what_was_taken_away_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = file_beside(&dir.path().join("ztunnel.sock"));
    let mut keeper = Keeper { file: file.clone(), written: None, said: None };
    keeper.look();
    assert!(read_node_addresses(&fs::read_to_string(&file).unwrap()).is_ok());
    fs::remove_file(&file).unwrap();
    keeper.look();
    assert!(file.exists());
}
