//! A build that says far more than it may: the head and the tail of its log are
//! kept, the build itself is not held up, and its neighbour does not notice.

use farmbell_tests::harness::{BuilderPlan, TestFarm};

const LIMIT: usize = 100_000;
const LAST: u32 = 1_000_000;

/// The bytes of `seq 1 LAST`.
fn said(last: u32) -> usize {
    (1..=last).map(|number| number.to_string().len() + 1).sum()
}

#[test]
fn of_a_flooded_log_head_and_tail_are_kept_and_another_builder_works_on() {
    let mut farm = TestFarm::start();
    let flooded = BuilderPlan::named("flooded").with(&format!(
        "restricted-tags = [\"flood\"]\nlimits = {{ log-bytes = {LIMIT} }}"
    ));
    farm.add_agent("a1", &[flooded, BuilderPlan::named("other")]);
    let mut events = farm.events();
    let flood = farm
        .cli()
        .submit_script(&["--tag", "flood"], &format!("seq 1 {LAST}"));
    events.next_of_job("job.running", &flood);
    let other = farm.cli().submit_script(&[], "echo here");
    let shown = farm.cli().verdict(&other);
    assert_eq!(shown["job"]["verdict"]["verdict"], "succeeded", "{shown:#}");
    assert_eq!(farm.cli().log(&other), "here\n");

    let shown = farm.cli().verdict(&flood);
    assert_eq!(shown["job"]["verdict"]["verdict"], "succeeded", "{shown:#}");
    let log = farm.cli().log(&flood);
    assert_eq!(log.len(), LIMIT, "of {LAST} lines");
    let dropped = said(LAST) - LIMIT;
    let told = farm.cli().run(&["logs", &flood]).succeeds().stderr;
    assert!(
        told.contains(&format!("{dropped} bytes that followed byte ")),
        "{told}"
    );
    assert!(log.starts_with("1\n2\n3\n"));
    assert!(log.ends_with(&format!("\n{}\n{LAST}\n", LAST - 1)));
}
