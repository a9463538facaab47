//! Trust bundles: what of them is usable, and how fast a node learns of a new one.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ambit_net::tls::credential::PemChain;
use ambit_net::tls::store::{Ca, CertificateStore, Signing};
use ambit_net::tls::{Credential, TlsError, client, server};
use ambit_runtime::clock;
use ambit_tests::certs::{TestCa, now, pem};
use ambit_types::Identity;
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

const BOUND: Duration = Duration::from_secs(3);

/// A CA whose bundle can be changed.
struct Rotating {
    ca: TestCa,
    roots: Mutex<String>,
    asked: AtomicUsize,
    /// Answers that may leave; each takes the roots of the moment at which it was asked for.
    leave: Semaphore,
    /// Whose answers wait for that.
    slow: Option<&'static str>,
}

impl Rotating {
    fn new() -> Arc<Self> {
        Self::slow_for(None)
    }

    fn slow_for(slow: Option<&'static str>) -> Arc<Self> {
        let ca = TestCa::new();
        let roots = Mutex::new(pem(&ca.root.der));
        Arc::new(Self { ca, roots, asked: AtomicUsize::new(0), leave: Semaphore::new(0), slow })
    }

    /// From now on its answers carry another root as well.
    fn add(&self, more: &TestCa) {
        let mut roots = self.roots.lock().unwrap_or_else(PoisonError::into_inner);
        roots.push_str(&pem(&more.root.der));
    }

    /// A stranger's credential of another CA; it trusts ours as well, so that only we can refuse.
    fn stranger_of(&self, other: &TestCa) -> Credential {
        let roots = [&self.ca, other].map(|ca| CertificateDer::from(ca.root.der.clone()));
        other.credential(&identity("stranger")).trusting(Vec::from(roots)).expect("two good roots")
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Ca for Rotating {
    fn sign<'a>(&'a self, identity: &'a Identity, csr_pem: &'a str) -> Signing<'a> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let roots = self.roots.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if self.slow.is_some_and(|account| &**identity.service_account() == account) {
                self.leave.acquire().await.map_err(|e| e.to_string())?.forget();
            }
            Ok(PemChain { roots, ..self.ca.answer(identity, csr_pem, now() + 3600) })
        })
    }
}

fn store(ca: &Arc<Rotating>) -> CertificateStore {
    CertificateStore::new(ca.clone(), Arc::new(|| 1000))
}

fn identity(account: &str) -> Identity {
    Identity::parse(&format!("spiffe://cluster.local/ns/shop/sa/{account}")).expect("an identity")
}

