//! Every check, each with a sample that breaks it and one that does not.

use std::collections::{BTreeMap, BTreeSet};

use super::imports::Package;
use super::*;

fn file(path: &str, text: &str) -> SourceFile {
    SourceFile { path: path.to_owned(), text: text.to_owned() }
}

/// Checks one file; `want` lists line and a part of each finding, in order.
#[track_caller]
fn check(path: &str, text: &str, want: &[(usize, &str)]) {
    let findings = check_files(&[file(path, text)]);
    let got: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(findings.len(), want.len(), "{path}: {got:#?}");
    for (finding, (line, part)) in findings.iter().zip(want) {
        assert_eq!((finding.line, finding.path.as_str()), (*line, path), "{finding}");
        assert!(finding.what.contains(part), "{finding} does not say {part}");
        assert!(!finding.mend.is_empty(), "{finding} does not say how to mend it");
    }
}

/// A module of one function, `lines` lines long from its signature to its closing brace.
fn function(lines: usize) -> String {
    format!("//! A module.\n\n{}fn long() {{\n{}}}\n", "// why\n", "    act();\n".repeat(lines - 2))
}

#[test]
fn a_module_says_what_it_is() {
    check("a/src/lib.rs", "//! Decides.\nfn f() {}\n", &[]);
    check("a/src/lib.rs", "\n//! Decides.\n", &[]);
    check("a/src/lib.rs", "fn f() {}\n", &[(1, "does not say what it is")]);
    check("a/src/lib.rs", "//!\nfn f() {}\n", &[(1, "does not say what it is")]);
    check("a/src/lib.rs", "// A comment.\n//! Late.\n", &[(1, "does not say what it is")]);
    check("a/src/lib.rs", "", &[(1, "does not say what it is")]);
}

#[test]
fn a_function_has_at_most_70_lines() {
    check("a/src/lib.rs", &function(70), &[]);
    check("a/src/lib.rs", &function(71), &[(4, "fn long has 71 lines")]);
    let method = format!("//! M.\nimpl A {{\n    fn m() {{\n{}    }}\n}}\n", "        act();\n".repeat(69));
    check("a/src/lib.rs", &method, &[(3, "fn m has 71 lines")]);
    let default = format!("//! M.\ntrait A {{\n    fn d() {{\n{}    }}\n}}\n", "        act();\n".repeat(69));
    check("a/src/lib.rs", &default, &[(3, "fn d has 71 lines")]);
}

#[test]
fn a_file_has_at_most_800_lines() {
    let lines = |n: usize| format!("//! M.\n{}", "// line\n".repeat(n - 1));
    check("a/src/lib.rs", &lines(500), &[]);
    check("a/src/lib.rs", &lines(800), &[(501, "more than 500")]);
    check("a/src/lib.rs", &lines(801), &[(801, "more than 800")]);
    let weights = [500, 501, 801].map(|n| check_files(&[file("a.rs", &lines(n))]).pop().map(|f| f.weight));
    assert_eq!(weights, [None, Some(Weight::Note), Some(Weight::Error)]);
}

#[test]
fn unsafe_has_one_home() {
    let block = "//! M.\nfn f() {\n    unsafe { g() }\n}\n";
    check("crates/ambit-net/src/linux/netns.rs", block, &[]);
    check("crates/ambit-net/src/linux.rs", block, &[]);
    check("crates/ambit-net/src/socket.rs", block, &[(3, "unsafe outside")]);
    check("ztunnel/src/a.rs", "//! M.\nunsafe impl Send for A {}\n", &[(2, "unsafe outside")]);
    check(
        "ztunnel/src/a.rs",
        "//! M.\nmacro_rules! m {\n    () => { unsafe { g() } };\n}\n",
        &[(3, "unsafe outside")],
    );
    check("ztunnel/src/a.rs", "//! M.\n#![forbid(unsafe_code)]\n/// Not unsafe.\nfn f() {}\n", &[]);
}

