//! Link faults as rules, and nonsense refused.

use super::*;

fn shape(loss: Option<f64>, rate: Option<&str>, mtu: Option<u32>) -> LinkChange {
    LinkChange::Shape { loss_percent: loss, rate: rate.map(str::to_owned), mtu_bytes: mtu }
}

#[test]
fn shaping_keeps_what_it_does_not_name() {
    let lossy = LinkFault::default().after(&shape(Some(1.5), None, None), Families::Dual).expect("in range");
    let slow = lossy.after(&shape(None, Some("10Mbit"), None), Families::Dual).expect("a rate");
    assert_eq!((slow.loss_basis_points, slow.rate.as_deref()), (150, Some("10mbit")));
    let cut = slow.after(&LinkChange::Cut, Families::Dual).expect("always");
    assert!(cut.rules().contains("oifname \"eth0\" drop"));
    assert_eq!(cut.after(&LinkChange::Heal, Families::Dual).expect("always"), LinkFault::default());
}

#[test]
fn a_healthy_link_has_no_rules() {
    assert!(!LinkFault::default().rules().contains("chain"));
    assert!(
        LinkFault { loss_basis_points: 150, ..LinkFault::default() }.rules().contains("mod 10000 < 150 drop")
    );
}

#[test]
fn nonsense_is_refused() {
    for bad in [
        shape(Some(-1.0), None, None),
        shape(Some(100.1), None, None),
        shape(Some(f64::NAN), None, None),
        shape(None, Some("fast"), None),
        shape(None, Some("10"), None),
        shape(None, Some("10 mbit; rm"), None),
        shape(None, None, Some(10)),
    ] {
        assert_eq!(
            LinkFault::default().after(&bad, Families::Dual).expect_err("nonsense").exit_code(),
            64,
            "row {bad:?}"
        );
    }
}

#[test]
fn a_link_of_ipv6_keeps_what_ipv6_needs() {
    let narrow = shape(None, None, Some(600));
    let fault = LinkFault::default();
    let refused = fault.after(&narrow, Families::Dual).expect_err("IPv6 would be gone").to_string();
    assert!(refused.contains("1280") && refused.contains("ip_families=ipv4"), "{refused}");
    assert_eq!(fault.after(&narrow, Families::Ipv4).expect("enough").mtu_bytes, Some(600));
}
