//! What is wrong in a project's files is said with its place and what to do, all of it at once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use kaleem_core::config::{ConfigError, LoadOptions, load, resolve};
use kaleem_core::remedy::{Remedy, chain};
use proptest::prelude::*;
use tempfile::TempDir;

#[expect(clippy::disallowed_methods, reason = "the test makes the project that it reads")]
pub(crate) fn project(files: &[(&str, &str)]) -> (TempDir, LoadOptions) {
    let directory = tempfile::Builder::new().prefix("shop").tempdir().expect("a directory");
    for (name, text) in files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("the directory can be made");
        std::fs::write(path, text).expect("the file can be written");
    }
    let options = options(directory.path());
    (directory, options)
}

fn options(directory: &Path) -> LoadOptions {
    LoadOptions {
        directory: directory.to_owned(),
        files: Vec::new(),
        env_files: Vec::new(),
        environment: BTreeMap::new(),
        profiles: Vec::new(),
        project_name: Some("shop".parse().expect("a name")),
        settings_file: None,
    }
}

/// The error as the command line prints it, with a fixed name for the directory.
fn rendered(error: &ConfigError, directory: &Path) -> String {
    let mut text = String::new();
    for (index, part) in chain(error).iter().enumerate() {
        writeln!(text, "{}: {part}", if index == 0 { "error" } else { "cause" }).expect("text grows");
    }
    writeln!(text, "help: {}", error.remedy()).expect("text grows");
    text.replace(&directory.display().to_string(), "DIR")
}

fn refused(files: &[(&str, &str)]) -> String {
    let (directory, options) = project(files);
    match load(&options) {
        Ok(_) => panic!("this was to be refused: {files:?}"),
        Err(error) => rendered(&error, directory.path()),
    }
}

/// One compose file whose only service is `api`, with these keys beside its image.
fn service(keys: &str) -> String {
    let keys: Vec<String> = keys.lines().map(|line| format!("    {line}")).collect();
    format!("services:\n  api:\n    image: example/api\n{}\n", keys.join("\n"))
}

#[test]
fn every_unreadable_file_is_named_with_the_place_and_the_way_out() {
    let bomb = {
        let mut text = "x-a: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..8 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            writeln!(text, "x-{level}: &a{level} [{aliases}]").expect("text grows");
        }
        text
    };
    let deep = format!("x-a: {}{}\n", "[".repeat(100), "]".repeat(100));
    let cases: Vec<(&str, Vec<(&str, String)>)> = vec![
        ("no compose file", vec![]),
        ("empty file", vec![("compose.yaml", String::new())]),
        ("only comments", vec![("compose.yaml", "# nothing\n".to_owned())]),
        ("a list", vec![("compose.yaml", "- a\n- b\n".to_owned())]),
        ("broken YAML", vec![("compose.yaml", "services:\n  api: [a\n  b: c\n".to_owned())]),
        ("a tab", vec![("compose.yaml", "services:\n  api:\n\timage: x\n".to_owned())]),
        ("a key twice", vec![("compose.yaml", "services:\n  api:\n    image: x\n    image: y\n".to_owned())]),
        ("an alias of nothing", vec![("compose.yaml", "services: *nothing\n".to_owned())]),
        ("an alias in itself", vec![("compose.yaml", "services: &s\n  a: *s\n".to_owned())]),
        ("a tag of nobody", vec![("compose.yaml", "services:\n  a: {image: !secret x}\n".to_owned())]),
        ("a merge of text", vec![("compose.yaml", "services:\n  a:\n    <<: text\n".to_owned())]),
        ("a bomb of aliases", vec![("compose.yaml", bomb)]),
        ("too deep", vec![("compose.yaml", deep)]),
        ("bad variables", vec![("compose.yaml", service("")), (".env", "A=1\nB='not closed\n".to_owned())]),
        ("too large", vec![("compose.yaml", " ".repeat((10 << 20) + 1))]),
    ];
    let mut told = String::new();
    for (why, files) in cases {
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        write!(told, "## {why}\n{}\n", refused(&files)).expect("text grows");
    }
    insta::assert_snapshot!(told);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test makes a file that is not text")]
