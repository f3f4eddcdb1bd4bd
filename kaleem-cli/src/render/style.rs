//! Colours, each with one meaning. Whether they are shown is decided where they are printed.

use anstyle::{AnsiColor, Style};
use kaleem_core::plan::ChangeKind;

/// It is well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default().bold();
/// It is bad.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// It may become bad.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default().bold();
/// What to do.
pub(crate) const HELP: Style = AnsiColor::Cyan.on_default().bold();
/// Worth finding.
pub(crate) const STRONG: Style = Style::new().bold();
/// Less worth reading.
pub(crate) const FAINT: Style = Style::new().dimmed();

/// The text in a style.
pub(crate) fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// The sign and colour of a change.
pub(crate) fn change(kind: ChangeKind) -> (&'static str, &'static str, Style) {
    match kind {
        ChangeKind::Add => ("+", "add", AnsiColor::Green.on_default()),
        ChangeKind::Replace => ("~", "replace", AnsiColor::Yellow.on_default()),
        ChangeKind::Stop => ("-", "stop", AnsiColor::Red.on_default()),
        ChangeKind::Repair => ("!", "repair", AnsiColor::Yellow.on_default()),
        ChangeKind::Keep => ("=", "keep", FAINT),
        ChangeKind::Update => ("~", "update", AnsiColor::Yellow.on_default()),
        ChangeKind::Run => ("»", "run", AnsiColor::Cyan.on_default()),
    }
}

/// Colours by which services are told apart in logs.
pub(crate) const SERVICES: [Style; 6] = [
    AnsiColor::Cyan.on_default(),
    AnsiColor::Yellow.on_default(),
    AnsiColor::Green.on_default(),
    AnsiColor::Magenta.on_default(),
    AnsiColor::Blue.on_default(),
    AnsiColor::BrightRed.on_default(),
];
