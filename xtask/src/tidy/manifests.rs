//! Dependencies: versions in the root manifest only, each with what it is for.

use toml::{Table, Value};

use super::{Tree, Violation};

const ROOT: &str = "Cargo.toml";
const SECTIONS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

pub(super) fn versions_stand_in_the_root_with_a_reason(tree: &Tree) -> Vec<Violation> {
    let mut found: Vec<Violation> = tree.texts.get(ROOT).map(|text| without_reason(text)).unwrap_or_default();
    for (path, text) in tree.with_extension("toml").filter(|(path, _)| path.ends_with("/Cargo.toml")) {
        let Ok(manifest) = text.parse::<Table>() else {
            found.push(Violation::new(path, 0, "is not TOML"));
            continue;
        };
        for name in dependencies(&manifest).into_iter().filter(|(_, value)| has_own_version(value)).map(|(name, _)| name) {
            let line = text.lines().position(|line| is_entry(line, &name)).map_or(0, |index| index + 1);
            found.push(Violation::new(path, line, format!("`{name}` has a version of its own; write `{name}.workspace = true`")));
        }
    }
    found
}

/// Of every section, those of single platforms included.
fn dependencies(manifest: &Table) -> Vec<(String, Value)> {
    let platforms =
        manifest.get("target").and_then(Value::as_table).into_iter().flat_map(|targets| targets.values().filter_map(Value::as_table));
    let tables = std::iter::once(manifest).chain(platforms);
    let sections = tables.flat_map(|table| SECTIONS.iter().filter_map(|name| table.get(*name)?.as_table()));
    sections.flat_map(|section| section.iter().map(|(name, value)| (name.clone(), value.clone()))).collect()
}

fn has_own_version(value: &Value) -> bool {
    value.as_table().is_none_or(|table| ["version", "git"].iter().any(|key| table.contains_key(*key)))
}

fn is_entry(line: &str, name: &str) -> bool {
    line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with(['=', '.']))
}

/// Entries of `[workspace.dependencies]` with no comment in the same paragraph. One comment may stand for several lines.
fn without_reason(text: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    let (mut inside, mut explained, mut depth) = (false, false, 0_usize);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if depth == 0 && line.starts_with('[') {
            inside = line == "[workspace.dependencies]";
            explained = false;
        } else if line.is_empty() {
            explained = false;
        } else if line.starts_with('#') {
            explained = true;
        } else if inside && depth == 0 && !explained && !line.contains("path = ") {
            found.push(Violation::new(ROOT, index + 1, "a dependency has a comment that says what it is for"));
        }
        // A list of features may take several lines.
        let opened = line.matches(['[', '{']).count();
        depth = (depth + opened).saturating_sub(line.matches([']', '}']).count());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::{places, planted};
    use super::*;

    #[test]
    fn a_version_outside_the_root_is_found() {
        for (why, text, lines) in [
            ("from the workspace", "[dependencies]\nserde.workspace = true\n", vec![]),
            ("from the workspace, with features", "[dependencies]\nserde = { workspace = true, features = [\"rc\"] }\n", vec![]),
            ("our own crate", "[dev-dependencies]\nkaleem-core = { path = \".\" }\n", vec![]),
            ("a version", "[dependencies]\nserde = \"1\"\n", vec![2]),
            ("a version in a table", "[dev-dependencies]\nserde = { version = \"1\" }\n", vec![2]),
            ("a repository", "[build-dependencies]\nserde = { git = \"x\" }\n", vec![2]),
            ("for one platform", "[target.'cfg(unix)'.dependencies]\nserde = \"1\"\n", vec![2]),
            ("not TOML", "[dependencies\n", vec![0]),
        ] {
            let tree = planted(&[("kaleem-core/Cargo.toml", text)]);
            let found: Vec<usize> = versions_stand_in_the_root_with_a_reason(&tree).iter().map(|violation| violation.line).collect();
            assert_eq!(found, lines, "{why}");
        }
    }

    #[test]
    fn a_dependency_without_a_reason_is_found() {
        let text = "[workspace]\nmembers = [\"a\"]\n\n[workspace.dependencies]\na = { path = \"a\" }\n\n# For this.\nserde = \"1\"\nserde_json = { version = \"1\", features = [\n  \"x\",\n] }\n\ntoml = \"1\"\n\n[profile.dev]\ndebug = 1\n";
        assert_eq!(places(&versions_stand_in_the_root_with_a_reason(&planted(&[("Cargo.toml", text)]))), [("Cargo.toml", 13)]);
    }
}
