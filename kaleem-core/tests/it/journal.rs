//! Journals on disk: what a crash tears is cut off, what is damaged is named, what is newer is refused, what is old is read for ever.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kaleem_core::engine::Ending;
use kaleem_core::journal::{Event, Evidence, IllegalEvent, Journal, JournalError, Progress, StepStatus, file};
use kaleem_core::kaleem::KaleemError;
use kaleem_core::names::ReleaseId;
use kaleem_core::outcome::{Outcome, Resolution};
use kaleem_core::remedy::Remedy;
use kaleem_core::testing::{Behaviour, FakeOperation};

use crate::world::{ServiceExt, World, project, service};

fn app(tag: &str) -> kaleem_core::config::Project {
    project(vec![service("api", &format!("registry.example/app:{tag}")).publishing(8080, 3000).env("TOKEN", "s3cr3t-value")])
}

/// The journal of a deploy that was taken back: it holds every kind of event but those of people.
async fn journal() -> (World, PathBuf) {
    let world = World::new();
    world.push("registry.example/app:v1", Behaviour::Healthy);
    world.push("registry.example/app:v2", Behaviour::ExitsAtOnce { code: 1, log: "token s3cr3t-value refused".to_owned() });
    world.deploy(&app("v1")).await.unwrap();
    world.deploy(&app("v2")).await.unwrap();
    let path = world.directory.path().join("shop/plans/00000002.jsonl");
    (world, path)
}

fn write(path: &Path, bytes: &[u8]) {
    #[expect(clippy::disallowed_methods, reason = "the test is the crash")]
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_journal_torn_at_any_byte_is_read_up_to_its_last_whole_line() {
    let (_world, path) = journal().await;
    let whole = std::fs::read(&path).unwrap();
    let (records, _) = file::read(&path).unwrap();
    let ends: Vec<usize> = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(index, _)| index + 1).collect();
    let first = ends[0];
    for length in first..whole.len() {
        write(&path, &whole[..length]);
        let lines = ends.iter().filter(|end| **end <= length).count();
        let (read, _) = file::read(&path).unwrap_or_else(|error| panic!("cut at {length}: {error}"));
        assert_eq!(read, records[..lines], "cut at {length}");
        assert_eq!(std::fs::read(&path).unwrap().len(), length, "reading changes nothing");
        let journal = Journal::open(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole[..ends[lines - 1]], "opening cuts the torn line off");
        assert!(lines == records.len() || !journal.progress().is_over(), "cut at {length}");
    }
    for length in 0..first {
        write(&path, &whole[..length]);
        assert!(matches!(file::read(&path), Err(JournalError::Damaged { line: 1, .. })), "a plan that is not whole is no plan");
    }
}

#[tokio::test]
async fn a_flipped_bit_anywhere_is_found_and_its_line_is_named() {
    let (world, path) = journal().await;
    let whole = std::fs::read(&path).unwrap();
    for index in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[index] ^= 1 << (index % 8);
        write(&path, &damaged);
        let line = whole[..index].iter().filter(|byte| **byte == b'\n').count() + 1;
        match file::read(&path) {
            Err(JournalError::Damaged { line: named, .. }) => {
                // A damaged line break joins two lines; then the first of them is named.
                assert!(named == line, "byte {index}: line {named} was named, and {line} is damaged");
            }
            Err(JournalError::Newer { .. }) if line == 1 => {}
            // The very last line break: the last line counts as torn, and what it said is not believed.
            Ok((records, _)) if index + 1 == whole.len() => assert!(!matches!(records.last().unwrap().event, Event::Finished { .. })),
            Ok(_) => panic!("byte {index} in line {line}: nothing was found"),
            Err(other) => panic!("byte {index} in line {line}: {other}"),
        }
    }
    write(&path, b"");
    let error = world.deploy(&app("v1")).await.unwrap_err();
    let KaleemError::History { .. } = &error else { panic!("{error:?}") };
    assert!(error.remedy().contains("aside"), "{}", error.remedy());
}

#[tokio::test]
async fn a_journal_of_a_newer_format_is_refused_and_left_alone() {
    let (_world, path) = journal().await;
    let newer = b"{\"sum\":\"x\",\"at\":\"2030-01-01T00:00:00Z\",\"event\":{\"event\":\"planned\",\"format\":9,\"plan\":{\"format\":9}}}\n";
    write(&path, newer);
    let error = file::read(&path).unwrap_err();
    assert!(matches!(error, JournalError::Newer { found: 9, known: 3, .. }), "{error}");
    assert_eq!(error.remedy(), "use the newer kaleem that wrote it");
    assert!(Journal::open(&path).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), newer);
}

/// An older kaleem knew nothing of what a newer plan may hold: it must not guess.
#[tokio::test]
async fn a_plan_of_a_newer_format_in_a_journal_of_this_one_is_refused_too() {
    let (_world, path) = journal().await;
    let newer = b"{\"sum\":\"x\",\"at\":\"2030-01-01T00:00:00Z\",\"event\":{\"event\":\"planned\",\"format\":3,\"plan\":{\"format\":9}}}\n";
    write(&path, newer);
    assert!(matches!(file::read(&path).unwrap_err(), JournalError::Newer { found: 9, known: 3, .. }));
}

