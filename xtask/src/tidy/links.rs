//! Links between documents lead somewhere.

use std::sync::LazyLock;

use regex::Regex;

use super::{Tree, Violation};

static LINK: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\]\(<?([^)\s>]+)>?(?:\s[^)]*)?\)").ok());

pub(super) fn lead_somewhere(tree: &Tree) -> Vec<Violation> {
    let Some(link) = LINK.as_ref() else { return Vec::new() };
    let mut found = Vec::new();
    for (path, text) in tree.with_extension("md") {
        let mut in_code = false;
        for (index, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                in_code = !in_code;
            }
            if in_code {
                continue;
            }
            for target in link.captures_iter(line).filter_map(|parts| Some(parts.get(1)?.as_str())) {
                if !is_elsewhere(target) && !exists(tree, path, target) {
                    found.push(Violation::new(path, index + 1, format!("the link to `{target}` leads nowhere")));
                }
            }
        }
    }
    found
}

fn is_elsewhere(target: &str) -> bool {
    target.starts_with('#') || target.contains("://") || target.starts_with("mailto:")
}

fn exists(tree: &Tree, from: &str, target: &str) -> bool {
    let target = target.split('#').next().unwrap_or(target).trim_end_matches('/');
    let start = if target.starts_with('/') { "" } else { from.rsplit_once('/').map_or("", |(directory, _)| directory) };
    let mut parts: Vec<&str> = start.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            if parts.pop().is_none() {
                return false;
            }
        } else {
            parts.push(part);
        }
    }
    let wanted = parts.join("/");
    let folder = format!("{wanted}/");
    wanted.is_empty() || tree.paths.contains(&wanted) || tree.paths.iter().any(|path| path.starts_with(&folder))
}

#[cfg(test)]
mod tests {
    use super::super::planted;
    use super::*;

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        for (why, text, lines) in [
            ("a file beside it", "[a](b.md)", vec![]),
            ("a folder", "[a](../examples/shop/)", vec![]),
            ("from the root", "[a](/README.md)", vec![]),
            ("a place in a file", "[a](b.md#place) [b](#here)", vec![]),
            ("the web", "[a](https://example.org/x) <mailto:a@example.org>", vec![]),
            ("with a title", "[a](b.md \"title\")", vec![]),
            ("code is no link", "```rust\nx[0](gone.md)\n```", vec![]),
            ("gone", "text\n[a](gone.md)", vec![2]),
            ("outside the project", "[a](../../b.md)", vec![1]),
            ("an image", "![a](picture.png)", vec![1]),
        ] {
            let tree = planted(&[("docs/a.md", text), ("docs/b.md", ""), ("README.md", ""), ("examples/shop/Dockerfile", "")]);
            let found: Vec<usize> = lead_somewhere(&tree).iter().map(|violation| violation.line).collect();
            assert_eq!(found, lines, "{why}");
        }
    }
}
