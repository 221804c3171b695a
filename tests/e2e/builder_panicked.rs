//! A panic in one builder's task: that builder starts again from its spool, and
//! neither its own build nor another builder of the same agent is lost.

use farmbell_agent::failpoint::VARIABLE;
use farmbell_tests::harness::{BuilderPlan, TestFarm};
use nix::sys::stat::Mode;

#[test]
fn a_panic_in_a_builders_task_ends_that_builders_task_only() {
    let mut farm = TestFarm::start();
    let tagged =
        |name: &str| BuilderPlan::named(name).with(&format!("restricted-tags = [{name:?}]"));
    farm.add_agent("a1", &[tagged("victim"), tagged("other")]);
    farm.agents[0].kill();
    farm.agents[0].start_with(&[(VARIABLE, "driver.panic-in-stop")]);
    let mut events = farm.events();

    let pipe = farm.file("pipe");
    nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    let script = format!("cat {} > /dev/null; echo done", pipe.display());
    let other = farm.cli().submit_script(&["--tag", "other"], &script);
    let victim = farm
        .cli()
        .submit_script(&["--tag", "victim"], "exec sleep 600");
    events.next_of_job("job.running", &victim);
    farm.cli().run(&["job", "cancel", &victim]).succeeds();

    let shown = farm.cli().verdict(&victim);
    assert_eq!(shown["job"]["verdict"]["verdict"], "cancelled", "{shown:#}");
    let log = farm.agents[0].daemon.log();
    assert!(
        log.contains("injected: a panic in a builder's task"),
        "{log}"
    );
    // Its task serves on.
    let next = farm.cli().submit_script(&["--tag", "victim"], "true");
    let shown = farm.cli().verdict(&next);
    assert_eq!(shown["job"]["verdict"]["verdict"], "succeeded", "{shown:#}");

    // Opening the pipe waits for the build's own opening; closing lets it go on.
    drop(std::fs::File::options().write(true).open(&pipe).unwrap());
    let shown = farm.cli().verdict(&other);
    assert_eq!(shown["job"]["verdict"]["verdict"], "succeeded", "{shown:#}");
    assert_eq!(shown["attempts"].as_array().unwrap().len(), 1, "{shown:#}");
    assert_eq!(farm.cli().log(&other), "done\n");
}
