//! Which mesh a command is about: a lab on this machine, or that of a cluster; and what an API server's refusals mean for
//! the exit code.

use ambit_kube::KubeError;
use ambit_lab::{LabName, RunDir, rootless};

use super::install::cluster::At;
use crate::out::{self, Failure};

/// Help of every option that names the lab.
pub(crate) const LAB: &str = "Name of the lab; unset: the cluster of --kubeconfig, --context or KUBECONFIG, else the lab named `lab` \
     if it is up, else the cluster of ~/.kube/config";

/// The lab that is meant; none if it is a cluster. `usual` is the lab that needs no name.
///
/// Where neither is at hand it is the usual lab, so that the words about what is missing are about that.
pub(crate) fn lab<'a>(given: Option<&'a LabName>, usual: &'a LabName, at: &At) -> Option<&'a LabName> {
    if given.is_some() {
        return given;
    }
    let is_up = || RunDir::of(usual).root().exists() || rootless::labs().contains(usual);
    (!at.is_named() && (is_up() || !at.is_known())).then_some(usual)
}

/// A failure with the exit code that the API server's answer has: 69 where there was none that counts.
pub(crate) fn failure(error: &KubeError) -> Failure {
    let code = match error {
        KubeError::Config(_)
        | KubeError::Unauthorized { .. }
        | KubeError::Unreachable { .. }
        | KubeError::TimedOut { .. }
        | KubeError::Answer { .. } => out::UNREACHABLE,
        KubeError::Status { status, .. } if *status >= 500 => out::UNREACHABLE,
        KubeError::Forbidden { .. }
        | KubeError::NotFound { .. }
        | KubeError::Conflict { .. }
        | KubeError::Status { .. }
        | KubeError::UnknownKind { .. }
        | KubeError::Incomplete(_) => out::FAILED,
    };
    Failure::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use ambit_kube::Call;
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        at: At,
    }

    /// A line without what the machine's own environment says.
    fn at(words: &[&str]) -> At {
        let home = ["x", "--home", "/nonexistent", "--kubeconfig", ""];
        let own = if words.is_empty() { &home[..] } else { &home[..3] };
        Line::try_parse_from(own.iter().chain(words)).expect("a good line").at
    }

    #[test]
    fn a_lab_that_is_named_comes_first_and_then_a_cluster_that_is() {
        let (two, usual): (LabName, LabName) = ("two".parse().unwrap(), "t-none".parse().unwrap());
        let named = at(&["--kubeconfig", "/nonexistent/config"]);
        let context = at(&["--kubeconfig", "", "--context", "prod"]);
        assert_eq!(lab(Some(&two), &usual, &named), Some(&two));
        assert_eq!(lab(None, &usual, &named), None);
        assert_eq!(lab(None, &usual, &context), None);
        // Nothing is at hand: what is said is about the lab.
        assert_eq!(lab(None, &usual, &at(&[])), Some(&usual));
    }

    #[test]
    fn who_cannot_be_asked_is_told_from_who_says_no() {
        let call = || {
            Box::new(Call {
                verb: "get",
                group: String::new(),
                resource: "secrets".to_owned(),
                namespace: None,
                name: None,
            })
        };
        let of = |status| failure(&KubeError::of_status(call(), status, String::new())).code;
        assert_eq!([401, 500, 503].map(of), [out::UNREACHABLE; 3]);
        assert_eq!([403, 404, 409, 422, 429].map(of), [out::FAILED; 5]);
        let away = KubeError::Unreachable { call: call(), cause: "refused".to_owned() };
        assert_eq!(failure(&away).code, out::UNREACHABLE);
    }
}
