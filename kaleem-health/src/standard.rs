//! The front door: which probe answers which question.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kaleem_core::health::{Door, Finding, Need, ProbeTarget, Probes, Question, Verdict};
use kaleem_core::names::ProjectName;
use kaleem_core::runtime::Console;

use crate::dependencies::Dependencies;

/// Answers every question of [`Question`] from the host that it runs on.
///
/// A container is reached by its address on one of its networks; one with the host's network by 127.0.0.1. Where
/// its addresses cannot be reached (an engine without root rights, macvlan), the port that it publishes is asked.
#[derive(Clone)]
pub struct StandardProbes {
    #[cfg_attr(not(feature = "command"), expect(dead_code, reason = "only commands need the engine"))]
    console: Arc<dyn Console>,
    dependencies: Option<Arc<Dependencies>>,
}

impl StandardProbes {
    /// Probes that run their commands through `console`; an `Arc<dyn Runtime>` is one.
    pub fn new(console: Arc<dyn Console>) -> Self {
        Self { console, dependencies: None }
    }

    /// The same with what services need, so that gates can ask that too. Without it every need is unknown.
    #[must_use]
    pub fn with_dependencies(mut self, dependencies: Arc<Dependencies>) -> Self {
        self.dependencies = Some(dependencies);
        self
    }
}

impl std::fmt::Debug for StandardProbes {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("StandardProbes")
    }
}

#[async_trait]
#[cfg_attr(
    not(any(feature = "http", feature = "tcp", feature = "command")),
    expect(unused_variables, reason = "what the engine said takes neither time nor a target that can be reached")
)]
impl Probes for StandardProbes {
    async fn ask(&self, question: &Question, target: &ProbeTarget, timeout: Duration) -> Finding {
        match question {
            #[cfg(feature = "container")]
            Question::Running => crate::container::running(target),
            #[cfg(feature = "container")]
            Question::Healthcheck => crate::container::healthcheck(target),
            #[cfg(feature = "http")]
            Question::Http { port, path, statuses, host, contains } => {
                let request = crate::http::Request { port: *port, path, statuses: *statuses, host: host.as_deref() };
                crate::http::ask(&request, contains.as_deref(), target, timeout).await
            }
            #[cfg(feature = "tcp")]
            Question::Tcp { port } => crate::tcp::ask(*port, target, timeout).await,
            #[cfg(feature = "command")]
            Question::Command { command } => crate::command::ask(self.console.as_ref(), command, target, timeout).await,
            #[cfg(not(all(feature = "container", feature = "http", feature = "tcp", feature = "command")))]
            other => Finding::new(Verdict::Unknown, format!("this build of kaleem cannot ask `{other}`"))
                .with_remedy("build kaleem-health with the feature of that question"),
        }
    }

    async fn ask_need(&self, _project: &ProjectName, need: &Need, timeout: Duration) -> Finding {
        match &self.dependencies {
            Some(dependencies) => dependencies.ask(need, timeout).await,
            None => Finding::new(Verdict::Unknown, format!("this program does not know how `{need}` is asked"))
                .with_remedy("deploy with `kaleem`, or give the probes their dependencies"),
        }
    }

    async fn ask_door(&self, door: &Door, timeout: Duration) -> Finding {
        #[cfg(feature = "http")]
        return crate::door::ask(door, timeout).await;
        #[cfg(not(feature = "http"))]
        Finding::new(Verdict::Unknown, format!("this build of kaleem cannot ask {door}"))
            .with_remedy("build kaleem-health with the feature `http`")
    }
}
