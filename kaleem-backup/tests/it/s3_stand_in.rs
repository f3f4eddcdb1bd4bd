//! A service that speaks as S3, in every bad habit that real ones have: strict about requests, wrong about answers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::http_server::{Head, converse_with_all, read_head};

/// What goes wrong from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// That many requests are turned away with this status and code.
    TurnAway(u32, u16, &'static str),
    /// The answer to that many writes is lost after they were carried out.
    LoseAnswers(u32),
    /// That many reads end in the middle.
    CutReads(u32),
    /// Every read ends before its first byte.
    EndReads,
    /// Objects are acknowledged and not kept.
    Forget,
    /// Objects are kept without their last byte.
    CutShort,
    /// The second page of a listing never comes.
    NoSecondPage,
    /// Every page of a listing is the first.
    SamePage,
    /// A listing says that it goes on, and not where.
    NoToken,
    /// Completing begins well and ends with an error.
    CompleteFailsLate,
    /// Keys are refused.
    Forbidden,
}

/// What a service knows of conditions and parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Everything.
    Full,
    /// Conditions for small objects alone; parts must be equal.
    EqualParts,
    /// Conditions are not looked at.
    Deaf,
    /// Conditions are answered with 501.
    Unknowing,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Object {
    pub(crate) bytes: Vec<u8>,
    meta: BTreeMap<String, String>,
}

struct Upload {
    key: String,
    meta: BTreeMap<String, String>,
    parts: BTreeMap<u16, Vec<u8>>,
}

pub(crate) struct State {
    pub(crate) objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, Upload>,
    pub(crate) fault: Option<Fault>,
    dialect: Dialect,
    pub(crate) asked: Vec<String>,
    /// What a request should not have been.
    pub(crate) complaints: BTreeSet<String>,
    made: u64,
}

#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) port: u16,
    pub(crate) state: Arc<Mutex<State>>,
}

struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

const LEAST_PART: usize = 5 * 1024 * 1024;
const PAGE: usize = 7;
const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

fn plain(status: u16, body: impl Into<Vec<u8>>) -> Answer {
    Answer { status, headers: Vec::new(), body: body.into() }
}

