//! Certificates that must be refused, each for one reason, and a few odd ones that must not.

use crate::certs::{CLIENT_AUTH, SERVER_AUTH, Shown, Signer, Template, TestCa, der, dns, now, uri, usage};
use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519};

/// Who everybody claims to be.
pub const PEER: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const OTHER: &str = "spiffe://cluster.local/ns/bank/sa/vault";

/// One certificate and what must come of it: a code, with the rule if one is broken, or `accepted`.
#[derive(Debug)]
pub struct Case {
    /// What is wrong with it.
    pub name: &'static str,
    /// The chain and the key.
    pub shown: Shown,
    /// `AMB2006 rule 1`, `AMB2003`, `accepted`.
    pub want: &'static str,
}

/// Every case that both roles meet alike.
#[must_use]
pub fn cases(ca: &TestCa) -> Vec<Case> {
    let mut all = Vec::new();
    for (name, names, want) in names() {
        let template = Template { names: Some((true, names)), ..Template::leaf(PEER) };
        all.push(Case { name, shown: ca.leaf(&template), want });
    }
    for (name, template, want) in uses().into_iter().chain(forms()) {
        all.push(Case { name, shown: ca.leaf(&template), want });
    }
    all.extend(keys(ca));
    all.extend(chains(ca));
    all.extend(signers(ca));
    all.extend(bytes(ca));
    all
}

type Names = Vec<Vec<u8>>;

/// Rules 1 to 3: what the name is.
fn names() -> Vec<(&'static str, Names, &'static str)> {
    let one = |text: &str| vec![uri(text)];
    let long = format!("{PEER}{}", "a".repeat(2049 - PEER.len()));
    let other_name = der::tlv(
        0xa0,
        &[der::oid(&[1, 3, 6, 1, 4, 1]), der::tlv(0xa0, &der::tlv(0x0c, PEER.as_bytes()))].concat(),
    );
    vec![
        ("two URI names, the good one first", vec![uri(PEER), uri(OTHER)], "AMB2006 rule 1"),
        ("two URI names, the good one last", vec![uri(OTHER), uri(PEER)], "AMB2006 rule 1"),
        ("the same URI name twice", vec![uri(PEER), uri(PEER)], "AMB2006 rule 1"),
        ("only a DNS name", vec![dns("cart.shop.svc")], "AMB2006 rule 1"),
        ("the identity as DNS name", vec![dns(PEER)], "AMB2006 rule 1"),
        ("the identity as otherName", vec![other_name], "AMB2006 rule 1"),
        ("an empty list of names", vec![], "AMB2006 rule 1"),
        ("another scheme", one("https://cluster.local/ns/shop/sa/cart"), "AMB2006 rule 2"),
        ("the scheme in upper case", one("SPIFFE://cluster.local/ns/shop/sa/cart"), "AMB2006 rule 2"),
        ("2049 bytes", one(&long), "AMB2006 rule 2"),
        ("no trust domain", one("spiffe:///ns/shop/sa/cart"), "AMB2006 rule 2"),
        ("a trust domain in upper case", one("spiffe://CLUSTER.LOCAL/ns/shop/sa/cart"), "AMB2006 rule 2"),
        ("a wildcard as trust domain", one("spiffe://*/ns/shop/sa/cart"), "AMB2006 rule 2"),
        ("a port", one("spiffe://cluster.local:443/ns/shop/sa/cart"), "AMB2006 rule 2"),
        ("user information", one("spiffe://me@cluster.local/ns/shop/sa/cart"), "AMB2006 rule 2"),
        ("a NUL in the trust domain", one("spiffe://cluster.local\0.evil/ns/shop/sa/cart"), "AMB2006 rule 2"),
        (
            "a trust domain of 256 bytes",
            one(&format!("spiffe://{}/ns/shop/sa/cart", "a".repeat(256))),
            "AMB2006 rule 2",
        ),
        ("a trust domain beyond ASCII", one("spiffe://clüster.local/ns/shop/sa/cart"), "AMB2006 rule 2"),
        ("a NUL in the path", one("spiffe://cluster.local/ns/shop/sa/cart\0evil"), "AMB2006 rule 3"),
        ("a wildcard in the path", one("spiffe://cluster.local/ns/shop/sa/*"), "AMB2006 rule 3"),
        ("no path", one("spiffe://cluster.local"), "AMB2006 rule 3"),
        ("another path", one("spiffe://cluster.local/workload/cart"), "AMB2006 rule 3"),
        ("an empty segment", one("spiffe://cluster.local/ns//sa/cart"), "AMB2006 rule 3"),
        ("a dot segment", one("spiffe://cluster.local/ns/shop/sa/.."), "AMB2006 rule 3"),
        ("a slash at the end", one("spiffe://cluster.local/ns/shop/sa/cart/"), "AMB2006 rule 3"),
        ("percent-encoding", one("spiffe://cluster.local/ns/sh%6fp/sa/cart"), "AMB2006 rule 3"),
        ("a query", one("spiffe://cluster.local/ns/shop/sa/cart?x=1"), "AMB2006 rule 3"),
        ("a fragment", one("spiffe://cluster.local/ns/shop/sa/cart#x"), "AMB2006 rule 3"),
        ("a DNS name beside the identity means nothing", vec![dns("vault.bank.svc"), uri(PEER)], "accepted"),
    ]
}

