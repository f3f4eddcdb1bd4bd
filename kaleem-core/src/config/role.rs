//! What a service does in its project: judged by its image, its command, its mounts, and by the others.

use std::collections::BTreeSet;

use super::{DependencyCondition, Project, Service};
use crate::definition::{Mount, MountSource, NetworkMode, RestartPolicy};
use crate::health::DependencyKind;
use crate::image::{ImageFacts, ImageKind, ImageRef};
use crate::names::ServiceName;

/// What a service does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Another service waits for it to complete.
    OneShot,
    /// It keeps data or messages for others.
    Store,
    /// It runs a client of a store, whose image it has, and is none itself: `redis-cli`, `mongosh --eval "rs.initiate()"`.
    Client,
    /// It starts work at certain times, as cron and Celery beat do: two of it would start everything twice.
    Scheduler,
    /// It watches others, and nobody calls it.
    Agent,
    /// It runs another command of the image of this service, and nobody calls it.
    Worker(ServiceName),
    /// It waits for work, by its name or its command, and nobody calls it: what its image exposes is another program's.
    Consumer,
    /// It answers others, or might.
    Server,
}

/// Programs that run the server of a store.
const SERVERS: &[&str] = &[
    "redis-server",
    "redis-sentinel",
    "valkey-server",
    "keydb-server",
    "mongod",
    "mongos",
    "rabbitmq-server",
    "postgres",
    "mysqld",
    "mariadbd",
    "qdrant",
    "minio",
    "nats-server",
    "etcd",
    "memcached",
    "clickhouse-server",
    "cassandra",
    "elasticsearch",
    "influxd",
    "docker-entrypoint.sh",
];

/// Programs that ask a store, and end.
const CLIENTS: &[&str] = &[
    "redis-cli",
    "valkey-cli",
    "keydb-cli",
    "mongo",
    "mongosh",
    "mongodump",
    "mongorestore",
    "mongoimport",
    "mongoexport",
    "psql",
    "pg_dump",
    "pg_restore",
    "pg_isready",
    "createdb",
    "mysql",
    "mysqldump",
    "mysqladmin",
    "mariadb",
    "mariadb-dump",
    "rabbitmqctl",
    "rabbitmqadmin",
    "rabbitmq-diagnostics",
    "mc",
    "cqlsh",
    "clickhouse-client",
    "etcdctl",
    "influx",
    "nats",
    "curl",
    "wget",
];

/// Words of a command that start work at certain times.
const SCHEDULERS: &[&str] =
    &["beat", "celerybeat", "cron", "crond", "cronjob", "scheduler", "schedule", "supercronic", "ofelia", "clockwork"];

/// Words of a name or a command that wait for work and never end by themselves.
const WORKERS: &[&str] = &["worker", "workers", "consumer", "consumers", "daemon", "horizon", "listener", "sidekiq"];

/// Directories in a container that two instances may write to at the same time: files that are made once, appended to, or made anew.
const SHARED_TARGETS: &[&str] = &["cache", "certs", "log", "logs", "run", "socket", "sockets", "static", "ssl", "tmp"];
/// Places of the host that belong to it, and not to the service.
const HOST_PLACES: &[&str] =
    &["/dev", "/etc", "/lib/modules", "/proc", "/run", "/sys", "/usr/share/zoneinfo", "/var/run", "/var/log", "/var/lib/docker"];
/// Endings of files that two instances may share although they could be data: fixtures, and sockets.
const READ_BY_MANY: &[&str] = &["json", "sock", "sql"];
/// Endings of files that people write, also where a container may write them: they forget `:ro`.
const WRITTEN_BY_PEOPLE: &[&str] = &[
    "cert",
    "cfg",
    "cnf",
    "conf",
    "config",
    "crt",
    "css",
    "env",
    "htm",
    "html",
    "htpasswd",
    "ini",
    "js",
    "key",
    "lua",
    "pem",
    "php",
    "properties",
    "py",
    "rb",
    "sh",
    "template",
    "toml",
    "ts",
    "xml",
    "yaml",
    "yml",
];

