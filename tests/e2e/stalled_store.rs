//! A store that takes nothing for a while: submits are refused with the cause,
//! a build goes on and loses nothing, and when the store is mended everything
//! that waited is said once.

use farmbell_tests::harness::TestFarm;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

#[test]
fn a_stalled_store_accepts_nothing_loses_nothing_and_recovers_when_mended() {
    let farm = TestFarm::with_one_builder();
    let mut events = farm.events();
    let gate = farm.file("gate");
    mkfifo(&gate, Mode::S_IRWXU).unwrap();
    let script = format!("echo begun; cat {}; echo ended", gate.display());
    let build = farm.cli().submit_script(&[], &script);
    events.next_of_job("job.running", &build);

    let held = farm.coordinator.hold_store();
    let submit = ["submit", "--idempotency-key", "once", "--", "true"];
    farm.cli().run(&submit).fails_naming(&[
        "cannot make anything durable",
        "locked",
        "goes on by itself",
    ]);
    let health = farm.api().get("/healthz").unwrap_err().to_string();
    assert!(health.contains("503"), "{health}");
    // The build ends while nothing it reports can be made durable.
    std::fs::write(&gate, "let go\n").unwrap();
    drop(held);

    events.next_of_job("job.verdict", &build);
    assert_eq!(farm.cli().log(&build), "begun\nlet go\nended\n");
    // The refused submit may have been taken all the same: repeated, it is one.
    let again = farm.cli().json(&submit);
    let job = again["jobs"][0]["id"].as_str().unwrap();
    farm.cli().run(&["job", "wait", job]).succeeds();
    let jobs = farm.cli().json(&["jobs", "--all"]);
    assert_eq!(jobs.as_array().map(Vec::len), Some(2), "{jobs:#}");
}
