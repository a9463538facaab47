//! What the API server wrote down of who asked it for what: one line a request, with its outcome.

use ambit_tests::lab::Lab;
use serde_json::Value;

use super::roles::Right;

/// What the accounts of the mesh begin with.
const ACCOUNTS: &str = "system:serviceaccount:istio-system:";
/// Refusals that are not for want of a right.
const OTHER_REFUSALS: [&str; 2] = ["admission webhook", "being terminated"];

/// A request of one of the mesh's programs.
#[derive(Debug)]
pub(super) struct Request {
    account: String,
    line: Value,
}

/// Every request of the mesh's programs so far.
#[track_caller]
pub(super) fn requests(lab: &Lab) -> Vec<Request> {
    let file = lab.run_dir().join("kube/audit.log");
    let text = std::fs::read_to_string(&file).expect("the API server's audit log");
    // The last line may be on its way.
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let lines = whole.map(|line| serde_json::from_str::<Value>(line).expect("JSON in the audit log"));
    lines
        .filter_map(|line| {
            let account = line["user"]["username"].as_str()?.strip_prefix(ACCOUNTS)?.to_owned();
            Some(Request { account, line })
        })
        .collect()
}

impl Request {
    /// Who asked.
    pub(super) fn account(&self) -> &str {
        &self.account
    }

    /// Whether it was refused because the account may not do that.
    pub(super) fn is_denied(&self) -> bool {
        if self.line["annotations"]["authorization.k8s.io/decision"] == "forbid" {
            return true;
        }
        let status = &self.line["responseStatus"];
        let message = status["message"].as_str().unwrap_or_default();
        status["code"] == 403 && !OTHER_REFUSALS.iter().any(|other| message.contains(other))
    }

    /// Whether it could not have been made without a right. Server-side apply of an object that is not there is a
    /// creation too.
    pub(super) fn uses(&self, right: &Right) -> bool {
        let of = &self.line["objectRef"];
        let text = |field: &str| of[field].as_str().unwrap_or_default();
        let resource = match text("subresource") {
            "" => text("resource").to_owned(),
            part => format!("{}/{part}", text("resource")),
        };
        let is_verb = self.line["verb"] == right.verb.as_str()
            || (right.verb == "create"
                && self.line["verb"] == "patch"
                && self.line["responseStatus"]["code"] == 201);
        self.account == right.account
            && is_verb
            && resource == right.resource
            && text("apiGroup") == right.group
            && (right.name.is_empty() || self.names(&right.name))
            && (!right.own || text("namespace") == "istio-system")
    }

    /// Whether it is about that one object: by its path, or by a selector of its name.
    fn names(&self, name: &str) -> bool {
        let uri = self.line["requestURI"].as_str().unwrap_or_default();
        let by_selector = ["metadata.name%3D", "metadata.name="].iter().any(|field| {
            uri.split_once(field).is_some_and(|(_, rest)| {
                rest.strip_prefix(name)
                    .is_some_and(|after| after.is_empty() || after.starts_with(['&', '%', ',']))
            })
        });
        self.line["objectRef"]["name"] == name || by_selector
    }

    /// It in one line, for a failure's message.
    pub(super) fn shown(&self) -> String {
        format!(
            "{} {} {}: {}",
            self.account, self.line["verb"], self.line["requestURI"], self.line["responseStatus"]
        )
    }
}
