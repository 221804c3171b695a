//! What is over is shown as over: where it was built, and no stage.

use farmbell_tests::harness::TestFarm;

#[test]
fn a_finished_job_is_listed_with_its_builder_and_shown_without_a_stage() {
    let farm = TestFarm::with_one_builder();
    let job = farm.cli().submit_script(&[], "true");
    drop(farm.cli().verdict(&job));
    let listed = farm.cli().run(&["jobs"]).succeeds().stdout;
    let line = listed.lines().find(|line| line.contains(&job)).unwrap();
    assert!(line.split_whitespace().any(|word| word == "b1"), "{listed}");
    let shown = farm.cli().run(&["job", "show", &job]).succeeds().stdout;
    assert!(!shown.contains("finishing"), "{shown}");
    assert!(shown.contains("succeeded"), "{shown}");
}
