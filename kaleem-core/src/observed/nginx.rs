//! nginx looks names up once, when it starts, or keeps what it looked up for as long as the answer says.
//!
//! Its configuration is read as nginx reads it, from text: nothing here asks anybody.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::settings::parse_duration;
use crate::names::ContainerName;
use crate::runtime::{Process, Runtime};

/// Time for which the container engine's name server says that an answer is good.
const ENGINE_ANSWER: Duration = Duration::from_secs(600);

/// Directives that send requests to an address.
const PASSES: &[&str] = &["proxy_pass", "grpc_pass", "fastcgi_pass", "uwsgi_pass", "scgi_pass", "memcached_pass"];

/// Directives whose words are names, and never where requests go.
const NAMING: &[&str] = &["server_name", "upstream", "location", "listen"];

/// One directive of a configuration, and those in its block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directive {
    /// Its name and its arguments, without quotes.
    pub words: Vec<String>,
    /// What is between its braces.
    pub block: Vec<Directive>,
}

/// How nginx keeps the address of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// For so long: a resolver looks it up again.
    For(Duration),
    /// Until it is reloaded or restarted.
    UntilReload,
    /// In the shared memory of an upstream (`zone`, `server NAME resolve`), for so long, whether it is reloaded or not. Only a restart
    /// forgets it sooner.
    InZone(Duration),
}

/// The command with which the nginx of a container tests (`-t`) or prints (`-T`) the configuration that it runs with: the file is the one
/// of its command line. Where that cannot be seen, or says nothing, it is nginx's own.
pub async fn command(runtime: &dyn Runtime, container: &ContainerName, flag: &str) -> Vec<String> {
    let seen = runtime.inside(std::slice::from_ref(container)).await.unwrap_or_default().remove(container).unwrap_or_default();
    let mut command = vec!["nginx".to_owned(), flag.to_owned()];
    command.extend(options(&seen.processes));
    command
}

/// The options of a command line that say which file nginx reads. Its master process shows them behind its own title.
pub(super) fn options(processes: &[Process]) -> Vec<String> {
    let found = processes.iter().map(|process| options_of(&process.words.join(" "))).find(|options| !options.is_empty());
    found.unwrap_or_default()
}

fn options_of(line: &str) -> Vec<String> {
    let words = line.split(|letter: char| letter == '\0' || letter.is_whitespace()).filter(|word| !word.is_empty());
    let is_program = |word: &str| matches!(word.rsplit('/').next(), Some("nginx" | "openresty" | "angie"));
    let mut behind = false;
    let options = words.skip_while(|word| !is_program(word)).filter(move |word| {
        let option = *word == "-c" || *word == "-p";
        std::mem::replace(&mut behind, option) || option || word.starts_with("-c") || word.starts_with("-p")
    });
    options.map(str::to_owned).collect()
}

/// How a configuration keeps the address of one of `names`, in the way that is hardest to end; `None` where it names none of them.
pub fn kept(directives: &[Directive], names: &BTreeSet<&str>) -> Option<Kept> {
    let mut all = Vec::new();
    flatten(directives, &mut all);
    let upstreams: BTreeSet<&str> = all.iter().filter_map(|directive| directive.argument_of("upstream")).collect();
    let answer = || all.iter().filter_map(|directive| directive.valid()).max().unwrap_or(ENGINE_ANSWER);
    let upstream = all.iter().filter(|directive| directive.name() == "upstream").flat_map(|upstream| {
        let own = upstream.block.iter().find_map(Directive::valid);
        let servers = upstream.block.iter().filter(|server| server.argument_of("server").is_some_and(|to| names.contains(host(to))));
        servers.map(move |server| match server.has("resolve") {
            true => Kept::InZone(own.unwrap_or_else(answer)),
            false => Kept::UntilReload,
        })
    });
    let literal = all.iter().filter_map(|directive| directive.target()).filter(|target| !target.contains('$')).map(host);
    let literal = literal.filter(|name| names.contains(name) && !upstreams.contains(name)).map(|_| Kept::UntilReload);
    // `set $to http://api:3000; proxy_pass $to;`, or a `map` in between: looked up by the resolver, at each request whose answer is too old.
    let by_variable = all.iter().filter_map(|directive| directive.target()).any(|target| target.contains('$'));
    let resolved = all.iter().any(|directive| directive.name() == "resolver");
    let says = |directive: &&&Directive| !NAMING.contains(&directive.name()) && directive.name() != "server";
    let named = || all.iter().filter(says).any(|directive| directive.words.iter().skip(1).any(|word| names.contains(host(word))));
    let variable = (by_variable && resolved && named()).then(|| Kept::For(answer()));
    upstream.chain(literal).chain(variable).max()
}