impl Role {
    /// The role of a service with this image, of which these facts are known.
    pub fn of(project: &Project, service: &Service, image: &ImageRef, facts: &ImageFacts) -> Self {
        if project.services.values().any(|other| waits_for_end(other, &service.name)) {
            return Self::OneShot;
        }
        let kind = ImageKind::of(image);
        if kind.is_store() {
            return if runs_client(service) { Self::Client } else { Self::Store };
        }
        let called = is_called(project, service);
        let names: Vec<&str> = if called { Vec::new() } else { vec![service.name.as_str()] };
        let words = command(service, facts);
        let schedules = |text: &str| tokens(text).any(|token| SCHEDULERS.contains(&token.to_ascii_lowercase().as_str()));
        // `celery worker -B` runs the schedule in the worker.
        let in_worker = words.iter().any(|word| word == "-B") && words.iter().any(|word| word.contains("celery"));
        if in_worker || words.iter().any(|word| schedules(word)) || names.into_iter().chain([image.base_name()]).any(schedules) {
            return Self::Scheduler;
        }
        if called {
            return Self::Server;
        }
        if kind == ImageKind::Agent {
            return Self::Agent;
        }
        let definition = &service.definition;
        // Without a port of its image it is a worker in any case.
        let other_command = !facts.exposed_ports.is_empty() && (definition.command.is_some() || definition.entrypoint.is_some());
        let same_image = |other: &&Service| {
            let same = match (&other.image, &other.build) {
                (Some(one), _) => Some(one) == service.image.as_ref(),
                (None, build) => service.image.is_none() && build == &service.build,
            };
            let differs = other.definition.command != definition.command || other.definition.entrypoint != definition.entrypoint;
            other.name != service.name && same && differs && is_called(project, other)
        };
        match project.services.values().find(|other| other_command && same_image(other)) {
            Some(other) => Self::Worker(other.name.clone()),
            None if waits_for_work(service, &words) => Self::Consumer,
            None => Self::Server,
        }
    }

    /// Whether another may reach it under its name, so that it needs a place where requests go while it is replaced.
    pub fn answers(&self) -> bool {
        match self {
            Self::OneShot | Self::Client | Self::Agent | Self::Worker(_) | Self::Consumer | Self::Scheduler => false,
            Self::Store | Self::Server => true,
        }
    }
}

/// Whether a service that has the image of a store runs one of its clients, or is waited for until it ends: then it is no server.
pub fn runs_client(service: &Service) -> bool {
    let definition = &service.definition;
    let mut words = definition.entrypoint.iter().flatten().chain(definition.command.iter().flatten()).filter(|word| !word.is_empty());
    let Some(first) = words.next() else { return false };
    let program = |word: &str| word.rsplit('/').next().unwrap_or_default().to_owned();
    match program(first).as_str() {
        name if SERVERS.contains(&name) => {
            // The image's own starting script runs whatever comes after it.
            name == "docker-entrypoint.sh" && words.next().is_some_and(|next| CLIENTS.contains(&program(next).as_str()))
        }
        name if CLIENTS.contains(&name) => true,
        "sh" | "bash" | "ash" | "dash" => {
            let script: Vec<String> = words.flat_map(|word| tokens_of_shell(word)).map(program).collect();
            let runs = |programs: &[&str]| script.iter().any(|word| programs.contains(&word.as_str()));
            runs(CLIENTS) && !runs(SERVERS)
        }
        _ => false,
    }
}

