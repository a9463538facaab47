//! Questions that an archive answers.

use std::io::Write as _;

use ambit_explain::Verdict;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::*;

/// Two callers, a service, and a policy that lets one of them in.
const MESH: &str = include_str!("../../../../../tests/cases/shop.yaml");

/// A pass into that namespace, for a minute.
const PASS: &str = r#"
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: ambit-breakglass
  namespace: shop
  annotations:
    ambit.internal/breakglass-opened: "2026-01-01T12:00:00Z"
    ambit.internal/breakglass-until: "2026-01-01T12:01:00Z"
spec: {action: ALLOW, rules: [{}]}
"#;

/// A bundle of what a running mesh would have of it.
fn bundle() -> tempfile::NamedTempFile {
    bundle_of(MESH, "2026-01-01T12:00:00Z")
}

/// The same of these manifests, made then.
fn bundle_of(manifests: &str, made: &str) -> tempfile::NamedTempFile {
    let objects = Objects::of_text(manifests).unwrap().staged().unwrap();
    let items: Vec<Value> = objects.all().map(|object| (*object.value).clone()).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let index = json!({"made": made}).to_string();
    for (path, content) in [("ambit-bundle/index.json", &index), ("ambit-bundle/objects.json", &list)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        tar.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    file.write_all(&tar.into_inner().unwrap().finish().unwrap()).unwrap();
    file
}

#[test]
fn a_bundle_is_asked_as_a_mesh_is() {
    let file = bundle();
    for (source, verdict) in [("shop/web", Verdict::Allow), ("shop/batch", Verdict::Deny)] {
        let question = json!({"source": source, "destination": "shop/cart:80", "http": null, "draw": 0});
        let told = explained(file.path(), question).unwrap();
        assert_eq!(told.verdict, verdict, "{source}: {told:?}");
        let code = told.code().map(ambit_types::Reason::code).filter(|_| verdict == Verdict::Deny);
        assert_eq!(code, (verdict == Verdict::Deny).then_some("AMB2104"), "{source}: {told:?}");
    }
}

#[test]
fn a_pass_counts_if_it_was_open_when_the_bundle_was_made() {
    for (made, verdict) in [("2026-01-01T12:00:59Z", Verdict::Allow), ("2026-01-01T12:01:00Z", Verdict::Deny)]
    {
        let file = bundle_of(&format!("{MESH}{PASS}"), made);
        let question =
            json!({"source": "shop/batch", "destination": "shop/cart:80", "http": null, "draw": 0});
        let told = explained(file.path(), question).unwrap();
        assert_eq!(told.verdict, verdict, "{made}: {told:?}");
    }
}

#[test]
fn what_is_no_bundle_or_no_question_is_bad_input() {
    let file = bundle();
    let good = json!({"source": "shop/web", "destination": "shop/cart:80"});
    let code = |file: &Path, question: Value| {
        let error = explained(file, question).unwrap_err();
        error.downcast_ref::<Failure>().map(|failure| failure.code)
    };
    assert_eq!(code(Path::new("no-such-file.tar.gz"), good), Some(out::BAD_DATA));
    assert_eq!(code(file.path(), json!({"source": "shop"})), Some(out::USAGE));
}
