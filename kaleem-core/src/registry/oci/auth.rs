//! What a registry wants to be shown, and where that is fetched.
//!
//! A challenge is answered only when it came from the registry itself. A token service is trusted as far as the registry
//! that names it: it gets the user's credentials, but never over a channel that is less safe.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use crate::image::ImageRef;
use crate::registry::oci::documents::parse_json;
use crate::registry::oci::http::{Session, may_be_plain};
use crate::registry::{Credential, RegistryError};
use crate::secret::Secret;

const TOKEN_BYTES: usize = 256 * 1024;
/// Life of a token that does not say, as the token protocol has it.
const TOKEN_LIFE: Duration = Duration::from_secs(60);
/// A token this close to its end is not used any more.
const TOKEN_MARGIN: Duration = Duration::from_secs(10);

/// What a registry is shown.
#[derive(Clone)]
pub(super) struct Authorization {
    pub(super) header: Secret<String>,
    /// Whether it only says that we are nobody in particular.
    pub(super) anonymous: bool,
}

/// Tokens that are still good, by registry and repository.
#[derive(Default)]
pub(super) struct Tokens(Mutex<HashMap<String, (Authorization, Duration)>>);

impl Tokens {
    pub(super) fn get(&self, key: &str, now: Duration) -> Option<Authorization> {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, (_, until)| *until > now);
        tokens.get(key).map(|(token, _)| token.clone())
    }

    pub(super) fn forget(&self, key: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    fn put(&self, key: String, token: Authorization, until: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, (token, until));
    }
}

pub(super) fn scope_key(base: &Url, image: &ImageRef) -> String {
    // A token belongs to a host and port; the scheme may change while it is found out.
    format!("{}:{} {}", base.host_str().unwrap_or_default(), base.port().unwrap_or_default(), image.repository())
}

/// A way in which a registry lets us prove who we are.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// Finds the header that answers a challenge; `None` when there is nothing to show.
pub(super) async fn authorize(session: &Session<'_>, headers: &HeaderMap) -> Result<Option<Authorization>, RegistryError> {
    let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let challenges: Vec<Challenge> = texts.flat_map(parse_challenges).collect();
    let Some(challenge) = challenges.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. })).or_else(|| challenges.first())
    else {
        return Err(session.nonsense("it wants a login of a kind that is not known here"));
    };
    let image = session.image;
    let credential = session.registry.options.credentials.for_registry(image.registry()).await?;
    match (challenge, credential) {
        (Challenge::Basic, None) => Ok(None),
        (Challenge::Basic, Some(Credential::Password { username, password })) => {
            Ok(Some(Authorization { header: basic(&username, &password), anonymous: false }))
        }
        (Challenge::Basic, Some(Credential::IdentityToken(_))) => Err(RegistryError::Denied {
            image: image.clone(),
            reason: "it wants a user and a password, and the credentials for it are an identity token".to_owned(),
        }),
        (Challenge::Bearer { realm, service, scope }, credential) => {
            let scope = scope.clone().unwrap_or_else(|| format!("repository:{}:pull", image.repository()));
            fetch_token(session, realm, service.as_deref(), &scope, credential).await.map(Some)
        }
    }
}

