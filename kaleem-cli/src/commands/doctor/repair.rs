//! `kaleem doctor --repair`: what is wrong, what serves, and the safe way out of each; nothing is done without a yes.

use std::collections::BTreeSet;

use kaleem_core::config::Project;
use kaleem_core::definition::{Definition, DefinitionId};
use kaleem_core::history::History;
use kaleem_core::kaleem::{Kaleem, KaleemError};
use kaleem_core::lease::Lease;
use kaleem_core::names::{ProjectName, ServiceName};
use kaleem_core::remedy::{Remedy, one_line};
use kaleem_core::repair::host::Host;
use kaleem_core::repair::{Damage, Repair, RepairError, files};
use kaleem_core::state::StateDirectory;
use kaleem_core::traffic::{SocketTraffic, Traffic};
use serde_json::json;

use crate::commands::{reality, resume};
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::render::style::{BAD, GOOD, HELP, WARN, paint};
use crate::wiring::Wiring;
use crate::words;

/// Whether somebody has to be asked before each repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consent {
    /// `--yes`.
    Given,
    /// A person at a terminal is asked; without one the answer is no.
    Ask,
}

/// Looks for damage and repairs what may be repaired. Exits with [`Exit::Refused`] when something is left.
///
/// # Errors
///
/// [`CliError`]; what was repaired until then stays so.
pub(super) async fn run(wiring: &Wiring, printer: &Printer, consent: Consent) -> Result<Exit, CliError> {
    // A broken compose file must not stand in the way of a repair.
    let project = wiring.project();
    let name = match &project {
        Ok(project) => project.name.clone(),
        Err(_) => wiring.project_name()?,
    };
    let state = wiring.state(&name);
    let (known, key) = (state.clone(), state.key_or_ephemeral().ok());
    let find = Box::new(move |id: &DefinitionId| key.as_ref().and_then(|key| known.definition(key, id).ok()));
    let settings = project.as_ref().map(|project| project.settings.clone()).unwrap_or_default();
    let decides: Box<Decides> = Box::new(move |service| settings.decides_health(service));
    let traffic = wiring.traffic();
    let kaleem = wiring.kaleem("doctor --repair").await?;
    match kaleem.admits(&name).await {
        // Files can be repaired while the engine is away.
        Ok(()) | Err(KaleemError::Runtime { .. }) => {}
        Err(source) => return Err(CliError::Kaleem { source }),
    }
    let mut session =
        Session { wiring, printer, consent, state, name, found: 0, left: 0, stuck: None, traffic, find, decides, seen: BTreeSet::new() };
    session.files().await?;
    match wiring.history(&session.name) {
        Ok(history) => session.host(&history, project.ok().as_ref()).await?,
        Err(error) => {
            session.left += usize::from(session.left == 0);
            printer.label("error", BAD, &one_line(&error));
            printer.label("help", HELP, "the journals come first: repair them, and run the same command again for the rest");
        }
    }
    session.finish().await
}

/// Answers whether `kaleem.toml` says how a service is checked.
type Decides = dyn Fn(&ServiceName) -> bool + Sync;
/// Answers what a definition says.
type Find = dyn Fn(&DefinitionId) -> Option<Definition> + Sync;

struct Session<'a> {
    wiring: &'a Wiring,
    printer: &'a Printer,
    consent: Consent,
    state: StateDirectory,
    name: ProjectName,
    found: usize,
    left: usize,
    /// How a plan that was gone on with ended, where that is no success.
    stuck: Option<Exit>,
    /// Asks gateways.
    traffic: SocketTraffic,
    /// What a definition says.
    find: Box<Find>,
    decides: Box<Decides>,
    /// What was found already: a second look tells only what the first repairs brought to light.
    seen: BTreeSet<String>,
}

