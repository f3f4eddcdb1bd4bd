//! `kaleem backup show`: what is in a set, as its manifest says. Nothing but the manifest is read.

use serde_json::json;

use super::{Around, counted, failed};
use crate::arguments::backup::ShowSet;
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::style::{FAINT, STRONG, paint};
use crate::words;

/// Shows a set.
///
/// # Errors
///
/// [`CliError::Backups`]
pub(super) async fn run(arguments: &ShowSet, around: &Around<'_>) -> Result<Exit, CliError> {
    let manifest = around.backups().find(arguments.set.name()).await.map_err(failed)?;
    let printer = around.printer;
    let age = words::duration(words::since(manifest.created, around.wiring.clock().now()));
    printer.result(&format!("{} of {}", paint(STRONG, manifest.set.as_str()), manifest.project));
    let line = |label: &str, text: &str| printer.result(&format!("  {} {text}", paint(FAINT, &format!("{label:<11}"))));
    line("made", &format!("{} ({age} ago) by {}", words::moment(manifest.created), manifest.made_by));
    if let Some(release) = manifest.release {
        line("before", &format!("{release} was deployed"));
    }
    if !manifest.tags.is_empty() {
        line("tags", &manifest.tags.join(", "));
    }
    for record in &manifest.artifacts {
        printer.result("");
        printer.result(&format!("  {} ({})", paint(STRONG, record.name.as_str()), record.kind));
        let line = |label: &str, text: &str| printer.result(&format!("    {} {text}", paint(FAINT, &format!("{label:<11}"))));
        line("holds", &format!("{} in {}", counted(record.kind, &record.contents), words::count(record.contents.len(), "part", "parts")));
        let protected = match record.encryption {
            kaleem_core::backup::Encryption::None => "not encrypted",
            kaleem_core::backup::Encryption::AgePassphrase => "age, with a passphrase",
            _ => "age, to recipients",
        };
        line("stored", &format!("{} of {}, {protected}", words::size(record.stored_bytes), words::size(record.plain_bytes)));
        line("consistency", &record.consistency.to_string());
        for note in &record.notes {
            line("note", note);
        }
        for (name, content) in &record.contents {
            line("", &format!("{name}: {}", content.count));
        }
    }
    if !manifest.not_covered.is_empty() {
        printer.result("");
        for one in &manifest.not_covered {
            line("not covered", one);
        }
    }
    printer.json(&json!({ "type": "backup-set", "manifest": manifest }));
    Ok(Exit::Done)
}
