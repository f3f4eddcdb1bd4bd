//! Addresses taken apart; no text of them is part of an error, since it may hold a password.

use kaleem_core::secret::Secret;
use url::Url;

use super::SettingsError;

/// User and password of Redis.
#[derive(Clone, Debug)]
pub(crate) struct RedisLogin {
    pub user: Option<String>,
    pub password: Option<Secret<String>>,
}

/// Host, port, whether TLS, and login of an address of Redis.
pub(crate) fn redis_address(url: &Secret<String>) -> Result<(String, u16, bool, RedisLogin), SettingsError> {
    let kind = "redis";
    let url = parse(kind, url)?;
    let with_tls = match url.scheme() {
        "redis" => false,
        "rediss" => true,
        _ => return Err(SettingsError::Address { kind, reason: "it does not start with `redis://` or `rediss://`" }),
    };
    let host = host(kind, &url)?;
    let (user, password) = login(&url);
    Ok((host, url.port().unwrap_or(6379), with_tls, RedisLogin { user, password }))
}

/// An address; its text is never part of the error.
pub(crate) fn parse(kind: &'static str, url: &Secret<String>) -> Result<Url, SettingsError> {
    Url::parse(url.expose()).map_err(|_| SettingsError::Address { kind, reason: "it is not an address" })
}

pub(crate) fn host(kind: &'static str, url: &Url) -> Result<String, SettingsError> {
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(SettingsError::Address { kind, reason: "it has no host" })?;
    Ok(host.trim_matches(['[', ']']).to_owned())
}

/// User and password, decoded.
pub(crate) fn login(url: &Url) -> (Option<String>, Option<Secret<String>>) {
    let user = Some(decode(url.username())).filter(|user| !user.is_empty());
    (user, url.password().map(|password| Secret::new(decode(password))))
}

/// `%xx` to bytes.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use kaleem_core::remedy::Remedy;

    use super::*;

    #[test]
    fn an_address_of_redis_is_taken_apart_and_never_repeated() {
        let (host, port, tls, login) = redis_address(&Secret::new("rediss://app:p%40ss@cache:6380/2".to_owned())).unwrap();
        assert_eq!((host.as_str(), port, tls, login.user.as_deref()), ("cache", 6380, true, Some("app")));
        assert_eq!(login.password.unwrap().expose(), "p@ss");
        for text in ["hunter2", "http://hunter2@x", "redis://"] {
            let error = redis_address(&Secret::new(text.to_owned())).unwrap_err();
            assert!(!format!("{error} {error:?} {}", error.remedy()).contains("hunter2"), "{text}");
        }
    }
}
