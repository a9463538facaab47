//! What needs no peer; handshakes over real sockets and hostile certificates are tested in the workspace's tests.

use std::time::Duration;

use ambit_runtime::clock;
use ambit_types::TrustDomain;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::time_provider::TimeProvider as _;

use super::Wall;
use super::bundles::{Bundles, Learned};
use super::{install_as_default, provider};

#[test]
fn peers_are_judged_by_the_clock_of_the_program() {
    let seconds = || Wall.current_time().expect("there is a clock").as_secs();
    let before = seconds();
    clock::set_test_offset(7200);
    let shifted = seconds() - before;
    clock::set_test_offset(0);
    assert!((7200..7260).contains(&shifted), "{shifted}");
}

#[test]
fn calls_to_the_control_plane_use_the_algorithms_of_tunnels() {
    install_as_default();
    install_as_default();
    let default = CryptoProvider::get_default().expect("it is installed");
    let names = |provider: &CryptoProvider| -> Vec<_> {
        provider.kx_groups.iter().map(|group| group.name()).collect()
    };
    assert_eq!(names(default), names(&provider()));
    assert_eq!(default.cipher_suites, provider().cipher_suites);
}

#[test]
fn each_trust_domain_has_its_newest_bundle() {
    let [one, other] = ["one.example", "other.example"].map(|name| TrustDomain::parse(name).expect("a name"));
    let [old, new] = [1_u8, 2].map(|byte| vec![CertificateDer::from(vec![byte])]);
    let mut bundles = Bundles::default();
    assert!(bundles.may_ask(&one, clock::monotonic()));
    assert_eq!(bundles.in_force(&one), None, "who has asked has no answer yet");
    let learned = [&old, &old, &new].map(|roots| {
        let request = bundles.begin();
        bundles.learn(&one, roots, request)
    });
    // The first one is new: certificates of an earlier process may have another.
    assert_eq!(learned, [Learned::New, Learned::Same, Learned::New]);
    assert_eq!(bundles.in_force(&one), Some(new.as_slice()));
    assert_eq!(bundles.in_force(&other), None);
}

#[test]
fn an_answer_that_was_overtaken_does_not_bring_an_old_bundle_back() {
    let [one, other] = ["one.example", "other.example"].map(|name| TrustDomain::parse(name).expect("a name"));
    let [old, new, third] = [1_u8, 2, 3].map(|byte| vec![CertificateDer::from(vec![byte])]);
    let mut bundles = Bundles::default();
    let [first, second, third_request] = [(); 3].map(|()| bundles.begin());
    assert_eq!(bundles.learn(&one, &new, second), Learned::New);
    assert_eq!(bundles.learn(&one, &old, first), Learned::Overtaken);
    assert_eq!(bundles.in_force(&one), Some(new.as_slice()));
    assert_eq!(bundles.learn(&other, &old, first), Learned::New, "each trust domain by itself");
    // The same bundle, asked for later, counts from then on.
    let late = bundles.begin();
    assert_eq!(bundles.learn(&one, &new, late), Learned::Same);
    assert_eq!(bundles.learn(&one, &third, third_request), Learned::Overtaken);
    // A bundle may go back, too: whoever asks last knows.
    let last = bundles.begin();
    assert_eq!(bundles.learn(&one, &old, last), Learned::New);
}

#[test]
fn a_newer_bundle_is_asked_for_once_in_half_a_minute_for_each_trust_domain() {
    let [one, other] = ["one.example", "other.example"].map(|name| TrustDomain::parse(name).expect("a name"));
    let begun = clock::monotonic();
    let mut bundles = Bundles::default();
    let rows = [
        (&one, 0, true),
        (&one, 0, false),
        (&one, 29, false),
        (&other, 29, true),
        (&one, 30, true),
        (&one, 59, false),
    ];
    for (domain, seconds, due) in rows {
        assert_eq!(
            bundles.may_ask(domain, begun + Duration::from_secs(seconds)),
            due,
            "{domain} at {seconds}"
        );
    }
}
