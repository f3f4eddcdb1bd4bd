//! Durable files on real file systems: full ones, read-only ones, and those of other people.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kaleem_core::durable::{self, AppendFile, DurableError, FileOperation};
use kaleem_core::exec::{self, ExecRequest};
use kaleem_core::remedy::{Remedy, one_line};

fn mode_of(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Everything in a directory, leftovers included.
fn everything_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn with_umask<T>(umask: u32, act: impl FnOnce() -> T + Send) -> T
where
    T: Send,
{
    // The umask belongs to the whole process, unless a thread takes its own copy of it.
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                #[expect(unsafe_code, reason = "no other thread shares what this one stops sharing")]
                // SAFETY: only the file system attributes of this thread are parted from the others'.
                unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }.unwrap();
                rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
                act()
            })
            .join()
            .unwrap()
    })
}

#[test]
fn a_written_file_holds_the_new_bytes_and_exactly_the_mode_that_was_asked_for() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state");
    for umask in [0o000, 0o077, 0o777] {
        for (mode, bytes) in [(0o600, &b"one"[..]), (0o644, b"two"), (0o666, b"")] {
            with_umask(umask, || durable::write_atomic(&path, bytes, mode)).unwrap();
            assert_eq!(mode_of(&path), mode, "umask {umask:o}");
            assert_eq!(durable::read(&path).unwrap(), bytes);
        }
        let (new, log) = (home.path().join(format!("new{umask}")), home.path().join(format!("log{umask}")));
        with_umask(umask, || durable::create_new(&new, b"x")).unwrap();
        with_umask(umask, || AppendFile::open(&log)).unwrap();
        let directory = home.path().join(format!("a{umask}/b"));
        with_umask(umask, || durable::create_directory(&directory, 0o700)).unwrap();
        let modes = [mode_of(&new), mode_of(&log), mode_of(&directory), mode_of(directory.parent().unwrap())];
        assert_eq!(modes, [0o600, 0o600, 0o700, 0o700], "umask {umask:o}");
    }
    assert!(everything_in(home.path()).iter().all(|name| !name.starts_with('.')), "no temporary file is left");
}

#[test]
fn of_many_that_create_one_file_exactly_one_succeeds() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("lock");
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16_u8)
            .map(|who| {
                scope.spawn({
                    let path = &path;
                    move || (who, durable::create_new(path, &[who; 1000]))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let winners: Vec<_> = results.iter().filter(|(_, result)| result.is_ok()).map(|(who, _)| *who).collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    assert!(results.iter().all(|(_, result)| matches!(result, Ok(()) | Err(DurableError::Exists { .. }))), "{results:?}");
    assert_eq!(durable::read(&path).unwrap(), vec![winners[0]; 1000]);
    assert_eq!(everything_in(home.path()), ["lock"]);
}

#[test]
fn a_link_in_the_place_of_a_file_is_never_written_through() {
    let home = tempfile::tempdir().unwrap();
    let victim = home.path().join("victim");
    fs::copy("/etc/hostname", &victim).unwrap();
    let before = fs::read(&victim).unwrap();
    for (why, target) in
        [("to a file", victim.clone()), ("to nothing", home.path().join("nothing")), ("to a directory", home.path().to_owned())]
    {
        let path = home.path().join("state");
        symlink(&target, &path).unwrap();
        let written = durable::write_atomic(&path, b"new", 0o600);
        assert!(matches!(written, Err(DurableError::NotAFile { .. })), "{why}: {written:?}");
        let created = durable::create_new(&path, b"new");
        assert!(matches!(created, Err(DurableError::Exists { .. })), "{why}: {created:?}");
        let opened = AppendFile::open(&path);
        assert!(matches!(opened, Err(DurableError::NotAFile { .. })), "{why}: {opened:?}");
        assert_eq!(fs::read_link(&path).unwrap(), target, "{why}: the link itself stays");
        fs::remove_file(&path).unwrap();
    }
    assert_eq!(fs::read(&victim).unwrap(), before);
    assert_eq!(everything_in(home.path()), ["victim"]);
}

#[test]
fn what_is_no_plain_file_is_refused_without_waiting_for_it() {
    let home = tempfile::tempdir().unwrap();
    let pipe = home.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0).unwrap();
    for path in [pipe.as_path(), home.path(), Path::new("/dev/full")] {
        assert!(matches!(durable::read(path), Err(DurableError::NotAFile { .. })), "{path:?}");
        assert!(matches!(AppendFile::open(path), Err(DurableError::NotAFile { .. })), "{path:?}");
        assert!(matches!(durable::write_atomic(path, b"", 0o600), Err(DurableError::NotAFile { .. })), "{path:?}");
    }
}

#[test]
fn lines_are_appended_after_what_is_there_and_a_torn_end_can_be_cut() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("journal");
    let mut file = AppendFile::open(&path).unwrap();
    assert_eq!(file.length_bytes(), 0);
    file.append_line(b"one").unwrap();
    file.append_line(b"").unwrap();
    assert!(matches!(file.append_line(b"two\nthree"), Err(DurableError::LineBreak { .. })));
    file.append_line(b"two").unwrap();
    assert_eq!((durable::read(&path).unwrap(), file.length_bytes()), (b"one\n\ntwo\n".to_vec(), 9));
    let mut again = AppendFile::open(&path).unwrap();
    again.truncate_to(5).unwrap();
    again.append_line(b"2").unwrap();
    assert_eq!(durable::read(&path).unwrap(), b"one\n\n2\n");
    assert!(again.truncate_to(100).is_err(), "a file is never made longer with zeros");
    assert!(matches!(again.append_line(b"x"), Err(DurableError::Poisoned { .. })));
    assert_eq!(durable::read(&path).unwrap(), b"one\n\n2\n");
}

#[test]
fn an_added_line_is_read_at_once_and_is_on_disk_with_the_next_that_is_appended() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("journal");
    let kept = || durable::power::kept_bytes(&path);
    let mut file = AppendFile::open(&path).unwrap();
    assert_eq!(kept(), Some(0));
    file.add_line(b"one").unwrap();
    assert_eq!(
        (durable::read(&path).unwrap(), file.length_bytes(), kept()),
        (b"one\n".to_vec(), 4, Some(0)),
        "a loss of power may take it"
    );
    assert!(matches!(file.add_line(b"two\nthree"), Err(DurableError::LineBreak { .. })));
    file.append_line(b"two").unwrap();
    assert_eq!((durable::read(&path).unwrap(), kept()), (b"one\ntwo\n".to_vec(), Some(8)));
    // Another process goes on with what this one added.
    file.add_line(b"three").unwrap();
    let mut again = AppendFile::open(&path).unwrap();
    assert_eq!((again.length_bytes(), kept()), (14, Some(8)));
    again.append_line(b"four").unwrap();
    assert_eq!(kept(), Some(19));
}

