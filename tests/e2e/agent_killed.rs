//! `kill -9` of the agent: while a build runs, and at every named point
//! between "written" and "said". The supervisor owns the attempt, so nothing is
//! lost and nothing runs twice. And the ends in order: drained, given back,
//! left alone.

use std::time::Duration;

use farmbell_agent::failpoint::{Failpoint, VARIABLE};
use farmbell_protocol::failpoint::Point as _;
use farmbell_tests::harness::{BuilderPlan, PATIENCE, TestFarm};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Passings of a point at which the agent is killed: the first, and one in the
/// middle of an attempt.
const PASSINGS: [u32; 2] = [1, 3];
/// A point that an attempt does not pass is not waited for longer.
const WHETHER_HIT: Duration = Duration::from_secs(4);

fn assert_one_whole_attempt(shown: &Value, log: &str, wanted: &str) {
    assert_eq!(shown["job"]["verdict"]["verdict"], "succeeded", "{shown:#}");
    assert_eq!(started(shown), 1, "{shown:#}");
    assert_eq!(shown["artifacts"].as_array().unwrap().len(), 1, "{shown:#}");
    assert_eq!(log, wanted);
}

/// An offer that was lost before it was accepted made an attempt that never ran.
fn started(shown: &Value) -> usize {
    let attempts = shown["attempts"].as_array().unwrap();
    attempts
        .iter()
        .filter(|one| !one["started"].is_null())
        .count()
}

/// A script that counts its runs in a file and leaves one artifact.
fn counted(farm: &TestFarm, name: &str) -> (String, String) {
    let runs = farm.file(name).display().to_string();
    let script = format!(
        "echo run >> {runs}; seq 1 1000; head -c 100000 /dev/zero > $FARMBELL_OUTPUTS/artifact"
    );
    (runs, script)
}

#[test]
fn a_build_goes_on_while_its_agent_is_dead() {
    let mut farm = TestFarm::with_one_builder();
    let pipe = farm.file("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!(
        "seq 1 500; cat {} > /dev/null; seq 501 1000; head -c 100000 /dev/zero > $FARMBELL_OUTPUTS/artifact",
        pipe.display()
    );
    let mut events = farm.events();
    let job = farm.cli().submit_script(&[], &script);
    events.next_of_job("job.running", &job);
    farm.agents[0].kill();
    // Opening the pipe waits for the build's own opening; closing lets it go on.
    drop(std::fs::File::options().write(true).open(&pipe).unwrap());
    farm.agents[0].start();

    let shown = farm.cli().verdict(&job);
    let wanted: String = (1..=1000).map(|number| format!("{number}\n")).collect();
    assert_one_whole_attempt(&shown, &farm.cli().log(&job), &wanted);
}

#[test]
fn an_agent_killed_at_any_point_loses_nothing_and_runs_nothing_twice() {
    let mut farm = TestFarm::with_one_builder();
    let wanted: String = (1..=1000).map(|number| format!("{number}\n")).collect();
    let mut hit = 0;
    for point in Failpoint::ALL.iter().filter(|point| point.ends_process()) {
        for passing in PASSINGS {
            let name = format!("{}-{passing}", point.name());
            farm.agents[0].kill();
            let armed = format!("{}:{passing}", point.name());
            farm.agents[0].start_with(&[(VARIABLE, &armed)]);
            let (runs, script) = counted(&farm, &name);
            let job = farm.cli().submit_script(&[], &script);
            if farm.agents[0].daemon.wait_at_most(WHETHER_HIT).is_some() {
                hit += 1;
                farm.agents[0].start();
            }
            let shown = farm.cli().verdict(&job);
            assert_one_whole_attempt(&shown, &farm.cli().log(&job), &wanted);
            assert_eq!(std::fs::read_to_string(runs).unwrap(), "run\n", "{name}");
        }
    }
    let points = Failpoint::ALL
        .iter()
        .filter(|point| point.ends_process())
        .count();
    assert!(hit >= points, "only {hit} kills over {points} points");
}

#[test]
fn an_agent_told_to_end_finishes_and_delivers_first() {
    let mut farm = TestFarm::with_one_builder();
    let mut events = farm.events();
    let job = farm
        .cli()
        .submit_script(&[], "sleep 1; echo x > $FARMBELL_OUTPUTS/artifact");
    events.next_of_job("job.running", &job);
    farm.agents[0].daemon.signal(Signal::SIGTERM);
    let status = farm.agents[0].daemon.wait(PATIENCE).unwrap();
    assert!(status.success(), "{status}");
    let shown = farm.cli().verdict(&job);
    assert_one_whole_attempt(&shown, &farm.cli().log(&job), "");
}

