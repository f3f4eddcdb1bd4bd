//! Where requests begin and end, as the strictest reader has it: it stops at the first thing that another reader could see differently.

/// How many requests are certain: each began, and has a whole head that can be read in one way only.
pub(crate) fn requests(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    let mut count = 0;
    loop {
        let blank = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let Some((body, after)) = head(&rest[blank..]) else { return count };
        count += 1;
        let Some(next) = (match body {
            Body::Bytes(length) => usize::try_from(length).ok().and_then(|length| after.get(length..)),
            Body::Chunks => chunks(after),
        }) else {
            return count;
        };
        rest = next;
    }
}

enum Body {
    Bytes(u64),
    Chunks,
}

/// A line that ends as it must, without its end.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n' | b'\0'))?;
    let rest = bytes[end..].strip_prefix(b"\r\n")?;
    Some((&bytes[..end], rest))
}

fn head(bytes: &[u8]) -> Option<(Body, &[u8])> {
    let (first, mut rest) = line(bytes)?;
    let old = first.ends_with(b" HTTP/1.0");
    if !old && !first.ends_with(b" HTTP/1.1") {
        return None;
    }
    let mut length: Option<u64> = None;
    let mut chunked = false;
    loop {
        let (field, after) = line(rest)?;
        rest = after;
        if field.is_empty() {
            break;
        }
        let colon = field.iter().position(|byte| *byte == b':')?;
        let (name, value) = (field[..colon].to_ascii_lowercase(), field[colon + 1..].trim_ascii());
        if name.is_empty() || name.iter().any(u8::is_ascii_whitespace) {
            return None;
        }
        if name == b"content-length" {
            let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
            let given = digits.parse().ok()?;
            if length.replace(given).is_some_and(|before| before != given) {
                return None;
            }
        }
        if name == b"transfer-encoding" {
            if chunked || old || !value.eq_ignore_ascii_case(b"chunked") {
                return None;
            }
            chunked = true;
        }
    }
    match (length, chunked) {
        (Some(_), true) => None,
        (_, true) => Some((Body::Chunks, rest)),
        (length, false) => Some((Body::Bytes(length.unwrap_or(0)), rest)),
    }
}

fn chunks(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let (size, after) = line(rest)?;
        let digits = size.split(|byte| matches!(byte, b';' | b' ' | b'\t')).next()?;
        let digits = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        let size = usize::from_str_radix(digits, 16).ok()?;
        if size == 0 {
            rest = after;
            break;
        }
        rest = after.get(size..)?.strip_prefix(b"\r\n")?;
    }
    loop {
        let (field, after) = line(rest)?;
        rest = after;
        if field.is_empty() {
            return Some(rest);
        }
    }
}

#[test]
fn the_strict_reader_knows_where_requests_end() {
    for (why, text, count) in [
        ("none", "", 0),
        ("half a head", "GET / HTTP/1.1\r\nHost: a\r\n", 0),
        ("two", "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n", 2),
        ("a body is no request", "POST / HTTP/1.1\r\nContent-Length: 18\r\n\r\nGET / HTTP/1.1\r\n\r\n", 1),
        (
            "nor are chunks",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n12\r\nGET / HTTP/1.1\r\n\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            2,
        ),
        ("two lengths", "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", 0),
        ("both", "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0),
        ("a bare line feed", "GET / HTTP/1.1\nHost: a\r\n\r\n", 0),
    ] {
        assert_eq!(requests(text.as_bytes()), count, "{why}");
    }
}
