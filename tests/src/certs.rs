//! A test CA that can also make what no CA should: certificates are written byte by byte and signed with real keys.
//!
//! Keys and signatures are the library's; what stands in a certificate is the test's alone.

use std::fs;
use std::path::Path;

use ambit_net::tls::Credential;
use ambit_net::tls::credential::PemChain;
use ambit_net::tls::store::{Ca, Signing};
use ambit_types::Identity;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SignatureAlgorithm, SigningKey as _};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// DER, one element at a time.
pub mod der {
    /// An element with any tag.
    #[must_use]
    pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        let mut out = vec![tag];
        match u8::try_from(length) {
            Ok(short) if short < 0x80 => out.push(short),
            Ok(_) | Err(_) => {
                let bytes: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|b| *b == 0).collect();
                out.push(0x80 | u8::try_from(bytes.len()).expect("at most eight"));
                out.extend(bytes);
            }
        }
        out.extend_from_slice(content);
        out
    }

    /// A SEQUENCE of parts.
    #[must_use]
    pub fn seq(parts: &[Vec<u8>]) -> Vec<u8> {
        tlv(0x30, &parts.concat())
    }

    /// An OBJECT IDENTIFIER of its arcs.
    #[must_use]
    pub fn oid(arcs: &[u32]) -> Vec<u8> {
        let mut out = Vec::new();
        let first = arcs[0] * 40 + arcs[1];
        for arc in std::iter::once(first).chain(arcs[2..].iter().copied()) {
            let groups: Vec<u8> =
                (0..5).rev().map(|i| u8::try_from((arc >> (7 * i)) & 0x7f).expect("7 bits")).collect();
            let start = groups.iter().position(|g| *g != 0).unwrap_or(4);
            for (i, group) in groups.iter().enumerate().skip(start) {
                out.push(if i < 4 { group | 0x80 } else { *group });
            }
        }
        tlv(0x06, &out)
    }

    /// A BIT STRING with `unused` bits at its end.
    #[must_use]
    pub fn bits(unused: u8, bytes: &[u8]) -> Vec<u8> {
        tlv(0x03, &[&[unused], bytes].concat())
    }

    /// An OCTET STRING.
    #[must_use]
    pub fn octets(bytes: &[u8]) -> Vec<u8> {
        tlv(0x04, bytes)
    }

    /// TRUE.
    #[must_use]
    pub fn yes() -> Vec<u8> {
        vec![0x01, 0x01, 0xff]
    }

    /// A GeneralizedTime, seconds since 1970.
    #[must_use]
    pub fn time(seconds: i64) -> Vec<u8> {
        let t = time::OffsetDateTime::from_unix_timestamp(seconds).expect("a year of four digits");
        let (year, month, day) = (t.year(), u8::from(t.month()), t.day());
        let (h, m, s) = (t.hour(), t.minute(), t.second());
        // RFC 5280: UTCTime through 2049.
        if year < 2050 {
            tlv(0x17, format!("{:02}{month:02}{day:02}{h:02}{m:02}{s:02}Z", year % 100).as_bytes())
        } else {
            tlv(0x18, format!("{year:04}{month:02}{day:02}{h:02}{m:02}{s:02}Z").as_bytes())
        }
    }

    /// A Name with a common name; empty for "".
    #[must_use]
    pub fn name(common: &str) -> Vec<u8> {
        if common.is_empty() {
            return seq(&[]);
        }
        let attribute = seq(&[oid(&[2, 5, 4, 3]), tlv(0x0c, common.as_bytes())]);
        seq(&[tlv(0x31, &attribute)])
    }

    /// An Extension of id-ce.
    #[must_use]
    pub fn extension(id: u32, critical: bool, value: &[u8]) -> Vec<u8> {
        let mut parts = vec![oid(&[2, 5, 29, id])];
        if critical {
            parts.push(yes());
        }
        parts.push(octets(value));
        seq(&parts)
    }
}

/// Bits of keyUsage.
pub mod usage {
    /// digitalSignature.
    pub const DIGITAL_SIGNATURE: u8 = 0x80;
    /// keyCertSign.
    pub const KEY_CERT_SIGN: u8 = 0x04;
    /// cRLSign.
    pub const CRL_SIGN: u8 = 0x02;
}

