//! Where objects lie in a folder: `KIND/NAMESPACE/NAME.yaml`, cluster-wide ones `KIND/_/NAME.yaml`.
//!
//! Also which other files are read: every `*.yaml`, `*.yml` and `*.json` whose path has no hidden part.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ambit_manifest::{Kind, ObjectKey};

use crate::error::FolderError;

/// Held by whoever writes.
pub(crate) const LOCK: &str = ".lock";
/// Counts writes.
pub(crate) const REVISION: &str = ".revision";
/// The path of the root below itself.
pub(crate) const ROOT: &str = "";
/// Where the namespace stands for an object that has none.
const CLUSTER: &str = "_";

/// The file of an object, below the root.
pub(crate) fn path_of(key: &ObjectKey) -> Result<PathBuf, FolderError> {
    let namespace = key.namespace.as_deref().unwrap_or(CLUSTER);
    for name in [namespace, &key.name] {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            return Err(FolderError::Name { name: name.to_owned() });
        }
    }
    Ok(Path::new(key.kind.as_str()).join(namespace).join(format!("{}.yaml", key.name)))
}

/// The object that a path below the root is reserved for, if it is one of the store's own.
pub(crate) fn key_of(path: &Path) -> Option<ObjectKey> {
    let parts: Vec<&str> = path.iter().map(OsStr::to_str).collect::<Option<_>>()?;
    let [kind, namespace, file] = parts.as_slice() else { return None };
    let kind = Kind::from_name(kind)?;
    let name = file.strip_suffix(".yaml")?;
    let cluster = *namespace == CLUSTER;
    (cluster != kind.namespaced()).then(|| ObjectKey::new(kind, Some(*namespace), name))
}

/// Whether a path below the root is one that is read.
pub(crate) fn is_manifest(path: &Path) -> bool {
    let known =
        path.extension().and_then(OsStr::to_str).is_some_and(|e| matches!(e, "yaml" | "yml" | "json"));
    known && !is_hidden(path)
}

/// Whether any part of a path below the root starts with a dot.
pub(crate) fn is_hidden(path: &Path) -> bool {
    path.iter().any(|part| part.as_encoded_bytes().starts_with(b"."))
}

/// What lies directly in a folder, as paths below the root.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    /// Folders that are not hidden; links to folders are not followed.
    pub(crate) folders: Vec<PathBuf>,
    /// Files that are read; links to files are followed.
    pub(crate) files: Vec<PathBuf>,
}

/// Lists one folder; a folder that is gone is empty, unless it is the root.
pub(crate) fn entries(root: &Path, folder: &Path) -> Result<Entries, FolderError> {
    let path = root.join(folder);
    let mut found = Entries::default();
    let listed = match fs::read_dir(&path) {
        Ok(listed) => listed,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound && folder != Path::new(ROOT) => {
            return Ok(found);
        }
        Err(cause) => return Err(FolderError::io("list", path)(cause)),
    };
    for entry in listed {
        let entry = entry.map_err(FolderError::io("list", &path))?;
        let below = folder.join(entry.file_name());
        let is_folder = entry.file_type().is_ok_and(|t| t.is_dir());
        if is_folder && !is_hidden(&below) {
            found.folders.push(below);
        } else if !is_folder && is_manifest(&below) {
            found.files.push(below);
        }
    }
    Ok(found)
}

/// Every file that is read, in the order of their paths.
pub(crate) fn files(root: &Path) -> Result<Vec<PathBuf>, FolderError> {
    let mut files = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let found = entries(root, &folder)?;
        files.extend(found.files);
        open.extend(found.folders);
    }
    files.sort();
    Ok(files)
}