/// Whether a container that ends with 0 may have done what it was made for: nothing starts it again, and it serves nobody.
///
/// A server or a worker that somebody stopped ends with 0, too. So what others reach, what runs the server of its image, and what works for ever
/// by its kind or its name is none that may end.
pub fn may_end(project: &Project, service: &Service, image: &ImageRef, facts: &ImageFacts) -> bool {
    let definition = &service.definition;
    let stays_down = matches!(definition.restart, RestartPolicy::No | RestartPolicy::OnFailure(_));
    let waited_for_as_server = |other: &Service| {
        other.depends_on.get(&service.name).is_some_and(|dependency| dependency.condition == DependencyCondition::ServiceHealthy)
    };
    if !stays_down || is_named(project, service) || project.services.values().any(waited_for_as_server) {
        return false;
    }
    if ImageKind::of(image) == ImageKind::Agent || waits_for_work(service, &command(service, facts)) {
        return false;
    }
    match Role::of(project, service, image, facts) {
        Role::OneShot | Role::Client | Role::Worker(_) => true,
        Role::Store | Role::Scheduler | Role::Agent | Role::Consumer => false,
        // Ports of an image are those of its own program: another command of it may be anything.
        Role::Server => facts.exposed_ports.is_empty() || definition.command.is_some() || definition.entrypoint.is_some(),
    }
}

/// Whether its name or its command says that it is a worker.
fn waits_for_work(service: &Service, words: &[String]) -> bool {
    let mut tokens = words.iter().flat_map(|word| tokens(word)).chain(tokens(service.name.as_str()));
    tokens.any(|token| WORKERS.contains(&token.to_ascii_lowercase().as_str()))
}

/// Where a service writes what two instances must not write at the same time: the first such place.
///
/// What a web server writes, caches and certificates, may be written by two of them; so may logs and files for a time.
pub fn writes_alone<'a>(service: &'a Service, image: &ImageRef, facts: &ImageFacts) -> Option<&'a Mount> {
    if is_proxy(service, image, facts) {
        return None;
    }
    service.definition.mounts.iter().filter(|mount| !mount.read_only && !is_shared_target(&mount.target)).find(|mount| {
        match &mount.source {
            MountSource::Volume { .. } => true,
            MountSource::Bind { path, .. } => !is_of_host(path, &mount.target),
            MountSource::Anonymous | MountSource::Tmpfs { .. } => false,
        }
    })
}

/// The store that a service is, if somebody here knows how to ask it: by its image, unless it runs a client or is waited for until it ends.
pub fn dependency(project: &Project, service: &Service) -> Option<DependencyKind> {
    let kind = DependencyKind::of_image(service.image.as_ref()?)?;
    let ends = project.services.values().any(|other| waits_for_end(other, &service.name));
    (!ends && !runs_client(service)).then_some(kind)
}

fn waits_for_end(other: &Service, name: &ServiceName) -> bool {
    other.depends_on.get(name).is_some_and(|dependency| dependency.condition == DependencyCondition::ServiceCompletedSuccessfully)
}

fn is_proxy(service: &Service, image: &ImageRef, facts: &ImageFacts) -> bool {
    let words = command(service, facts);
    let programs = || words.iter().take(2).map(|word| word.rsplit('/').next().unwrap_or_default());
    ImageKind::of(image) == ImageKind::Proxy
        || programs().any(|program| ["nginx", "openresty", "caddy", "haproxy", "envoy"].contains(&program))
}

fn is_shared_target(target: &str) -> bool {
    target.split('/').any(|part| SHARED_TARGETS.contains(&part))
}

fn is_of_host(path: &str, target: &str) -> bool {
    let below = |place: &str| path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    path == "/" || HOST_PLACES.iter().any(|place| below(place)) || is_written_by_people(target) || ends_in(target, READ_BY_MANY)
}

/// Whether a file's name ends as those do that people write.
pub fn is_written_by_people(path: &str) -> bool {
    ends_in(path, WRITTEN_BY_PEOPLE)
}

fn ends_in(path: &str, endings: &[&str]) -> bool {
    let ending = path.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map(|(_, ending)| ending.to_ascii_lowercase());
    ending.is_some_and(|ending| endings.contains(&ending.as_str()))
}

/// What its program is started with: the file's words, else those of the image.
pub fn command(service: &Service, facts: &ImageFacts) -> Vec<String> {
    let definition = &service.definition;
    let own: Vec<String> = definition.entrypoint.iter().flatten().chain(definition.command.iter().flatten()).cloned().collect();
    if own.is_empty() { facts.command.clone() } else { own }
}