/// Purpose serverAuth.
pub const SERVER_AUTH: u32 = 1;
/// Purpose clientAuth.
pub const CLIENT_AUTH: u32 = 2;
const ID_SUBJECT_ALT_NAME: u32 = 17;
const ID_BASIC_CONSTRAINTS: u32 = 19;
const ID_KEY_USAGE: u32 = 15;
const ID_EXTENDED_KEY_USAGE: u32 = 37;
const ECDSA_SHA256: &[u32] = &[1, 2, 840, 10045, 4, 3, 2];

/// A URI among subject alternative names.
#[must_use]
pub fn uri(text: &str) -> Vec<u8> {
    der::tlv(0x86, text.as_bytes())
}

/// A DNS name among subject alternative names.
#[must_use]
pub fn dns(text: &str) -> Vec<u8> {
    der::tlv(0x82, text.as_bytes())
}

/// Everything that stands in a certificate.
#[derive(Debug, Clone)]
pub struct Template {
    /// Version field, 2 for v3; left out if none.
    pub version: Option<u8>,
    /// Bytes of the serial number.
    pub serial: Vec<u8>,
    /// Common name of the subject.
    pub subject: String,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
    /// Names, and whether they are critical; no extension if none.
    pub names: Option<(bool, Vec<Vec<u8>>)>,
    /// CA flag and path length; no extension if none.
    pub constraints: Option<(bool, Option<u8>)>,
    /// Bits, and whether they are critical; no extension if none.
    pub usage: Option<(bool, u8)>,
    /// Purposes; no extension if none.
    pub purposes: Option<Vec<u32>>,
    /// More extensions, ready-made.
    pub extensions: Vec<Vec<u8>>,
    /// Signature algorithm that the certificate names.
    pub algorithm: Vec<u32>,
    /// Public key other than the subject's own, ready-made.
    pub public_key: Option<Vec<u8>>,
}

impl Template {
    /// A leaf as a good CA issues it, valid from a minute ago for an hour.
    #[must_use]
    pub fn leaf(id: &str) -> Self {
        let now = now();
        Self {
            version: Some(2),
            serial: vec![0x11, 0x22, 0x33],
            subject: String::new(),
            not_before: now - 60,
            not_after: now + 3600,
            names: Some((true, vec![uri(id)])),
            constraints: Some((false, None)),
            usage: Some((true, usage::DIGITAL_SIGNATURE)),
            purposes: Some(vec![SERVER_AUTH, CLIENT_AUTH]),
            extensions: Vec::new(),
            algorithm: ECDSA_SHA256.to_vec(),
            public_key: None,
        }
    }

    /// A certificate that signs others.
    #[must_use]
    pub fn signer(subject: &str) -> Self {
        Self {
            subject: subject.to_owned(),
            names: None,
            constraints: Some((true, None)),
            usage: Some((true, usage::KEY_CERT_SIGN | usage::CRL_SIGN)),
            purposes: None,
            ..Self::leaf("")
        }
    }

    /// `issuer` and `subject` are whole Names.
    fn body(&self, issuer: &[u8], subject: &[u8], public_key: Vec<u8>) -> Vec<u8> {
        let mut parts = Vec::new();
        parts.extend(self.version.map(|v| der::tlv(0xa0, &der::tlv(0x02, &[v]))));
        parts.push(der::tlv(0x02, &self.serial));
        parts.push(der::seq(&[der::oid(&self.algorithm)]));
        parts.push(issuer.to_vec());
        parts.push(der::seq(&[der::time(self.not_before), der::time(self.not_after)]));
        parts.push(subject.to_vec());
        parts.push(self.public_key.clone().unwrap_or(public_key));
        let extensions = self.all_extensions();
        if !extensions.is_empty() {
            parts.push(der::tlv(0xa3, &der::seq(&extensions)));
        }
        der::seq(&parts)
    }

