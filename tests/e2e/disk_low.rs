//! A builder whose disk runs full says so when an attempt ends, takes nothing
//! until there is room again, and is told of it by a reset.

use farmbell_tests::harness::{Around, BuilderPlan, TestFarm, text};

#[test]
fn a_builder_with_a_full_disk_says_so_and_takes_jobs_again_when_there_is_room() {
    let mut farm = TestFarm::start();
    let disk = farm.file("a1").join("state").join("work");
    let around = Around::SmallDisk(disk.clone(), 64);
    let plan = BuilderPlan::named("b1").with("disk-low-bytes = 33554432");
    farm.add_agent_inside(Some(around), "a1", &[plan]);
    let mut events = farm.events();
    let filler = disk.join("filler").display().to_string();
    let script = format!("head -c 48M /dev/zero > {filler}");
    let first = farm.cli().submit_script(&[], &script);
    let low = events.next_of("builder.fitness");
    assert!(low.why.starts_with("disk_low: 15 MiB are free"), "{low:?}");
    let shown = farm.cli().verdict(&first);
    assert_eq!(
        text(&shown["job"]["verdict"], "verdict"),
        "succeeded",
        "{shown:#}"
    );

    let second = farm.cli().submit_script(&[], "true");
    let explained = farm
        .cli()
        .run(&["job", "explain", &second])
        .succeeds()
        .stdout;
    assert!(explained.contains("disk"), "{explained}");
    let builder = farm.cli().run(&["builder", "show", "b1"]).succeeds().stdout;
    assert!(builder.contains("disk low"), "{builder}");
    assert!(builder.contains("farmbell builder reset b1"), "{builder}");

    // Only the agent sees its small disk.
    let agent = farm.agents[0].daemon.pid().unwrap();
    std::fs::remove_file(format!("/proc/{agent}/root{filler}")).unwrap();
    farm.cli().run(&["builder", "reset", "b1"]).succeeds();
    let fit = events.next_of("builder.fitness");
    assert!(fit.why.starts_with("fit"), "{fit:?}");
    let shown = farm.cli().verdict(&second);
    assert_eq!(
        text(&shown["job"]["verdict"], "verdict"),
        "succeeded",
        "{shown:#}"
    );
}
