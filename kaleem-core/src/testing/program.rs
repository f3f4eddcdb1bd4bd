//! Programs for images of tests: one file without dependencies, compiled here and linked statically, so that an image needs nothing
//! else and no image has to be pulled.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::exec::{self, ExecRequest};

/// Time that the compiler has.
const LIMIT: Duration = Duration::from_secs(180);
/// What the compiler needs to know of its surroundings.
const KEPT: [&str; 5] = ["PATH", "HOME", "RUSTUP_HOME", "CARGO_HOME", "RUSTUP_TOOLCHAIN"];

/// Compiles the one file `source` to a program at `output` that runs in an empty image.
///
/// `variable` reads the environment of the caller.
///
/// # Errors
///
/// What the compiler says.
pub async fn compile(source: &Path, output: &Path, variable: impl Fn(&str) -> Option<String>) -> Result<(), String> {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let words = ["--edition", "2024", "-O", "--target", &target, "-C", "strip=symbols", "-o"];
    let mut arguments: Vec<String> = words.map(str::to_owned).to_vec();
    arguments.extend([output.display().to_string(), source.display().to_string()]);
    let environment: BTreeMap<String, String> = KEPT.iter().filter_map(|name| Some(((*name).to_owned(), variable(name)?))).collect();
    let request = ExecRequest {
        program: "rustc".into(),
        arguments,
        environment,
        stdin: None,
        directory: None,
        timeout: LIMIT,
        max_output_bytes: 1 << 16,
    };
    let result = exec::run(&request).await.map_err(|error| error.to_string())?;
    if result.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&result.stderr).into_owned()) }
}
