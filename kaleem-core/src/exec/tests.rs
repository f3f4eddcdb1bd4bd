//! What a child process may and may not do, told by real ones.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use super::*;

fn shell(script: &str) -> ExecRequest {
    ExecRequest {
        program: PathBuf::from("/bin/sh"),
        arguments: vec!["-c".to_owned(), script.to_owned()],
        environment: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        stdin: None,
        directory: None,
        timeout: Duration::from_secs(20),
        max_output_bytes: 1024,
    }
}

/// Whether a process exists and is no zombie.
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// Whether a process exists in any form, zombies included.
fn is_known(pid: &str) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

async fn wait_until(why: &str, condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came true: {why}");
}

#[tokio::test]
async fn outputs_status_and_input_come_through() {
    let mut request = shell("cat; echo oops >&2; exit 7");
    request.stdin = Some(Secret::new(b"hello".to_vec()));
    let result = run(&request).await.unwrap();
    assert_eq!(result.status.code(), Some(7));
    assert_eq!((result.stdout.as_slice(), result.stderr.as_slice()), (&b"hello"[..], &b"oops\n"[..]));
    assert!(!result.truncated);
}

#[tokio::test]
async fn nothing_of_our_environment_is_inherited() {
    let mut request = shell("env");
    request.environment.insert("ONLY".to_owned(), "this".to_owned());
    let result = run(&request).await.unwrap();
    let text = String::from_utf8(result.stdout).unwrap();
    let names: Vec<_> = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    // The shell sets PWD, SHLVL, OLDPWD and _ itself.
    let foreign: Vec<_> = names.iter().filter(|name| !["PATH", "ONLY", "PWD", "SHLVL", "OLDPWD", "_"].contains(name)).collect();
    assert!(foreign.is_empty() && names.contains(&"ONLY"), "{names:?}");
}

#[tokio::test]
async fn a_name_is_looked_for_in_the_path_that_was_given() {
    let mut request = shell("");
    request.program = PathBuf::from("sh");
    assert!(run(&request).await.unwrap().status.success());
    request.environment.insert("PATH".to_owned(), "/nowhere".to_owned());
    assert!(matches!(run(&request).await, Err(ExecError::NotFound { .. })), "PATH of this process must not be used");
}

#[tokio::test]
async fn large_input_to_a_program_that_talks_first_does_not_hang() {
    let mut request = shell("head -c 300000 /dev/zero; cat");
    request.stdin = Some(Secret::new(vec![b'x'; 300_000]));
    request.max_output_bytes = 1_000_000;
    let result = run(&request).await.unwrap();
    assert_eq!((result.stdout.len(), result.truncated), (600_000, false));
}

#[tokio::test]
async fn a_program_that_does_not_read_its_input_is_no_error() {
    let mut request = shell("exit 0");
    request.stdin = Some(Secret::new(vec![b'x'; 300_000]));
    assert!(run(&request).await.unwrap().status.success());
}

#[tokio::test]
async fn output_beyond_the_limit_is_dropped_and_said() {
    let result = run(&shell("head -c 5000000 /dev/zero; echo end >&2")).await.unwrap();
    assert!(result.truncated && result.status.success());
    assert_eq!((result.stdout.len(), result.stderr.as_slice()), (1024, &b"end\n"[..]));
}

#[tokio::test]
async fn a_timeout_kills_the_whole_family_and_leaves_no_zombie() {
    let directory = tempfile::tempdir().unwrap();
    let mut request = shell("echo $$ >leader; sleep 1000 & echo $! >child; wait");
    request.directory = Some(directory.path().to_owned());
    request.timeout = Duration::from_millis(500);
    let error = run(&request).await.unwrap_err();
    assert!(matches!(error, ExecError::TimedOut { .. }), "{error:?}");
    let pid = |name| std::fs::read_to_string(directory.path().join(name)).unwrap().trim().to_owned();
    assert!(!is_known(&pid("leader")), "the leader was collected");
    let child = pid("child");
    wait_until("the descendant is gone", || !is_alive(&child)).await;
}

