//! Which labels a selector accepts.

use ambit_types::Str;

use super::Labels;

/// A Kubernetes label selector; without any requirement it accepts everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    /// Labels that must have exactly these values.
    pub match_labels: Labels,
    /// Further requirements, all of which must hold.
    pub expressions: Vec<Expression>,
}

/// One requirement of a selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    /// Label it is about.
    pub key: Str,
    /// How it is compared.
    pub operator: Operator,
    /// With what; empty for the operators that only ask whether the label is there.
    pub values: Vec<Str>,
}

/// How a requirement compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// The label has one of the values.
    In,
    /// The label has none of the values, or is absent.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl LabelSelector {
    /// A selector of exact labels only.
    pub fn labels(match_labels: Labels) -> Self {
        Self { match_labels, expressions: Vec::new() }
    }

    /// Whether the labels satisfy every requirement.
    pub fn accepts(&self, labels: &Labels) -> bool {
        contains_all(labels, &self.match_labels) && self.expressions.iter().all(|e| e.accepts(labels))
    }
}

impl Expression {
    fn accepts(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::In => value.is_some_and(|v| self.values.contains(v)),
            Operator::NotIn => value.is_none_or(|v| !self.values.contains(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

/// Whether `labels` holds every one of `wanted`.
pub(crate) fn contains_all(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}
