//! One question to one registry: where it goes, how long it may take, how often it is asked again.
//!
//! This is the only place that sends anything, so it alone decides which host sees credentials.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, LINK, LOCATION, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, Url};

use crate::clock::jittered;
use crate::image::{DEFAULT_REGISTRY, Digest, ImageRef};
use crate::registry::RegistryError;
use crate::registry::oci::OciRegistry;
use crate::registry::oci::auth::{self, Authorization};
use crate::remedy::Remedy;
use crate::secret::Secret;

/// Where the images of `docker.io` are.
const DOCKER_HUB: &str = "registry-1.docker.io";
const REDIRECTS: usize = 5;
const FIRST_DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_secs(8);
/// Longer than this nobody is kept waiting: the caller is told when to come back.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);
/// What is read of an answer that reports a failure.
const FAILURE_BYTES: usize = 64 * 1024;

/// A question.
pub(super) struct Ask {
    pub(super) method: Method,
    /// Path and query at the registry.
    pub(super) path: String,
    pub(super) accept: &'static str,
    /// Largest answer; a `HEAD` has none.
    pub(super) limit_bytes: usize,
}

/// An answer with a good status.
pub(super) struct Answer {
    /// Without parameters, in lower case; empty where none was sent.
    pub(super) content_type: String,
    pub(super) body: Vec<u8>,
    headers: HeaderMap,
    url: Url,
}

/// The registry of one image during one call.
pub(super) struct Session<'a> {
    pub(super) registry: &'a OciRegistry,
    pub(super) image: &'a ImageRef,
    /// Scheme, host and port.
    pub(super) base: Url,
    /// The header that the registry accepted, or is about to be shown.
    pub(super) authorization: Option<Authorization>,
}

impl<'a> Session<'a> {
    pub(super) fn open(registry: &'a OciRegistry, image: &'a ImageRef) -> Result<Self, String> {
        let base = base_of(image, &registry.options.plain_http)?;
        let authorization = registry.tokens.get(&auth::scope_key(&base, image), registry.options.clock.monotonic());
        Ok(Self { registry, image, base, authorization })
    }

    /// Asks, and asks again after transient errors.
    pub(super) async fn ask(&mut self, ask: &Ask) -> Result<Answer, RegistryError> {
        let mut attempt = 1;
        loop {
            let error = match Box::pin(self.attempt(ask)).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if attempt >= self.registry.options.attempts || !error.is_transient() {
                return Err(error);
            }
            let delay = match error {
                RegistryError::RateLimited { retry_after_seconds: Some(seconds), .. } => {
                    let wanted = Duration::from_secs(seconds);
                    if wanted > LONGEST_RETRY_AFTER {
                        return Err(error);
                    }
                    // All who were turned away together must not come back together.
                    wanted + jittered(FIRST_DELAY)
                }
                _ => jittered(FIRST_DELAY.saturating_mul(1 << (attempt - 1).min(8)).min(LONGEST_DELAY)),
            };
            self.registry.options.clock.sleep(delay).await;
            attempt += 1;
        }
    }

