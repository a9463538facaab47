//! Objects in a folder: one file each, replaced as the store does it but without waiting for the disk, whose speed is
//! not what is measured.

use std::fs;
use std::path::{Path, PathBuf};

use ambit_runtime::clock;
use anyhow::Context as _;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};

use crate::layout::{self, Layout, Name};

/// Who issues the proxies' tokens, as the control plane expects it.
const ISSUER: &str = "ambit-lab";
/// For whom they are meant.
pub(crate) const AUDIENCE: &str = "istio-ca";
/// Life of a token in seconds: under the hour that the control plane accepts.
const TOKEN_SECONDS: u64 = 3500;
/// Where the namespace stands for an object that has none.
const CLUSTER: &str = "_";

/// A folder of manifests, and the key that signs tokens.
pub(crate) struct Folder {
    root: PathBuf,
    public_key: PathBuf,
    key: EncodingKey,
    revision: u64,
}

impl Folder {
    /// Makes one below `home`, with namespaces and accounts.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(crate) fn make(home: &Path, layout: &Layout) -> anyhow::Result<Self> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("making a key")?;
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).context("reading the key")?;
        let (root, public_key) = (home.join("objects"), home.join("issuer.pem"));
        fs::create_dir_all(&root).with_context(|| format!("making {}", root.display()))?;
        fs::write(&public_key, pair.public_key_pem())
            .with_context(|| format!("writing {}", public_key.display()))?;
        let folder = Self { root, public_key, key, revision: 0 };
        for object in layout.namespaces().iter().chain(&layout.accounts()) {
            folder.write(object)?;
        }
        Ok(folder)
    }

    /// Writes everything else, before anybody reads.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(crate) fn fill(&mut self, layout: &Layout) -> anyhow::Result<()> {
        let services = layout.service_objects(|number| Some(service_address(number)));
        let pods = (0..layout.places()).map(|place| layout.pod_object(place));
        for object in layout.node_objects().chain(services).chain(layout.proxy_objects()).chain(pods) {
            self.write(&object)?;
        }
        self.raise().map(drop)
    }

    /// Arguments of the control plane.
    pub(crate) fn arguments(&self) -> Vec<String> {
        vec![
            "--source=folder".to_owned(),
            format!("--folder={}", self.root.display()),
            format!("--token-issuer-key={}", self.public_key.display()),
            format!("--token-issuer={ISSUER}"),
        ]
    }

    /// A token of a node's proxy.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub(crate) fn token(&self, node: usize) -> anyhow::Result<String> {
        let (now, account) = (clock::unix_seconds(), layout::PROXY);
        let claims = json!({
            "iss": ISSUER, "aud": [AUDIENCE], "iat": now, "nbf": now, "exp": now + TOKEN_SECONDS,
            "sub": format!("system:serviceaccount:{}:{account}", layout::SYSTEM),
            "kubernetes.io": {
                "namespace": layout::SYSTEM,
                "serviceaccount": {"name": account},
                "pod": {"name": layout::proxy(node), "uid": layout::proxy_uid(node)},
                "node": {"name": layout::node(node), "uid": layout::node_uid(node)},
            },
        });
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.key).context("signing a token")
    }

    /// Puts an object in place; the revision that contains it.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(crate) fn put(&mut self, object: &Value) -> anyhow::Result<u64> {
        self.write(object)?;
        self.raise()
    }

    /// Removes an object.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn remove(&mut self, name: &Name) -> anyhow::Result<()> {
        let path = self.path(name.kind, name.namespace.as_deref(), &name.name);
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        self.raise().map(drop)
    }

    fn path(&self, kind: &str, namespace: Option<&str>, name: &str) -> PathBuf {
        self.root.join(kind).join(namespace.unwrap_or(CLUSTER)).join(format!("{name}.yaml"))
    }

    fn write(&self, object: &Value) -> anyhow::Result<()> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let kind = text("/kind").context("an object without a kind")?;
        let name = text("/metadata/name").context("an object without a name")?;
        // JSON is YAML.
        replace(&self.path(kind, text("/metadata/namespace"), name), &object.to_string())
    }

    /// Counts a write, once its file is in place.
    fn raise(&mut self) -> anyhow::Result<u64> {
        self.revision += 1;
        replace(&self.root.join(".revision"), &format!("{}\n", self.revision))?;
        Ok(self.revision)
    }
}

/// Puts a file in place in one step, from a name that nobody reads.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let folder = path.parent().context("a file without a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let temporary = folder.join(".write");
    fs::write(&temporary, text)
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("writing {}", path.display()))
}

/// The address of a service, in 10.96.0.0/12, where no pod has one.
fn service_address(number: usize) -> String {
    let number = u32::try_from(number % (1 << 20)).unwrap_or_default() + 1;
    let [_, a, b, c] = number.to_be_bytes();
    format!("10.{}.{b}.{c}", 96 + a)
}