/// Rules 4 to 6: what the certificate may be used for.
fn uses() -> Vec<(&'static str, Template, &'static str)> {
    let good = || Template::leaf(PEER);
    let usage = |critical, bits| Template { usage: Some((critical, bits)), ..good() };
    let purposes = |list: &[u32]| Template { purposes: Some(list.to_vec()), ..good() };
    vec![
        ("a good one", good(), "accepted"),
        ("a CA", Template { constraints: Some((true, None)), ..good() }, "AMB2006 rule 4"),
        ("no basicConstraints", Template { constraints: None, ..good() }, "accepted"),
        ("no keyUsage", Template { usage: None, ..good() }, "AMB2006 rule 5"),
        ("keyUsage not critical", usage(false, usage::DIGITAL_SIGNATURE), "AMB2006 rule 5"),
        (
            "keyUsage with keyCertSign",
            usage(true, usage::DIGITAL_SIGNATURE | usage::KEY_CERT_SIGN),
            "AMB2006 rule 5",
        ),
        ("keyUsage with cRLSign", usage(true, usage::DIGITAL_SIGNATURE | usage::CRL_SIGN), "AMB2006 rule 5"),
        ("keyUsage without digitalSignature", usage(true, 0x20), "AMB2006 rule 5"),
        ("not for clients", purposes(&[SERVER_AUTH]), "AMB2006 rule 6"),
        ("not for servers", purposes(&[CLIENT_AUTH]), "AMB2006 rule 6"),
        ("for code signing", purposes(&[3]), "AMB2006 rule 6"),
        ("for anything", Template { purposes: None, ..good() }, "accepted"),
    ]
}

/// Rules 7 and 9, and the form of the certificate itself.
fn forms() -> Vec<(&'static str, Template, &'static str)> {
    let good = || Template::leaf(PEER);
    let now = now();
    let serial = |bytes: &[u8]| Template { serial: bytes.to_vec(), ..good() };
    let san = |critical, subject: &str| Template {
        subject: subject.to_owned(),
        names: Some((critical, vec![uri(PEER)])),
        ..good()
    };
    let extra = |extension: Vec<u8>| Template { extensions: vec![extension], ..good() };
    let unknown = der::seq(&[der::oid(&[1, 3, 6, 1, 4, 1, 9999, 1]), der::yes(), der::octets(&[5, 0])]);
    let harmless = der::seq(&[der::oid(&[1, 3, 6, 1, 4, 1, 9999, 1]), der::octets(&[5, 0])]);
    let second_san = der::extension(17, true, &der::seq(&[uri(OTHER)]));
    vec![
        ("no subject and names not critical", san(false, ""), "AMB2006 rule 7"),
        ("a subject and names not critical", san(false, "cart"), "accepted"),
        (
            "the identity only in the common name",
            Template { names: None, subject: PEER.to_owned(), ..good() },
            "AMB2006 rule 1",
        ),
        ("no names at all", Template { names: None, ..good() }, "AMB2006 rule 1"),
        ("names twice", extra(second_san), "AMB2006 rule 1"),
        ("expired by a second", Template { not_before: now - 60, not_after: now - 1, ..good() }, "AMB2003"),
        ("expired long ago", Template { not_before: now - 7200, not_after: now - 3600, ..good() }, "AMB2003"),
        ("not valid for another two minutes", Template { not_before: now + 120, ..good() }, "AMB2003"),
        (
            "not valid for another 30 s, a clock a little off",
            Template { not_before: now + 30, ..good() },
            "accepted",
        ),
        (
            "valid until before it begins",
            Template { not_before: now + 30, not_after: now + 10, ..good() },
            "AMB2003",
        ),
        ("a negative serial number", serial(&[0x80, 1]), "AMB2006 rule 0"),
        ("serial number 0", serial(&[0]), "AMB2006 rule 0"),
        ("a serial number of 22 bytes", serial(&[0x11; 22]), "AMB2006 rule 0"),
        ("an unknown critical extension", extra(unknown), "AMB2006 rule 0"),
        ("an unknown extension that is not critical", extra(harmless), "accepted"),
        (
            "signed with SHA-1",
            Template { algorithm: vec![1, 2, 840, 10045, 4, 1], ..good() },
            "AMB2006 rule 0",
        ),
        (
            "signed with RSA and MD5",
            Template { algorithm: vec![1, 2, 840, 113_549, 1, 1, 4], ..good() },
            "AMB2006 rule 0",
        ),
        (
            "version 1",
            Template { version: None, names: None, constraints: None, usage: None, purposes: None, ..good() },
            "AMB2006 rule 1",
        ),
    ]
}

