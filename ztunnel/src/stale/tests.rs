//! Which pairs a node that is stale for too long goes on letting in.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use ambit_state::Admission;

use super::*;

/// Where callers with an identity call from.
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// Seconds that the control plane has been away; 0: it is there.
#[derive(Debug, Default)]
struct Away(AtomicU64);

impl StaleFor for Away {
    fn stale_for(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|away| *away > 0)
    }
}

#[test]
fn past_the_bound_only_pairs_that_were_let_in_go_on() {
    let away = Arc::new(Away::default());
    let pairs = Pairs::new(Some(Duration::from_secs(60)), away.clone());
    // Seconds away, who calls whom, whether that is let in.
    let rows = [
        (0, "shop/cart", "web:80", true),
        (30, "shop/late", "web:80", true),
        (60, "shop/last", "web:80", true),
        (60, "10.0.0.9", "web:80", true),
        (61, "shop/cart", "web:80", true),
        (61, "shop/late", "web:80", true),
        (61, "shop/last", "web:80", true),
        (61, "10.0.0.9", "web:80", true),
        (61, "shop/cart", "web:81", false),
        (61, "shop/cart", "api:80", false),
        (61, "shop/new", "web:80", false),
        (61, "10.0.0.10", "web:80", false),
        // Refused once is not seen.
        (900, "shop/new", "web:80", false),
        (0, "shop/new", "web:80", true),
        (900, "shop/new", "web:80", true),
    ];
    for (seconds, caller, callee, want) in rows {
        away.0.store(seconds, Ordering::Relaxed);
        let (open, workload) = open(caller, callee);
        let admitted = pairs.admit(&open, &workload);
        assert_eq!(admitted.is_ok(), want, "row {seconds} {caller} {callee}: {admitted:?}");
        assert!(admitted.is_ok() || admitted.is_err_and(|never| never.reason() == Reason::StateTooOld));
    }
}

#[test]
fn without_a_bound_nobody_is_refused() {
    let away = Arc::new(Away(AtomicU64::new(1_000_000)));
    let (open, workload) = open("shop/cart", "web:80");
    assert_eq!(Pairs::new(None, away).admit(&open, &workload), Ok(()));
    assert_eq!(Pairs::default().admit(&open, &workload), Ok(()));
}

#[test]
fn a_client_counts_only_by_the_word_of_whom_is_believed() {
    let away = Arc::new(Away::default());
    let pairs = Pairs::new(Some(Duration::from_secs(1)), away.clone());
    let (mut through, workload) = open("shop/waypoint", "web:80");
    (through.client, through.believed) = (Some(identity("shop/cart")), true);
    assert_eq!(pairs.admit(&through, &workload), Ok(()));
    away.0.store(2, Ordering::Relaxed);
    assert_eq!(pairs.admit(&through, &workload), Ok(()));
    through.believed = false;
    assert!(pairs.admit(&through, &workload).is_err(), "the waypoint has not called for itself");
    (through.client, through.believed) = (Some(identity("shop/other")), true);
    assert!(pairs.admit(&through, &workload).is_err(), "not for this client");
}

#[test]
fn what_was_used_last_is_kept_within_the_bound() {
    let mut recent = Recent::new(8);
    recent.note(0_u32);
    for n in 1..1000 {
        recent.note(n);
        // Used again and again.
        recent.note(0);
        assert!(recent.contains(&0) && recent.younger.len() + recent.older.len() <= 8, "at {n}");
        assert!((n.saturating_sub(2)..=n).all(|last| recent.contains(&last)), "at {n}");
    }
    assert!(!recent.contains(&500));
}

/// A connection of `NAMESPACE/ACCOUNT` or of an address to `WORKLOAD:PORT` of the account `bank/default`.
fn open(caller: &str, callee: &str) -> (Open, Str) {
    let (workload, port) = callee.split_once(':').unwrap();
    let peer = caller.contains('/').then(|| identity(caller));
    let source = caller.parse().unwrap_or(SOURCE);
    let destination = SocketAddr::from(([10, 0, 0, 2], port.parse().unwrap()));
    let open = Open {
        id: 1,
        workload: "Kubernetes//Pod/bank/one".into(),
        own: identity("bank/default"),
        peer,
        client: None,
        believed: false,
        source,
        destination,
        admission: Admission::Policy,
    };
    (open, Str::from(workload))
}

fn identity(account: &str) -> Identity {
    let (namespace, account) = account.split_once('/').unwrap();
    Identity::new(ambit_types::TrustDomain::default(), namespace, account)
}
