//! JSON in a form that is the same for the same value: keys sorted, what is empty left out.

use serde_json::Value;

/// The text of `value`. Fields that are null, or empty text, lists or objects, are left out, since servers tell them or do
/// not tell them from version to version.
pub(crate) fn text(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<(&String, &Value)> = fields.iter().filter(|(_, value)| !is_empty(value)).collect();
            fields.sort_by_key(|(name, _)| *name);
            out.push('{');
            for (number, (name, value)) in fields.into_iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                out.push_str(&Value::String(name.clone()).to_string());
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (number, item) in items.iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_value_has_one_text() {
        let one: Value = serde_json::from_str(r#"{"b":[1,{"y":null,"x":"q"}],"a":"","c":{}}"#).unwrap();
        let two: Value = serde_json::from_str(r#"{"b":[1,{"x":"q"}]}"#).unwrap();
        assert_eq!(text(&one), r#"{"b":[1,{"x":"q"}]}"#);
        assert_eq!(text(&one), text(&two));
    }
}