/// Whether it is asked in FastCGI or in uwsgi's own protocol, and not in HTTP.
pub fn speaks_fastcgi(service: &Service, facts: &ImageFacts) -> bool {
    let words = command(service, facts);
    let programs = || words.iter().flat_map(|word| tokens_of_shell(word)).map(|word| word.rsplit('/').next().unwrap_or_default());
    let fpm = programs().any(|program| program.starts_with("php-fpm") || program.starts_with("php5-fpm") || program == "spawn-fcgi");
    let uwsgi = programs().any(|program| program == "uwsgi") && !words.iter().any(|word| word.contains("--http"));
    service.image.as_ref().is_some_and(|image| ImageKind::of(image) == ImageKind::FastCgi) || fpm || uwsgi
}

/// Whether anything says that others call it: a port that it publishes or names, or another service that names it or waits for it.
fn is_called(project: &Project, service: &Service) -> bool {
    let waits = |other: &Service| other.name != service.name && other.depends_on.contains_key(&service.name);
    is_named(project, service) || project.services.values().any(waits)
}

/// The same without those that only wait for it: they wait for a job as well as for a server.
fn is_named(project: &Project, service: &Service) -> bool {
    let definition = &service.definition;
    let health = project.settings.services.get(&service.name).and_then(|settings| settings.health.as_ref());
    if !definition.ports.is_empty()
        || !definition.expose.is_empty()
        || health.is_some_and(|health| health.http.is_some() || health.tcp.is_some())
    {
        return true;
    }
    let mut names = BTreeSet::from([service.name.as_str()]);
    names.extend(service.container_name.as_ref().map(|name| name.as_str()));
    names.extend(definition.hostname.as_deref());
    if let NetworkMode::Networks(networks) = &definition.network {
        names.extend(networks.iter().flat_map(|network| network.aliases.iter().map(String::as_str)));
    }
    // Labels are how proxies such as Traefik find it.
    if definition.labels.keys().any(|label| label.starts_with("traefik.") || label.starts_with("caddy")) {
        return true;
    }
    project.services.values().filter(|other| other.name != service.name).any(|other| {
        let definition = &other.definition;
        let texts = definition
            .environment
            .values()
            .flatten()
            .chain(definition.command.iter().flatten())
            .chain(definition.entrypoint.iter().flatten());
        let mut words = texts.flat_map(|text| hosts(text));
        words.any(|word| names.contains(word))
    })
}

/// Words of a text as names of hosts are made of.
fn hosts(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !(letter.is_ascii_alphanumeric() || "-_.".contains(letter))).filter(|word| !word.is_empty())
}

fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty())
}