#[test]
fn tests_always_run() {
    check("a/src/t.rs", "//! T.\n#[test]\n#[ignore]\nfn t() {}\n", &[(3, "marked ignore")]);
    check("a/src/t.rs", "//! T.\n#[test]\n#[ignore = \"slow\"]\nfn t() {}\n", &[(3, "marked ignore")]);
    check(
        "a/src/t.rs",
        "//! T.\n#[test]\n#[should_panic(expected = \"x\")]\nfn t() {}\n",
        &[(3, "marked should_panic")],
    );
    check("a/src/t.rs", "//! T.\n#[cfg_attr(not(root), ignore)]\nfn t() {}\n", &[(2, "marked ignore")]);
    check("a/src/t.rs", "//! T.\nm! { #[ignore] fn t() {} }\n", &[(2, "marked ignore")]);
    check("a/src/t.rs", "//! T.\n#[arg(ignore_case)]\nfn ignore() { let [ignore] = [1]; }\n", &[]);
}

#[test]
fn only_the_data_path_names_traffic_modules() {
    let one = "//! M.\nuse ambit_net::tunnel::Server;\n";
    check("ztunnel/src/a.rs", one, &[]);
    check("ambit/src/a.rs", one, &[(2, "ambit_net::tunnel")]);
    check("lab/src/a.rs", "//! M.\nfn f() { ambit_net::relay::run() }\n", &[(2, "ambit_net::relay")]);
    check(
        "lab/src/a.rs",
        "//! M.\nuse ambit_net::{socket, relay::{self, Limits}};\n",
        &[(2, "ambit_net::relay")],
    );
    check("lab/src/a.rs", "//! M.\nuse ambit_net::socket::tunnel;\n", &[]);
    check("lab/src/a.rs", "//! M.\nuse ambit_net::{socket::relay, linux};\n", &[]);
}

#[test]
fn broken_source_is_a_finding() {
    check("a/src/lib.rs", "//! M.\nfn f( {\n", &[(1, "no Rust")]);
    check("a/src/lib.rs", "//! M.\nfn f() {}\nfn fn\n", &[(3, "no Rust")]);
}

#[test]
fn paths_of_one_machine_and_leftovers_are_found() {
    check("README.md", "cd /home/alice/mesh\n", &[(1, "/home/")]);
    check("Makefile", "a:\n\tcp x /tmp/x\n", &[(2, "/tmp/")]);
    check("README.md", "a socket in /tmp/ambit-1000/lab, a copy in /tmp/copy\n", &[(1, "/tmp/")]);
    check("README.md", "a socket in /tmp/ambit-1000/lab\n", &[]);
    check("README.md", "log in `/root/.cargo`\n", &[(1, "/root/")]);
    check("README.md", "cd \"/work/mesh\"\n", &[(1, "/work/")]);
    check("README.md", "<<<<<<< ours\n", &[(1, "leftover")]);
    check("a/src/lib.rs", "//! M.\nfn f() { todo!() }\n", &[(2, "leftover")]);
    check("README.md", "This page is AI-generated.\n", &[(1, "how this text was made")]);
    check("README.md", "docs/work/a, {dir}/tmp/b, $HOME/home/c and the briefing\n", &[]);
}

#[test]
fn links_lead_somewhere() {
    let page =
        |text: &str| vec![file("docs/a.md", text), file("docs/adr/0001.md", ""), file("README.md", "")];
    let count = |text: &str| check_files(&page(text)).len();
    assert_eq!(
        count("[x](adr/0001.md) [y](../README.md#top) [z](#here) [w](https://a.example/) [d](adr/)"),
        0
    );
    assert_eq!(count("[x](adr/0002.md)"), 1);
    assert_eq!(count("[x](../README.txt) and [y](README.md)"), 2);
}

#[test]
fn manifests_inherit_lints_and_versions() {
    let head = "[lints]\nworkspace = true\n";
    check("a/Cargo.toml", &format!("{head}[dependencies]\nserde.workspace = true\n"), &[]);
    check("a/Cargo.toml", &format!("{head}[dependencies]\nserde = {{ workspace = true }}\n"), &[]);
    check("a/Cargo.toml", "[dependencies]\n", &[(1, "lints")]);
    check("a/Cargo.toml", &format!("{head}[dev-dependencies]\nserde = \"1\"\n"), &[(4, "serde = \"1\"")]);
    check(
        "a/Cargo.toml",
        &format!("{head}[build-dependencies]\nx = {{ git = \"y\" }}\n"),
        &[(4, "outside the root")],
    );
}

