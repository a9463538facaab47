//! What the newest changes of workloads and services touched, so that a connection that has nothing to do with them
//! need not look at the mesh.
//!
//! Only a few changes are remembered. Whoever has not looked for longer looks at everything.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use ambit_types::Str;

/// Changes that are remembered: a connection that is further behind has been waiting for its client.
const STEPS_MAX: usize = 64;
/// Names of one change. Looking through many more costs a connection as much as looking at all it holds.
const NAMES_MAX: usize = 256;

/// What one change touched, as it was before and as it is after.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Names of resources.
    pub(super) names: BTreeSet<Str>,
    /// Keys that lead to them: aliases, and services that they are behind.
    pub(super) keys: BTreeSet<Str>,
    /// Nodes they are on.
    pub(super) nodes: BTreeSet<Str>,
}

impl Touched {
    /// Everything by which something touched is found.
    pub(super) fn terms(&self) -> impl Iterator<Item = &Str> {
        self.names.iter().chain(&self.keys)
    }
}

/// The newest changes.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    /// The oldest first.
    steps: VecDeque<Arc<Touched>>,
}

impl History {
    /// Adds a change, unless it touched nothing.
    pub(super) fn push(&mut self, touched: Touched) {
        if touched.names.is_empty() {
            return;
        }
        if touched.names.len() > NAMES_MAX {
            // Nothing is known across it: the state that it led to is where knowledge begins anew.
            self.steps.clear();
            self.steps.push_back(Arc::default());
            return;
        }
        if self.steps.len() >= STEPS_MAX {
            self.steps.pop_front();
        }
        self.steps.push_back(Arc::new(touched));
    }

    /// The newest change. It stands for the state that it led to: no other state has the same.
    pub(super) fn newest(&self) -> Option<&Arc<Touched>> {
        self.steps.back()
    }

    /// The changes after `newest` was the newest; none if that is not known.
    pub(super) fn since(&self, newest: Option<&Arc<Touched>>) -> Option<impl Iterator<Item = &Touched>> {
        let newest = newest?;
        let at = self.steps.iter().rposition(|step| Arc::ptr_eq(step, newest))?;
        Some(self.steps.range(at + 1..).map(|step| &**step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(history: &mut History, names: usize) {
        let names = (0..names).map(|name| Str::from(name.to_string())).collect();
        history.push(Touched { names, ..Touched::default() });
    }

    fn since(history: &History, older: &History) -> Option<usize> {
        history.since(older.newest()).map(Iterator::count)
    }

    #[test]
    fn only_what_is_remembered_is_told() {
        let mut history = History::default();
        assert_eq!(since(&history, &history), None, "nobody can say what was before the first change");
        push(&mut history, 1);
        let old = history.clone();
        assert_eq!(since(&history, &old), Some(0));
        push(&mut history, 0);
        assert_eq!(since(&history, &old), Some(0), "nothing was touched");
        push(&mut history, 2);
        assert_eq!(since(&history, &old), Some(1));
        (0..STEPS_MAX).for_each(|_| push(&mut history, 1));
        assert_eq!(since(&history, &old), None, "too long ago");
        let old = history.clone();
        push(&mut history, NAMES_MAX + 1);
        assert_eq!(since(&history, &old), None, "too much at once");
        let old = history.clone();
        push(&mut history, 1);
        assert_eq!(since(&history, &old), Some(1));
    }

    #[test]
    fn states_of_different_lines_have_nothing_in_common() {
        let mut one = History::default();
        push(&mut one, 1);
        let mut other = one.clone();
        push(&mut one, 1);
        push(&mut other, 1);
        assert_eq!(since(&one, &other), None);
    }
}
