//! The images of the demo, built here: nothing is pulled from outside but Debian's packages.

use std::path::{Path, PathBuf};

use crate::fail::TaskError;
use crate::place::{Place, copy, create_directory, scratch};
use crate::programs::Program;
use crate::say;
use crate::setup::{Parts, STATIC_PROFILE, apt, static_target};

/// The base of every image that is not from scratch.
pub(crate) const DEBIAN: &str = "kaleem-demo/debian:bookworm";
const REDIS: &str = "kaleem-demo/redis:7";
const NGINX: &str = "kaleem-demo/nginx:1";

/// Versions of the shop, and the fault that each has by itself.
const SHOPS: [(&str, &str); 3] = [("v1", ""), ("v2", ""), ("v3", "never-healthy")];

/// Builds what is not there, and puts it into the registry.
pub(crate) fn ensure(place: &Place, parts: &Parts) -> Result<(), TaskError> {
    if !exists(place, DEBIAN) {
        debian(place)?;
    }
    for (image, name, file, remote) in [(REDIS, "Redis", "redis.Dockerfile", "redis:7"), (NGINX, "nginx", "nginx.Dockerfile", "nginx:1")] {
        if !exists(place, image) {
            say::step(&format!("building the image of {name}"));
            let context = scratch()?;
            let file = place.root.join("examples/shop").join(file);
            build(place, &file, context.path(), image, &[("BASE", DEBIAN)])?;
        }
        push(place, image, &parts.image(remote))?;
    }
    let binary = shop(place)?;
    let context = scratch()?;
    copy(&binary, &context.path().join("shop"))?;
    for (version, fault) in SHOPS {
        let local = format!("kaleem-demo/shop:{version}");
        let file = place.root.join("examples/shop/Dockerfile");
        build(place, &file, context.path(), &local, &[("VERSION", version), ("FAULT", fault)])?;
        push(place, &local, &parts.image(&format!("shop:{version}")))?;
    }
    Ok(())
}

fn docker(place: &Place) -> Program {
    // The classic builder is in every client and engine; newer clients need a plugin for the other one.
    Program::new(place, "docker").env("DOCKER_BUILDKIT", "0")
}

/// Whether the engine has an image.
pub(crate) fn exists(place: &Place, image: &str) -> bool {
    docker(place).args(["image", "inspect", image]).succeeds()
}

/// Builds an image.
pub(crate) fn build(place: &Place, file: &Path, context: &Path, tag: &str, arguments: &[(&str, &str)]) -> Result<(), TaskError> {
    let mut program = docker(place).args(["build", "--quiet", "--tag", tag, "--file"]).arg(file);
    for (name, value) in arguments {
        program = program.arg("--build-arg").arg(format!("{name}={value}"));
    }
    // Clients differ in what they say about the builder; only a failure matters.
    program.arg(context).run_silently()
}

/// Puts a local image into the registry.
pub(crate) fn push(place: &Place, local: &str, remote: &str) -> Result<(), TaskError> {
    docker(place).args(["tag", local, remote]).run()?;
    docker(place).args(["push", "--quiet", remote]).run_silently()
}

/// The static binary of the shop.
fn shop(place: &Place) -> Result<PathBuf, TaskError> {
    say::step("building the shop");
    let target = static_target();
    let cargo = Program::new(place, place.cargo()).args(["build", "--quiet", "--profile", STATIC_PROFILE, "--package", "shop"]);
    cargo.args(["--target", &target]).run()?;
    Ok(place.target.join(target).join(STATIC_PROFILE).join("shop"))
}

/// A minimal Debian: built once, kept as a file, so that an engine without images has it in seconds.
fn debian(place: &Place) -> Result<(), TaskError> {
    let archive = place.tools.join("debian-bookworm.tar");
    if !archive.is_file() {
        if !rustix::process::geteuid().is_root() {
            return Err(TaskError::Missing {
                what: format!("the base image {DEBIAN}"),
                install: "run `cargo xtask setup` once as root: debootstrap needs it".to_owned(),
            });
        }
        say::step("building a base image with debootstrap (about a minute)");
        let directory = place.tools.join("debian-rootfs");
        // What an interrupted run left cannot be completed.
        remove_directory(&directory)?;
        create_directory(&directory)?;
        let log = place.tools.join("debootstrap.log");
        let status = Program::new(place, "sh")
            .args(["-c", "exec debootstrap --variant=minbase bookworm \"$0\" \"$1\" >\"$2\" 2>&1"])
            .arg(&directory)
            .arg(apt::mirror()?)
            .arg(&log)
            .status()?;
        if !status.success() {
            return Err(TaskError::Unexpected { what: format!("debootstrap failed ({status}); its log is {}", log.display()) });
        }
        slim(&directory)?;
        let partial = place.tools.join("debian-bookworm.tar.partial");
        Program::new(place, "tar").arg("-C").arg(&directory).args(["--numeric-owner", "-cf"]).arg(&partial).arg(".").run()?;
        std::fs::rename(&partial, &archive).map_err(|source| TaskError::File { operation: "rename", path: partial, source })?;
        remove_directory(&directory)?;
    }
    say::step("importing the base image");
    let path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    docker(place).args(["import", "--change", "CMD [\"bash\"]", "--change", path]).arg(&archive).arg(DEBIAN).run_silently()
}

/// Takes out what an image does not need, and gives it the machine's sources, which have the updates too.
fn slim(root: &Path) -> Result<(), TaskError> {
    for directory in ["var/cache/apt/archives", "var/lib/apt/lists"] {
        let path = root.join(directory);
        remove_directory(&path)?;
        create_directory(&path.join("partial"))?;
    }
    let machine = Path::new("/etc/apt/sources.list.d/debian.sources");
    if machine.is_file() {
        copy(machine, &root.join("etc/apt/sources.list.d/debian.sources"))?;
        let list = root.join("etc/apt/sources.list");
        if list.exists() {
            std::fs::remove_file(&list).map_err(|source| TaskError::File { operation: "remove", path: list, source })?;
        }
    }
    // Nothing that is installed in an image may start a service while it is built.
    let policy = root.join("usr/sbin/policy-rc.d");
    crate::place::write(&policy, "#!/bin/sh\nexit 101\n")?;
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&policy, std::fs::Permissions::from_mode(0o755)).map_err(|source| TaskError::File {
        operation: "make executable",
        path: policy,
        source,
    })
}

fn remove_directory(path: &Path) -> Result<(), TaskError> {
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(TaskError::File { operation: "remove", path: path.to_path_buf(), source })
        }
        _ => Ok(()),
    }
}
