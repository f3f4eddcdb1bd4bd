//! What a proxy does to header fields: those meant for one connection stay there, those that tell where a request came from are added.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Uri};
use http::{Method, StatusCode, Version};

use super::crowd::Client;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// TLS does not end here.
const HTTP: HeaderValue = HeaderValue::from_static("http");

/// Why a request is refused before anything is sent.
pub(crate) type Refused = (StatusCode, &'static str);

/// Refuses what could be read differently by whoever stands behind us.
pub(crate) fn check(method: &Method, uri: &Uri, version: Version, headers: &HeaderMap) -> Result<(), Refused> {
    if *method == Method::CONNECT {
        return Err((StatusCode::NOT_IMPLEMENTED, "this is no proxy for CONNECT"));
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err((StatusCode::BAD_REQUEST, "more than one Host"));
    }
    if host.is_none() && version == Version::HTTP_11 {
        return Err((StatusCode::BAD_REQUEST, "no Host"));
    }
    let well_formed =
        |value: &HeaderValue| value.is_empty() || Authority::try_from(value.as_bytes()).is_ok_and(|host| !host.as_str().contains('@'));
    if host.is_some_and(|value| !well_formed(value)) {
        return Err((StatusCode::BAD_REQUEST, "a malformed Host"));
    }
    if headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH) {
        return Err((StatusCode::BAD_REQUEST, "both Content-Length and Transfer-Encoding"));
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if codings.next().is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"chunked")) || codings.next().is_some() {
        return Err((StatusCode::NOT_IMPLEMENTED, "a transfer coding other than chunked"));
    }
    if uri.path_and_query().is_none() && uri.authority().is_none() {
        return Err((StatusCode::BAD_REQUEST, "no path"));
    }
    Ok(())
}

/// Removes fields meant for this connection alone. Answers with the protocol of `Upgrade`, where `Connection` names it.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let hop = [header::CONNECTION, header::TE, header::TRANSFER_ENCODING, header::UPGRADE, KEEP_ALIVE, PROXY_CONNECTION];
    // Most requests and answers of HTTP/1.1 have none or one: one look is cheaper than six searches.
    let mut there = [false; 6];
    for name in headers.keys() {
        hop.iter().zip(&mut there).for_each(|(field, there)| *there |= field == name);
    }
    let [names_some, names_codings, ..] = there;
    let mut upgrade = None;
    if names_some {
        let mut named: Vec<HeaderName> = Vec::new();
        for value in headers.get_all(header::CONNECTION) {
            for token in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                if token.eq_ignore_ascii_case(b"upgrade") {
                    upgrade = headers.get(header::UPGRADE).cloned();
                } else if !token.eq_ignore_ascii_case(b"keep-alive") && !token.eq_ignore_ascii_case(b"close") {
                    named.extend(HeaderName::from_bytes(token));
                }
            }
        }
        headers.remove(header::CONNECTION);
        for name in named {
            // A client must not be able to take away what the request is understood by.
            let needed = [
                header::HOST,
                header::CONTENT_LENGTH,
                header::TRANSFER_ENCODING,
                header::TE,
                FORWARDED_FOR,
                FORWARDED_PROTO,
                FORWARDED_HOST,
            ];
            if !needed.contains(&name) {
                headers.remove(name);
            }
        }
    }
    let trailers = |value: &HeaderValue| {
        let mut codings = value.as_bytes().split(|byte| *byte == b',');
        codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    };
    let accepts_trailers = names_codings && headers.get(header::TE).is_some_and(trailers);
    for (field, _) in hop.iter().zip(there).filter(|(_, there)| *there) {
        headers.remove(field);
    }
    if accepts_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    upgrade
}

