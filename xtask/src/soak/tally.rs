//! What came of it, as a table.

use std::collections::BTreeMap;
use std::time::Duration;

use kaleem_core::outcome::Outcome;

use super::{Move, Round};
use crate::demo::Orders;
use crate::load::Slice;
use crate::say;

#[derive(Default)]
struct Row {
    rounds: u64,
    kills: u64,
    resumes: u64,
    deployed: u64,
    rolled_back: u64,
    aborted: u64,
    nothing: u64,
}

/// Rounds by what was tried.
#[derive(Default)]
pub(super) struct Tally {
    rows: BTreeMap<Move, Row>,
    /// What was left behind.
    pub leaks: u64,
    /// How many wrong things were told already.
    pub told: usize,
}

/// Requests of the whole run.
#[derive(Default)]
pub(super) struct Total {
    pub sent: u64,
    pub failed: u64,
    pub retried: u64,
    pub confirmed: u64,
    pub slowest: Duration,
}

impl Total {
    pub(super) fn add(&mut self, slice: &Slice) {
        self.sent += slice.sent;
        self.failed += slice.failed;
        self.retried += slice.retried;
        self.confirmed += slice.confirmed_orders;
        self.slowest = self.slowest.max(slice.percentile(100.0));
    }
}

impl Tally {
    pub(super) fn add(&mut self, round: &Round) {
        let row = self.rows.entry(round.what).or_default();
        row.rounds += 1;
        row.kills += round.kills;
        row.resumes += round.resumes;
        match &round.outcome {
            Some(Outcome::Deployed { .. }) => row.deployed += 1,
            Some(Outcome::RolledBack { .. }) => row.rolled_back += 1,
            Some(Outcome::Aborted { .. } | Outcome::Resolved { .. }) => row.aborted += 1,
            None => row.nothing += 1,
        }
    }

    pub(super) fn kills(&self) -> u64 {
        self.rows.values().map(|row| row.kills).sum()
    }

    pub(super) fn rounds(&self) -> u64 {
        self.rows.values().map(|row| row.rounds).sum()
    }

    pub(super) fn show(&self, total: &Total, orders: &Orders, lost: u64, took: Duration) {
        let heads = ["what was tried", "rounds", "kills", "resumes", "deployed", "rolled back", "aborted", "not begun"];
        let mut table = vec![heads.map(str::to_owned).to_vec()];
        let cells = |row: &Row| {
            [row.rounds, row.kills, row.resumes, row.deployed, row.rolled_back, row.aborted, row.nothing].map(|n| n.to_string())
        };
        let mut sum = Row::default();
        for (what, row) in &self.rows {
            table.push(std::iter::once(what.name().to_owned()).chain(cells(row)).collect());
            for (into, from) in [
                (&mut sum.rounds, row.rounds),
                (&mut sum.kills, row.kills),
                (&mut sum.resumes, row.resumes),
                (&mut sum.deployed, row.deployed),
                (&mut sum.rolled_back, row.rolled_back),
                (&mut sum.aborted, row.aborted),
                (&mut sum.nothing, row.nothing),
            ] {
                *into += from;
            }
        }
        table.push(std::iter::once("in all".to_owned()).chain(cells(&sum)).collect());
        say::line("");
        say::table(&table);
        say::line("");
        let seconds = took.as_secs();
        say::line(&format!(
            "{seconds} s; {} requests, {} dropped, {} retried, slowest {} ms",
            total.sent,
            total.failed,
            total.retried,
            total.slowest.as_millis()
        ));
        say::line(&format!(
            "orders: {} confirmed, {} recorded, {lost} lost, {} doubled",
            total.confirmed, orders.recorded, orders.duplicates
        ));
        say::line(&format!("left behind: {}", self.leaks));
    }
}
