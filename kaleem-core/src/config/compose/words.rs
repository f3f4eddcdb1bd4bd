//! Command lines to arguments, by the rules of Compose, which are not quite those of a shell.

/// The arguments of a command line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) words: Vec<String>,
    /// Where reading stopped: at `;`, `&`, `|`, `<` or `>` outside quotes.
    pub(super) left_out: Option<char>,
}

/// Splits `line` at white space outside quotes.
///
/// # Errors
///
/// Why the line is no command line.
pub(super) fn split(line: &str) -> Result<Split, String> {
    let mut reader = Reader::default();
    for character in line.chars() {
        if !reader.read(character)? {
            reader.end_word();
            return Ok(Split { words: reader.words, left_out: Some(character) });
        }
    }
    if reader.escaped || reader.single || reader.double || reader.back || reader.dollar {
        return Err("a quote, a bracket or a backslash in the command is not closed".to_owned());
    }
    reader.end_word();
    Ok(Split { words: reader.words, left_out: None })
}

#[derive(Default)]
struct Reader {
    words: Vec<String>,
    word: String,
    started: bool,
    escaped: bool,
    single: bool,
    double: bool,
    back: bool,
    dollar: bool,
}

impl Reader {
    fn end_word(&mut self) {
        if std::mem::take(&mut self.started) {
            self.words.push(std::mem::take(&mut self.word));
        }
    }

    fn push(&mut self, character: char) {
        self.started = true;
        self.word.push(character);
    }

    /// False where reading stops.
    fn read(&mut self, character: char) -> Result<bool, String> {
        let quoted = self.single || self.double || self.back || self.dollar;
        if std::mem::take(&mut self.escaped) {
            self.push(match character {
                't' => '\t',
                'n' => '\n',
                other => other,
            });
            return Ok(true);
        }
        match character {
            '\\' if self.single => self.push('\\'),
            '\\' => self.escaped = true,
            ' ' | '\t' | '\r' | '\n' if quoted => self.push(character),
            ' ' | '\t' | '\r' | '\n' => self.end_word(),
            '"' if !self.single && !self.dollar => {
                self.started = true;
                self.double = !self.double;
            }
            '\'' if !self.double && !self.dollar => {
                self.started = true;
                self.single = !self.single;
            }
            '`' if !self.single && !self.double && !self.dollar => {
                self.back = !self.back;
                self.push(character);
            }
            ')' if !self.single && !self.double && !self.back => {
                self.dollar = !self.dollar;
                self.push(character);
            }
            '(' if !self.single && !self.double && !self.back => {
                if self.dollar || !self.word.ends_with('$') {
                    return Err("a bracket stands outside quotes in the command".to_owned());
                }
                self.dollar = true;
                self.push(character);
            }
            ';' | '&' | '|' | '<' | '>' if !quoted => {
                // `2>` is one redirection, not an argument.
                if character == '>' && self.word.starts_with(|c: char| c.is_ascii_digit()) {
                    self.started = false;
                }
                return Ok(false);
            }
            other => self.push(other),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_command_line_is_split_as_compose_splits_it() {
        for (line, words, left_out) in [
            ("a b  c", vec!["a", "b", "c"], None),
            ("a 'b c' \"d e\"", vec!["a", "b c", "d e"], None),
            ("a\\ b", vec!["a b"], None),
            ("a ''", vec!["a", ""], None),
            ("x='1 2'3", vec!["x=1 23"], None),
            ("sh -c 'a && b | c'", vec!["sh", "-c", "a && b | c"], None),
            ("a && b", vec!["a"], Some('&')),
            ("a 2>/dev/null", vec!["a"], Some('>')),
            ("", vec![], None),
        ] {
            let words = words.into_iter().map(str::to_owned).collect();
            assert_eq!(split(line), Ok(Split { words, left_out }), "{line}");
        }
        for line in ["a 'b", "a \"b", "a \\", "a (b)"] {
            assert!(split(line).is_err(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn quoted_words_come_back_whole(words in prop::collection::vec("[ -&(-~]{0,8}", 0..5)) {
            let line: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
            prop_assert_eq!(split(&line.join(" ")).map(|split| split.words), Ok(words));
        }
    }
}