#[tokio::test]
async fn a_dropped_run_kills_the_whole_family() {
    let directory = tempfile::tempdir().unwrap();
    let mut request = shell("sleep 1000 & echo $! >child.new; mv child.new child; wait");
    request.directory = Some(directory.path().to_owned());
    let file = directory.path().join("child");
    {
        let running = run(&request);
        tokio::pin!(running);
        tokio::select! {
            result = &mut running => panic!("ended by itself: {result:?}"),
            () = wait_until("the descendant started", || file.exists()) => (),
        }
    }
    let child = std::fs::read_to_string(file).unwrap().trim().to_owned();
    wait_until("the descendant is gone", || !is_alive(&child)).await;
}

#[tokio::test]
async fn a_descendant_that_holds_the_output_does_not_hold_the_caller() {
    let mut request = shell("sleep 1000 & echo $!");
    request.timeout = Duration::from_secs(30);
    let result = run(&request).await.unwrap();
    assert!(result.status.success());
    let child = String::from_utf8(result.stdout).unwrap().trim().to_owned();
    wait_until("the descendant is gone", || !is_alive(&child)).await;
}

#[tokio::test]
async fn death_by_signal_is_a_status() {
    let result = run(&shell("kill -9 $$")).await.unwrap();
    assert_eq!((result.status.code(), result.status.signal()), (None, Some(9)));
}

#[tokio::test]
async fn lines_come_one_by_one_and_long_ones_are_cut() {
    let mut request = shell("printf 'a\\r\\nb\\n\\nlong-long-line\\nlast'; printf 'err\\n' >&2");
    request.max_output_bytes = 8;
    let mut lines = Vec::new();
    let status = run_streaming(&request, |stream, line| lines.push((stream, line.to_owned()))).await.unwrap();
    assert!(status.success());
    let of = |wanted| lines.iter().filter(|(stream, _)| *stream == wanted).map(|(_, line)| line.as_str()).collect::<Vec<_>>();
    assert_eq!(of(OutputStream::Stdout), ["a", "b", "", "long-lon", "last"]);
    assert_eq!(of(OutputStream::Stderr), ["err"]);
}

#[tokio::test]
async fn debug_shows_no_input_no_output_and_no_environment_value() {
    let mut request = shell("printf s3cret-out");
    request.environment.insert("TOKEN".to_owned(), "s3cret-env".to_owned());
    request.stdin = Some(Secret::new(b"s3cret-in".to_vec()));
    let result = run(&request).await.unwrap();
    assert_eq!(result.stdout, b"s3cret-out");
    let shown = format!("{request:?} {result:?}").replace("printf s3cret-out", "");
    assert!(!shown.contains("s3cret") && shown.contains("TOKEN"), "{shown}");
    assert!(!shown.contains(&format!("{:?}", b"s3cret-in")), "{shown}");
}

#[tokio::test]
async fn every_error_says_what_and_what_to_do() {
    let error = |kind| io::Error::from(kind);
    let program = PathBuf::from("docker-credential-x");
    let mut directory = shell("");
    directory.directory = Some(PathBuf::from("/nowhere"));
    let mut absent = shell("");
    absent.program = PathBuf::from("/nowhere/x");
    let mut start = shell("");
    start.program = PathBuf::from("/etc/passwd");
    let mut text = String::new();
    for error in [
        run(&absent).await.unwrap_err(),
        run(&directory).await.unwrap_err(),
        run(&start).await.unwrap_err(),
        ExecError::Broken { program: program.clone(), source: error(io::ErrorKind::ConnectionReset) },
        ExecError::TimedOut { program, timeout: Duration::from_millis(1500) },
    ] {
        text = format!("{text}{}\n  help: {}\n", crate::remedy::one_line(&error), error.remedy());
    }
    insta::assert_snapshot!(text, @r#"
there is no program `/nowhere/x`
  help: install `/nowhere/x`, or put its directory on PATH
could not enter /nowhere to run `/bin/sh`: No such file or directory (os error 2)
  help: check that /nowhere is a directory which this user may enter
could not start `/etc/passwd`: Permission denied (os error 13)
  help: check that `/etc/passwd` is a program which this user may run
lost touch with `docker-credential-x`: connection reset
  help: run `docker-credential-x` by hand to see what it does
`docker-credential-x` did not end within 1.5 s and was killed
  help: run `docker-credential-x` by hand to see what it waits for, or allow it more time
"#);
}
