//! Retention: what goes may go, and the last one never does.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use kaleem_backup::retention::{Candidate, Policy, RetentionError, Standing, carry_out, look, plan};
use kaleem_backup::seal::Protection;
use kaleem_backup::set::{self, CreateRequest};
use kaleem_core::backup::{BackupSource, VaultPath};
use kaleem_core::names::SetId;
use kaleem_core::testing::{FakeVault, VaultFault};
use proptest::prelude::{any, prop};
use proptest::{prop_assert, prop_assert_eq, proptest};
use std::sync::Arc;

use crate::support::{BAR, Habit, MemorySource, Noon, request};

fn noon() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn hours_ago(hours: i64) -> Timestamp {
    noon() - SignedDuration::from_hours(hours)
}

fn verified(name: &str, hours: i64) -> Candidate {
    Candidate { set: name.parse().unwrap(), standing: Standing::Verified { created: hours_ago(hours), tags: Vec::new() }, held: false }
}

fn staying(sets: &[Candidate], policy: &Policy) -> Vec<String> {
    let decisions = plan(sets, policy, noon()).unwrap();
    decisions.into_iter().filter(|decision| decision.stays).map(|decision| decision.set.to_string()).collect()
}

#[test]
fn a_year_of_nightly_sets_becomes_seven_days_four_weeks_and_six_months() {
    let sets: Vec<Candidate> = (0..365).map(|day| verified(&format!("s{day:03}"), day * 24)).collect();
    // 1 March 2026 is a Sunday, the last day of its week. The days are 1 March to 23 February; the weeks end on the Sundays
    // 1 March, 22, 15 and 8 February; the months end on 1 March (so far), 28 February, 31 January and so on.
    let wanted = ["s000", "s001", "s002", "s003", "s004", "s005", "s006", "s007", "s014", "s021", "s029", "s060", "s091", "s121"];
    assert_eq!(staying(&sets, &Policy::usual()), wanted);
}

#[test]
fn each_rule_keeps_what_it_says() {
    let nothing = Policy { daily: 0, weekly: 0, monthly: 0, ..Policy::usual() };
    let mut tagged = verified("b-tagged", 500);
    tagged.standing = Standing::Verified { created: hours_ago(500), tags: vec!["release".to_owned()] };
    let held = Candidate { held: true, ..verified("c-held", 600) };
    let unfinished = |name: &str, hours: Option<i64>| Candidate {
        set: name.parse().unwrap(),
        standing: Standing::Unfinished { created: hours.map(hours_ago) },
        held: false,
    };
    let damaged = Candidate { set: "f-damaged".parse().unwrap(), standing: Standing::Damaged, held: false };
    let sets = [
        verified("a-newest", 1),
        tagged,
        held,
        verified("d-old", 700),
        unfinished("e-fresh", Some(2)),
        damaged,
        unfinished("g-old", Some(48)),
        unfinished("h-odd", None),
    ];
    let tags = Policy { keep_tags: BTreeSet::from(["release".to_owned()]), ..nothing };
    let within = Policy { keep_within_days: Some(30), ..nothing.clone() };
    for (why, policy, wanted) in [
        ("no rule", &nothing, &["a-newest", "c-held", "e-fresh", "f-damaged", "h-odd"][..]),
        ("tags", &tags, &["a-newest", "b-tagged", "c-held", "e-fresh", "f-damaged", "h-odd"][..]),
        ("within", &within, &["a-newest", "b-tagged", "c-held", "d-old", "e-fresh", "f-damaged", "h-odd"][..]),
    ] {
        assert_eq!(staying(&sets, policy), wanted, "{why}");
    }
    assert_eq!(staying(&[unfinished("g-old", Some(48))], &nothing), ["g-old"], "without a verified set nothing goes");
}

