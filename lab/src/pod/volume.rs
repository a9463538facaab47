//! Volumes of a pod: what is in them and where each container sees them. Pure.
//!
//! ConfigMap, Secret, emptyDir, hostPath, downwardAPI and projected are carried out; every other source is refused,
//! because a program that finds an empty directory where its data should be fails in a harder way.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;

use super::plan::Facts;
use crate::token;

/// Life of a token whose volume does not say: Kubernetes' default. What is issued lives shorter, [`token::LIFE`].
const TOKEN_LIFE_DEFAULT: Duration = Duration::from_secs(3600);
/// The shortest life of a token that makes sense: it is replaced at four fifths of it.
const TOKEN_LIFE_MIN: Duration = Duration::from_secs(10);

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

/// A token of the pod's service account in a volume, replaced before it runs out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFile {
    /// The file inside the volume.
    pub path: String,
    /// For whom the token is meant.
    pub audience: String,
    /// How long it is to live, at least 10 s; [`token::LIFE`] is the most that is issued.
    pub life: Duration,
}

/// A volume by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name in the pod.
    pub name: String,
    /// What it holds.
    pub content: Content,
    /// Tokens beside that.
    pub tokens: Vec<TokenFile>,
}

/// Where a container sees a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The volume.
    pub volume: String,
    /// A file or directory inside the volume, which it does not leave; empty for all of it.
    pub sub_path: String,
    /// Where it is seen.
    pub path: PathBuf,
    /// Whether the container may not write there.
    pub read_only: bool,
}

type Files = BTreeMap<String, String>;

/// Reads the volumes of a pod, and looks whether its containers see no more than those.
///
/// # Errors
/// Names the volume whose source is not carried out, or does not exist, or that a container would leave.
pub(super) fn volumes(spec: &core::PodSpec, facts: &Facts<'_>) -> Result<Vec<Volume>, String> {
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        for mount in container.volume_mounts.iter().flatten() {
            let sub_path = mount.sub_path.as_deref().filter(|path| !path.is_empty());
            let left = sub_path.map(inside).transpose();
            left.map_err(|e| format!("container {}: subPath of volume {}{e}", container.name, mount.name))?;
        }
    }
    let read = |volume: &core::Volume| {
        let (content, tokens) = content(volume, facts).map_err(|e| format!("volume {}{e}", volume.name))?;
        Ok(Volume { name: volume.name.clone(), content, tokens })
    };
    spec.volumes.iter().flatten().map(read).collect()
}

/// What a volume holds; an error goes on where "volume NAME" ends.
fn content(volume: &core::Volume, facts: &Facts<'_>) -> Result<(Content, Vec<TokenFile>), String> {
    if volume.empty_dir.is_some() {
        return Ok((Content::Empty, Vec::new()));
    }
    if let Some(host) = &volume.host_path {
        return Ok((Content::Host(host.path.clone().into()), Vec::new()));
    }
    if let Some(projected) = &volume.projected {
        return self::projected(projected, facts);
    }
    let files = if let Some(map) = &volume.config_map {
        from_keys(facts, ("ConfigMap", &map.name), map.items.as_deref(), map.optional)?
    } else if let Some(secret) = &volume.secret {
        let name = secret.secret_name.clone().unwrap_or_default();
        from_keys(facts, ("Secret", &name), secret.items.as_deref(), secret.optional)?
    } else if let Some(fields) = &volume.downward_api {
        Some(from_fields(facts, fields.items.as_deref().unwrap_or_default())?)
    } else {
        return Err(": its source is not carried out in a lab; use configMap, secret, emptyDir, hostPath, \
                    downwardAPI or projected"
            .to_owned());
    };
    Ok((files.map_or(Content::Empty, Content::Files), Vec::new()))
}

/// Everything that a projected volume brings together; of two files with one path the later source counts.
fn projected(
    from: &core::ProjectedVolumeSource,
    facts: &Facts<'_>,
) -> Result<(Content, Vec<TokenFile>), String> {
    let (mut files, mut tokens) = (Files::new(), Vec::new());
    for source in from.sources.iter().flatten() {
        if let Some(asked) = &source.service_account_token {
            tokens.push(token_file(asked)?);
        } else if let Some(map) = &source.config_map {
            let more = from_keys(facts, ("ConfigMap", &map.name), map.items.as_deref(), map.optional)?;
            files.extend(more.unwrap_or_default());
        } else if let Some(secret) = &source.secret {
            let more = from_keys(facts, ("Secret", &secret.name), secret.items.as_deref(), secret.optional)?;
            files.extend(more.unwrap_or_default());
        } else if let Some(fields) = &source.downward_api {
            files.extend(from_fields(facts, fields.items.as_deref().unwrap_or_default())?);
        } else {
            return Err(
                ": a projected source is not carried out in a lab; use serviceAccountToken, configMap, \
                        secret or downwardAPI"
                    .to_owned(),
            );
        }
    }
    Ok((Content::Files(files), tokens))
}

fn token_file(asked: &core::ServiceAccountTokenProjection) -> Result<TokenFile, String> {
    let life = match asked.expiration_seconds {
        None => TOKEN_LIFE_DEFAULT,
        Some(seconds) => u64::try_from(seconds).map_or(Duration::ZERO, Duration::from_secs),
    };
    if life < TOKEN_LIFE_MIN {
        let least = TOKEN_LIFE_MIN.as_secs();
        return Err(format!(": serviceAccountToken.expirationSeconds must be at least {least}"));
    }
    let audience = asked.audience.clone().filter(|a| !a.is_empty());
    Ok(TokenFile {
        path: inside(&asked.path)?,
        audience: audience.unwrap_or_else(|| token::API_AUDIENCE.to_owned()),
        life: life.min(token::LIFE),
    })
}

/// Keys of a ConfigMap or Secret as files, all or those that are picked; none if an optional one is missing.
fn from_keys(
    facts: &Facts<'_>,
    (kind, name): (&'static str, &str),
    items: Option<&[core::KeyToPath]>,
    optional: Option<bool>,
) -> Result<Option<Files>, String> {
    let Some(data) = facts.keys(kind, name) else {
        let missing = || format!(" shows {kind} {name}, which does not exist");
        return if optional == Some(true) { Ok(None) } else { Err(missing()) };
    };
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        return Ok(Some(data.clone()));
    };
    let pick = |item: &core::KeyToPath| {
        let value = data.get(&item.key).ok_or_else(|| format!(": {kind} {name} has no key {}", item.key))?;
        Ok((inside(&item.path)?, value.clone()))
    };
    items.iter().map(pick).collect::<Result<_, String>>().map(Some)
}

/// Fields of the pod as files.
fn from_fields(facts: &Facts<'_>, items: &[core::DownwardAPIVolumeFile]) -> Result<Files, String> {
    let read = |item: &core::DownwardAPIVolumeFile| {
        let path = item.field_ref.as_ref().map(|f| f.field_path.as_str());
        let path =
            path.ok_or_else(|| format!(": {} names no fieldRef, which alone a lab knows", item.path))?;
        let value = facts.field_of_file(path);
        let value = value.ok_or_else(|| format!(": {path} is no field that a file can show"))?;
        Ok((inside(&item.path)?, value))
    };
    items.iter().map(read).collect()
}

/// A path that stays inside its volume.
fn inside(path: &str) -> Result<String, String> {
    let stays = !path.is_empty() && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    if stays { Ok(path.to_owned()) } else { Err(format!(": path {path:?} does not stay inside the volume")) }
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

#[cfg(test)]
mod tests;