#[test]
fn of_several_files_those_that_are_right_already_stay_untouched() {
    let home = tempfile::tempdir().unwrap();
    let files = [("a.json".to_owned(), b"one".to_vec()), ("b.json".to_owned(), b"two".to_vec())];
    durable::write_missing(home.path(), &files).unwrap();
    let inode = |name: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(home.path().join(name)).unwrap());
    durable::write_atomic(&home.path().join("b.json"), b"damaged", 0o600).unwrap();
    // Taken now: a file system may give the number of a file that is gone to the next.
    let before = (inode("a.json"), inode("b.json"));
    let more = [files[0].clone(), files[1].clone(), ("c.json".to_owned(), b"three".to_vec())];
    durable::write_missing(home.path(), &more).unwrap();
    for (name, bytes) in &more {
        assert_eq!((&durable::read(&home.path().join(name)).unwrap(), mode_of(&home.path().join(name))), (bytes, 0o600), "{name}");
    }
    assert_eq!(inode("a.json"), before.0, "it was right");
    assert_ne!(inode("b.json"), before.1, "it was damaged, and is another file now");
    assert_eq!(everything_in(home.path()), ["a.json", "b.json", "c.json"]);
    symlink("c.json", home.path().join("d.json")).unwrap();
    let linked = [("d.json".to_owned(), b"x".to_vec())];
    assert!(matches!(durable::write_missing(home.path(), &linked), Err(DurableError::NotAFile { .. })));
}

#[test]
fn what_need_not_outlive_the_machine_is_written_and_removed_as_a_whole_all_the_same() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("lease");
    durable::write_fleeting(&path, b"one", 0o600).unwrap();
    durable::write_fleeting(&path, b"two", 0o600).unwrap();
    assert_eq!(
        (durable::read(&path).unwrap(), mode_of(&path), everything_in(home.path())),
        (b"two".to_vec(), 0o600, vec!["lease".to_owned()])
    );
    durable::remove_fleeting(&path).unwrap();
    durable::remove_fleeting(&path).unwrap();
    assert!(everything_in(home.path()).is_empty());
    symlink("elsewhere", &path).unwrap();
    assert!(matches!(durable::write_fleeting(&path, b"x", 0o600), Err(DurableError::NotAFile { .. })));
}

