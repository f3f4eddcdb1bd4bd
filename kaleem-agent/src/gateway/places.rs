//! The places of a gateway's ports: those that it was started with, and those of port containers that came later.

use std::sync::OnceLock;

use super::listen::ListenSpec;

/// Most ports that come later, counted by the port inside the container. A worker never gives a place to another port.
const LATER: usize = 16;

/// Ports by their places. What is counted and kept by port has a place for each from the start.
#[derive(Debug)]
pub(crate) struct Places {
    own: Vec<ListenSpec>,
    later: [OnceLock<ListenSpec>; LATER],
}

/// Where a port has its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The gateway itself listens at a port like it.
    Own(usize),
    /// Only port containers bring it.
    Later(usize),
}

impl Place {
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Own(index) | Self::Later(index) => index,
        }
    }
}

impl Places {
    pub(crate) fn new(own: Vec<ListenSpec>) -> Self {
        Self { own, later: [const { OnceLock::new() }; LATER] }
    }

    /// How many the gateway was started with.
    pub(crate) fn own(&self) -> usize {
        self.own.len()
    }

    /// How many there can be.
    pub(crate) fn count(&self) -> usize {
        self.own.len() + LATER
    }

    /// The port with that place.
    pub(crate) fn get(&self, place: usize) -> Option<&ListenSpec> {
        self.own.get(place).or_else(|| self.later.get(place.checked_sub(self.own.len())?)?.get())
    }

    /// The place of a port like that one; `None` when all places are taken.
    pub(crate) fn of(&self, spec: &ListenSpec) -> Option<Place> {
        if let Some(index) = self.own.iter().position(|own| own.is_like(spec)) {
            return Some(Place::Own(index));
        }
        let found = self.later.iter().position(|later| later.get_or_init(|| spec.clone()).is_like(spec));
        found.map(|index| Place::Later(self.own.len() + index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_keeps_its_place_and_there_is_an_end_of_places() {
        let spec = |text: &str| text.parse::<ListenSpec>().unwrap();
        let places = Places::new(vec![spec("3000/http"), spec("9000/tcp,send-proxy")]);
        assert_eq!(places.of(&spec("127.0.0.1:9000/tcp,send-proxy")), Some(Place::Own(1)), "the address does not matter");
        assert_eq!(places.of(&spec("9000/tcp")), Some(Place::Later(2)), "it is understood in another way");
        for port in 1..LATER {
            let spec = spec(&format!("{port}/http"));
            assert_eq!(places.of(&spec), Some(Place::Later(2 + port)));
            assert_eq!(places.get(2 + port), Some(&spec));
        }
        assert_eq!(places.of(&spec("9000/tcp")), Some(Place::Later(2)), "it keeps its place");
        assert_eq!(places.of(&spec("4000/http")), None);
        assert_eq!((places.count(), places.get(places.count())), (2 + LATER, None));
    }
}
