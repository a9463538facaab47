//! Kinds and how an API server's paths name them.

use ambit_manifest::Kind;

use crate::error::KubeError;

/// Kinds that are written or asked for besides those of [`Kind`]: group, kind, plural, whether in a namespace.
const OTHERS: &[(&str, &str, &str, bool)] = &[
    ("", "Event", "events", true),
    ("", "ResourceQuota", "resourcequotas", true),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", false),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", false),
    (
        "admissionregistration.k8s.io",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
        false,
    ),
    (
        "admissionregistration.k8s.io",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        false,
    ),
    ("apiextensions.k8s.io", "CustomResourceDefinition", "customresourcedefinitions", false),
    ("apps", "DaemonSet", "daemonsets", true),
    ("authentication.k8s.io", "TokenReview", "tokenreviews", false),
    ("authorization.k8s.io", "SelfSubjectAccessReview", "selfsubjectaccessreviews", false),
    ("autoscaling", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true),
    ("batch", "Job", "jobs", true),
    ("certificates.k8s.io", "ClusterTrustBundle", "clustertrustbundles", false),
    ("coordination.k8s.io", "Lease", "leases", true),
    ("events.k8s.io", "Event", "events", true),
    ("monitoring.coreos.com", "PodMonitor", "podmonitors", true),
    ("policy", "PodDisruptionBudget", "poddisruptionbudgets", true),
    ("rbac.authorization.k8s.io", "ClusterRole", "clusterroles", false),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding", "clusterrolebindings", false),
    ("rbac.authorization.k8s.io", "Role", "roles", true),
    ("rbac.authorization.k8s.io", "RoleBinding", "rolebindings", true),
    ("scheduling.k8s.io", "PriorityClass", "priorityclasses", false),
];

/// A kind as a path of an API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: String,
    /// Group and version as manifests write them, such as `apps/v1`.
    pub api_version: String,
    /// Name of the kind.
    pub kind: String,
    /// Plural in lower case.
    pub plural: String,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
}

impl Resource {
    /// The resource of a kind that is read here, in the version given.
    pub fn of_kind(kind: Kind, api_version: &str) -> Self {
        Self {
            group: group(api_version).to_owned(),
            api_version: api_version.to_owned(),
            kind: kind.as_str().to_owned(),
            plural: kind.plural().to_owned(),
            namespaced: kind.namespaced(),
        }
    }

    /// The resource that manifests name so.
    ///
    /// # Errors
    /// [`KubeError::UnknownKind`] if it is none of those known.
    pub fn named(api_version: &str, kind: &str) -> Result<Self, KubeError> {
        let group = group(api_version);
        if let Some(known) = Kind::from_name(kind)
            && known.api_versions().iter().any(|version| self::group(version) == group)
        {
            return Ok(Self::of_kind(known, api_version));
        }
        let other = OTHERS.iter().find(|(of, name, ..)| *of == group && *name == kind);
        let unknown =
            || KubeError::UnknownKind { api_version: api_version.to_owned(), kind: kind.to_owned() };
        let (_, _, plural, namespaced) = other.ok_or_else(unknown)?;
        Ok(Self {
            group: group.to_owned(),
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            plural: (*plural).to_owned(),
            namespaced: *namespaced,
        })
    }

    /// Path of the collection, in a namespace or of the whole cluster.
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "api" } else { "apis" };
        let Self { api_version, plural, .. } = self;
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("/{root}/{api_version}/namespaces/{namespace}/{plural}"),
            None => format!("/{root}/{api_version}/{plural}"),
        }
    }
}

fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        let rows = [
            ("v1", "Pod", Some("shop"), "/api/v1/namespaces/shop/pods"),
            ("v1", "Node", Some("shop"), "/api/v1/nodes"),
            ("apps/v1", "Deployment", None, "/apis/apps/v1/deployments"),
            (
                "policy/v1",
                "PodDisruptionBudget",
                Some("a"),
                "/apis/policy/v1/namespaces/a/poddisruptionbudgets",
            ),
            ("v1", "Event", Some("a"), "/api/v1/namespaces/a/events"),
            (
                "gateway.networking.k8s.io/v1",
                "HTTPRoute",
                Some("a"),
                "/apis/gateway.networking.k8s.io/v1/namespaces/a/httproutes",
            ),
        ];
        for (version, kind, namespace, path) in rows {
            assert_eq!(Resource::named(version, kind).unwrap().path(namespace), path);
        }
        assert!(Resource::named("apps/v1", "Pod").is_err());
        assert!(Resource::named("v1", "Moon").unwrap_err().to_string().contains("Moon"));
    }
}
