//! What to do next, said by every error, and how a chain of causes is read.

use std::error::Error;

/// An error which knows what a person should do about it.
pub trait Remedy: Error {
    /// One imperative sentence, lower case, without a full stop.
    fn remedy(&self) -> String;

    /// Whether the same call may succeed a moment later: the only errors that are ever retried.
    fn is_transient(&self) -> bool {
        false
    }
}

/// The error and its causes, outermost first, each without its source.
pub fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut texts = Vec::new();
    let mut next = Some(error);
    while let Some(current) = next {
        let text = current.to_string();
        // Some libraries print their source in their own text; saying it twice helps nobody.
        if !texts.iter().any(|said: &String| said.contains(&text)) {
            texts.push(text);
        }
        next = current.source();
    }
    texts
}

/// The chain on one line, joined by colons: for journals and logs.
pub fn one_line(error: &(dyn Error + 'static)) -> String {
    chain(error).join(": ")
}
