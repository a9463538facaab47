//! Keys of issuers that the tests make, as a JWK set tells them, and tokens that these keys sign.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA512, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// How many bytes of DER stand before the modulus of a 2048-bit RSA key, and how long it is.
const MODULUS: (usize, usize) = (9, 256);

/// A pair of keys.
enum Pair {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A key of an issuer.
pub(super) struct Signer {
    id: String,
    algorithm: String,
    pair: Pair,
}

impl Signer {
    /// Makes a key for RS256, PS512, ES256 or EdDSA.
    pub(super) fn new(id: &str, algorithm: &str) -> Self {
        let pair = match algorithm {
            "RS256" | "PS512" => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key")),
            "ES256" => Pair::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key")),
            "EdDSA" => Pair::Ed25519(Ed25519KeyPair::generate().expect("a key")),
            other => panic!("algorithm {other}"),
        };
        Self { id: id.to_owned(), algorithm: algorithm.to_owned(), pair }
    }

    /// Its public half.
    pub(super) fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match &self.pair {
            Pair::Rsa(pair) => {
                let (at, length) = MODULUS;
                let der = pair.public_key().as_ref();
                assert_eq!(&der[at + length..], [2, 3, 1, 0, 1], "an exponent of 65537 ends the key");
                json!({"kty": "RSA", "n": text(&der[at..at + length]), "e": "AQAB"})
            }
            Pair::P256(pair) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "x": text(&point[1..33]), "y": text(&point[33..])})
            }
            Pair::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref())})
            }
        };
        jwk["kid"] = json!(self.id);
        jwk["alg"] = json!(self.algorithm);
        jwk["use"] = json!("sig");
        jwk
    }

    /// A token with this header and this payload, whatever they say.
    pub(super) fn token(&self, header: &Value, payload: &str) -> String {
        let signed = [&header.to_string(), payload].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        let signature = self.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A token that names this key.
    pub(super) fn claims(&self, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm, "kid": self.id, "typ": "JWT"});
        self.token(&header, &claims.to_string())
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let signed = if self.algorithm == "PS512" {
                    pair.sign(&RSA_PSS_SHA512, &random, message, &mut signature)
                } else {
                    pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                };
                signed.expect("a signature");
                signature
            }
            Pair::P256(pair) => pair.sign(&random, message).expect("a signature").as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

/// A JWK set of keys, as text.
pub(super) fn set<'k>(keys: impl Iterator<Item = &'k Signer>) -> String {
    json!({"keys": keys.map(Signer::jwk).collect::<Vec<_>>()}).to_string()
}
