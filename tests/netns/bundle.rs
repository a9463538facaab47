//! `ambit support-bundle`: everything of a mesh is in it, and nothing that has to stay secret.
//!
//! Secrets are planted where people leave them: in an annotation, in a Secret, in the path of a request. That they would
//! be in the archive is shown by one with all secrets.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ambit_tests::lab::{Lab, wait_until};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use flate2::read::GzDecoder;
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::cast::security;
use crate::waypoint::shop::{CLIENT, OTHER, Shop, V1};

/// The service behind [`V1`].
const TARGET: &str = "web-v1.shop.svc.cluster.local:80";

/// What is planted, and the piece of it that is looked for.
struct Planted {
    key: String,
    token: String,
    password: &'static str,
}

impl Planted {
    fn new() -> Self {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let signature = part("a-signature-that-nobody-checks");
        Self {
            key: KeyPair::generate().expect("a key").serialize_pem(),
            token: format!("{}.{}.{signature}", part(r#"{"alg":"ES256"}"#), part(r#"{"sub":"anna"}"#)),
            password: "correct-horse-battery-staple",
        }
    }

    fn objects(&self) -> [Value; 2] {
        let annotations = json!({
            "example.com/key": self.key,
            "example.com/key-in-base64": STANDARD.encode(&self.key),
            "example.com/from": format!("https://anna:{}@example.com/settings", self.password),
        });
        [
            json!({
                "apiVersion": "v1", "kind": "ConfigMap", "data": {"note": format!("Authorization: Bearer {}", self.token), "password": self.password},
                "metadata": {"name": "notes", "namespace": "shop", "annotations": annotations},
            }),
            json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "planted", "namespace": "shop"},
                "data": {"password": STANDARD.encode(self.password), "tls.key": STANDARD.encode(&self.key)},
            }),
        ]
    }

    /// Texts that give one of them away.
    fn traces(&self) -> Vec<String> {
        let body = self.key.lines().nth(1).expect("a body").to_owned();
        let in_base64 = STANDARD.encode(&self.key)[..40].to_owned();
        let signature = self.token.rsplit('.').next().expect("three parts").to_owned();
        vec![body, in_base64, signature, self.password.to_owned(), STANDARD.encode(self.password)]
    }
}

/// The files of an archive by their path below its folder.
#[track_caller]
pub(crate) fn unpacked(archive: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut tar = tar::Archive::new(GzDecoder::new(File::open(archive).expect("the archive")));
    let mut files = BTreeMap::new();
    for entry in tar.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").to_string_lossy().into_owned();
        let (folder, below) = path.split_once('/').expect("a folder");
        assert!(folder.starts_with("ambit-bundle-"), "{path}");
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("its content");
        files.insert(below.to_owned(), content);
    }
    files
}

fn holds(content: &[u8], wanted: &[u8]) -> bool {
    content.windows(wanted.len()).any(|window| window == wanted)
}

/// Every file that has one of the texts.
fn with_any(files: &BTreeMap<String, Vec<u8>>, texts: &[String]) -> Vec<String> {
    let has = |content: &[u8]| texts.iter().any(|text| holds(content, text.as_bytes()));
    files.iter().filter(|(_, content)| has(content)).map(|(path, _)| path.clone()).collect()
}

#[track_caller]
fn document(files: &BTreeMap<String, Vec<u8>>, path: &str) -> Value {
    let content = files.get(path).unwrap_or_else(|| panic!("no {path} among {:?}", files.keys()));
    serde_json::from_slice(content).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// First lines of the bodies of all private keys in files of the lab, its authority's among them.
fn keys_of(directory: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().expect("a kind of file"));
        if kind.is_dir() && !path.ends_with("objects") && !path.ends_with("logs") {
            keys_of(&path, found);
        } else if kind.is_file() {
            let text = fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let mut lines = text.lines();
            while let Some(line) = lines.next() {
                if line.ends_with("PRIVATE KEY-----") && line.starts_with("-----BEGIN") {
                    found.extend(lines.next().map(str::to_owned));
                }
            }
        }
    }
}

fn bundle(lab: &Lab, name: &str, more: &[&str]) -> (PathBuf, Value, String) {
    let to = PathBuf::from(lab.folder("bundles")).join(name);
    let file = to.display().to_string();
    let output = lab.ambit(&[&["support-bundle", "--to", &file, "-o", "json"], more].concat());
    assert_eq!(output.code, Some(0), "{output:?}");
    let told = serde_json::from_str(&output.stdout).expect("JSON");
    (to, told, output.stderr)
}

