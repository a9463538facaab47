//! Tests of the whole crate.

use super::*;

#[test]
fn reads_a_document_and_says_what_is_wrong_with_another() {
    let text = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: orders\n  namespace: shop\nspec:\n  rulez: []\n  action: ALOW\n";
    let parsed = parse("f.yaml", text);
    assert_eq!(parsed.objects.len(), 1, "{:?}", parsed.problems);
    let said: Vec<String> = parsed.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            r#"f.yaml:12:3: AuthorizationPolicy shop/orders: spec.rulez: unknown field, did you mean "rules"?"#,
            r#"f.yaml:13:11: AuthorizationPolicy shop/orders: spec.action: "ALOW" is not a valid value, valid are ALLOW, DENY, AUDIT, CUSTOM, did you mean "ALLOW"?"#,
        ]
    );
}
