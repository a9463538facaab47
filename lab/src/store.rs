//! The lab's objects in memory, at the newest revision, over the folder or the API server that holds them.
//!
//! The folder store locks, checks and counts revisions; this keeps what it holds at hand as JSON values, follows
//! what others write, and never shows an older state after a newer one. Over an API server the mirror does.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ambit_folder::{Batch, Folder, FolderError, Written};
use ambit_manifest::{Located, Object};
use ambit_runtime::tasks;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::Value;
use tokio::sync::watch;

pub use ambit_manifest::{Kind, ObjectKey};

use crate::error::LabError;
use crate::kube::request::Server;
use crate::kube::{self, Api, Kubectl, Mirror};

/// One object, as JSON and in its type.
#[derive(Debug, Clone)]
pub struct Stored {
    /// As it is written.
    pub value: Arc<Value>,
    /// In its Kubernetes type.
    pub object: Arc<Object>,
}

impl From<Located> for Stored {
    fn from(located: Located) -> Self {
        Self { value: located.value, object: located.object }
    }
}

/// All objects at one revision.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Counts the writes to the store.
    pub revision: u64,
    /// The objects.
    pub objects: BTreeMap<ObjectKey, Stored>,
}

macro_rules! typed {
    ($($doc:literal $name:ident: $kind:ident -> $type:ty;)+) => {
        $(
            #[doc = $doc]
            pub fn $name(&self) -> Vec<$type> {
                let read = |stored: &Stored| match &*stored.object {
                    Object::$kind(object) => Some(<$type>::clone(object)),
                    _ => None,
                };
                self.range(Kind::$kind).filter_map(|(_, stored)| read(stored)).collect()
            }
        )+
    };
}

impl Snapshot {
    /// Objects of one kind, by namespace and name.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&ObjectKey, &Value)> {
        self.range(kind).map(|(key, stored)| (key, &*stored.value))
    }

    /// One object.
    pub fn find(&self, key: &ObjectKey) -> Option<&Value> {
        self.objects.get(key).map(|stored| &*stored.value)
    }

    typed! {
        "All pods." pods: Pod -> core::Pod;
        "All Deployments." deployments: Deployment -> Deployment;
        "All Services." services: Service -> core::Service;
        "All EndpointSlices." slices: EndpointSlice -> EndpointSlice;
        "All ConfigMaps." config_maps: ConfigMap -> core::ConfigMap;
        "All Secrets." secrets: Secret -> core::Secret;
    }

    fn range(&self, kind: Kind) -> impl Iterator<Item = (&ObjectKey, &Stored)> {
        let first = ObjectKey { kind, namespace: None, name: String::new() };
        self.objects.range(first..).take_while(move |(key, _)| key.kind == kind)
    }
}

/// Where the objects live.
#[derive(Debug)]
enum Source {
    Folder(Folder),
    Served { api: Api, mirror: Arc<Mirror>, kubectl: Option<Arc<Kubectl>> },
}

/// The objects, and the way to change them. All methods but the readers block on files for some milliseconds; over
/// an API server nothing blocks.
#[derive(Debug)]
pub struct Store {
    source: Source,
    current: watch::Sender<Arc<Snapshot>>,
    /// Held while the folder is changed or read again, so that memory takes the states in their order.
    order: Mutex<()>,
}

