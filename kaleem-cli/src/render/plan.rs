//! A plan as a person reads it: what changes, why that way, what it interrupts, what speaks against it.

use std::collections::BTreeMap;
use std::time::Duration;

use kaleem_core::config::ConfigWarning;
use kaleem_core::history::History;
use kaleem_core::names::ServiceName;
use kaleem_core::plan::{ChangeKind, Interruption, Objection, Plan, PlanKind, ServiceChange, Severity, Step, check};
use serde_json::{Value, json};

use crate::render::style::{self, BAD, FAINT, HELP, STRONG, WARN, paint};
use crate::words;

/// A plan with what is known beside it.
pub(crate) struct PlanView<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// What there is to know of images, by service.
    pub notes: &'a BTreeMap<ServiceName, String>,
    /// What the files say that has no effect.
    pub warnings: &'a [ConfigWarning],
    /// What was measured before.
    pub history: &'a History,
}

/// How much is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// What changes: what a deploy says before it begins.
    Short,
    /// Everything but the steps.
    Full,
    /// Everything.
    Steps,
}

impl PlanView<'_> {
    /// The lines for people.
    pub(crate) fn lines(&self, detail: Detail) -> Vec<String> {
        let plan = self.plan;
        if plan.is_empty() {
            let mut lines = vec![self.nothing()];
            lines.extend(self.remarks(detail));
            return lines;
        }
        let before = plan.previous.map_or_else(|| "nothing".to_owned(), |id| id.to_string());
        let way = match plan.kind {
            PlanKind::Deploy if plan.previous == Some(plan.release.id) => format!("{before} is repaired"),
            PlanKind::Deploy | PlanKind::Rollback => format!("{before} -> {}", plan.release.id),
            PlanKind::Eject => format!("{before} -> plain Compose"),
            PlanKind::Down => format!("{before} -> nothing"),
            PlanKind::Upgrade | PlanKind::Restart => format!("{before} stays"),
        };
        let mut lines = vec![paint(STRONG, &format!("{} {} of {}: {way}", plan.kind, plan.id, plan.project()))];
        lines.push(String::new());
        let width = plan.changes.iter().map(|change| change.service.as_str().chars().count()).max().unwrap_or(0);
        if plan.changes.iter().all(|change| change.kind == ChangeKind::Keep) {
            lines.push("what runs is taken over as it is".to_owned());
        }
        for change in &plan.changes {
            if detail == Detail::Short && change.kind == ChangeKind::Keep {
                continue;
            }
            lines.extend(self.change(change, width, detail));
        }
        lines.extend(self.remarks(detail));
        if detail == Detail::Steps {
            lines.push(String::new());
            let digits = plan.steps.len().to_string().len();
            lines.extend((0..plan.steps.len()).map(|index| format!("{:>digits$}. {}", index + 1, plan.step_text(index))));
        }
        lines.push(String::new());
        lines.push(self.summary());
        lines
    }

    fn nothing(&self) -> String {
        match self.plan.previous {
            _ if self.plan.kind == PlanKind::Eject => format!("nothing to do: {} is plain Compose already", self.plan.project()),
            _ if self.plan.kind == PlanKind::Down => format!("nothing to do: nothing of {} is there", self.plan.project()),
            Some(release) if self.plan.kind == PlanKind::Rollback => format!("nothing to do: {release} serves already"),
            Some(release) if self.plan.objections.iter().any(|objection| objection.severity >= Severity::Warn) => {
                format!("nothing to do now: {release} serves, and it is what the files say but for what is named below")
            }
            Some(release) => format!("nothing to do: {release} serves, and it is what the files say"),
            None => "nothing to do: there are no services".to_owned(),
        }
    }

    fn change(&self, change: &ServiceChange, width: usize, detail: Detail) -> Vec<String> {
        let (sign, word, colour) = style::change(change.kind);
        let images = match (&change.image_before, &change.image_after) {
            (Some(before), Some(after)) if before != after => format!("{before} -> {after}"),
            (_, Some(image)) | (Some(image), None) => image.clone(),
            (None, None) => String::new(),
        };
        let name = format!("{:width$}", change.service.as_str());
        let head = format!("{sign} {name}  {word:<8} {images}");
        let mut lines = vec![if change.kind == ChangeKind::Keep {
            paint(FAINT, &head)
        } else {
            format!("{}  {word:<8} {images}", paint(colour, &format!("{sign} {name}")))
        }];
        if change.kind == ChangeKind::Keep {
            return lines;
        }
        let indent = " ".repeat(width + 4);
        let detail_line = |label: &str, text: &str| format!("{indent}{} {text}", paint(FAINT, &format!("{label:<8}")));
        if !change.fields.is_empty() {
            let label = if change.kind == ChangeKind::Repair { "repair" } else { "changed" };
            lines.push(detail_line(label, &change.fields.join(", ")));
        }
        if detail != Detail::Short && matches!(change.kind, ChangeKind::Add | ChangeKind::Replace | ChangeKind::Run) {
            lines.push(detail_line("how", &format!("{}: {}", change.strategy, change.reason)));
            if let Some(wanted) = self.plan.release.target.services.get(&change.service).filter(|_| change.kind != ChangeKind::Run) {
                lines.push(detail_line("healthy", &format!("{}, within {}", wanted.gate.question, words::duration(wanted.gate.deadline))));
            }
        }
        match (change.interruption, change.kind) {
            (Interruption::StopAndStart, ChangeKind::Stop) => lines.push(detail_line("gap", "from its stop on")),
            (Interruption::StopAndStart, _) => lines.push(detail_line("gap", &self.gap(&change.service))),
            (Interruption::HandOver, _) => lines.push(detail_line("gap", &self.hand_over(&change.service))),
            (Interruption::Held, _) => lines.push(detail_line("gap", &self.held(&change.service))),
            (Interruption::None, ChangeKind::Update) if detail != Detail::Short => {
                lines.push(detail_line("gap", "none: it goes on running"));
            }
            (Interruption::None, ChangeKind::Replace) if detail != Detail::Short => lines.push(detail_line("gap", "none")),
            (Interruption::None, _) => {}
        }
        lines
    }

    /// How long the service is away, as the last replacement of it measured.
    fn gap(&self, service: &ServiceName) -> String {
        match last_gap(self.history, service) {
            Some(took) => format!("while the old stops and the new starts: {} last time", words::duration(took)),
            None => "while the old stops and the new starts".to_owned(),
        }
    }

    /// What becomes of requests while the service is recreated.
    fn held(&self, service: &ServiceName) -> String {
        let wanted = self.plan.release.target.services.get(service).and_then(|wanted| wanted.gateway.as_ref());
        let hold =
            wanted.and_then(|gateway| gateway.hold).map_or_else(String::new, |hold| format!(", each at most {}", words::duration(hold)));
        format!("none for who waits: requests are held while the old stops and the new starts{hold}")
    }

    /// How long connections are refused while the ports go to the gateway, as the last hand-over measured.
    fn hand_over(&self, service: &ServiceName) -> String {
        let expected = words::duration(check::expected(self.plan, service));
        let last = last_hand_over(self.history, service).map_or_else(String::new, |took| format!(" ({} last time)", words::duration(took)));
        format!("about {expected}{last}, once: the ports go to the gateway; later deploys have none")
    }

    fn remarks(&self, detail: Detail) -> Vec<String> {
        let mut lines = Vec::new();
        let mut remark = |label: &str, colour, text: &str, help: Option<&str>| {
            lines.push(format!("{} {text}", paint(colour, &format!("{label}:"))));
            lines.extend(help.map(|help| format!("  {} {help}", paint(HELP, "help:"))));
        };
        for objection in &self.plan.objections {
            match objection.severity {
                // The error says it.
                Severity::Refuse if detail == Detail::Short => {}
                Severity::Refuse => remark("refused", BAD, &objection.message, Some(&objection.remedy)),
                // The gap of each service is said with the service.
                Severity::Warn if matches!(objection.rule.as_str(), "interruption" | "hand-over") => {}
                Severity::Warn => remark("warning", WARN, &objection.message, Some(&objection.remedy)),
                Severity::Note if detail == Detail::Short => {}
                Severity::Note => remark("note", FAINT, &objection.message, Some(&objection.remedy)),
            }
        }
        for (service, note) in self.notes {
            remark("warning", WARN, &format!("{service}: {note}"), None);
        }
        if detail != Detail::Short {
            for warning in self.warnings {
                remark("note", FAINT, &format!("{}: `{}` has no effect: {}", warning.origin, warning.key, warning.reason), None);
            }
        }
        if !lines.is_empty() {
            lines.insert(0, String::new());
        }
        lines
    }

    fn summary(&self) -> String {
        let plan = self.plan;
        let number = |kind| plan.changes.iter().filter(|change| change.kind == kind).count();
        let kinds = [
            (ChangeKind::Add, "to add"),
            (ChangeKind::Replace, "to replace"),
            (ChangeKind::Repair, "to repair"),
            (ChangeKind::Run, "to run"),
            (ChangeKind::Update, "to update"),
            (ChangeKind::Stop, "to stop"),
            (ChangeKind::Keep, "to keep"),
        ];
        let parts = kinds.into_iter().filter_map(|(kind, words)| Some((number(kind), words)).filter(|(number, _)| *number > 0));
        let mut parts: Vec<String> = parts.map(|(number, words)| format!("{number} {words}")).collect();
        parts.push(words::count(plan.steps.len(), "step", "steps"));
        parts.join(", ")
    }

    /// The same facts for programs.
    pub(crate) fn json(&self) -> Value {
        let plan = self.plan;
        json!({
            "type": "plan",
            "plan": plan.id.to_string(),
            "project": plan.project().as_str(),
            "kind": plan.kind.to_string(),
            "from": plan.previous.map(|id| id.to_string()),
            "to": plan.release.id.to_string(),
            "empty": plan.is_empty(),
            "refused": plan.refusals().next().is_some(),
            "changes": plan.changes.iter().map(|change| json!({
                "service": change.service.as_str(),
                "change": style::change(change.kind).1,
                "strategy": change.strategy.to_string(),
                "reason": change.reason,
                "image_before": change.image_before,
                "image_after": change.image_after,
                "fields": change.fields,
                "interruption": change.interruption,
            })).collect::<Vec<_>>(),
            "objections": plan.objections.iter().map(objection).collect::<Vec<_>>(),
            "notes": self.notes.iter().map(|(service, note)| json!({ "service": service.as_str(), "message": note })).collect::<Vec<_>>(),
            "warnings": self.warnings.iter().map(|warning| json!({
                "place": warning.origin.to_string(),
                "key": warning.key,
                "reason": warning.reason,
            })).collect::<Vec<_>>(),
            "steps": (0..plan.steps.len()).map(|index| plan.step_text(index)).collect::<Vec<_>>(),
        })
    }
}

