//! The stories, each told in the file of its name.

use crate::story::play;

macro_rules! stories {
    ($($name:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                play(stringify!($name)).await;
            }
        )*

        #[test]
        fn every_story_is_told() {
            let told = [$(stringify!($name)),*];
            let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/stories");
            let written = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
            for path in written {
                let name = path.file_stem().unwrap().to_string_lossy().into_owned();
                assert!(told.contains(&name.as_str()), "{name} is not among the stories");
            }
        }
    };
}

stories! {
    a_bad_image_is_rolled_back,
    a_broken_project_touches_nothing,
    a_broker_is_drilled,
    a_backup_set_is_drilled,
    a_first_deploy_and_a_change,
    a_full_disk,
    a_host_that_is_not_ready,
    a_project_is_looked_at,
    a_project_leaves,
    a_project_of_another_user,
    damage_is_repaired,
    databases_are_drilled,
    dependencies_are_asked,
    front_doors_are_proposed,
    hooks_run_around_a_deploy,
    a_registry_that_is_difficult,
    a_user_without_rights,
    adopted_from_compose,
    an_engine_that_is_restarted,
    an_image_that_cannot_be_had,
    an_open_plan_is_told_of_by_every_command,
    backups_are_made_and_proved,
    backups_in_restic_that_are_killed,
    backups_that_are_killed,
    data_goes_back_with_a_release,
    images_are_built_first,
    interrupted_and_resumed,
    journals_that_are_damaged,
    removed_by_hand_while_deploying,
    several_services_go_back_together,
    state_that_is_damaged,
    stuck_and_settled,
    the_machine_reboots,
    volumes_keep_their_holes,
}
