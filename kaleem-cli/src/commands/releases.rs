//! `kaleem releases`: every plan that led somewhere or failed to, the newest first.

use kaleem_core::history::Entry;
use kaleem_core::plan::PlanKind;
use serde_json::json;

use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::render::style::{BAD, FAINT, GOOD, WARN};
use crate::render::table::{self, Cell};
use crate::wiring::Wiring;
use crate::words;

/// Lists them. No engine is asked.
///
/// # Errors
///
/// [`CliError`]
pub(crate) fn run(wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    let project = wiring.project_name()?;
    let history = wiring.history(&project)?;
    if history.entries().is_empty() {
        let known = history.lost().map_or_else(|| "nothing was released yet".to_owned(), |_| words::serving(&history));
        printer.result(&format!("{project}: {known}"));
        return Ok(Exit::Done);
    }
    let serving = history.serving();
    let current = history.entries().iter().rposition(|entry| Some(entry.plan.release.id) == serving && entry.progress.is_committed());
    // Most people write no notes.
    let notes = if history.entries().iter().any(|entry| entry.plan.note.is_some()) { Notes::Shown } else { Notes::Left };
    let mut heads = vec!["", "RELEASE", "WHEN", "PLAN", "OUTCOME", "TOOK", "BY", "IMAGES"];
    if notes == Notes::Shown {
        heads.insert(heads.len() - 1, "NOTE");
    }
    let rows = history.entries().iter().enumerate().rev().map(|(index, entry)| row(entry, current == Some(index), notes));
    table::lines(&heads, rows.collect()).iter().for_each(|line| printer.result(line));
    for (index, entry) in history.entries().iter().enumerate().rev() {
        printer.json(&json!({
            "type": "release",
            "release": entry.plan.release.id.to_string(),
            "plan": entry.plan.id.to_string(),
            "kind": entry.plan.kind.to_string(),
            "began": entry.began.to_string(),
            "took_ms": words::since(entry.began, entry.ended).as_millis(),
            "outcome": words::outcome(entry).replace(' ', "-"),
            "serving": current == Some(index),
            "by": entry.plan.by,
            "note": entry.plan.note,
            "images": entry.plan.release.target.services.iter().map(|(name, wanted)| json!({
                "service": name.as_str(), "image": wanted.image.image.to_string(), "digest": wanted.image.digest.as_str(),
            })).collect::<Vec<_>>(),
        }));
    }
    Ok(Exit::Done)
}

/// Whether the table has a column for what people noted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Notes {
    Shown,
    Left,
}

fn row(entry: &Entry, serving: bool, notes: Notes) -> Vec<Cell> {
    let word = words::outcome(entry);
    let style = match word {
        "deployed" => GOOD,
        "rolled back" | "stuck" => BAD,
        "open" | "aborted" => WARN,
        _ => anstyle::Style::new(),
    };
    let images = entry.plan.release.target.services.iter().map(|(name, wanted)| format!("{name} {}", wanted.image));
    let kind = match entry.plan.kind {
        PlanKind::Deploy => "deploy",
        PlanKind::Rollback => "rollback",
        PlanKind::Eject => "eject",
        PlanKind::Down => "down",
        PlanKind::Upgrade => "upgrade",
        PlanKind::Restart => "restart",
    };
    let mut row = vec![
        Cell::styled(if serving { "*" } else { "" }, GOOD),
        Cell::new(entry.plan.release.id.to_string()),
        Cell::new(words::moment(entry.began)),
        Cell::styled(format!("{} {kind}", entry.plan.id), FAINT),
        Cell::styled(word, style),
        Cell::new(words::duration(words::since(entry.began, entry.ended))),
        Cell::new(entry.plan.by.clone().unwrap_or_default()),
    ];
    if notes == Notes::Shown {
        row.push(Cell::new(entry.plan.note.clone().unwrap_or_default()));
    }
    row.push(Cell::new(images.collect::<Vec<_>>().join(", ")));
    row
}