fn tokens_of_shell(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| letter.is_whitespace() || ";&|()\"'`".contains(letter)).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Definition;

    fn service(name: &str, image: &str, command: &[&str]) -> Service {
        let command = (!command.is_empty()).then(|| command.iter().map(|word| (*word).to_owned()).collect());
        Service {
            name: name.parse().unwrap(),
            image: Some(image.parse().unwrap()),
            build: None,
            pull_policy: super::super::PullPolicy::Missing,
            replicas: 1,
            container_name: None,
            depends_on: Default::default(),
            definition: Definition { command, ..Definition::default() },
            update: super::super::UpdateSettings::default(),
            origin: super::super::Origin { file: "compose.yaml".into(), line: 1, column: 1 },
            compose_hash: super::super::ComposeHash::default(),
        }
    }

    fn project(services: Vec<Service>) -> Project {
        Project {
            name: "shop".parse().unwrap(),
            directory: "/srv".into(),
            files: Vec::new(),
            services: services.into_iter().map(|service| (service.name.clone(), service)).collect(),
            networks: Default::default(),
            volumes: Default::default(),
            warnings: Vec::new(),
            settings: Default::default(),
            inputs: super::super::Inputs::default(),
        }
    }

    fn role(project: &Project, name: &str, facts: &ImageFacts) -> Role {
        let service = project.services.values().find(|service| service.name.as_str() == name).unwrap();
        Role::of(project, service, service.image.as_ref().unwrap(), facts)
    }

    #[test]
    fn a_service_is_what_it_runs_and_not_what_its_image_is_called() {
        for (why, image, command, expected) in [
            ("a store", "redis:7", vec!["redis-server", "--appendonly", "yes"], Role::Store),
            ("a store with flags alone", "redis:7", vec!["--appendonly", "yes"], Role::Store),
            ("a store by its image's command", "mongo:7", vec![], Role::Store),
            ("a client", "redis:7", vec!["redis-cli", "-h", "db", "set", "a", "1"], Role::Client),
            ("a client in a shell", "mongo:7", vec!["bash", "-c", "sleep 5; mongosh --host db --eval 'rs.initiate()'"], Role::Client),
            ("a client behind the image's script", "postgres:16", vec!["docker-entrypoint.sh", "psql", "-c", "select 1"], Role::Client),
            ("a server in a shell", "redis:7", vec!["sh", "-c", "redis-server & redis-cli ping; wait"], Role::Store),
            ("a script that nobody knows", "postgres:16", vec!["/start.sh"], Role::Store),
            ("Celery beat", "team/app:1", vec!["celery", "-A", "app", "beat"], Role::Scheduler),
            ("a worker with the schedule in it", "team/app:1", vec!["celery", "-A", "app", "worker", "-B"], Role::Scheduler),
            ("a worker", "team/app:1", vec!["celery", "-A", "app", "worker"], Role::Consumer),
            ("an exporter", "oliver006/redis_exporter", vec![], Role::Agent),
            ("an administration page", "mongo-express", vec![], Role::Server),
        ] {
            let project = project(vec![service("one", image, &command)]);
            assert_eq!(role(&project, "one", &ImageFacts::default()), expected, "{why}");
        }
    }

    #[test]
    fn another_command_of_an_image_that_serves_is_a_worker_unless_it_is_called() {
        let mut web = service("web", "team/app:1", &[]);
        web.definition.expose.push(crate::definition::ContainerPort { port: 8000, protocol: crate::definition::Protocol::Tcp });
        let worker = service("worker", "team/app:1", &["run", "worker"]);
        let facts = ImageFacts { exposed_ports: vec!["8000/tcp".to_owned()], ..ImageFacts::default() };
        let alone = project(vec![web.clone(), worker.clone()]);
        assert_eq!(role(&alone, "worker", &facts), Role::Worker("web".parse().unwrap()));
        // The image of the API, without the API.
        assert_eq!(role(&project(vec![worker.clone()]), "worker", &facts), Role::Consumer);
        web.definition.environment.insert("QUEUE_URL".to_owned(), Some("http://worker:8000/".to_owned()));
        assert_eq!(role(&project(vec![web, worker]), "worker", &facts), Role::Server, "another names it");
    }

    #[test]
    fn a_job_may_end_and_a_server_or_a_worker_that_somebody_stopped_may_not() {
        let exposing = |port: &str| ImageFacts { exposed_ports: vec![port.to_owned()], ..ImageFacts::default() };
        let none = ImageFacts::default;
        for (why, name, image, words, facts, expected) in [
            ("a job", "buckets", "team/tools:1", vec!["make-buckets"], none(), true),
            ("a client of a store", "init", "mongo:7", vec!["mongosh", "--eval", "rs.initiate()"], exposing("27017/tcp"), true),
            ("a job of the server's image", "migrate", "team/app:1", vec!["migrate"], exposing("3000/tcp"), true),
            ("the server of its image", "web", "team/app:1", vec![], exposing("3000/tcp"), false),
            ("a store", "cache", "redis:7", vec!["redis-server"], exposing("6379/tcp"), false),
            ("a schedule", "beat", "team/app:1", vec!["celery", "beat"], none(), false),
            ("an agent", "logs", "grafana/promtail", vec![], none(), false),
            ("a worker by its command", "queue", "team/app:1", vec!["php", "artisan", "queue:work", "--daemon"], none(), false),
            ("a worker by its name", "mail-worker", "team/app:1", vec!["mail"], none(), false),
        ] {
            let mut one = service(name, image, &words);
            one.definition.restart = RestartPolicy::No;
            let ends = |project: &Project| {
                let one = project.services.values().find(|one| one.name.as_str() == name).unwrap();
                may_end(project, one, one.image.as_ref().unwrap(), &facts)
            };
            assert_eq!(ends(&project(vec![one.clone()])), expected, "{why}");
            let mut other = service("other", "team/other", &[]);
            let wait = |condition| super::super::Dependency { condition, restart: false, required: true };
            other.depends_on.insert(one.name.clone(), wait(DependencyCondition::ServiceStarted));
            assert_eq!(ends(&project(vec![one.clone(), other.clone()])), expected, "{why}: another starts after it");
            other.depends_on.insert(one.name.clone(), wait(DependencyCondition::ServiceHealthy));
            assert!(!ends(&project(vec![one.clone(), other.clone()])), "{why}: another waits until it is healthy");
            other.depends_on.clear();
            other.definition.environment.insert("URL".to_owned(), Some(format!("http://{name}:80/")));
            assert!(!ends(&project(vec![one.clone(), other])), "{why}: another calls it");
            one.definition.restart = RestartPolicy::UnlessStopped;
            assert!(!ends(&project(vec![one])), "{why}: it is started again");
        }
    }

    #[test]
    fn a_directory_of_the_host_is_data_unless_it_is_known_not_to_be() {
        for (why, image, path, target, expected) in [
            ("data", "team/notes", "/srv/data", "/data", true),
            ("a page's code", "team/notes", "/srv/app", "/app", true),
            ("a file that somebody forgot to protect", "team/notes", "/srv/app.conf", "/etc/app.conf", false),
            ("the engine's socket", "team/notes", "/var/run/docker.sock", "/var/run/docker.sock", false),
            ("logs", "team/notes", "/srv/logs", "/app/logs", false),
            ("a web server's cache", "nginx:1", "/srv/cache", "/var/cache/nginx", false),
            ("a web server's pages", "nginx:1", "/srv/www", "/usr/share/nginx/html", false),
            ("certificates that one process writes", "traefik:v3", "/srv/acme", "/acme", true),
        ] {
            let mut service = service("one", image, &[]);
            let source = MountSource::Bind { path: path.to_owned(), create_host_path: true, propagation: None, selinux: None };
            service.definition.mounts.push(Mount { target: target.to_owned(), read_only: false, source });
            let image = service.image.clone().unwrap();
            assert_eq!(writes_alone(&service, &image, &ImageFacts::default()).is_some(), expected, "{why}");
            service.definition.mounts[0].read_only = true;
            assert!(writes_alone(&service, &image, &ImageFacts::default()).is_none(), "{why}, read-only");
        }
    }

    #[test]
    fn fastcgi_is_told_by_the_image_or_by_what_it_starts() {
        for (why, image, command, expected) in [
            ("by its tag", "php:8.3-fpm", vec![], true),
            ("by its command", "team/shop", vec!["php-fpm8.2", "-F"], true),
            ("by its command in a shell", "team/shop", vec!["sh", "-c", "migrate && exec /usr/sbin/php-fpm"], true),
            ("uwsgi's own protocol", "team/shop", vec!["uwsgi", "--socket", ":3031"], true),
            ("uwsgi in HTTP", "team/shop", vec!["uwsgi", "--http-socket", ":8000"], false),
            ("PHP in Apache", "php:8.3-apache", vec![], false),
        ] {
            let service = service("one", image, &command);
            assert_eq!(speaks_fastcgi(&service, &ImageFacts::default()), expected, "{why}");
        }
        let facts = ImageFacts { command: vec!["php-fpm".to_owned()], ..ImageFacts::default() };
        let service = service("one", "team/shop", &[]);
        assert!(speaks_fastcgi(&service, &facts), "by the image's command");
    }
}
