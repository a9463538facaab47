//! The lab's objects: a thin view of the folder store as JSON values by kind, namespace and name.
//!
//! The folder store locks, checks and counts revisions; this only gives the daemon the shape it works with.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;

pub use crate::control::ObjectRef;
use crate::error::LabError;

/// All objects at one revision.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// Counts the writes to the store.
    pub revision: u64,
    /// The objects.
    pub objects: BTreeMap<ObjectRef, Arc<Value>>,
}

impl Snapshot {
    /// Objects of one kind, by namespace and name.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = (&'a ObjectRef, &'a Value)> {
        let first = ObjectRef { kind: kind.to_owned(), namespace: None, name: String::new() };
        let from = self.objects.range(first..);
        from.take_while(move |(key, _)| key.kind == kind).map(|(key, value)| (key, &**value))
    }

    /// Objects of one kind in their Kubernetes type; one that does not fit is left out and logged.
    pub fn typed<T: DeserializeOwned>(&self, kind: &str) -> Vec<T> {
        let parse = |(key, value): (&ObjectRef, &Value)| {
            T::deserialize(value)
                .inspect_err(
                    |e| tracing::warn!(kind, name = key.name, error = %e, "an object does not fit its kind"),
                )
                .ok()
        };
        self.of_kind(kind).filter_map(parse).collect()
    }

    /// One object.
    pub fn find(&self, key: &ObjectRef) -> Option<&Value> {
        self.objects.get(key).map(|value| &**value)
    }
}

/// The key of an object by its own metadata.
pub fn key_of(object: &Value) -> Option<ObjectRef> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    Some(ObjectRef {
        kind: text("/kind")?,
        namespace: text("/metadata/namespace"),
        name: text("/metadata/name")?,
    })
}

/// The objects, and the way to change them.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    current: watch::Sender<Arc<Snapshot>>,
}

impl Store {
    /// Opens the store in a directory that exists.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(directory: &Path) -> Result<Self, LabError> {
        let (current, _) = watch::channel(Arc::new(Snapshot::default()));
        Ok(Self { directory: directory.to_owned(), current })
    }

    /// The objects as they are.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.borrow().clone()
    }

    /// Tells of every change.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.current.subscribe()
    }

    /// Writes a whole object; returns the revision.
    ///
    /// # Errors
    /// If it has no kind or name, or the file cannot be written.
    pub fn put(&self, object: Value) -> Result<u64, LabError> {
        let key =
            key_of(&object).ok_or_else(|| LabError::Usage("an object without kind or name".to_owned()))?;
        self.write(&key, Some(object))
    }

    /// Changes one object in place; a missing one is left missing. Returns the revision if it changed.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn change(&self, key: &ObjectRef, change: impl FnOnce(&mut Value)) -> Result<Option<u64>, LabError> {
        let Some(mut object) = self.snapshot().find(key).cloned() else { return Ok(None) };
        let before = object.clone();
        change(&mut object);
        if object == before { Ok(None) } else { self.write(key, Some(object)).map(Some) }
    }

    /// Removes one object; a missing one is no error. Returns the revision if it was there.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn remove(&self, key: &ObjectRef) -> Result<Option<u64>, LabError> {
        if self.snapshot().find(key).is_none() {
            return Ok(None);
        }
        self.write(key, None).map(Some)
    }

    fn write(&self, key: &ObjectRef, object: Option<Value>) -> Result<u64, LabError> {
        let namespace = key.namespace.as_deref().unwrap_or("_");
        let directory = self.directory.join(&key.kind).join(namespace);
        fs::create_dir_all(&directory).map_err(LabError::file("making directory", directory.clone()))?;
        let path = directory.join(format!("{}.yaml", key.name));
        match &object {
            Some(object) => {
                fs::write(&path, format!("{object:#}")).map_err(LabError::file("writing", path))?
            }
            None => fs::remove_file(&path).map_err(LabError::file("removing", path))?,
        }
        let mut snapshot = (*self.snapshot()).clone();
        snapshot.revision += 1;
        match object {
            Some(object) => _ = snapshot.objects.insert(key.clone(), Arc::new(object)),
            None => _ = snapshot.objects.remove(key),
        }
        let revision = snapshot.revision;
        self.current.send_replace(Arc::new(snapshot));
        Ok(revision)
    }
}
