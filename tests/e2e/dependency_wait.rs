//! A job whose build lacks packages waits for them, and runs again when the
//! farm has built them, an archive's hook tells of them, or an operator says so.

use farmbell_tests::harness::{TestFarm, text};
use serde_json::Value;

/// Fails until the file is there: what is missing, in the recipe's words.
fn lacks(words: &str, until: &str) -> String {
    format!("[ -e {until} ] && exit 0; echo '{words}' > $FARMBELL_REASON; exit 65")
}

/// How the job stands after its newest verdict.
fn ended(farm: &TestFarm, job: &str) -> Value {
    farm.cli().verdict(job)
}

fn waits_for(shown: &Value) -> Option<&str> {
    assert_eq!(
        shown["job"]["verdict"]["kind"], "dependency_wait",
        "{shown:#}"
    );
    shown["waits_for"].as_str()
}

#[test]
fn a_job_waits_for_its_dependencies_and_each_way_of_waking_it_works() {
    let farm = TestFarm::with_one_builder();
    let there = farm.file("there");
    let there = there.to_str().unwrap();
    let words = "baz (>= 1:1.0.1)";
    let job = farm.cli().submit_script(&[], &lacks(words, there));

    // The verdict and the reason are the recipe's own words.
    let shown = ended(&farm, &job);
    assert_eq!(text(&shown["job"]["verdict"], "why"), words);
    assert_eq!(waits_for(&shown), Some(words));
    let explained = farm.cli().run(&["job", "explain", &job]).succeeds();
    assert!(
        explained.stdout.contains("waits for baz (>= 1:1.0.1)"),
        "{explained:#?}"
    );
    let listed = farm
        .cli()
        .run(&["jobs", "--state", "dependency_wait"])
        .succeeds();
    assert!(listed.stdout.contains(&job), "{listed:#?}");
    let queue = farm.cli().run(&["queue"]).succeeds();
    assert!(
        queue.stdout.contains("1 finished jobs wait for packages"),
        "{queue:#?}"
    );

    // An older package does not wake it; the farm's own package does.
    let mut events = farm.events();
    let too_old = "touch $FARMBELL_OUTPUTS/baz_9_amd64.deb";
    ended(&farm, &farm.cli().submit_script(&[], too_old));
    assert_eq!(ended(&farm, &job)["job"]["generation"], 1);
    let newer = farm.file("baz.toml");
    let builds = "name = \"baz\"\nversion = \"1:1.0.1-1\"\ncommand = [\"sh\", \"-c\", \
         \"touch $FARMBELL_OUTPUTS/baz_1.0.1-1_amd64.deb\"]\n";
    std::fs::write(&newer, builds).unwrap();
    farm.cli()
        .run(&["submit", newer.to_str().unwrap()])
        .succeeds();
    events.next_of_job("job.woken", &job);
    events.next_of_job("job.waits", &job);
    assert_eq!(ended(&farm, &job)["job"]["generation"], 2);

    // An archive's hook.
    let hook = ["provide", "baz", "1:1.0.2-1", "--arch", "amd64"];
    farm.cli().run(&hook).succeeds();
    events.next_of_job("job.woken", &job);
    events.next_of_job("job.waits", &job);
    assert_eq!(ended(&farm, &job)["job"]["generation"], 3);

    // An operator, who put it there.
    std::fs::write(there, "").unwrap();
    farm.cli()
        .run(&["job", "wake", &job, "--reason", "it is there"])
        .succeeds();
    events.next_of_job("job.woken", &job);
    let shown = ended(&farm, &job);
    assert_eq!(shown["job"]["verdict"]["verdict"], "succeeded", "{shown:#}");
    assert_eq!(shown["job"]["generation"], 4);
    assert_eq!(shown["waits_for"], Value::Null);

    // Nonsense is refused clearly.
    farm.cli()
        .run(&["job", "wake", &job])
        .fails_naming(&["waits for no dependency", "fix"]);
    farm.cli()
        .run(&["provide", "baz", "one two", "--arch", "amd64"])
        .fails_naming(&["baz one two", "whole version"]);
}

#[test]
fn a_wait_is_given_up_by_the_jobs_name_and_is_history_then() {
    let farm = TestFarm::with_one_builder();
    let never = farm.file("never");
    let lacking = lacks("baz", never.to_str().unwrap());
    let job = farm.cli().submit_script(&["--name", "lacking"], &lacking);
    assert_eq!(waits_for(&ended(&farm, &job)), Some("baz"));
    let act = |act: &str, filter: [&str; 2]| {
        let said = farm.cli().run(&["job", act, filter[0], filter[1]]);
        said.succeeds().stderr
    };
    // What waits for packages can be held back before they come.
    assert_eq!(act("resume", ["--name", "lack"]), "no job matches\n");
    for known in ["suspend", "resume"] {
        assert_eq!(act(known, ["--name", "lack"]), "done with 1 of 1 jobs\n");
    }
    assert_eq!(act("cancel", ["--name", "lack"]), "done with 1 of 1 jobs\n");
    assert_eq!(waits_for(&ended(&farm, &job)), None);
    assert_eq!(act("cancel", ["--name", "lack"]), "no job matches\n");
    let verdict = ["--state", "dependency_wait"];
    assert_eq!(act("wake", verdict), "no job matches\n");
}
