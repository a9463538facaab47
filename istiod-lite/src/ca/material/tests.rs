//! Layouts that are read, and material that must not sign.

use std::time::{Duration, SystemTime};

use ambit_types::TrustDomain;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use zeroize::Zeroizing;

use super::super::rotation::{Phase, Ring};
use super::{Issuing, Members, Owner, assemble, blocks, bundle, make, read, write};

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn domain() -> TrustDomain {
    TrustDomain::default()
}

fn ours() -> Issuing {
    make(&domain(), now()).unwrap().0
}

fn members(of: &[(&str, &str)]) -> Members {
    of.iter().map(|(name, text)| ((*name).to_owned(), Zeroizing::new(text.as_bytes().to_vec()))).collect()
}

/// Somebody else's: a root, an intermediate, and one below it that signs; none names a trust domain.
struct Foreign {
    root: String,
    middle: String,
    signing: String,
    key: String,
    root_key: String,
}

fn foreign() -> Foreign {
    let params = |name: &str, ca: bool| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = if ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    };
    let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let (root_key, middle_key, signing_key) = (key(), key(), key());
    let root_params = params("corporate root", true);
    let root = root_params.self_signed(&root_key).unwrap();
    let middle_params = params("corporate middle", true);
    let middle = middle_params.signed_by(&middle_key, &Issuer::from_params(&root_params, &root_key)).unwrap();
    let issuer = Issuer::from_params(&middle_params, &middle_key);
    let signing = params("mesh", true).signed_by(&signing_key, &issuer).unwrap();
    Foreign {
        root: root.pem(),
        middle: middle.pem(),
        signing: signing.pem(),
        key: signing_key.serialize_pem(),
        root_key: root_key.serialize_pem(),
    }
}

fn chain(members: &Members, owner: Owner) -> Vec<String> {
    let ring = read(members).unwrap();
    let authority = assemble(&ring, &domain(), owner).unwrap();
    let identity = ambit_types::Identity::parse("spiffe://cluster.local/ns/a/sa/b").unwrap();
    let key = KeyPair::generate().unwrap();
    let key = rcgen::PublicKeyData::subject_public_key_info(&key);
    authority.issue(&identity, &key, Duration::from_secs(3600), now()).unwrap().chain
}

#[test]
fn both_layouts_of_a_plugged_authority_are_read() {
    let of = foreign();
    let both = format!("{}{}", of.signing, of.middle);
    let istio = members(&[
        ("ca-cert.pem", &of.signing),
        ("ca-key.pem", &of.key),
        ("cert-chain.pem", &both),
        ("root-cert.pem", &of.root),
    ]);
    let manager = members(&[("tls.crt", &both), ("tls.key", &of.key), ("ca.crt", &of.root)]);
    for layout in [&istio, &manager] {
        let chain = chain(layout, Owner::Plugged);
        assert_eq!(chain.len(), 4, "leaf, the one that signs, the middle, the bundle");
        assert_eq!(chain[1].trim(), of.signing.trim());
        assert_eq!(chain[2].trim(), of.middle.trim());
        assert_eq!(chain[3].trim(), of.root.trim());
    }
    // Nobody plugged it in, so it has to name the trust domain.
    let error = assemble(&read(&istio).unwrap(), &domain(), Owner::Us).unwrap_err();
    assert!(error.to_string().contains("no trust domain"), "{error}");
}

#[test]
fn a_root_that_signs_leaves_itself_is_not_sent_twice() {
    let of = foreign();
    let istio = members(&[
        ("ca-cert.pem", &of.root),
        ("ca-key.pem", &of.root_key),
        ("cert-chain.pem", ""),
        ("key.pem", ""),
        ("root-cert.pem", &of.root),
    ]);
    assert_eq!(chain(&istio, Owner::Plugged).len(), 2, "leaf and bundle");
}

#[test]
fn material_that_cannot_sign_or_is_not_whole_is_refused_by_name() {
    let (of, other) = (foreign(), foreign());
    let good = [
        ("ca-cert.pem", of.signing.clone()),
        ("ca-key.pem", of.key.clone()),
        ("cert-chain.pem", of.middle.clone()),
        ("root-cert.pem", of.root.clone()),
    ];
    let leaf = {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::ExplicitNoCa;
        let key = KeyPair::from_pem(&of.key).unwrap();
        params.self_signed(&key).unwrap().pem()
    };
    let broken = of.signing.replace("-----END", "-----EN");
    let rows: &[(&str, Option<&str>, &str)] = &[
        ("ca-key.pem", None, "ca-key.pem: it is missing"),
        ("root-cert.pem", None, "root-cert.pem: it is missing"),
        ("ca-key.pem", Some(""), "no private key"),
        ("ca-key.pem", Some(&other.key), "its key is not the one in ca-key.pem"),
        ("ca-cert.pem", Some(""), "no certificate in it"),
        ("ca-cert.pem", Some("nonsense"), "no certificate in it"),
        ("ca-cert.pem", Some(&broken), "its PEM has no end"),
        ("ca-cert.pem", Some(&leaf), "may not sign"),
        ("cert-chain.pem", Some(""), "not signed by the root"),
        ("cert-chain.pem", Some(&other.middle), "not signed by the root"),
        ("root-cert.pem", Some(&other.root), "not signed by the root"),
    ];
    let build = |name: &str, value: Option<&str>| {
        let mut all = members(&good.each_ref().map(|(name, text)| (*name, text.as_str())));
        match value {
            Some(text) => all.insert(name.to_owned(), Zeroizing::new(text.as_bytes().to_vec())),
            None => all.remove(name),
        };
        all
    };
    let outcome = |all: &Members| read(all).and_then(|ring| assemble(&ring, &domain(), Owner::Plugged));
    outcome(&build("unknown", Some("is left alone"))).unwrap();
    for (name, value, want) in rows {
        let error = outcome(&build(name, *value)).unwrap_err().to_string();
        assert!(error.contains(want), "{name}: {error}");
    }
}

#[test]
fn what_a_rotation_keeps_is_read_back_at_every_step() {
    let (old, new) = (ours(), ours());
    let idle = Ring::new(old.clone());
    let waiting = idle.begin(new.clone(), 1_000, 3_600).unwrap();
    for ring in [&idle, &waiting] {
        assert_eq!(read(&write(ring).unwrap()).unwrap(), *ring);
    }
    let roots = |ring: &Ring<Issuing>| {
        let all = blocks("root-cert.pem", &bundle(ring).unwrap()).unwrap();
        all.into_iter().map(|root| root.pem).collect::<Vec<_>>()
    };
    assert_eq!(roots(&waiting), [old.roots.clone(), new.roots.clone()], "the root of who signs comes first");
    let reissuing = Ring { signing: new.clone(), other: Some(old.clone()), state: waiting.state };
    assert_eq!(roots(&reissuing), [new.roots.clone(), old.roots.clone()]);
    // The other issuer is checked before its time comes.
    let broken = Issuing { key: old.key.clone(), ..new };
    let bad = Ring { other: Some(broken), ..waiting };
    assert!(assemble(&bad, &domain(), Owner::Us).is_err());
}

#[test]
fn a_rotation_without_its_other_issuer_is_no_authority() {
    let waiting = Ring::new(ours()).begin(ours(), 1_000, 3_600).unwrap();
    assert_eq!(waiting.state.phase, Phase::Waiting);
    let mut members = write(&waiting).unwrap();
    members.remove("other-key.pem");
    let error = read(&members).unwrap_err();
    assert_eq!(error.member, "other-key.pem");
}
