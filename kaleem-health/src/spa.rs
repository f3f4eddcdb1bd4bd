//! A page and all that it names: a browser that gets HTML for a script shows nothing, and every status was 200.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt};
use kaleem_core::health::{Finding, HealthProbe, Resolver, Verdict};
use url::Url;

use crate::report::{Report, bounded};
use crate::settings::{SettingsError, SpaSettings, parse};
use crate::tls::judge_expiry;
use crate::web::client::{Client, shown, web_address};

/// A page that names more is not one that a browser loads quickly.
const MOST_PARTS: usize = 200;
/// As many connections as a browser opens to one host.
const AT_ONCE: usize = 6;

/// Loads a page as a browser would, without running it.
pub struct SpaProbe {
    name: String,
    settings: SpaSettings,
    url: Url,
    client: Client,
}

/// What a part of a page must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Script,
    Style,
    Other,
}

impl SpaProbe {
    /// A probe; nothing is connected yet.
    ///
    /// # Errors
    /// [`SettingsError`] when the address or a certificate cannot be read.
    pub fn new(name: &str, settings: SpaSettings, resolver: Arc<dyn Resolver>) -> Result<Self, SettingsError> {
        let url = web_address("spa", parse("spa", &settings.url)?)?;
        let client = Client::new(&settings.tls, resolver)?;
        Ok(Self { name: name.to_owned(), settings, url, client })
    }

    async fn attempt(&self, timeout: Duration) -> Finding {
        let place = shown(&self.url);
        let page = match self.client.get(&self.url, &[], timeout).await {
            Ok(page) => page,
            Err(error) => return error.finding(&self.url),
        };
        let mut report = Report::default();
        let serve = "check that the build was copied whole, and that the server's fallback to the page does not answer for files";
        if let Some(certificate) = &page.certificate {
            judge_expiry(&mut report, self.url.host_str().unwrap_or_default(), certificate);
        }
        if page.status != 200 {
            report.fail(format!("{place} answered {}, and 200 is right", page.status), serve);
        } else if page.media_type() != "text/html" {
            report.fail(format!("{place} is not served as text/html"), "set the type of `.html` files");
        } else if page.is_cut || page.body.is_empty() {
            report.fail(format!("{place} is empty or breaks off"), serve);
        }
        let html = String::from_utf8_lossy(&page.body);
        if let Some(id) = &self.settings.root_id
            && page.status == 200
            && !tags(&html).any(|tag| attribute(tag, "id") == Some(id.as_str()))
        {
            report.fail(
                format!("{place} has no element with the id `{id}`, which the application fills"),
                "check that this is the page of the application",
            );
        }
        let parts = self.parts(&html);
        let count = parts.len();
        if page.status == 200 && !parts.iter().any(|(_, kind)| *kind == Kind::Script) {
            report.warn(format!("{place} names no script of its own"), "check that this is the page of the application");
        }
        let findings: Vec<_> =
            stream::iter(parts).map(|(url, kind)| self.part(url, kind, timeout)).buffer_unordered(AT_ONCE).collect().await;
        for finding in findings {
            report.take("", finding);
        }
        let mut finding = report.finish(format!("{place} loads, and so do the {count} scripts and styles that it names"));
        finding.phases = page.phases;
        finding
    }

    /// Scripts, styles and preloads of the page's own host; what others serve is not ours to judge.
    fn parts(&self, html: &str) -> Vec<(Url, Kind)> {
        let base =
            tags(html).find(|tag| name(tag) == "base").and_then(|tag| attribute(tag, "href")).and_then(|href| self.url.join(href).ok());
        let base = base.unwrap_or_else(|| self.url.clone());
        let mut parts: Vec<(Url, Kind)> = Vec::new();
        for tag in tags(html) {
            let named = match name(tag).as_str() {
                "script" => attribute(tag, "src").map(|src| (src, Kind::Script)),
                "link" => {
                    let rel = attribute(tag, "rel").unwrap_or_default().to_ascii_lowercase();
                    let kind = match (rel.as_str(), attribute(tag, "as")) {
                        ("stylesheet", _) | ("preload", Some("style")) => Some(Kind::Style),
                        ("modulepreload", _) | ("preload", Some("script")) => Some(Kind::Script),
                        ("preload", _) => Some(Kind::Other),
                        _ => None,
                    };
                    attribute(tag, "href").zip(kind)
                }
                _ => None,
            };
            let Some((address, kind)) = named else { continue };
            let Ok(mut url) = base.join(&address.replace("&amp;", "&")) else { continue };
            url.set_fragment(None);
            let known = parts.iter().any(|(other, _)| *other == url);
            if url.host_str() == self.url.host_str() && matches!(url.scheme(), "http" | "https") && !known && parts.len() < MOST_PARTS {
                parts.push((url, kind));
            }
        }
        parts
    }

