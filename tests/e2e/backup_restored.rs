//! A backup taken beside the running coordinator, work that went on after it,
//! and a restore: nothing is assigned until an operator accepts, and what the
//! agents held on to is not lost.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use farmbell_tests::harness::{BuilderPlan, PATIENCE, Said, TestFarm};
use nix::sys::stat::Mode;

fn backup(farm: &TestFarm) -> PathBuf {
    let saved = farm.file("saved");
    let mut backup = farm.coordinator.program("backup");
    backup.arg(&saved);
    Said::by(backup).succeeds();
    saved
}

/// A killed coordinator's state is gone, and its next life has the backup.
fn restore(farm: &mut TestFarm, saved: &Path) {
    let state = farm.coordinator.state();
    std::fs::rename(&state, farm.file("lost")).unwrap();
    let mut restore = farm.coordinator.program("restore");
    restore.arg(saved);
    Said::by(restore).succeeds();
    Said::by(farm.coordinator.program("check")).succeeds();
    farm.coordinator.restart();
}

/// A pipe in the farm's directory.
fn pipe(farm: &TestFarm, name: &str) -> PathBuf {
    let pipe = farm.file(name);
    nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    pipe
}

#[test]
fn a_restored_past_is_noticed_and_accepted() {
    let mut farm = TestFarm::with_one_builder();
    let mut events = farm.events();
    let before = farm.cli().submit_script(&[], "echo before");
    events.next_of_job("job.verdict", &before);

    let saved = backup(&farm);
    // The agent sees a higher epoch than the backup will ever know: that it
    // works under it says so, a link that was stored may not have been heard.
    farm.coordinator.kill();
    farm.coordinator.restart();
    let mut events = farm.events();
    let lost = farm.cli().submit_script(&[], "echo lost");
    events.next_of_job("job.verdict", &lost);
    farm.coordinator.kill();

    restore(&mut farm, &saved);
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

/// One build began before the backup, the other after it.
#[test]
fn builds_that_run_while_yesterday_is_restored_are_kept_or_told_and_then_ended() {
    let mut farm = TestFarm::start();
    let plans = ["b1", "b2"].map(BuilderPlan::named);
    farm.add_agent("a1", &plans);
    let (held, alive, runs) = (pipe(&farm, "held"), pipe(&farm, "alive"), farm.file("runs"));
    let mut events = farm.events();
    let script = format!(
        "echo known >> {}; echo begin; cat {} >/dev/null; echo end; echo x > $FARMBELL_OUTPUTS/artifact",
        runs.display(),
        held.display()
    );
    let known = farm.cli().submit_script(&[], &script);
    events.next_of_job("job.running", &known);
    let saved = backup(&farm);
    farm.coordinator.kill();
    farm.coordinator.restart();
    let script = format!(
        "echo unknown >> {}; exec 9>{}; echo up >&9; exec sleep 600",
        runs.display(),
        alive.display()
    );
    let unknown = farm.cli().submit_script(&[], &script);
    let mut lines = BufReader::new(File::open(&alive).unwrap());
    lines.read_line(&mut String::new()).unwrap();
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || ended.send(lines.read_to_string(&mut String::new())));
    farm.coordinator.kill();
    restore(&mut farm, &saved);

    // The operator is told which build the store does not know; both go on.
    let mut history = farm.coordinator.events_after(0);
    history.next_that("listing of what differs", |entry| {
        entry.kind == "restore.suspected" && entry.why.contains(&unknown)
    });
    farm.cli()
        .run(&["submit", "--", "true"])
        .fails_naming(&["a backup was restored", "farmbell restore accept"]);
    assert!(
        end.try_recv().is_err(),
        "nothing is ended before it was accepted"
    );

    farm.cli()
        .run(&["restore", "accept", "--reason", "the disk died"])
        .succeeds();
    let end = end.recv_timeout(PATIENCE);
    end.expect("what nobody knows any more is ended").unwrap();
    // The agent was told by name why it was not welcome, before it was.
    let told = farm.agents[0].daemon.log();
    assert!(told.contains("code=\"lower-epoch\""), "{told}");
    assert!(
        told.contains("an operator has to accept the restore"),
        "{told}"
    );
    let fresh = farm.cli().submit_script(&[], "true");
    assert_ne!(fresh, unknown, "a number is given out once");
    history.next_of_job("job.verdict", &fresh);
    drop(File::options().write(true).open(&held).unwrap());
    let shown = farm.cli().verdict(&known);
    assert_eq!(shown["job"]["verdict"]["verdict"], "succeeded", "{shown:#}");
    assert_eq!(shown["attempts"].as_array().unwrap().len(), 1, "{shown:#}");
    assert_eq!(shown["artifacts"].as_array().unwrap().len(), 1, "{shown:#}");
    assert_eq!(farm.cli().log(&known), "begin\nend\n");
    farm.cli()
        .run(&["job", "show", &unknown])
        .fails_naming(&[&unknown]);
    assert_eq!(std::fs::read_to_string(runs).unwrap(), "known\nunknown\n");
}
