//! `kaleem doctor`: asks every rule, the worst answers first.

use kaleem_core::clock::Clock;
use kaleem_core::config::Project;
use kaleem_core::health::Verdict;
use serde_json::json;

use crate::arguments::Doctor;
use crate::doctor::{self, Answer, Patient};
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::render::style::{BAD, FAINT, GOOD, HELP, WARN, paint};
use crate::wiring::Wiring;

mod repair;

/// Asks, or repairs. Exits with [`Exit::Refused`] when something fails.
///
/// # Errors
///
/// [`CliError::Config`]: without a project there is nothing to look at.
pub(crate) async fn run(arguments: &Doctor, wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    if arguments.repair {
        let consent = if arguments.yes { repair::Consent::Given } else { repair::Consent::Ask };
        return Box::pin(repair::run(wiring, printer, consent)).await;
    }
    let project: Project = wiring.project()?;
    let kaleem = wiring.kaleem("doctor").await;
    let history = wiring.history(&project.name);
    let clock: &dyn Clock = wiring.clock().as_ref();
    let patient = Patient::new(&project, wiring, kaleem, history, clock).await;
    let mut answers = doctor::ask(&patient);
    answers.sort_by_key(|answer| std::cmp::Reverse(answer.verdict));
    for answer in &answers {
        show(printer, answer);
    }
    let number = |verdict| answers.iter().filter(|answer| answer.verdict == verdict).count();
    let (failed, warned) = (number(Verdict::Fail), number(Verdict::Warn));
    printer.result("");
    printer.result(&format!("{failed} failed, {warned} to look at, {} fine", answers.len() - failed - warned));
    Ok(if failed == 0 { Exit::Done } else { Exit::Refused })
}

fn show(printer: &Printer, answer: &Answer) {
    let style = match answer.verdict {
        Verdict::Ok => GOOD,
        Verdict::Warn | Verdict::Unknown => WARN,
        Verdict::Fail => BAD,
    };
    printer.result(&format!(
        "{} {} {}",
        paint(style, &format!("{:>7}", answer.verdict)),
        answer.message,
        paint(FAINT, &format!("[{}]", answer.rule))
    ));
    if let Some(remedy) = &answer.remedy {
        printer.result(&format!("          {} {remedy}", paint(HELP, "help:")));
    }
    printer.json(&json!({
        "type": "finding",
        "rule": answer.rule,
        "verdict": answer.verdict,
        "service": answer.service.as_ref().map(kaleem_core::names::ServiceName::as_str),
        "message": answer.message,
        "help": answer.remedy,
    }));
}
