//! What may stand in the file, and what spoils it.

use super::*;

#[test]
fn what_is_written_is_read() {
    let all: BTreeSet<IpAddr> =
        ["10.244.1.1", "172.18.0.2", "fd00:10:244:1::1"].into_iter().map(|a| a.parse().unwrap()).collect();
    let text = write_node_addresses(&all);
    assert_eq!(text, "10.244.1.1\n172.18.0.2\nfd00:10:244:1::1\n");
    assert_eq!(read_node_addresses(&text), Ok(all));
    assert_eq!(read_node_addresses(""), Ok(BTreeSet::new()));
}

#[test]
fn one_wrong_line_spoils_all_of_it() {
    for wrong in ["10.244.1.0/24", "node1", "", " 10.244.1.1", "10.244.1.1,10.244.1.2"] {
        let found = read_node_addresses(&format!("10.0.0.1\n{wrong}\n"));
        assert_eq!(found, Err(NodeAddressesError::NoAddress { line: 2 }), "{wrong:?}");
    }
    for any in [
        "127.0.0.1",
        "::1",
        "0.0.0.0",
        "::",
        "0.1.2.3",
        "169.254.7.127",
        "fe80::1",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "::ffff:10.0.0.1",
    ] {
        let address = any.parse().unwrap();
        let found = read_node_addresses(&format!("{any}\n"));
        assert_eq!(found, Err(NodeAddressesError::NotOne { line: 1, address }), "{any}");
    }
}

#[test]
fn it_has_an_end() {
    let many =
        |count: usize| (0..count).map(|n| format!("10.1.{}.{}\n", n / 250, n % 250)).collect::<String>();
    assert_eq!(read_node_addresses(&many(NODE_ADDRESSES_MAX)).map(|all| all.len()), Ok(NODE_ADDRESSES_MAX));
    assert_eq!(read_node_addresses(&many(NODE_ADDRESSES_MAX + 1)), Err(NodeAddressesError::TooLong));
    let long = "x".repeat(NODE_ADDRESSES_BYTES_MAX + 1);
    assert_eq!(read_node_addresses(&long), Err(NodeAddressesError::TooLong));
}