/// Tells `field` of each field that an instance is sent, among them on whose behalf. What is said about that already was said by a proxy
/// in front, or by the client: it is kept (the list of addresses is added to), unless the gateway was told to distrust it.
pub(crate) fn each_field(headers: &HeaderMap, client: &Client, mut field: impl FnMut(&HeaderName, &HeaderValue)) {
    let distrusts = client.shard.settings.distrust_forwarded;
    let (mut chain, mut has_protocol, mut has_host): (Vec<u8>, bool, bool) = (Vec::new(), false, false);
    for (name, value) in headers {
        let (is_chain, is_protocol, is_host) = (*name == FORWARDED_FOR, *name == FORWARDED_PROTO, *name == FORWARDED_HOST);
        if distrusts && (is_chain || is_protocol || is_host || *name == header::FORWARDED) {
            continue;
        }
        has_protocol |= is_protocol;
        has_host |= is_host;
        if is_chain {
            chain.extend_from_slice(value.as_bytes());
            chain.extend_from_slice(b", ");
        } else {
            field(name, value);
        }
    }
    if chain.is_empty() {
        field(&FORWARDED_FOR, &client.forwarded_for);
    } else {
        chain.extend_from_slice(client.forwarded_for.as_bytes());
        field(&FORWARDED_FOR, HeaderValue::try_from(chain).as_ref().unwrap_or(&client.forwarded_for));
    }
    if !has_protocol {
        field(&FORWARDED_PROTO, &HTTP);
    }
    if let Some(host) = headers.get(header::HOST).filter(|_| !has_host) {
        field(&FORWARDED_HOST, host);
    }
}

/// The part of a request's target that an instance is asked for.
pub(crate) fn origin_form(uri: Uri) -> Uri {
    if uri.authority().is_none() {
        return uri;
    }
    let path = uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    Uri::from(path)
}

/// The value of a cookie.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(';')).find_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap())).collect()
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let get = |pairs: &[(&str, &str)]| check(&Method::GET, &Uri::from_static("/"), Version::HTTP_11, &headers(pairs));
        for (why, pairs, ok) in [
            ("plain", &[("host", "api:3000")][..], true),
            ("an empty host is allowed", &[("host", "")], true),
            ("two hosts route differently", &[("host", "a"), ("host", "b")], false),
            ("no host", &[], false),
            ("a host with a user", &[("host", "a@b")], false),
            ("a host with a path", &[("host", "a/b")], false),
            ("two lengths", &[("host", "a"), ("content-length", "3"), ("transfer-encoding", "chunked")], false),
            ("two codings", &[("host", "a"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], false),
            ("a coding that hides the end", &[("host", "a"), ("transfer-encoding", "gzip, chunked")], false),
        ] {
            assert_eq!(get(pairs).is_ok(), ok, "{why}");
        }
        assert!(check(&Method::GET, &Uri::from_static("/"), Version::HTTP_10, &headers(&[])).is_ok(), "HTTP/1.0 needs no host");
        assert!(check(&Method::CONNECT, &Uri::from_static("a:1"), Version::HTTP_11, &headers(&[("host", "a")])).is_err());
    }

    #[test]
    fn fields_of_one_connection_stay_there_and_those_that_matter_cannot_be_named_away() {
        let mut map = headers(&[
            ("host", "a"),
            ("connection", "keep-alive, X-Trace, Host, Content-Length"),
            ("keep-alive", "timeout=5"),
            ("x-trace", "1"),
            ("content-length", "3"),
            ("te", "gzip, trailers"),
            ("proxy-connection", "close"),
            ("accept", "*/*"),
        ]);
        assert_eq!(remove_hop_by_hop(&mut map), None);
        let mut left: Vec<&str> = map.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "content-length", "host", "te"]);
        assert_eq!(map.get("te").unwrap(), "trailers");
        let mut map = headers(&[("connection", "Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(remove_hop_by_hop(&mut map).unwrap(), "websocket");
        assert!(map.is_empty());
        let mut map = headers(&[("upgrade", "h2c")]);
        assert_eq!(remove_hop_by_hop(&mut map), None, "an upgrade that Connection does not name is none");
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let map = headers(&[("cookie", "a=1; kaleem=r7.abc"), ("cookie", "b=2")]);
        assert_eq!(cookie(&map, "kaleem"), Some("r7.abc"));
        assert_eq!(cookie(&map, "b"), Some("2"));
        assert_eq!(cookie(&map, "aleem"), None);
    }
}
