//! Which hidden facts a verdict depends on, for who asks about a request of which only a part was kept.
//!
//! Conditions on what is hidden may hold or not. Those of a rule that cannot agree whatever is hidden, and those behind a
//! rule that agrees whatever is hidden, do not matter.

use std::collections::BTreeSet;

use super::{Leaning, compare};
use crate::http::facts::Facts;
use crate::http::list::List;
use crate::http::model::{Attribute, Clause, Condition, Rule};
use crate::http::set::PolicySet;

/// Attributes that are hidden.
type Hidden<'h> = &'h dyn Fn(&Attribute) -> bool;

/// Whether something agrees, as far as it can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Agrees {
    No,
    Perhaps,
    Yes,
}

/// What is hidden and may change the verdict on `facts`; nothing if the verdict is the same whatever that is.
///
/// What providers say and what only is recorded (AUDIT, dry-run) is left out.
pub fn depends_on(
    set: &PolicySet,
    facts: &Facts<'_>,
    is_hidden: &dyn Fn(&Attribute) -> bool,
) -> BTreeSet<Attribute> {
    let (mut read, mut permits) = (BTreeSet::new(), BTreeSet::new());
    let denied = list_agrees(&set.deny, Leaning::Refuse, facts, is_hidden, &mut read);
    // Agreement asks a provider and decides nothing by itself; which are asked depends on what is read.
    let _ = list_agrees(&set.custom, Leaning::Refuse, facts, is_hidden, &mut read);
    let allowed = match set.allow.is_empty() {
        true => Agrees::Yes,
        false => list_agrees(&set.allow, Leaning::Permit, facts, is_hidden, &mut permits),
    };
    if denied == Agrees::Yes || !set.unresolved.is_empty() || allowed == Agrees::No {
        return BTreeSet::new();
    }
    if allowed == Agrees::Perhaps {
        read.append(&mut permits);
    }
    read
}

/// The most that any rule of a list does.
fn list_agrees(
    list: &List,
    leaning: Leaning,
    facts: &Facts<'_>,
    is_hidden: Hidden<'_>,
    read: &mut BTreeSet<Attribute>,
) -> Agrees {
    let rules = list.policies().iter().flat_map(|policy| &policy.rules);
    let each = rules.map(|rule| rule_agrees(rule, leaning, facts, is_hidden, read));
    // Not cut short: what is read has to be complete.
    each.fold(Agrees::No, Agrees::max)
}

fn rule_agrees(
    rule: &Rule,
    leaning: Leaning,
    facts: &Facts<'_>,
    is_hidden: Hidden<'_>,
    read: &mut BTreeSet<Attribute>,
) -> Agrees {
    if !rule.unevaluable.is_empty() && !leaning.refuses() {
        return Agrees::No;
    }
    let mut own = BTreeSet::new();
    let clauses =
        rule.clauses.iter().map(|clause| clause_agrees(clause, leaning, facts, is_hidden, &mut own));
    let agrees = clauses.fold(Agrees::Yes, Agrees::min);
    if agrees == Agrees::Perhaps {
        read.append(&mut own);
    }
    agrees
}

fn clause_agrees(
    clause: &Clause,
    leaning: Leaning,
    facts: &Facts<'_>,
    is_hidden: Hidden<'_>,
    read: &mut BTreeSet<Attribute>,
) -> Agrees {
    if clause.alternatives.is_empty() {
        return of(leaning.refuses());
    }
    let mut own = BTreeSet::new();
    let alternatives = clause.alternatives.iter();
    let each = alternatives.map(|all| alternative_agrees(all, leaning, facts, is_hidden, &mut own));
    let agrees = each.fold(Agrees::No, Agrees::max);
    if agrees == Agrees::Perhaps {
        read.append(&mut own);
    }
    agrees
}

