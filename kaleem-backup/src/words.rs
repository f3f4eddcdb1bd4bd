//! What others say, made fit for one line of an error.

/// As much of it as is shown.
const CHARACTERS: usize = 300;

/// What a server or a program said, cut and on one line.
pub(crate) fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(CHARACTERS).collect();
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}
