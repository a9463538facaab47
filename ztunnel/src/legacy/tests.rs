//! Which lines of the kernel's tables are connections from before capture.

use super::*;

const HEADING: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid";

/// Lines as a little-endian machine prints them; what is told of them as direction, local and remote port.
#[cfg(target_endian = "little")]
#[test]
fn what_was_open_before_capture_is_told_with_its_direction() {
    let web = "0: 00000000:1F90 00000000:0000 0A x";
    let client = "1: 0A01F40A:D431 0B01F40A:0050 01 x";
    let served = "2: 0A01F40A:1F90 0B01F40A:D432 01 x";
    let closing = "3: 0A01F40A:D433 0B01F40A:0050 08 x";
    let loopback = "4: 0100007F:D434 0100007F:1F90 01 x";
    let [own, own_served] = ["5: 0A01F40A:D435 0A01F40A:1F90 01 x", "6: 0A01F40A:1F90 0A01F40A:D435 01 x"];
    let mapped = "0: 0000000000000000FFFF00000A01F40A:1F90 0000000000000000FFFF00000C01F40A:D436 01 x";
    let outbound = (Direction::Outbound, 0xD431, 80);
    let inbound = (Direction::Inbound, 8080, 0xD432);
    type Told = (Direction, u16, u16);
    let rows: [(&[&str], &[&str], &[Told]); 6] = [
        (&[], &[], &[]),
        (&[web, client, served], &[], &[outbound, inbound]),
        (&[web, closing, loopback, "garbage"], &[], &[]),
        (&[web, own, own_served, client], &[], &[outbound]),
        (&[web], &[mapped], &[(Direction::Inbound, 8080, 0xD436)]),
        // Nobody listens any more, so it looks like one that the pod opened.
        (&[served], &[], &[(Direction::Outbound, 8080, 0xD432)]),
    ];
    for (four, six, want) in rows {
        let told: Vec<Told> = found(&tables(four, six))
            .iter()
            .map(|f| (f.direction, f.local.port(), f.remote.port()))
            .collect();
        assert_eq!(told, want, "row {four:?} {six:?}");
    }
}

#[cfg(target_endian = "little")]
#[test]
fn where_a_proxy_was_nothing_is_told() {
    let client = "0: 0A01F40A:D431 0B01F40A:0050 01 x";
    let rows = [
        ("1: 00000000:3A99 00000000:0000 0A x", 0),
        ("1: 0A01F40A:3A99 0A01F40A:D431 01 x", 0),
        ("1: 0A01F40A:3A9E 0B01F40A:D440 08 x", 0),
        ("1: 00000000:3AA0 00000000:0000 0A x", 0),
        // What is over may be of any program that used the port once.
        ("1: 0A01F40A:3A99 0B01F40A:D440 06 x", 1),
    ];
    for (line, want) in rows {
        assert_eq!(found(&tables(&[client, line], &[])).len(), want, "row {line:?}");
    }
}

fn tables(four: &[&str], six: &[&str]) -> [String; 2] {
    [four, six].map(|lines| lines.iter().fold(format!("{HEADING}\n"), |text, line| text + line + "\n"))
}