/// Names whose address a configuration keeps until nginx is reloaded or restarted.
pub fn remembered<'a>(directives: &[Directive], names: &BTreeSet<&'a str>) -> BTreeSet<&'a str> {
    let lasts = |name: &&&str| matches!(kept(directives, &BTreeSet::from([**name])), Some(Kept::UntilReload | Kept::InZone(_)));
    names.iter().filter(lasts).copied().collect()
}

impl Directive {
    fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// Whether one of its arguments is this word.
    fn has(&self, word: &str) -> bool {
        self.words.iter().skip(1).any(|found| found == word)
    }

    /// The first argument, where this is the directive `name`.
    fn argument_of(&self, name: &str) -> Option<&str> {
        self.words.get(1).filter(|_| self.name() == name).map(String::as_str)
    }

    /// Where it sends requests, if that is what it does.
    fn target(&self) -> Option<&str> {
        self.words.get(1).filter(|_| PASSES.contains(&self.name())).map(String::as_str)
    }

    /// How long a resolver keeps an answer, where this is one that says so.
    fn valid(&self) -> Option<Duration> {
        let valid = self.words.iter().filter(|_| self.name() == "resolver").find_map(|word| word.strip_prefix("valid="))?;
        // A number alone is seconds.
        valid.parse().map(Duration::from_secs).ok().or_else(|| parse_duration(valid))
    }
}

fn flatten<'a>(directives: &'a [Directive], into: &mut Vec<&'a Directive>) {
    for directive in directives {
        into.push(directive);
        flatten(&directive.block, into);
    }
}

fn host(target: &str) -> &str {
    let address = target.split_once("://").map_or(target, |(_, rest)| rest);
    address.split([':', '/', '$']).next().unwrap_or_default()
}

/// Reads a configuration. What is not one gives whatever it looks like: no text is refused.
pub fn parse(configuration: &str) -> Vec<Directive> {
    let mut reader = Reader { text: configuration, deep: 0 };
    let mut directives = Vec::new();
    // A brace too many ends a block that was never begun; what comes after it counts all the same.
    while !reader.text.is_empty() {
        directives.extend(reader.block());
    }
    directives
}

/// Blocks within blocks that are followed; nginx itself has no use for a tenth of them.
const DEEPEST: u32 = 60;

