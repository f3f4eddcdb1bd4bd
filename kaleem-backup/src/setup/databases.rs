//! PostgreSQL, MySQL and MariaDB of the project, which are written out and read in by their own programs in their own containers.
//!
//! User and password are taken from the variables of the container, inside it: none is ever a word of a command on this host.

use std::time::Duration;

use kaleem_core::config::{Project, Service};
use kaleem_core::names::ServiceName;

use super::{Surroundings, commands};
use crate::source::command::Commands;

/// How long looking for a program may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a dump or its restore may run.
const DUMP: Duration = Duration::from_secs(6 * 3600);

/// A database that is spoken to by programs and not at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Database {
    /// PostgreSQL and what is built on it.
    Postgres,
    /// MySQL and MariaDB.
    Mysql,
}

/// What the password and the user of PostgreSQL are, in the container; the messages are those that [`POSTGRES_RESTORE`] looks for.
macro_rules! as_postgres {
    ($rest:literal) => {
        concat!(
            "set -eu; f=${POSTGRES_PASSWORD_FILE:-${POSTGRESQL_PASSWORD_FILE:-}}; ",
            "if [ -n \"$f\" ]; then PGPASSWORD=$(cat \"$f\"); else PGPASSWORD=${POSTGRES_PASSWORD:-${POSTGRESQL_PASSWORD:-}}; fi; ",
            "PGUSER=${POSTGRES_USER:-${POSTGRESQL_USERNAME:-postgres}}; PGOPTIONS='-c lc_messages=C'; export PGPASSWORD PGUSER PGOPTIONS; ",
            // While an image sets itself up, its server does not listen on the network.
            "n=0; until pg_isready -q -h 127.0.0.1 || [ \"$n\" -ge 60 ]; do n=$((n+1)); sleep 1; done; ",
            $rest
        )
    };
}

const POSTGRES_EXPORT: &str = as_postgres!("exec pg_dumpall --clean --if-exists");
/// Ends with 0 when no database has a table.
const POSTGRES_EMPTY: &str = as_postgres!(
    "for d in $(psql -XAtq -d postgres -c 'select datname from pg_database where not datistemplate'); do \
     psql -XAtq -d \"$d\" -c \"select 1 from pg_tables where schemaname not in ('pg_catalog', 'information_schema') limit 1\" | \
     grep -q 1 && exit 1; done; exit 0"
);
/// The databases go first: a dump replaces those that it has, and leaves those that were made since.
/// A role that is there already, or that cannot go because it is the one who asks, is no failure: everything else is one.
const POSTGRES_RESTORE: &str = as_postgres!(
    "psql -XAtq -v ON_ERROR_STOP=1 -d postgres -c 'select pg_terminate_backend(pid) from pg_stat_activity \
     where pid <> pg_backend_pid() and datname is not null' >/dev/null; \
     printf '%s\\n' 'select format($$drop database %I$$, datname) from pg_database where not datistemplate and datname <> $$postgres$$ \\gexec' | \
     psql -Xq -v ON_ERROR_STOP=1 -d postgres >/dev/null; \
     said=$(psql -Xq -d postgres 2>&1 >/dev/null && echo \"exit 0\" || echo \"exit $?\"); \
     wrong=$(printf '%s\\n' \"$said\" | grep -E 'ERROR:|FATAL:|PANIC:|error:' | \
     grep -Ev 'current user cannot be dropped|role \"[^\"]*\" already exists|role \"[^\"]*\" cannot be dropped' || :); \
     if [ -n \"$wrong\" ]; then printf '%s\\n' \"$wrong\" >&2; exit 1; fi; \
     case \"$said\" in *'exit 0') ;; *) printf '%s\\n' \"$said\" >&2; exit 1;; esac"
);

