//! The certificate store against a CA that is slow, broken or gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ambit_net::tls::remaining::Remaining;
use ambit_net::tls::store::{Ca, CertificateError, CertificateStore, Signing};
use ambit_runtime::clock;
use ambit_runtime::metrics::Source as _;
use ambit_tests::certs::{TestCa, now};
use ambit_tests::fakes;
use ambit_types::{Identity, Reason};
use tokio::sync::watch;

/// A CA whose mood can be changed.
struct Moody {
    ca: TestCa,
    /// Seconds its certificates last.
    lifetime: i64,
    broken: AtomicBool,
    /// While false it does not answer.
    answers: watch::Sender<bool>,
    asked: AtomicUsize,
}

impl Moody {
    fn new(lifetime: i64) -> Arc<Self> {
        Arc::new(Self {
            ca: TestCa::new(),
            lifetime,
            broken: AtomicBool::new(false),
            answers: watch::Sender::new(true),
            asked: AtomicUsize::new(0),
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Ca for Moody {
    fn sign<'a>(&'a self, identity: &'a Identity, csr_pem: &'a str) -> Signing<'a> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let mut answers = self.answers.subscribe();
            answers.wait_for(|yes| *yes).await.map_err(|e| e.to_string())?;
            if self.broken.load(Ordering::SeqCst) {
                return Err("the disk is full".to_owned());
            }
            Ok(self.ca.answer(identity, csr_pem, now() + self.lifetime))
        })
    }
}

fn store(ca: &Arc<Moody>) -> CertificateStore {
    CertificateStore::new(ca.clone(), Arc::new(|| 1000))
}

fn identity(account: &str) -> Identity {
    Identity::parse(&format!("spiffe://cluster.local/ns/shop/sa/{account}")).expect("an identity")
}

