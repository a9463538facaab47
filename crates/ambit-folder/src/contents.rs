//! What a folder holds: which objects are in force, from which file, and what is wrong.
//!
//! Takes file readings as input and computes what changed; reads nothing itself. The rules: a broken file keeps
//! its last good objects, the first file to define an object keeps it, and every problem stays listed until it is
//! gone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ambit_manifest::{Located, ObjectKey, Problem, check_set};

use crate::read::{self, FileRead};

/// Everything a folder holds at one moment.
#[derive(Clone, Debug, Default)]
pub struct FolderState {
    /// The objects in force.
    pub objects: BTreeMap<ObjectKey, Located>,
    /// Everything that is wrong: in files, between files, and between objects.
    pub problems: Vec<Problem>,
    /// The store's revision, read before the files were: every write up to it is contained.
    pub revision: u64,
}

/// What changed since the last batch or the first state.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Objects that are new or say something else than before.
    pub changed: Vec<Located>,
    /// Objects that are gone.
    pub removed: Vec<ObjectKey>,
    /// Everything that is wrong now, the whole list.
    pub problems: Vec<Problem>,
    /// The store's revision, read before the files were: every write up to it is contained.
    pub revision: u64,
}

/// The folder as far as it has been read.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    files: BTreeMap<PathBuf, FileState>,
    /// Who defines an object, in the order in which they came.
    claims: BTreeMap<ObjectKey, BTreeMap<u64, PathBuf>>,
    objects: BTreeMap<ObjectKey, Located>,
    problems: Vec<Problem>,
    /// Problems of the folder itself, such as being gone.
    trouble: Vec<Problem>,
    revision: u64,
    next_claim: u64,
}

#[derive(Debug, Default)]
struct FileState {
    /// Objects of the last good reading, each with its claim.
    objects: BTreeMap<ObjectKey, (u64, Located)>,
    problems: Vec<Problem>,
}

impl Contents {
    /// Takes in new readings; `None` when nothing changed that anybody could see.
    pub(crate) fn take(&mut self, revision: u64, readings: Vec<(PathBuf, FileRead)>) -> Option<Batch> {
        let mut touched = BTreeSet::new();
        for (path, reading) in readings {
            self.take_file(path, reading, &mut touched);
        }
        let (changed, removed) = self.settle(touched);
        let problems = self.all_problems();
        let news = !changed.is_empty()
            || !removed.is_empty()
            || problems != self.problems
            || revision != self.revision;
        self.revision = revision;
        self.problems.clone_from(&problems);
        news.then_some(Batch { changed, removed, problems, revision })
    }

    /// Sets the problems of the folder itself; takes effect with the next `take`.
    pub(crate) fn set_trouble(&mut self, trouble: Vec<Problem>) {
        self.trouble = trouble;
    }

    /// The files known, broken ones included.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path)
    }

    /// The last revision taken in.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// A copy of everything in force.
    pub(crate) fn state(&self) -> FolderState {
        FolderState {
            objects: self.objects.clone(),
            problems: self.problems.clone(),
            revision: self.revision,
        }
    }

    fn take_file(&mut self, path: PathBuf, reading: FileRead, touched: &mut BTreeSet<ObjectKey>) {
        match reading {
            FileRead::Broken(problems) => self.files.entry(path).or_default().problems = problems,
            FileRead::Absent => {
                if let Some(old) = self.files.remove(&path) {
                    touched.extend(old.objects.keys().cloned());
                    for (key, (claim, _)) in old.objects {
                        self.release(&key, claim);
                    }
                }
            }
            FileRead::Good(objects) => {
                let mut old = self.files.remove(&path).unwrap_or_default().objects;
                let mut new = FileState::default();
                for object in objects {
                    let key = object.key.clone();
                    let claim = match old.remove(&key) {
                        Some((claim, _)) => claim,
                        None => self.claim(&key, &path),
                    };
                    touched.insert(key.clone());
                    new.objects.insert(key, (claim, object));
                }
                touched.extend(old.keys().cloned());
                for (key, (claim, _)) in old {
                    self.release(&key, claim);
                }
                self.files.insert(path, new);
            }
        }
    }

    fn claim(&mut self, key: &ObjectKey, path: &Path) -> u64 {
        let claim = self.next_claim;
        self.next_claim += 1;
        self.claims.entry(key.clone()).or_default().insert(claim, path.to_owned());
        claim
    }

    fn release(&mut self, key: &ObjectKey, claim: u64) {
        if let Some(claims) = self.claims.get_mut(key) {
            claims.remove(&claim);
            if claims.is_empty() {
                self.claims.remove(key);
            }
        }
    }

    /// Puts the first claim of every touched object in force.
    fn settle(&mut self, touched: BTreeSet<ObjectKey>) -> (Vec<Located>, Vec<ObjectKey>) {
        let (mut changed, mut removed) = (Vec::new(), Vec::new());
        for key in touched {
            match self.in_force(&key).cloned() {
                Some(object) => {
                    let before = self.objects.insert(key, object.clone());
                    if before.is_none_or(|b| b.value != object.value) {
                        changed.push(object);
                    }
                }
                None => {
                    if self.objects.remove(&key).is_some() {
                        removed.push(key);
                    }
                }
            }
        }
        (changed, removed)
    }

    fn in_force(&self, key: &ObjectKey) -> Option<&Located> {
        let (_, path) = self.claims.get(key)?.first_key_value()?;
        self.files.get(path)?.objects.get(key).map(|(_, object)| object)
    }

    fn all_problems(&self) -> Vec<Problem> {
        let mut problems = self.trouble.clone();
        problems.extend(self.files.values().flat_map(|f| f.problems.iter().cloned()));
        for (key, claims) in self.claims.iter().filter(|(_, c)| c.len() > 1) {
            let Some(first) = self.in_force(key) else { continue };
            let later = claims.values().skip(1).filter_map(|path| self.files.get(path)?.objects.get(key));
            problems.extend(later.map(|(_, object)| read::defined_twice(object, &first.location)));
        }
        let objects: Vec<Located> = self.objects.values().cloned().collect();
        problems.extend(check_set(&objects));
        problems.sort();
        problems
    }
}
