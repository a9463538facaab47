//! Label selectors, by the rules of the Kubernetes API.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Whether the selector chooses an object with these labels; an empty one chooses everything.
///
/// # Errors
/// Names an operator that does not exist.
pub fn selects(selector: &LabelSelector, labels: &Labels) -> Result<bool, String> {
    let mut all = equals(selector.match_labels.iter().flatten(), labels);
    for expression in selector.match_expressions.iter().flatten() {
        let own = labels.get(&expression.key);
        let listed = || own.is_some_and(|v| expression.values.iter().flatten().any(|w| w == v));
        all &= match expression.operator.as_str() {
            "In" => listed(),
            "NotIn" => !listed(),
            "Exists" => own.is_some(),
            "DoesNotExist" => own.is_none(),
            other => {
                return Err(format!("operator {other} is not one of In, NotIn, Exists, DoesNotExist"));
            }
        };
    }
    Ok(all)
}

/// Whether every one of the wanted labels is there with that value.
pub fn equals<'a>(mut wanted: impl Iterator<Item = (&'a String, &'a String)>, labels: &Labels) -> bool {
    wanted.all(|(key, value)| labels.get(key) == Some(value))
}

/// Whether a selector says nothing.
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}