fn refusal(status: u16, code: &str) -> Answer {
    plain(status, format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>hunter2 in a message</Message></Error>"))
}

impl Service {
    pub(crate) fn start(dialect: Dialect) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let state = State {
            objects: BTreeMap::new(),
            uploads: BTreeMap::new(),
            fault: None,
            dialect,
            asked: Vec::new(),
            complaints: BTreeSet::new(),
            made: 0,
        };
        let service = Self { port: listener.local_addr().unwrap().port(), state: Arc::new(Mutex::new(state)) };
        let serving = service.clone();
        converse_with_all(listener, move |stream| serving.converse(stream));
        service
    }

    pub(crate) fn break_with(&self, fault: Option<Fault>) {
        self.state.lock().unwrap().fault = fault;
    }

    /// Parts that nobody completed or gave up.
    pub(crate) fn left_over(&self) -> usize {
        self.state.lock().unwrap().uploads.len()
    }

    fn converse(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut writer = stream;
        while let Some(request) = read(&mut reader)? {
            let head = request.method == "HEAD";
            let reads = request.method == "GET" && request.path.matches('/').count() > 1;
            let writes = matches!(request.method.as_str(), "PUT" | "POST");
            let turned_away = {
                let mut state = self.state.lock().unwrap();
                state.asked.push(format!("{} {}", request.method, request.path));
                match state.fault {
                    Some(Fault::TurnAway(left, status, code)) => {
                        state.fault = (left > 1).then_some(Fault::TurnAway(left - 1, status, code));
                        Some(refusal(status, code))
                    }
                    Some(Fault::Forbidden) => Some(refusal(403, "SignatureDoesNotMatch")),
                    _ => None,
                }
            };
            let answer = turned_away.unwrap_or_else(|| self.answer(&request));
            let mut body = answer.body;
            let mut cut = None;
            {
                let mut state = self.state.lock().unwrap();
                match state.fault {
                    Some(Fault::LoseAnswers(left)) if writes => {
                        state.fault = (left > 1).then_some(Fault::LoseAnswers(left - 1));
                        return Ok(());
                    }
                    Some(Fault::CutReads(left)) if reads && answer.status < 300 => {
                        state.fault = (left > 1).then_some(Fault::CutReads(left - 1));
                        cut = Some(body.len() / 2);
                    }
                    Some(Fault::EndReads) if reads && answer.status < 300 => cut = Some(0),
                    _ => (),
                }
            }
            write!(writer, "HTTP/1.1 {} x\r\n", answer.status)?;
            for (name, value) in answer.headers {
                write!(writer, "{name}: {value}\r\n")?;
            }
            if !head {
                write!(writer, "content-length: {}\r\n", body.len())?;
            }
            write!(writer, "\r\n")?;
            if let Some(cut) = cut {
                body.truncate(cut);
                writer.write_all(&body)?;
                return Ok(());
            }
            if !head {
                writer.write_all(&body)?;
            }
        }
        Ok(())
    }

    fn answer(&self, request: &Request) -> Answer {
        let mut state = self.state.lock().unwrap();
        let Some(key) = request.path.strip_prefix("/bucket") else { return refusal(404, "NoSuchBucket") };
        let key = key.trim_start_matches('/').to_owned();
        if !request.query.contains_key("X-Amz-Signature") {
            state.complaints.insert(format!("{} {} is not signed", request.method, request.path));
        }
        let signed = request.query.get("X-Amz-SignedHeaders").cloned().unwrap_or_default();
        for name in request.headers.keys().filter(|name| name.starts_with("x-amz-")) {
            if !signed.split(';').any(|one| one == name) {
                state.complaints.insert(format!("{name} is not signed"));
            }
        }
        if matches!(request.method.as_str(), "PUT" | "POST") && !request.headers.contains_key("content-length") {
            return refusal(411, "MissingContentLength");
        }
        let conditional = request.headers.get("if-none-match").is_some_and(|value| value == "*");
        let meta: BTreeMap<String, String> = request
            .headers
            .iter()
            .filter(|(name, _)| name.starts_with("x-amz-meta-"))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let tag = |bytes: &[u8]| format!("\"{:016x}\"", bytes.iter().fold(7_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte)));
        match (request.method.as_str(), key.as_str()) {
            ("GET", "") => list(&mut state, request),
            ("HEAD" | "GET", _) => {
                let Some(object) = state.objects.get(&key) else { return refusal(404, "NoSuchKey") };
                let etag = tag(&object.bytes);
                let mut headers: Vec<(String, String)> = object.meta.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
                headers.push(("etag".to_owned(), etag.clone()));
                if request.method == "HEAD" {
                    headers.push(("content-length".to_owned(), object.bytes.len().to_string()));
                    return Answer { status: 200, headers, body: Vec::new() };
                }
                if request.headers.get("if-match").is_some_and(|wanted| *wanted != etag) {
                    return refusal(412, "PreconditionFailed");
                }
                if let Some(from) =
                    request.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok())
                {
                    let length = object.bytes.len();
                    headers.push(("content-range".to_owned(), format!("bytes {from}-{}/{length}", length - 1)));
                    return Answer { status: 206, headers, body: object.bytes[from..].to_vec() };
                }
                Answer { status: 200, headers, body: object.bytes.clone() }
            }
            ("PUT", _) if request.query.contains_key("partNumber") => {
                let number: u16 = request.query["partNumber"].parse().unwrap();
                let Some(upload) = state.uploads.get_mut(&request.query["uploadId"]) else { return refusal(404, "NoSuchUpload") };
                upload.parts.insert(number, request.body.clone());
                Answer { status: 200, headers: vec![("etag".to_owned(), tag(&request.body))], body: Vec::new() }
            }
            ("PUT", _) => {
                if let Some(refused) = condition(&state, conditional, &key, true) {
                    return refused;
                }
                keep(&mut state, &key, Object { bytes: request.body.clone(), meta });
                Answer { status: 200, headers: vec![("etag".to_owned(), tag(&request.body))], body: Vec::new() }
            }
            ("DELETE", _) => {
                match request.query.get("uploadId") {
                    Some(upload) => drop(state.uploads.remove(upload)),
                    None => drop(state.objects.remove(&key)),
                }
                plain(204, "")
            }
            ("POST", _) if request.query.contains_key("uploads") => {
                state.made += 1;
                let upload = format!("upload-{}", state.made);
                state.uploads.insert(upload.clone(), Upload { key: key.clone(), meta, parts: BTreeMap::new() });
                plain(
                    200,
                    format!(
                        "<InitiateMultipartUploadResult xmlns=\"{NAMESPACE}\"><Bucket>bucket</Bucket><Key>{key}</Key><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
                    ),
                )
            }
            ("POST", _) => {
                let upload = request.query.get("uploadId").cloned().unwrap_or_default();
                if state.fault == Some(Fault::CompleteFailsLate) {
                    return refusal(200, "InternalError");
                }
                if !state.uploads.contains_key(&upload) {
                    return refusal(404, "NoSuchUpload");
                }
                if let Some(refused) = condition(&state, conditional, &key, false) {
                    return refused;
                }
                let lengths: Vec<usize> = state.uploads[&upload].parts.values().map(Vec::len).collect();
                let (last, others) = lengths.split_last().unwrap();
                if others.iter().any(|length| *length < LEAST_PART) {
                    return refusal(400, "EntityTooSmall");
                }
                let equal = others.windows(2).all(|pair| pair[0] == pair[1]) && others.first().is_none_or(|first| last <= first);
                if state.dialect == Dialect::EqualParts && !equal {
                    return refusal(400, "InvalidPart");
                }
                let Some(Upload { key, meta, parts }) = state.uploads.remove(&upload) else { return refusal(404, "NoSuchUpload") };
                let named = String::from_utf8_lossy(&request.body).matches("<PartNumber>").count();
                if named != parts.len() {
                    return refusal(400, "InvalidPart");
                }
                let bytes: Vec<u8> = parts.into_values().flatten().collect();
                let etag = tag(&bytes);
                keep(&mut state, &key, Object { bytes, meta });
                plain(
                    200,
                    format!(
                        "<CompleteMultipartUploadResult xmlns=\"{NAMESPACE}\"><Key>{key}</Key><ETag>{etag}</ETag></CompleteMultipartUploadResult>"
                    ),
                )
            }
            _ => refusal(405, "MethodNotAllowed"),
        }
    }
}