impl Store {
    /// Reads what the folder holds.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(directory: &Path) -> Result<Self, LabError> {
        let folder = Folder::open(directory)?;
        let state = folder.load()?;
        let objects = state.objects.into_iter().map(|(key, located)| (key, located.into())).collect();
        let snapshot = Snapshot { revision: state.revision, objects };
        let current = watch::channel(Arc::new(snapshot)).0;
        Ok(Self { source: Source::Folder(folder), current, order: Mutex::new(()) })
    }

    /// Lists what the API server holds, and follows it from now on. What commands ask is asked by `kubectl`, if there is
    /// one.
    pub async fn served(api: Api, kubectl: Option<Arc<Kubectl>>) -> Self {
        let current = watch::channel(Arc::new(Snapshot::default())).0;
        let mirror = kube::follow(&api, current.clone()).await;
        Self { source: Source::Served { api, mirror, kubectl }, current, order: Mutex::new(()) }
    }

    /// The API server, if the objects live in one.
    pub fn server(&self) -> Option<Server> {
        match &self.source {
            Source::Folder(_) => None,
            Source::Served { api, mirror, kubectl } => Some(Server {
                api: api.clone(),
                mirror: Arc::clone(mirror),
                objects: self.subscribe(),
                kubectl: kubectl.clone(),
            }),
        }
    }

    /// Takes in what others write, from now on.
    ///
    /// # Errors
    /// If the folder cannot be watched.
    pub fn follow(self: &Arc<Self>) -> Result<(), LabError> {
        let Source::Folder(folder) = &self.source else { return Ok(()) };
        let (_, mut batches) = ambit_folder::watch(folder.root())?;
        let store = Arc::clone(self);
        tasks::spawn("objects", async move {
            while let Some(batch) = batches.recv().await {
                tokio::task::block_in_place(|| store.take_in(&batch));
            }
        });
        Ok(())
    }

    /// The objects as they are.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.borrow().clone()
    }

    /// Tells of every change.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.current.subscribe()
    }

    /// Writes whole objects under one revision, all or none.
    ///
    /// # Errors
    /// If one of them is refused or cannot be written.
    pub fn put(&self, objects: &[Value]) -> Result<(), LabError> {
        if objects.is_empty() {
            return Ok(());
        }
        let Source::Folder(folder) = &self.source else {
            return Err(LabError::Failed("objects of an API server are applied to it".to_owned()));
        };
        let _order = self.in_order();
        let written = folder.put_all(objects)?;
        self.remember(written);
        Ok(())
    }

    /// Changes one object in place; a missing one is left missing, and one that says so already costs nothing.
    ///
    /// # Errors
    /// If the result is refused or cannot be written.
    pub fn change(&self, key: &ObjectKey, change: impl Fn(&mut Value)) -> Result<(), LabError> {
        let folder = match &self.source {
            Source::Folder(folder) => folder,
            Source::Served { mirror, .. } => {
                mirror.change(key, change);
                return Ok(());
            }
        };
        if let Some(known) = self.snapshot().find(key) {
            let mut changed = known.clone();
            change(&mut changed);
            if changed == *known {
                return Ok(());
            }
        }
        let _order = self.in_order();
        match folder.patch(key, None, change) {
            Ok(written) => self.remember(vec![written]),
            Err(FolderError::Absent { .. }) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    /// Removes one object; a missing one is no error.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn remove(&self, key: &ObjectKey) -> Result<(), LabError> {
        let folder = match &self.source {
            Source::Folder(folder) => folder,
            Source::Served { mirror, .. } => {
                mirror.remove(key);
                return Ok(());
            }
        };
        let _order = self.in_order();
        let revision = match folder.remove(key) {
            Ok(revision) => revision,
            Err(FolderError::Absent { .. }) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        self.renew(|snapshot| {
            snapshot.revision = snapshot.revision.max(revision);
            snapshot.objects.remove(key).is_some()
        });
        Ok(())
    }

    fn in_order(&self) -> MutexGuard<'_, ()> {
        // The lock guards no value that a panic could leave half changed.
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, written: Vec<Written>) {
        self.renew(|snapshot| {
            let changed = written.iter().any(|w| w.changed);
            for Written { object, revision, .. } in written {
                snapshot.revision = snapshot.revision.max(revision);
                snapshot.objects.insert(object.key.clone(), object.into());
            }
            changed
        });
    }

    /// Reads again what others changed: what a batch says may be older than what was written here since.
    fn take_in(&self, batch: &Batch) {
        let Source::Folder(folder) = &self.source else { return };
        let _order = self.in_order();
        let keys = batch.changed.iter().map(|o| &o.key).chain(&batch.removed);
        let read: Vec<_> = keys.map(|key| (key.clone(), folder.object(key))).collect();
        self.renew(|snapshot| {
            let mut changed = batch.revision > snapshot.revision;
            snapshot.revision = snapshot.revision.max(batch.revision);
            for (key, found) in read {
                changed |= match found {
                    Ok(object) => {
                        let value = Arc::clone(&object.value);
                        snapshot.objects.insert(key, object.into()).is_none_or(|old| old.value != value)
                    }
                    Err(FolderError::Absent { .. }) => snapshot.objects.remove(&key).is_some(),
                    // A broken file keeps its last good object in force.
                    Err(_) => false,
                };
            }
            changed
        });
    }

    fn renew(&self, change: impl FnOnce(&mut Snapshot) -> bool) {
        self.current.send_if_modified(|current| change(Arc::make_mut(current)));
    }
}