    fn all_extensions(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        if let Some((critical, names)) = &self.names {
            all.push(der::extension(ID_SUBJECT_ALT_NAME, *critical, &der::seq(names)));
        }
        if let Some((ca, path)) = self.constraints {
            let mut parts = Vec::new();
            parts.extend(ca.then(der::yes));
            parts.extend(path.map(|n| der::tlv(0x02, &[n])));
            all.push(der::extension(ID_BASIC_CONSTRAINTS, true, &der::seq(&parts)));
        }
        if let Some((critical, bits)) = self.usage {
            let unused = u8::try_from(bits.trailing_zeros()).unwrap_or(0).min(7);
            all.push(der::extension(ID_KEY_USAGE, critical, &der::bits(unused, &[bits])));
        }
        if let Some(purposes) = &self.purposes {
            let each = purposes.iter().map(|p| der::oid(&[1, 3, 6, 1, 5, 5, 7, 3, *p]));
            all.push(der::extension(ID_EXTENDED_KEY_USAGE, false, &der::seq(&each.collect::<Vec<_>>())));
        }
        all.extend(self.extensions.iter().cloned());
        all
    }
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> i64 {
    i64::try_from(ambit_runtime::clock::unix_seconds()).expect("before the year 292 billion")
}

/// A key with a certificate, able to sign others.
#[derive(Debug)]
pub struct Signer {
    key: KeyPair,
    /// Its Name.
    name: Vec<u8>,
    /// Its certificate.
    pub der: Vec<u8>,
}

impl Signer {
    /// A root: signs itself.
    #[must_use]
    pub fn root(subject: &str) -> Self {
        Self::root_named(der::name(subject), &Template::signer(subject))
    }

    fn root_named(name: Vec<u8>, template: &Template) -> Self {
        let key = key(&PKCS_ECDSA_P256_SHA256);
        let der = sign(&key, (&name, &name), template, key.subject_public_key_info());
        Self { key, name, der }
    }

    /// One whose certificate and key lie in files, in PEM.
    ///
    /// # Panics
    /// If they do not, or are none.
    #[must_use]
    pub fn of_files(certificate: &Path, key: &Path) -> Self {
        let read =
            |path: &Path| fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let der = CertificateDer::from_pem_slice(read(certificate).as_bytes()).expect("a certificate in PEM");
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).expect("a certificate");
        let name = parsed.subject().as_raw().to_vec();
        Self { key: KeyPair::from_pem(&read(key)).expect("a key in PEM"), name, der: der.to_vec() }
    }

    /// An issuer below this one.
    #[must_use]
    pub fn issuer(&self, template: &Template) -> Self {
        self.issuer_named(der::name(&template.subject), template)
    }

    fn issuer_named(&self, name: Vec<u8>, template: &Template) -> Self {
        let key = key(&PKCS_ECDSA_P256_SHA256);
        let der = sign(&self.key, (&self.name, &name), template, key.subject_public_key_info());
        Self { key, name, der }
    }

    /// The same key and name under another signer.
    #[must_use]
    pub fn under(&self, signer: &Self) -> Vec<u8> {
        let names = (&*signer.name, &*self.name);
        sign(&signer.key, names, &Template::signer(""), self.key.subject_public_key_info())
    }

    /// A certificate for a public key (SubjectPublicKeyInfo).
    #[must_use]
    pub fn certify(&self, template: &Template, public_key: Vec<u8>) -> Vec<u8> {
        sign(&self.key, (&self.name, &der::name(&template.subject)), template, public_key)
    }

    /// A certificate for the key of this very signer.
    #[must_use]
    pub fn certify_itself(&self, template: &Template) -> Vec<u8> {
        let name = der::name(&template.subject);
        sign(&self.key, (&name, &name), template, self.key.subject_public_key_info())
    }

    /// The private key, PKCS#8.
    #[must_use]
    pub fn private_key(&self) -> Vec<u8> {
        self.key.serialize_der()
    }
}

fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).expect("the library makes keys of this kind")
}

/// The certificate of a subject by an issuer, both given as Names.
fn sign(
    key: &KeyPair,
    (issuer, subject): (&[u8], &[u8]),
    template: &Template,
    public_key: Vec<u8>,
) -> Vec<u8> {
    let body = template.body(issuer, subject, public_key);
    let signature = key.sign(&body).expect("the library signs");
    der::seq(&[body, der::seq(&[der::oid(&template.algorithm)]), der::bits(0, &signature)])
}

