//! Engines that are not there, not allowed, too old, or no engines at all.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kaleem_core::remedy::{Remedy as _, one_line};
use kaleem_core::runtime::docker::{DockerOptions, DockerRuntime};
use kaleem_core::runtime::{Inspect as _, RuntimeError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use super::lab::options;

/// What a socket answers to every request.
#[derive(Clone)]
enum Answer {
    Text(String),
    Hangup,
    Silence,
}

/// A socket that pretends to be an engine, and the first lines of what it was asked.
struct Pretender {
    _directory: tempfile::TempDir,
    path: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
}

fn json(body: &str) -> Answer {
    Answer::Text(format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

fn pretend(answer: Answer) -> Pretender {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("docker.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (answer, seen) = (answer.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                let mut buffer = vec![0; 4096];
                let count = stream.read(&mut buffer).await.unwrap_or(0);
                let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
                seen.lock().unwrap().push(text.lines().next().unwrap_or_default().to_owned());
                match answer {
                    Answer::Text(text) => stream.write_all(text.as_bytes()).await.unwrap_or_default(),
                    Answer::Hangup => {}
                    Answer::Silence => std::future::pending().await,
                }
            });
        }
    });
    Pretender { _directory: directory, path, asked }
}

fn at(path: &Path, answer_timeout: Duration) -> DockerOptions {
    DockerOptions { answer_timeout, ..options(Some(&format!("unix://{}", path.display()))) }
}

#[tokio::test]
async fn an_engine_that_does_not_run_is_unreachable_and_the_error_says_where() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("docker.sock");
    let left_behind = directory.path().join("old.sock");
    drop(std::os::unix::net::UnixListener::bind(&left_behind).unwrap());
    for (why, path) in [("no socket", &missing), ("a socket that nobody listens on", &left_behind)] {
        let error = DockerRuntime::connect(&at(path, Duration::from_secs(5))).await.unwrap_err();
        assert!(matches!(error, RuntimeError::Unreachable { .. }), "{why}: {error:?}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{why}: {error}");
        assert!(error.is_transient(), "{why}");
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_used_is_refused_before_anything_is_asked() {
    for endpoint in ["ssh://me@host", "tcp://host:2376", "https://host:1", "npipe:////./pipe/x", "host:2375"] {
        let error = DockerRuntime::connect(&options(Some(endpoint))).await.unwrap_err();
        assert!(matches!(error, RuntimeError::BadEndpoint { .. }), "{endpoint}: {error:?}");
    }
}

#[tokio::test]
async fn the_socket_of_a_rootless_engine_is_taken_where_nothing_else_is_named() {
    let pretender = pretend(json(r#"{"ApiVersion":"1.30","MinAPIVersion":"1.12"}"#));
    let mut options = options(None);
    options.rootless_socket = Some(pretender.path.clone());
    let answer = DockerRuntime::connect(&options).await;
    let default_exists = Path::new(kaleem_core::runtime::docker::DEFAULT_SOCKET).exists();
    assert_eq!(pretender.asked.lock().unwrap().is_empty(), default_exists, "{answer:?}");
}

#[tokio::test]
async fn an_engine_that_is_too_old_is_refused_by_name() {
    let pretender = pretend(json(r#"{"Version":"19.03","ApiVersion":"1.40","MinAPIVersion":"1.12"}"#));
    let error = DockerRuntime::connect(&at(&pretender.path, Duration::from_secs(5))).await.unwrap_err();
    assert!(matches!(&error, RuntimeError::TooOld { found, needed: "1.41" } if found == "1.40"), "{error:?}");
}

#[tokio::test]
async fn the_version_that_was_agreed_on_stands_in_every_request() {
    for (why, newest, least, wanted) in [
        ("as old as can be", "1.41", "1.12", "/v1.41/"),
        ("newer than this was written for", "1.60", "1.44", "/v1.47/"),
        ("no longer speaks what this was written for", "1.60", "1.50", "/v1.50/"),
    ] {
        let pretender = pretend(json(&format!(r#"{{"ApiVersion":"{newest}","MinAPIVersion":"{least}"}}"#)));
        let runtime = DockerRuntime::connect(&at(&pretender.path, Duration::from_secs(5))).await.unwrap();
        runtime.inspect(&"api".parse().unwrap()).await.ok();
        let asked = pretender.asked.lock().unwrap().last().cloned().unwrap();
        assert!(asked.starts_with(&format!("GET {wanted}containers/api/json")), "{why}: {asked}");
    }
}

#[tokio::test]
async fn what_answers_nonsense_is_an_error_in_bounded_time_that_repeats_nothing_of_it() {
    let page = "<html><body>hunter2</body></html>";
    let html = Answer::Text(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{page}", page.len()));
    let half = Answer::Text("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"ApiVersion\":".to_owned());
    let no_end = Answer::Text("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned());
    for (why, answer) in [
        ("a page", html),
        ("half an answer", half),
        ("an answer without an end", no_end),
        ("another protocol", Answer::Text("220 mail.example.com ESMTP\r\n".to_owned())),
        ("no version", json("{}")),
        ("it hangs up", Answer::Hangup),
        ("it says nothing", Answer::Silence),
    ] {
        let pretender = pretend(answer);
        let options = at(&pretender.path, Duration::from_millis(300));
        let answer = tokio::time::timeout(Duration::from_secs(10), DockerRuntime::connect(&options)).await;
        let Ok(Err(error)) = answer else { panic!("{why}: {answer:?}") };
        assert!(matches!(error, RuntimeError::Broken { .. }), "{why}: {error:?}");
        assert!(!one_line(&error).contains("hunter2"), "{why}: {error:?}");
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_is_quoted_briefly() {
    let body = format!("<html>{}</html>", "forbidden ".repeat(1000));
    let refusal = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let pretender = pretend(Answer::Text(refusal));
    let error = DockerRuntime::connect(&at(&pretender.path, Duration::from_secs(5))).await.unwrap_err();
    assert!(matches!(&error, RuntimeError::Refused { status: 403, message, .. } if message.len() < 700), "{error:?}");
}
