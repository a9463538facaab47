//! Service account tokens from the API server, and kubeconfigs for those who call it with one.

use std::path::Path;

use serde_json::{Value, json};

use super::api::{self, Api, Refusal};
use crate::token::{API_AUDIENCE, Bearer, TokenError};

/// The shortest life that an API server gives a token, in seconds.
const LIFE_SECONDS_MIN: u64 = 600;

/// Asks the API server for tokens.
#[derive(Debug, Clone)]
pub struct Requests {
    api: Api,
}

impl Requests {
    /// Asks that server.
    pub fn of(api: Api) -> Self {
        Self { api }
    }

    /// A token for somebody, bound to the pod.
    ///
    /// # Errors
    /// [`TokenError::Server`] with what the server said.
    pub async fn request(&self, bearer: &Bearer) -> Result<String, TokenError> {
        let Bearer { namespace, service_account, .. } = bearer;
        let path = api::path("v1", "serviceaccounts", Some(namespace), service_account);
        let answer = self.api.post(&format!("{path}/token"), &body(bearer)).await;
        let failed = |why: String| TokenError::Server {
            account: format!("{namespace}/{service_account}"),
            pod: bearer.pod.clone(),
            why,
        };
        let answer = answer.map_err(|refusal: Refusal| failed(refusal.message()))?;
        let token = answer.pointer("/status/token").and_then(Value::as_str);
        token.map(str::to_owned).ok_or_else(|| failed("the answer holds no token".to_owned()))
    }
}

fn body(bearer: &Bearer) -> Value {
    // Who names nobody gets the server's own audience, whatever that is.
    let audiences: Vec<&str> =
        Some(bearer.audience.as_str()).filter(|a| *a != API_AUDIENCE).into_iter().collect();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "name": bearer.pod, "uid": bearer.pod_uid});
    json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {
            "audiences": audiences, "boundObjectRef": pod,
            "expirationSeconds": bearer.life.as_secs().max(LIFE_SECONDS_MIN),
        },
    })
}

/// A kubeconfig for who has a token in a file.
pub fn kubeconfig(server: &str, ca: &Path, token: &Path) -> String {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {"server": server, "certificate-authority": ca}}],
        "users": [{"name": "lab", "user": {"tokenFile": token}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
    });
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_request_names_pod_audience_and_a_life_that_is_given() {
        let mut bearer = Bearer::node_proxy("node1", "n", "p".to_owned());
        let asked = body(&bearer);
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "name": "ztunnel-node1", "uid": "p"});
        assert_eq!(asked["spec"]["boundObjectRef"], pod);
        assert_eq!(asked["spec"]["audiences"], json!(["istio-ca"]));
        assert_eq!(asked["spec"]["expirationSeconds"], json!(600));
        bearer.audience = API_AUDIENCE.to_owned();
        bearer.life = Duration::from_secs(3600);
        let asked = body(&bearer);
        assert_eq!(asked["spec"]["audiences"], json!([]));
        assert_eq!(asked["spec"]["expirationSeconds"], json!(3600));
    }
}