#[test]
fn an_agent_told_to_cancel_gives_its_work_back() {
    let mut farm = TestFarm::with_one_builder();
    let mut events = farm.events();
    let (once, pipe) = (farm.file("once"), farm.file("pipe"));
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!(
        "mkdir {} || exit 0; echo > {}; exec sleep 600",
        once.display(),
        pipe.display()
    );
    let job = farm.cli().submit_script(&[], &script);
    events.next_of_job("job.running", &job);
    // Running is not yet the first instruction: without the directory the next
    // attempt would sleep as well.
    std::fs::read(&pipe).unwrap();
    farm.agents[0].daemon.signal(Signal::SIGQUIT);
    let status = farm.agents[0].daemon.wait(PATIENCE).unwrap();
    assert!(status.success(), "{status}");
    farm.agents[0].start();
    let shown = farm.cli().verdict(&job);
    assert_eq!(shown["job"]["verdict"]["verdict"], "succeeded", "{shown:#}");
    assert_eq!(shown["attempts"].as_array().unwrap().len(), 2, "{shown:#}");
}

#[test]
fn an_agent_with_a_deadline_gives_back_what_still_runs_then() {
    let mut farm = TestFarm::with_one_builder();
    farm.agents[0].kill();
    let mut run = farm.agents[0].program("run");
    run.args(["--deadline", "1"]);
    farm.agents[0].daemon.start(run);
    let mut events = farm.events();
    let once = farm.file("once");
    let script = format!("mkdir {} || exit 0; exec sleep 600", once.display());
    let job = farm.cli().submit_script(&[], &script);
    events.next_of_job("job.running", &job);
    farm.agents[0].daemon.signal(Signal::SIGTERM);
    let status = farm.agents[0].daemon.wait(PATIENCE).unwrap();
    assert!(status.success(), "{status}");
    farm.agents[0].start();
    let shown = farm.cli().verdict(&job);
    assert_eq!(shown["job"]["verdict"]["verdict"], "succeeded", "{shown:#}");
    assert_eq!(started(&shown), 2, "{shown:#}");
}

/// For machines that are thrown away after each build.
#[test]
fn an_agent_for_one_attempt_delivers_it_and_leaves() {
    let mut farm = TestFarm::with_one_builder();
    farm.agents[0].kill();
    let mut run = farm.agents[0].program("run");
    run.arg("--once");
    farm.agents[0].daemon.start(run);
    let script = "seq 1 1000; head -c 100000 /dev/zero > $FARMBELL_OUTPUTS/artifact";
    let first = farm.cli().submit_script(&[], script);
    let second = farm.cli().submit_script(&[], script);
    let status = farm.agents[0].daemon.wait(PATIENCE).unwrap();
    assert!(status.success(), "{status}");
    let wanted: String = (1..=1000).map(|number| format!("{number}\n")).collect();
    let shown = farm.cli().verdict(&first);
    assert_one_whole_attempt(&shown, &farm.cli().log(&first), &wanted);
    let waits = farm.cli().json(&["job", "show", &second]);
    assert_eq!(started(&waits), 0, "{waits:#}");
    farm.agents[0].start();
    let shown = farm.cli().verdict(&second);
    assert_one_whole_attempt(&shown, &farm.cli().log(&second), &wanted);
}

#[test]
fn an_upgrade_leaves_ten_builds_alone() {
    let mut farm = TestFarm::start();
    let plans: Vec<BuilderPlan> = (0..10)
        .map(|number| BuilderPlan::named(&format!("b{number}")))
        .collect();
    farm.add_agent("a1", &plans);
    let mut events = farm.events();
    let script = "sleep 2; echo x > $FARMBELL_OUTPUTS/artifact";
    let jobs: Vec<String> = (0..10)
        .map(|_| farm.cli().submit_script(&[], script))
        .collect();
    for _ in &jobs {
        events.next_of("job.running");
    }
    farm.agents[0].daemon.signal(Signal::SIGUSR1);
    let status = farm.agents[0].daemon.wait(PATIENCE).unwrap();
    assert!(status.success(), "{status}");
    farm.agents[0].start();
    for job in &jobs {
        let shown = farm.cli().verdict(job);
        assert_one_whole_attempt(&shown, &farm.cli().log(job), "");
    }
}
