//! `${…}`: variables in the text of compose files and of files of variables.

use crate::config::compose::error::ProblemKind;
use crate::config::compose::tree::{Mark, Node, Problems, Value};

/// Substitutions inside the default of a substitution.
const NESTING_LIMIT: usize = 32;

/// Why a text could not be interpolated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// A `${` that is not the start of a variable. The text is not kept: it may be secret.
    Malformed,
    /// `${NAME:?message}` and the variable is not there.
    Missing { name: String, message: String },
}

/// Names without a value, with place and key.
pub(super) type Unset = Vec<(String, Mark, String)>;

/// Where values come from, which names had none, and which were asked for at all.
pub(super) struct Variables<'a> {
    pub(super) lookup: &'a dyn Fn(&str) -> Option<String>,
    pub(super) unset: Vec<String>,
    asked: Vec<String>,
    /// Every name that was asked for, with the path where it stands.
    pub(super) uses: Vec<(String, String)>,
}

impl<'a> Variables<'a> {
    pub(super) fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { lookup, unset: Vec::new(), asked: Vec::new(), uses: Vec::new() }
    }

    /// `text` with every `$V`, `${V}`, `${V:-d}`, `${V-d}`, `${V:?m}`, `${V?m}`, `${V:+a}`, `${V+a}` and `$$` replaced.
    pub(super) fn interpolate(&mut self, text: &str) -> Result<String, Failure> {
        self.replace(text, 0)
    }

    fn replace(&mut self, text: &str, level: usize) -> Result<String, Failure> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            let (before, tail) = rest.split_at(at);
            out.push_str(before);
            let body = tail.get(1..).unwrap_or_default();
            if let Some(after) = body.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some(inner) = body.strip_prefix('{') {
                let end = closing_brace(inner).filter(|_| level < NESTING_LIMIT).ok_or(Failure::Malformed)?;
                let (inside, after) = inner.split_at(end);
                out.push_str(&self.braced(inside, level)?);
                rest = after.get(1..).unwrap_or_default();
            } else {
                let (name, after) = take_name(body);
                if name.is_empty() {
                    // A dollar sign that starts nothing is a dollar sign.
                    out.push('$');
                } else {
                    out.push_str(&self.value_or_blank(name));
                }
                rest = after;
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    fn look_up(&mut self, name: &str) -> Option<String> {
        self.asked.push(name.to_owned());
        (self.lookup)(name)
    }

    fn value_or_blank(&mut self, name: &str) -> String {
        self.look_up(name).unwrap_or_else(|| {
            if !self.unset.iter().any(|known| known == name) {
                self.unset.push(name.to_owned());
            }
            String::new()
        })
    }

    fn braced(&mut self, inside: &str, level: usize) -> Result<String, Failure> {
        let (name, rest) = take_name(inside);
        if name.is_empty() {
            return Err(Failure::Malformed);
        }
        if rest.is_empty() {
            return Ok(self.value_or_blank(name));
        }
        let (or_empty, operation) = match rest.strip_prefix(':') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let value = self.look_up(name);
        let present = value.as_ref().is_some_and(|value| !or_empty || !value.is_empty());
        let mut characters = operation.chars();
        match characters.next() {
            Some('-') if present => Ok(value.unwrap_or_default()),
            Some('-') => self.replace(characters.as_str(), level + 1),
            Some('+') if present => self.replace(characters.as_str(), level + 1),
            Some('+') => Ok(String::new()),
            Some('?') if present => Ok(value.unwrap_or_default()),
            Some('?') => {
                let message = self.replace(characters.as_str(), level + 1)?;
                Err(Failure::Missing { name: name.to_owned(), message })
            }
            _ => Err(Failure::Malformed),
        }
    }
}

fn take_name(text: &str) -> (&str, &str) {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let end = if starts { text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len()) } else { 0 };
    text.split_at(end)
}

/// The `}` that belongs to a `${` before `text`; only `${` opens another one.
fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 1_usize;
    let mut previous = ' ';
    for (at, character) in text.char_indices() {
        match character {
            '}' => {
                open -= 1;
                if open == 0 {
                    return Some(at);
                }
            }
            '{' if previous == '$' => open += 1,
            _ => {}
        }
        previous = character;
    }
    None
}

