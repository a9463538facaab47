//! Questions that an archive answers.

use std::io::Write as _;

use ambit_explain::Verdict;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::*;

/// Two callers, a service, and a policy that lets one of them in.
const MESH: &str = include_str!("../../../../../tests/cases/shop.yaml");

/// A bundle of what a running mesh would have of it.
fn bundle() -> tempfile::NamedTempFile {
    let objects = Objects::of_text(MESH).unwrap().staged().unwrap();
    let items: Vec<Value> = objects.all().map(|object| (*object.value).clone()).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let mut header = tar::Header::new_gnu();
    header.set_size(list.len() as u64);
    header.set_mode(0o600);
    tar.append_data(&mut header, "ambit-bundle/objects.json", list.as_bytes()).unwrap();
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
