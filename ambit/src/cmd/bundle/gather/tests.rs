//! What goes into an archive when there is no room for all, and what its index says of the rest.

use std::io::Error;

use tempfile::TempDir;

use super::*;

type Text = Result<&'static str, Error>;

fn document(gathered: &Gathered, path: &str) -> Value {
    let (_, content) = gathered.files().find(|(own, _)| *own == path).expect("the file is there");
    serde_json::from_slice(content).expect("JSON")
}

#[test]
fn nothing_is_missing_in_silence() {
    let mut gathered = Gathered::new(100, true);
    let away: Text = Err(Error::other("nobody listens at https://a:geheim77@host/"));
    gathered.add("a.json", "one", Shape::Json, Ok::<_, Error>("{\"a\": 1}"));
    gathered.add("b.json", "two", Shape::Json, away);
    gathered.add("c.json", "three", Shape::Json, Ok::<_, Error>("no JSON"));
    gathered.add("d.txt", "four", Shape::Lines, Ok::<_, Error>("x".repeat(101)));
    gathered.close("lab test", SystemTime::UNIX_EPOCH);
    let index = document(&gathered, INDEX);
    assert_eq!(index["files"].as_array().map(Vec::len), Some(1), "{index}");
    assert_eq!(index["files"][0]["path"], "a.json");
    let missing: Vec<&str> =
        index["missing"].as_array().into_iter().flatten().filter_map(|one| one["what"].as_str()).collect();
    assert_eq!(missing, ["b.json", "c.json", "d.txt"]);
    assert!(!index.to_string().contains("geheim77"), "{index}");
    assert_eq!(index["made"], "1970-01-01T00:00:00Z");
}

#[test]
fn secrets_stay_only_where_that_is_asked() {
    for (redacts, want) in [(true, "W3JlZGFjdGVkXQ=="), (false, "Z2VoZWlt")] {
        let mut gathered = Gathered::new(1000, redacts);
        let secret = json!({"kind": "Secret", "data": {"k": "Z2VoZWlt"}});
        gathered.add_json("objects.json", "objects", Ok::<_, Error>(secret));
        assert_eq!(document(&gathered, "objects.json")["data"]["k"], want);
        assert_eq!(gathered.redactions(), usize::from(redacts));
    }
}

#[test]
fn logs_are_cut_first_and_share_what_is_left() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("a.log");
    std::fs::write(&path, "first line\nsecond line\nthird line\n").expect("a log");
    let mut gathered = Gathered::new(60, true);
    gathered.add("dump.json", "dump", Shape::Json, Ok::<_, Error>("\"0123456789012345\""));
    assert_eq!(gathered.share(2), 21);
    gathered.add_log("logs/a", "log", 2, Tail::of_file(&path, 1000));
    gathered.add_log("logs/b", "log", 1, Tail::of_file(&folder.path().join("none"), 1000));
    let text = |path: &str| {
        let found = gathered.files().find(|(own, _)| *own == path);
        found.map(|(_, content)| String::from_utf8_lossy(content).into_owned())
    };
    assert_eq!(text("logs/a").as_deref(), Some("third line\n"));
    assert_eq!(gathered.missing()[0]["what"], "logs/b");
    assert_eq!(gathered.told[1]["cut_bytes"], 23);
}

#[test]
fn the_end_of_a_file_begins_with_a_line() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("a.log");
    std::fs::write(&path, "first\nsecond\nthird\n").expect("a log");
    let rows =
        [(100, "first\nsecond\nthird\n", 0), (14, "second\nthird\n", 6), (8, "third\n", 13), (3, "", 19)];
    for (bytes_max, want, cut) in rows {
        let tail = Tail::of_file(&path, bytes_max).expect("the end");
        assert_eq!(tail, Tail { bytes: want.into(), cut }, "{bytes_max}");
    }
}
