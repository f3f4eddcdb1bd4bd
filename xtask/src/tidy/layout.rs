//! Folders, names and sizes of files.

use std::collections::BTreeSet;

use super::{Tree, Violation};

const FOLDERS: [&str; 8] = ["docs", "examples", "kaleem-agent", "kaleem-backup", "kaleem-cli", "kaleem-core", "kaleem-health", "xtask"];
const LONGEST_LINES: usize = 600;
const LONG_LINES: usize = 400;

pub(super) fn folders_are_the_agreed_ones(tree: &Tree) -> Vec<Violation> {
    let found: BTreeSet<&str> =
        tree.paths.iter().filter_map(|path| Some(path.split_once('/')?.0)).filter(|name| !name.starts_with('.')).collect();
    let extra =
        found.iter().filter(|name| !FOLDERS.contains(name)).map(|name| Violation::new(*name, 0, "is not one of the agreed folders"));
    let missing =
        FOLDERS.iter().filter(|name| !found.contains(*name)).map(|name| Violation::new(*name, 0, "is an agreed folder and is missing"));
    extra.chain(missing).collect()
}

pub(super) fn files_are_short(tree: &Tree) -> Vec<Violation> {
    longer_than(tree, LONGEST_LINES, "the most a file may have is")
}

/// Only a warning: there is still time.
pub(super) fn files_to_split_soon(tree: &Tree) -> Vec<Violation> {
    longer_than(tree, LONG_LINES, "find what can move out; a good file has at most")
}

fn longer_than(tree: &Tree, limit: usize, why: &str) -> Vec<Violation> {
    let lengths = tree.with_extension("rs").map(|(path, text)| (path, text.lines().count()));
    lengths
        .filter(|(_, length)| *length > limit)
        .map(|(path, length)| Violation::new(path, 0, format!("has {length} lines; {why} {limit}")))
        .collect()
}

pub(super) fn modules_say_why(tree: &Tree) -> Vec<Violation> {
    let silent = tree.with_extension("rs").filter(|(_, text)| !text.starts_with("//!"));
    silent.map(|(path, _)| Violation::new(path, 1, "a module starts with `//!` and why it exists")).collect()
}

pub(super) fn modules_are_named_files(tree: &Tree) -> Vec<Violation> {
    let named = tree.paths.iter().filter(|path| path.rsplit('/').next() == Some("mod.rs"));
    // Cargo finds helpers of several test binaries only under that name; we have one binary per crate.
    named.map(|path| Violation::new(path, 0, "write `foo.rs` beside `foo/`")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{places, planted};
    use super::*;

    #[test]
    fn a_folder_too_many_and_one_too_few_are_found() {
        let mut files: Vec<(String, &str)> = FOLDERS.iter().map(|name| (format!("{name}/README.md"), "")).collect();
        let tree = |files: &[(String, &str)]| planted(&files.iter().map(|(path, text)| (path.as_str(), *text)).collect::<Vec<_>>());
        assert_eq!(folders_are_the_agreed_ones(&tree(&files)), []);
        files.push((".ci/run".to_owned(), ""));
        files.push(("README.md".to_owned(), ""));
        assert_eq!(folders_are_the_agreed_ones(&tree(&files)), [], "dot-folders and files are free");
        files.retain(|(path, _)| !path.starts_with("docs/"));
        files.push(("tools/x.py".to_owned(), ""));
        assert_eq!(places(&folders_are_the_agreed_ones(&tree(&files))), [("tools", 0), ("docs", 0)]);
    }

    #[test]
    fn long_files_are_warned_of_before_they_are_refused() {
        let (fine, long, too_long) = ("\n".repeat(400), "\n".repeat(401), "\n".repeat(601));
        let tree = planted(&[("a.rs", &fine), ("b.rs", &long), ("c.rs", &too_long), ("d.md", &too_long)]);
        assert_eq!(places(&files_are_short(&tree)), [("c.rs", 0)]);
        assert_eq!(places(&files_to_split_soon(&tree)), [("b.rs", 0), ("c.rs", 0)]);
    }

    #[test]
    fn a_module_without_a_reason_or_with_a_nameless_file_is_found() {
        let tree = planted(&[("x/src/a.rs", "//! Why.\n"), ("x/src/b.rs", "use std::io;\n//! Late.\n"), ("x/src/c/mod.rs", "//! Why.\n")]);
        assert_eq!(places(&modules_say_why(&tree)), [("x/src/b.rs", 1)]);
        assert_eq!(places(&modules_are_named_files(&tree)), [("x/src/c/mod.rs", 0)]);
    }
}
