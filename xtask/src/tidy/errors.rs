//! Every variant of an error is shown in a test, so that somebody has read it as the operator will.

use std::collections::BTreeMap;

use super::{Tree, Violation};

/// Where a crate shows how its errors read: `tests/it/errors.rs` and the files beside it, or, in a program, the tests of its errors.
fn shows(path: &str) -> bool {
    path.contains("/tests/it/errors") || path.ends_with("/src/error/tests.rs")
}

/// A crate that shows its errors shows all of them.
pub(super) fn every_variant_is_shown(tree: &Tree) -> Vec<Violation> {
    let mut shown: BTreeMap<&str, String> = BTreeMap::new();
    for (path, text) in tree.with_extension("rs").filter(|(path, _)| shows(path)) {
        if let Some((package, _)) = path.split_once('/') {
            shown.entry(package).or_default().push_str(text);
        }
    }
    let mut found = Vec::new();
    for (path, text) in tree.with_extension("rs") {
        let Some((package, rest)) = path.split_once('/') else { continue };
        let Some(shown) = shown.get(package).filter(|_| rest.starts_with("src/")) else { continue };
        for (line, name, variant) in variants(text) {
            let full = format!("{name}::{variant}");
            // What is wrong in compose files has tests of its own, each with the file that is wrong.
            if name != "ConfigError" && !names(shown, &full) {
                found.push(Violation::new(path, line, format!("show how `{full}` reads, in the tests of errors of `{package}`")));
            }
        }
    }
    found
}

/// Whether `text` holds the path `full`, and not only a longer one.
fn names(text: &str, full: &str) -> bool {
    text.match_indices(full).any(|(at, _)| {
        let next = text.get(at + full.len()..).and_then(|rest| rest.chars().next());
        !next.is_some_and(|next| next.is_alphanumeric() || next == '_')
    })
}

/// The variants of the enums of errors in a file: line, enum, variant.
fn variants(text: &str) -> Vec<(usize, &str, &str)> {
    let (mut found, mut derives, mut inside, mut announced) = (Vec::new(), false, None, false);
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if trimmed.starts_with("#[derive(") {
            derives = trimmed.contains("thiserror::Error");
        } else if let Some(name) = enum_name(line).filter(|_| derives) {
            (inside, derives) = (Some(name), false);
        } else if line == "}" {
            inside = None;
        } else if let Some(name) = inside {
            let variant = trimmed.split([' ', ',', '(', '{']).next().unwrap_or_default();
            if trimmed.starts_with("#[error(") {
                announced = true;
            } else if announced && variant.chars().next().is_some_and(char::is_uppercase) && variant.chars().all(char::is_alphanumeric) {
                announced = false;
                found.push((index + 1, name, variant));
            }
        }
    }
    found
}

fn enum_name(line: &str) -> Option<&str> {
    let rest = ["pub enum ", "pub(crate) enum ", "enum "].iter().find_map(|start| line.strip_prefix(start))?;
    rest.split([' ', '{']).next()
}

#[cfg(test)]
mod tests {
    use super::super::{places, planted};
    use super::*;

    #[test]
    fn a_variant_that_no_test_shows_is_found() {
        let errors = "#[derive(Debug, thiserror::Error)]\n#[non_exhaustive]\npub enum ReadError {\n    /// Gone.\n    #[error(\"gone\")]\n    Gone,\n    #[error(\n        \"{what} is full\"\n    )]\n    Full { what: String },\n}\n";
        let show = |text| planted(&[("a/src/read.rs", errors), ("a/tests/it/errors/files.rs", text)]);
        for (why, text, lines) in [
            ("both", "ReadError::Gone; ReadError::Full { .. }", vec![]),
            ("one", "&ReadError::Gone,", vec![10]),
            ("another, which begins alike", "ReadError::Goners ReadError::Full", vec![6]),
        ] {
            let tree = show(text);
            let found = every_variant_is_shown(&tree);
            let wanted: Vec<(&str, usize)> = lines.into_iter().map(|line| ("a/src/read.rs", line)).collect();
            assert_eq!(places(&found), wanted, "{why}");
        }
        let without = planted(&[("b/src/read.rs", errors)]);
        assert!(every_variant_is_shown(&without).is_empty(), "a crate that shows none yet");
    }
}
