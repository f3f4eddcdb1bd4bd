//! What a service of MongoDB is for a drill: one server by itself, empty, with the first user of its image at most.
//!
//! What only makes sense beside other members, for users who are not in a set, or in the first life of the real one, is left out:
//! a server that waits for others, or that scripts have filled, cannot be restored to.

use kaleem_core::definition::{Definition, Healthcheck, MountSource};
use kaleem_core::secret::Secret;

/// Options of `mongod` that make it wait for other members, or ask for keys and certificates that clients of a drill do not have.
const OTHERS: [&str; 6] = ["--replSet", "--keyFile", "--clusterAuthMode", "--shardsvr", "--configsvr", "--transitionToAuth"];
/// What these options begin with.
const ENCRYPTED: [&str; 2] = ["--tls", "--ssl"];
/// Variables that make images of others do the same.
const VARIABLES: [&str; 2] = ["MONGODB_REPLICA_SET_", "MONGODB_ADVERTISED_"];
/// Where images have what is run when a directory of data is new.
const FIRST_SCRIPTS: &str = "/docker-entrypoint-initdb.d";

/// User and password.
pub(super) type Login = (String, Secret<String>);

/// Makes of a service's definition that of a scratch server; answers its first user.
pub(super) fn alone(definition: &mut Definition) -> Option<Login> {
    let root = first_user(definition);
    let option = |option: &str| {
        // Without a user of the image nobody could log in.
        OTHERS.contains(&option) || ENCRYPTED.iter().any(|start| option.starts_with(start)) || (root.is_none() && option == "--auth")
    };
    for words in [&mut definition.entrypoint, &mut definition.command].into_iter().flatten() {
        *words = without(words, &option);
    }
    definition.environment.retain(|name, _| !VARIABLES.iter().any(|start| name.starts_with(start)));
    let first = |path: &str| path == FIRST_SCRIPTS || path.starts_with(&format!("{FIRST_SCRIPTS}/"));
    definition.mounts.retain(|mount| !first(mount.target.trim_end_matches('/')));
    definition.files.retain(|file| !first(&file.path));
    // It often asks whether there is a primary, or makes one. The drill asks the server itself.
    definition.healthcheck = Some(Healthcheck::DISABLED);
    root
}

/// Words without those options and their values. A word that is a line of a shell loses them as well, and stays as it is else.
fn without(words: &[String], left_out: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut rest = words.iter().peekable();
    let mut kept = Vec::new();
    while let Some(word) = rest.next() {
        if word.contains(char::is_whitespace) {
            kept.push(line_without(word, left_out));
        } else if !left_out(word.split('=').next().unwrap_or_default()) {
            kept.push(word.clone());
        } else if !word.contains('=') {
            rest.next_if(|next| is_value(next));
        }
    }
    kept
}

fn line_without(line: &str, left_out: &dyn Fn(&str) -> bool) -> String {
    let mut pieces = line.split_inclusive(char::is_whitespace).peekable();
    let mut kept = String::new();
    while let Some(piece) = pieces.next() {
        let word = piece.trim_end();
        if !left_out(word.split('=').next().unwrap_or_default()) {
            kept.push_str(piece);
            continue;
        }
        // The end of a line is more than a space between two words.
        let mut last = piece;
        if !word.contains('=') && !last.ends_with('\n') {
            last = pieces.next_if(|next| is_value(next.trim_end())).unwrap_or(last);
        }
        if last.ends_with('\n') {
            kept.push('\n');
        }
    }
    kept
}

/// `mongod` takes nothing but options and their values; what a shell reads is neither.
fn is_value(word: &str) -> bool {
    !word.is_empty() && !word.starts_with(['-', '&', '|', ';', '<', '>', '\\'])
}

/// The first user of a new server, as the image is told.
fn first_user(definition: &Definition) -> Option<Login> {
    let said = |name: &str| {
        let plain = definition.environment.get(name).cloned().flatten();
        let in_file = || file(definition, definition.environment.get(&format!("{name}_FILE"))?.as_deref()?);
        plain.or_else(in_file).filter(|value| !value.is_empty())
    };
    let official = || Some((said("MONGO_INITDB_ROOT_USERNAME")?, said("MONGO_INITDB_ROOT_PASSWORD")?));
    let other = || Some((said("MONGODB_ROOT_USER").unwrap_or_else(|| "root".to_owned()), said("MONGODB_ROOT_PASSWORD")?));
    let (user, password) = official().or_else(other)?;
    Some((user, Secret::new(password)))
}

