//! What the static binary copies memory with, against the C library of this machine.

use std::path::Path;
use std::process::Command;

#[test]
#[cfg(target_arch = "x86_64")]
#[expect(clippy::disallowed_methods, reason = "a compiler and what it made of a file of ours, without any secret")]
fn memory_is_copied_and_compared_as_the_c_library_does_at_every_length_and_place() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("memory");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/memory.c");
    // As build.rs compiles it.
    let flags = ["-O2", "-ffreestanding", "-fno-builtin", "-fno-tree-loop-distribute-patterns", "-Wall", "-Wextra", "-Werror"];
    let compiled = Command::new("cc").args(flags).arg("-o").arg(&program).arg(&source).output().unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let ran = Command::new(&program).output().unwrap();
    assert_eq!((ran.status.code(), String::from_utf8_lossy(&ran.stdout).as_ref()), (Some(0), "right\n"));
}
