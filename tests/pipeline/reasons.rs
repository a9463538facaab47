//! Every reason code has its page and something that provokes it, and no error of the data path is without a code.
//!
//! Reads the repository's own text: what the compiler cannot see is whether a table elsewhere is complete. The message
//! on each page is held against what `ambit why` prints by the tests of that command.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ambit_types::Reason;

/// Sections of a page, in this order.
const SECTIONS: [&str; 5] = ["```text", "## What it means", "## Look", "## Mend", "## Provoked by"];

/// What a page says of a code that is in the list and that nothing gives.
const NOT_GIVEN: &str = "Nothing: no part of this version gives this code yet.";

/// Sources that give codes; those that only tell of all of them are not among them.
const GIVING: [&str; 11] = [
    "cni/src",
    "istiod-lite/src",
    "waypoint/src",
    "ztunnel/src",
    "crates/ambit-control/src",
    "crates/ambit-hbone/src",
    "crates/ambit-net/src",
    "crates/ambit-policy/src",
    "crates/ambit-route/src",
    "crates/ambit-runtime/src",
    "crates/ambit-state/src",
];

/// The data path: where a connection or a request can fail.
const DATA_PATH: [&str; 5] = [
    "ztunnel/src",
    "waypoint/src",
    "crates/ambit-net/src",
    "crates/ambit-hbone/src",
    "crates/ambit-policy/src",
];

/// Error types of the data path without a code of their own, and why that refuses nobody unnamed.
const WITHOUT: &[(&str, &str)] = &[
    ("ambit-hbone/src/authority.rs AuthorityError", "becomes request.rs Refused"),
    ("ambit-hbone/src/request.rs Refused", "always AMB4004, given where it is answered (ztunnel inbound)"),
    ("ambit-hbone/src/request.rs RequestError", "becomes TunnelError::Request, AMB4004"),
    ("ambit-net/src/grpc/attend.rs Ended", "of the control plane; no connection of a pod"),
    ("ambit-net/src/grpc/channel.rs ChannelError", "of the control plane; no connection of a pod"),
    ("ambit-net/src/grpc/xds_stream.rs StreamError", "of the control plane; no connection of a pod"),
    ("ambit-net/src/linux/netns.rs NetNsError", "becomes SocketError"),
    ("ambit-net/src/seqpacket.rs SeqpacketError", "between ztunnel and the node agent"),
    ("ambit-net/src/socket.rs SocketError", "ztunnel admit::reason_of and TunnelError give it one"),
    ("ambit-net/src/tls/credential.rs CredentialError", "becomes CertificateError, AMB2001"),
    ("ambit-net/src/tls/csr.rs CsrError", "becomes CertificateError, AMB2001"),
    ("ambit-net/src/tls/store/export.rs ImportError", "at the start; the certificate is fetched instead"),
    ("ambit-policy/src/http/problem.rs Invalid", "a policy that cannot be compiled refuses with AMB2105"),
    ("ambit-policy/src/http/problem.rs Problem", "a policy that cannot be compiled refuses with AMB2105"),
    (
        "ambit-policy/src/http/provider/problem.rs Invalid",
        "a provider that is not usable refuses with AMB2206",
    ),
    (
        "ambit-policy/src/http/provider/problem.rs Problem",
        "a provider that is not usable refuses with AMB2206",
    ),
    ("ambit-policy/src/http/remote.rs Unreadable", "an answer that cannot be read refuses with AMB2206"),
    (
        "ambit-policy/src/http/template.rs TemplateError",
        "a policy that cannot be compiled refuses with AMB2105",
    ),
    ("ambit-policy/src/jwt.rs SignatureError", "becomes TokenError, AMB2203"),
    ("ambit-policy/src/jwt/claims.rs ClaimsError", "becomes TokenError, AMB2203"),
    ("ambit-policy/src/jwt/compile.rs Invalid", "an issuer that cannot be compiled refuses with AMB2105"),
    ("ambit-policy/src/jwt/compile.rs Problem", "an issuer that cannot be compiled refuses with AMB2105"),
    ("ambit-policy/src/normalize/header.rs Malformed", "a header that cannot be read refuses with AMB2207"),
    ("waypoint/src/calls.rs CallError", "of calls of our own; the caller refuses with AMB2206 or AMB2209"),
    ("waypoint/src/external.rs NoAnswer", "of calls of our own; the caller refuses with AMB2206 or AMB2209"),
    ("waypoint/src/grpc.rs GrpcError", "of calls of our own; the caller refuses with AMB2206 or AMB2209"),
    ("waypoint/src/keys/fetch.rs FetchError", "no keys refuse with AMB2204"),
    ("waypoint/src/keys/guard.rs UrlError", "no keys refuse with AMB2204"),
    ("waypoint/src/keys/jwk.rs SetError", "no keys refuse with AMB2204"),
    ("waypoint/src/observe/export.rs ExportError", "of traces; refuses nobody"),
    ("waypoint/src/observe/otel.rs SettingsError", "of traces; refuses nobody"),
    ("waypoint/src/sessions.rs KeyError", "at the start; ends the program"),
    ("waypoint/src/request/body.rs BodyError", "a response that breaks off; its head has gone already"),
    ("waypoint/src/request/body/replay.rs UploadError", "the client's own doing: 400 or 408 with its name"),
    ("ztunnel/src/nearby.rs Refused", "of the node agent's file; its addresses are not believed"),
    ("ztunnel/src/config/environment.rs EnvironmentError", "at the start; nothing is carried then"),
    ("ztunnel/src/inpod/protocol.rs ZdsError", "between ztunnel and the node agent"),
    ("ztunnel/src/inpod/protocol.rs Refused", "between ztunnel and the node agent"),
    ("ztunnel/src/inpod/workloads.rs StartError", "the node agent says AMB1101 of the pod"),
    ("ztunnel/src/sealed/store.rs StoreError", "of sealed state; Refused gives AMB6004 and AMB6005"),
    ("ztunnel/src/sources.rs Crowded", "always AMB7005, given in inbound.rs"),
];

