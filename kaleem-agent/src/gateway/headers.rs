//! What a proxy does to header fields: those meant for one connection stay there, those that tell where a request came from are added.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Uri};
use http::{Method, StatusCode, Version};

use super::crowd::Client;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
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
                REAL_IP,
                header::FORWARDED,
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
/// in front, or by the client: it is kept (the lists of addresses are added to) where its word is believed, and left out where it is not.
pub(crate) fn each_field(headers: &HeaderMap, client: &Client, mut field: impl FnMut(&HeaderName, &HeaderValue)) {
    let (mut chain, mut forwarded): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
    let (mut has_protocol, mut has_host, mut has_address) = (false, false, false);
    for (name, value) in headers {
        let of_client = of_client(name);
        match of_client {
            None => field(name, value),
            Some(_) if !client.believed => {}
            Some(OfClient::For) => join(&mut chain, value),
            Some(OfClient::Forwarded) => join(&mut forwarded, value),
            Some(other) => {
                has_protocol |= other == OfClient::Protocol;
                has_host |= other == OfClient::Host;
                has_address |= other == OfClient::Address;
                field(name, value);
            }
        }
    }
    if chain.is_empty() {
        field(&FORWARDED_FOR, &client.forwarded_for);
        // A proxy in front that names its client in the list alone means the list.
        if !has_address {
            field(&REAL_IP, &client.forwarded_for);
        }
    } else {
        chain.extend_from_slice(client.forwarded_for.as_bytes());
        field(&FORWARDED_FOR, HeaderValue::try_from(chain).as_ref().unwrap_or(&client.forwarded_for));
    }
    // Who reads the standard's field must find there what the others say.
    if !forwarded.is_empty() {
        forwarded.extend_from_slice(&element(client.peer.ip()));
        if let Ok(value) = HeaderValue::try_from(forwarded) {
            field(&header::FORWARDED, &value);
        }
    }
    if !has_protocol {
        field(&FORWARDED_PROTO, &HTTP);
    }
    if let Some(host) = headers.get(header::HOST).filter(|_| !has_host) {
        field(&FORWARDED_HOST, host);
    }
}

/// What a field says of the client.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OfClient {
    For,
    Forwarded,
    Address,
    Protocol,
    Host,
    /// Another spelling, which servers that take `_` for `-` read as one of these.
    Other,
}

fn of_client(name: &HeaderName) -> Option<OfClient> {
    let text = name.as_str();
    // Most fields are none of these: two bytes tell.
    if !text.starts_with("x-") && !text.starts_with("x_") {
        return (*name == header::FORWARDED).then_some(OfClient::Forwarded);
    }
    match text {
        "x-forwarded-for" => Some(OfClient::For),
        "x-forwarded-proto" => Some(OfClient::Protocol),
        "x-forwarded-host" => Some(OfClient::Host),
        "x-real-ip" => Some(OfClient::Address),
        _ => {
            let same =
                |one: &str| text.len() == one.len() && text.bytes().zip(one.bytes()).all(|(a, b)| a == b || (a == b'_' && b == b'-'));
            let known = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix", "x-real-ip"];
            known.into_iter().any(same).then_some(OfClient::Other)
        }
    }
}

/// Adds what stands in one more field of a list.
fn join(list: &mut Vec<u8>, value: &HeaderValue) {
    list.extend_from_slice(value.as_bytes());
    list.extend_from_slice(b", ");
}

/// The client in a `Forwarded` field (RFC 7239, section 6): an IPv6 address is quoted.
fn element(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => format!("for={address}"),
        IpAddr::V6(address) => format!("for=\"[{address}]\""),
    }
    .into_bytes()
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