struct Reader<'a> {
    text: &'a str,
    deep: u32,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let letter = self.text.chars().next()?;
        self.text = self.text.get(letter.len_utf8()..).unwrap_or_default();
        Some(letter)
    }

    /// Directives up to the end of the block, or of the text.
    fn block(&mut self) -> Vec<Directive> {
        let (mut directives, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
        while let Some(letter) = self.next() {
            match letter {
                '#' if word.is_none() => self.text = self.text.find('\n').and_then(|end| self.text.get(end..)).unwrap_or_default(),
                '"' | '\'' if word.is_none() => word = Some(self.quoted(letter)),
                '\\' => word.get_or_insert_default().extend(self.next()),
                '$' if self.text.starts_with('{') => {
                    let word = word.get_or_insert_default();
                    word.push('$');
                    while let Some(letter) = self.next() {
                        word.push(letter);
                        if letter == '}' {
                            break;
                        }
                    }
                }
                ';' | '{' | '}' => {
                    words.extend(word.take());
                    let words = std::mem::take(&mut words);
                    let is_program = words.first().is_some_and(|name: &String| name.ends_with("_by_lua_block"));
                    let block = match letter {
                        '{' if is_program || self.deep >= DEEPEST => self.skip(),
                        '{' => {
                            self.deep = self.deep.saturating_add(1);
                            let block = self.block();
                            self.deep = self.deep.saturating_sub(1);
                            block
                        }
                        _ => Vec::new(),
                    };
                    if !words.is_empty() {
                        directives.push(Directive { words, block });
                    }
                    if letter == '}' {
                        return directives;
                    }
                }
                _ if letter.is_whitespace() => words.extend(word.take()),
                _ => word.get_or_insert_default().push(letter),
            }
        }
        directives
    }

    fn quoted(&mut self, quote: char) -> String {
        let mut text = String::new();
        while let Some(letter) = self.next() {
            match letter {
                '\\' => text.extend(self.next()),
                _ if letter == quote => break,
                _ => text.push(letter),
            }
        }
        text
    }

    /// Passes over a block that is no configuration, such as a program.
    fn skip(&mut self) -> Vec<Directive> {
        let mut open = 1_u32;
        while let (true, Some(letter)) = (open > 0, self.next()) {
            match letter {
                '{' => open = open.saturating_add(1),
                '}' => open = open.saturating_sub(1),
                _ => {}
            }
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_literal_names_of_services_are_remembered() {
        let services = BTreeSet::from(["api", "web"]);
        for (why, text, expected) in [
            ("literal", "location / { proxy_pass http://api:3000/; }", vec!["api"]),
            ("in quotes", "location / { proxy_pass 'http://api:3000'; }", vec!["api"]),
            ("variable", "set $to http://api:3000; proxy_pass $to;", vec![]),
            ("variable in the middle", "proxy_pass http://$host:3000;", vec![]),
            ("upstream", "upstream a { server api:3000; server web weight=2; }", vec!["api", "web"]),
            ("an upstream that has the name of a service", "upstream api { server web:1; } proxy_pass http://api;", vec!["web"]),
            ("an upstream in a zone", "upstream a { zone a 64k; server api:3000 resolve; }", vec!["api"]),
            ("a server block", "server { listen 80; }", vec![]),
            ("comment", "# proxy_pass http://api;", vec![]),
            ("elsewhere", "proxy_pass https://example.com;", vec![]),
            ("a stream", "stream { server { listen 5432; proxy_pass web:5432; } }", vec!["web"]),
            ("behind a program", "content_by_lua_block { if x then y = '}' .. \"{\" end } proxy_pass http://api;", vec!["api"]),
            ("behind a variable in braces", "return 301 https://${host}/; proxy_pass http://api;", vec!["api"]),
            ("a brace too many", "server { } } proxy_pass http://api;", vec!["api"]),
        ] {
            assert_eq!(remembered(&parse(text), &services), expected.into_iter().collect(), "{why}");
        }
    }

    #[test]
    fn an_address_is_kept_until_a_reload_or_as_long_as_the_resolver_says() {
        let names = BTreeSet::from(["api"]);
        let seconds = |number| Some(Kept::For(Duration::from_secs(number)));
        let zone = |number| Some(Kept::InZone(Duration::from_secs(number)));
        for (why, text, expected) in [
            ("literal", "proxy_pass http://api:3000;", Some(Kept::UntilReload)),
            ("literal beside a resolver", "resolver 127.0.0.11 valid=5s; proxy_pass http://api:3000;", Some(Kept::UntilReload)),
            ("the engine's answer is good for 600 s", "resolver 127.0.0.11; set $to http://api:3000; proxy_pass $to;", seconds(600)),
            ("said", "resolver 127.0.0.11 valid=5s; set $to http://api:3000; proxy_pass $to;", seconds(5)),
            ("a number alone", "resolver 127.0.0.11 valid=30 ipv6=off; set $to http://api; proxy_pass $to;", seconds(30)),
            ("a path by variable", "resolver 127.0.0.11; proxy_pass http://api$request_uri;", seconds(600)),
            ("through a map", "resolver 127.0.0.11; map $host $to { default http://api:3000; } proxy_pass $to;", seconds(600)),
            ("in a zone", "resolver 127.0.0.11; upstream a { zone a 64k; server api:3000 resolve; keepalive 8; }", zone(600)),
            ("in a zone, said", "upstream a { zone a 64k; resolver 127.0.0.11 valid=9s; server api:3000 resolve; }", zone(9)),
            ("the worst of two", "proxy_pass http://api; resolver x valid=3s; upstream a { zone a 1m; server api resolve; }", zone(3)),
            ("only a name of its own", "resolver 127.0.0.11; server_name api; proxy_pass $to;", None),
            ("another service", "resolver 127.0.0.11; set $to http://web; proxy_pass $to;", None),
            ("no service at all", "server { listen 80; root /srv; }", None),
        ] {
            assert_eq!(kept(&parse(text), &names), expected, "{why}");
        }
    }

    #[test]
    fn the_file_is_the_one_of_the_command_line() {
        for (why, line, expected) in [
            ("the title of the master process", "nginx: master process nginx -c /etc/x.conf\0", vec!["-c", "/etc/x.conf"]),
            ("an image's usual command", "nginx: master process nginx -g daemon off;\0\0", vec![]),
            ("arguments as they were given", "/usr/sbin/nginx\0-p\0/srv\0-c\0x.conf\0", vec!["-p", "/srv", "-c", "x.conf"]),
            ("in one word", "nginx\0-c/etc/x.conf\0", vec!["-c/etc/x.conf"]),
            ("behind an init", "/sbin/tini\0--\0nginx\0-c\0/etc/x.conf\0", vec!["-c", "/etc/x.conf"]),
            ("OpenResty", "nginx: master process /usr/local/openresty/bin/openresty -c /x.conf", vec!["-c", "/x.conf"]),
            ("the option of a shell is none of nginx", "sh\0-c\0exec something\0", vec![]),
            ("nothing", "", vec![]),
        ] {
            assert_eq!(options_of(line), expected, "{why}");
        }
    }
}
