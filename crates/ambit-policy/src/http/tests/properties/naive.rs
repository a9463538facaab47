//! Naive: every reading of a fact is written out, everything is evaluated, nothing is ordered or stopped early.

use super::*;
use crate::http::model::Attribute;
use crate::jwt::Claim;

pub(super) fn verdict(
    policies: &[Policy],
    facts: &Facts<'_>,
    answers: &[(&str, Answer)],
    order: CustomOrder,
) -> Verdict {
    let of = |wanted: fn(&Action) -> bool| {
        policies.iter().filter(move |p| !p.dry_run && wanted(&p.action)).collect::<Vec<_>>()
    };
    let matching = |list: &[&Policy]| list.iter().any(|p| policy(p, facts));
    let denied = matching(&of(|a| *a == Action::Deny));
    let said = |p: &&Policy| match &p.action {
        Action::Custom(name) => answers.iter().find(|(n, _)| *n == &**name).map(|(_, a)| *a),
        _ => None,
    };
    let custom: Vec<Option<Answer>> =
        of(|a| matches!(a, Action::Custom(_))).iter().filter(|p| policy(p, facts)).map(said).collect();
    let no = custom.iter().any(|a| matches!(a, Some(Answer::Denied | Answer::Unavailable)));
    let open = custom.contains(&None);
    let allow = of(|a| *a == Action::Allow);
    if no || (denied && (order == CustomOrder::AfterToken || !open)) {
        Verdict::Deny
    } else if open {
        Verdict::Ask
    } else if allow.is_empty() || matching(&allow) {
        Verdict::Allow
    } else {
        Verdict::Deny
    }
}

fn policy(policy: &Policy, facts: &Facts<'_>) -> bool {
    let careful = policy.action != Action::Allow;
    policy.rules.iter().any(|rule| {
        (careful || rule.unevaluable.is_empty())
            && rule.clauses.iter().all(|c| {
                let all = |a: &Vec<Condition>| {
                    if a.is_empty() { careful } else { a.iter().all(|c| holds(c, facts, careful)) }
                };
                if c.alternatives.is_empty() { careful } else { c.alternatives.iter().any(all) }
            })
    })
}

/// `careful`: agreement refuses.
fn holds(condition: &Condition, facts: &Facts<'_>, careful: bool) -> bool {
    let (any, none) = condition.values();
    if any.is_empty() && none.is_empty() {
        return careful;
    }
    if condition.attribute().needs_http() && facts.request().is_none() {
        return careful;
    }
    (any.is_empty() || agrees(condition, &any, facts, careful))
        && (none.is_empty() || !agrees(condition, &none, facts, !careful))
}

fn agrees(condition: &Condition, values: &[String], facts: &Facts<'_>, wide: bool) -> bool {
    let any = |text: &[u8]| values.iter().any(|value| text_agrees(value, text));
    let folded =
        |text: &str| values.iter().any(|v| text_agrees(&v.to_lowercase(), text.to_lowercase().as_bytes()));
    let token = || facts.request().and_then(|r| r.token);
    match condition.attribute() {
        Attribute::Principal => facts.peer().is_some_and(|p| any(p.principal().as_bytes())),
        Attribute::Namespace => facts.peer().is_some_and(|p| values.iter().any(|v| glob(v, p.namespace()))),
        Attribute::DestinationPort => values.contains(&facts.connection().port().to_string()),
        Attribute::RemoteIp => match facts.remote() {
            Some(ip) => values.iter().any(|v| v.parse::<ipnet::IpNet>().unwrap().contains(&ip)),
            None => wide,
        },
        Attribute::ServerName => facts.server_name().is_some_and(folded),
        Attribute::Method => any(facts.request().unwrap().target.method().as_bytes()),
        Attribute::Host => {
            let authority = facts.request().unwrap().target.authority();
            let port = authority.port().unwrap_or_else(|| facts.connection().port());
            let all = [authority.host().to_owned(), format!("{}:{port}", authority.host())];
            folded(authority.as_str()) || (wide && all.iter().any(|text| folded(text)))
        }
        Attribute::Path => values.iter().any(|value| path(value, facts, wide)),
        Attribute::Header(name) => {
            let request = facts.request().unwrap();
            let presence = values.contains(&"*".to_owned()) && present(name.as_str(), request);
            presence || header(name.as_str(), &any, request, wide)
        }
        Attribute::RequestPrincipal => token().and_then(Verified::principal).is_some_and(|(iss, sub)| {
            values.iter().any(|value| {
                principal(value, iss, sub) || (wide && text_agrees(value, format!("{iss}/{sub}").as_bytes()))
            })
        }),
        Attribute::Audience => token().is_some_and(|t| claim(values, t.claims().get("aud"), wide)),
        Attribute::Claim(at) => token().is_some_and(|t| claim(values, t.claims().at(&at), wide)),
        other => panic!("no condition on {other} is generated"),
    }
}

