//! Writing objects: server-side apply, creating once, deleting; and asking for single ones.
//!
//! Every call ends within [`CALL_MAX`]. Objects are JSON; their kind must be in the table of [`crate::resource`].

use std::time::Duration;

use kube::Client;
use kube::api::{
    DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy,
};
use kube::core::Request;
use kube::core::request::Error as RequestError;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Call, KubeError};
use crate::resource::Resource;

#[cfg(test)]
mod tests;

/// Longest time of one call.
pub const CALL_MAX: Duration = Duration::from_secs(10);
/// Objects of one page of a list.
const PAGE: u32 = 500;

/// One object, or the objects of a namespace, of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The kind.
    pub resource: Resource,
    /// Namespace; none for kinds of the whole cluster, or for all namespaces in a list.
    pub namespace: Option<String>,
    /// Name; empty in a list.
    pub name: String,
}

impl Target {
    /// Names an object.
    ///
    /// # Errors
    /// [`KubeError::UnknownKind`] if the kind is not in the table.
    pub fn new(
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Self, KubeError> {
        let resource = Resource::named(api_version, kind)?;
        let namespace = namespace.filter(|_| resource.namespaced).map(str::to_owned);
        Ok(Self { resource, namespace, name: name.to_owned() })
    }

    /// The name of an object given as JSON.
    ///
    /// # Errors
    /// [`KubeError::Incomplete`] if it does not say what it is.
    pub fn of(object: &Value) -> Result<Self, KubeError> {
        let text = |pointer: &str, field| {
            object.pointer(pointer).and_then(Value::as_str).ok_or(KubeError::Incomplete(field))
        };
        let version = text("/apiVersion", "apiVersion")?;
        let kind = text("/kind", "kind")?;
        let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str);
        let target = Self::new(version, kind, namespace, text("/metadata/name", "metadata.name")?)?;
        if target.resource.namespaced && target.namespace.is_none() {
            return Err(KubeError::Incomplete("metadata.namespace"));
        }
        Ok(target)
    }

    fn request(&self) -> Request {
        Request::new(self.resource.path(self.namespace.as_deref()))
    }

    fn call(&self, verb: &'static str) -> Call {
        let name = Some(self.name.as_str()).filter(|name| !name.is_empty());
        Call::new(verb, &self.resource, self.namespace.as_deref(), name)
    }
}

/// What became of a creation.
#[derive(Clone, Debug, PartialEq)]
pub enum Once {
    /// It was made by us.
    Created(Value),
    /// It was there, whoever made it; untouched.
    Existing(Value),
}

impl Once {
    /// The object as it stands in the cluster.
    pub fn object(&self) -> &Value {
        match self {
            Self::Created(object) | Self::Existing(object) => object,
        }
    }
}

/// Makes the fields that `object` names be as it says, under the name of `manager` (server-side apply); returns the
/// object as it then is. With `force`, fields of other managers are taken over.
///
/// # Errors
/// [`KubeError::Conflict`] without `force` if another manager owns a field; [`KubeError::Forbidden`] needs the verb
/// `patch`, and `create` for an object that is not there.
pub async fn apply(client: &Client, manager: &str, object: &Value, force: bool) -> Result<Value, KubeError> {
    let target = Target::of(object)?;
    let params = PatchParams { field_manager: Some(manager.to_owned()), force, ..PatchParams::default() };
    let request = target.request().patch(&target.name, &params, &Patch::Apply(object));
    send(client, &target.call("patch"), request).await
}

/// As [`apply`], but answered with the object's metadata alone: nothing of what it holds is sent to us.
///
/// # Errors
/// As [`apply`]; [`KubeError::Conflict`] if `object` names a uid and that object is not there.
pub async fn apply_metadata(
    client: &Client,
    manager: &str,
    object: &Value,
    force: bool,
) -> Result<Value, KubeError> {
    let target = Target::of(object)?;
    let params = PatchParams { field_manager: Some(manager.to_owned()), force, ..PatchParams::default() };
    let request = target.request().patch_metadata(&target.name, &params, &Patch::Apply(object));
    send(client, &target.call("patch"), request).await
}

/// As [`apply`], for the object's status; everything else in `object` but its name is left alone.
///
/// # Errors
/// As [`apply`]; [`KubeError::NotFound`] if the object is gone.
pub async fn apply_status(
    client: &Client,
    manager: &str,
    object: &Value,
    force: bool,
) -> Result<Value, KubeError> {
    let target = Target::of(object)?;
    let params = PatchParams { field_manager: Some(manager.to_owned()), force, ..PatchParams::default() };
    let request = target.request().patch_subresource("status", &target.name, &params, &Patch::Apply(object));
    send(client, &target.call("patch").part("status"), request).await
}

/// Creates an object unless one of its name is there; of several that try at once, one creates it.
///
/// # Errors
/// [`KubeError`] if it can neither be created nor read.
pub async fn create_once(client: &Client, manager: &str, object: &Value) -> Result<Once, KubeError> {
    match create(client, manager, object).await {
        Ok(made) => Ok(Once::Created(made)),
        Err(KubeError::Conflict { call, message }) => {
            let existing = get(client, &Target::of(object)?).await?;
            existing.map(Once::Existing).ok_or(KubeError::Conflict { call, message })
        }
        Err(other) => Err(other),
    }
}

