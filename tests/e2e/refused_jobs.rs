//! Jobs that cannot be: refused at submit with cause and fix, or explained.

use farmbell_tests::harness::{Said, TestFarm};

fn submit_file(farm: &TestFarm, text: &str) -> Said {
    let path = farm.file("job.toml");
    std::fs::write(&path, text).unwrap();
    farm.cli().run(&["submit", path.to_str().unwrap()])
}

#[test]
fn a_wrong_job_is_refused_with_cause_and_fix() {
    let farm = TestFarm::with_one_builder();

    // A word that no job file has, with its line.
    submit_file(&farm, "command = [\"true\"]\npriorty = 3\n")
        .fails_naming(&["priorty", "2", "fix"]);
    // No TOML at all.
    submit_file(&farm, "command = [\n").fails_naming(&["job.toml", "fix"]);
    // An input that is not there.
    submit_file(&farm, "command = [\"true\"]\ninputs = [\"nowhere.c\"]\n")
        .fails_naming(&["nowhere.c", "fix"]);
    // A recipe that no builder knows, and an architecture that nobody has.
    submit_file(&farm, "recipe = \"bake-a-cake\"\n").fails_naming(&["bake-a-cake", "fix"]);
    farm.cli()
        .run(&["submit", "--arch", "s390x", "--", "true"])
        .fails_naming(&["s390x", "fix"]);
    // A file that is no job, a source that is no source.
    farm.cli()
        .run(&["submit", "/etc/hostname"])
        .fails_naming(&["/etc/hostname", "fix"]);
    let dsc = farm.file("broken.dsc");
    std::fs::write(&dsc, "Source: broken\nFiles:\n 0 1 not-there.tar.gz\n").unwrap();
    farm.cli()
        .run(&["submit", dsc.to_str().unwrap()])
        .fails_naming(&["broken.dsc", "fix"]);

    let jobs = farm.cli().json(&["jobs"]);
    let jobs = jobs.get("jobs").unwrap_or(&jobs);
    assert_eq!(jobs.as_array().unwrap().len(), 0, "nothing was accepted");
    // And the farm goes on.
    let job = farm.cli().submit_script(&[], "true");
    assert_eq!(
        farm.cli().verdict(&job)["job"]["verdict"]["verdict"],
        "succeeded"
    );
}

#[test]
fn a_dry_run_says_who_could_take_it_and_why_the_others_cannot() {
    let farm = TestFarm::with_one_builder();
    let said = farm
        .cli()
        .run(&["submit", "--dry-run", "--", "true"])
        .succeeds();
    assert!(said.stdout.contains("b1"), "{said:#?}");

    let said = farm
        .cli()
        .run(&["submit", "--dry-run", "--tag", "gpu", "--", "true"])
        .fails_naming(&["b1", "gpu"]);
    assert_eq!(said.code, Some(7), "refused, by the documented table");

    let plans = farm
        .cli()
        .run(&[
            "--output",
            "json",
            "submit",
            "--dry-run",
            "--arch",
            "s390x",
            "--",
            "true",
        ])
        .json();
    assert_eq!(plans[0]["builders"][0]["matches"], false, "{plans:#}");
    let jobs = farm.cli().json(&["jobs"]);
    let jobs = jobs.get("jobs").unwrap_or(&jobs);
    assert_eq!(jobs.as_array().unwrap().len(), 0, "nothing was accepted");
}

#[test]
fn a_job_that_nobody_can_take_waits_with_a_true_reason_once_it_is_allowed() {
    let farm = TestFarm::with_one_builder();
    let job = farm
        .cli()
        .submit_script(&["--tag", "gpu", "--allow-unmatched"], "true");
    let explained = farm.cli().json(&["job", "explain", &job]);
    let plan = &explained["plan"];
    assert_eq!(plan["builders"][0]["matches"], false, "{explained:#}");
    assert!(plan.to_string().contains("gpu"), "{explained:#}");
    farm.cli().run(&["job", "cancel", &job]).succeeds();
    assert_eq!(
        farm.cli().verdict(&job)["job"]["verdict"]["verdict"],
        "cancelled"
    );
}
