//! A panic in one builder's task: that builder starts again from its spool, and
//! neither its own build nor another builder of the same agent is lost.

use farmbell_agent::failpoint::VARIABLE;
use farmbell_tests::harness::{BuilderPlan, TestFarm};
use nix::sys::stat::Mode;

/// An agent with two builders that is armed to panic, and a job to be
/// cancelled on one of them.
fn cancelled_on_victim(armed: &str) -> (TestFarm, String) {
    let mut farm = TestFarm::start();
    let tagged =
        |name: &str| BuilderPlan::named(name).with(&format!("restricted-tags = [{name:?}]"));
    farm.add_agent("a1", &[tagged("victim"), tagged("other")]);
    farm.agents[0].kill();
    farm.agents[0].start_with(&[(VARIABLE, armed)]);
    let mut events = farm.events();
    let victim = farm
        .cli()
        .submit_script(&["--tag", "victim"], "exec sleep 600");
    events.next_of_job("job.running", &victim);
    (farm, victim)
}

fn succeeds_in_one_attempt(farm: &TestFarm, job: &str) {
    let shown = farm.cli().verdict(job);
    assert_eq!(shown["job"]["verdict"]["verdict"], "succeeded", "{shown:#}");
    assert_eq!(shown["attempts"].as_array().unwrap().len(), 1, "{shown:#}");
}

fn panics(farm: &TestFarm) -> usize {
    let log = farm.agents[0].daemon.log();
    log.matches("a builder's task panicked").count()
}

#[test]
fn a_panic_in_a_builders_task_ends_that_builders_task_only() {
    let (farm, victim) = cancelled_on_victim("driver.panic-in-stop");
    let pipe = farm.file("pipe");
    nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    let script = format!("cat {} > /dev/null; echo done", pipe.display());
    let other = farm.cli().submit_script(&["--tag", "other"], &script);
    farm.cli().run(&["job", "cancel", &victim]).succeeds();
    let shown = farm.cli().verdict(&victim);
    assert_eq!(shown["job"]["verdict"]["verdict"], "cancelled", "{shown:#}");
    assert_eq!(panics(&farm), 1);
    // Its task serves on.
    let next = farm.cli().submit_script(&["--tag", "victim"], "true");
    succeeds_in_one_attempt(&farm, &next);
    // Opening the pipe waits for the build's own opening; closing lets it go on.
    drop(std::fs::File::options().write(true).open(&pipe).unwrap());
    succeeds_in_one_attempt(&farm, &other);
    assert_eq!(farm.cli().log(&other), "done\n");
}

#[test]
fn a_builder_that_panics_over_and_over_holds_up_no_other() {
    let (farm, victim) = cancelled_on_victim("driver.panic-in-stop:always");
    farm.cli().run(&["job", "cancel", &victim]).succeeds();
    while panics(&farm) < 5 {
        let other = farm.cli().submit_script(&["--tag", "other"], "true");
        // An offer may cross the Hello that follows a panic; it is made again.
        let shown = farm.cli().verdict(&other);
        assert_eq!(shown["job"]["verdict"]["verdict"], "succeeded", "{shown:#}");
    }
}
