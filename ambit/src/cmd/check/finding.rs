//! What a check found, and how it is told: to people by category, to programs as Linkerd's `check` does it.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// How a check ended, the worse the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// All is well.
    Good,
    /// It works, but not as well as it should, or could not be found out.
    Warning,
    /// It does not work.
    Error,
}

impl Outcome {
    fn mark(self) -> char {
        match self {
            Self::Good => '✓',
            Self::Warning => '‼',
            Self::Error => '✗',
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Good => "success",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) outcome: Outcome,
    /// What was looked at.
    pub(super) what: String,
    /// What was found, where that is not well.
    pub(super) why: String,
    /// What to do then.
    pub(super) next: String,
}

/// Checks that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Category {
    pub(super) name: &'static str,
    pub(super) checks: Vec<Check>,
}

impl Category {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, checks: Vec::new() }
    }

    pub(super) fn good(&mut self, what: impl Into<String>) {
        let (why, next) = (String::new(), String::new());
        self.checks.push(Check { outcome: Outcome::Good, what: what.into(), why, next });
    }

    pub(super) fn warn(&mut self, what: impl Into<String>, why: impl Into<String>, next: impl Into<String>) {
        self.tell(Outcome::Warning, what, why, next);
    }

    pub(super) fn bad(&mut self, what: impl Into<String>, why: impl Into<String>, next: impl Into<String>) {
        self.tell(Outcome::Error, what, why, next);
    }

    pub(super) fn tell(
        &mut self,
        outcome: Outcome,
        what: impl Into<String>,
        why: impl Into<String>,
        next: impl Into<String>,
    ) {
        self.checks.push(Check { outcome, what: what.into(), why: why.into(), next: next.into() });
    }

    /// As Linkerd's `check -o json` has it.
    pub(super) fn json(&self) -> Value {
        let one = |check: &Check| {
            let some = |text: &String| (!text.is_empty()).then(|| text.clone());
            json!({
                "description": check.what,
                "hint": some(&check.next),
                "error": some(&check.why),
                "result": check.outcome.word(),
            })
        };
        json!({ "categoryName": self.name, "checks": self.checks.iter().map(one).collect::<Vec<_>>() })
    }
}

/// Every category with a mark a line, or findings only; the sum last.
pub(super) fn text(found: &[Category], findings_only: bool) -> String {
    let mut text = String::new();
    for category in found {
        let shown = |check: &&Check| !findings_only || check.outcome != Outcome::Good;
        let checks: Vec<&Check> = category.checks.iter().filter(shown).collect();
        if checks.is_empty() {
            continue;
        }
        let _ = writeln!(text, "{}", category.name);
        for check in checks {
            let _ = write!(text, "  {} {}", check.outcome.mark(), check.what);
            let _ = if check.why.is_empty() { writeln!(text) } else { writeln!(text, ": {}", check.why) };
            if !check.next.is_empty() {
                let _ = writeln!(text, "      -> {}", check.next);
            }
        }
        text.push('\n');
    }
    let count = |outcome| {
        found.iter().flat_map(|category| &category.checks).filter(|check| check.outcome == outcome).count()
    };
    let (errors, warnings) = (count(Outcome::Error), count(Outcome::Warning));
    let _ = match (errors, warnings) {
        (0, 0) => writeln!(text, "Result: all is well. Nothing was changed."),
        _ => writeln!(
            text,
            "Result: {}, {}. Nothing was changed.",
            counted(errors, "error"),
            counted(warnings, "warning")
        ),
    };
    text
}

fn counted(count: usize, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}