/// What the password and the user of MySQL are, in the container: root, or the user of the one database where no password of root is known.
macro_rules! as_mysql {
    ($rest:literal) => {
        concat!(
            "set -eu; f=${MARIADB_ROOT_PASSWORD_FILE:-${MYSQL_ROOT_PASSWORD_FILE:-}}; w=${MARIADB_ROOT_PASSWORD:-${MYSQL_ROOT_PASSWORD:-}}; ",
            "u=${MARIADB_USER:-${MYSQL_USER:-}}; scope=--all-databases; user=root; ",
            "if [ -n \"$f\" ]; then MYSQL_PWD=$(cat \"$f\"); elif [ -n \"$w\" ] || [ -z \"$u\" ]; then MYSQL_PWD=$w; ",
            "else user=$u; MYSQL_PWD=${MARIADB_PASSWORD:-${MYSQL_PASSWORD:-}}; scope=\"--databases ${MARIADB_DATABASE:-${MYSQL_DATABASE:-}}\"; fi; ",
            "export MYSQL_PWD; pick() { if command -v \"$1\" >/dev/null 2>&1; then echo \"$1\"; else echo \"$2\"; fi; }; ",
            "sql=$(pick mariadb mysql); n=0; ",
            "until \"$sql\" --user=\"$user\" -e 'select 1' >/dev/null 2>&1 || [ \"$n\" -ge 60 ]; do n=$((n+1)); sleep 1; done; ",
            $rest
        )
    };
}

const MYSQL_EXPORT: &str = as_mysql!(
    "exec \"$(pick mariadb-dump mysqldump)\" --user=\"$user\" --single-transaction --quick --routines --events --triggers $scope"
);
const MYSQL_EMPTY: &str = as_mysql!(
    "! \"$sql\" --user=\"$user\" -N -e \"select 1 from information_schema.tables where table_schema not in \
     ('mysql', 'information_schema', 'performance_schema', 'sys') limit 1\" | grep -q 1"
);
/// The databases go first: a dump replaces the tables that it has, and leaves those that were made since.
const MYSQL_RESTORE: &str = as_mysql!(
    "\"$sql\" --user=\"$user\" -N -e \"select concat('drop database \\`', schema_name, '\\`;') from information_schema.schemata \
     where schema_name not in ('mysql', 'information_schema', 'performance_schema', 'sys')\" | \"$sql\" --user=\"$user\"; \
     exec \"$sql\" --user=\"$user\""
);

impl Database {
    /// The database that a service is, by its image.
    pub(super) fn of(service: &Service) -> Option<Self> {
        match service.image.as_ref()?.base_name() {
            "postgres" | "postgresql" | "postgis" | "pgvector" | "timescaledb" | "timescaledb-ha" => Some(Self::Postgres),
            "mysql" | "mysql-server" | "mariadb" | "percona" | "percona-server" => Some(Self::Mysql),
            _ => None,
        }
    }

    /// Ends with 0 where its container has the program that writes it out.
    fn tools(self) -> &'static str {
        match self {
            Self::Postgres => "command -v pg_dumpall",
            Self::Mysql => "command -v mariadb-dump || command -v mysqldump",
        }
    }

    /// What is run in its container.
    pub(super) fn commands(self) -> Commands {
        let shell = |script: &str| ["sh", "-c", script].map(str::to_owned).to_vec();
        let (export, restore, is_empty) = match self {
            Self::Postgres => (POSTGRES_EXPORT, POSTGRES_RESTORE, POSTGRES_EMPTY),
            Self::Mysql => (MYSQL_EXPORT, MYSQL_RESTORE, MYSQL_EMPTY),
        };
        Commands { export: shell(export), restore: Some(shell(restore)), is_empty: Some(shell(is_empty)), timeout: DUMP }
    }
}

/// Those whose containers have the program that writes them out. One that does not run now may have it.
pub(super) async fn usable(around: &Surroundings<'_>) -> Vec<(ServiceName, Database)> {
    let mut usable = Vec::new();
    for (service, database) in found(around.project) {
        let missing = match (&around.runtime, commands::container(around, service)) {
            (Some(runtime), Some(container)) => {
                let words = ["sh", "-c", database.tools()].map(str::to_owned);
                runtime.exec(&container, &words, ANSWER).await.is_ok_and(|ran| ran.exit_code != 0)
            }
            (_, _) => false,
        };
        if !missing {
            usable.push((service.clone(), database));
        }
    }
    usable
}

/// The databases of a project for which `kaleem.toml` says nothing: no source of its own, and not left out.
pub(super) fn found(project: &Project) -> impl Iterator<Item = (&ServiceName, Database)> {
    let settings = &project.settings.backup;
    project.services.iter().filter_map(move |(name, service)| {
        let database = Database::of(service)?;
        let said = settings.sources.iter().any(|(source, said)| source == name.as_str() || said.service.as_ref() == Some(name));
        let left_out = settings.leave_out.iter().any(|out| out == name.as_str());
        (!said && !left_out).then_some((name, database))
    })
}