#[test]
fn listing_is_sorted_and_leaves_out_unfinished_writes() {
    let home = tempfile::tempdir().unwrap();
    for name in ["b", "a", ".kaleem-0011223344556677.tmp", ".hidden"] {
        durable::create_new(&home.path().join(name), b"").unwrap();
    }
    assert_eq!(durable::list(home.path()).unwrap(), [".hidden", "a", "b"]);
    durable::remove_leftovers(home.path()).unwrap();
    assert_eq!(everything_in(home.path()), [".hidden", "a", "b"]);
    assert!(durable::list(&home.path().join("none")).unwrap_err().is_missing(), "a missing directory is not an empty one");
}

#[test]
fn removing_and_making_a_directory_can_be_repeated() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("x/y/z");
    for _ in 0..2 {
        durable::create_directory(&directory, 0o700).unwrap();
    }
    let file = directory.join("f");
    durable::create_new(&file, b"").unwrap();
    for _ in 0..2 {
        durable::remove(&file).unwrap();
    }
    durable::remove(&home.path().join("none/f")).unwrap();
    assert!(durable::read(&file).unwrap_err().is_missing());
    assert!(durable::remove(&directory).is_err(), "a directory is no file");
    durable::create_new(&file, b"").unwrap();
    assert!(durable::create_directory(&file, 0o700).is_err(), "a file is in the way");
}

/// Whether this run may mount; elsewhere the skip is printed, and under `CI` it fails.
pub(crate) fn may_mount(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    #[expect(clippy::disallowed_methods, reason = "a test asks whether it may be skipped")]
    let ci = std::env::var_os("CI").is_some();
    assert!(!ci, "{test} needs root");
    println!("skipped: {test} needs root to mount");
    false
}

pub(crate) struct Mount(PathBuf);

impl Mount {
    pub(crate) async fn tmpfs(at: &Path, options: &str) -> Self {
        command("mount", &["-t", "tmpfs", "-o", options, "tmpfs", &at.to_string_lossy()]).await;
        Self(at.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let at = self.0.to_string_lossy().into_owned();
        let unmount = async move { command("umount", &["-l", &at]).await };
        std::thread::spawn(|| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(unmount))
            .join()
            .unwrap();
    }
}

async fn command(program: &str, arguments: &[&str]) {
    let result = exec::run(&ExecRequest {
        program: PathBuf::from(program),
        arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
        environment: BTreeMap::from([("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned())]),
        stdin: None,
        directory: None,
        timeout: Duration::from_secs(20),
        max_output_bytes: 4096,
    })
    .await
    .unwrap();
    assert!(result.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&result.stderr));
}

fn failed_with(result: Result<(), DurableError>, errno: rustix::io::Errno) -> String {
    match result {
        Err(DurableError::Failed { source, operation, path }) if rustix::io::Errno::from_io_error(&source) == Some(errno) => {
            DurableError::Failed { source, operation, path }.remedy()
        }
        other => panic!("wanted {errno:?}, got {other:?}"),
    }
}

#[tokio::test]
async fn on_a_full_disk_the_old_content_stays_and_nothing_is_left_over() {
    if !may_mount("on_a_full_disk") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let _mount = Mount::tmpfs(home.path(), "size=64k").await;
    let (state, journal) = (home.path().join("state"), home.path().join("journal"));
    durable::write_atomic(&state, b"old", 0o600).unwrap();
    let mut file = AppendFile::open(&journal).unwrap();
    file.append_line(b"first").unwrap();
    let large = vec![b'x'; 100_000];
    for result in [durable::write_atomic(&state, &large, 0o600), durable::create_new(&home.path().join("new"), &large)] {
        assert!(failed_with(result, rustix::io::Errno::NOSPC).starts_with("free some space"));
    }
    // The line fits in part: what was written of it is taken back, and the handle is not trusted any more.
    failed_with(file.append_line(&large), rustix::io::Errno::NOSPC);
    assert!(matches!(file.append_line(b"x"), Err(DurableError::Poisoned { .. })));
    assert!(matches!(file.truncate_to(0), Err(DurableError::Poisoned { .. })));
    assert_eq!((durable::read(&state).unwrap(), durable::read(&journal).unwrap()), (b"old".to_vec(), b"first\n".to_vec()));
    assert_eq!(everything_in(home.path()), ["journal", "state"]);
    AppendFile::open(&journal).unwrap().append_line(b"second").unwrap();
    assert_eq!(durable::read(&journal).unwrap(), b"first\nsecond\n");
}

#[tokio::test]
async fn on_a_read_only_file_system_nothing_changes() {
    if !may_mount("on_a_read_only_file_system") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let _mount = Mount::tmpfs(home.path(), "size=64k").await;
    let state = home.path().join("state");
    durable::write_atomic(&state, b"old", 0o600).unwrap();
    let mut file = AppendFile::open(&home.path().join("journal")).unwrap();
    file.append_line(b"first").unwrap();
    drop(file);
    command("mount", &["-o", "remount,ro", &home.path().to_string_lossy()]).await;
    for result in [
        durable::write_atomic(&state, b"new", 0o600),
        durable::create_new(&home.path().join("new"), b""),
        durable::create_directory(&home.path().join("directory"), 0o700),
        durable::remove(&state),
        AppendFile::open(&home.path().join("journal")).map(drop),
    ] {
        assert!(failed_with(result, rustix::io::Errno::ROFS).starts_with("remount"));
    }
    assert_eq!(durable::read(&state).unwrap(), b"old");
}

#[test]
fn what_belongs_to_others_is_refused_with_a_hint_to_the_user() {
    if !may_mount("what_belongs_to_others") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let state = home.path().join("state");
    durable::write_atomic(&state, b"old", 0o600).unwrap();
    let results = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                // Of this thread alone: the call goes past the C library, which would change all threads.
                rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65534)).unwrap();
                [
                    durable::write_atomic(&state, b"new", 0o600),
                    durable::create_new(&home.path().join("new"), b""),
                    durable::create_directory(&home.path().join("directory"), 0o700),
                    durable::remove(&state),
                    durable::read(&state).map(drop),
                    AppendFile::open(&state).map(drop),
                ]
            })
            .join()
            .unwrap()
    });
    for result in results {
        assert!(failed_with(result, rustix::io::Errno::ACCESS).starts_with("run as the user"));
    }
    assert_eq!(durable::read(&state).unwrap(), b"old");
}