    async fn part(&self, url: Url, kind: Kind, timeout: Duration) -> Finding {
        let place = shown(&url);
        let fetched = match self.client.get(&url, &[], timeout).await {
            Ok(fetched) => fetched,
            Err(error) => return error.finding(&url),
        };
        let mut report = Report::default();
        let media_type = fetched.media_type();
        let right = match kind {
            // What browsers accept for modules.
            Kind::Script => {
                media_type.ends_with("/javascript") || media_type.ends_with("/ecmascript") || media_type.ends_with("/x-javascript")
            }
            Kind::Style => media_type == "text/css",
            Kind::Other => media_type != "text/html",
        };
        let copied = "check that the build was copied whole, and that old pages are not served with new files";
        if fetched.status != 200 {
            report.fail(format!("{place} answered {}", fetched.status), copied);
        } else if !right {
            let shown = crate::report::word(media_type.rsplit('/').next().unwrap_or_default()).to_owned();
            report.fail(
                format!("{place} is served as `{shown}`, and browsers refuse it"),
                "check `mime.types`, and that the fallback to the page does not answer for missing files",
            );
        } else if fetched.is_cut || fetched.body.is_empty() {
            report.fail(format!("{place} is empty or breaks off"), copied);
        }
        report.finish("")
    }
}

/// The start tags of a page, without comments; enough of HTML for what build tools write.
fn tags(html: &str) -> impl Iterator<Item = &str> {
    let mut rest = html;
    std::iter::from_fn(move || {
        loop {
            let start = rest.find('<')?;
            let after = rest.get(start + 1..)?;
            if let Some(comment) = after.strip_prefix("!--") {
                rest = comment.split_once("-->").map_or("", |(_, after)| after);
                continue;
            }
            let end = after.find('>')?;
            let tag = after.get(..end)?;
            rest = after.get(end + 1..)?;
            if tag.starts_with(|c: char| c.is_ascii_alphabetic()) {
                return Some(tag);
            }
        }
    })
}

fn name(tag: &str) -> String {
    tag.split(|c: char| c.is_ascii_whitespace() || c == '/').next().unwrap_or_default().to_ascii_lowercase()
}

/// The value of an attribute, with or without quotes.
fn attribute<'a>(tag: &'a str, wanted: &str) -> Option<&'a str> {
    let mut rest = tag.split_once(|c: char| c.is_ascii_whitespace())?.1.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c.is_ascii_whitespace() || c == '=' || c == '/').unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        let after = after.trim_start();
        let (value, after) = match after.strip_prefix('=').map(str::trim_start) {
            None => ("", after.strip_prefix('/').unwrap_or(after)),
            Some(text) => match text.chars().next() {
                Some(quote @ ('"' | '\'')) => text.get(1..)?.split_once(quote)?,
                _ => text.split_at(text.find(|c: char| c.is_ascii_whitespace()).unwrap_or(text.len())),
            },
        };
        if key.eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = after.trim_start();
    }
    None
}

#[async_trait]
impl HealthProbe for SpaProbe {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "spa"
    }

    async fn check(&self, timeout: Duration) -> Finding {
        bounded(timeout, self.attempt(timeout), || {
            Finding::new(Verdict::Fail, format!("{} and what it names did not load within {timeout:?}", shown(&self.url)))
                .with_remedy("see which part is slow: `curl -w '%{time_total}'`, or allow it more time")
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_attributes_of_build_tools_are_read() {
        let html = "<!doctype html><!-- <script src=old.js> --><html><link rel=stylesheet href='/a b.css'>\
            <script type=\"module\" crossorigin src=\"/assets/x.js?v=1\"></script><div id=\"root\"/><br>";
        let found: Vec<_> =
            tags(html).map(|tag| (name(tag), attribute(tag, "src"), attribute(tag, "href"), attribute(tag, "id"))).collect();
        assert_eq!(
            found,
            [
                ("html".to_owned(), None, None, None),
                ("link".to_owned(), None, Some("/a b.css"), None),
                ("script".to_owned(), Some("/assets/x.js?v=1"), None, None),
                ("div".to_owned(), None, None, Some("root")),
                ("br".to_owned(), None, None, None),
            ]
        );
        for broken in ["<", "<a", "<!--", "<a href=\"x>", "<script src", "<a =>", "<link href='x"] {
            for tag in tags(broken) {
                assert!(attribute(tag, "nothing").is_none(), "{broken}");
            }
        }
    }
}
