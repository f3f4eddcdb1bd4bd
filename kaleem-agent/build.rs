//! Compiles what the static binary copies memory with, where the C library is slow at it: see `src/memory.c`.

#[expect(clippy::disallowed_methods, reason = "this is how Cargo tells a build script what it builds for")]
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/memory.c");
    let target = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    if target("ENV") != "musl" || target("ARCH") != "x86_64" {
        return;
    }
    let mut build = cc::Build::new();
    build.file("src/memory.c").opt_level(2).debug(false);
    // Without these a compiler may see that a loop copies memory, and call the function that the loop is in.
    for flag in ["-ffreestanding", "-fno-builtin", "-fno-tree-loop-distribute-patterns", "-fno-stack-protector"] {
        build.flag_if_supported(flag);
    }
    build.compile("kaleem_memory");
}
