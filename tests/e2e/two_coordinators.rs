//! Two coordinators on one state directory: the second is refused, and the
//! first does not notice; and none where there is no state directory.

use std::process::Command;

use farmbell_tests::harness::{Said, TestFarm};

#[test]
fn a_state_directory_that_is_not_there_is_named_in_the_command_that_makes_it() {
    let farm = TestFarm::start();
    let missing = farm.file("missing").display().to_string();
    let mut serve = Command::new(farm.binaries().coordinator());
    serve.args(["serve", "--state", &missing]);
    let command = format!("farmbell-coordinator init --state {missing}");
    Said::by(serve).fails_naming(&["is no state directory yet", &command]);
}

#[test]
fn a_second_coordinator_on_a_state_directory_is_refused_by_name() {
    let mut farm = TestFarm::with_one_builder();
    let first = farm.coordinator.daemon.pid().unwrap().to_string();
    let state = farm.coordinator.state().display().to_string();
    let mut events = farm.events();
    for _ in 0..2 {
        let cause = format!("the state directory {state} is in use by process {first}");
        let fix = format!("kill {first}");
        Said::by(farm.coordinator.program("serve")).fails_naming(&[
            &cause,
            "two coordinators on one directory",
            "systemctl stop farmbell-coordinator",
            &fix,
        ]);
        let job = farm.cli().submit_script(&[], "echo first");
        events.next_of_job("job.verdict", &job);
        assert_eq!(farm.cli().log(&job), "first\n");
    }
    farm.coordinator.kill();
    farm.coordinator.restart();
    let job = farm.cli().submit_script(&[], "true");
    let shown = farm.cli().verdict(&job);
    assert_eq!(shown["job"]["verdict"]["verdict"], "succeeded", "{shown:#}");
}
