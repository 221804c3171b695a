//! When a builder is reset is the operator's to say, and so is who besides its
//! agent has to report that a reset is over.

use farmbell_tests::harness::{BuilderPlan, TestFarm, text};
use serde_json::Value;

fn builder(farm: &TestFarm) -> Value {
    farm.cli().json(&["builder", "show", "b1"])
}

fn succeeds(farm: &TestFarm, job: &str) {
    let shown = farm.cli().verdict(job);
    assert_eq!(shown["job"]["verdict"]["verdict"], "succeeded", "{shown:#}");
}

fn does(farm: &TestFarm, arguments: &[&str]) {
    let mut line = vec!["builder"];
    line.extend(arguments);
    farm.cli().run(&line).succeeds();
}

#[test]
fn a_builder_is_reset_when_and_by_whom_its_operator_says() {
    let farm = TestFarm::with_one_builder();
    let mut events = farm.events();

    // By hand: dirty until somebody says so.
    does(&farm, &["reset-rule", "b1", "--when", "by-hand"]);
    events.next_of("builder.reset_rule");
    let first = farm.cli().submit_script(&[], "true");
    succeeds(&farm, &first);
    let second = farm.cli().submit_script(&[], "true");
    let said = farm.cli().run(&["job", "explain", &second]).succeeds();
    assert!(
        said.stdout.contains("dirty until reset by hand"),
        "{said:#?}"
    );
    does(&farm, &["reset", "b1"]);
    succeeds(&farm, &second);

    // Before a job: the job that wants it has it reset.
    does(&farm, &["reset-rule", "b1", "--when", "before"]);
    for _ in 0..2 {
        let job = farm.cli().submit_script(&[], "true");
        succeeds(&farm, &job);
    }
    assert_eq!(text(&builder(&farm), "cleanliness"), "dirty");

    // A reporter: the agent's proof alone is not enough.
    let mut events = farm.events();
    does(
        &farm,
        &[
            "reset-rule",
            "b1",
            "--when",
            "before",
            "--reporter",
            "vm-manager",
        ],
    );
    events.next_of("builder.reset_rule");
    let third = farm.cli().submit_script(&[], "true");
    let ordered = events.next_of("builder.resetting");
    let challenge = text(&builder(&farm)["reset"], "nonce");
    assert!(ordered.why.contains(&challenge), "{ordered:#?}");
    farm.cli()
        .run(&["builder", "reset-over", "b1", &challenge])
        .fails_naming(&["vm-manager", "fix"]);
    farm.cli()
        .run(&["builder", "reset-over", "b1", "soon"])
        .fails_naming(&["soon", "16 hexadecimal digits"]);
    // Whoever runs this test is the reporter from now on.
    let me = ordered_by(&farm);
    does(
        &farm,
        &["reset-rule", "b1", "--when", "before", "--reporter", &me],
    );
    let challenge = loop {
        let shown = builder(&farm);
        let nonce = shown["reset"]["nonce"].as_str().map(str::to_owned);
        match nonce {
            Some(nonce) if nonce != challenge => break nonce,
            _ => drop(events.next_of("builder.resetting")),
        }
    };
    does(&farm, &["reset-over", "b1", &challenge]);
    succeeds(&farm, &third);
}

#[test]
fn a_reset_that_failed_is_the_reason_in_the_list() {
    let mut farm = TestFarm::start();
    let plan = BuilderPlan::named("b1").with("reset = [\"/bin/false\"]");
    farm.add_agent("a1", &[plan.never_clean()]);
    farm.events().next_of("builder.reset_failed");
    let listed = farm.cli().run(&["builders"]).succeeds();
    assert!(
        listed
            .stdout
            .contains("the last reset failed: the reset script"),
        "{listed:#?}"
    );
}

/// The name under which the farm knows who types here.
fn ordered_by(farm: &TestFarm) -> String {
    let history = farm
        .cli()
        .run(&["--output", "ndjson", "events", "--tail", "100"])
        .succeeds();
    history
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|event| event["kind"] == "builder.reset_rule")
        .map(|event| text(&event, "by"))
        .unwrap()
}
