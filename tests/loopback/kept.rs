//! Certificates that outlive a process: taken out of one store, put into the next, never longer than they are valid.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ambit_net::tls::store::{Ca, CertificateStore, ImportError, Signing};
use ambit_tests::certs::{TestCa, now};
use ambit_types::Identity;

/// A CA that can go away, and counts how often it is asked.
struct Leaving {
    ca: TestCa,
    gone: AtomicBool,
    lifetime: i64,
    asked: AtomicUsize,
}

impl Leaving {
    fn new(lifetime: i64) -> Arc<Self> {
        let (gone, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
        Arc::new(Self { ca: TestCa::new(), gone, lifetime, asked })
    }
}

impl Ca for Leaving {
    fn sign<'a>(&'a self, identity: &'a Identity, csr_pem: &'a str) -> Signing<'a> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            if self.gone.load(Ordering::SeqCst) {
                return Err("the CA is away".to_owned());
            }
            Ok(self.ca.answer(identity, csr_pem, now() + self.lifetime))
        })
    }
}

fn store(ca: &Arc<Leaving>) -> CertificateStore {
    CertificateStore::new(ca.clone(), Arc::new(|| 1000))
}

fn identity(account: &str) -> Identity {
    Identity::parse(&format!("spiffe://cluster.local/ns/shop/sa/{account}")).expect("an identity")
}

#[tokio::test]
async fn a_certificate_serves_in_the_next_process_while_the_ca_is_away() {
    let ca = Leaving::new(3600);
    let first = store(&ca);
    let issued = first.get(&identity("cart")).await.expect("a certificate");
    ca.gone.store(true, Ordering::SeqCst);
    let second = store(&ca);
    for exported in first.export() {
        second.import(exported).expect("it is valid");
    }
    let kept = second.get(&identity("cart")).await.expect("the one that was kept");
    assert_eq!((kept.chain(), kept.roots()), (issued.chain(), issued.roots()));
    kept.client_settings(&[identity("cart")]).expect("its key is the one that belongs to it");
}

#[tokio::test]
async fn a_kept_certificate_is_replaced_as_soon_as_the_ca_answers() {
    let ca = Leaving::new(3600);
    let first = store(&ca);
    let issued = first.get(&identity("cart")).await.expect("a certificate");
    let second = store(&ca);
    let mut received = second.received();
    for exported in first.export() {
        second.import(exported).expect("it is valid");
    }
    tokio::time::timeout(Duration::from_secs(5), received.changed())
        .await
        .expect("in time")
        .expect("a store");
    let newer = second.get(&identity("cart")).await.expect("a certificate");
    assert_ne!(newer.chain()[0], issued.chain()[0], "a key that lay on disk does not serve for long");
}

#[tokio::test]
async fn an_expired_certificate_is_neither_kept_nor_taken() {
    let ca = Leaving::new(1);
    let first = store(&ca);
    first.get(&identity("cart")).await.expect("a certificate");
    let exported = first.export();
    assert_eq!(exported.len(), 1);
    ca.gone.store(true, Ordering::SeqCst);
    let begun = now();
    while now() <= begun + 1 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(first.export().is_empty());
    let second = store(&ca);
    for one in exported {
        assert!(matches!(second.import(one), Err(ImportError::Expired { .. })));
    }
    assert!(second.list().is_empty(), "nothing was put to use: {:?}", second.list());
    assert!(second.get(&identity("cart")).await.is_err());
}

#[tokio::test]
async fn a_certificate_is_taken_for_nobody_else() {
    let ca = Leaving::new(3600);
    let first = store(&ca);
    first.get(&identity("cart")).await.expect("a certificate");
    let mut exported = first.export().remove(0);
    exported.identity = identity("pay");
    assert!(matches!(store(&ca).import(exported), Err(ImportError::Unusable(_))));
}

#[tokio::test]
async fn a_valid_certificate_of_the_store_stays() {
    let ca = Leaving::new(3600);
    let (first, second) = (store(&ca), store(&ca));
    first.get(&identity("cart")).await.expect("a certificate");
    let own = second.get(&identity("cart")).await.expect("a certificate");
    second.import(first.export().remove(0)).expect("it is valid");
    assert_eq!(second.get(&identity("cart")).await.expect("a certificate").chain()[0], own.chain()[0]);
}
