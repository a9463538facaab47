//! Volumes of a pod: what is in them and where each container sees them. Pure.
//!
//! ConfigMap, Secret, emptyDir and hostPath are carried out; every other source is refused, because a program
//! that finds an empty directory where its data should be fails in a harder way.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1 as core;

use super::plan::Values;

/// What a volume holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing at first; it lives as long as the pod.
    Empty,
    /// These files.
    Files(BTreeMap<String, String>),
    /// A file or directory of the machine.
    Host(PathBuf),
}

/// A volume by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name in the pod.
    pub name: String,
    /// What it holds.
    pub content: Content,
}

/// Where a container sees a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The volume.
    pub volume: String,
    /// A file or directory inside the volume; empty for all of it.
    pub sub_path: String,
    /// Where it is seen.
    pub path: PathBuf,
    /// Whether the container may not write there.
    pub read_only: bool,
}

/// Reads the volumes of a pod in a namespace.
///
/// # Errors
/// Names the volume whose source is not carried out, or does not exist.
pub fn volumes(spec: &core::PodSpec, namespace: &str, values: &Values) -> Result<Vec<Volume>, String> {
    let read = |volume: &core::Volume| {
        let name = volume.name.clone();
        content(volume, namespace, values).map(|content| Volume { name, content })
    };
    spec.volumes.iter().flatten().map(read).collect()
}

fn content(volume: &core::Volume, namespace: &str, values: &Values) -> Result<Content, String> {
    let name = &volume.name;
    if volume.empty_dir.is_some() {
        return Ok(Content::Empty);
    }
    if let Some(host) = &volume.host_path {
        return Ok(Content::Host(host.path.clone().into()));
    }
    let (kind, source, items, optional) = match (&volume.config_map, &volume.secret) {
        (Some(map), _) => ("ConfigMap", map.name.clone(), &map.items, map.optional),
        (None, Some(secret)) => {
            ("Secret", secret.secret_name.clone().unwrap_or_default(), &secret.items, secret.optional)
        }
        (None, None) => {
            return Err(format!(
                "volume {name}: its source is not carried out in a lab; use configMap, secret, emptyDir or hostPath"
            ));
        }
    };
    let Some(data) = values.get(&(kind, namespace.to_owned(), source.clone())) else {
        let missing = || format!("volume {name} shows {kind} {source}, which does not exist");
        return if optional == Some(true) { Ok(Content::Empty) } else { Err(missing()) };
    };
    let Some(items) = items.as_ref().filter(|i| !i.is_empty()) else {
        return Ok(Content::Files(data.clone()));
    };
    let pick = |item: &core::KeyToPath| {
        let value = data
            .get(&item.key)
            .ok_or_else(|| format!("volume {name}: {kind} {source} has no key {}", item.key))?;
        Ok((item.path.clone(), value.clone()))
    };
    items.iter().map(pick).collect::<Result<_, String>>().map(Content::Files)
}

/// Reads where a container sees the pod's volumes.
pub fn mounts(container: &core::Container) -> Vec<Mount> {
    let read = |mount: &core::VolumeMount| Mount {
        volume: mount.name.clone(),
        sub_path: mount.sub_path.clone().unwrap_or_default(),
        path: mount.mount_path.clone().into(),
        read_only: mount.read_only.unwrap_or(false),
    };
    container.volume_mounts.iter().flatten().map(read).collect()
}
