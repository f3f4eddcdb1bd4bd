//! Fields of an answer that say how long it is, and those that come after it.

use std::io;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::{MOST_FIELDS, wrong};

/// What `Content-Length` says. Several that agree are made one.
pub(super) fn length(headers: &mut HeaderMap) -> io::Result<Option<u64>> {
    let disagree = || wrong("the answer has no length that can be read in one way alone");
    let (mut found, mut several) = (None, false);
    for value in headers.get_all(header::CONTENT_LENGTH) {
        for digits in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
            let number = std::str::from_utf8(digits).ok().filter(|_| is_number).and_then(|digits| digits.parse::<u64>().ok());
            several |= found.is_some();
            match (found, number) {
                (_, None) => return Err(disagree()),
                (Some(before), Some(number)) if before != number => return Err(disagree()),
                (_, Some(number)) => found = Some(number),
            }
        }
    }
    if let (Some(length), true) = (found, several) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(found)
}

/// The fields after the last chunk, with their empty line; `None` for none.
pub(super) fn read_trailers(bytes: &[u8]) -> io::Result<Option<HeaderMap>> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let unreadable = || wrong("the fields after the last chunk cannot be read");
    let httparse::Status::Complete((_, found)) = httparse::parse_headers(bytes, &mut fields).map_err(|_| unreadable())? else {
        return Err(unreadable());
    };
    let mut trailers = HeaderMap::with_capacity(found.len());
    for field in found {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| unreadable())?;
        trailers.append(name, HeaderValue::from_bytes(field.value).map_err(|_| unreadable())?);
    }
    Ok(Some(trailers).filter(|trailers| !trailers.is_empty()))
}
