//! A stand-in for a Qdrant server: exactly the endpoints that backups use, strict about everything that real ones are.
//!
//! Snapshots are made, listed, fetched, loaded and removed as there; what is in them is ours.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::http_server::{Head, converse_with_all, read_head};

/// What goes wrong from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A snapshot that is fetched ends in the middle.
    CutFetch,
    /// One bit of it is another.
    FlipFetch,
    /// A snapshot is loaded without its last point.
    LosePoint,
    /// Nothing is answered to an upload.
    HangUpload,
    /// Every question is answered with 500.
    Fail,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Collection {
    pub(crate) config: Value,
    pub(crate) points: Vec<u64>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) collections: BTreeMap<String, Collection>,
    pub(crate) aliases: BTreeMap<String, String>,
    pub(crate) snapshots: BTreeMap<(String, String), Vec<u8>>,
    pub(crate) fault: Option<Fault>,
    /// A point that is added to a collection while its snapshot is fetched.
    pub(crate) writer: bool,
    pub(crate) asked: Vec<String>,
    made: u64,
}

/// A server until the end of the process.
#[derive(Clone)]
pub(crate) struct StandIn {
    pub(crate) port: u16,
    pub(crate) state: Arc<Mutex<State>>,
}

pub(crate) const KEY: &str = "hunter2-key";

