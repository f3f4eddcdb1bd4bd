//! How every error of the command reads, and which exit code it has.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use insta::assert_snapshot;
use kaleem_backup::backups::BackupsError;
use kaleem_backup::drill::report::ReportError;
use kaleem_backup::setup::SetUpError;
use kaleem_core::config::ConfigError;
use kaleem_core::durable::{DurableError, FileOperation};
use kaleem_core::exec::ExecError;
use kaleem_core::history::HistoryError;
use kaleem_core::image::ImageRef;
use kaleem_core::journal::JournalError;
use kaleem_core::kaleem::KaleemError;
use kaleem_core::lease::LeaseError;
use kaleem_core::names::PlanId;
use kaleem_core::observed::ObserveError;
use kaleem_core::registry::RegistryError;
use kaleem_core::registry::oci::RegistrySetupError;
use kaleem_core::remedy::{Remedy, chain};
use kaleem_core::repair::RepairError;
use kaleem_core::runtime::RuntimeError;
use kaleem_core::state::StateError;
use kaleem_core::traffic::TrafficError;
use kaleem_health::SettingsError;

use super::CliError;
use crate::exit::Exit;

fn full(path: &str) -> DurableError {
    // ENOSPC.
    DurableError::Failed { operation: FileOperation::Write, path: path.into(), source: io::Error::from_raw_os_error(28) }
}

fn none() -> ConfigError {
    ConfigError::NoComposeFile { directory: "/srv".into() }
}

fn observed(source: ObserveError) -> CliError {
    CliError::Kaleem { source: KaleemError::Observe { source } }
}

fn told(errors: &[CliError]) -> String {
    let mut text = String::new();
    for error in errors {
        let debug = format!("{error:?}");
        let name = debug.split(|character: char| !character.is_alphanumeric()).next().unwrap_or_default();
        writeln!(text, "{name} [{}]", Exit::of_error(error).code()).unwrap();
        for (index, part) in chain(error).iter().enumerate() {
            writeln!(text, "  {}: {}", if index == 0 { "error" } else { "cause" }, part.replace('\n', "\n         ")).unwrap();
        }
        writeln!(text, "  help: {}\n", error.remedy()).unwrap();
    }
    text
}

#[test]
fn what_a_command_did_not_do_is_said_with_what_to_do_next() {
    let journal = || KaleemError::Journal { source: JournalError::File { source: full("/var/lib/kaleem/shop/plans/00000007.jsonl") } };
    let image = || "shop/api:v2".parse::<ImageRef>().unwrap();
    let service = || "api".parse().unwrap();
    let silent = TrafficError::TimedOut { gateway: "shop-api-gateway".parse().unwrap(), operation: "tell", limit: Duration::from_secs(10) };
    let busy = LeaseError::Busy {
        owner: "deploy by ada".to_owned(),
        pid: 4711,
        host: "web1".to_owned(),
        since: "2026-03-01 03:12:00 UTC".to_owned(),
    };
    assert_snapshot!(told(&[
        CliError::Threads { source: io::Error::from_raw_os_error(11) },
        CliError::Config { source: none() },
        CliError::NameNeeded { source: none() },
        CliError::ServiceUnknown { service: service(), known: "web, worker".to_owned() },
        CliError::ServiceUnknown { service: service(), known: String::new() },
        CliError::Write { path: "/srv/shop/kaleem.toml".into(), source: full("/srv/shop/kaleem.toml") },
        CliError::Certificates { source: DurableError::Missing { path: "/etc/ssl/own.pem".into() } },
        CliError::Duration { name: "KALEEM_REGISTRY_TIMEOUT", text: "soon".to_owned() },
        CliError::RegistrySetup { source: RegistrySetupError::Proxy },
        CliError::History { source: HistoryError::Prune { source: full("/var/lib/kaleem/shop/plans/00000001.jsonl") } },
        CliError::Repair { source: RepairError::State { source: StateError::KeyDamaged { path: "/var/lib/kaleem/shop/key".into() } } },
        CliError::Engine { source: RuntimeError::PermissionDenied { endpoint: "unix:///var/run/docker.sock".to_owned() } },
        CliError::Kaleem { source: KaleemError::Lease { source: busy } },
        CliError::Kaleem { source: journal() },
        CliError::Kaleem { source: KaleemError::GatewaysMissing { service: service() } },
        CliError::Kaleem { source: KaleemError::GatewayProgram { source: DurableError::Missing { path: "/usr/bin/kaleem-agent".into() } } },
        observed(ObserveError::NotBuilt { service: service(), image: image(), build: true }),
        observed(ObserveError::Image { service: service(), source: RegistryError::NotFound { image: image() } }),
        observed(ObserveError::Image { service: service(), source: RegistryError::Failed { image: image(), status: 503 } }),
        observed(ObserveError::Image {
            service: service(),
            source: RegistryError::Denied { image: image(), reason: "no credentials were given".to_owned() }
        }),
        CliError::Run { source: journal() },
        CliError::Stuck { plan: PlanId(7), step: 3 },
        CliError::Exists { path: "/srv/shop/kaleem.toml".into() },
        CliError::NoRelease { release: "r9".parse().unwrap(), project: "shop".parse().unwrap(), known: "r1, r2".to_owned() },
        CliError::NoRelease { release: "r9".parse().unwrap(), project: "shop".parse().unwrap(), known: String::new() },
        CliError::NotRunning { service: service() },
        CliError::NothingOpen,
        CliError::BuildTool { service: service(), source: ExecError::NotFound { program: "docker".into() } },
        CliError::NotBuildable { service: service(), known: "api, worker".to_owned() },
        CliError::BuildFailed { service: service(), status: "exit code 1".to_owned(), log: "; its last lines:\nno such file".to_owned() },
        CliError::BuildImage {
            service: service(),
            source: ObserveError::NoImage { service: service(), source: "Shop-api".parse::<ImageRef>().unwrap_err() }
        },
        CliError::AbortNotTaken { plan: PlanId(7) },
        CliError::Gateway { source: silent },
        CliError::StoreSettings {
            service: service(),
            probe: "mongodb".to_owned(),
            source: SettingsError::NotRead { what: "the variable MONGODB_URI is not set".to_owned() },
        },
        CliError::BackupSetUp { source: SetUpError::Variable { name: "KALEEM_KEY".to_owned(), what: "the passphrase".to_owned() } },
        CliError::DrillReport { source: ReportError::Random },
        CliError::Backups { source: BackupsError::NotProtected },
        CliError::Backups { source: BackupsError::NoSet },
        CliError::InBackup { source: Box::new(CliError::Backups { source: BackupsError::NoSource }) },
        CliError::YesNeeded { what: "a rollback with data".to_owned() },
        CliError::NotAgreed,
        CliError::InBackup { source: Box::new(CliError::NotAgreed) },
        CliError::KeyNeeded { set: "20260301t031200z-7-1a2b3c4d".parse().unwrap() },
        CliError::BackupRequest { reason: "`--only` names nothing".to_owned(), remedy: "name an artifact of the set".to_owned() },
    ]));
}
