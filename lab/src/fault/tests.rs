//! Link faults as rules, and nonsense refused.

use super::*;

fn shape(loss: Option<f64>, rate: Option<&str>, mtu: Option<u32>) -> LinkChange {
    LinkChange::Shape { loss_percent: loss, rate: rate.map(str::to_owned), mtu_bytes: mtu }
}

#[test]
fn shaping_keeps_what_it_does_not_name() {
    let lossy = LinkFault::default().after(&shape(Some(1.5), None, None)).expect("in range");
    let slow = lossy.after(&shape(None, Some("10Mbit"), None)).expect("a rate");
    assert_eq!((slow.loss_basis_points, slow.rate.as_deref()), (150, Some("10mbit")));
    let cut = slow.after(&LinkChange::Cut).expect("always");
    assert!(cut.rules().contains("oifname \"eth0\" drop"));
    assert_eq!(cut.after(&LinkChange::Heal).expect("always"), LinkFault::default());
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
        assert_eq!(LinkFault::default().after(&bad).expect_err("nonsense").exit_code(), 64, "row {bad:?}");
    }
}
