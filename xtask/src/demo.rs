//! The whole promise in two minutes: three versions of the shop, deployed under load; the third is bad.

mod shop;

use std::path::PathBuf;
use std::time::Duration;

use kaleem_core::clock::{Clock, SystemClock};

use crate::fail::TaskError;
use crate::load::{Load, Slice};
use crate::place::Place;
use crate::say;
use crate::setup::{self, Consent, Need, Parts};

pub(crate) use shop::{Orders, Shop, build_static_agent, kaleem, kaleem_as_shipped, static_agent};

const CLIENTS: usize = 8;
/// Load before and after a deploy, so that a slow start shows.
const AROUND: Duration = Duration::from_secs(2);

/// What a step did, and what the load saw meanwhile.
struct Row {
    step: &'static str,
    exit_code: i32,
    took: Duration,
    load: Option<Slice>,
    serves: String,
}

/// Runs it; everything it made is removed again, unless `keep`.
pub(crate) fn run(place: &Place, consent: Consent, keep: bool, kaleem: Option<PathBuf>) -> Result<(), TaskError> {
    let parts = setup::run(place, consent, Need::Demo)?;
    let kaleem = shop::kaleem(place, kaleem)?;
    let shop = Shop::new(place, &parts, "kaleem-demo", &kaleem)?;
    let outcome = steps(&shop, &parts);
    if keep {
        say::line(&format!("left running: {} (project {}, state in {})", shop.address(), shop.name(), shop.directory().display()));
        shop.keep();
        parts.leave_running();
        return outcome;
    }
    shop.clean()?;
    outcome
}

fn steps(shop: &Shop, parts: &Parts) -> Result<(), TaskError> {
    let image = |version: &str| parts.image(&format!("shop:{version}"));
    let mut rows = vec![deploy(shop, "deploy v1", &image("v1"), None)?];
    let load = Load::start(shop.address(), CLIENTS, "demo")?;
    let mut confirmed = 0;
    for (step, version) in [("deploy v2", "v2"), ("deploy v3, which is bad", "v3")] {
        let row = deploy(shop, step, &image(version), Some(&load))?;
        confirmed += row.load.as_ref().map_or(0, |slice| slice.confirmed_orders);
        rows.push(row);
    }
    let rest = load.stop();
    confirmed += rest.confirmed_orders;
    shop.kaleem(&["status"]).run()?;
    report(&rows, &rest);
    let orders = shop.orders()?;
    let lost = confirmed.saturating_sub(orders.recorded);
    say::line(&format!("orders: {confirmed} confirmed, {} recorded, {lost} lost, {} doubled", orders.recorded, orders.duplicates));
    judge(&rows, &rest, lost, orders.duplicates)
}

fn deploy(shop: &Shop, step: &'static str, image: &str, load: Option<&Load>) -> Result<Row, TaskError> {
    say::step(&format!("{step}: kaleem deploy"));
    if load.is_some() {
        std::thread::sleep(AROUND);
    }
    let start = SystemClock.monotonic();
    let status = shop.kaleem(&["deploy"]).env("SHOP_API_IMAGE", image).env("SHOP_WORKER_IMAGE", image).status()?;
    let took = SystemClock.monotonic().saturating_sub(start);
    if load.is_some() {
        std::thread::sleep(AROUND);
    }
    let exit_code = status.code().unwrap_or(-1);
    let serves = shop.version().unwrap_or_else(|_| "nothing".to_owned());
    Ok(Row { step, exit_code, took, load: load.map(Load::take), serves })
}

