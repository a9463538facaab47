//! The console's committed bundle is that of its committed sources.
//!
//! `console/seal.mjs` writes the sum of every source and of every file of the bundle beside the bundle. The sums are
//! against forgetting to build; a build anew, compared, is CI's.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Finding, SourceFile};

const MANIFEST: &str = "console/dist/manifest.json";
const SOURCES: &str = "console/";
const BUNDLE: &str = "console/dist/";
/// Of the folder of the sources, what no bundle is made of.
const OUTSIDE: &[&str] = &["dist/", "node_modules/", "README.md", "."];
const BUILD: &str = "run `npm ci && npm run build` in console/";
/// Most bytes of the bundle when compressed.
const GZIP_BYTES_MAX: u64 = 300 << 10;

/// Checks the bundle, if there is one.
pub(crate) fn check(files: &[SourceFile]) -> Vec<Finding> {
    let Some(file) = files.iter().find(|file| file.path == MANIFEST) else {
        let is_there = files.iter().any(|file| file.path.starts_with(SOURCES));
        let missing = || Finding::error(MANIFEST, 1, "the console has sources and no bundle", BUILD);
        return is_there.then(missing).into_iter().collect();
    };
    let Ok(manifest) = serde_json::from_str::<Value>(&file.text) else {
        return vec![Finding::error(MANIFEST, 1, "the manifest of the bundle is no JSON", BUILD)];
    };
    let is_source = |inside: &str| !OUTSIDE.iter().any(|outside| inside.starts_with(outside));
    let is_bundle = |inside: &str| inside != "manifest.json";
    let mut findings =
        compare(files, SOURCES, is_source, &manifest["sources"], "the bundle was built without it");
    findings.extend(compare(files, BUNDLE, is_bundle, &manifest["bundle"], "it is not what was built"));
    if manifest["gzip_bytes"].as_u64().is_none_or(|bytes| bytes > GZIP_BYTES_MAX) {
        let what = format!("the bundle has more than {GZIP_BYTES_MAX} bytes when compressed");
        findings.push(Finding::error(MANIFEST, 1, what, "leave something out"));
    }
    findings
}

/// Every file below `folder` has the sum that is noted, and every noted file is there.
fn compare(
    files: &[SourceFile],
    folder: &str,
    counts: impl Fn(&str) -> bool,
    noted: &Value,
    what: &str,
) -> Vec<Finding> {
    let inside = files.iter().filter_map(|file| Some((file.path.strip_prefix(folder)?, &file.text)));
    let now: BTreeMap<&str, String> =
        inside.filter(|(path, _)| counts(path)).map(|(path, text)| (path, sum(text.as_bytes()))).collect();
    let differs = |path: &str| noted[path].as_str() != now.get(path).map(String::as_str);
    let gone = noted.as_object().into_iter().flatten().map(|(path, _)| path.as_str());
    let mut paths: Vec<&str> = now.keys().copied().chain(gone).filter(|path| differs(path)).collect();
    paths.sort_unstable();
    paths.dedup();
    paths.into_iter().map(|path| Finding::error(&format!("{folder}{path}"), 1, what, BUILD)).collect()
}

/// FNV-1a of 64 bits, in hexadecimal.
fn sum(bytes: &[u8]) -> String {
    let fold = |state: u64, byte: &u8| (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{MANIFEST, check, sum};
    use crate::tidy::SourceFile;

    fn file(path: &str, text: &str) -> SourceFile {
        SourceFile { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn the_sum_is_the_published_one() {
        assert_eq!(sum(b""), "cbf29ce484222325");
        assert_eq!(sum(b"a"), "af63dc4c8601ec8c");
        assert_eq!(sum(b"foobar"), "85944171f73967e8");
    }

    #[test]
    fn sources_and_bundle_are_held_together() {
        let sealed = |gzip: u64| {
            let manifest = json!({
                "sources": {"src/main.tsx": sum(b"source")}, "bundle": {"app.js": sum(b"built")}, "gzip_bytes": gzip,
            });
            file(MANIFEST, &manifest.to_string())
        };
        let found = |source: &str, built: &str, more: &[SourceFile]| -> Vec<String> {
            let both = [file("console/src/main.tsx", source), file("console/dist/app.js", built)];
            check(&[&both[..], more].concat()).into_iter().map(|finding| finding.path).collect()
        };
        let nothing: [&str; 0] = [];
        assert_eq!(found("source", "built", &[sealed(1), file("console/README.md", "x")]), nothing);
        assert_eq!(found("changed", "built", &[sealed(1)]), ["console/src/main.tsx"]);
        assert_eq!(found("source", "forged", &[sealed(1)]), ["console/dist/app.js"]);
        assert_eq!(
            found("source", "built", &[sealed(1), file("console/src/new.ts", "")]),
            ["console/src/new.ts"]
        );
        assert_eq!(found("source", "built", &[sealed(400 << 10)]), [MANIFEST]);
        assert_eq!(found("source", "built", &[]), [MANIFEST]);
        let gone: Vec<String> = check(&[sealed(1)]).into_iter().map(|finding| finding.path).collect();
        assert_eq!(gone, ["console/src/main.tsx", "console/dist/app.js"]);
    }
}
