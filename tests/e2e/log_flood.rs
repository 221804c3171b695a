//! A build that says far more than it may: the head and the tail of its log are
//! kept, the build itself is not held up, and its neighbour does not notice.

use farmbell_tests::harness::{BuilderPlan, TestFarm};

const LIMIT: usize = 100_000;
const LAST: u32 = 3_000_000;

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
    assert!(log.starts_with("1\n2\n3\n"));
    assert!(log.ends_with(&format!("\n{}\n{LAST}\n", LAST - 1)));
}