#[test]
fn a_clock_that_cannot_be_right_makes_no_plan() {
    let sets = [verified("one", 0), verified("two", 48)];
    for (why, now, right) in [
        ("a year ahead", hours_ago(-365 * 24), false),
        ("a year behind", hours_ago(365 * 24), false),
        ("a day behind", hours_ago(24), false),
        ("as it should be", hours_ago(-24), true),
        ("a few minutes behind", noon() - SignedDuration::from_mins(5), true),
    ] {
        let found = plan(&sets, &Policy::usual(), now);
        assert_eq!(found.is_ok(), right, "{why}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_carried_out_only_while_what_it_keeps_is_there() {
    let vault = FakeVault::new();
    let sources: Vec<Arc<dyn BackupSource>> = vec![MemorySource::new("bar", BAR, Habit::Sound)];
    let names = ["20260301t120000z-00000001", "20260301t120000z-00000002", "20260301t120000z-00000003"];
    for name in names {
        let request = CreateRequest { set: name.parse().unwrap(), ..request(Protection::Unencrypted) };
        set::create(&vault, &sources, &request, &Noon).await.unwrap();
    }
    let policy = Policy { daily: 1, weekly: 0, monthly: 0, ..Policy::usual() };
    let decisions = plan(&look(&vault).await.unwrap(), &policy, noon()).unwrap();
    assert_eq!(decisions.iter().map(|decision| decision.stays).collect::<Vec<_>>(), [false, false, true]);

    vault.break_with(Some(VaultFault::List));
    assert!(matches!(look(&vault).await, Err(RetentionError::Vault { .. })), "a failed listing is not an empty vault");
    assert!(carry_out(&vault, &decisions).await.is_err());
    vault.break_with(None);

    let newest: SetId = names[2].parse().unwrap();
    let commit = VaultPath::in_set(&newest, "COMMIT").unwrap();
    let sound = vault.objects()[&commit].clone();
    vault.tamper(&commit, b"damaged".to_vec());
    assert!(matches!(carry_out(&vault, &decisions).await, Err(RetentionError::Changed { .. })));
    assert_eq!(look(&vault).await.unwrap().len(), 3, "nothing went");
    vault.tamper(&commit, sound);

    set::hold(&vault, &names[0].parse().unwrap(), "asked for by a court").await.unwrap();
    let removed = carry_out(&vault, &decisions).await.unwrap();
    assert_eq!(removed, [names[1].parse().unwrap()], "the one that was held meanwhile stays");
    set::release(&vault, &names[0].parse().unwrap()).await.unwrap();
    let removed = carry_out(&vault, &decisions).await.unwrap();
    assert!(removed.contains(&names[0].parse().unwrap()));
    assert_eq!(look(&vault).await.unwrap().len(), 1);
}

proptest! {
    #[test]
    fn whatever_there_is_the_newest_the_held_and_the_recent_stay(
        ages in prop::collection::vec((0_i64..20_000, any::<bool>(), 0_u8..4), 1..40),
        daily in 0_usize..5, weekly in 0_usize..3, monthly in 0_usize..3, within in prop::option::of(0_u32..40),
    ) {
        let newest = ages.iter().filter(|(.., kind)| *kind > 0).map(|(age, ..)| *age).min().unwrap_or(0);
        let mut sets = Vec::new();
        for (number, (age, held, kind)) in ages.iter().enumerate() {
            let mut set = verified(&format!("s{number}"), age - newest);
            set.held = *held && number % 5 == 0;
            if *kind == 0 {
                set.standing = Standing::Unfinished { created: Some(hours_ago(age - newest)) };
            }
            sets.push(set);
        }
        let policy = Policy { daily, weekly, monthly, keep_within_days: within, ..Policy::usual() };
        let decisions = plan(&sets, &policy, noon()).unwrap();
        prop_assert_eq!(decisions.len(), sets.len());
        let stays = |set: &Candidate| decisions.iter().any(|decision| decision.set == set.set && decision.stays);
        let is_verified = |set: &&Candidate| matches!(set.standing, Standing::Verified { .. });
        prop_assert!(sets.iter().filter(is_verified).count() == 0 || sets.iter().filter(is_verified).any(stays));
        for set in &sets {
            if let Standing::Verified { created, .. } = &set.standing {
                prop_assert!(stays(set) || *created < noon());
                let recent = within.is_some_and(|within| *created >= hours_ago(i64::from(within) * 24));
                prop_assert!(stays(set) || !(set.held || recent), "{:?}", set);
            }
        }
        let by_number = sets.iter().filter(is_verified).filter(|set| stays(set) && !set.held).count();
        prop_assert!(within.is_some() || by_number <= daily + weekly + monthly + 1);
        // What is not finished counts for nothing, and the order of the listing does not matter.
        let mut only: Vec<Candidate> = sets.iter().filter(is_verified).cloned().collect();
        only.reverse();
        let alone = plan(&only, &policy, noon()).unwrap();
        for decision in alone {
            prop_assert!(decisions.contains(&decision), "{:?}", decision);
        }
    }
}