    async fn attempt(&mut self, ask: &Ask) -> Result<Answer, RegistryError> {
        let mut response = self.send_ask(ask).await?;
        if response.status() == StatusCode::BAD_REQUEST && self.base.scheme() == "http" {
            // Servers with TLS say so to those who come without; nothing but the path was sent yet.
            let answer = self.read(response, FAILURE_BYTES).await?;
            if !contains(&answer.body, b"HTTPS") {
                return Err(self.failed(StatusCode::BAD_REQUEST));
            }
            self.base.set_scheme("https").map_err(|()| self.nonsense("its address cannot be asked with TLS"))?;
            response = self.send_ask(ask).await?;
        }
        if response.status() == StatusCode::UNAUTHORIZED && same_origin(response.url(), &self.base) {
            // Also when a token was shown: it may have been revoked before its end.
            self.authorization = auth::authorize(self, response.headers()).await?;
            if self.authorization.is_some() {
                response = self.send_ask(ask).await?;
            }
        }
        match response.status() {
            status if status.is_success() => {
                if ask.method == Method::HEAD {
                    return Ok(Answer::without_body(&response));
                }
                self.read(response, ask.limit_bytes).await
            }
            // Some registries have no HEAD for manifests: the caller asks with GET then.
            StatusCode::METHOD_NOT_ALLOWED if ask.method == Method::HEAD => Ok(Answer::without_body(&response)),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                self.forget_token();
                let known = self.authorization.as_ref().is_some_and(|authorization| !authorization.anonymous);
                let shown = if known { "with the credentials it was shown" } else { "without credentials" };
                let code = self.failure_code(response).await;
                let verb = if status == StatusCode::FORBIDDEN { "forbids it" } else { "does not allow it" };
                Err(RegistryError::Denied { image: self.image.clone(), reason: format!("it {verb} {shown}{code}") })
            }
            status => Err(self.failure(status, response.headers())),
        }
    }

    /// What a status means that is neither good nor about credentials.
    pub(super) fn failure(&self, status: StatusCode, headers: &HeaderMap) -> RegistryError {
        match status {
            StatusCode::NOT_FOUND => RegistryError::NotFound { image: self.image.clone() },
            StatusCode::TOO_MANY_REQUESTS => RegistryError::RateLimited {
                image: self.image.clone(),
                retry_after_seconds: retry_after(headers, self.registry.options.clock.now()),
            },
            status if status.is_success() || status.is_redirection() || status.is_informational() => {
                self.nonsense(format!("it answered with status {}", status.as_u16()))
            }
            status => self.failed(status),
        }
    }

    fn failed(&self, status: StatusCode) -> RegistryError {
        RegistryError::Failed { image: self.image.clone(), status: status.as_u16() }
    }

    pub(super) fn nonsense(&self, reason: impl Into<String>) -> RegistryError {
        RegistryError::Nonsense { image: self.image.clone(), reason: reason.into() }
    }

    fn forget_token(&self) {
        self.registry.tokens.forget(&auth::scope_key(&self.base, self.image));
    }

    async fn send_ask(&self, ask: &Ask) -> Result<Response, RegistryError> {
        let url = self.base.join(&ask.path).map_err(|_| self.nonsense("its address is none"))?;
        // A path such as `//other.example.com/` would lead elsewhere.
        if !same_origin(&url, &self.base) {
            return Err(self.nonsense("it sends us to another host for the next page"));
        }
        self.send(ask.method.clone(), url, ask.accept, self.authorization.as_ref().map(|authorization| &authorization.header), None).await
    }

    /// Sends one request and follows redirects, without the authorization as soon as they leave the origin.
    pub(super) async fn send(
        &self,
        method: Method,
        mut url: Url,
        accept: &str,
        mut authorization: Option<&Secret<String>>,
        form: Option<Secret<String>>,
    ) -> Result<Response, RegistryError> {
        let origin = url.clone();
        for _ in 0..=REDIRECTS {
            let mut request = self.registry.client.request(method.clone(), url.clone()).header(ACCEPT, accept);
            if let Some(authorization) = authorization {
                let mut value = reqwest::header::HeaderValue::from_str(authorization.expose())
                    .map_err(|_| self.credentials_error("they hold a character that HTTP does not allow"))?;
                value.set_sensitive(true);
                request = request.header(AUTHORIZATION, value);
            }
            if let Some(form) = &form {
                request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.expose().clone());
            }
            let response = request.send().await.map_err(|error| self.unreachable(error))?;
            if !is_redirect(response.status()) {
                return Ok(response);
            }
            if form.is_some() {
                return Err(self.nonsense("its token service sends us elsewhere with a secret in hand"));
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok()).ok_or_else(|| self.nonsense("it redirects to no address"))?;
            let safe = next.scheme() == "https"
                || (next.scheme() == "http" && origin.scheme() == "http" && may_be_plain(&next, &self.registry.options.plain_http));
            if !safe {
                return Err(self.nonsense("it redirects to an address without TLS"));
            }
            if !same_origin(&next, &origin) {
                authorization = None;
            }
            url = next;
        }
        Err(self.nonsense(format!("it redirects more than {REDIRECTS} times")))
    }

    pub(super) async fn read(&self, mut response: Response, limit_bytes: usize) -> Result<Answer, RegistryError> {
        let too_large = || self.nonsense(format!("it is larger than {} KiB", limit_bytes / 1024));
        if response.content_length().is_some_and(|length| length > limit_bytes as u64) {
            return Err(too_large());
        }
        let mut answer = Answer::without_body(&response);
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(error))? {
            if answer.body.len().saturating_add(chunk.len()) > limit_bytes {
                return Err(too_large());
            }
            answer.body.extend_from_slice(&chunk);
        }
        Ok(answer)
    }

    /// The registry's own word for a refusal, such as ` (DENIED)`. Only words of the protocol are repeated: free text of
    /// a server could hold what it was shown.
    pub(super) async fn failure_code(&self, response: Response) -> String {
        const CODES: [&str; 5] = ["UNAUTHORIZED", "DENIED", "NAME_UNKNOWN", "TOOMANYREQUESTS", "UNSUPPORTED"];
        let body = self.read(response, FAILURE_BYTES).await.map(|answer| answer.body).unwrap_or_default();
        let code = serde_json::from_slice::<serde_json::Value>(&body)
            .ok()
            .and_then(|body| body.pointer("/errors/0/code")?.as_str().and_then(|code| CODES.into_iter().find(|known| *known == code)));
        code.map(|code| format!(" ({code})")).unwrap_or_default()
    }

    pub(super) fn credentials_error(&self, reason: impl Into<String>) -> RegistryError {
        RegistryError::Credentials { registry: self.image.registry().to_owned(), reason: reason.into() }
    }

    fn unreachable(&self, error: reqwest::Error) -> RegistryError {
        // Addresses that storage services redirect to are signed: whoever reads one may fetch with it.
        RegistryError::Unreachable { image: self.image.clone(), source: error.without_url().into() }
    }
}

impl Answer {
    fn without_body(response: &Response) -> Self {
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Self {
            content_type: content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase(),
            body: Vec::new(),
            headers: response.headers().clone(),
            url: response.url().clone(),
        }
    }