#[test]
fn every_error_says_what_and_what_to_do() {
    use FileOperation::{CreateDirectory, List, Read, Remove, Truncate, Write};
    let path = || PathBuf::from("/var/lib/kaleem/shop/journal");
    let failed = |operation, errno: rustix::io::Errno| DurableError::Failed { operation, path: path(), source: io::Error::from(errno) };
    let mut text = String::new();
    for error in [
        DurableError::Missing { path: path() },
        DurableError::Exists { path: path() },
        DurableError::NotAFile { path: path(), found: "a symbolic link" },
        DurableError::LineBreak { path: path() },
        DurableError::Poisoned { path: path() },
        failed(Write, rustix::io::Errno::NOSPC),
        failed(Write, rustix::io::Errno::DQUOT),
        failed(CreateDirectory, rustix::io::Errno::ROFS),
        failed(Read, rustix::io::Errno::ACCESS),
        failed(Remove, rustix::io::Errno::PERM),
        failed(Truncate, rustix::io::Errno::IO),
        failed(List, rustix::io::Errno::NOTDIR),
    ] {
        text = format!("{text}{}\n  help: {}\n", one_line(&error), error.remedy());
    }
    insta::assert_snapshot!(text, @r#"
there is no /var/lib/kaleem/shop/journal
  help: check that /var/lib/kaleem/shop/journal is the right path
/var/lib/kaleem/shop/journal exists already
  help: look whether another kaleem uses /var/lib/kaleem/shop/journal, then run the same command
/var/lib/kaleem/shop/journal is a symbolic link, not a plain file
  help: move /var/lib/kaleem/shop/journal out of the way
a bug: a line for /var/lib/kaleem/shop/journal holds a line break
  help: report it: it is a fault of kaleem
/var/lib/kaleem/shop/journal is not written any more since an earlier write to it failed
  help: mend what made the first write fail, then run `kaleem resume`
could not write /var/lib/kaleem/shop/journal: No space left on device (os error 28)
  help: free some space on the file system of /var/lib/kaleem/shop/journal, then run the same command
could not write /var/lib/kaleem/shop/journal: Disk quota exceeded (os error 122)
  help: raise the disk quota of this user for /var/lib/kaleem/shop/journal, or free some of it
could not make the directory /var/lib/kaleem/shop/journal: Read-only file system (os error 30)
  help: remount the file system of /var/lib/kaleem/shop/journal for writing; see `dmesg` for why it is not
could not read /var/lib/kaleem/shop/journal: Permission denied (os error 13)
  help: run as the user that owns /var/lib/kaleem/shop/journal, or give this user access to it
could not remove /var/lib/kaleem/shop/journal: Operation not permitted (os error 1)
  help: run as the user that owns /var/lib/kaleem/shop/journal, or give this user access to it
could not shorten /var/lib/kaleem/shop/journal: Input/output error (os error 5)
  help: check the disk of /var/lib/kaleem/shop/journal: see `dmesg`
could not list /var/lib/kaleem/shop/journal: Not a directory (os error 20)
  help: check /var/lib/kaleem/shop/journal and the file system it is on
"#);
}
