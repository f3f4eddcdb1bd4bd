//! House rules that no lint knows. Each rule is a function from the files to the places that break it.

mod layout;
mod modules;
mod manifests;
mod words;
mod links;
mod errors;

use std::collections::{BTreeMap, BTreeSet};

use crate::fail::TaskError;
use crate::place::Place;
use crate::programs::Program;
use crate::say;

/// The files of the project: path from the root, and text. Files that are not text are named only.
#[derive(Debug, Default)]
struct Tree {
    texts: BTreeMap<String, String>,
    paths: BTreeSet<String>,
}

impl Tree {
    /// Files whose name ends in `.extension`.
    fn with_extension<'a>(&'a self, extension: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let all = self.texts.iter().map(|(path, text)| (path.as_str(), text.as_str()));
        all.filter(move |(path, _)| path.rsplit_once('.').is_some_and(|(_, end)| end == extension))
    }
}

/// A place that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Violation {
    path: String,
    /// From 1; 0 is the whole file.
    line: usize,
    message: String,
}

impl Violation {
    fn new(path: impl Into<String>, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.into(), line, message: message.into() }
    }
}

type Rule = fn(&Tree) -> Vec<Violation>;

const RULES: [Rule; 11] = [
    layout::folders_are_the_agreed_ones,
    layout::files_are_short,
    layout::modules_say_why,
    layout::modules_are_named_files,
    modules::imports_come_from_above,
    modules::front_doors_hold_no_code,
    manifests::versions_stand_in_the_root_with_a_reason,
    words::open_ends_have_a_link,
    words::unwanted_words,
    links::lead_somewhere,
    errors::every_variant_is_shown,
];

/// Checks every rule and prints what breaks one.
pub(crate) fn run(place: &Place) -> Result<(), TaskError> {
    let tree = read(place)?;
    for warning in layout::files_to_split_soon(&tree) {
        say::warning(&shown(&warning));
    }
    let found: Vec<Violation> = RULES.iter().flat_map(|rule| rule(&tree)).collect();
    for violation in &found {
        say::line(&shown(violation));
    }
    if found.is_empty() { Ok(()) } else { Err(TaskError::Untidy { count: found.len() }) }
}

fn shown(violation: &Violation) -> String {
    match violation.line {
        0 => format!("{}: {}", violation.path, violation.message),
        line => format!("{}:{line}: {}", violation.path, violation.message),
    }
}

/// What git knows, and what it would take up.
fn read(place: &Place) -> Result<Tree, TaskError> {
    let listed = Program::new(place, "git").args(["ls-files", "--cached", "--others", "--exclude-standard"]).output()?;
    let mut tree = Tree::default();
    for path in listed.lines() {
        let file = place.root.join(path);
        if !file.is_file() {
            // Deleted, and not yet committed.
            continue;
        }
        tree.paths.insert(path.to_owned());
        if let Ok(text) = std::fs::read_to_string(&file) {
            tree.texts.insert(path.to_owned(), text);
        }
    }
    Ok(tree)
}

#[cfg(test)]
fn planted(files: &[(&str, &str)]) -> Tree {
    Tree {
        texts: files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect(),
        paths: files.iter().map(|(path, _)| (*path).to_owned()).collect(),
    }
}

#[cfg(test)]
fn places(found: &[Violation]) -> Vec<(&str, usize)> {
    found.iter().map(|violation| (violation.path.as_str(), violation.line)).collect()
}