fn a_file_that_is_no_text_a_directory_or_not_there_is_named() {
    let mut told = String::new();
    let (directory, mut options) = project(&[("compose.yaml/keep", "")]);
    let mut tell = |why: &str, options: &LoadOptions, directory: &Path| {
        let error = resolve(options).expect_err(why);
        write!(told, "## {why}\n{}\n", rendered(&error, directory)).expect("text grows");
    };
    tell("a directory", &options, directory.path());
    options.files = vec!["absent.yaml".into()];
    tell("not there", &options, directory.path());
    options.files = vec!["latin.yaml".into()];
    std::fs::write(directory.path().join("latin.yaml"), b"services:\n  a: caf\xe9\n").expect("the file can be written");
    tell("not UTF-8", &options, directory.path());
    let (directory, mut options) = project(&[("compose.yaml", "services: {a: {image: x}}\n")]);
    options.project_name = None;
    options.environment.insert("COMPOSE_PROJECT_NAME".to_owned(), "Not A Name".to_owned());
    tell("a bad project name", &options, directory.path());
    options.env_files = vec!["absent.env".into()];
    tell("no such --env-file", &options, directory.path());
    insta::assert_snapshot!(told);
}

#[test]
fn every_sort_of_problem_is_said_with_its_line_and_a_remedy() {
    let own = |keys: &str| vec![("compose.yaml".to_owned(), service(keys))];
    let whole = |text: &str| vec![("compose.yaml".to_owned(), text.to_owned())];
    let cases: Vec<(&str, Vec<(String, String)>)> = vec![
        ("unknown key with a likely meaning", own("enviroment: {A: 1}")),
        ("unknown key", own("qwerty: 1")),
        ("unknown key at the top", whole("services: {a: {image: x}}\nservice: {}\n")),
        ("unknown key deep down", own("deploy: {resources: {limits: {memry: 1g}}}")),
        ("a list where text belongs", own("hostname: [a]")),
        ("text where a mapping belongs", own("deploy: much")),
        ("a bad duration", own("stop_grace_period: soon")),
        ("a bad size", own("mem_limit: 12 elephants")),
        ("a bad number", own("pids_limit: many")),
        ("a bad boolean", own("init: perhaps")),
        ("a bad port", own("ports: [\"80:http\"]")),
        ("a port out of range", own("ports: [\"80:70000\"]")),
        ("ranges of different length", own("ports: [\"8000-8002:80-81\"]")),
        ("a bad protocol", own("ports: [\"80:80/icmp\"]")),
        ("an IPv6 address without brackets", own("ports: [\"::1:80:80\"]")),
        ("a long port without a target", own("ports: [{published: 80}]")),
        ("a bad mount", own("volumes: [\"a:b:c:d\"]")),
        ("a drive of Windows", own("volumes: [\"v:/data\"]")),
        ("a mount without an absolute target", own("volumes: [\"./a:data\"]")),
        ("a bad image", whole("services: {a: {image: \"Not An Image\"}}\n")),
        ("a bad restart policy", own("restart: sometimes")),
        ("a bad health test", own("healthcheck: {test: [curl, localhost]}")),
        ("a command with an open quote", own("command: \"sh -c 'x\"")),
        ("a bad container name", own("container_name: \"-x\"")),
        ("a bad condition", own("depends_on: {api2: {condition: service_happy}}")),
        ("a variable that is malformed", own("user: \"${9}\"")),
        ("a malformed variable beside a secret", own("environment: {PASSWORD: \"hunter2${\"}")),
        ("a variable that must be set", own("user: \"${DEPLOY_USER:?who runs it}\"")),
        ("no such dependency", own("depends_on: [apo]")),
        ("a dependency whose profile is not active", whole("services: {a: {image: x, depends_on: [b]}, b: {image: y, profiles: [p]}}\n")),
        ("no such network", own("networks: [front]")),
        ("no such volume, nearly", whole("services: {a: {image: x, volumes: [\"dta:/d\"]}}\nvolumes: {data: }\n")),
        ("no such secret", own("secrets: [token]")),
        ("no such config", own("configs: [settings]")),
        ("neither image nor build", whole("services: {a: {user: x}}\n")),
        ("a service that says nothing", whole("services:\n  a:\n")),
        ("no service", whole("services: {}\n")),
        (
            "services that wait for each other",
            whole("services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [c]}\n  c: {image: x, depends_on: [a]}\n"),
        ),
        ("a service that waits for itself", whole("services:\n  a: {image: x, depends_on: [a]}\n")),
        ("services that extend each other", whole("services:\n  a: {image: x, extends: b}\n  b: {extends: a}\n")),
        ("extends of nothing", whole("services:\n  apply: {image: x}\n  a: {extends: aply}\n")),
        ("extends of an absent file", whole("services:\n  a: {extends: {file: no.yaml, service: a}}\n")),
        (
            "files that include each other",
            vec![
                ("compose.yaml".to_owned(), "include: [other.yaml]\nservices: {a: {image: x}}\n".to_owned()),
                ("other.yaml".to_owned(), "include: [compose.yaml]\n".to_owned()),
            ],
        ),
        ("include of an absent file", whole("include: [no.yaml]\nservices: {a: {image: x}}\n")),
        (
            "an included service that is there already",
            vec![
                ("compose.yaml".to_owned(), "include: [other.yaml]\nservices: {a: {image: x}}\n".to_owned()),
                ("other.yaml".to_owned(), "services: {a: {image: y}}\n".to_owned()),
            ],
        ),
        ("include from elsewhere", whole("include: [{path: \"https://example.com/a.git\"}]\nservices: {a: {image: x}}\n")),
        ("no such env_file", own("env_file: absent.env")),
        (
            "two services on one port",
            whole("services:\n  a: {image: x, ports: [\"80:80\"]}\n  b: {image: y, ports: [\"127.0.0.1:80:8080\"]}\n"),
        ),
        ("one port twice", own("ports: [\"80:80\", \"80:81\"]")),
        ("one container name twice", whole("services:\n  a: {image: x, container_name: n}\n  b: {image: y, container_name: n}\n")),
        ("scale and replicas", own("scale: 2\ndeploy: {replicas: 3}")),
        ("too many replicas", own("scale: 100000")),
        ("two memory limits", own("mem_limit: 1g\ndeploy: {resources: {limits: {memory: 2g}}}")),
        ("network mode and networks", own("network_mode: host\nnetworks: [default]")),
        ("a secret from nowhere", whole("services: {a: {image: x, secrets: [s]}}\nsecrets: {s: {name: n}}\n")),
        ("a secret from an unset variable", whole("services: {a: {image: x, secrets: [s]}}\nsecrets: {s: {environment: TOKEN}}\n")),
        ("an external secret", whole("services: {a: {image: x, secrets: [s]}}\nsecrets: {s: {external: true}}\n")),
        ("a link that would hide a service", whole("services:\n  a: {image: x, links: [\"b:c\"]}\n  b: {image: x}\n  c: {image: x}\n")),
        ("not carried out: external links", own("external_links: [other]")),
        ("not carried out: hooks", own("post_start: [{command: x}]")),
        ("not carried out: volumes of a foreign container", own("volumes_from: [\"container:x\"]")),
        ("not carried out: a network by mode", own("network_mode: my-net")),
        ("not carried out: a pull policy", own("pull_policy: daily")),
        ("not carried out: pipes of Windows", own("volumes: [{type: npipe, source: x, target: /y}]")),
        ("not carried out: jobs of a swarm", own("deploy: {mode: replicated-job}")),
        ("not carried out: privileged builds", whole("services: {a: {build: {context: ., privileged: true}}}\n")),
    ];
    let mut told = String::new();
    for (why, files) in cases {
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let said = refused(&files);
        assert!(!said.contains("hunter2"), "a message shows a secret: {said}");
        write!(told, "## {why}\n{said}\n").expect("text grows");
    }
    insta::assert_snapshot!(told);
}