/// Waits until something holds; the store tells nobody of its attempts, so this looks again and again.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = clock::monotonic();
    while !holds() {
        assert!(clock::monotonic().saturating_duration_since(begun) < BOUND, "not within {BOUND:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How a peer with `theirs` fares that knocks at `ours`, and whether it takes us.
async fn knock(ours: &Credential, theirs: &Credential) -> (Result<(), TlsError>, Result<(), TlsError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address: SocketAddr = listener.local_addr().expect("bound");
    let reach = async {
        let tcp = TcpStream::connect(address).await.expect("loopback");
        client::connect(theirs, &[ours.identity().clone()], tcp, address, BOUND).await.map(|_| ())
    };
    let take = async {
        let (tcp, peer) = listener.accept().await.expect("loopback");
        server::accept(ours, tcp, peer, BOUND).await.map(|_| ())
    };
    let (reached, taken) = tokio::join!(reach, take);
    (taken, reached)
}

#[tokio::test]
async fn a_root_that_is_no_certificate_is_left_out_of_its_bundle() {
    // One bad anchor must not keep an identity without a certificate.
    let (good, junk) = (pem(&TestCa::new().root.der), pem(b"no certificate"));
    for (name, roots, want) in [
        ("good", good.clone(), Some(1)),
        ("junk behind it", format!("{good}{junk}"), Some(1)),
        ("junk before it", format!("{junk}{good}"), Some(1)),
        ("nothing but junk", junk.clone(), None),
        ("nothing", String::new(), None),
    ] {
        let ca = Rotating::new();
        *ca.roots.lock().unwrap_or_else(PoisonError::into_inner) = roots;
        let found = store(&ca).get(&identity("cart")).await;
        let roots = found.as_ref().ok().map(|credential| credential.roots().len());
        assert_eq!(roots, want, "{name}: {found:?}");
    }
}

#[tokio::test]
async fn a_new_bundle_holds_for_every_identity_of_its_trust_domain() {
    // G19: upstream learns of a new root at each identity's own renewal, up to twelve hours later.
    let ca = Rotating::new();
    let store = store(&ca);
    let before = store.get(&identity("cart")).await.expect("a certificate");
    let newcomer = TestCa::new();
    ca.add(&newcomer);
    store.get(&identity("pay")).await.expect("a certificate");
    assert_eq!(ca.asked(), 2, "the first identity is not due yet");
    let after = store.get(&identity("cart")).await.expect("a certificate");
    assert_eq!(after.roots().len(), 2);
    assert_eq!(after.chain(), before.chain(), "its own certificate stays");
    let (taken, _) = knock(&after, &ca.stranger_of(&newcomer)).await;
    taken.expect("a peer of the new root is taken");
}

#[tokio::test]
async fn a_peer_of_an_unknown_root_makes_the_store_ask_for_the_bundle_and_not_more_often_than_it_may() {
    for by_us in [false, true] {
        let ca = Rotating::new();
        let store = store(&ca);
        let ours = store.get(&identity("cart")).await.expect("a certificate");
        let newcomer = TestCa::new();
        let theirs = ca.stranger_of(&newcomer);
        for _ in 0..10 {
            let (at_server, at_client) =
                if by_us { knock(&theirs, &ours).await } else { knock(&ours, &theirs).await };
            let ours = if by_us { at_client } else { at_server };
            ours.expect_err("the root is not known");
        }
        until("it asks again", || ca.asked() == 2).await;
        for _ in 0..10 {
            let ours = store.get(&identity("cart")).await.expect("a certificate");
            let (taken, _) = knock(&ours, &theirs).await;
            taken.expect_err("the root is still not known");
        }
        // Whatever was to be asked is asked by now: another identity's certificate came after it.
        store.get(&identity("pay")).await.expect("a certificate");
        assert_eq!(ca.asked(), 3, "strangers do not make us a burden to the CA; by us: {by_us}");
    }
}

#[tokio::test]
async fn a_peer_of_a_new_root_is_taken_soon_after_it_was_refused() {
    let ca = Rotating::new();
    let store = store(&ca);
    let ours = store.get(&identity("cart")).await.expect("a certificate");
    let newcomer = TestCa::new();
    ca.add(&newcomer);
    let theirs = ca.stranger_of(&newcomer);
    let (refused, _) = knock(&ours, &theirs).await;
    refused.expect_err("the root is not known yet");
    let bundle = || {
        let known = store.list();
        known.iter().any(|known| known.credential.as_ref().is_some_and(|c| c.roots().len() == 2))
    };
    until("the new bundle is in force", bundle).await;
    let ours = store.get(&identity("cart")).await.expect("a certificate");
    let (taken, _) = knock(&ours, &theirs).await;
    taken.expect("its root is known now");
}

#[tokio::test]
async fn a_certificate_of_an_earlier_process_takes_the_newest_bundle() {
    let ca = Rotating::new();
    let (first, second) = (store(&ca), store(&ca));
    first.get(&identity("cart")).await.expect("a certificate");
    ca.add(&TestCa::new());
    second.get(&identity("pay")).await.expect("a certificate");
    second.import(first.export().remove(0)).expect("it is valid");
    // Nothing waits in between, so the CA has not been asked for this identity yet.
    assert_eq!(ca.asked(), 2);
    let known = second.list();
    let roots: Vec<_> = known.iter().filter_map(|k| k.credential.as_ref()).map(|c| c.roots().len()).collect();
    assert_eq!(roots, [2, 2], "{known:?}");
}

#[tokio::test]
async fn an_answer_that_was_overtaken_does_not_take_a_new_root_away() {
    let ca = Rotating::slow_for(Some("cart"));
    let store = store(&ca);
    store.prefetch(&identity("cart"));
    until("the first answer is on its way", || ca.asked() == 1).await;
    ca.add(&TestCa::new());
    store.get(&identity("pay")).await.expect("a certificate");
    // It was made before the new root came.
    ca.leave.add_permits(1);
    let cart = store.get(&identity("cart")).await.expect("a certificate");
    assert_eq!(cart.roots().len(), 2);
    let pay = store.get(&identity("pay")).await.expect("a certificate");
    assert_eq!(pay.roots().len(), 2, "nor from anybody else");
    // Either of the two may have been the newer one, so the CA is asked once more.
    until("it asks again", || ca.asked() == 3).await;
    ca.leave.add_permits(1);
}
