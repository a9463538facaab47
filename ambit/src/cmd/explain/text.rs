//! An explanation as people read it.

use std::fmt::Write as _;

use ambit_explain::{Explanation, Hop, Outcome};

/// The whole story; `wide` adds every policy that was compared.
pub(super) fn narrative(explanation: &Explanation, wide: bool) -> String {
    let mut text = String::new();
    let request = explanation.request.as_ref().map(|request| format!("  {request}")).unwrap_or_default();
    let code = explanation.code().map(|code| format!("  {code}")).unwrap_or_default();
    line(&mut text, &format!("{} -> {}{request}", explanation.source, explanation.destination));
    line(&mut text, &format!("{}{code}", explanation.verdict.to_string().to_uppercase()));
    text.push('\n');
    for (number, hop) in explanation.hops.iter().enumerate() {
        step(&mut text, number + 1, hop, wide);
    }
    text.push('\n');
    let facts = [
        ("decided by", explanation.decided_by.as_ref().map(ToString::to_string)),
        ("nearest", explanation.nearest.as_ref().map(|nearest| nearest.sentence.clone())),
        ("carried", explanation.way.map(|way| way.name().to_owned())),
        ("endpoint", explanation.endpoint.clone()),
        ("answer", explanation.status.map(|status| status.to_string())),
    ];
    for (name, fact) in facts {
        if let Some(fact) = fact {
            line(&mut text, &format!("{name:<12}{fact}"));
        }
    }
    for assumed in &explanation.assumed {
        line(&mut text, &format!("{:<12}{assumed}", "assumed"));
    }
    text
}

fn step(text: &mut String, number: usize, hop: &Hop, wide: bool) {
    let mark = match hop.outcome {
        Outcome::Passed => "✓",
        Outcome::Refused => "✗",
        Outcome::Skipped => "-",
        Outcome::Unknown => "?",
    };
    let code = hop.reason.map(|code| format!("  [{}]", code.0.code())).unwrap_or_default();
    line(text, &format!("{number:>2} {mark} {:<16}{}{code}", hop.step.name(), hop.what));
    for detail in &hop.details {
        line(text, &format!("{:<21}{detail}", ""));
    }
    for policy in hop.policies.iter().filter(|_| wide) {
        let agrees: Vec<String> = policy.agrees.iter().map(ToString::to_string).collect();
        let agrees = if agrees.is_empty() {
            "no rule agrees".to_owned()
        } else {
            format!("rule {} agrees", agrees.join(", "))
        };
        let dry = if policy.dry_run { ", dry run" } else { "" };
        line(
            text,
            &format!("{:<21}{} {}{dry}: {agrees} of {}", "", policy.action, policy.policy, policy.rules),
        );
    }
}

fn line(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}", line.trim_end());
}
