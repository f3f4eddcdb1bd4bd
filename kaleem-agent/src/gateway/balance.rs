//! Which thread serves a new connection: all accept from one queue, so one that is quick could end up with most of them.

use std::sync::atomic::Ordering;

use super::switchboard::Switchboard;

/// How many connections a thread may have more than the one with the fewest.
const UNEVEN: usize = 2;

/// The thread that should serve a connection which `thread` accepted.
pub(crate) fn choose(board: &Switchboard, thread: usize) -> usize {
    let loads = || board.loads.iter().map(|load| load.load(Ordering::Relaxed)).enumerate();
    let mine = loads().find(|(place, _)| *place == thread).map_or(0, |(_, load)| load);
    match loads().min_by_key(|(_, load)| *load) {
        Some((place, least)) if mine > least + UNEVEN => place,
        _ => thread,
    }
}