#[test]
fn all_problems_are_reported_at_once_in_the_order_of_the_file() {
    let text = "services:\n  a:\n    imgae: x\n    ports: [\"x\"]\n  b:\n    image: y\n    networks: [n]\n    mem_limit: lots\n    external_links: [z]\n";
    insta::assert_snapshot!(refused(&[("compose.yaml", text)]));
}

#[test]
fn what_has_no_effect_is_a_warning_and_not_silence() {
    let text = "version: '3'\nservices:\n  a:\n    image: x\n    user: \"1${SUFFIX}\"\n    attach: false\n    command: echo a && echo b\n    volumes: [\"./x:/x:cached\"]\n    develop: {watch: [{path: ., action: sync, target: /x}]}\n    secrets: [{source: s, mode: 0400}]\n    deploy: {mode: global, endpoint_mode: vip, labels: {a: b}, placement: {constraints: [x]}, rollback_config: {order: stop-first}, restart_policy: {delay: 5s}, update_config: {failure_action: pause}}\nsecrets: {s: {file: ./s}}\n";
    let (directory, options) = project(&[("compose.yaml", text)]);
    let project = load(&options).expect("only warnings");
    let told: Vec<String> =
        project.warnings.iter().map(|warning| format!("{}: {}: {}", warning.origin, warning.key, warning.reason)).collect();
    insta::assert_snapshot!(told.join("\n").replace(&directory.path().display().to_string(), "DIR"));
}

