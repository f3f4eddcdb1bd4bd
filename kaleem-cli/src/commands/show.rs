//! `kaleem show`: one release with all that was measured. Definitions are named by id: they may hold secrets.

use kaleem_core::history::{Entry, History};
use kaleem_core::journal::{Event, StepStatus};
use kaleem_core::outcome::Outcome;
use serde_json::json;

use crate::arguments::Show;
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::render::style::{BAD, FAINT, GOOD, STRONG, WARN, paint};
use crate::render::table::{self, Cell};
use crate::wiring::Wiring;
use crate::words;

/// Shows it. No engine is asked.
///
/// # Errors
///
/// [`CliError::NoRelease`], and the others.
pub(crate) fn run(arguments: &Show, wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    let project = wiring.project_name()?;
    let history = wiring.history(&project)?;
    let entries: Vec<&Entry> = history.entries().iter().filter(|entry| entry.plan.release.id == arguments.release).collect();
    let Some(last) = entries.last() else {
        let mut known: Vec<String> = history.entries().iter().map(|entry| entry.plan.release.id.to_string()).collect();
        known.dedup();
        return Err(CliError::NoRelease { release: arguments.release, project, known: known.join(", ") });
    };
    let serving = if history.serving() == Some(arguments.release) { ", serves" } else { "" };
    printer.result(&format!("{}{serving}", paint(STRONG, &format!("{} of {project}", arguments.release))));
    printer.result("");
    let services = last.plan.release.target.services.iter().map(|(name, wanted)| {
        vec![
            Cell::new(name.as_str()),
            Cell::new(wanted.image.image.to_string()),
            Cell::new(wanted.image.digest.as_str()),
            Cell::new(wanted.definition.to_string()),
            Cell::new(wanted.strategy.to_string()),
            Cell::new(wanted.gate.question.to_string()),
        ]
    });
    let heads = ["SERVICE", "IMAGE", "DIGEST", "DEFINITION", "STRATEGY", "HEALTHY WHEN"];
    table::lines(&heads, services.collect()).iter().for_each(|line| printer.result(line));
    for entry in entries {
        show_entry(printer, entry);
    }
    Ok(Exit::Done)
}

fn show_entry(printer: &Printer, entry: &Entry) {
    let took = words::duration(words::since(entry.began, entry.ended));
    printer.result("");
    let head = format!("{} {} of {}: {}", entry.plan.kind, entry.plan.id, words::moment(entry.began), words::outcome(entry));
    let by = entry.plan.by.as_ref().map_or_else(String::new, |by| format!(", by {by}"));
    printer.result(&format!("{} after {took}{by}", paint(STRONG, &head)));
    if let Some(note) = &entry.plan.note {
        printer.result(&format!("{} {note}", paint(FAINT, "note:")));
    }
    let evidence = History::evidence(entry);
    let digits = entry.plan.steps.len().to_string().len();
    for index in 0..entry.plan.steps.len() {
        let what = entry.plan.step_text(index);
        let (word, style) = match entry.progress.status(index) {
            StepStatus::Pending => ("", FAINT),
            StepStatus::Started => ("begun", WARN),
            StepStatus::Done => ("ok", GOOD),
            StepStatus::Failed => ("failed", BAD),
            StepStatus::Undone => ("back", WARN),
            StepStatus::UndoFailed => ("stuck", BAD),
        };
        let seen = evidence.get(&index);
        let took = seen.map_or_else(String::new, |seen| format!("  {} ms", seen.took_ms));
        let saw = seen.filter(|seen| !seen.seen.is_empty()).map_or_else(String::new, |seen| format!("  {}", seen.seen));
        printer.result(&format!(
            "{:>digits$}. {} {what}{}",
            index + 1,
            paint(style, &format!("{word:>6}")),
            paint(FAINT, &format!("{took}{saw}"))
        ));
        printer.json(&json!({
            "type": "step",
            "plan": entry.plan.id.to_string(),
            "step": index,
            "what": what,
            "status": word,
            "took_ms": seen.map(|seen| seen.took_ms),
            "seen": seen.map(|seen| seen.seen.as_str()),
        }));
    }
    for record in &entry.records {
        match &record.event {
            Event::Failed { step, error } => printer.result(&format!("{} step {}: {error}", paint(BAD, "failed:"), step + 1)),
            Event::UndoFailed { step, error } => printer.result(&format!("{} step {}: {error}", paint(BAD, "stuck:"), step + 1)),
            Event::Aborted { by } => printer.result(&format!("{} by {by}", paint(WARN, "aborted:"))),
            Event::Resolved { by, .. } => printer.result(&format!("{} by {by}", paint(WARN, "resolved:"))),
            Event::Planned { .. } | Event::Started { .. } | Event::Done { .. } | Event::Undone { .. } | Event::Finished { .. } => {}
        }
    }
    let leftovers = entry.outcome.as_ref().map(Outcome::leftovers).unwrap_or_default();
    leftovers.iter().for_each(|leftover| printer.result(&format!("{} {leftover}", paint(WARN, "left:"))));
    printer.json(&json!({
        "type": "show",
        "release": entry.plan.release.id.to_string(),
        "plan": entry.plan.id.to_string(),
        "kind": entry.plan.kind.to_string(),
        "began": entry.began.to_string(),
        "ended": entry.ended.to_string(),
        "by": entry.plan.by,
        "note": entry.plan.note,
        "result": entry.outcome,
        "services": entry.plan.release.target.services.iter().map(|(name, wanted)| json!({
            "service": name.as_str(),
            "image": wanted.image.image.to_string(),
            "digest": wanted.image.digest.as_str(),
            "definition": wanted.definition.to_string(),
            "strategy": wanted.strategy.to_string(),
            "gate": wanted.gate.question.to_string(),
        })).collect::<Vec<_>>(),
    }));
}
