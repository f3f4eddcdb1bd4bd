//! The one door to the environment: variables, working directory, terminals, user. Everything else is given what it needs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;

/// What the process was started with.
#[derive(Clone)]
pub(crate) struct Environment {
    /// The command line, the program's name included.
    pub arguments: Vec<OsString>,
    variables: BTreeMap<String, String>,
    /// The working directory; `.` where it is gone.
    pub directory: PathBuf,
    /// Whether somebody can be asked.
    pub stdin_is_terminal: bool,
    /// Whether results go to a terminal.
    pub stdout_is_terminal: bool,
    /// Whether progress goes to a terminal.
    pub stderr_is_terminal: bool,
    /// The program itself; its gateway is looked for beside it.
    pub executable: Option<PathBuf>,
    /// Whether the user may do everything on this host.
    pub is_root: bool,
    /// Where the process runs, as uid: state of others is not ours.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The name of this machine.
    pub host: String,
}

impl Environment {
    /// Reads it once. Variables that are not UTF-8 are left out: no compose file can use them.
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    pub(crate) fn read() -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let uid = rustix::process::geteuid();
        Self {
            arguments: std::env::args_os().collect(),
            variables: variables.collect(),
            directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
            stdin_is_terminal: std::io::stdin().is_terminal(),
            stdout_is_terminal: std::io::stdout().is_terminal(),
            stderr_is_terminal: std::io::stderr().is_terminal(),
            executable: std::env::current_exe().ok(),
            is_root: uid.is_root(),
            uid: uid.as_raw(),
            gid: rustix::process::getegid().as_raw(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        }
    }

    /// A variable; an empty one counts as unset.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A variable that names a path.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }

    /// All variables, for compose files and for programs that need the user's environment.
    pub(crate) fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// The user's name, or number.
    pub(crate) fn user(&self) -> String {
        // After `sudo`, the person counts, not the rights.
        let name = self.get("SUDO_USER").or_else(|| self.get("USER")).or_else(|| self.get("LOGNAME"));
        name.map_or_else(|| if self.is_root { "root".to_owned() } else { format!("uid {}", self.uid) }, str::to_owned)
    }
}