/// A chain and the key of its leaf, as a peer shows them.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Leaf first.
    pub chain: Vec<Vec<u8>>,
    /// Private key of the leaf, PKCS#8.
    pub key: Vec<u8>,
}

/// Root, intermediate, and whatever they sign.
#[derive(Debug)]
pub struct TestCa {
    /// The trust bundle is this one's certificate.
    pub root: Signer,
    /// Signs leaves.
    pub intermediate: Signer,
}

impl Default for TestCa {
    fn default() -> Self {
        Self::new()
    }
}

impl TestCa {
    /// A CA with fresh keys.
    #[must_use]
    pub fn new() -> Self {
        let root = Signer::root("root");
        let intermediate = root.issuer(&Template::signer("intermediate"));
        Self { root, intermediate }
    }

    /// The CA of a running mesh, from the folder where its control plane keeps it.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn of_folder(folder: &Path) -> Self {
        let signer = |name: &str| {
            Signer::of_files(
                &folder.join(format!("{name}-cert.pem")),
                &folder.join(format!("{name}-key.pem")),
            )
        };
        Self { root: signer("root"), intermediate: signer("intermediate") }
    }

    /// A CA that has the names of this one and keys of its own.
    #[must_use]
    pub fn twin(&self) -> Self {
        let template = Template::signer("");
        let root = Signer::root_named(self.root.name.clone(), &template);
        let intermediate = root.issuer_named(self.intermediate.name.clone(), &template);
        Self { root, intermediate }
    }

    /// A leaf with a fresh P-256 key, under the intermediate.
    #[must_use]
    pub fn leaf(&self, template: &Template) -> Shown {
        self.leaf_with(template, &PKCS_ECDSA_P256_SHA256)
    }

    /// A leaf with a fresh key of an algorithm.
    #[must_use]
    pub fn leaf_with(&self, template: &Template, algorithm: &'static SignatureAlgorithm) -> Shown {
        let key = key(algorithm);
        let leaf = self.intermediate.certify(template, key.subject_public_key_info());
        Shown { chain: vec![leaf, self.intermediate.der.clone()], key: key.serialize_der() }
    }

    /// A good credential for an identity.
    #[must_use]
    pub fn credential(&self, identity: &Identity) -> Credential {
        self.credential_until(identity, now() + 3600)
    }

    /// A good credential that runs out at a second since 1970.
    ///
    /// # Panics
    /// If the product does not take it.
    #[must_use]
    pub fn credential_until(&self, identity: &Identity, not_after: i64) -> Credential {
        let template = Template { not_after, ..Template::leaf(&identity.to_string()) };
        let shown = self.leaf(&template);
        let chain = shown.chain.into_iter().map(CertificateDer::from).collect();
        let roots = vec![CertificateDer::from(self.root.der.clone())];
        Credential::from_der(identity, chain, roots, &shown.key).expect("a good certificate is taken")
    }

    /// Answers a certificate request as a CA does.
    ///
    /// # Panics
    /// If the request is none.
    #[must_use]
    pub fn answer(&self, identity: &Identity, csr_pem: &str, not_after: i64) -> PemChain {
        let request = rcgen::CertificateSigningRequestParams::from_pem(csr_pem).expect("a request");
        let template = Template { not_after, ..Template::leaf(&identity.to_string()) };
        let leaf = self.intermediate.certify(&template, request.public_key.subject_public_key_info());
        PemChain {
            leaf: pem(&leaf),
            intermediates: vec![pem(&self.intermediate.der)],
            roots: pem(&self.root.der),
        }
    }
}

impl Ca for TestCa {
    fn sign<'a>(&'a self, identity: &'a Identity, csr_pem: &'a str) -> Signing<'a> {
        Box::pin(async move { Ok(self.answer(identity, csr_pem, now() + 3600)) })
    }
}

/// A certificate in PEM.
#[must_use]
pub fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("base64 is ASCII")).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