/// What a file in the container holds, where it comes from a secret or from this host.
fn file(definition: &Definition, path: &str) -> Option<String> {
    let given = definition.files.iter().find(|file| file.path == path).map(|file| file.content.clone());
    let mounted = || {
        let mount = definition.mounts.iter().find(|mount| mount.target == path)?;
        let MountSource::Bind { path, .. } = &mount.source else { return None };
        std::fs::read_to_string(path).ok()
    };
    // As a shell's `$(< FILE)` takes it.
    given.or_else(mounted).map(|text| text.trim_end_matches('\n').to_owned())
}

#[cfg(test)]
mod tests {
    use kaleem_core::definition::{InjectedFile, Mount};

    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn with(variables: &[(&str, &str)]) -> Definition {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned())));
        Definition { environment: variables.collect(), ..Definition::default() }
    }

    #[test]
    fn a_scratch_mongodb_waits_for_nobody_and_wants_no_key() {
        for (why, said, wanted) in [
            ("a member of a set", &["mongod", "--replSet", "rs0", "--keyFile=/k", "--bind_ip_all"][..], &["mongod", "--bind_ip_all"][..]),
            ("a shard", &["mongod", "--shardsvr", "--port", "27018"], &["mongod", "--port", "27018"]),
            (
                "encrypted",
                &["mongod", "--tlsMode", "requireTLS", "--tlsCertificateKeyFile", "/c", "--tlsAllowInvalidHostnames", "--quiet"],
                &["mongod", "--quiet"],
            ),
            ("users that are not in the set", &["mongod", "--auth", "--quiet"], &["mongod", "--quiet"]),
            (
                "a line of a shell",
                &["sh", "-c", "mongod --replSet rs0 --port 1 &\nsleep 5;  mongosh --eval 'rs.initiate()'; wait"],
                &["sh", "-c", "mongod --port 1 &\nsleep 5;  mongosh --eval 'rs.initiate()'; wait"],
            ),
            ("options that are the last of a line", &["sh", "-c", "mongod --auth --replSet=a\necho"], &["sh", "-c", "mongod \necho"]),
        ] {
            let mut definition = Definition { command: Some(words(said)), entrypoint: Some(words(said)), ..Definition::default() };
            assert!(alone(&mut definition).is_none());
            assert_eq!((definition.command, definition.entrypoint), (Some(words(wanted)), Some(words(wanted))), "{why}");
        }
    }

    #[test]
    fn its_first_user_is_that_of_the_image_and_logs_in() {
        let mut in_files = with(&[("MONGO_INITDB_ROOT_USERNAME", "root"), ("MONGO_INITDB_ROOT_PASSWORD_FILE", "/run/secrets/word")]);
        in_files.files =
            vec![InjectedFile { path: "/run/secrets/word".to_owned(), content: "hunter2\n".to_owned(), mode: 0o400, uid: 0, gid: 0 }];
        for (why, mut definition, wanted) in [
            ("nobody", with(&[]), None),
            ("in variables", with(&[("MONGO_INITDB_ROOT_USERNAME", "root"), ("MONGO_INITDB_ROOT_PASSWORD", "hunter2")]), Some("root")),
            ("a user without a password", with(&[("MONGO_INITDB_ROOT_USERNAME", "root")]), None),
            ("in a file", in_files, Some("root")),
            ("another image", with(&[("MONGODB_ROOT_PASSWORD", "hunter2"), ("MONGODB_REPLICA_SET_MODE", "primary")]), Some("root")),
        ] {
            definition.command = Some(words(&["mongod", "--auth"]));
            let root = alone(&mut definition);
            assert_eq!(root.as_ref().map(|(user, _)| user.as_str()), wanted, "{why}");
            assert!(root.is_none_or(|(_, password)| password.expose() == "hunter2"), "{why}");
            assert_eq!(definition.command.unwrap().len() == 2, wanted.is_some(), "{why}: only who can log in must");
            assert!(!definition.environment.contains_key("MONGODB_REPLICA_SET_MODE"), "{why}");
        }
    }

    #[test]
    fn what_fills_a_new_server_is_left_out() {
        let mount = |target: &str| Mount { target: target.to_owned(), read_only: true, source: MountSource::Anonymous };
        let mounts = ["/docker-entrypoint-initdb.d/", "/docker-entrypoint-initdb.d/a.js", "/etc/mongod.conf"].map(mount).to_vec();
        let mut definition = Definition { mounts, ..Definition::default() };
        alone(&mut definition);
        let left: Vec<&str> = definition.mounts.iter().map(|mount| mount.target.as_str()).collect();
        assert_eq!(left, ["/etc/mongod.conf"]);
    }
}
