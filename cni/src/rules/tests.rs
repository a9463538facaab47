//! The rules of a pod as text, and their stamp.

use expect_test::{Expect, expect};

use super::*;

fn interfaces(names: &[&str]) -> Vec<InterfaceName> {
    names.iter().map(|n| InterfaceName::parse(n).unwrap()).collect()
}

#[track_caller]
fn check(rules: &Rules, want: &Expect) {
    want.assert_eq(&rules.text);
    assert!(rules.text.contains(&rules.comment()));
    assert_eq!(read_comment(&rules.comment()), Some((rules.stage, rules.stamp.as_str())));
}

#[test]
fn a_pod_is_captured_both_ways_in_both_families() {
    check(
        &capture(&Facts::default()),
        &expect![[r#"
            add table inet ambit
            delete table inet ambit
            table inet ambit {
            	comment "ambit capture 549a1f5737ee6a5b"

            	chain closed-port {
            		socket transparent { 0, 1 } return
            		counter reject with tcp reset
            	}

            	chain mangle-prerouting {
            		type filter hook prerouting priority -150; policy accept;
            		ip daddr != 127.0.0.0/8 tcp dport != 15008 tcp flags & (fin | syn | rst | ack) == syn meta mark & 0xfff != 0x539 fib daddr type local jump closed-port
            		ip6 daddr != ::1 tcp dport != 15008 tcp flags & (fin | syn | rst | ack) == syn meta mark & 0xfff != 0x539 fib daddr type local jump closed-port
            		meta mark & 0xfff == 0x539 counter ct mark set ct mark & 0xfffff000 | 0x111
            	}

            	chain mangle-output {
            		type route hook output priority -150; policy accept;
            		ct mark & 0xfff == 0x111 counter meta mark set ct mark
            	}

            	chain nat-prerouting {
            		type nat hook prerouting priority -100; policy accept;
            		ip daddr != 127.0.0.0/8 tcp dport != 15008 tcp flags & (fin | syn | rst | ack) == syn meta mark & 0xfff != 0x539 counter redirect to :15006
            		ip6 daddr != ::1 tcp dport != 15008 tcp flags & (fin | syn | rst | ack) == syn meta mark & 0xfff != 0x539 counter redirect to :15006
            	}

            	chain nat-output {
            		type nat hook output priority -100; policy accept;
            		meta l4proto tcp meta mark & 0xfff == 0x111 counter accept
            		oifname "lo" ip daddr != 127.0.0.0/8 counter accept
            		oifname "lo" ip6 daddr != ::1 counter accept
            		ip daddr != 127.0.0.0/8 tcp flags & (fin | syn | rst | ack) == syn meta mark & 0xfff != 0x539 counter redirect to :15001
            		ip6 daddr != ::1 tcp flags & (fin | syn | rst | ack) == syn meta mark & 0xfff != 0x539 counter redirect to :15001
            	}
            }
        "#]],
    );
}

#[test]
fn ingress_mode_leaves_inbound_alone_and_virtual_machines_count_as_outbound() {
    let facts = Facts { inbound: false, virtual_interfaces: interfaces(&["vm0", "eth0.12"]) };
    check(
        &capture(&facts),
        &expect![[r#"
        add table inet ambit
        delete table inet ambit
        table inet ambit {
        	comment "ambit capture c0a8ad39c761fbd7"

        	chain mangle-prerouting {
        		type filter hook prerouting priority -150; policy accept;
        		meta mark & 0xfff == 0x539 counter ct mark set ct mark & 0xfffff000 | 0x111
        	}

        	chain mangle-output {
        		type route hook output priority -150; policy accept;
        		ct mark & 0xfff == 0x111 counter meta mark set ct mark
        	}

        	chain nat-prerouting {
        		type nat hook prerouting priority -100; policy accept;
        		iifname "vm0" tcp flags & (fin | syn | rst | ack) == syn counter redirect to :15001
        		iifname "vm0" meta l4proto tcp counter return
        		iifname "eth0.12" tcp flags & (fin | syn | rst | ack) == syn counter redirect to :15001
        		iifname "eth0.12" meta l4proto tcp counter return
        	}

        	chain nat-output {
        		type nat hook output priority -100; policy accept;
        		meta l4proto tcp meta mark & 0xfff == 0x111 counter accept
        		oifname "lo" ip daddr != 127.0.0.0/8 counter accept
        		oifname "lo" ip6 daddr != ::1 counter accept
        		ip daddr != 127.0.0.0/8 tcp flags & (fin | syn | rst | ack) == syn meta mark & 0xfff != 0x539 counter redirect to :15001
        		ip6 daddr != ::1 tcp flags & (fin | syn | rst | ack) == syn meta mark & 0xfff != 0x539 counter redirect to :15001
        	}
        }
    "#]],
    );
}

#[test]
fn the_residue_redirects_nothing_but_keeps_translation_and_marks() {
    check(
        &residue(),
        &expect![[r#"
        add table inet ambit
        delete table inet ambit
        table inet ambit {
        	comment "ambit residue 83583098efd0d9bd"

        	chain mangle-prerouting {
        		type filter hook prerouting priority -150; policy accept;
        		meta mark & 0xfff == 0x539 counter ct mark set ct mark & 0xfffff000 | 0x111
        	}

        	chain mangle-output {
        		type route hook output priority -150; policy accept;
        		ct mark & 0xfff == 0x111 counter meta mark set ct mark
        	}

        	chain nat-prerouting {
        		type nat hook prerouting priority -100; policy accept;
        	}

        	chain nat-output {
        		type nat hook output priority -100; policy accept;
        	}
        }
    "#]],
    );
    assert!(!residue().text.contains("redirect"));
}

#[test]
fn the_stamp_follows_the_content() {
    let plain = capture(&Facts::default());
    assert_eq!(plain, capture(&Facts::default()));
    let ingress = capture(&Facts { inbound: false, ..Facts::default() });
    let machine = capture(&Facts { virtual_interfaces: interfaces(&["vm0"]), ..Facts::default() });
    let stamps = [&plain.stamp, &ingress.stamp, &machine.stamp, &residue().stamp];
    for (i, one) in stamps.iter().enumerate() {
        assert!(stamps.iter().skip(i + 1).all(|other| one != other), "{stamps:?}");
    }
}

#[test]
fn only_plain_interface_names_reach_a_rule() {
    for good in ["eth0", "a", "k6t-eth0", "br_1.2", "veth0@if3"] {
        assert!(InterfaceName::parse(good).is_some(), "{good}");
    }
    for bad in ["", ".", "..", "sixteen-letters-", "a b", "a\"b", "a;b", "a/b", "\u{e9}th0", "a\n"] {
        assert!(InterfaceName::parse(bad).is_none(), "{bad:?}");
    }
}

#[test]
fn foreign_comments_are_not_ours() {
    for text in ["", "ambit", "ambit capture", "ambitious capture 1", "istio capture 1", "ambit other 1"] {
        assert_eq!(read_comment(text), None, "{text:?}");
    }
}