#[test]
fn a_wrong_kaleem_toml_is_refused_with_its_place() {
    let mut told = String::new();
    for (why, text) in [
        ("unknown key", "keep = 3\nkep = 4\n"),
        ("unknown key of a service", "[services.api]\nstratgy = \"rolling\"\n"),
        ("a bad duration", "[services.api.health]\ninterval = \"soon\"\n"),
        ("a bad strategy", "[services.api]\nstrategy = \"hope\"\n"),
        ("a reversible migration without its way back", "[services.api]\nmigration = \"reversible\"\n"),
        ("a private key among the recipients", "[backup]\nrecipients = [\"AGE-SECRET-KEY-1HUNTER2\"]\n"),
        ("backups protected twice", "[backup]\nunencrypted = true\npassphrase-env = \"P\"\n"),
        ("a vault that is nowhere", "[backup.vaults.disk]\nregion = \"x\"\n"),
        ("a repository of restic without a password", "[backup.vaults.disk]\nrestic = \"r\"\n"),
        ("a repository of restic with keys of a bucket", "[backup.vaults.disk]\nrestic = \"r\"\npassword-file = \"p\"\nregion = \"x\"\n"),
        ("a repository of restic that is said twice", "[backup.vaults.disk]\nrestic = \"r\"\nrestic-env = \"R\"\npassword-file = \"p\"\n"),
        ("a directory with a password", "[backup.vaults.disk]\npath = \"x\"\npassword-file = \"p\"\n"),
        (
            "a vault that is a directory and a repository of restic",
            "[backup.vaults.disk]\npath = \"x\"\nrestic = \"y\"\npassword-file = \"p\"\n",
        ),
        ("a vault that is a directory and a bucket", "[backup.vaults.disk]\npath = \"x\"\nbucket = \"y\"\n"),
        ("a source without a kind", "[backup.sources.main]\nservice = \"api\"\n"),
        ("a source that is not complete", "[backup.sources.main]\nkind = \"files\"\n"),
        ("a source of a service that is not there", "[backup.sources.main]\nkind = \"redis\"\nservice = \"cache\"\n"),
        ("users of what has none", "[backup.sources.main]\nkind = \"redis\"\nservice = \"api\"\nusers = true\n"),
        (
            "the oplog of some databases",
            "[backup.sources.main]\nkind = \"mongodb\"\nservice = \"api\"\noplog = true\ndatabases = [\"shop\"]\n",
        ),
        ("a volume that is not there", "[backup.sources.main]\nkind = \"volume\"\nvolume = \"v\"\n"),
        ("not TOML", "keep = = 3\n"),
        ("a service that is not there", "keep = 2\n\n[services.apo]\nsingleton = true\n"),
        ("two ways to ask", "[services.api.health]\nhttp = \"/\"\ntcp = 80\n"),
        ("no path", "[services.api.health]\nhttp = \"health\"\n"),
        ("nothing kept", "keep = 0\n"),
        ("a need that is nothing", "[services.api]\nneeds = [\"a b\"]\n"),
        ("a need of nobody", "[services.api]\nsingleton = true\nneeds = [\"cache/redis\"]\n"),
        ("a need of itself", "[services.api]\nneeds = [\"api\"]\n"),
        ("an unknown key of a probe", "[probes.api.redis]\nurl = \"redis://x\"\nmemory_wrn = 80\n"),
        ("a key of another kind", "[probes.api.redis]\nurl = \"redis://x\"\nroot-id = \"app\"\n"),
        ("a probe without a kind", "[probes.api.page]\nurl = \"http://api/\"\n"),
        ("an unknown kind", "[probes.api.page]\nkind = \"web\"\n"),
        ("a probe of no service", "[probes.apo.redis]\ncanary = true\n"),
        ("a password in an address", "[probes.api.redis]\nurl = \"redis://app:hunter2@x\"\n"),
        ("two passwords", "[probes.api.redis]\npassword-env = \"A\"\npassword-file = \"b\"\n"),
        ("a certificate without its key", "[probes.api.http]\ncertificate-file = \"c.pem\"\n"),
        ("a sentinel without a master", "[probes.api.redis]\ntopology = \"sentinel\"\n"),
        ("limits in the wrong order", "[probes.api.redis]\nlag-warn = \"60s\"\nlag-fail = \"30s\"\n"),
        ("depths in the wrong order", "[probes.api.rabbitmq.queues.orders]\ndepth-warn = 9\ndepth-fail = 3\n"),
        ("a command without a program", "[probes.api.command]\nexit-code = 3\n"),
        ("a command that is blank", "[probes.api.ready]\nkind = \"command\"\ncommand = [\" \", \"-q\"]\n"),
        ("a command as a text", "[probes.api.command]\ncommand = \"pg_isready -q\"\n"),
        ("an exit code that is none", "[probes.api.command]\ncommand = [\"x\"]\nexit-code = 256\n"),
        ("one exit code with two meanings", "[probes.api.command]\ncommand = [\"x\"]\nexit-warn = 0\n"),
        ("a command where there is no container", "[probes.host.load]\nkind = \"command\"\ncommand = [\"uptime\"]\n"),
        ("a container that is none", "[probes.host.container]\nkind = \"container\"\n"),
        ("an address of a container", "[probes.api.container]\nurl = \"http://api/\"\n"),
        ("restarts in the wrong order", "[probes.api.container]\nrestarts-warn = 9\nrestarts-fail = 3\n"),
        ("a name that is none", "[probes.api.\"a b\"]\nkind = \"tcp\"\n"),
    ] {
        let said = refused(&[("compose.yaml", &service("")), ("kaleem.toml", text)]);
        write!(told, "## {why}\n{said}\n").expect("text grows");
    }
    insta::assert_snapshot!(told);
}

