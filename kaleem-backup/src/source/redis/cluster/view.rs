//! What one node says of its cluster: `CLUSTER NODES`, read strictly.

use crate::format::redis_cluster::{Master, Topology};

/// A cluster as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// Masters that serve slots, in the order of their first slots.
    pub(super) topology: Topology,
    /// A number that grows when slots get another master, for each of them.
    pub(super) epochs: Vec<u64>,
    /// The node that was asked.
    pub(super) myself: String,
    /// A slot that is on its way from or to the node that was asked.
    pub(super) moving: Option<String>,
}

impl View {
    /// Reads the answer.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut found: Vec<(Master, u64)> = Vec::new();
        let (mut myself, mut moving) = (None, None);
        for line in text.lines() {
            let strange = || format!("a line of CLUSTER NODES cannot be read: {line}");
            let mut fields = line.split_ascii_whitespace();
            let (Some(id), Some(address), Some(flags)) = (fields.next(), fields.next(), fields.next()) else { return Err(strange()) };
            let address = address.split(['@', ',']).next().unwrap_or_default().to_owned();
            let has = |wanted: &str| flags.split(',').any(|flag| flag == wanted);
            // The master of a replica, and two times.
            let epoch: u64 = fields.nth(3).and_then(|epoch| epoch.parse().ok()).ok_or_else(strange)?;
            if has("myself") {
                myself = Some(id.to_owned());
            }
            let mut slots = Vec::new();
            for range in fields.skip(1) {
                if range.starts_with('[') {
                    moving = Some(range.trim_matches(['[', ']']).to_owned());
                    continue;
                }
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                slots.push((first.parse().map_err(|_| strange())?, last.parse().map_err(|_| strange())?));
            }
            if has("master") && !slots.is_empty() {
                found.push((Master { id: id.to_owned(), address, slots }, epoch));
            }
        }
        found.sort_by(|(one, _), (other, _)| one.slots.cmp(&other.slots));
        let (masters, epochs) = found.into_iter().unzip();
        let myself = myself.ok_or("CLUSTER NODES does not say who answers")?;
        Ok(Self { topology: Topology::new(masters), epochs, myself, moving })
    }

    /// How the slots are shared out, whoever has them.
    pub(super) fn shares(&self) -> Vec<&[(u16, u16)]> {
        self.topology.masters.iter().map(|master| master.slots.as_slice()).collect()
    }
}

/// Where an answer sends us for a slot: `MOVED 3999 127.0.0.1:6381`.
pub(super) fn moved(reason: &str) -> Option<(u16, &str)> {
    let (slot, address) = reason.strip_prefix("MOVED ")?.split_once(' ')?;
    Some((slot.parse().ok()?, address))
}

/// Host and port of an address that a node announces; the host is empty where it does not know its own.
pub(super) fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    Some((host.trim_matches(['[', ']']), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "bb 127.0.0.1:7002@17002,host master - 0 1 2 connected 100 200-300 [93-<-aa]\n\
        cc 127.0.0.1:7003@17003 slave aa 0 1 1 connected\n\
        dd :0@0 master,noaddr - 0 1 0 disconnected\n\
        aa :7001@17001 myself,master - 0 1 1 connected 0-99 [77->-bb]\n";

    #[test]
    fn who_serves_which_slots_is_read_as_a_node_tells_it() {
        let view = View::read(TWO).unwrap();
        let masters: Vec<_> = view.topology.masters.iter().map(|master| (master.id.as_str(), master.address.as_str())).collect();
        assert_eq!(masters, [("aa", ":7001"), ("bb", "127.0.0.1:7002")]);
        assert_eq!(view.shares(), [&[(0, 99)][..], &[(100, 100), (200, 300)]]);
        assert_eq!((view.epochs.as_slice(), view.myself.as_str(), view.moving.as_deref()), (&[1, 2][..], "aa", Some("77->-bb")));
        for (why, text) in [
            ("nobody says who it is", "aa :1@2 master - 0 1 1 connected 0-99\n"),
            ("no epoch", "aa :1@2 myself,master - 0 1\n"),
            ("no slot", "aa :1@2 myself,master - 0 1 1 connected 0-x\n"),
        ] {
            assert!(View::read(text).is_err(), "{why}");
        }
    }

    #[test]
    fn an_answer_that_sends_us_elsewhere_is_understood() {
        for (answer, wanted) in [
            ("MOVED 3999 127.0.0.1:6381", Some((3999, "127.0.0.1:6381"))),
            ("ASK 3999 127.0.0.1:6381", None),
            ("MOVED x 127.0.0.1:6381", None),
        ] {
            assert_eq!(moved(answer), wanted, "{answer}");
        }
        for (address, wanted) in
            [("a:1", Some(("a", 1))), (":1", Some(("", 1))), ("::1:7", Some(("::1", 7))), ("[::1]:7", Some(("::1", 7))), ("a", None)]
        {
            assert_eq!(host_and_port(address), wanted, "{address}");
        }
    }
}