    /// The digest which the registry says this has; one of another kind than ours counts as none.
    pub(super) fn announced_digest(&self) -> Option<Digest> {
        self.headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
    }

    /// Path and query of the next page, from the `Link` header.
    pub(super) fn next_page(&self) -> Result<Option<String>, String> {
        let Some(link) = self.headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok()).find_map(next_of) else {
            return Ok(None);
        };
        let next = self.url.join(link).map_err(|_| "the address of its next page is none".to_owned())?;
        if !same_origin(&next, &self.url) {
            return Err("it sends us to another host for the next page".to_owned());
        }
        let query = next.query().map(|query| format!("?{query}")).unwrap_or_default();
        Ok(Some(format!("{}{query}", next.path())))
    }
}

/// The target of `rel="next"` in a `Link` header.
fn next_of(header: &str) -> Option<&str> {
    let (target, parameters) = header.trim().strip_prefix('<')?.split_once('>')?;
    let mut parameters = parameters.split([';', ',']).map(str::trim);
    parameters.any(|parameter| matches!(parameter, "rel=\"next\"" | "rel=next")).then_some(target)
}

/// Where the registry of an image is asked.
fn base_of(image: &ImageRef, plain_http: &[String]) -> Result<Url, String> {
    let host = image.registry();
    let address = if host == DEFAULT_REGISTRY { DOCKER_HUB } else { host };
    let parse = |scheme: &str| format!("{scheme}://{address}/").parse::<Url>().map_err(|_| format!("`{host}` is not a host and port"));
    // Parsed anew: a port that is the default of one scheme is not that of the other.
    if may_be_plain(&parse("https")?, plain_http) { parse("http") } else { parse("https") }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

pub(super) fn same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme() && one.host_str() == other.host_str() && one.port_or_known_default() == other.port_or_known_default()
}

/// Whether `url` may be asked without TLS: a loopback address, or a host which the caller allows.
pub(super) fn may_be_plain(url: &Url, allowed: &[String]) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
        return true;
    }
    let with_port = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(&with_port))
}

fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<u64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(u64::try_from(at.as_second().saturating_sub(now.as_second())).unwrap_or(0))
}

fn contains(body: &[u8], word: &[u8]) -> bool {
    body.windows(word.len()).any(|window| window == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_and_for_those_who_are_named() {
        let allowed = ["registry.lan".to_owned(), "Other.lan:5000".to_owned()];
        for (why, url, plain) in [
            ("the whole of 127/8 is loopback", "http://127.9.9.9:5000/", true),
            ("IPv6", "http://[::1]:5000/", true),
            ("by name", "http://localhost:5000/", true),
            ("a name that only begins like it", "http://localhost.example.com/", false),
            ("an address that looks like it", "http://127.0.0.1.example.com/", false),
            ("named", "http://registry.lan/", true),
            ("named with another port", "http://registry.lan:5000/", false),
            ("named with its port", "http://other.lan:5000/", true),
            ("a private address", "http://10.0.0.1/", false),
            ("every address", "http://0.0.0.0/", false),
        ] {
            assert_eq!(may_be_plain(&url.parse().unwrap(), &allowed), plain, "{why}: {url}");
        }
    }

    #[test]
    fn a_registry_is_asked_where_its_images_say() {
        for (image, base) in [
            ("redis", Ok("https://registry-1.docker.io/")),
            ("ghcr.io/team/app", Ok("https://ghcr.io/")),
            ("registry.example.com:5000/app", Ok("https://registry.example.com:5000/")),
            ("localhost:443/app", Ok("http://localhost:443/")),
            ("[::1]:5000/app", Ok("http://[::1]:5000/")),
            ("lan:5000/app", Ok("http://lan:5000/")),
            ("a:b:c/app", Err("`a:b:c` is not a host and port")),
        ] {
            let found = base_of(&image.parse().unwrap(), &["lan:5000".to_owned()]);
            assert_eq!(found.as_ref().map(Url::as_str).map_err(String::as_str), base, "{image}");
        }
    }

    #[test]
    fn the_next_page_is_found_in_all_its_spellings() {
        for (header, next) in [
            (r#"</v2/a/tags/list?last=x&n=2>; rel="next""#, Some("/v2/a/tags/list?last=x&n=2")),
            ("</v2/a>; rel=next", Some("/v2/a")),
            (r#"</v2/a>; title="x"; rel="next""#, Some("/v2/a")),
            (r#"</v2/a>; rel="prev""#, None),
            ("/v2/a", None),
        ] {
            assert_eq!(next_of(header), next, "{header}");
        }
    }

    #[test]
    fn a_time_to_come_back_is_read_as_seconds_or_as_a_date() {
        let now: Timestamp = "2015-10-21T07:28:00Z".parse().unwrap();
        for (text, seconds) in
            [("7", Some(7)), ("Wed, 21 Oct 2015 07:28:30 GMT", Some(30)), ("Wed, 21 Oct 2015 07:00:00 GMT", Some(0)), ("soon", None)]
        {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            assert_eq!(retry_after(&headers, now), seconds, "{text}");
        }
    }
}