/// Waits until something holds; the store tells nobody of its attempts, so this looks again and again.
async fn until(what: &str, limit: Duration, holds: impl Fn() -> bool) {
    let begun = clock::monotonic();
    while !holds() {
        assert!(clock::monotonic().saturating_duration_since(begun) < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn callers_at_once_share_one_fetch() {
    let ca = Moody::new(3600);
    ca.answers.send_replace(false);
    let store = store(&ca);
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let store = store.clone();
            fakes::start(async move { store.get(&identity("cart")).await })
        })
        .collect();
    until("the CA is asked", Duration::from_secs(2), || ca.asked() > 0).await;
    ca.answers.send_replace(true);
    for caller in callers {
        let credential = caller.await.expect("no panic").expect("a certificate");
        assert_eq!(*credential.identity(), identity("cart"));
    }
    assert_eq!(ca.asked(), 1);
}

/// G30: after a failure the next caller makes the store ask again, long before its own next attempt.
#[tokio::test]
async fn a_caller_after_a_failure_is_not_put_off() {
    let ca = Moody::new(3600);
    ca.broken.store(true, Ordering::SeqCst);
    let store = store(&ca);
    // Failures in a row push the store's own next attempt far away.
    for _ in 0..5 {
        let error = store.get(&identity("cart")).await.unwrap_err();
        assert_eq!(error.reason(), Reason::NoCertificate);
        assert!(error.to_string().contains("the disk is full"), "{error}");
        tokio::time::sleep(Duration::from_millis(550)).await;
    }
    let failed = ca.asked();
    assert!((5..=12).contains(&failed), "{failed} attempts");
    ca.broken.store(false, Ordering::SeqCst);
    let begun = clock::monotonic();
    store.get(&identity("cart")).await.expect("the CA is well again");
    let took = clock::monotonic().saturating_duration_since(begun);
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn a_fresh_failure_is_not_asked_for_again() {
    let ca = Moody::new(3600);
    ca.broken.store(true, Ordering::SeqCst);
    let store = store(&ca);
    for _ in 0..100 {
        let error = store.get(&identity("cart")).await.unwrap_err();
        assert!(matches!(error, CertificateError::Unavailable { .. }), "{error:?}");
    }
    assert!(ca.asked() <= 3, "{} attempts for 100 callers", ca.asked());
}

/// G31: a CA that does not answer costs a caller a bounded time, and others with certificates nothing.
#[tokio::test]
async fn a_silent_ca_costs_a_bounded_time() {
    let ca = Moody::new(3600);
    let store = store(&ca);
    store.get(&identity("known")).await.expect("a certificate");
    ca.answers.send_replace(false);
    let begun = clock::monotonic();
    let waiting = {
        let store = store.clone();
        fakes::start(async move { store.get(&identity("new")).await.map(|_| ()) })
    };
    store.get(&identity("known")).await.expect("it has one");
    assert!(clock::monotonic().saturating_duration_since(begun) < Duration::from_millis(500));
    let error = waiting.await.expect("no panic").unwrap_err();
    let took = clock::monotonic().saturating_duration_since(begun);
    assert!(matches!(error, CertificateError::Unavailable { .. }), "{error:?}");
    assert!(took >= Duration::from_secs(4) && took < Duration::from_secs(9), "{took:?}");
    assert_eq!(ca.asked(), 2);
}

#[tokio::test]
async fn a_certificate_is_renewed_at_half_its_life() {
    let ca = Moody::new(4);
    let store = store(&ca);
    let first = store.get(&identity("cart")).await.expect("a certificate");
    let begun = clock::monotonic();
    until("a second one", Duration::from_secs(4), || ca.asked() == 2).await;
    let waited = clock::monotonic().saturating_duration_since(begun);
    assert!(waited > Duration::from_millis(900) && waited < Duration::from_millis(3500), "{waited:?}");
    let newer = || {
        store.list().iter().any(|k| k.credential.as_ref().is_some_and(|c| c.not_after() > first.not_after()))
    };
    until("it is in use", Duration::from_secs(1), newer).await;
    let second = store.get(&identity("cart")).await.expect("a certificate");
    assert!(second.not_after() > first.not_after());
    assert_ne!(second.chain()[0], first.chain()[0]);
}

#[tokio::test]
async fn a_failed_renewal_keeps_the_old_certificate_until_it_runs_out() {
    let ca = Moody::new(4);
    let store = store(&ca);
    let first = store.get(&identity("cart")).await.expect("a certificate");
    ca.broken.store(true, Ordering::SeqCst);
    until("a renewal fails", Duration::from_secs(4), || {
        store.list().iter().any(|known| known.error.as_deref() == Some("the disk is full"))
    })
    .await;
    let kept = store.get(&identity("cart")).await.expect("the old one is still good");
    assert_eq!(kept.chain()[0], first.chain()[0]);
    let end = first.not_after();
    until("it runs out", Duration::from_secs(5), || clock::unix_seconds() > end).await;
    let error = store.get(&identity("cart")).await.unwrap_err();
    assert_eq!(error.reason(), Reason::CertificateOutsideValidity, "{error}");
    ca.broken.store(false, Ordering::SeqCst);
    until("another one comes", Duration::from_secs(6), || {
        store.list().iter().any(|known| known.credential.as_ref().is_some_and(|c| c.not_after() > end))
    })
    .await;
}

#[tokio::test]
async fn an_identity_that_is_forgotten_is_not_asked_for_again() {
    let ca = Moody::new(2);
    let store = store(&ca);
    store.get(&identity("cart")).await.expect("a certificate");
    store.forget(&identity("cart"));
    assert!(store.list().is_empty());
    let asked = ca.asked();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(ca.asked(), asked);
}

/// A CA that answers with somebody else's certificate is not believed.
#[tokio::test]
async fn a_certificate_for_somebody_else_is_refused() {
    struct Wrong(TestCa);
    impl Ca for Wrong {
        fn sign<'a>(&'a self, _: &'a Identity, csr_pem: &'a str) -> Signing<'a> {
            Box::pin(async move { Ok(self.0.answer(&identity("pay"), csr_pem, now() + 3600)) })
        }
    }
    let store = CertificateStore::new(Arc::new(Wrong(TestCa::new())), Arc::new(|| 1000));
    let error = store.get(&identity("cart")).await.unwrap_err();
    assert!(error.to_string().contains("/sa/pay"), "{error}");
}

/// What a forgotten identity had goes at once: the task, the private key, and the request that is under way.
#[tokio::test]
async fn a_forgotten_identity_leaves_nothing_behind() {
    let ca = Moody::new(3600);
    let store = store(&ca);
    let before = Arc::strong_count(&ca);
    let credential = Arc::downgrade(&store.get(&identity("cart")).await.expect("a certificate"));
    store.forget(&identity("cart"));
    until("its key is gone", Duration::from_secs(2), || credential.upgrade().is_none()).await;
    ca.answers.send_replace(false);
    store.prefetch(&identity("pay"));
    until("the CA is asked", Duration::from_secs(2), || ca.asked() == 2).await;
    store.forget(&identity("pay"));
    until("nobody works for them", Duration::from_secs(2), || Arc::strong_count(&ca) == before).await;
}

