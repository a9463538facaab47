//! Reading one file: its objects, or everything that is wrong with it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use ambit_manifest::{Located, Location, ObjectKey, Problem, parse};

use crate::layout;

/// What a file holds right now.
#[derive(Debug)]
pub(crate) enum FileRead {
    /// Every object of it, all of them good.
    Good(Vec<Located>),
    /// Nothing of it may come into force.
    Broken(Vec<Problem>),
    /// There is no such file.
    Absent,
}

/// Reads the file at `path` below `root`.
pub(crate) fn file(root: &Path, path: &Path) -> FileRead {
    let whole = root.join(path);
    let name = whole.display().to_string();
    let text = match fs::read(&whole) {
        Ok(bytes) => bytes,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return FileRead::Absent,
        Err(cause) => {
            return FileRead::Broken(vec![about_file(&name, format!("the file cannot be read: {cause}"))]);
        }
    };
    let Ok(text) = String::from_utf8(text) else {
        return FileRead::Broken(vec![about_file(&name, "the file is not UTF-8 text".to_owned())]);
    };
    let parsed = parse(&name, &text);
    let mut problems = parsed.problems;
    problems.extend(repeated(&parsed.objects));
    if let Some(reserved) = layout::key_of(path) {
        problems.extend(misplaced(&name, &reserved, &parsed.objects).filter(|_| problems.is_empty()));
    }
    if problems.is_empty() { FileRead::Good(parsed.objects) } else { FileRead::Broken(problems) }
}

/// A problem with a whole file.
pub(crate) fn about_file(name: &str, message: String) -> Problem {
    let location = Location { file: name.into(), line: 1, column: 1 };
    Problem { location, object: None, field: String::new(), message, nearest: None, other: None }
}

/// What is said of an object that another place defines already.
pub(crate) const DEFINED_TWICE: &str = "the object is defined twice, the first one stays in force";

fn defined_twice(later: &Located, first: &Location) -> Problem {
    let mut problem = later.problem("metadata.name", DEFINED_TWICE);
    problem.other = Some(first.clone());
    problem
}

/// The problems of objects that stand twice in one list.
pub(crate) fn repeated(objects: &[Located]) -> Vec<Problem> {
    let mut first: BTreeMap<&ObjectKey, &Located> = BTreeMap::new();
    let mut problems = Vec::new();
    for object in objects {
        match first.get(&object.key) {
            Some(earlier) => problems.push(defined_twice(object, &earlier.location)),
            None => {
                first.insert(&object.key, object);
            }
        }
    }
    problems
}

fn misplaced(name: &str, reserved: &ObjectKey, objects: &[Located]) -> Option<Problem> {
    let right = matches!(objects, [only] if only.key == *reserved);
    let words =
        format!("a file of this name must hold {reserved} and nothing else; give other objects another path");
    (!right).then(|| about_file(name, words))
}
