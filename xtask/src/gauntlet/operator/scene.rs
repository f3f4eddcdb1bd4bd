//! What an operator does, and what comes of it: commands under load, their exit codes, and whether what they printed was true.

use std::time::Duration;

use crate::gauntlet::operator::project::Said;
use crate::gauntlet::operator::traffic::{Door, Tally};

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scene {
    /// `kaleem deploy` on a project that Compose runs.
    TakeOver,
    /// A good version of the API.
    Good,
    /// A version that never becomes healthy.
    NeverHealthy,
    /// A version that ends at once, again and again.
    CrashLoop,
    /// A version whose health fails a second after it was switched to.
    FailsAfterSwitch,
    /// A good deploy, and back at once.
    Rollback,
    /// Back from two releases that were left one after the other, with a failed deploy between: only the first one is good.
    RollbackAfterTwo,
    /// One instance becomes three.
    ScaleUp,
    /// And one again.
    ScaleDown,
    /// The API joins a network.
    NetworkAdded,
    /// And leaves it.
    NetworkRemoved,
    /// The API publishes a second port.
    PortAdded,
    /// And no longer.
    PortRemoved,
    /// A variable of the API.
    VariableChanged,
    /// A label of the API.
    LabelChanged,
    /// The API and its workers change to a new image together.
    Workers,
    /// `docker compose up -d --no-deps api`, then `status`, then `deploy`.
    ComposeOver,
    /// The state directory is gone.
    StateRemoved,
    /// The state directory is that of two releases ago.
    StateRestored,
    /// Another user, with another state directory.
    SecondUser,
    /// `doctor --repair --yes` on a project that is well.
    DoctorRepair,
    /// `eject`, then `docker compose up -d`.
    Eject,
}

impl Scene {
    /// All, in an order in which each finds what it needs.
    pub(super) const ALL: [Self; 22] = [
        Self::TakeOver,
        Self::Good,
        Self::NeverHealthy,
        Self::CrashLoop,
        Self::FailsAfterSwitch,
        Self::Rollback,
        Self::RollbackAfterTwo,
        Self::ScaleUp,
        Self::ScaleDown,
        Self::NetworkAdded,
        Self::NetworkRemoved,
        Self::PortAdded,
        Self::PortRemoved,
        Self::VariableChanged,
        Self::LabelChanged,
        Self::Workers,
        Self::DoctorRepair,
        Self::ComposeOver,
        Self::StateRemoved,
        Self::StateRestored,
        Self::SecondUser,
        Self::Eject,
    ];

    /// As the tables have it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::TakeOver => "take-over",
            Self::Good => "good deploy",
            Self::NeverHealthy => "image that never becomes healthy",
            Self::CrashLoop => "crash loop",
            Self::FailsAfterSwitch => "health fails after the switch",
            Self::Rollback => "rollback at once",
            Self::RollbackAfterTwo => "rollback after two failed releases",
            Self::ScaleUp => "scale 1 to 3",
            Self::ScaleDown => "scale 3 to 1",
            Self::NetworkAdded => "network added",
            Self::NetworkRemoved => "network removed",
            Self::PortAdded => "port added",
            Self::PortRemoved => "port removed",
            Self::VariableChanged => "variable changed",
            Self::LabelChanged => "label changed",
            Self::Workers => "API and workers together",
            Self::ComposeOver => "docker compose up run over it",
            Self::StateRemoved => "state directory removed",
            Self::StateRestored => "state directory restored",
            Self::SecondUser => "second user",
            Self::DoctorRepair => "doctor --repair --yes",
            Self::Eject => "eject, then docker compose up",
        }
    }

    /// Which requests may fail.
    pub(super) fn bar(self) -> Bar {
        match self {
            Self::TakeOver => Bar::HandOver,
            Self::ComposeOver | Self::Eject => Bar::Announced,
            Self::Good | Self::NeverHealthy | Self::CrashLoop | Self::FailsAfterSwitch => Bar::Nothing,
            Self::Rollback | Self::RollbackAfterTwo | Self::ScaleUp | Self::ScaleDown => Bar::Nothing,
            Self::NetworkAdded | Self::NetworkRemoved | Self::PortAdded | Self::PortRemoved => Bar::Nothing,
            Self::VariableChanged | Self::LabelChanged | Self::Workers | Self::DoctorRepair => Bar::Nothing,
            Self::StateRemoved | Self::StateRestored | Self::SecondUser => Bar::Nothing,
        }
    }

    /// A door that its files do not have: several containers cannot publish one port.
    pub(super) fn closes(self) -> Option<Door> {
        matches!(self, Self::ScaleUp | Self::ScaleDown).then_some(Door::Port)
    }

    /// The scene whose change this one takes out again.
    pub(super) fn undoes(self) -> Option<Self> {
        match self {
            Self::ScaleDown => Some(Self::ScaleUp),
            Self::NetworkRemoved => Some(Self::NetworkAdded),
            Self::PortRemoved => Some(Self::PortAdded),
            _ => None,
        }
    }
}

/// Which requests may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bar {
    /// None.
    Nothing,
    /// Those of the moment in which ports and names change hands.
    HandOver,
    /// Those that the scene is about: not after the command that puts it right.
    Announced,
}

/// A command of a scene, and what the load met meanwhile.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// The command and what it did.
    pub said: Said,
    /// Requests sent meanwhile.
    pub sent: u64,
    /// Of those, failed.
    pub failed: u64,
}

/// What came of a scene.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Which.
    pub scene: Scene,
    /// What the load met.
    pub tally: Tally,
    /// Its commands.
    pub told: Vec<Told>,
    /// From its first command to the end of its last.
    pub took: Duration,
    /// What was not as it must be, requests aside.
    pub faults: Vec<String>,
}

/// No single take-over may turn requests away for longer, whatever the median is.
const LONGEST_HAND_OVER: Duration = Duration::from_secs(1);

impl Row {
    /// Everything that is not as it must be.
    pub(super) fn all_faults(&self) -> Vec<String> {
        let mut faults = self.faults.clone();
        let failed = self.tally.failed();
        match self.scene.bar() {
            Bar::Nothing if failed > 0 => faults.push(format!("{failed} requests failed ({})", self.tally.failures())),
            Bar::HandOver if self.tally.refused() > LONGEST_HAND_OVER => {
                faults.push(format!("requests were turned away for {} ms ({})", self.tally.refused().as_millis(), self.tally.failures()));
            }
            Bar::Nothing | Bar::HandOver | Bar::Announced => {}
        }
        faults
    }

    /// The exit codes of its commands, kaleem's and Compose's.
    pub(super) fn codes(&self) -> String {
        let code = |told: &Told| told.said.code.map_or_else(|| "signal".to_owned(), |code| code.to_string());
        self.told.iter().map(code).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scene_is_played_after_the_one_that_it_undoes() {
        for (index, scene) in Scene::ALL.iter().enumerate() {
            let Some(before) = scene.undoes() else { continue };
            assert_eq!(index.checked_sub(1).and_then(|index| Scene::ALL.get(index)), Some(&before), "{}", scene.title());
        }
    }
}