fn report(rows: &[Row], rest: &Slice) {
    let heading = ["step", "exit code", "seconds", "sent", "failed", "retried", "p50 ms", "p99 ms", "max ms", "serves"];
    let mut table = vec![heading.map(str::to_owned).to_vec()];
    for row in rows {
        let mut cells = vec![row.step.to_owned(), row.exit_code.to_string(), format!("{:.1}", row.took.as_secs_f64())];
        cells.extend(row.load.as_ref().map_or_else(|| vec!["-".to_owned(); 6], load_cells));
        cells.push(row.serves.clone());
        table.push(cells);
    }
    if rest.sent > 0 {
        let mut cells = vec!["afterwards".to_owned(), "-".to_owned(), "-".to_owned()];
        cells.extend(load_cells(rest));
        table.push(cells);
    }
    say::line("");
    say::table(&table);
    let slices = rows.iter().filter_map(|row| row.load.as_ref()).chain([rest]);
    for reason in slices.filter_map(|slice| slice.first_failure.as_ref()) {
        say::line(&format!("first failure: {reason}"));
    }
}

fn load_cells(slice: &Slice) -> Vec<String> {
    let milliseconds = |percent| format!("{:.1}", slice.percentile(percent).as_secs_f64() * 1000.0);
    let counts = [slice.sent, slice.failed, slice.retried].map(|count| count.to_string());
    counts.into_iter().chain([50.0, 99.0, 100.0].map(milliseconds)).collect()
}

/// Everything that must be true, or the demo has failed.
fn judge(rows: &[Row], rest: &Slice, lost: u64, duplicates: u64) -> Result<(), TaskError> {
    let expected = [(0, "v1"), (0, "v2"), (10, "v2")];
    let mut wrong = Vec::new();
    for (row, (exit_code, version)) in rows.iter().zip(expected) {
        if row.exit_code != exit_code {
            wrong.push(format!("{}: exit code {} instead of {exit_code}", row.step, row.exit_code));
        }
        if row.serves != version {
            wrong.push(format!("{}: {} serves instead of {version}", row.step, row.serves));
        }
    }
    let slices = || rows.iter().filter_map(|row| row.load.as_ref()).chain([rest]);
    let failed: u64 = slices().map(|slice| slice.failed).sum();
    if failed > 0 {
        wrong.push(format!("{failed} requests failed"));
    }
    if slices().any(|slice| slice.versions.contains_key("v3")) {
        wrong.push("the bad version answered requests".to_owned());
    }
    if lost > 0 || duplicates > 0 {
        wrong.push(format!("{lost} orders were lost and {duplicates} doubled"));
    }
    if wrong.is_empty() {
        say::line("the demo went as it must: nothing was lost, and the bad version never served");
        return Ok(());
    }
    Err(TaskError::Unexpected { what: format!("the demo did not go as it must: {}", wrong.join("; ")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(step: &'static str, exit_code: i32, serves: &str, load: Option<Slice>) -> Row {
        Row { step, exit_code, took: Duration::from_secs(1), load, serves: serves.to_owned() }
    }

    #[test]
    fn a_demo_that_loses_something_or_serves_the_bad_version_has_failed() {
        let good = || vec![row("1", 0, "v1", None), row("2", 0, "v2", Some(Slice::default())), row("3", 10, "v2", Some(Slice::default()))];
        let mut bad_version = Slice::default();
        bad_version.versions.insert("v3".to_owned(), 1);
        let mut one_failed = Slice::default();
        one_failed.failed = 1;
        let mut wrong_code = good();
        wrong_code.pop();
        wrong_code.push(row("3", 0, "v2", None));
        let mut wrong_version = good();
        wrong_version.pop();
        wrong_version.push(row("3", 10, "v3", None));
        for (why, rows, rest, lost, duplicates, ok) in [
            ("all well", good(), Slice::default(), 0, 0, true),
            ("a request failed", good(), one_failed, 0, 0, false),
            ("an order is lost", good(), Slice::default(), 1, 0, false),
            ("an order came twice", good(), Slice::default(), 0, 1, false),
            ("the bad version answered", good(), bad_version, 0, 0, false),
            ("the bad version was not noticed", wrong_code, Slice::default(), 0, 0, false),
            ("the bad version serves", wrong_version, Slice::default(), 0, 0, false),
        ] {
            assert_eq!(judge(&rows, &rest, lost, duplicates).is_ok(), ok, "{why}");
        }
    }
}