fn objection(objection: &Objection) -> Value {
    json!({
        "rule": objection.rule,
        "severity": objection.severity,
        "service": objection.service.as_ref().map(ServiceName::as_str),
        "message": objection.message,
        "help": objection.remedy,
    })
}

/// How long the last hand-over of the service took that came to its end.
fn last_hand_over(history: &History, service: &ServiceName) -> Option<Duration> {
    history.entries().iter().rev().filter(|entry| entry.progress.is_committed()).find_map(|entry| {
        let evidence = History::evidence(entry);
        let place = entry.plan.steps.iter().position(|step| matches!(step, Step::HandOver { .. }) && step.service() == Some(service))?;
        evidence.get(&place).map(|evidence| Duration::from_millis(evidence.took_ms))
    })
}

/// From the stop of the old to the pass of the gate, in the last plan that replaced the service and came to its end.
fn last_gap(history: &History, service: &ServiceName) -> Option<Duration> {
    let entry = history.entries().iter().rev().find(|entry| {
        let stops = entry.plan.steps.iter().any(|step| matches!(step, Step::Stop { .. }) && step.service() == Some(service));
        stops && entry.progress.is_committed()
    })?;
    let evidence = History::evidence(entry);
    let steps = entry.plan.steps.iter().enumerate().filter(|(_, step)| {
        step.service() == Some(service) && matches!(step, Step::Stop { .. } | Step::Rename { .. } | Step::Start { .. } | Step::Gate { .. })
    });
    let took: u64 = steps.filter_map(|(index, _)| evidence.get(&index)).map(|evidence| evidence.took_ms).sum();
    Some(Duration::from_millis(took))
}