/// Creates an object.
///
/// # Errors
/// [`KubeError::Conflict`] if one of its name is there.
pub async fn create(client: &Client, manager: &str, object: &Value) -> Result<Value, KubeError> {
    let target = Target::of(object)?;
    let params = PostParams { field_manager: Some(manager.to_owned()), ..PostParams::default() };
    let request = target.request().create(&params, object.to_string().into_bytes());
    send(client, &target.call("create"), request).await
}

/// Puts `object` in the place of the version whose `metadata.resourceVersion` it carries.
///
/// # Errors
/// [`KubeError::Conflict`] if somebody changed it meanwhile.
pub async fn replace(client: &Client, manager: &str, object: &Value) -> Result<Value, KubeError> {
    let target = Target::of(object)?;
    if object.pointer("/metadata/resourceVersion").is_none_or(|version| !version.is_string()) {
        return Err(KubeError::Incomplete("metadata.resourceVersion"));
    }
    let params = PostParams { field_manager: Some(manager.to_owned()), ..PostParams::default() };
    let request = target.request().replace(&target.name, &params, object.to_string().into_bytes());
    send(client, &target.call("update"), request).await
}

/// The object, if it is there.
///
/// # Errors
/// [`KubeError`] if that cannot be told.
pub async fn get(client: &Client, target: &Target) -> Result<Option<Value>, KubeError> {
    let request = target.request().get(&target.name, &GetParams::default());
    absent_is_none(send(client, &target.call("get"), request).await)
}

/// The object's metadata alone, if it is there: nothing of what it holds is sent to us.
///
/// # Errors
/// [`KubeError`] if that cannot be told.
pub async fn get_metadata(client: &Client, target: &Target) -> Result<Option<Value>, KubeError> {
    let request = target.request().get_metadata(&target.name, &GetParams::default());
    absent_is_none(send(client, &target.call("get"), request).await)
}

/// Every object of the target's kind and namespace, as far as the selectors match.
///
/// # Errors
/// [`KubeError`] if they cannot be listed.
pub async fn list(
    client: &Client,
    target: &Target,
    labels: Option<&str>,
    fields: Option<&str>,
) -> Result<Vec<Value>, KubeError> {
    let mut all = Vec::new();
    each(client, target, labels, fields, |object| all.push(object)).await?;
    Ok(all)
}

/// Hands every such object to `take`, page by page, so that no more of a long list is held than `take` keeps.
///
/// # Errors
/// [`KubeError`] if they cannot be listed to the end.
pub async fn each(
    client: &Client,
    target: &Target,
    labels: Option<&str>,
    fields: Option<&str>,
    mut take: impl FnMut(Value),
) -> Result<(), KubeError> {
    let call = target.call("list");
    let mut params = ListParams { limit: Some(PAGE), ..ListParams::default() };
    params.label_selector = labels.map(str::to_owned);
    params.field_selector = fields.map(str::to_owned);
    loop {
        let mut page: Value = send(client, &call, target.request().list(&params)).await?;
        if let Some(Value::Array(items)) = page.get_mut("items").map(Value::take) {
            items.into_iter().for_each(&mut take);
        }
        let next = page.pointer("/metadata/continue").and_then(Value::as_str).filter(|next| !next.is_empty());
        match next {
            Some(next) => params.continue_token = Some(next.to_owned()),
            None => return Ok(()),
        }
    }
}

/// Deletes an object with what it owns; with `uid`, only the object of this uid. Returns whether it was there.
///
/// # Errors
/// [`KubeError::Conflict`] if another object has taken its name.
pub async fn delete(client: &Client, target: &Target, uid: Option<&str>) -> Result<bool, KubeError> {
    let mut params =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
    params.preconditions = uid.map(|uid| Preconditions { uid: Some(uid.to_owned()), resource_version: None });
    let request = target.request().delete(&target.name, &params);
    let deleted: Result<Value, KubeError> = send(client, &target.call("delete"), request).await;
    Ok(absent_is_none(deleted)?.is_some())
}

fn absent_is_none(result: Result<Value, KubeError>) -> Result<Option<Value>, KubeError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(KubeError::NotFound { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}

/// Sends a request and waits for its answer, not for ever.
pub(crate) async fn send<T: DeserializeOwned>(
    client: &Client,
    call: &Call,
    request: Result<http::Request<Vec<u8>>, RequestError>,
) -> Result<T, KubeError> {
    let request = request.map_err(|cause| KubeError::of(call, kube::Error::BuildRequest(cause)))?;
    let answer = tokio::time::timeout(CALL_MAX, client.request::<T>(request)).await;
    let answer = answer.map_err(|_| KubeError::TimedOut { call: Box::new(call.clone()), after: CALL_MAX })?;
    answer.map_err(|cause| KubeError::of(call, cause))
}
