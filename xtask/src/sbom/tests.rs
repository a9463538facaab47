//! The bill of materials of the programs.

use super::*;

fn of(name: &str) -> Value {
    let tools = Tools::locate(option_env!("CARGO").unwrap_or("cargo")).unwrap();
    let lock = fs::read_to_string(tools.root.join("Cargo.lock")).unwrap();
    bill(&tools.metadata, &checksums(&lock), name).unwrap()
}

#[test]
fn a_bill_names_what_is_linked_and_nothing_else() {
    let bill = of("ztunnel");
    let names: Vec<&str> =
        bill["components"].as_array().unwrap().iter().filter_map(|c| c["name"].as_str()).collect();
    for name in ["rustls", "h2", "ambit-policy", "tokio"] {
        assert!(names.contains(&name), "{name} is missing");
    }
    for name in ["ztunnel", "proptest", "prost-build", "kube"] {
        assert!(!names.contains(&name), "{name} is not linked into ztunnel");
    }
}

#[test]
fn what_came_from_a_registry_has_a_checksum_and_every_reference_is_there() {
    let bill = of("ambit-cni");
    let parts = bill["components"].as_array().unwrap();
    for part in parts.iter().filter(|part| !part["name"].as_str().unwrap().starts_with("ambit-")) {
        assert_eq!(part["hashes"][0]["content"].as_str().map(str::len), Some(64), "{part}");
    }
    let mut known: Vec<&Value> = parts.iter().map(|part| &part["bom-ref"]).collect();
    known.push(&bill["metadata"]["component"]["bom-ref"]);
    for one in bill["dependencies"].as_array().unwrap() {
        assert!(known.contains(&&one["ref"]), "{one}");
        assert!(one["dependsOn"].as_array().unwrap().iter().all(|on| known.contains(&on)), "{one}");
    }
}

#[test]
fn an_unknown_package_is_refused() {
    let tools = Tools::locate(option_env!("CARGO").unwrap_or("cargo")).unwrap();
    assert!(bill(&tools.metadata, &BTreeMap::new(), "serde").is_err());
}

#[test]
fn a_lock_file_is_read_block_by_block() {
    let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"ff\"\n\n[[package]]\nname = \"b\"\nversion = \"2.0.0\"\n";
    let sums = checksums(lock);
    assert_eq!(sums.get(&("a".to_owned(), "1.0.0".to_owned())).map(String::as_str), Some("ff"));
    assert_eq!(sums.len(), 1);
}