#[test]
fn a_long_chain_of_extensions_is_refused_and_not_followed_for_ever() {
    let mut text = "services:\n  s0: {image: x}\n".to_owned();
    for number in 1..2000 {
        writeln!(text, "  s{number}: {{extends: s{}}}", number - 1).expect("text grows");
    }
    let (_directory, options) = project(&[("compose.yaml", &text)]);
    assert!(matches!(resolve(&options), Err(ConfigError::Invalid { .. })));
}

#[test]
fn files_that_include_two_others_each_are_not_read_without_end() {
    let files: Vec<(String, String)> = (0..30)
        .map(|number| (format!("f{number}.yaml"), format!("include: [f{}.yaml, g{}.yaml]\n", number + 1, number + 1)))
        .chain((0..30).map(|number| (format!("g{number}.yaml"), format!("include: [f{}.yaml, g{}.yaml]\n", number + 1, number + 1))))
        .chain(
            [("f30.yaml", "services: {a: {image: x}}\n"), ("g30.yaml", "services: {b: {image: x}}\n")]
                .map(|(a, b)| (a.to_owned(), b.to_owned())),
        )
        .chain([("compose.yaml".to_owned(), "include: [f0.yaml]\nservices: {c: {image: x}}\n".to_owned())])
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let (_directory, options) = project(&files);
    assert!(matches!(resolve(&options), Err(ConfigError::Invalid { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test makes the file that it reads")]
    fn no_bytes_in_a_compose_file_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (directory, options) = project(&[]);
        std::fs::write(directory.path().join("compose.yaml"), bytes).expect("the file can be written");
        load(&options).ok();
    }

    #[test]
    fn no_text_of_yaml_makes_it_panic(
        keys in prop::collection::vec(
            ("(image|ports|volumes|command|build|deploy|environment|networks|healthcheck|depends_on|extends|secrets|ulimits|<<|x)",
             "[-\\[\\]{}:, a-c0-9$\"'&*!/.|>#~]{0,20}"),
            0..6,
        ),
    ) {
        let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}: {value}")).collect();
        let (_directory, options) = project(&[("compose.yaml", &service(&keys.join("\n")))]);
        load(&options).ok();
    }
}
