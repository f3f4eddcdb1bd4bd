//! What the machine's own package configuration says: no address of a mirror stands in this project.

use std::path::{Path, PathBuf};

use crate::fail::TaskError;

/// Address of the mirror that this machine uses.
pub(crate) fn mirror() -> Result<String, TaskError> {
    let mut files: Vec<PathBuf> = std::fs::read_dir("/etc/apt/sources.list.d")
        .map(|entries| entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect())
        .unwrap_or_default();
    files.sort();
    files.push(PathBuf::from("/etc/apt/sources.list"));
    // Debian's own sources first: others may stand beside them.
    files.sort_by_key(|path| !is_debian(path));
    files.iter().filter_map(|path| std::fs::read_to_string(path).ok()).find_map(|text| first_address(&text)).ok_or_else(|| {
        TaskError::Missing {
            what: "a package mirror in /etc/apt".to_owned(),
            install: "add Debian's main archive to /etc/apt/sources.list".to_owned(),
        }
    })
}

fn is_debian(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "debian" || stem == "sources")
}

/// The first address, in either of the two formats.
fn first_address(text: &str) -> Option<String> {
    text.lines().map(str::trim).filter(|line| !line.starts_with('#')).find_map(|line| {
        if let Some(addresses) = line.strip_prefix("URIs:") {
            return addresses.split_whitespace().next().map(str::to_owned);
        }
        let rest = line.strip_prefix("deb ")?.trim_start();
        // `[arch=amd64 signed-by=…]` may stand first.
        let rest = rest.strip_prefix('[').map_or(Some(rest), |rest| rest.split_once(']').map(|(_, rest)| rest))?;
        rest.split_whitespace().next().map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_read_from_both_formats() {
        for (why, text, expected) in [
            (
                "deb822",
                "Types: deb\n# URIs: http://old.example/\nURIs: http://mirror.example/debian\nSuites: x\n",
                Some("http://mirror.example/debian"),
            ),
            ("one line", "deb http://mirror.example/debian bookworm main\n", Some("http://mirror.example/debian")),
            ("options", "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/d x main\n", Some("http://mirror.example/d")),
            ("a comment only", "# deb http://old.example/ x main\n", None),
            ("sources of packages are no mirror of packages", "deb-src http://mirror.example/debian x main\n", None),
        ] {
            assert_eq!(first_address(text).as_deref(), expected, "{why}");
        }
    }
}
