//! Which open sockets are the proxy's, told from ports and addresses.

use super::*;

/// Lines as a little-endian machine prints them.
#[rustfmt::skip]
const ROWS: &[(&str, bool)] = &[
    // local, remote, state
    ("0: 0100007F:3A99 0100007F:D431 01 x", true),   // redirected outbound, established
    ("0: 0A01F40A:3A9E 0B01F40A:D431 01 x", true),   // redirected inbound
    ("0: 0A01F40A:3AA0 0B01F40A:D431 08 x", true),   // HBONE in CLOSE_WAIT
    ("0: 0A01F40A:3AA0 0B01F40A:D431 06 x", false),  // TIME_WAIT
    ("0: 00000000:3A99 00000000:0000 0A x", false),  // the listener
    ("0: 0B01F40A:D431 0A01F40A:1F90 01 x", true),   // opened with a client's address
    ("0: 0A01F40A:1F90 0B01F40A:D431 01 x", false),  // the application's own
    ("0: 0100007F:1F90 0100007F:D431 01 x", false),  // loopback
    ("0: 0200007F:1F90 0100007F:D431 01 x", false),  // another loopback address
    ("0: 000000000000000000000000010000000:3A99 x 01", false), // too long
    ("0: 00000000000000000000000001000000:3A99 00000000000000000000000001000000:D431 01 x", true),
    ("0: 0000000000000000FFFF00000A01F40A:1F90 0000000000000000FFFF00000B01F40A:D431 01 x", false),
    ("0: 0000000000000000FFFF00000B01F40A:1F90 0000000000000000FFFF00000A01F40A:D431 02 x", true),
    ("0: 000000FD4402100000000000000A0000:1F90 x 01 x", true), // not the pod's
    ("garbage", false),
    ("", false),
];

#[cfg(target_endian = "little")]
#[test]
fn what_the_proxy_carries_is_told_from_ports_and_borrowed_addresses() {
    let own = BTreeSet::from([IpAddr::from([10, 244, 1, 10]), IpAddr::from([127, 0, 0, 1])]);
    for (line, want) in ROWS {
        let carried = Line::parse(line).is_some_and(|line| is_carried(&line, &own));
        assert_eq!(carried, *want, "{line}");
    }
    let table = ROWS.iter().fold("  sl  local_address\n".to_owned(), |text, (line, _)| text + line + "\n");
    assert_eq!(count(&table, &own), ROWS.iter().filter(|(_, want)| *want).count());
}

#[test]
fn a_proxy_is_there_where_all_its_ports_are_listened_at() {
    let table = |lines: &[&str]| lines.iter().fold("  sl  local_address\n".to_owned(), |t, l| t + l + "\n");
    let v6 = "0: 00000000000000000000000000000000:3A99 00000000000000000000000000000000:0000 0A x";
    let inbound = "1: 00000000:3A9E 00000000:0000 0A x";
    let hbone = "2: 00000000:3AA0 00000000:0000 0A x";
    // A connection at a port is no listener.
    let connection = "3: 0A01F40A:3AA0 0B01F40A:D431 01 x";
    let rows: [(&[&str], &[&str], &[u16]); 4] = [
        (&[], &[], &[OUTBOUND_PORT, INBOUND_PORT, HBONE_PORT]),
        (&[inbound, hbone], &[v6], &[]),
        (&[inbound, connection], &[v6], &[HBONE_PORT]),
        (&["garbage", inbound, hbone], &[""], &[OUTBOUND_PORT]),
    ];
    for (four, six, want) in rows {
        assert_eq!(missing(&[table(four), table(six)]), want, "row {four:?} {six:?}");
    }
}