fn up(name: &str, planted: &Planted) -> Option<Shop> {
    let shop = Shop::up(name, &planted.objects())?;
    let told = shop.get(CLIENT, &format!("{V1}/as/{}", planted.token), &["--timeout", "5s"]);
    assert_ne!(told.status(), 0, "{}", told.error());
    let deny = json!({
        "targetRefs": [{"group": "", "kind": "Service", "name": "web-v1"}],
        "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/client"]}}]}],
    });
    shop.lab.apply(&[security("AuthorizationPolicy", "shop/own", &deny)]);
    wait_until("the other one is refused", Duration::from_secs(20), || {
        shop.get(OTHER, &format!("{V1}/ready"), &["--timeout", "2s"]).status() == 403
    });
    wait_until("the request is recorded", Duration::from_secs(10), || {
        shop.lab.flows(&[]).iter().any(|flow| flow["http"]["path"].is_string())
    });
    Some(shop)
}

#[test]
fn a_bundle_has_everything_but_secrets() {
    let planted = Planted::new();
    let Some(shop) = up("bundle", &planted) else { return };
    let lab = &shop.lab;
    let (all, _, loud) = bundle(lab, "all.tar.gz", &["--full-secrets"]);
    assert!(loud.contains("WARNING"), "{loud}");
    let files = unpacked(&all);
    for trace in planted.traces() {
        let found = with_any(&files, std::slice::from_ref(&trace));
        assert!(!found.is_empty(), "{trace} was not planted well");
    }
    let (clean, told, quiet) = bundle(lab, "clean.tar.gz", &[]);
    assert!(!quiet.contains("WARNING"), "{quiet}");
    assert_eq!(clean.metadata().expect("a file").permissions().mode() & 0o777, 0o600);
    let item = &told["items"][0];
    assert_eq!(
        (&told["apiVersion"], &told["kind"]),
        (&json!("cli.ambit.internal/v1"), &json!("SupportBundleList"))
    );
    assert_eq!((&item["secrets"], item["path"].as_str()), (&json!("redacted"), clean.to_str()));
    assert!(item["redactions"].as_u64() >= Some(5), "{item}");
    let files = unpacked(&clean);
    assert_eq!(item["files"].as_u64().map(usize::try_from), Some(Ok(files.len())));
    assert_eq!(with_any(&files, &planted.traces()), [""; 0], "planted secrets are in it");
    let mut keys = vec!["PRIVATE KEY-----".to_owned()];
    keys_of(&lab.run_dir(), &mut keys);
    assert!(keys.len() > 1, "the lab has no key in a file");
    assert_eq!(with_any(&files, &keys), [""; 0], "private keys are in it");
    contents(&files);
    offline(lab, &clean, &files);
    let again = lab.ambit(&["support-bundle", "--to", &clean.display().to_string()]);
    assert!(again.code == Some(1) && again.stderr.contains("there already"), "{again:?}");
}

/// What somebody who helps looks at first.
#[track_caller]
fn contents(files: &BTreeMap<String, Vec<u8>>) {
    assert_eq!(document(files, "status.json")["kind"], "NodeList");
    assert_eq!(document(files, "index.json")["kind"], "SupportBundle");
    assert!(document(files, "istiod/sync.json")["revision"].is_u64());
    for node in ["node1", "node2"] {
        let dump = document(files, &format!("nodes/{node}/ztunnel/config_dump.json"));
        assert!(dump["workloads"].as_array().is_some_and(|all| all.len() > 3), "{dump}");
        let _ = document(files, &format!("nodes/{node}/ztunnel/connections.json"));
        assert!(document(files, &format!("nodes/{node}/cni/pods.json")).is_array());
        let flows =
            String::from_utf8_lossy(&files[&format!("nodes/{node}/ztunnel/flows.jsonl")]).into_owned();
        assert!(flows.contains("conn_id") && flows.contains("footer"), "{flows}");
        let metrics =
            String::from_utf8_lossy(&files[&format!("nodes/{node}/ztunnel/metrics.txt")]).into_owned();
        assert!(metrics.contains("# TYPE"), "{metrics}");
        assert!(files.contains_key(&format!("logs/ztunnel-{node}.log")), "{:?}", files.keys());
    }
    let waypoint =
        files.keys().any(|path| path.starts_with("waypoints/shop-") && path.ends_with("flows.jsonl"));
    assert!(waypoint, "{:?}", files.keys());
    assert!(files.keys().any(|path| path.starts_with("logs/pod-shop-waypoint-")), "{:?}", files.keys());
    assert!(!files.contains_key("logs/pod-shop-client.log"), "an application's log is in it");
    let rules = String::from_utf8_lossy(&files["kernel/rules/shop-client.nft"]).into_owned();
    assert!(rules.contains("15001"), "{rules}");
    let objects = document(files, "objects.json");
    let named = |kind: &str| objects["items"].as_array().into_iter().flatten().any(|one| one["kind"] == kind);
    assert!(named("Secret") && named("AuthorizationPolicy") && named("Pod"), "{objects}");
}

