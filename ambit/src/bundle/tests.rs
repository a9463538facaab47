//! What is rendered from the manifests: settings, order, and that nothing unknown is kept.

use super::*;

fn settings(words: &[&str]) -> Settings {
    Settings::parse(words).unwrap()
}

#[test]
fn without_settings_it_is_the_files_themselves() {
    let text = yaml(&Settings::default());
    for part in PARTS {
        let is_on = part.switch.is_none_or(|switch| Settings::default().is_on(switch));
        assert_eq!(text.contains(part.text), is_on, "{}", part.path);
    }
}

#[test]
fn every_default_stands_in_the_manifests() {
    let everything: String = PARTS.iter().map(|part| part.text).collect();
    for (word, _) in Settings::default().replacements() {
        assert!(everything.contains(&word), "{word:?} is replaced but stands nowhere");
    }
    for setting in SETTINGS {
        assert!(Settings::default().get(setting.key) == setting.default);
        assert!(
            settings(&[&format!("{}={}", setting.key, setting.default)]).get(setting.key) == setting.default
        );
    }
}

#[test]
fn every_setting_changes_something() {
    let before = yaml(&Settings::default());
    for setting in SETTINGS {
        let other = match setting.shape {
            Shape::Word => "/other",
            Shape::Count => "3",
            Shape::Switch if setting.default == "true" => "false",
            Shape::Switch => "true",
            Shape::OneOf(words) => words.iter().find(|word| **word != setting.default).unwrap(),
        };
        let changed = settings(&[&format!("{}={other}", setting.key)]);
        assert_ne!(yaml(&changed), before, "{}", setting.key);
        assert!(objects(&changed).is_ok(), "{}", setting.key);
    }
}

#[test]
fn no_value_leaves_its_place() {
    for (word, error) in [
        ("logLevel", "not KEY=VALUE"),
        ("loglevel=debug", "nothing is called"),
        ("logLevel=", "cannot be"),
        ("logLevel=a\"}, {name: X", "cannot be"),
        ("trustDomain=a b", "cannot be"),
        ("clusterId=-x", "cannot be"),
        ("istiod.replicas=0", "cannot be"),
        ("istiod.replicas=03", "cannot be"),
        ("webhook=yes", "cannot be"),
        ("image.pullPolicy=Sometimes", "cannot be"),
    ] {
        let told = Settings::parse(&[word]).unwrap_err().to_string();
        assert!(told.contains(error), "{word}: {told}");
    }
}

#[test]
fn everything_is_named_ours_and_named_once() {
    let mut seen = std::collections::BTreeSet::new();
    for object in everything().unwrap() {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let name = format!("{} {}/{}", text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
        assert_eq!(object["metadata"]["labels"][PART_OF.0], PART_OF.1, "{name}");
        assert_eq!(
            object["metadata"]["labels"]["app.kubernetes.io/version"],
            env!("CARGO_PKG_VERSION"),
            "{name}"
        );
        assert!(seen.insert(name.clone()), "{name} is there twice");
    }
    assert!(seen.len() > 30, "only {} objects", seen.len());
}

/// One object that nests deeper than a reader of JSON goes would keep a whole kind from being read: a definition bounds
/// what people write. The status is the control plane's own.
#[test]
fn nothing_that_people_write_is_kept_without_a_schema() {
    fn open(schema: &Value, path: &str, found: &mut Vec<String>) {
        if schema["x-kubernetes-preserve-unknown-fields"] == true {
            found.push(path.to_owned());
        }
        let maps = schema.as_object().into_iter().flatten().map(|(key, one)| (key.clone(), one));
        let lists = schema.as_array().into_iter().flatten().enumerate().map(|(i, one)| (i.to_string(), one));
        for (key, one) in maps.chain(lists).filter(|(key, _)| key != "status") {
            open(one, &format!("{path}/{key}"), found);
        }
    }
    let mut found = Vec::new();
    let all = everything().unwrap();
    let definitions = all.iter().filter(|object| object["kind"] == "CustomResourceDefinition");
    for definition in definitions {
        let name = definition["metadata"]["name"].as_str().unwrap();
        for version in definition["spec"]["versions"].as_array().unwrap() {
            open(&version["schema"], name, &mut found);
        }
    }
    assert_eq!(found, Vec::<String>::new());
}