#[derive(Deserialize)]
struct RawToken {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

async fn fetch_token(
    session: &Session<'_>,
    realm: &str,
    service: Option<&str>,
    scope: &str,
    credential: Option<Credential>,
) -> Result<Authorization, RegistryError> {
    let mut url: Url = realm.parse().map_err(|_| session.nonsense("the address of its token service is none"))?;
    let safe = url.scheme() == "https"
        || (url.scheme() == "http" && session.base.scheme() == "http" && may_be_plain(&url, &session.registry.options.plain_http));
    if !safe {
        return Err(session.nonsense("its token service is to be asked without TLS"));
    }
    let anonymous = credential.is_none();
    let pairs = service.map(|service| ("service", service)).into_iter().chain([("scope", scope)]);
    let json = "application/json";
    let response = match credential {
        Some(Credential::IdentityToken(token)) => {
            let fixed = [("grant_type", "refresh_token"), ("client_id", "kaleem"), ("refresh_token", token.expose().as_str())];
            let form = form_encoded(&session.base, pairs.chain(fixed));
            session.send(Method::POST, url, json, None, Some(form)).await?
        }
        Some(Credential::Password { username, password }) => {
            url.query_pairs_mut().extend_pairs(pairs);
            session.send(Method::GET, url, json, Some(&basic(&username, &password)), None).await?
        }
        None => {
            url.query_pairs_mut().extend_pairs(pairs);
            session.send(Method::GET, url, json, None, None).await?
        }
    };
    match response.status() {
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let code = session.failure_code(response).await;
            let reason = if anonymous {
                format!("its token service wants a login, and there are no credentials for it{code}")
            } else {
                format!("its token service refuses the credentials it was shown{code}")
            };
            return Err(RegistryError::Denied { image: session.image.clone(), reason });
        }
        StatusCode::NOT_FOUND => return Err(session.nonsense("its token service is not where it says")),
        status if !status.is_success() => return Err(session.failure(status, response.headers())),
        _ => (),
    }
    let answer = session.read(response, TOKEN_BYTES).await?;
    let raw: RawToken = parse_json("token", &answer.body).map_err(|reason| session.nonsense(reason))?;
    let token = raw.token.or(raw.access_token).filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| session.nonsense("its token service gave no token"))?;
    let authorization = Authorization { header: Secret::new(format!("Bearer {token}")), anonymous };
    let life = raw.expires_in.map_or(TOKEN_LIFE, Duration::from_secs).saturating_sub(TOKEN_MARGIN);
    let now = session.registry.options.clock.monotonic();
    session.registry.tokens.put(scope_key(&session.base, session.image), authorization.clone(), now.saturating_add(life));
    Ok(authorization)
}

fn basic(username: &str, password: &Secret<String>) -> Secret<String> {
    Secret::new(format!("Basic {}", STANDARD.encode(format!("{username}:{}", password.expose()))))
}

fn form_encoded<'a>(base: &Url, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Secret<String> {
    // A form is written as a query is.
    let mut url = base.clone();
    url.query_pairs_mut().clear().extend_pairs(pairs);
    Secret::new(url.query().unwrap_or_default().to_owned())
}

/// Reads a `WWW-Authenticate` header, which may hold several challenges; those of other kinds are left out.
fn parse_challenges(text: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',']);
    while !rest.is_empty() {
        let (scheme, after) = rest.split_once(' ').unwrap_or((rest, ""));
        let mut parameters = HashMap::new();
        rest = after.trim_start();
        // `name=value` belongs to this challenge; a word without `=` begins the next one.
        while let Some((name, after)) = rest.split_once('=')
            && !name.trim().contains([' ', ','])
        {
            let (value, after) = parameter_value(after);
            parameters.insert(name.trim().to_ascii_lowercase(), value);
            rest = after.trim_start_matches([' ', ',']);
        }
        let scheme = scheme.trim_end_matches(',');
        if scheme.eq_ignore_ascii_case("basic") {
            challenges.push(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = parameters.remove("realm")
        {
            challenges.push(Challenge::Bearer { realm, service: parameters.remove("service"), scope: parameters.remove("scope") });
        }
    }
    challenges
}

/// A value and what comes after it. Values in quotes may hold commas and escaped quotes.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (value.to_owned(), rest);
    };
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, quoted.get(at + 1..).unwrap_or_default()),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        };
        for (why, text, expected) in [
            (
                "Docker Hub",
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/redis:pull""#,
                vec![bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some("repository:library/redis:pull"))],
            ),
            (
                "a comma in quotes",
                r#"Bearer realm="https://a/t", scope="repository:a:pull,push""#,
                vec![bearer("https://a/t", None, Some("repository:a:pull,push"))],
            ),
            ("no quotes", "bearer realm=https://a/t,service=x", vec![bearer("https://a/t", Some("x"), None)]),
            ("plain", r#"Basic realm="lab""#, vec![Challenge::Basic]),
            ("without anything", "Basic", vec![Challenge::Basic]),
            ("two in one", r#"Basic realm="x", Bearer realm="https://a/t""#, vec![Challenge::Basic, bearer("https://a/t", None, None)]),
            ("another kind before ours", r#"Negotiate, Basic realm="x""#, vec![Challenge::Basic]),
            ("a bearer that names no service", "Bearer", vec![]),
            ("an escaped quote", r#"Bearer realm="https://a/\"t""#, vec![bearer("https://a/\"t", None, None)]),
            ("a quote that does not end", r#"Bearer realm="https://a"#, vec![bearer("https://a", None, None)]),
            ("nothing", " , ", vec![]),
            ("rubbish ends", "= = ,,, = a= ", vec![]),
        ] {
            assert_eq!(parse_challenges(text), expected, "{why}: {text}");
        }
    }
}
