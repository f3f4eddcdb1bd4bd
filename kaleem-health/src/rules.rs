//! What an answer must hold: a text, a pattern, values of its JSON. Never a word of the answer is repeated.

mod json;

use regex::bytes::Regex;

use crate::report::Report;
use crate::settings::SettingsError;
use json::JsonRule;

/// Rules about the bytes of an answer.
#[derive(Debug)]
pub(crate) struct Rules {
    contains: Option<String>,
    pattern: Option<Regex>,
    json: Vec<JsonRule>,
}

impl Rules {
    pub(crate) fn new(contains: Option<&str>, pattern: Option<&str>, json: &[String]) -> Result<Self, SettingsError> {
        let bad = |text: &str| SettingsError::Rule { text: text.to_owned(), reason: "it is not a regular expression".to_owned() };
        Ok(Self {
            contains: contains.map(str::to_owned),
            pattern: pattern.map(|text| Regex::new(text).map_err(|_| bad(text))).transpose()?,
            json: json.iter().map(|text| JsonRule::parse(text)).collect::<Result<_, _>>()?,
        })
    }

    /// Judges `bytes`, which are `what`, such as `the answer of http://api:3000/`; `look` is how a person sees them.
    pub(crate) fn judge(&self, report: &mut Report, what: &str, bytes: &[u8], look: &str) {
        if let Some(text) = &self.contains
            && !text.is_empty()
            && !bytes.windows(text.len()).any(|window| window == text.as_bytes())
        {
            report.fail(format!("{what} does not hold the text that `contains` asks for"), look);
        }
        if let Some(pattern) = &self.pattern
            && !pattern.is_match(bytes)
        {
            report.fail(format!("{what} does not match `{pattern}`"), look);
        }
        if self.json.is_empty() {
            return;
        }
        let Ok(body) = serde_json::from_slice(bytes) else {
            report.fail(format!("{what} is not JSON"), look);
            return;
        };
        for rule in &self.json {
            if let Err(why) = rule.check(&body) {
                report.fail(format!("{what} breaks `{rule}`: {why}"), look);
            }
        }
    }
}
