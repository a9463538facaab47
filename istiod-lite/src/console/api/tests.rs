//! What bounds an answer.

use super::*;

#[test]
fn an_answer_is_bounded_in_number_and_in_bytes() {
    let item = json!("12345678");
    let one = item.to_string().len() + 1;
    let rows = [(9, 9 * one, 5), (3, 9 * one, 3), (9, 4 * one, 4), (9, 4 * one - 1, 3), (9, 0, 0), (0, 9, 0)];
    for (items_max, bytes_max, want) in rows {
        let items = std::iter::repeat_n(item.clone(), 5);
        let found = first_within(items, items_max, bytes_max).len();
        assert_eq!(found, want, "{items_max} items, {bytes_max} bytes");
    }
}