/// Dumps read like the nodes that they came from, and verdicts come out as the mesh gives them.
#[track_caller]
fn offline(lab: &Lab, archive: &Path, files: &BTreeMap<String, Vec<u8>>) {
    let dump = String::from_utf8_lossy(&files["nodes/node1/ztunnel/config_dump.json"]).into_owned();
    let dump = lab.file("dump.json", &dump);
    for kind in ["workloads", "services", "policies"] {
        let live = lab.ambit(&["get", kind, "--node", "node1", "-o", "name"]).ok();
        assert_eq!(lab.ambit(&["get", kind, "--file", &dump, "-o", "name"]).ok(), live, "{kind}");
    }
    let archive = archive.display().to_string();
    for client in [CLIENT, OTHER] {
        let ask = |more: &[&str]| -> Value {
            let args =
                [&["explain", client, TARGET, "--method", "GET", "--path", "/ready", "-o", "json"], more];
            serde_json::from_str(&lab.ambit(&args.concat()).ok()).expect("JSON")
        };
        let (live, read) = (ask(&[]), ask(&["--bundle", &archive]));
        for field in ["verdict", "reason", "way", "source"] {
            assert_eq!(
                read["items"][0][field], live["items"][0][field],
                "{client}: {field}: {read:#} and {live:#}"
            );
        }
        let want = if client == CLIENT { "allow" } else { "deny" };
        assert_eq!(read["items"][0]["verdict"], want, "{client}");
    }
    let none = lab.file("none.tar.gz", "nothing of the kind");
    assert_eq!(lab.ambit(&["explain", CLIENT, TARGET, "--bundle", &none]).code, Some(65));
}

#[test]
fn what_cannot_be_had_is_listed_and_what_must_not_be_in_it_ends_it() {
    let planted = Planted::new();
    let Some(shop) = up("bundlegap", &planted) else { return };
    let lab = &shop.lab;
    let key =
        fs::read(lab.run_dir().join("nodes/node2/state.key")).expect("the node's key of its sealed state");
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let mark = |change: &str| drop(lab.lab(&["annotate", "configmap", "notes", "-n", "shop", change]));
    mark(&format!("example.com/state={hex}"));
    let to = PathBuf::from(lab.folder("refused")).join("refused.tar.gz");
    let refused = lab.ambit(&["support-bundle", "--to", &to.display().to_string()]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("objects.json: key or token of the lab itself"), "{refused:?}");
    assert!(!refused.stderr.contains(&hex[..16]) && !refused.stdout.contains(&hex[..16]), "{refused:?}");
    let left = fs::read_dir(to.parent().expect("a folder")).expect("the folder").count();
    assert_eq!(left, 0, "something is left of a refused archive");
    mark("example.com/state-");
    let _ = lab.lab(&["stop", "ztunnel/node1"]);
    let (archive, told, stderr) = bundle(lab, "gap.tar.gz", &["--since", "1ms"]);
    let files = unpacked(&archive);
    let index = document(&files, "index.json");
    for missing in [&told["items"][0]["missing"], &index["missing"]] {
        let all = missing.as_array().expect("a list");
        let dump = all.iter().find(|one| one["what"] == "nodes/node1/ztunnel/config_dump.json");
        let why = dump.and_then(|one| one["why"].as_str()).unwrap_or_default();
        assert!(why.contains("connecting to"), "{missing}");
    }
    assert!(stderr.contains("not in it:"), "{stderr}");
    assert!(files.contains_key("nodes/node2/ztunnel/config_dump.json"), "{:?}", files.keys());
    let flows = String::from_utf8_lossy(&files["nodes/node2/ztunnel/flows.jsonl"]).into_owned();
    assert!(flows.contains("footer"), "{flows}");
    assert!(flows.lines().count() < lab.flows(&["--node", "node2"]).len().max(2), "older records are in it");
}
