//! An event that makes the farm panic: the coordinator ends once, parks the
//! event at its next start, freezes its agent, and everyone else goes on.

use farmbell_tests::harness::{BuilderPlan, PATIENCE, TestFarm};

#[test]
fn a_poison_event_parks_itself_and_freezes_one_agent() {
    let mut farm = TestFarm::start();
    farm.add_agent("good", &[BuilderPlan::named("b1")]);
    farm.agents[0].kill();
    farm.add_agent("bad", &[BuilderPlan::named("b2")]);
    farm.coordinator.kill();
    // The first report of the one agent that is there will be poison.
    farm.coordinator
        .restart_with(&[("FARMBELL_FAILPOINT", "driver.panic-in-handle")]);
    let job = farm.cli().submit_script(&[], "true");
    let status = farm.coordinator.daemon.wait(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(1), "it ends, and says so");

    // How soon it is back: `bench poison`.
    farm.coordinator.restart();
    let history = farm
        .cli()
        .run(&["--output", "ndjson", "events", "--tail", "100"])
        .succeeds()
        .stdout;
    assert!(history.contains("event.parked"), "{history}");
    let agents = farm.cli().json(&["agents"]).to_string();
    assert_eq!(agents.matches("frozen").count(), 1, "{agents}");

    // Its attempt comes back when an operator has looked: the event gets its
    // second chance by itself, and this time nothing is injected.
    let mut events = farm.events();
    farm.cli()
        .run(&["agent", "approve", "bad", "--reason", "looked at it"])
        .succeeds();
    events.next_of_job("job.verdict", &job);
    farm.agents[0].start();
    let other = farm.cli().submit_script(&[], "true");
    events.next_of_job("job.verdict", &other);
}