/// Rule 10: keys.
fn keys(ca: &TestCa) -> Vec<Case> {
    let good = Template::leaf(PEER);
    let made = |name, algorithm, want| Case { name, shown: ca.leaf_with(&good, algorithm), want };
    let mut all = vec![
        made("a P-384 key", &PKCS_ECDSA_P384_SHA384, "accepted"),
        made("an Ed25519 key", &PKCS_ED25519, "accepted"),
        made("a P-521 key", &PKCS_ECDSA_P521_SHA512, "AMB2006 rule 10"),
    ];
    let rsa = |bits: usize| {
        let modulus = [&[0, 0xc0][..], &vec![0x55; bits / 8 - 1]].concat();
        let key = der::seq(&[der::tlv(2, &modulus), der::tlv(2, &[1, 0, 1])]);
        der::seq(&[der::seq(&[der::oid(&[1, 2, 840, 113_549, 1, 1, 1]), vec![5, 0]]), der::bits(0, &key)])
    };
    let ed448 = der::seq(&[der::seq(&[der::oid(&[1, 3, 101, 113])]), der::bits(0, &[7; 57])]);
    for (name, public_key) in [
        ("an RSA key of 512 bits", rsa(512)),
        ("an RSA key of 1024 bits", rsa(1024)),
        ("an Ed448 key", ed448),
    ] {
        // Nobody gets as far as the signature of this key, so any will do.
        let template = Template { public_key: Some(public_key), ..good.clone() };
        all.push(Case { name, shown: ca.leaf(&template), want: "AMB2006 rule 10" });
    }
    all
}

/// A leaf of another trust domain by a signer that names none itself, so that only the leaf's is wrong.
fn of_another_trust_domain(ca: &TestCa) -> Shown {
    let template = Template::leaf("spiffe://evil.example/ns/shop/sa/cart");
    let signer = ca.root.issuer(&Template::signer("unnamed"));
    let key = rcgen::KeyPair::generate().expect("a key");
    let leaf = signer.certify(&template, rcgen::PublicKeyData::subject_public_key_info(&key));
    Shown { chain: vec![leaf, signer.der], key: key.serialize_der() }
}

/// The path: who signed, and what is shown of it.
fn chains(ca: &TestCa) -> Vec<Case> {
    let good = Template::leaf(PEER);
    let stranger = ca.twin();
    let alone = Signer::root("somebody");
    let own = ca.leaf(&good);
    let foreign = of_another_trust_domain(ca);
    let case = |name, shown, want| Case { name, shown, want };
    let with = |chain: Vec<Vec<u8>>| Shown { chain, key: own.key.clone() };
    let leaf = own.chain[0].clone();
    let copies =
        |n: usize| std::iter::once(leaf.clone()).chain((0..n).map(|_| ca.intermediate.der.clone())).collect();
    let huge = vec![leaf.clone(), ca.intermediate.der.clone(), vec![0x30; 66_000]];
    let self_signed = Shown { chain: vec![alone.certify_itself(&good)], key: alone.private_key() };
    vec![
        case("signed by another root", stranger.leaf(&good), "AMB2004"),
        case("signed by itself", self_signed, "AMB2004"),
        case("another trust domain under our root", foreign, "AMB2004 rule 11"),
        case("no intermediate", with(vec![leaf.clone()]), "AMB2004"),
        case(
            "our intermediate under another root",
            with(vec![leaf.clone(), ca.intermediate.under(&stranger.root)]),
            "AMB2004",
        ),
        case(
            "another's leaf with our intermediate",
            Shown {
                chain: vec![stranger.leaf(&good).chain[0].clone(), ca.intermediate.der.clone()],
                key: own.key.clone(),
            },
            "AMB2004",
        ),
        case("eight certificates", with(copies(7)), "accepted"),
        case("nine certificates", with(copies(8)), "AMB2006 rule 0"),
        case("twenty-one certificates", with(copies(20)), "AMB2006 rule 0"),
        case("more than 64 KiB", with(huge), "AMB2008"),
    ]
}

