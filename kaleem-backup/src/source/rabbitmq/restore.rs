//! Putting definitions back, and taking away what is not among them.
//!
//! Where the user who is logged in is itself among them, with another password, the work is done by an administrator that
//! is made for it and goes with it: else the broker would shut us out in the middle, and nothing could be read back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kaleem_core::backup::{Contents, RestoreMode, SourceError};
use kaleem_core::secret::Secret;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Depth, RabbitmqSource};
use crate::format::canonical;
use crate::format::definitions::Definitions;
use crate::random;
use crate::web::Login;

/// What the administrator that is made for a restore is called, with random digits behind it.
const HELPER: &str = "kaleem-restore-";
/// A broker counts what its queues hold every 5 s, unless it is set otherwise (`collect_statistics_interval`), and the
/// management plug-in takes over the counts as often.
const COUNTED_WITHIN: Duration = Duration::from_secs(11);
/// Kinds that a broker has by itself.
const OWN: [&str; 4] = ["users", "vhosts", "permissions", "global_parameters"];
/// Kinds, in the order in which what is too much goes: what refers to others first.
const REMOVED: [&str; 10] = [
    "bindings",
    "policies",
    "parameters",
    "global_parameters",
    "queues",
    "exchanges",
    "topic_permissions",
    "permissions",
    "users",
    "vhosts",
];

fn field<'a>(item: &'a Value, name: &str) -> &'a str {
    item.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Where a definition is below `/api`; two of one kind with one place are the same thing, now so and now so.
fn place(kind: &str, item: &Value) -> Vec<String> {
    let path: Vec<&str> = match kind {
        "users" => vec!["users", field(item, "name")],
        "vhosts" => vec!["vhosts", field(item, "name")],
        "permissions" => vec!["permissions", field(item, "vhost"), field(item, "user")],
        "topic_permissions" => vec!["topic-permissions", field(item, "vhost"), field(item, "user"), field(item, "exchange")],
        "parameters" => vec!["parameters", field(item, "component"), field(item, "vhost"), field(item, "name")],
        "global_parameters" => vec!["global-parameters", field(item, "name")],
        "policies" => vec!["policies", field(item, "vhost"), field(item, "name")],
        "queues" => vec!["queues", field(item, "vhost"), field(item, "name")],
        "exchanges" => vec!["exchanges", field(item, "vhost"), field(item, "name")],
        // A binding has no name: it is what it says.
        _ => return vec![kind.to_owned(), canonical::text(item)],
    };
    path.into_iter().map(str::to_owned).collect()
}

impl Depth {
    fn place(&self) -> Vec<String> {
        vec!["queues".to_owned(), self.vhost.clone(), self.name.clone()]
    }

    fn would_lose(&self, messages: Option<u64>) -> SourceError {
        let held = messages.map_or_else(|| "messages".to_owned(), |messages| format!("{messages} messages"));
        let reason = format!("the queue is not in the set, or is another there, and holds {held}, which no backup holds");
        SourceError::WouldLose { what: format!("what the queue `{}` of `{}` holds", self.name, self.vhost), reason }
    }
}

/// What stands in the way of a restore, and what has to go for it.
struct Change {
    /// Queues and exchanges that are there in another form: the broker changes none of these.
    another: Vec<Vec<String>>,
    /// What is not among the wanted, by kind.
    extra: Vec<(&'static str, Value)>,
}

impl RabbitmqSource {
    pub(super) async fn put_back(&self, wanted: &Definitions, mode: RestoreMode) -> Result<Contents, SourceError> {
        let there = self.definitions().await?.1;
        if mode == RestoreMode::IntoEmpty {
            self.is_empty(&there)?;
        }
        let change = self.change(wanted, &there);
        let doomed = self.doomed(&change).await?;
        let same = |user: &&Value| field(user, "name") == self.user;
        let (ours, theirs) = (there.of("users").iter().find(same), wanted.of("users").iter().find(same));
        let shut_out = theirs.is_some_and(|theirs| ours.is_none_or(|ours| canonical::text(ours) != canonical::text(theirs)));
        if !shut_out {
            self.remove_empty(&doomed, &there).await?;
            return self.carry_out(wanted, &change).await;
        }
        let helper = self.make_helper(&there).await?;
        let done = match helper.remove_empty(&doomed, &there).await {
            Ok(()) => helper.carry_out(wanted, &change).await,
            Err(error) => Err(error),
        };
        // The helper removes itself: after this nobody else may be allowed to.
        let gone = helper.web.expect("remove a user", Method::DELETE, &["api", "users", &helper.user], &[], None).await;
        let contents = done?;
        gone.map(|_| contents)
    }

