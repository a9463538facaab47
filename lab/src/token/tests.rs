//! Tokens: their claims, their keys, their files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use super::{Bearer, Claims, Issuer, KEY_FILE, LIFE, PUBLIC_FILE, REFRESH};

#[test]
fn tokens_say_what_the_ca_asks_for() {
    let dir = Scratch::new("claims");
    let path = dir.0.join("token");
    let issuer = Issuer::load_or_create(&dir.0).unwrap();
    issuer.refresh(&bearer(), &path, UNIX_EPOCH + Duration::from_secs(1_700_000_000)).unwrap();
    assert_eq!(
        claims(&dir, &path),
        json!({
            "iss": "ambit-lab",
            "aud": ["istio-ca"],
            "sub": "system:serviceaccount:istio-system:ztunnel",
            "iat": 1_700_000_000, "nbf": 1_700_000_000, "exp": 1_700_000_540,
            "kubernetes.io": {
                "namespace": "istio-system",
                "serviceaccount": {"name": "ztunnel"},
                "pod": {"name": "ztunnel-node1", "uid": "pod-uid"},
                "node": {"name": "node1", "uid": "node-uid"},
            },
        })
    );
    assert!(REFRESH < LIFE / 2 && LIFE <= Duration::from_secs(600));
}

#[test]
fn a_pods_token_is_bound_to_it_and_never_outlives_what_the_ca_accepts() {
    let own = Bearer {
        namespace: "shop".to_owned(),
        service_account: "waypoint".to_owned(),
        pod: "waypoint-0".to_owned(),
        pod_uid: "u1".to_owned(),
        node: "node2".to_owned(),
        node_uid: String::new(),
        audience: "istio-ca".to_owned(),
        life: Duration::from_secs(43_200),
    };
    let said = serde_json::to_value(Claims::of(&own, UNIX_EPOCH + Duration::from_secs(1000))).unwrap();
    assert_eq!(said["sub"], "system:serviceaccount:shop:waypoint");
    assert_eq!(said["exp"], 1000 + LIFE.as_secs());
    assert_eq!(
        said["kubernetes.io"],
        json!({
            "namespace": "shop", "serviceaccount": {"name": "waypoint"},
            "pod": {"name": "waypoint-0", "uid": "u1"}, "node": {"name": "node2"},
        })
    );
    assert_eq!(own.refresh_after(), LIFE * 4 / 5);
    let short = Bearer { life: Duration::from_secs(100), ..own };
    assert_eq!(short.refresh_after(), Duration::from_secs(80));
}

#[test]
fn keys_are_private_and_outlive_the_issuer() {
    let dir = Scratch::new("keys");
    let path = dir.0.join("token");
    Issuer::load_or_create(&dir.0).unwrap();
    let public = fs::read_to_string(dir.0.join(PUBLIC_FILE)).unwrap();
    let again = Issuer::load_or_create(&dir.0).unwrap();
    assert_eq!(fs::read_to_string(dir.0.join(PUBLIC_FILE)).unwrap(), public);
    again.refresh(&bearer(), &path, UNIX_EPOCH).unwrap();
    claims(&dir, &path);
    for file in [dir.0.join(KEY_FILE), path] {
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
}

#[test]
fn a_file_that_is_no_key_is_named() {
    let dir = Scratch::new("nokey");
    fs::write(dir.0.join(KEY_FILE), "nonsense").unwrap();
    let text = Issuer::load_or_create(&dir.0).unwrap_err().to_string();
    assert!(text.contains("token-issuer.key.pem is no P-256 key in PEM"), "{text}");
}

fn claims(dir: &Scratch, path: &PathBuf) -> Value {
    let key = DecodingKey::from_ec_pem(&fs::read(dir.0.join(PUBLIC_FILE)).unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::ES256);
    validation.validate_exp = false;
    validation.set_audience(&["istio-ca"]);
    jsonwebtoken::decode::<Value>(fs::read_to_string(path).unwrap(), &key, &validation).unwrap().claims
}

fn bearer() -> Bearer {
    Bearer::node_proxy("node1", "node-uid", "pod-uid".to_owned())
}

/// A directory of this test's own, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ambit-lab-token-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
