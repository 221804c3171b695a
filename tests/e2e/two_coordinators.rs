//! Two coordinators on one state directory: the second is refused, and the
//! first does not notice.

use farmbell_tests::harness::{Said, TestFarm};

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
