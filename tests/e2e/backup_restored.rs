//! A backup taken beside the running coordinator, work that went on after it,
//! and a restore: nothing is assigned until an operator accepts, and what the
//! agents held on to is not lost.

use farmbell_tests::harness::{Said, TestFarm};

#[test]
fn a_restored_past_is_noticed_and_accepted() {
    let mut farm = TestFarm::with_one_builder();
    let mut events = farm.events();
    let before = farm.cli().submit_script(&[], "echo before");
    events.next_of_job("job.verdict", &before);

    let saved = farm.file("saved");
    let mut backup = farm.coordinator.program("backup");
    backup.arg(&saved);
    Said::by(backup).succeeds();
    // The agent sees a higher epoch than the backup will ever know: that it
    // works under it says so, a link that was stored may not have been heard.
    farm.coordinator.kill();
    farm.coordinator.restart();
    let mut events = farm.events();
    let lost = farm.cli().submit_script(&[], "echo lost");
    events.next_of_job("job.verdict", &lost);
    farm.coordinator.kill();

    let state = farm.coordinator.state();
    std::fs::rename(&state, farm.file("lost")).unwrap();
    let mut restore = farm.coordinator.program("restore");
    restore.arg(&saved);
    Said::by(restore).succeeds();
    Said::by(farm.coordinator.program("check")).succeeds();
    farm.coordinator.restart();
    let mut events = farm.events();
    farm.agents[0].kill();
    farm.agents[0].start();
    let history = farm
        .cli()
        .run(&["--output", "ndjson", "events", "--tail", "100"])
        .succeeds()
        .stdout;
    if !history.contains("restore.suspected") {
        events.next_of("restore.suspected");
    }
    assert_eq!(farm.cli().log(&before), "before\n");
    farm.cli()
        .run(&["submit", "--", "true"])
        .fails_naming(&["a backup was restored", "farmbell restore accept"]);
    farm.cli()
        .run(&["restore", "accept", "--reason", "the disk died"])
        .succeeds();
    let next = farm.cli().submit_script(&[], "echo next");
    events.next_of_job("job.verdict", &next);
    assert_eq!(farm.cli().log(&next), "next\n");
    assert_ne!(next, lost, "a number is given out once");
}
