//! Files of variables: `.env`, `--env-file`, `env_file:`, in the syntax of Compose.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

use crate::config::compose::interpolate::{Failure, Variables};

/// What is wrong with a file of variables, and in which line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) line: usize,
    pub(super) reason: String,
}

/// The variables of a file.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) variables: BTreeMap<String, String>,
    /// Variables inside values which had no value: line, name of the variable that uses it, its own name.
    pub(super) unset: Vec<(usize, String, String)>,
}

/// The variables of `text`, in which `outer` is known too, and wins. Names without a value take theirs from `outer`.
pub(super) fn parse(text: &str, outer: &dyn Fn(&str) -> Option<String>) -> Result<Parsed, Wrong> {
    let mut reader = Reader { rest: text.strip_prefix('\u{feff}').unwrap_or(text).chars().peekable(), line: 1 };
    let mut found = BTreeMap::new();
    let mut unset = Vec::new();
    while reader.skip_to_statement() {
        let line = reader.line;
        let (name, has_value) = reader.name()?;
        let value = if has_value {
            let raw = reader.value()?;
            if let Some(raw) = raw.expandable {
                let lookup = |name: &str| outer(name).or_else(|| found.get(name).cloned());
                let mut variables = Variables::new(&lookup);
                let value = variables.interpolate(&raw).map_err(|failure| Wrong { line, reason: told(&name, failure) })?;
                unset.extend(variables.unset.into_iter().map(|missing| (line, name.clone(), missing)));
                value
            } else {
                raw.literal
            }
        } else {
            let Some(value) = outer(&name) else { continue };
            value
        };
        found.insert(name, value);
    }
    Ok(Parsed { variables: found, unset })
}

fn told(name: &str, failure: Failure) -> String {
    match failure {
        // The value itself may be secret.
        Failure::Malformed => {
            format!("the value of `{name}` holds a `${{` that is not the start of a variable; write `$$` for a dollar sign")
        }
        Failure::Missing { name, message } => format!("the variable `{name}` must be set: {message}"),
    }
}

struct Raw {
    literal: String,
    /// Text in which variables are replaced; `None` for single quotes.
    expandable: Option<String>,
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let character = self.rest.next()?;
        if character == '\n' {
            self.line += 1;
        }
        Some(character)
    }

    fn wrong<T>(&self, reason: impl Into<String>) -> Result<T, Wrong> {
        Err(Wrong { line: self.line, reason: reason.into() })
    }

    fn rest_of_line(&mut self) -> String {
        let mut text = String::new();
        while let Some(character) = self.rest.peek().copied() {
            if character == '\n' {
                break;
            }
            self.next();
            text.push(character);
        }
        text
    }

    /// Skips white space and comments; false at the end of the file.
    fn skip_to_statement(&mut self) -> bool {
        loop {
            match self.rest.peek() {
                None => return false,
                Some('#') => drop(self.rest_of_line()),
                Some(character) if character.is_whitespace() => drop(self.next()),
                Some(_) => return true,
            }
        }
    }

    fn skip_blanks(&mut self) {
        while self.rest.peek().is_some_and(|c| c.is_whitespace() && *c != '\n') {
            self.next();
        }
    }

    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(character) = self.rest.peek().copied() {
            if !(character.is_alphanumeric() || matches!(character, '_' | '.' | '-' | '[' | ']')) {
                break;
            }
            word.push(character);
            self.next();
        }
        word
    }

    /// The name, and whether a value follows.
    fn name(&mut self) -> Result<(String, bool), Wrong> {
        let mut name = self.word();
        if name == "export" && self.rest.peek().is_some_and(|c| c.is_whitespace() && *c != '\n') {
            self.skip_blanks();
            name = self.word();
        }
        self.skip_blanks();
        match self.rest.peek().copied() {
            _ if name.is_empty() => self.wrong("a variable needs a name of letters, digits and `_`"),
            None | Some('\n') => Ok((name, false)),
            Some('=' | ':') => {
                self.next();
                self.skip_blanks();
                Ok((name, true))
            }
            Some(_) => self.wrong(format!("after the name `{name}` comes something that is neither `=` nor the end of the line")),
        }
    }

    fn value(&mut self) -> Result<Raw, Wrong> {
        match self.rest.peek().copied() {
            Some(quote @ ('"' | '\'')) => {
                let start = self.line;
                self.next();
                self.quoted(quote, start)
            }
            _ => {
                let line = self.rest_of_line();
                // A comment begins at a blank and a `#`; right after the `=`, a `#` is the value.
                let value = line.split_once(" #").map_or(line.as_str(), |(value, _)| value).trim().to_owned();
                Ok(Raw { literal: String::new(), expandable: Some(value) })
            }
        }
    }

    fn quoted(&mut self, quote: char, start: usize) -> Result<Raw, Wrong> {
        let mut text = String::new();
        loop {
            match self.next() {
                None => return Err(Wrong { line: start, reason: format!("the value that begins here has no closing {quote}") }),
                Some(character) if character == quote => break,
                Some('\\') if quote == '"' => match self.next() {
                    Some(character) => text.push_str(&escaped(character)),
                    None => text.push('\\'),
                },
                Some('\\') if self.rest.peek() == Some(&quote) => {
                    self.next();
                    text.push(quote);
                }
                Some(character) => text.push(character),
            }
        }
        Ok(if quote == '"' { Raw { literal: String::new(), expandable: Some(text) } } else { Raw { literal: text, expandable: None } })
    }
}