fn condition(state: &State, conditional: bool, key: &str, small: bool) -> Option<Answer> {
    let known = match state.dialect {
        Dialect::Full => true,
        Dialect::EqualParts if small => true,
        Dialect::EqualParts | Dialect::Unknowing => return conditional.then(|| refusal(501, "NotImplemented")),
        Dialect::Deaf => false,
    };
    (conditional && known && state.objects.contains_key(key)).then(|| refusal(412, "PreconditionFailed"))
}

fn keep(state: &mut State, key: &str, mut object: Object) {
    // What is tried out is not what is lost.
    let tried = key.contains("probe-");
    match state.fault {
        Some(Fault::Forget) if !tried => return,
        Some(Fault::CutShort) if !tried => drop(object.bytes.pop()),
        _ => (),
    }
    state.objects.insert(key.to_owned(), object);
}

fn list(state: &mut State, request: &Request) -> Answer {
    let prefix = request.query.get("prefix").cloned().unwrap_or_default();
    let token = request.query.get("continuation-token").cloned();
    let after = match (&token, state.fault) {
        (Some(_), Some(Fault::NoSecondPage)) => return refusal(503, "ServiceUnavailable"),
        (_, Some(Fault::SamePage)) => String::new(),
        (token, _) => token.clone().unwrap_or_default(),
    };
    let keys: Vec<(&String, usize)> = state
        .objects
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix) && **key > after)
        .map(|(key, object)| (key, object.bytes.len()))
        .collect();
    let page = &keys[..keys.len().min(PAGE)];
    let more = keys.len() > PAGE;
    let mut body = format!(
        "<ListBucketResult xmlns=\"{NAMESPACE}\"><Name>bucket</Name><EncodingType>url</EncodingType><IsTruncated>{more}</IsTruncated>"
    );
    for (key, size) in page {
        body += &format!("<Contents><Key>{key}</Key><Size>{size}</Size></Contents>");
    }
    if more && state.fault != Some(Fault::NoToken) {
        body += &format!("<NextContinuationToken>{}</NextContinuationToken>", page.last().unwrap().0);
    }
    plain(200, body + "</ListBucketResult>")
}

fn read(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let Some(Head { method, target, headers }) = read_head(reader)? else { return Ok(None) };
    let length: u64 = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    if body.len() as u64 != length {
        return Ok(None);
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let decoded = |text: &str| text.replace("%2F", "/").replace("%3B", ";");
    let query = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (name.to_owned(), decoded(value)))
        .collect();
    Ok(Some(Request { method, path: path.to_owned(), query, headers, body }))
}
