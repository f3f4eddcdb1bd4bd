//! Plays a story and compares it with what is written down.
//!
//! A story is a text: `--- NAME` begins a file of the project, which `---` ends; `% COMMAND` prepares and must succeed;
//! `$ COMMAND` is shown with its output and `[exit code]`; `& COMMAND` goes on in the background; `~ COMMAND` waits until
//! it succeeds; `! SIGNAL` is sent to what runs in the background; `=` waits for that and shows it; `? COMMAND` must succeed,
//! else the story cannot be told on this machine. `#` is a comment.
//! What is shown is everything else in the file. With `KALEEM_STORIES=write` it is written anew.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::redact::redact;
use crate::sandbox::{Ended, Sandbox, engine_answers, run, variable};

/// Time in which what is waited for must come.
const PATIENCE: Duration = Duration::from_secs(90);

/// Plays `tests/it/stories/NAME.txt`.
pub(crate) async fn play(name: &str) {
    if !engine_answers().await {
        return;
    }
    let path = std::path::PathBuf::from(format!("{}/tests/it/stories/{name}.txt", env!("CARGO_MANIFEST_DIR")));
    let written = std::fs::read_to_string(&path).unwrap();
    let sandbox = Sandbox::new(name).await;
    for needed in written.lines().filter_map(|line| line.strip_prefix("? ")) {
        if sandbox.run(needed).await.code != 0 {
            assert!(variable("CI").is_none(), "{name} needs `{needed}`");
            println!("skipped: {name} needs `{needed}`");
            return;
        }
    }
    let played = Player { sandbox: &sandbox, told: String::new(), background: None }.play(&written).await;
    sandbox.clean().await;
    let played = played.unwrap_or_else(|error| panic!("{name}: {error}"));
    if variable("KALEEM_STORIES").as_deref() == Some("write") {
        kaleem_core::durable::write_atomic(&path, played.as_bytes(), 0o644).unwrap();
        return;
    }
    assert!(played == written, "{name} is told otherwise now (KALEEM_STORIES=write accepts it):\n{}", difference(&written, &played));
}

fn difference(written: &str, played: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (written.lines().collect(), played.lines().collect());
    let same = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let context = old.iter().take(same).rev().take(6).rev().map(|line| format!("  {line}"));
    let gone = old.iter().skip(same).take(20).map(|line| format!("- {line}"));
    let came = new.iter().skip(same).take(40).map(|line| format!("+ {line}"));
    context.chain(gone).chain(came).collect::<Vec<_>>().join("\n")
}

struct Player<'a> {
    sandbox: &'a Sandbox,
    told: String,
    background: Option<JoinHandle<Ended>>,
}

impl Player<'_> {
    async fn play(mut self, written: &str) -> Result<String, String> {
        let mut lines = written.lines();
        while let Some(line) = lines.next() {
            let command = line.get(2..).unwrap_or_default();
            let known = ["?", "#", "---", "%", "$", "&", "~", "!", "="];
            if !known.contains(&line.split(' ').next().unwrap_or_default()) {
                continue;
            }
            if line.starts_with(['$', '&', '-', '%', '#']) && !self.told.is_empty() && !self.told.ends_with("\n\n") && !self.glued(line) {
                self.told.push('\n');
            }
            self.tell(line);
            match line.split(' ').next().unwrap_or_default() {
                "---" => {
                    let name = line.get(4..).unwrap_or_default();
                    let mut text = String::new();
                    for line in lines.by_ref().take_while(|line| *line != "---") {
                        self.tell(line);
                        text.push_str(line);
                        text.push('\n');
                    }
                    self.tell("---");
                    self.sandbox.file(name, &text);
                }
                "%" => self.prepare(command).await?,
                "$" => {
                    let ended = self.sandbox.run(command).await;
                    self.show(&ended);
                }
                "&" => {
                    let request = self.sandbox.request(&format!("echo $$ > \"$DIR/background.pid\"; exec {command}"));
                    self.background = Some(tokio::spawn(run(request)));
                }
                "~" => self.wait_for(command).await?,
                "!" => self.prepare(&format!("kill -{command} \"$(cat \"$DIR/background.pid\")\"")).await?,
                "=" => {
                    let running = self.background.take().ok_or("nothing runs in the background")?;
                    let ended = running.await.map_err(|error| error.to_string())?;
                    self.show(&ended);
                }
                _ => {}
            }
        }
        Ok(self.told)
    }

    /// Whether the line belongs to the one before it: comments and preparations stand together.
    fn glued(&self, line: &str) -> bool {
        let last = self.told.lines().next_back().unwrap_or_default();
        let group = |line: &str| line.starts_with("? ") || line.starts_with("% ") || line.starts_with("# ") || line.starts_with("& ");
        group(last) || (last.starts_with(['~', '!', '=']) && line.starts_with(['~', '!', '=']))
    }

    fn tell(&mut self, line: &str) {
        self.told.push_str(line);
        self.told.push('\n');
    }

    fn show(&mut self, ended: &Ended) {
        let text = redact(&ended.output, self.sandbox);
        if !text.is_empty() {
            // A line that looks like a command of the story would be played next time.
            for line in text.lines() {
                let line =
                    if line.starts_with(['$', '%', '&', '~', '!', '=', '#', '-', '?']) { format!(" {line}") } else { line.to_owned() };
                self.tell(&line);
            }
        }
        self.tell(&format!("[{}]", ended.code));
    }

    async fn prepare(&self, command: &str) -> Result<(), String> {
        let ended = self.sandbox.run(command).await;
        if ended.code == 0 { Ok(()) } else { Err(format!("`{command}` ended with {}: {}", ended.code, ended.output)) }
    }

    async fn wait_for(&self, command: &str) -> Result<(), String> {
        let poll = async {
            while self.sandbox.run(command).await.code != 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, poll).await.map_err(|_| format!("`{command}` never succeeded"))
    }
}