/// Rule 8: signers under our root that may not sign this.
fn signers(ca: &TestCa) -> Vec<Case> {
    let good = Template::leaf(PEER);
    let under = |signers: &[&Signer]| {
        let mut shown = ca.leaf(&good);
        let last = signers.last().expect("at least one");
        let key = rcgen::KeyPair::from_der_and_sign_algo(&pkcs8(&shown.key), &rcgen::PKCS_ECDSA_P256_SHA256)
            .expect("the key is ours");
        shown.chain = vec![last.certify(&good, rcgen::PublicKeyData::subject_public_key_info(&key))];
        shown.chain.extend(signers.iter().rev().map(|s| s.der.clone()));
        shown
    };
    let short = ca.root.issuer(&Template { constraints: Some((true, Some(0))), ..Template::signer("short") });
    let too_long = short.issuer(&Template::signer("too long"));
    let leaf_as_signer = ca.root.issuer(&Template { subject: "leaf".to_owned(), ..good.clone() });
    let no_sign =
        ca.root.issuer(&Template { usage: Some((true, usage::CRL_SIGN)), ..Template::signer("no sign") });
    let foreign_signer = ca.root.issuer(&Template {
        names: Some((false, vec![uri("spiffe://evil.example")])),
        ..Template::signer("foreign")
    });
    let workload_signer =
        ca.root.issuer(&Template { names: Some((false, vec![uri(PEER)])), ..Template::signer("w") });
    let constraint = der::tlv(0xa0, &der::seq(&[der::tlv(0x86, b"evil.example")]));
    let constrained = ca.root.issuer(&Template {
        extensions: vec![der::extension(30, true, &der::seq(&[constraint]))],
        ..Template::signer("constrained")
    });
    let old = ca.root.issuer(&Template { not_after: now() - 10, ..Template::signer("old") });
    let case = |name, shown, want| Case { name, shown, want };
    vec![
        case("a path longer than allowed", under(&[&short, &too_long]), "AMB2006 rule 0"),
        case("signed by a leaf", under(&[&leaf_as_signer]), "AMB2006 rule 8"),
        case("signed by a CA that may not sign", under(&[&no_sign]), "AMB2006 rule 8"),
        case("signed by a CA of another trust domain", under(&[&foreign_signer]), "AMB2006 rule 8"),
        case("signed by a CA that is a workload", under(&[&workload_signer]), "AMB2006 rule 8"),
        case("signed by a CA constrained to other names", under(&[&constrained]), "AMB2006 rule 0"),
        case("signed by a CA that has expired", under(&[&old]), "AMB2003"),
    ]
}

fn pkcs8(key: &[u8]) -> rustls::pki_types::PrivateKeyDer<'_> {
    rustls::pki_types::PrivateKeyDer::try_from(key).expect("PKCS#8")
}

/// Certificates that are no DER.
fn bytes(ca: &TestCa) -> Vec<Case> {
    let own = ca.leaf(&Template::leaf(PEER));
    let changed = |name, want, change: &dyn Fn(&mut Vec<u8>)| {
        let mut shown = own.clone();
        change(&mut shown.chain[0]);
        Case { name, shown, want }
    };
    vec![
        changed("bytes behind the certificate", "AMB2006 rule 0", &|der| der.extend([0, 0])),
        changed("a certificate cut short", "AMB2006 rule 0", &|der| der.truncate(der.len() - 5)),
        changed("a certificate of indefinite length", "AMB2006 rule 0", &|der| {
            let body = der.split_off(4);
            *der = [&[0x30, 0x80][..], &body, &[0, 0]].concat();
        }),
        changed("no certificate at all, only noise", "AMB2006 rule 0", &|der| *der = vec![0xaa; 300]),
        changed("a signature with a flipped bit", "AMB2004", &|der| {
            let last = der.len() - 1;
            der[last] ^= 1;
        }),
        changed("a name changed after signing", "AMB2004", &|der| {
            let at = der.windows(4).position(|w| w == b"cart").expect("the account's name");
            der[at] = b'd';
        }),
    ]
}