fn text_agrees(value: &str, text: &[u8]) -> bool {
    match (value.strip_prefix('*'), value.strip_suffix('*')) {
        (Some(""), _) => !text.is_empty(),
        (Some(end), _) => text.ends_with(end.as_bytes()),
        (None, Some(start)) => text.starts_with(start.as_bytes()),
        (None, None) => text == value.as_bytes(),
    }
}

/// Every way to give the stars a text.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_at_checked(1) {
        None => text.is_empty(),
        Some(("*", rest)) => (0..=text.len()).any(|at| glob(rest, &text[at..])),
        Some((first, rest)) => text.strip_prefix(first).is_some_and(|text| glob(rest, text)),
    }
}

fn path(value: &str, facts: &Facts<'_>, wide: bool) -> bool {
    let target = facts.request().unwrap().target;
    let one = |path: &[u8]| {
        let path = std::str::from_utf8(path).unwrap();
        if value.contains('{') { template(value, path) } else { text_agrees(value, path.as_bytes()) }
    };
    let bare = target.bare_path().filter(|_| !value.contains(';'));
    let readings: Vec<&[u8]> = [Some(target.path()), bare].into_iter().flatten().collect();
    if wide { readings.into_iter().any(one) } else { readings.into_iter().all(one) }
}

/// Templates as globs over characters, `{*}` tried at every length that holds no slash.
fn template(pattern: &str, path: &str) -> bool {
    if pattern == "{**}/" {
        return path.contains('/');
    }
    if let Some(rest) = pattern.strip_prefix("{**}") {
        return (0..=path.len()).any(|at| template(rest, &path[at..]));
    }
    if let Some(rest) = pattern.strip_prefix("{*}") {
        return (1..=path.len()).any(|at| !path[..at].contains('/') && template(rest, &path[at..]));
    }
    match (pattern.split_at_checked(1), path.split_at_checked(1)) {
        (None, None) => true,
        (Some((a, pattern)), Some((b, path))) => a == b && template(pattern, path),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

fn present(name: &str, request: &Request<'_>) -> bool {
    let mut present = false;
    request.headers.each(name, &mut |_| present = true);
    present
}

fn header(name: &str, any: &dyn Fn(&[u8]) -> bool, request: &Request<'_>, wide: bool) -> bool {
    let mut lines = Vec::new();
    request.headers.each(name, &mut |line| lines.push(line.trim_ascii().to_vec()));
    if !wide {
        return !lines.is_empty() && lines.iter().all(|line| any(line));
    }
    let split = |line: &Vec<u8>| {
        let elements = line.split(|b| *b == b',').map(|e| e.trim_ascii().to_vec());
        elements.chain([line.clone()]).collect::<Vec<_>>()
    };
    lines.iter().flat_map(split).any(|text| any(&text))
}

fn principal(value: &str, iss: &str, sub: &str) -> bool {
    let text = |pattern: &str, found: &str| text_agrees(pattern, found.as_bytes());
    match value {
        "*" => true,
        "*a" => text("*a", sub),
        "a*" => text("a*", iss),
        slashed => {
            let (left, right) = slashed.rsplit_once('/').unwrap();
            text(left, iss) && text(right, sub)
        }
    }
}

fn claim(values: &[String], claim: Option<&Claim>, wide: bool) -> bool {
    let Some(claim) = claim else { return false };
    let elements = match claim {
        Claim::List(list) => list.clone(),
        other => vec![other.clone()],
    };
    let texts: Vec<String> = elements
        .iter()
        .filter_map(|e| match e {
            Claim::Text(text) => Some(text.to_string()),
            Claim::Integer(number) if wide => Some(number.to_string()),
            _ => None,
        })
        .collect();
    let any = |text: &String| values.iter().any(|value| text_agrees(value, text.as_bytes()));
    texts.iter().any(any) || (wide && values.contains(&"*".to_owned()))
}