    /// A broker as it comes out of its package: one user, one virtual host, nothing in it.
    fn is_empty(&self, there: &Definitions) -> Result<(), SourceError> {
        let taken = |what: String| Err(SourceError::NotEmpty { what: format!("{what} of {}", self.web.store) });
        if let Some((kind, _)) = there.parts.iter().find(|(kind, items)| !OWN.contains(&kind.as_str()) && !items.is_empty()) {
            return taken(format!("the list of {kind}"));
        }
        if there.of("vhosts").iter().any(|vhost| field(vhost, "name") != "/") {
            return taken("the list of vhosts".to_owned());
        }
        match there.of("users").iter().find(|user| field(user, "name") != self.user && !is_helper(field(user, "name"))) {
            Some(user) => taken(format!("the list of users (there is `{}`)", field(user, "name"))),
            None => Ok(()),
        }
    }

    fn change(&self, wanted: &Definitions, there: &Definitions) -> Change {
        let mut change = Change { another: Vec::new(), extra: Vec::new() };
        for kind in REMOVED {
            let places: BTreeMap<Vec<String>, String> =
                wanted.of(kind).iter().map(|item| (place(kind, item), canonical::text(item))).collect();
            for item in there.of(kind) {
                match places.get(&place(kind, item)) {
                    Some(text) if matches!(kind, "queues" | "exchanges") && *text != canonical::text(item) => {
                        change.another.push(place(kind, item));
                    }
                    Some(_) => (),
                    // Whoever restores keeps the door that he came in by.
                    None if kind == "users" && field(item, "name") == self.user => (),
                    None if kind == "permissions" && field(item, "user") == self.user => (),
                    None => change.extra.push((kind, item.clone())),
                }
            }
        }
        change
    }

    /// The queues that have to go, none of which held a message when the broker last counted.
    async fn doomed(&self, change: &Change) -> Result<Vec<Depth>, SourceError> {
        let queues: BTreeSet<Vec<String>> = change
            .another
            .iter()
            .cloned()
            .chain(change.extra.iter().filter(|(kind, _)| *kind == "queues").map(|(kind, item)| place(kind, item)))
            .collect();
        let vhosts: BTreeSet<&str> =
            change.extra.iter().filter(|(kind, _)| *kind == "vhosts").map(|(_, item)| field(item, "name")).collect();
        let goes = |queue: &Depth| vhosts.contains(queue.vhost.as_str()) || queues.contains(&queue.place());
        let mut doomed: Vec<Depth> = self.depths().await?.into_iter().filter(goes).collect();
        if doomed.iter().any(|queue| !queue.is_classic) {
            // Of these kinds nothing but the count can be had, so it has to be one of after now.
            tokio::time::sleep(COUNTED_WITHIN).await;
            doomed = self.depths().await?.into_iter().filter(goes).collect();
        }
        // What the broker does not know may be anything.
        match doomed.iter().find(|queue| queue.messages != Some(0)) {
            Some(queue) => Err(queue.would_lose(queue.messages)),
            None => Ok(doomed),
        }
    }

    /// Removes queues that hold nothing. Where one does after all, those that went are declared again.
    async fn remove_empty(&self, doomed: &[Depth], there: &Definitions) -> Result<(), SourceError> {
        let doing = "remove a queue that is not among the definitions";
        for queue in doomed.iter().filter(|queue| !queue.is_exclusive) {
            let condition = [("if-empty", "true")];
            let query = if queue.is_classic { &condition[..] } else { &[] };
            let path = ["api", "queues", &queue.vhost, &queue.name];
            let answer = self.web.ask(doing, Method::DELETE, &path, query, None).await?;
            if queue.is_classic && answer.status == StatusCode::BAD_REQUEST {
                self.write(there).await?;
                return Err(queue.would_lose(None));
            }
            if answer.status != StatusCode::NOT_FOUND {
                self.web.accept(doing, answer)?;
            }
        }
        Ok(())
    }

    async fn write(&self, definitions: &Definitions) -> Result<(), SourceError> {
        let body: Value = definitions.parts.iter().map(|(kind, items)| (kind.clone(), Value::Array(items.clone()))).collect();
        self.web.expect("write definitions", Method::POST, &["api", "definitions"], &[], Some(&body)).await.map(|_| ())
    }

