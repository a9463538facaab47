//! Trust bundles: what of them is usable.

use std::sync::{Arc, Mutex, PoisonError};

use ambit_net::tls::credential::PemChain;
use ambit_net::tls::store::{Ca, CertificateStore, Signing};
use ambit_tests::certs::{TestCa, now, pem};
use ambit_types::Identity;

/// A CA whose bundle can be changed.
struct Rotating {
    ca: TestCa,
    roots: Mutex<String>,
}

impl Rotating {
    fn new() -> Arc<Self> {
        let ca = TestCa::new();
        let roots = Mutex::new(pem(&ca.root.der));
        Arc::new(Self { ca, roots })
    }
}

impl Ca for Rotating {
    fn sign<'a>(&'a self, identity: &'a Identity, csr_pem: &'a str) -> Signing<'a> {
        Box::pin(async move {
            let roots = self.roots.lock().unwrap_or_else(PoisonError::into_inner).clone();
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
