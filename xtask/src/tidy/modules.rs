//! The order of modules in the core, and what a crate's front door may hold.

use std::sync::LazyLock;

use regex::Regex;

use super::{Tree, Violation};

const CORE: &str = "kaleem-core/src/";
/// Fakes and contract suites see everything, and nothing sees them.
const EXEMPT: &str = "testing";
/// An adapter carries out one seam and may speak of the others; it stands behind them all.
const ADAPTERS: [&str; 2] = ["runtime/docker", "registry/oci"];
/// The first module that is not a seam.
const AFTER_THE_SEAMS: &str = "config";

static DECLARED: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^\s*(?:pub(?:\([a-z]+\))? )?mod ([a-z0-9_]+);").ok());
static USED: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\bcrate::([a-z0-9_]+)").ok());
static GROUPED: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\bcrate::\{([^}]*)").ok());
static CODE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"^\s*(?:pub(?:\([a-z]+\))? )?(?:async |unsafe |const )*(?:fn|struct|enum|union|trait|impl|static|type|const|macro_rules!)\b",
    )
    .ok()
});

/// A module of the core imports only from modules that stand above it in `lib.rs`.
pub(super) fn imports_come_from_above(tree: &Tree) -> Vec<Violation> {
    let Some(front) = tree.texts.get(&format!("{CORE}lib.rs")) else { return Vec::new() };
    let (Some(declared), Some(used), Some(grouped)) = (DECLARED.as_ref(), USED.as_ref(), GROUPED.as_ref()) else { return Vec::new() };
    let order: Vec<&str> = front.lines().filter_map(|line| Some(declared.captures(line)?.get(1)?.as_str())).collect();
    let rank = |name: &str| order.iter().position(|module| *module == name);
    let mut found = Vec::new();
    for (path, text) in tree.with_extension("rs") {
        let Some(inside) = path.strip_prefix(CORE) else { continue };
        let module = inside.split(['/', '.']).next().unwrap_or(inside);
        let standing = if ADAPTERS.iter().any(|adapter| inside.starts_with(adapter)) { AFTER_THE_SEAMS } else { module };
        let Some(own) = rank(standing).filter(|_| module != EXEMPT) else { continue };
        for (index, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or(line);
            // Unit tests may build what they need from anywhere; they stand at the end of a file.
            if code.trim() == "#[cfg(test)]" {
                break;
            }
            let plain = used.captures_iter(code).filter_map(|names| Some(names.get(1)?.as_str()));
            let groups = grouped.captures_iter(code).filter_map(|names| Some(names.get(1)?.as_str()));
            let listed = groups.flat_map(|list| list.split(',').filter_map(|part| part.trim().split("::").next()));
            for name in plain.chain(listed) {
                if rank(name).is_some_and(|other| other > own) {
                    found.push(Violation::new(
                        path,
                        index + 1,
                        format!("`{module}` imports from `{name}`, which stands below it in lib.rs"),
                    ));
                }
            }
        }
    }
    found
}

/// `lib.rs` of a product crate is documentation, `mod` lines and re-exports.
pub(super) fn front_doors_hold_no_code(tree: &Tree) -> Vec<Violation> {
    let Some(code) = CODE.as_ref() else { return Vec::new() };
    let doors = tree.with_extension("rs").filter(|(path, _)| path.starts_with("kaleem-") && path.ends_with("/src/lib.rs"));
    let lines = doors.flat_map(|(path, text)| text.lines().enumerate().map(move |(index, line)| (path, index + 1, line)));
    lines.filter(|(_, _, line)| code.is_match(line)).map(|(path, line, _)| Violation::new(path, line, "lib.rs holds no code")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{places, planted};
    use super::*;

    const FRONT: &str = "//! Core.\npub mod names;\npub mod runtime;\npub mod registry;\npub mod config;\npub mod plan;\npub(crate) mod engine;\n#[cfg(feature = \"testing\")]\npub mod testing;\n";

    #[test]
    fn an_import_from_below_is_found_wherever_it_is_written() {
        for (why, path, text, lines) in [
            ("from above", "plan.rs", "//! P.\nuse crate::names::Name;\n", vec![]),
            ("from itself", "plan/step.rs", "use crate::plan::Plan;\n", vec![]),
            ("use", "plan.rs", "//! P.\nuse crate::engine::Engine;\n", vec![2]),
            ("in a submodule", "plan/step.rs", "use crate::engine::Engine;\n", vec![1]),
            ("a path in code", "names.rs", "fn f() { crate::plan::g() }\n", vec![1]),
            ("a group", "names.rs", "use crate::{names::A, plan::B};\n", vec![1]),
            ("one seam does not know a later one", "runtime.rs", "use crate::registry::R;\n", vec![1]),
            ("an adapter knows every seam", "runtime/docker/images.rs", "use crate::registry::R;\n", vec![]),
            ("an adapter knows no plan", "runtime/docker.rs", "use crate::plan::P;\n", vec![1]),
            ("a comment is no import", "names.rs", "//! See [`crate::engine`].\n", vec![]),
            ("tests see everything", "names.rs", "#[cfg(test)]\nmod tests { use crate::engine::E; }\n", vec![]),
            ("fakes see everything", "testing/fake.rs", "use crate::engine::E;\n", vec![]),
            ("nothing sees the fakes", "engine.rs", "use crate::testing::F;\n", vec![1]),
        ] {
            let path = format!("{CORE}{path}");
            let tree = planted(&[("kaleem-core/src/lib.rs", FRONT), (&path, text)]);
            let found: Vec<usize> = imports_come_from_above(&tree).iter().map(|violation| violation.line).collect();
            assert_eq!(found, lines, "{why}");
        }
    }

    #[test]
    fn code_in_a_front_door_is_found() {
        let tree = planted(&[
            ("kaleem-core/src/lib.rs", FRONT),
            ("kaleem-health/src/lib.rs", "//! H.\nmod http;\npub use http::Http;\n\npub async fn ask() {}\n"),
            ("xtask/src/lib.rs", "fn free() {}\n"),
        ]);
        assert_eq!(places(&front_doors_hold_no_code(&tree)), [("kaleem-health/src/lib.rs", 5)]);
    }
}