#[test]
fn every_code_has_a_page_that_names_what_provokes_it() {
    let giving: String = GIVING.iter().flat_map(|folder| sources(folder)).map(|(_, text)| text).collect();
    for reason in Reason::ALL {
        let path = format!("docs/runbooks/{}.md", reason.code());
        let page = fs::read_to_string(root().join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(page.starts_with(&format!("# {reason}\n")), "{path}: the title is not {reason}");
        let places: Vec<Option<usize>> = SECTIONS.iter().map(|section| page.find(section)).collect();
        assert!(
            places.iter().all(Option::is_some) && places.is_sorted(),
            "{path}: {SECTIONS:?} at {places:?}"
        );
        let provokers = page.rsplit(SECTIONS[4]).next().unwrap_or_default();
        let named: Vec<&str> = provokers.lines().filter_map(provoker).collect();
        for file in &named {
            let text =
                fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{path}: {file}: {e}"));
            assert!(tells_of(&text, *reason), "{path}: {file} does not tell of {reason}");
        }
        let variant = format!("Reason::{reason:?}");
        let is_given = has_word(&giving, &variant) || has_word(&giving, reason.code());
        match named.is_empty() {
            true => {
                assert!(provokers.contains(NOT_GIVEN), "{path} names nothing that provokes it");
                assert!(!is_given, "{path} says that nothing gives it, and something does: name a test");
            }
            false => assert!(is_given, "{path} names tests of a code that nothing gives"),
        }
    }
}

#[test]
fn no_page_tells_of_a_code_that_is_not_there() {
    let known: BTreeSet<String> = Reason::ALL.iter().map(|reason| format!("{}.md", reason.code())).collect();
    let entries = fs::read_dir(root().join("docs/runbooks")).expect("the runbooks");
    for entry in entries {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        assert!(!name.starts_with("AMB") || known.contains(&name), "docs/runbooks/{name} has no code");
    }
}

/// A type that says why a connection failed says its code, or stands in the table with who says it.
#[test]
fn every_error_of_the_data_path_has_a_code() {
    let without: BTreeSet<&str> = WITHOUT.iter().map(|(name, _)| *name).collect();
    assert_eq!(without.len(), WITHOUT.len(), "a row stands twice");
    let mut silent = BTreeSet::new();
    for (path, text) in DATA_PATH.iter().flat_map(|folder| sources(folder)) {
        for name in errors(&text).into_iter().filter(|name| !says_code(&text, name)) {
            silent.insert(format!("{} {name}", path.trim_start_matches("crates/")));
        }
    }
    let new: Vec<&String> = silent.iter().filter(|name| !without.contains(name.as_str())).collect();
    assert!(new.is_empty(), "without a code: {new:#?}; give them `fn reason`, or say in WITHOUT who does");
    let gone: Vec<&&str> = without.iter().filter(|name| !silent.contains(**name)).collect();
    assert!(gone.is_empty(), "not there any more, or with a code now: {gone:?}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").to_owned()
}

/// Every source below a folder with its path in the repository, without its tests.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.extend((name != "tests").then_some(path));
            } else if name.ends_with(".rs") && !["tests.rs", "testing.rs"].contains(&name.as_str()) {
                let text = fs::read_to_string(&path).expect("a source");
                let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
                let told = path.strip_prefix(root()).expect("below the root").display().to_string();
                found.push((told, code.to_owned()));
            }
        }
    }
    found
}

/// The file of a line such as "- `tests/netns/policy.rs`".
fn provoker(line: &str) -> Option<&str> {
    line.strip_prefix("- `")?.strip_suffix('`')
}

/// Whether a text names a code by its number, its variant or its name.
fn tells_of(text: &str, reason: Reason) -> bool {
    let variant = format!("Reason::{reason:?}");
    [reason.code(), &variant, reason.name()].iter().any(|word| has_word(text, word))
}

/// Whether a text has a word that is not part of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let ends = |at: usize| !text[at + word.len()..].starts_with(is_part);
    let begins = |at: usize| !text[..at].ends_with(is_part);
    text.match_indices(word).any(|(at, _)| begins(at) && ends(at))
}

/// Names of the error types that a source declares.
fn errors(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut is_error = false;
    for line in text.lines().map(str::trim) {
        is_error |= line.starts_with("#[derive(") && line.contains("thiserror::Error");
        let mut words = line.split(' ').skip_while(|word| !["enum", "struct"].contains(word)).skip(1);
        if let (true, false, Some(name)) = (is_error, line.starts_with(['#', '/']), words.next()) {
            found.push(name.split(['<', '(', ';', '{']).next().unwrap_or_default());
            is_error = false;
        }
    }
    found
}

/// Whether a type has a code: a method that tells it, or a member that holds it.
fn says_code(text: &str, name: &str) -> bool {
    let block = |at: usize| text[at..].split("\n}").next().unwrap_or_default();
    let blocks = |head: String| text.match_indices(&head).map(|(at, _)| block(at)).collect::<Vec<_>>();
    let tells = |block: &&str| block.contains("fn reason(") || block.contains("fn code(");
    let holds = |block: &&str| block.contains(": Reason");
    blocks(format!("impl {name} {{")).iter().any(tells)
        || ["enum", "struct"].iter().any(|kind| blocks(format!("{kind} {name} {{")).iter().any(holds))
}
