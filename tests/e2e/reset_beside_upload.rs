//! A builder is reset and goes on while outputs still travel, unless its reset
//! would take them along.

use farmbell_tests::harness::{BuilderPlan, CoordinatorPlan, Relay, TestFarm, text, write_script};

/// A farm whose bulk door leads nowhere yet, and a builder with this reset.
fn farm_behind(relay: &Relay, reset: impl Fn(&TestFarm) -> String) -> TestFarm {
    let mut farm = TestFarm::start_as(&CoordinatorPlan {
        settings: format!("advertise_bulk = \"{}\"", relay.address()),
        ..CoordinatorPlan::default()
    });
    let script = farm.file("reset");
    write_script(&script, &format!("#!/bin/sh\n{}\n", reset(&farm)));
    let line = format!("reset = [{:?}]", script.display().to_string());
    farm.add_agent("a1", &[BuilderPlan::named("b1").with(&line)]);
    farm
}

fn deliver(farm: &TestFarm, said: &str) -> String {
    let script = format!("echo {said} > $FARMBELL_OUTPUTS/said");
    farm.cli().submit_script(&[], &script)
}

fn has_delivered(farm: &TestFarm, job: &str, said: &str) {
    let shown = farm.cli().verdict(job);
    assert_eq!(text(&shown["job"]["verdict"], "verdict"), "succeeded");
    let to = farm.file(&format!("fetched-{job}"));
    let to = to.display().to_string();
    farm.cli()
        .run(&["artifact", "get", job, "-d", &to])
        .succeeds();
    let fetched = std::fs::read_to_string(format!("{to}/said")).unwrap();
    assert_eq!(fetched.trim(), said);
}

#[test]
fn the_next_job_runs_while_outputs_travel_where_a_canary_outlived_the_reset() {
    let relay = Relay::open();
    let farm = farm_behind(&relay, |_| "true".to_owned());
    let mut events = farm.events();
    let first = deliver(&farm, "first");
    let second = deliver(&farm, "second");
    events.next_of_job("job.finishing", &first);
    // Not one byte of the first has come; the second runs to its end all the same.
    events.next_of_job("job.finishing", &second);
    assert_eq!(relay.carried(), 0);
    relay.lead_to(farm.coordinator.address("bulk"));
    has_delivered(&farm, &first, "first");
    has_delivered(&farm, &second, "second");
}

#[test]
fn a_reset_that_takes_everything_along_waits_for_the_outputs() {
    let relay = Relay::open();
    let farm = farm_behind(&relay, |farm| {
        format!("rm -rf {}/a1/state/work/b1/*", farm.path().display())
    });
    let mut events = farm.events();
    let first = deliver(&farm, "first");
    let second = deliver(&farm, "second");
    events.next_of_job("job.finishing", &first);
    let said = farm.cli().run(&["job", "explain", &second]).succeeds();
    let waits = "sending outputs before a reset";
    assert!(said.stdout.contains(waits), "{said:#?}");
    relay.lead_to(farm.coordinator.address("bulk"));
    has_delivered(&farm, &first, "first");
    has_delivered(&farm, &second, "second");
}