#[tokio::test]
async fn what_is_written_now_says_format_3_in_both_places() {
    let (_world, path) = journal().await;
    let text = std::fs::read_to_string(&path).unwrap();
    let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!((&first["event"]["format"], &first["event"]["plan"]["format"]), (&3.into(), &3.into()));
}

#[test]
fn an_open_journal_of_format_1_is_gone_on_with_in_its_own_form() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("00000002.jsonl");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/journals/v1/interrupted.jsonl");
    std::fs::copy(&golden, &path).unwrap();
    let mut journal = Journal::open(&path).unwrap();
    let lines = file::read(&path).unwrap().0.len();
    journal.append(&Event::Aborted { by: "a test".to_owned() }, jiff::Timestamp::UNIX_EPOCH).unwrap();
    let (records, progress) = file::read(&path).unwrap();
    assert_eq!(records.len(), lines + 1);
    assert!(progress.is_going_back());
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.lines().next().unwrap().contains("\"planned\",\"format\":1,\"plan\":{\"format\":1,"), "its first line is as it was");
}

#[tokio::test]
async fn no_secret_is_in_a_journal_or_anywhere_but_the_definitions() {
    let (world, path) = journal().await;
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("s3cr3t-value"), "the crashed container's last line is redacted");
    assert!(text.contains("token *** refused"), "{text}");
    let root = world.directory.path().join("shop");
    let mut files = vec![root.join("key"), root.join("lock"), path];
    files.extend(std::fs::read_dir(root.join("definitions")).unwrap().map(|entry| entry.unwrap().path()));
    for file in files {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn when_the_disk_is_full_nothing_more_is_done_and_resume_goes_on_later() {
    if !crate::durable::may_mount("when_the_disk_is_full") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let _mount = crate::durable::Mount::tmpfs(directory.path(), "size=128k").await;
    let filler = directory.path().join("filler");
    let world = World::at(directory);
    world.push("registry.example/app:v1", Behaviour::Healthy);
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let planned = world.kaleem.deploy_plan(&work, &app("v1"), &BTreeMap::new()).await.unwrap();
    let full = filler.clone();
    world.runtime.before_call(Some(std::sync::Arc::new(move |call: &kaleem_core::testing::FakeCall| {
        if call.operation == FakeOperation::Create {
            // Until nothing fits any more, to the last byte.
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&full).unwrap();
            while std::io::Write::write(&mut file, &[0; 512]).is_ok_and(|written| written > 0) {}
        }
        None
    })));
    let mut calls = None;
    // The journal's last page may have room for some more lines; then the disk is full for the next ones.
    let mut run = world.kaleem.start(work, &planned).unwrap();
    while let Some(notice) = run.notices.recv().await {
        calls = Some(notice);
    }
    let result = run.finish().await;
    world.runtime.before_call(None);
    if let Err(error) = result {
        assert!(matches!(error, KaleemError::Journal { .. }), "{error}");
        assert!(error.remedy().starts_with("free some space"), "{}", error.remedy());
        assert!(!matches!(calls, Some(kaleem_core::engine::Notice::Finished { .. })));
        std::fs::remove_file(&filler).unwrap();
        assert!(matches!(world.resume().await.unwrap(), Ending::Over(Outcome::Deployed { .. })));
    } else {
        panic!("a full disk went unnoticed");
    }
    assert_eq!(world.running(), ["shop-api-r1-1"]);
}

/// Journals of format 1, written by the first version that had them: they are read for ever.
#[test]
fn golden_journals_of_format_1_are_read_for_ever() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/journals/v1");
    let mut names: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(names.len() >= 3, "{names:?}");
    for path in names {
        let (records, progress) = file::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let story: Vec<String> = records
            .iter()
            .map(|record| match &record.event {
                Event::Planned { plan, .. } => format!("planned {} to {} in {} steps", plan.kind, plan.release.id, plan.steps.len()),
                Event::Started { step } => format!("started {step}"),
                Event::Done { step, .. } => format!("done {step}"),
                Event::Failed { step, error } => format!("failed {step}: {error}"),
                Event::Aborted { by } => format!("aborted by {by}"),
                Event::Undone { step } => format!("undone {step}"),
                Event::UndoFailed { step, error } => format!("undo failed {step}: {error}"),
                Event::Resolved { by, resolution } => format!("resolved by {by} as {resolution:?}"),
                Event::Finished { outcome } => format!("finished {outcome:?}"),
            })
            .collect();
        let next = format!("next: {:?}", progress.next());
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        insta::assert_snapshot!(format!("journal_{name}"), format!("{}\n{next}", story.join("\n")));
    }
}