    async fn make_helper(&self, there: &Definitions) -> Result<Self, SourceError> {
        let text = random::digits::<24>().map_err(|error| self.web.failed("choosing a name", error.to_string()))?;
        let (name, password) = text.split_at(8);
        let user = format!("{HELPER}{name}");
        let account = json!({ "password": password, "tags": "administrator" });
        self.web.expect("make a user", Method::PUT, &["api", "users", &user], &[], Some(&account)).await?;
        let web = self.web.with_login(Login::Basic { user: user.clone(), password: Secret::new(password.to_owned()) });
        let helper = Self { identity: self.identity.clone(), web, user };
        for vhost in there.of("vhosts") {
            helper.enter(field(vhost, "name")).await?;
        }
        Ok(helper)
    }

    /// Gives whoever is logged in every right in a virtual host, which removing what is in it takes.
    async fn enter(&self, vhost: &str) -> Result<(), SourceError> {
        let all = json!({ "configure": ".*", "write": ".*", "read": ".*" });
        let path = ["api", "permissions", vhost, &self.user];
        self.web.expect("give itself rights", Method::PUT, &path, &[], Some(&all)).await.map(|_| ())
    }

    async fn carry_out(&self, wanted: &Definitions, change: &Change) -> Result<Contents, SourceError> {
        for path in &change.another {
            self.remove(path).await?;
        }
        self.write(wanted).await?;
        let gone: BTreeSet<&str> = change.extra.iter().filter(|(kind, _)| *kind == "vhosts").map(|(_, item)| field(item, "name")).collect();
        for (kind, item) in &change.extra {
            // What is in a virtual host goes with it.
            if *kind != "vhosts" && gone.contains(field(item, "vhost")) {
                continue;
            }
            match *kind {
                "bindings" => self.unbind(item).await?,
                "topic_permissions" => self.remove(&place(kind, item).into_iter().take(3).collect::<Vec<_>>()).await?,
                // A broker names itself when nobody does.
                "global_parameters" => (),
                "users" if is_helper(field(item, "name")) && field(item, "name") == self.user => (),
                _ => self.remove(&place(kind, item)).await?,
            }
        }
        let found = self.definitions().await?.1;
        let contents = self.without_own(wanted, found).contents();
        match crate::set::difference(&contents, &wanted.contents()) {
            None => Ok(contents),
            Some(reason) => Err(SourceError::Differs { what: self.web.store.clone(), reason }),
        }
    }

    /// Without the user by whom this is done, where it is not among what was restored.
    fn without_own(&self, wanted: &Definitions, mut found: Definitions) -> Definitions {
        for (kind, name) in [("users", "name"), ("permissions", "user"), ("topic_permissions", "user")] {
            let places: BTreeSet<Vec<String>> = wanted.of(kind).iter().map(|item| place(kind, item)).collect();
            if let Some(items) = found.parts.get_mut(kind) {
                items.retain(|item| {
                    let own = field(item, name) == self.user || is_helper(field(item, name));
                    !own || places.contains(&place(kind, item))
                });
            }
        }
        let places: BTreeSet<Vec<String>> = wanted.of("global_parameters").iter().map(|item| place("global_parameters", item)).collect();
        if let Some(items) = found.parts.get_mut("global_parameters") {
            items.retain(|item| places.contains(&place("global_parameters", item)));
        }
        found
    }

    async fn remove(&self, path: &[String]) -> Result<(), SourceError> {
        let mut whole = vec!["api"];
        whole.extend(path.iter().map(String::as_str));
        let doing = "remove what is not among the definitions";
        let answer = self.web.ask(doing, Method::DELETE, &whole, &[], None).await?;
        match answer.status.as_u16() {
            // It went with something else.
            404 => Ok(()),
            _ => self.web.accept(doing, answer).map(|_| ()),
        }
    }

    async fn unbind(&self, wanted: &Value) -> Result<(), SourceError> {
        let vhost = field(wanted, "vhost");
        let listed = self.web.json("read its bindings", Method::GET, &["api", "bindings", vhost], &[], None).await?;
        let is_it = |found: &&Value| {
            ["source", "destination", "destination_type", "routing_key"].iter().all(|name| field(found, name) == field(wanted, name))
                && canonical::text(found.get("arguments").unwrap_or(&Value::Null))
                    == canonical::text(wanted.get("arguments").unwrap_or(&Value::Null))
        };
        let Some(found) = listed.as_array().and_then(|listed| listed.iter().find(is_it)) else { return Ok(()) };
        let kind = if field(wanted, "destination_type") == "queue" { "q" } else { "e" };
        let path = ["bindings", vhost, "e", field(wanted, "source"), kind, field(wanted, "destination"), field(found, "properties_key")];
        self.remove(&path.map(str::to_owned)).await
    }
}

fn is_helper(name: &str) -> bool {
    name.starts_with(HELPER)
}