fn package(name: &str, workspace: &[&str], outside: &[&str], reached: &[(&str, &str)]) -> Package {
    let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<String>>();
    let pairs = reached.iter().map(|(name, via)| ((*name).to_owned(), (*via).to_owned()));
    Package {
        name: name.to_owned(),
        manifest: "x/Cargo.toml".to_owned(),
        workspace: set(workspace),
        outside: set(outside),
        reached: pairs.collect::<BTreeMap<_, _>>(),
        default_features: Vec::new(),
    }
}

/// Checks one package; findings about table rows without a member are left out.
#[track_caller]
fn check_package(package: Package, want: &[&str]) {
    let findings = imports::check(&[package]);
    let own: Vec<String> =
        findings.iter().filter(|f| f.path == "x/Cargo.toml").map(|f| f.what.clone()).collect();
    assert_eq!(own.len(), want.len(), "{own:#?}");
    for (what, part) in own.iter().zip(want) {
        assert!(what.contains(part), "{what} does not say {part}");
    }
}

#[test]
fn imports_go_down_or_along_the_arrows() {
    check_package(package("ambit-state", &["ambit-policy", "ambit-types"], &["rpds"], &[]), &[]);
    check_package(package("ambit-policy", &["ambit-state"], &[], &[]), &["may not import ambit-state"]);
    check_package(package("ambit-net", &["ambit-policy"], &[], &[]), &["may not import ambit-policy"]);
    check_package(
        package("ztunnel", &["ambit-control", "ambit-lab"], &[], &[]),
        &["ambit-control", "ambit-lab"],
    );
    check_package(package("ambit-lab", &["ztunnel"], &[], &[]), &["may not import ztunnel"]);
    check_package(package("ambit-tests", &["ztunnel", "ambit-lab", "ambit-net"], &["tokio"], &[]), &[]);
    check_package(package("ambit", &["ambit-tests"], &[], &[]), &["may not import ambit-tests"]);
    check_package(package("ambit-extra", &[], &[], &[]), &["has no layer"]);
}

#[test]
fn pure_crates_stay_pure() {
    check_package(package("ambit-types", &[], &["serde", "regex"], &[]), &["not regex"]);
    check_package(package("ambit-policy", &[], &["tokio"], &[]), &["uses tokio"]);
    check_package(
        package("ambit-policy", &[], &["nice"], &[("tokio", "nice")]),
        &["reaches tokio through nice"],
    );
    check_package(package("ambit-control", &[], &["k8s-openapi"], &[]), &["uses k8s-openapi"]);
    check_package(package("ambit-manifest", &[], &["k8s-openapi"], &[]), &[]);
    check_package(package("ambit-state", &[], &["rand"], &[]), &["uses rand"]);
    check_package(package("ambit-xds", &[], &["prost", "tonic"], &[]), &["uses tonic"]);
    check_package(package("ambit-hbone", &[], &["socket2"], &[]), &["uses socket2"]);
    check_package(package("ambit-cni", &[], &["rustls"], &[]), &["uses rustls"]);
    check_package(package("ztunnel", &[], &["kube"], &[]), &["uses kube"]);
    check_package(package("istiod-lite", &[], &["kube"], &[]), &[]);
}

#[test]
fn no_feature_is_on_by_default() {
    let mut noisy = package("ambit-state", &[], &[], &[]);
    noisy.default_features = vec!["extra".to_owned()];
    check_package(noisy, &["features on by default: extra"]);
}

#[test]
fn a_row_without_member_is_found() {
    let findings = imports::check(&[]);
    assert_eq!(findings.len(), crate::layers::TABLE.len());
}

#[test]
fn the_tree_is_read_with_and_without_git() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("a/target")).unwrap();
    std::fs::write(folder.path().join("a/b.rs"), "//! B.\n").unwrap();
    std::fs::write(folder.path().join("a/target/c.rs"), "built").unwrap();
    std::fs::write(folder.path().join("a/d.bin"), [0xff, 0xfe]).unwrap();
    let paths = |files: Vec<SourceFile>| files.into_iter().map(|f| f.path).collect::<Vec<_>>();
    assert_eq!(paths(tree::read(folder.path()).unwrap()), ["a/b.rs"]);
}
