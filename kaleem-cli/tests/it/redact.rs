//! What differs between two runs of one story is replaced: names, times, ids, ports.

use regex::{Captures, Regex};

use crate::sandbox::Sandbox;

/// The text as it reads in every run.
pub(crate) fn redact(text: &str, sandbox: &Sandbox) -> String {
    let mut text = text.replace('\t', "  ");
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for (what, name) in [
        (sandbox.path().display().to_string(), "DIR"),
        (sandbox.project.clone(), "PROJECT"),
        (sandbox.registry.clone(), "REGISTRY"),
        (format!(":{}", sandbox.port), ":PORT"),
        (format!(" on {host},"), " on HOST,"),
        (format!(" on {host})"), " on HOST)"),
        (format!("@{host}"), "@HOST"),
    ] {
        text = text.replace(&what, name);
    }
    for (pattern, name) in [
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "YYYY-MM-DD HH:MM:SS UTC"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "YYYY-MM-DDTHH:MM:SSZ"),
        (r"\((\d+ s|\d+ min \d+ s) left\)", "(N s left)"),
        (r"\b\d+ ms\b", "N ms"),
        (r#""took_ms":\d+"#, r#""took_ms":N"#),
        (r#""left_ms":\d+"#, r#""left_ms":N"#),
        (r"\bprocess \d+\b", "process PID"),
        (r"\b\d{8}t\d{6}z(-p\d+)?-[0-9a-f]{8}\b", "SET$1"),
        // How old a set is by now.
        (r"\((\d+ min ?)?(\d+(\.\d)? s)? old\)", "(N.N s old)"),
        (r"(would be lost:|written in the last) (\d+ min ?)?(\d+(\.\d)? s)?", "$1 N.N s"),
        // Keys and sums are other ones each time, and so is how well they are compressed.
        (r"\bage1[0-9a-z]{58}\b", "age1KEY"),
        (r"\b\d+ kB\b", "N kB"),
        (r"\b\d{8}t\d{6}z\.json\b", "TIME.json"),
        (r#""signature":"[0-9a-f]+""#, r#""signature":"HEX""#),
        (r#""(size|stored|plain)_bytes":\d+"#, r#""$1_bytes":N"#),
        (r"the cluster time \d+\.\d+", "the cluster time T"),
        (r"\d+\.\d [MG]B are free", "N GB are free"),
        (r"up to \d+\.\d MB", "up to N MB"),
        // How long a step took is shown where it was long; a busy machine decides that.
        (r"^( *(ok|undo|again) .*?) \d+(\.\d)? s$", "$1"),
        (r"\b\d+ in a row", "N in a row"),
        // The builder's own times.
        (r"(transferring context: \d+B) \d+\.\ds done$", "$1 done"),
        (r"\bDONE \d+\.\ds$", "DONE N.Ns"),
        // It numbers what it does at the same time in the order of the moment.
        (r"^( +)#\d+ ", "$1#N "),
        (r"\bdamaged at byte \d+", "damaged at byte N"),
        // Whoever is removed may be seen while it goes.
        (r"it crashed with exit code (-1|0)$|it was killed \(exit code 137\): [^;]*$|it was removed by somebody else$", "it is gone"),
        // The engine does not always hear of the lack of memory.
        (r"it was killed \(exit code 137\): [^;]*;", "it was killed because it used more memory than it may;"),
        (r"\b\d+\.\d+\.\d+\.\d+:(8080|6379)\b", "ADDRESS:$1"),
        (r"this kaleem reads up to \d+", "this kaleem reads up to N"),
        // A wait, and what is moved, says where it stands now and then.
        (r"^ +\.\. .*has not decided yet \(N s left\)\n", ""),
        (r"^ +\.\. .* so far, .*\n", ""),
        // How often something is tried while the engine is away, and how far away it is each time.
        (r"^ again .*(\n again .*)*", " again ... (while the engine is away)"),
    ] {
        text = Regex::new(&format!("(?m){pattern}")).unwrap().replace_all(&text, name).into_owned();
    }
    // Limits are part of the story, times are not.
    let times = Regex::new(r"(within |at most )?\b\d+(\.\d)? s\b").unwrap();
    text = times
        .replace_all(&text, |found: &Captures<'_>| if found.get(1).is_some() { found[0].to_owned() } else { "N.N s".to_owned() })
        .into_owned();
    // Ids keep their length.
    let ids = Regex::new(r"\b([0-9a-f]{64}|[0-9a-f]{32}|[0-9a-f]{12})\b").unwrap();
    text = ids.replace_all(&text, |found: &Captures<'_>| "#".repeat(found[0].len())).into_owned();
    // Columns are as wide as what was replaced; how they line up is tested where tables are made.
    let gaps = Regex::new(r"(\S)   +").unwrap();
    text = gaps.replace_all(&text, "$1  ").into_owned();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
