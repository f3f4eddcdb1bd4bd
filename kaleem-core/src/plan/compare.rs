//! In what two definitions differ: names of fields, never their values.

use serde_json::Value;

use crate::definition::Definition;

/// Names of what differs, such as `environment.LOG_LEVEL`, `ports` or `resources.memory_bytes`.
///
/// Maps are told apart by key, everything else by its field. No value is ever in the answer.
pub fn fields(before: &Definition, after: &Definition) -> Vec<String> {
    let (Ok(Value::Object(before)), Ok(Value::Object(after))) = (serde_json::to_value(before), serde_json::to_value(after)) else {
        return Vec::new();
    };
    let mut names = Vec::new();
    for (field, old) in &before {
        let Some(new) = after.get(field) else { continue };
        if old == new {
            continue;
        }
        match (old, new) {
            (Value::Object(old), Value::Object(new))
                if matches!(field.as_str(), "environment" | "labels" | "sysctls" | "resources" | "healthcheck") =>
            {
                let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
                names.extend(keys.into_iter().filter(|key| old.get(*key) != new.get(*key)).map(|key| format!("{field}.{key}")));
            }
            _ => names.push(field.clone()),
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_secret_is_named_and_not_shown() {
        let mut before = Definition::default();
        before.environment.insert("DB_PASSWORD".to_owned(), Some("old-secret".to_owned()));
        let mut after = before.clone();
        after.environment.insert("DB_PASSWORD".to_owned(), Some("new-secret".to_owned()));
        after.environment.insert("LOG_LEVEL".to_owned(), Some("debug".to_owned()));
        after.command = Some(vec!["--token=abc".to_owned()]);
        assert_eq!(fields(&before, &after), ["command", "environment.DB_PASSWORD", "environment.LOG_LEVEL"]);
        assert!(fields(&after, &after).is_empty());
    }
}