/// Why a variable without a value is worth a warning.
pub(super) fn unset(name: &str) -> String {
    format!("the variable `{name}` is not set and counts as blank")
}

fn interpolated(text: &str, variables: &mut Variables<'_>, path: &str) -> Result<String, Failure> {
    let new = variables.interpolate(text);
    let asked = std::mem::take(&mut variables.asked);
    variables.uses.extend(asked.into_iter().map(|name| (name, path.to_owned())));
    new
}

/// Interpolates every text below `node`, but no key; `unset_at` gets the places of variables without a value.
pub(super) fn tree(node: &mut Node, variables: &mut Variables<'_>, problems: &mut Problems, unset_at: &mut Unset, path: &str) {
    match &mut node.value {
        Value::Text(text) => match interpolated(text, variables, path) {
            Ok(new) => {
                *text = new;
                let names = std::mem::take(&mut variables.unset);
                unset_at.extend(names.into_iter().map(|name| (name, node.mark.clone(), path.to_owned())));
            }
            Err(Failure::Malformed) => problems.add(
                &node.mark,
                path,
                ProblemKind::Interpolation,
                "a `${` here is not the start of a variable",
                "write `${NAME}`, or `$$` for a dollar sign",
            ),
            Err(Failure::Missing { name, message }) => {
                let why = if message.is_empty() { String::new() } else { format!(": {message}") };
                problems.add(
                    &node.mark,
                    path,
                    ProblemKind::MissingVariable,
                    format!("the variable `{name}` must be set{why}"),
                    format!("set `{name}` in the environment or in `.env`"),
                );
            }
        },
        Value::List(list) => {
            for (index, child) in list.iter_mut().enumerate() {
                tree(child, variables, problems, unset_at, &format!("{path}[{index}]"));
            }
        }
        Value::Map(map) => {
            for (key, child) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                tree(child, variables, problems, unset_at, &path);
            }
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(text: &str) -> Result<String, Failure> {
        let lookup = |name: &str| match name {
            "SET" => Some("value".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        Variables::new(&lookup).interpolate(text)
    }

    #[test]
    fn every_form_of_a_variable_is_replaced_as_a_shell_does() {
        for (why, text, want) in [
            ("bare", "a $SET.", "a value."),
            ("braced", "${SET}x", "valuex"),
            ("unset is blank", "[${NO}]", "[]"),
            ("default when unset", "${NO-d}", "d"),
            ("default not when empty", "${EMPTY-d}", ""),
            ("default when empty", "${EMPTY:-d}", "d"),
            ("default not when set", "${SET:-d}", "value"),
            ("alternative when set", "${SET:+a}", "a"),
            ("alternative not when empty", "${EMPTY:+a}", ""),
            ("alternative when set and empty", "${EMPTY+a}", "a"),
            ("alternative not when unset", "${NO+a}", ""),
            ("nested", "${NO:-${EMPTY:-${SET}}}", "value"),
            ("a question mark in a default", "${NO:-a?b}", "a?b"),
            ("a brace after a default", "${NO:-{\"a\":1}}", "{\"a\":1}"),
            ("required and there", "${SET:?m}", "value"),
            ("required and empty is there", "${EMPTY?m}", ""),
            ("a dollar that starts nothing", "$ x$-a$1$", "$ x$-a$1$"),
            ("a dollar", "$$SET $${SET}", "$SET ${SET}"),
        ] {
            assert_eq!(run(text), Ok(want.to_owned()), "{why}: {text}");
        }
    }

    #[test]
    fn what_is_missing_or_malformed_is_refused() {
        let missing = |name: &str, message: &str| Err(Failure::Missing { name: name.to_owned(), message: message.to_owned() });
        assert_eq!(run("${NO:?say $SET}"), missing("NO", "say value"));
        assert_eq!(run("${EMPTY:?}"), missing("EMPTY", ""));
        for text in ["${", "${}", "${1}", "${SET", "${SET!x}", "${SET:x}", "${a.b}"] {
            assert_eq!(run(text), Err(Failure::Malformed), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[${}:?+a-zA-Z\\-é ]{0,40}") {
            run(&text).ok();
        }

        #[test]
        fn doubling_every_dollar_gives_the_text_back(text in "\\PC{0,60}") {
            prop_assert_eq!(run(&text.replace('$', "$$")), Ok(text));
        }
    }
}