#[tokio::test]
async fn who_waits_for_an_identity_that_is_forgotten_is_told() {
    let ca = Moody::new(3600);
    ca.answers.send_replace(false);
    let store = store(&ca);
    let waiting = {
        let store = store.clone();
        fakes::start(async move { store.get(&identity("cart")).await.map(|_| ()) })
    };
    until("the CA is asked", Duration::from_secs(2), || ca.asked() == 1).await;
    let begun = clock::monotonic();
    store.forget(&identity("cart"));
    let error = waiting.await.expect("no panic").unwrap_err();
    let took = clock::monotonic().saturating_duration_since(begun);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(error.to_string().contains("no workload of this node"), "{error}");
    ca.answers.send_replace(true);
    store.get(&identity("cart")).await.expect("it can come back");
}

#[tokio::test]
async fn a_renewed_certificate_takes_its_old_key_with_it() {
    let ca = Moody::new(4);
    let store = store(&ca);
    let first = Arc::downgrade(&store.get(&identity("cart")).await.expect("a certificate"));
    until("the old key is gone", Duration::from_secs(5), || first.upgrade().is_none()).await;
    store.get(&identity("cart")).await.expect("the new one");
}

/// Asked for now and then it stays; a pod's own stays in any case; what nobody wants goes, also while the CA is away.
#[tokio::test]
async fn an_identity_nobody_wants_is_given_up() {
    let bound = Duration::from_millis(500);
    let ca = Moody::new(3600);
    let store = store(&ca).unwanted_after(bound);
    let held = || {
        let name = |k: ambit_net::tls::store::Known| k.identity.service_account().to_string();
        store.list().into_iter().map(name).collect::<Vec<_>>()
    };
    store.prefetch(&identity("own"));
    let once = Arc::downgrade(&store.get(&identity("once")).await.expect("a certificate"));
    let begun = clock::monotonic();
    while clock::monotonic().saturating_duration_since(begun) < 4 * bound {
        store.get(&identity("often")).await.expect("a certificate");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(held(), ["often", "own"]);
    assert!(once.upgrade().is_none(), "its key is still there");
    assert_eq!(ca.asked(), 3);
    ca.broken.store(true, Ordering::SeqCst);
    store.get(&identity("none")).await.expect_err("the CA is broken");
    until("only the pod's own is left", 6 * bound, || held() == ["own"]).await;
    store.get(&identity("own")).await.expect("a certificate");
    store.prefetch(&identity("often"));
    until("it is asked for again", Duration::from_secs(2), || ca.asked() >= 5).await;
}

/// What the control plane is told when it asks: no key, and of an identity without a certificate why.
#[tokio::test]
async fn leaves_are_told_of_all_or_of_the_one_that_is_named() {
    let ca = Moody::new(3600);
    let store = store(&ca);
    let credential = store.get(&identity("cart")).await.expect("a certificate");
    ca.broken.store(true, Ordering::SeqCst);
    store.get(&identity("web")).await.expect_err("the CA is broken");
    let all = store.leaves(None);
    let [cart, web] = &all[..] else { panic!("{all:?}") };
    assert_eq!(
        (cart.identity.clone(), cart.not_after),
        (identity("cart").to_string(), Some(credential.not_after()))
    );
    assert!(
        cart.serial.as_ref().is_some_and(|serial| !serial.is_empty()) && cart.error.is_none(),
        "{cart:?}"
    );
    assert_eq!((web.not_after, web.serial.as_deref()), (None, None));
    assert!(web.error.as_ref().is_some_and(|why| why.contains("the disk is full")), "{web:?}");
    assert_eq!(store.leaves(Some(&identity("web").to_string())), std::slice::from_ref(web));
    assert_eq!(store.leaves(Some("spiffe://cluster.local/ns/shop/sa/nobody")), []);
    let mut text = String::new();
    Remaining::of(&store).write(&mut text);
    assert!(text.contains("\nambit_certificates_received_total 1\n"), "{text}");
}