fn escaped(character: char) -> String {
    match character {
        'n' => "\n".to_owned(),
        'r' => "\r".to_owned(),
        't' => "\t".to_owned(),
        'a' => "\u{7}".to_owned(),
        'b' => "\u{8}".to_owned(),
        'f' => "\u{c}".to_owned(),
        'v' => "\u{b}".to_owned(),
        // A dollar that is not to be expanded.
        '$' => "$$".to_owned(),
        '"' | '\\' => character.to_string(),
        other => format!("\\{other}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outer(name: &str) -> Option<String> {
        (name == "OUT").then(|| "outer".to_owned())
    }

    #[test]
    fn a_line_is_read_as_compose_reads_it() {
        for (why, text, want) in [
            ("plain", "A=b", Some("b")),
            ("blanks around", "  A = b  ", Some("b")),
            ("export", "export A=b", Some("b")),
            ("colon", "A: b", Some("b")),
            ("comment after a value", "A=b # c", Some("b")),
            ("no comment without a blank", "A=b#c", Some("b#c")),
            ("empty", "A=", Some("")),
            ("a value that begins with `#`", "A= #b", Some("#b")),
            ("a lone dollar", "A=b$", Some("b$")),
            ("a quote in quotes", "A='b\\'c'", Some("b'c")),
            ("double quotes", "A=\"b # \\n\\\"c\\\"\" # d", Some("b # \n\"c\"")),
            ("single quotes are literal", "A='$OUT \\n'", Some("$OUT \\n")),
            ("several lines", "A=\"1\n2\"", Some("1\n2")),
            ("expanded", "A=${OUT:-x}$OUT", Some("outerouter")),
            ("expanded in double quotes", "A=\"${OUT}\"", Some("outer")),
            ("an escaped dollar", "A=\"\\$OUT\"", Some("$OUT")),
            ("an earlier variable", "B=1\nA=$B", Some("1")),
            ("later wins", "A=1\nA=2", Some("2")),
            ("inherited and not there", "A", None),
            ("carriage returns", "B=1\r\nA=b\r\n", Some("b")),
        ] {
            let found = parse(text, &outer).unwrap_or_else(|wrong| panic!("{why}: {wrong:?}")).variables;
            assert_eq!(found.get("A").map(String::as_str), want, "{why}");
        }
        let inherited = parse("OUT\nA=$NO\n", &outer).expect("a name alone takes its value from outside");
        assert_eq!(inherited.variables.get("OUT").map(String::as_str), Some("outer"));
        assert_eq!(inherited.unset, [(2, "A".to_owned(), "NO".to_owned())]);
    }

    #[test]
    fn what_is_no_variable_is_refused_with_its_line_and_without_its_value() {
        for (why, text, line) in [
            ("no name", "A=1\n=x", 2),
            ("two words", "A B=1", 1),
            ("a quote that is not closed", "A=1\n\nB=\"secret\n", 3),
            ("a brace that starts nothing", "B=secret${ ", 1),
        ] {
            let wrong = parse(text, &outer).expect_err(why);
            assert_eq!(wrong.line, line, "{why}");
            assert!(!wrong.reason.contains("secret"), "{why}: {}", wrong.reason);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[A='\"\\\\#$\n {}é-]{0,60}") {
            parse(&text, &outer).ok();
        }
    }
}