fn alternative_agrees(
    conditions: &[Condition],
    leaning: Leaning,
    facts: &Facts<'_>,
    is_hidden: Hidden<'_>,
    read: &mut BTreeSet<Attribute>,
) -> Agrees {
    if conditions.is_empty() {
        return of(leaning.refuses());
    }
    let (hidden, known): (Vec<&Condition>, Vec<&Condition>) =
        conditions.iter().partition(|condition| is_hidden(&condition.attribute()));
    let holds = |condition: &&Condition| compare(condition, facts, leaning).holds(leaning);
    if !known.iter().all(holds) {
        return Agrees::No;
    }
    if hidden.is_empty() {
        return Agrees::Yes;
    }
    read.extend(hidden.into_iter().map(Condition::attribute));
    Agrees::Perhaps
}

fn of(agrees: bool) -> Agrees {
    if agrees { Agrees::Yes } else { Agrees::No }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    use ambit_types::{Identity, PolicyKey, TrustDomain};
    use serde_json::{Value, json};

    use super::depends_on;
    use crate::http::{CustomOrder, Facts, Options, PolicySet, Request, compile};
    use crate::normalize::{self, Received};

    /// What the verdict on `GET /a` of shop/web depends on, with headers and tokens hidden.
    fn told(policies: &[Value]) -> Vec<String> {
        let compiled = policies.iter().enumerate().map(|(number, spec)| {
            let written = serde_json::from_value(spec.clone()).unwrap();
            let key = PolicyKey::new("shop", format!("p{number}"));
            Arc::new(compile(&key, &written, false, &Options::default()).unwrap())
        });
        let set = PolicySet::new(compiled, [], CustomOrder::default());
        let web = Identity::new(TrustDomain::default(), "shop", "web");
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let received =
            Received { method: b"GET", authority: Some(b"cart"), path: Some(b"/a"), ..Received::default() };
        let target = normalize::normalize(&received, &normalize::Options::default()).unwrap();
        let headers: Vec<(String, String)> = Vec::new();
        let request = Request { target: &target, headers: &headers, remote: Some(ip), token: None };
        let facts = Facts::of_request(crate::Facts::new(Some(&web), ip, ip, 80), request);
        let is_hidden = |attribute: &crate::http::Attribute| {
            attribute.needs_token() || attribute.to_string().starts_with("header")
        };
        depends_on(&set, &facts, &is_hidden).iter().map(ToString::to_string).collect()
    }

    fn allow(from: &str, path: &str, header: Option<&str>) -> Value {
        let mut rule = json!({
            "from": [{"source": {"principals": [format!("cluster.local/ns/shop/sa/{from}")]}}],
            "to": [{"operation": {"paths": [path]}}],
        });
        if let Some(value) = header {
            rule["when"] = json!([{"key": "request.headers[x-user]", "values": [value]}]);
        }
        json!({"action": "ALLOW", "rules": [rule]})
    }

    #[test]
    fn a_rule_that_may_agree_is_read_and_no_other() {
        assert_eq!(told(&[allow("web", "/a", Some("anna"))]), ["header x-user"]);
        assert!(told(&[allow("batch", "/a", Some("anna"))]).is_empty(), "another caller's");
        assert!(told(&[allow("web", "/b", Some("anna"))]).is_empty(), "another path's");
        assert!(told(&[allow("web", "/a", None)]).is_empty(), "nothing hidden");
        assert!(told(&[]).is_empty());
    }

    #[test]
    fn what_is_decided_anyway_depends_on_nothing() {
        let header = allow("web", "/a", Some("anna"));
        assert!(told(&[header.clone(), allow("web", "/a", None)]).is_empty(), "another rule permits");
        let lock = json!({"action": "DENY", "rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]});
        assert!(told(&[header, lock]).is_empty(), "it is refused whatever the header is");
    }

    #[test]
    fn refusals_and_tokens_are_read_too() {
        let deny = json!({"action": "DENY", "rules": [{"when": [
            {"key": "request.headers[x-bot]", "values": ["*"]}]}]});
        assert_eq!(told(&[deny, allow("web", "/a", None)]), ["header x-bot"]);
        let token = json!({"action": "ALLOW", "rules": [{"from": [
            {"source": {"requestPrincipals": ["*"]}}]}]});
        assert_eq!(told(&[token]), ["token principal"]);
    }
}
