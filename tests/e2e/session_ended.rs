//! A session ends in the coordinator in ways that nobody planned: the build
//! behind it goes on, in the same attempt.

use farmbell_tests::harness::{PATIENCE, TestFarm};

/// A farm whose coordinator has this failpoint armed, and a job on it.
fn with_failpoint(name: &str) -> (TestFarm, String) {
    let mut farm = TestFarm::with_one_builder();
    farm.coordinator.kill();
    let armed = [("FARMBELL_FAILPOINT", name)];
    farm.coordinator.restart_with(&armed);
    let job = farm.cli().submit_script(&[], "echo hello");
    (farm, job)
}

fn succeeded_once(farm: &TestFarm, job: &str) {
    let shown = farm.cli().verdict(job);
    assert_eq!(shown["job"]["verdict"]["verdict"], "succeeded", "{shown:#}");
    let attempts = shown["attempts"].as_array().unwrap().len();
    assert_eq!(attempts, 1, "{shown:#}");
    assert_eq!(farm.cli().log(job), "hello\n");
}

#[test]
fn a_panic_in_a_session_ends_that_session_only() {
    let (farm, job) = with_failpoint("session.panic-in-report:3");
    succeeded_once(&farm, &job);
    let log = farm.coordinator.daemon.log();
    assert!(log.contains("injected: a panic in a session"), "{log}");
}

#[test]
fn what_was_durable_and_not_said_is_said_after_the_restart() {
    for name in ["bulk.blob-unsaid", "bulk.log-unsaid"] {
        let (mut farm, job) = with_failpoint(name);
        farm.coordinator.daemon.wait(PATIENCE);
        farm.coordinator.restart();
        succeeded_once(&farm, &job);
    }
}
