//! What a folder holds: which objects are in force, from which file, and what is wrong.
//!
//! Takes file readings as input and computes what changed; reads nothing itself. The rules: a broken file keeps
//! its last good objects, the first file to define an object keeps it, and every problem stays listed until it is
//! gone.
//!
//! An object is handed on when it comes into force, as what the caller makes of it, and not kept: of it stays what
//! others need, and a hash that tells whether the next version says something else.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ambit_manifest::{CheckedSet, Located, ObjectKey, Outline, Problem};

use crate::read::{DEFINED_TWICE, FileRead};

/// Everything a folder holds at one moment.
#[derive(Clone, Debug)]
pub struct FolderState<T = Located> {
    /// The objects in force.
    pub objects: BTreeMap<ObjectKey, T>,
    /// Everything that is wrong: in files, between files, and between objects.
    pub problems: Vec<Problem>,
    /// The store's revision, read before the files were: every write up to it is contained.
    pub revision: u64,
}

impl<T> FolderState<T> {
    pub(crate) fn empty(revision: u64) -> Self {
        Self { objects: BTreeMap::new(), problems: Vec::new(), revision }
    }
}

/// What changed since the last batch or the first state.
#[derive(Clone, Debug)]
pub struct Batch<T = Located> {
    /// Objects that are new or say something else than before.
    pub changed: Vec<T>,
    /// Objects that are gone.
    pub removed: Vec<ObjectKey>,
    /// Everything that is wrong now, the whole list.
    pub problems: Vec<Problem>,
    /// The store's revision, read before the files were: every write up to it is contained.
    pub revision: u64,
}

/// What is new after some files were read.
#[derive(Debug)]
pub(crate) struct News<T> {
    changed: Vec<(Arc<ObjectKey>, T)>,
    removed: Vec<ObjectKey>,
    problems: Vec<Problem>,
    revision: u64,
}

impl<T> News<T> {
    /// For those who know what was there before.
    pub(crate) fn batch(self) -> Batch<T> {
        let Self { changed, removed, problems, revision } = self;
        Batch { changed: changed.into_iter().map(|(_, made)| made).collect(), removed, problems, revision }
    }

    /// Of everything that there is.
    pub(crate) fn state(self) -> FolderState<T> {
        let objects = self.changed.into_iter().map(|(key, made)| (ObjectKey::clone(&key), made)).collect();
        FolderState { objects, problems: self.problems, revision: self.revision }
    }
}

/// The folder as far as it has been read.
pub(crate) struct Contents<T> {
    make: Box<dyn Fn(Located) -> T + Send>,
    hasher: RandomState,
    /// The names each file defines; broken files included.
    files: BTreeMap<Arc<Path>, Box<[Arc<ObjectKey>]>>,
    /// What is wrong with files.
    broken: BTreeMap<Arc<Path>, Vec<Problem>>,
    objects: BTreeMap<Arc<ObjectKey>, Object<T>>,
    /// Objects that several files define.
    contested: BTreeSet<Arc<ObjectKey>>,
    /// The objects in force.
    set: CheckedSet,
    problems: Vec<Problem>,
    /// Problems of the folder itself, such as being gone.
    trouble: Vec<Problem>,
    revision: u64,
}

/// An object, and who defines it.
struct Object<T> {
    /// Hash of what was handed on; none before.
    in_force: Option<u64>,
    /// In the order in which they came. One has no list of its own, since nearly all are.
    first: Option<Claim<T>>,
    later: Vec<Claim<T>>,
}

/// A file's definition of an object.
struct Claim<T> {
    file: Arc<Path>,
    /// Hash of what it says.
    hash: u64,
    /// What it says, until that is in force.
    version: Option<Box<(Outline, T)>>,
}

impl<T> Default for Object<T> {
    fn default() -> Self {
        Self { in_force: None, first: None, later: Vec::new() }
    }
}

impl<T> Object<T> {
    /// The claim of a file, if it has one.
    fn of_file(&mut self, file: &Path) -> Option<&mut Claim<T>> {
        self.first.iter_mut().chain(&mut self.later).find(|claim| *claim.file == *file)
    }

    fn add(&mut self, claim: Claim<T>) {
        match self.first {
            Some(_) => self.later.push(claim),
            None => self.first = Some(claim),
        }
    }

    fn release(&mut self, file: &Path) {
        if self.first.as_ref().is_some_and(|claim| *claim.file == *file) {
            self.first = (!self.later.is_empty()).then(|| self.later.remove(0));
        } else {
            self.later.retain(|claim| *claim.file != *file);
        }
    }
}

impl<T> Contents<T> {
    /// Of nothing; `make` is what becomes of an object that is read.
    pub(crate) fn new(make: impl Fn(Located) -> T + Send + 'static) -> Self {
        Self {
            make: Box::new(make),
            hasher: RandomState::new(),
            files: BTreeMap::new(),
            broken: BTreeMap::new(),
            objects: BTreeMap::new(),
            contested: BTreeSet::new(),
            set: CheckedSet::default(),
            problems: Vec::new(),
            trouble: Vec::new(),
            revision: 0,
        }
    }

