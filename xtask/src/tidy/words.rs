//! Words that must not stand in the project.

use std::sync::LazyLock;

use regex::Regex;

use super::{Tree, Violation};

// Each is put together here, so that this file does not hold it.
const UNWANTED: [(&str, &str); 6] = [
    (concat!("/wor", "k/"), "a path of one machine"),
    (concat!("crates", ".io"), "the host of a package registry; let its client know where it is"),
    (concat!("pypi", ".org"), "the host of a package registry; let its client know where it is"),
    (concat!("npmjs", ".org"), "the host of a package registry; let its client know where it is"),
    (concat!("npmjs", ".com"), "the host of a package registry; let its client know where it is"),
    (concat!("deb.debian", ".org"), "the host of a mirror; take the machine's own"),
];
/// In Rust alone: documents may say why not.
const UNWANTED_ATTRIBUTES: [(&str, &str); 2] = [
    (concat!("#[igno", "re"), "assert what is wrong today, and link the issue"),
    (concat!("#[should_", "panic"), "return an error, and look at it"),
];

/// Cargo writes it, and names there where every crate came from.
const GENERATED: &str = "Cargo.lock";

static OPEN_END: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(concat!(r"\b(TO", r"DO|FIX", r"ME)\b")).ok());

/// What is to be done later has an issue.
pub(super) fn open_ends_have_a_link(tree: &Tree) -> Vec<Violation> {
    let Some(open_end) = OPEN_END.as_ref() else { return Vec::new() };
    let says = |line: &str| open_end.is_match(line) && !line.contains("https://") && !is_rule(line);
    lines(tree)
        .filter(|(_, _, line)| says(line))
        .map(|(path, line, _)| Violation::new(path, line, "link the issue, or do it now"))
        .collect()
}

/// A sentence that quotes the word, as house rules do, leaves nothing open.
fn is_rule(line: &str) -> bool {
    [concat!("`TO", "DO`"), concat!("`FIX", "ME`")].iter().any(|quoted| line.contains(quoted))
}

pub(super) fn unwanted_words(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, line, text) in lines(tree) {
        let attributes = UNWANTED_ATTRIBUTES.iter().filter(|_| path.ends_with(".rs"));
        for (word, why) in UNWANTED.iter().chain(attributes).filter(|(word, _)| text.contains(word)) {
            found.push(Violation::new(path, line, format!("`{word}`: {why}")));
        }
    }
    found
}

fn lines(tree: &Tree) -> impl Iterator<Item = (&str, usize, &str)> {
    let texts = tree.texts.iter().filter(|(path, _)| *path != GENERATED);
    texts.flat_map(|(path, text)| text.lines().enumerate().map(move |(index, line)| (path.as_str(), index + 1, line)))
}

#[cfg(test)]
mod tests {
    use super::super::{places, planted};
    use super::*;

    #[test]
    fn an_open_end_without_a_link_is_found() {
        let later = concat!("TO", "DO");
        for (why, text, open) in [
            ("no link", format!("// {later}: later"), true),
            ("a link", format!("// {later}(https://example.org/1): later"), false),
            ("a rule that quotes the word", format!("No `{later}` without an issue number."), false),
            ("part of a word", format!("{later}S_AND_DONTS"), false),
        ] {
            assert_eq!(open_ends_have_a_link(&planted(&[("a.rs", &text)])).len(), usize::from(open), "{why}");
        }
    }

    #[test]
    fn every_unwanted_word_is_found_where_it_stands() {
        for (word, _) in UNWANTED {
            let text = format!("first\nhttps://{word}/x\n");
            let tree = planted(&[("docs/a.md", &text), ("Cargo.lock", &text)]);
            assert_eq!(places(&unwanted_words(&tree)), [("docs/a.md", 2)], "{word}");
        }
        for (word, _) in UNWANTED_ATTRIBUTES {
            let tree = planted(&[("docs/a.md", word), ("a.rs", word)]);
            assert_eq!(places(&unwanted_words(&tree)), [("a.rs", 1)], "{word}");
        }
    }
}