impl StandIn {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { port: listener.local_addr().unwrap().port(), state: Arc::default() };
        let serving = server.clone();
        converse_with_all(listener, move |stream| serving.converse(stream));
        server
    }

    pub(crate) fn collection(&self, name: &str, size: u64, points: u64) {
        let config =
            json!({ "params": { "vectors": { "size": size, "distance": "Cosine" }, "shard_number": 1 }, "hnsw_config": { "m": 16 } });
        self.state.lock().unwrap().collections.insert(name.to_owned(), Collection { config, points: (0..points).collect() });
    }

    fn converse(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut writer = stream;
        while let Some(Head { method, target, headers }) = read_head(&mut reader)? {
            let mut body = Vec::new();
            if headers.get("transfer-encoding").is_some_and(|value| value == "chunked") {
                loop {
                    let mut line = String::new();
                    if reader.read_line(&mut line)? == 0 {
                        return Ok(());
                    }
                    let length = u64::from_str_radix(line.trim(), 16).unwrap_or(0);
                    reader.by_ref().take(length).read_to_end(&mut body)?;
                    reader.read_line(&mut String::new())?;
                    if length == 0 {
                        break;
                    }
                }
            } else if let Some(length) = headers.get("content-length") {
                let length: u64 = length.parse().unwrap();
                reader.by_ref().take(length).read_to_end(&mut body)?;
                // A body that is cut is no request.
                if body.len() as u64 != length {
                    return Ok(());
                }
            }
            self.state.lock().unwrap().asked.push(format!("{method} {target}"));
            if headers.get("api-key").is_none_or(|key| key != KEY) {
                answer(&mut writer, 401, b"Must provide an API key or an Authorization bearer token")?;
                continue;
            }
            let fault = self.state.lock().unwrap().fault;
            if fault == Some(Fault::Fail) {
                answer(&mut writer, 500, br#"{"status":{"error":"Service internal error: no space left"},"time":0.1}"#)?;
                continue;
            }
            if target.contains("/snapshots/upload") && fault == Some(Fault::HangUpload) {
                // Until the other side goes away.
                reader.read_line(&mut String::new())?;
                return Ok(());
            }
            match self.answer(&method, &target, &headers, &body) {
                Answer::Result(value) => {
                    answer(&mut writer, 200, json!({ "result": value, "status": "ok", "time": 0.001 }).to_string().as_bytes())?;
                }
                Answer::Plain(value) => answer(&mut writer, 200, value.to_string().as_bytes())?,
                Answer::Refusal(status, reason) => {
                    answer(&mut writer, status, json!({ "status": { "error": reason }, "time": 0.001 }).to_string().as_bytes())?;
                }
                Answer::File(mut bytes) => match fault {
                    Some(Fault::CutFetch) => {
                        write!(writer, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", bytes.len())?;
                        writer.write_all(&bytes[..bytes.len() / 2])?;
                        return Ok(());
                    }
                    Some(Fault::FlipFetch) => {
                        let middle = bytes.len() / 2;
                        bytes[middle] ^= 1;
                        answer(&mut writer, 200, &bytes)?;
                    }
                    _ => answer(&mut writer, 200, &bytes)?,
                },
            }
        }
        Ok(())
    }

    fn answer(&self, method: &str, target: &str, headers: &BTreeMap<String, String>, body: &[u8]) -> Answer {
        let mut state = self.state.lock().unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let decoded: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(decode).collect();
        let parts: Vec<&str> = decoded.iter().map(String::as_str).collect();
        let json: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let unknown = |name: &str| Answer::Refusal(404, format!("Not found: Collection `{name}` doesn't exist!"));
        match (method, parts.as_slice()) {
            ("GET", []) => Answer::Plain(json!({ "title": "qdrant - vector search engine", "version": "1.12.0" })),
            ("GET", ["collections"]) => {
                let names: Vec<Value> = state.collections.keys().map(|name| json!({ "name": name })).collect();
                Answer::Result(json!({ "collections": names }))
            }
            ("GET", ["aliases"]) => {
                let all: Vec<Value> =
                    state.aliases.iter().map(|(alias, of)| json!({ "alias_name": alias, "collection_name": of })).collect();
                Answer::Result(json!({ "aliases": all }))
            }
            ("POST", ["collections", "aliases"]) => {
                let mut aliases = state.aliases.clone();
                for action in json["actions"].as_array().cloned().unwrap_or_default() {
                    let text = |kind: &str, field: &str| action[kind][field].as_str().map(str::to_owned);
                    if let Some(alias) = text("delete_alias", "alias_name") {
                        aliases.remove(&alias);
                    } else if let (Some(alias), Some(of)) = (text("create_alias", "alias_name"), text("create_alias", "collection_name")) {
                        if !state.collections.contains_key(&of) {
                            return unknown(&of);
                        }
                        aliases.insert(alias, of);
                    } else {
                        return Answer::Refusal(400, "Format error in JSON body".to_owned());
                    }
                }
                state.aliases = aliases;
                Answer::Result(json!(true))
            }
            ("GET", ["collections", name]) => match state.collections.get(*name) {
                Some(found) => Answer::Result(json!({ "status": "green", "points_count": 0, "config": found.config })),
                None => unknown(name),
            },
            ("DELETE", ["collections", name]) => {
                let was = state.collections.remove(*name).is_some();
                state.aliases.retain(|_, of| of != name);
                Answer::Result(json!(was))
            }
            ("POST", ["collections", name, "points", "count"]) => match state.collections.get(*name) {
                _ if json["exact"] != json!(true) => Answer::Refusal(400, "the stand-in counts exactly only".to_owned()),
                Some(found) => Answer::Result(json!({ "count": found.points.len() })),
                None => unknown(name),
            },
            ("POST", ["collections", name, "snapshots"]) => {
                let Some(found) = state.collections.get(*name).cloned() else { return unknown(name) };
                let bytes = pack(&found);
                state.made += 1;
                let snapshot = format!("{name}-{}.snapshot", state.made);
                let told = json!({ "name": snapshot, "size": bytes.len(), "checksum": hex::encode(Sha256::digest(&bytes)) });
                state.snapshots.insert(((*name).to_owned(), snapshot), bytes);
                Answer::Result(told)
            }
            ("GET", ["collections", name, "snapshots", snapshot]) => {
                let found = state.snapshots.get(&((*name).to_owned(), (*snapshot).to_owned())).cloned();
                if state.writer
                    && let Some(collection) = state.collections.get_mut(*name)
                {
                    collection.points.push(999_999);
                }
                found.map_or_else(|| Answer::Refusal(404, "Snapshot not found".to_owned()), Answer::File)
            }
            ("DELETE", ["collections", name, "snapshots", snapshot]) => {
                match state.snapshots.remove(&((*name).to_owned(), (*snapshot).to_owned())) {
                    Some(_) => Answer::Result(json!(true)),
                    None => Answer::Refusal(404, "Snapshot not found".to_owned()),
                }
            }
            ("POST", ["collections", name, "snapshots", "upload"]) => {
                let Some(file) = multipart(headers.get("content-type").map_or("", String::as_str), body) else {
                    return Answer::Refusal(400, "Content type error".to_owned());
                };
                // With any other priority, what the replica has wins.
                if !query.split('&').any(|pair| pair == "priority=snapshot") {
                    return Answer::Refusal(400, "the stand-in wants priority=snapshot".to_owned());
                }
                let Some(mut loaded) = unpack(&file) else {
                    return Answer::Refusal(500, "Service internal error: the snapshot is damaged".to_owned());
                };
                if state.fault == Some(Fault::LosePoint) {
                    loaded.points.pop();
                }
                state.collections.insert((*name).to_owned(), loaded);
                Answer::Result(json!(true))
            }
            _ => Answer::Refusal(404, format!("the stand-in has no {method} {path}")),
        }
    }
}

enum Answer {
    Result(Value),
    Plain(Value),
    Refusal(u16, String),
    File(Vec<u8>),
}

fn answer(writer: &mut TcpStream, status: u16, body: &[u8]) -> std::io::Result<()> {
    write!(writer, "HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n", body.len())?;
    writer.write_all(body)
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                bytes.push(u8::from_str_radix(&String::from_utf8(vec![rest.next().unwrap(), rest.next().unwrap()]).unwrap(), 16).unwrap());
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// Longer than a block, and not a whole number of them.
fn pack(collection: &Collection) -> Vec<u8> {
    let text = json!({ "config": collection.config, "points": collection.points }).to_string();
    let mut bytes = hex::encode(Sha256::digest(&text)).into_bytes();
    bytes.extend(text.into_bytes());
    bytes
}

fn unpack(bytes: &[u8]) -> Option<Collection> {
    let (sum, text) = bytes.split_at_checked(64)?;
    if hex::encode(Sha256::digest(text)).as_bytes() != sum {
        return None;
    }
    let value: Value = serde_json::from_slice(text).ok()?;
    let points = value["points"].as_array()?.iter().map(|point| point.as_u64().unwrap()).collect();
    Some(Collection { config: value["config"].clone(), points })
}

/// The part `snapshot` of a body of several.
fn multipart(content_type: &str, body: &[u8]) -> Option<Vec<u8>> {
    let boundary = content_type.strip_prefix("multipart/form-data; boundary=")?;
    let rest = body.strip_prefix(format!("--{boundary}\r\n").as_bytes())?;
    let end = rest.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8(rest[..end].to_vec()).ok()?;
    if !head.contains("name=\"snapshot\"") || !head.contains("filename=") {
        return None;
    }
    rest[end + 4..].strip_suffix(format!("\r\n--{boundary}--\r\n").as_bytes()).map(<[u8]>::to_vec)
}