    /// Takes in new readings, one after the other; `None` when nothing changed that anybody could see.
    pub(crate) fn take(
        &mut self,
        revision: u64,
        readings: impl IntoIterator<Item = (PathBuf, FileRead)>,
    ) -> Option<News<T>> {
        let mut touched = BTreeSet::new();
        for (path, reading) in readings {
            self.take_file(&path, reading, &mut touched);
        }
        let (changed, removed) = self.settle(touched);
        let problems = self.all_problems();
        let news = !changed.is_empty()
            || !removed.is_empty()
            || problems != self.problems
            || revision != self.revision;
        self.revision = revision;
        self.problems.clone_from(&problems);
        news.then_some(News { changed, removed, problems, revision })
    }

    /// Sets the problems of the folder itself; takes effect with the next `take`.
    pub(crate) fn set_trouble(&mut self, trouble: Vec<Problem>) {
        self.trouble = trouble;
    }

    /// The files known, broken ones included.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(|path| &**path)
    }

    /// The last revision taken in.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// How many objects were checked against others so far, each as often as it was.
    #[cfg(test)]
    pub(crate) fn checked(&self) -> u64 {
        self.set.checked()
    }

    fn take_file(&mut self, path: &Path, reading: FileRead, touched: &mut BTreeSet<Arc<ObjectKey>>) {
        let file: Arc<Path> =
            self.files.get_key_value(path).map_or_else(|| Arc::from(path), |(file, _)| file.clone());
        match reading {
            FileRead::Broken(problems) => {
                self.files.entry(file.clone()).or_default();
                self.broken.insert(file, problems);
            }
            FileRead::Absent => {
                self.broken.remove(path);
                let gone = self.files.remove(path).unwrap_or_default();
                self.release(&gone, path, touched);
            }
            FileRead::Good(objects) => {
                self.broken.remove(path);
                let keys: BTreeSet<_> =
                    objects.into_iter().map(|object| self.define(&file, object)).collect();
                touched.extend(keys.iter().cloned());
                let before = self.files.insert(file, keys.iter().cloned().collect()).unwrap_or_default();
                let gone: Vec<_> = before.into_iter().filter(|key| !keys.contains(key)).collect();
                self.release(&gone, path, touched);
            }
        }
    }

    /// Notes what a file says of an object; its name.
    fn define(&mut self, file: &Arc<Path>, object: Located) -> Arc<ObjectKey> {
        let outline = Outline::of(&object);
        let hash = self.hasher.hash_one(object.value.to_string());
        let known = self.objects.get_key_value(&object.key);
        let key = known.map_or_else(|| outline.key().clone(), |(key, _)| key.clone());
        let version = Some(Box::new((outline, (self.make)(object))));
        let known = self.objects.entry(key.clone()).or_default();
        match known.of_file(file) {
            Some(claim) => (claim.hash, claim.version) = (hash, version),
            None => {
                known.add(Claim { file: file.clone(), hash, version });
                if !known.later.is_empty() {
                    self.contested.insert(key.clone());
                }
            }
        }
        key
    }

    fn release(&mut self, keys: &[Arc<ObjectKey>], file: &Path, touched: &mut BTreeSet<Arc<ObjectKey>>) {
        for key in keys {
            if let Some(object) = self.objects.get_mut(&**key) {
                object.release(file);
                if object.later.is_empty() {
                    self.contested.remove(&**key);
                }
            }
            touched.insert(key.clone());
        }
    }

    /// Puts the first claim of every touched object in force.
    fn settle(&mut self, touched: BTreeSet<Arc<ObjectKey>>) -> (Vec<(Arc<ObjectKey>, T)>, Vec<ObjectKey>) {
        let (mut changed, mut removed, mut outlines) = (Vec::new(), Vec::new(), Vec::new());
        for key in touched {
            let Some(object) = self.objects.get_mut(&*key) else { continue };
            let Some(claim) = &mut object.first else {
                if object.in_force.is_some() {
                    removed.push(ObjectKey::clone(&key));
                }
                self.objects.remove(&*key);
                outlines.push((key, None));
                continue;
            };
            // Without a version it is in force, and was not touched itself.
            let Some(version) = claim.version.take() else { continue };
            let (outline, made) = *version;
            outlines.push((key.clone(), Some(outline)));
            if object.in_force.replace(claim.hash) != Some(claim.hash) {
                changed.push((key, made));
            }
        }
        self.set.update(outlines);
        (changed, removed)
    }

    fn all_problems(&self) -> Vec<Problem> {
        let mut problems = self.trouble.clone();
        problems.extend(self.broken.values().flatten().cloned());
        for key in &self.contested {
            let Some(first) = self.set.outline(key).map(Outline::location) else { continue };
            let later = self.objects.get(key).into_iter().flat_map(|object| &object.later);
            let outlines = later.filter_map(|claim| claim.version.as_ref());
            problems.extend(outlines.map(|version| version.0.defined_twice(first.clone(), DEFINED_TWICE)));
        }
        problems.extend(self.set.problems().cloned());
        problems.sort();
        problems
    }
}