impl Session<'_> {
    async fn files(&mut self) -> Result<(), CliError> {
        if !self.state.root().exists() {
            return Ok(());
        }
        let damages = files::look(&self.state).map_err(|source| CliError::Repair { source })?;
        for damage in damages {
            if self.agreed(&damage) {
                let state = self.state.clone();
                let _lease = self.lease().await?;
                self.done(&damage, files::repair(&state, &damage.repair));
            }
        }
        Ok(())
    }

    async fn host(&mut self, history: &History, project: Option<&Project>) -> Result<(), CliError> {
        let kaleem = self.wiring.kaleem("doctor --repair").await?;
        self.definitions(&kaleem, history, project).await?;
        let mut history = history.clone();
        for damage in self.look(&kaleem, &history).await? {
            if !self.agreed(&damage) {
                continue;
            }
            if let Repair::Resume { .. } = damage.repair {
                let exit = resume::run(self.wiring, self.printer).await?;
                history = self.wiring.history(&self.name)?;
                if exit == Exit::Stuck || history.open().is_some() {
                    self.stuck = Some(exit);
                    self.left += 1;
                    continue;
                }
                self.say(&damage, "repaired", None);
                // What is left on the host can be told only now.
                for damage in self.look(&kaleem, &history).await? {
                    if self.agreed(&damage) {
                        self.on_host(&kaleem, &history, &damage).await?;
                    }
                }
                continue;
            }
            self.on_host(&kaleem, &history, &damage).await?;
        }
        // A gateway that was started may send nowhere: that is seen only now.
        for damage in self.look(&kaleem, &history).await? {
            if !self.seen.contains(&damage.message) && self.agreed(&damage) {
                self.on_host(&kaleem, &history, &damage).await?;
            }
        }
        Ok(())
    }

    async fn look(&self, kaleem: &Kaleem, history: &History) -> Result<Vec<Damage>, CliError> {
        let found = self.of(kaleem, history).look().await.map_err(|source| CliError::Repair { source })?;
        // What was so before kaleem came is no damage.
        Ok(found.into_iter().filter(|damage| !damage.is_warning()).collect())
    }

    fn of<'h>(&'h self, kaleem: &'h Kaleem, history: &'h History) -> Host<'h> {
        let (runtime, traffic): (_, Option<&dyn Traffic>) = (kaleem.runtime(), Some(&self.traffic));
        Host { runtime, traffic, find: &*self.find, history, project: &self.name, decides: &*self.decides }
    }

    async fn on_host(&mut self, kaleem: &Kaleem, history: &History, damage: &Damage) -> Result<(), CliError> {
        let _work = kaleem.work(&self.name).await.map_err(|source| CliError::Kaleem { source })?;
        let result = self.of(kaleem, history).repair(&damage.repair).await;
        self.done(damage, result);
        Ok(())
    }

    async fn definitions(&mut self, kaleem: &Kaleem, history: &History, project: Option<&Project>) -> Result<(), CliError> {
        let failed = |source| CliError::Repair { source };
        let Ok(key) = self.state.key_or_ephemeral() else { return Ok(()) };
        // What cannot be planned now cannot be written anew either; the finding says so.
        let planned = match project {
            Some(project) => kaleem.plan_deploy(project, &std::collections::BTreeMap::new()).await.ok(),
            None => None,
        };
        let described: Vec<Definition> = planned.map(|planned| planned.definitions().to_vec()).unwrap_or_default();
        let identified: Vec<_> = described.iter().filter_map(|definition| Some((key.identify(definition).ok()?, definition))).collect();
        let writable: Vec<_> = identified.iter().map(|(id, _)| id.clone()).collect();
        for damage in files::look_at_definitions(&self.state, history, &writable).map_err(failed)? {
            if !self.agreed(&damage) {
                continue;
            }
            let Repair::WriteDefinition { id } = &damage.repair else { continue };
            let _lease = self.lease().await?;
            let definition = identified.iter().find(|(known, _)| known == id).map(|(_, definition)| *definition);
            let result = match definition {
                Some(definition) => {
                    let put = self.state.put_definitions(&key, std::slice::from_ref(definition));
                    put.map(drop).map_err(|source| RepairError::State { source })
                }
                None => Err(RepairError::Elsewhere { what: damage.repair.to_string() }),
            };
            self.done(&damage, result);
        }
        Ok(())
    }

    async fn lease(&self) -> Result<Lease, CliError> {
        let owner = format!("doctor by {}", self.wiring.environment().user());
        let lease = Lease::take(self.state.root(), &owner, self.wiring.clock().clone()).await;
        lease.map_err(|source| CliError::Kaleem { source: KaleemError::Lease { source } })
    }

    /// Tells what was found, and asks whether it is to be repaired.
    fn agreed(&mut self, damage: &Damage) -> bool {
        self.found += 1;
        self.seen.insert(damage.message.clone());
        self.printer.result(&format!(
            "{} {} {}",
            paint(WARN, "  found"),
            damage.message,
            paint(crate::render::style::FAINT, &format!("[{}]", damage.kind))
        ));
        let offer = damage.repair.to_string();
        if !damage.repair.is_automatic() {
            self.printer.result(&format!("          {} {offer}", paint(HELP, "help:")));
            self.left += 1;
            self.say(damage, "by-hand", None);
            return false;
        }
        let agreed = match self.consent {
            Consent::Given => true,
            Consent::Ask => self.printer.asks(&format!("          repair: {offer}? [y/N] ")).unwrap_or_else(|| {
                self.printer.result(&format!("          {} {offer}: `kaleem doctor --repair --yes`", paint(HELP, "repair:")));
                false
            }),
        };
        if !agreed {
            self.left += 1;
            self.say(damage, "found", None);
        }
        agreed
    }

    fn done(&mut self, damage: &Damage, result: Result<(), RepairError>) {
        match result {
            Ok(()) => {
                self.printer.result(&format!("{} {}", paint(GOOD, "  mended"), damage.repair));
                self.say(damage, "repaired", None);
            }
            Err(error) => {
                self.left += 1;
                self.printer.result(&format!("{} {}: {}", paint(BAD, "  failed"), damage.repair, one_line(&error)));
                self.printer.result(&format!("          {} {}", paint(HELP, "help:"), error.remedy()));
                self.say(damage, "failed", Some(&one_line(&error)));
            }
        }
    }

    fn say(&self, damage: &Damage, state: &str, error: Option<&str>) {
        self.printer.json(&json!({
            "type": "damage",
            "kind": damage.kind,
            "message": damage.message,
            "repair": damage.repair.to_string(),
            "automatic": damage.repair.is_automatic(),
            "state": state,
            "error": error,
        }));
    }

    async fn finish(self) -> Result<Exit, CliError> {
        let history = self.wiring.history(&self.name).ok();
        let mut serving = history.as_ref().map_or_else(|| "not known: a journal cannot be read".to_owned(), words::serving);
        if let Some(history) = &history {
            let reality = reality::ask(self.wiring, &self.name, history).await.unwrap_or_default();
            serving.push_str(&reality::doubt(&reality.faults));
        }
        let summary = match (self.found, self.left) {
            (0, 0) => "nothing is damaged".to_owned(),
            (found, 0) => format!("{found} found, all repaired"),
            (found, left) => format!("{found} found, {left} left"),
        };
        self.printer.result(&summary);
        self.printer.result(&format!("{} {serving}", paint(GOOD, "serving:")));
        self.printer.json(&json!({ "type": "repair", "found": self.found, "left": self.left, "serving": serving }));
        Ok(match (self.left, self.stuck) {
            (0, _) => Exit::Done,
            (_, Some(exit)) => exit,
            (_, None) => Exit::Refused,
        })
    }
}