#[tokio::test]
async fn an_event_that_cannot_follow_is_refused_and_changes_nothing() {
    let (_world, path) = journal().await;
    let (records, over) = file::read(&path).unwrap();
    let events: Vec<Event> = records.into_iter().map(|record| record.event).collect();
    let progress = |count: usize| Progress::fold(&events[..count]).unwrap();
    let first_started = events.iter().position(|event| matches!(event, Event::Started { .. })).unwrap();
    let Event::Started { step } = events[first_started] else { unreachable!() };
    let by = || "root".to_owned();
    let begun = progress(first_started + 1);
    let out_of_turn = |event, status| IllegalEvent::OutOfTurn { step, event, status };
    let cases = [
        (
            progress(1),
            Event::Done { step, evidence: Evidence { took_ms: 1, seen: String::new() } },
            out_of_turn("done", StepStatus::Pending),
        ),
        (progress(1), Event::Failed { step, error: by() }, out_of_turn("failed", StepStatus::Pending)),
        (progress(1), Event::Started { step: 999 }, IllegalEvent::NoSuchStep { step: 999 }),
        (begun.clone(), Event::Undone { step }, out_of_turn("undone", StepStatus::Started)),
        (begun.clone(), Event::UndoFailed { step, error: by() }, out_of_turn("undo-failed", StepStatus::Started)),
        (begun.clone(), events[0].clone(), IllegalEvent::PlanMisplaced),
        (begun.clone(), Event::Resolved { by: by(), resolution: Resolution::Old }, IllegalEvent::NotStuck),
        (
            begun,
            Event::Finished { outcome: Outcome::Deployed { release: ReleaseId::new(2), leftovers: Vec::new() } },
            IllegalEvent::WrongOutcome,
        ),
        (over, Event::Started { step }, IllegalEvent::AfterTheEnd),
    ];
    for (before, event, wanted) in cases {
        let mut progress = before.clone();
        assert!(wanted.remedy().contains("kaleem doctor"), "{wanted}");
        assert_eq!(progress.apply(&event), Err(wanted), "{event:?}");
        assert_eq!(progress, before, "{event:?}");
    }
    let (bytes, mut journal) = (std::fs::read(&path).unwrap(), Journal::open(&path).unwrap());
    let refused = journal.append(&Event::Started { step }, jiff::Timestamp::UNIX_EPOCH).unwrap_err();
    assert!(matches!(&refused, JournalError::Illegal { source: IllegalEvent::AfterTheEnd, .. }), "{refused}");
    assert!(refused.remedy().contains("kaleem doctor --repair"));
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "nothing of it was written");
    assert_eq!(Progress::fold(&events[1..]), Err(IllegalEvent::PlanMisplaced), "the plan comes first");
    assert_eq!(Progress::fold(&[]), Err(IllegalEvent::PlanMisplaced));
}

#[tokio::test]
async fn an_examined_journal_says_how_far_it_can_be_read_and_what_is_wrong_behind() {
    let (_world, path) = journal().await;
    let whole = std::fs::read(&path).unwrap();
    let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    let found = file::examine(&path).unwrap();
    assert!(found.damage.is_none() && found.progress.is_some_and(|progress| progress.is_over()));
    assert_eq!((found.whole_bytes, found.bytes), (whole.len() as u64, whole.len() as u64));

    write(&path, &whole[..whole.len() - 5]);
    let torn = file::examine(&path).unwrap();
    assert!(torn.damage.is_none(), "a torn line is what a crash leaves, and no damage");
    assert_eq!((torn.whole_bytes, torn.bytes), (last as u64, whole.len() as u64 - 5));

    let mut damaged = whole.clone();
    damaged[last + 20] ^= 1;
    write(&path, &damaged);
    let lines = whole.iter().filter(|byte| **byte == b'\n').count();
    let found = file::examine(&path).unwrap();
    assert!(matches!(found.damage, Some(JournalError::Damaged { line, .. }) if line == lines), "{:?}", found.damage);
    assert_eq!(found.whole_bytes, last as u64, "what stands before it is whole");
    assert!(found.progress.is_some_and(|progress| !progress.is_over()));

    write(&path, &whole[..10]);
    assert!(file::examine(&path).unwrap().progress.is_none(), "not even the plan is whole");
    let missing = file::examine(&path.with_file_name("00000099.jsonl"));
    assert!(matches!(missing, Err(JournalError::File { .. })));
}

/// Writes the golden journals. They were written once, and must not be written again for a format that is out.
#[tokio::test]
async fn a_journal_written_now_has_the_form_of_the_golden_ones() {
    let (world, path) = journal().await;
    let now = std::fs::read_to_string(&path).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/journals/v1/rolled-back.jsonl");
    if !golden.exists() {
        std::fs::create_dir_all(golden.parent().unwrap()).unwrap();
        std::fs::copy(&path, &golden).unwrap();
        std::fs::copy(world.directory.path().join("shop/plans/00000001.jsonl"), golden.with_file_name("deployed.jsonl")).unwrap();
        let lines: Vec<&str> = now.lines().take(12).collect();
        write(&golden.with_file_name("interrupted.jsonl"), format!("{}\n{{\"sum\":\"torn", lines.join("\n")).as_bytes());
    }
    let keys = |text: &str| -> Vec<Vec<String>> {
        text.lines()
            .map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                line["event"].as_object().unwrap().keys().cloned().collect()
            })
            .collect()
    };
    assert_eq!(keys(&now), keys(&std::fs::read_to_string(&golden).unwrap()));
}
