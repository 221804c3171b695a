//! Every act of an operator, typed as a person types it: it does what it says,
//! stands in the history with who, when and why, and nonsense is refused with
//! the cause, the fix and the documented exit code.

use farmbell_tests::harness::{Agent, BuilderPlan, Cli, Entry, Events, Said, TestFarm, text};
use serde_json::Value;

const REFUSED: Option<i32> = Some(7);
const NOT_FOUND: Option<i32> = Some(3);
const USAGE: Option<i32> = Some(2);
const UNREACHABLE: Option<i32> = Some(5);

/// Operates a farm and follows its history.
struct Desk {
    cli: Cli,
    events: Events,
    acts: u32,
}

impl Desk {
    fn at(farm: &TestFarm) -> Self {
        Self {
            cli: farm.cli(),
            events: farm.events(),
            acts: 0,
        }
    }

    /// Types the act with a reason of its own; the history has it under `kind`.
    fn does(&mut self, act: &[&str], kind: &str) -> Entry {
        self.acts += 1;
        let reason = format!("reason number {}", self.acts);
        let said = self.cli.run(&[act, &["--reason", &reason]].concat());
        said.succeeds();
        let entry = self.events.next_that(kind, |entry| {
            entry.kind == kind && entry.why.contains(&reason)
        });
        assert!(!entry.by.is_empty() && !entry.at.is_empty(), "{entry:?}");
        entry
    }

    fn is_refused(&self, act: &[&str], code: Option<i32>, words: &[&str]) {
        let said = self.cli.run(act).fails_naming(words);
        assert_eq!(said.code, code, "{said:#?}");
        assert!(said.stderr.contains("fix"), "{said:#?}");
    }

    fn builder(&self, name: &str) -> Value {
        self.cli.json(&["builder", "show", name])
    }

    /// Why the job waits, in one sentence.
    fn explained(&self, job: &str) -> String {
        self.cli.json(&["job", "explain", job])["plan"]["summary"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    fn submit(&self, name: &str) -> String {
        self.cli.submit_script(&["--name", name], "true")
    }

    fn verdict(&mut self, job: &str) -> String {
        self.events.next_of_job("job.verdict", job);
        let shown = self.cli.verdict(job);
        shown["job"]["verdict"]["verdict"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// The ids of what waits, in the order it would start.
    fn queue(&self) -> Vec<String> {
        let queue = self.cli.json(&["queue"]);
        let jobs = queue["jobs"].as_array().unwrap();
        jobs.iter()
            .map(|queued| {
                assert_ne!(queued["reason"], "", "{queued:#}");
                queued["job"]["id"].as_str().unwrap().to_owned()
            })
            .collect()
    }
}

#[test]
fn a_builder_is_taken_out_and_given_back_in_every_way() {
    let farm = TestFarm::with_one_builder();
    let mut desk = Desk::at(&farm);
    for (out, mode, back, wrong) in [
        ("manual", "manual", "auto", "resume"),
        ("drain", "draining", "resume", "auto"),
        ("quarantine", "quarantined", "resume", "auto"),
        ("disable", "disabled", "enable", "resume"),
    ] {
        desk.does(&["builder", out, "b1"], "builder.mode");
        let shown = desk.builder("b1");
        assert_eq!(shown["mode"], mode, "{shown:#}");
        assert!(
            shown["mode_why"]
                .as_str()
                .unwrap()
                .contains("reason number")
        );
        let job = desk.submit("waits");
        assert!(
            desk.explained(&job).contains(mode),
            "{}",
            desk.explained(&job)
        );
        assert_eq!(desk.queue(), [job.as_str()]);
        let mend = format!("farmbell builder {back} b1");
        desk.is_refused(&["builder", wrong, "b1"], REFUSED, &[mode, &mend]);
        desk.does(&["builder", back, "b1"], "builder.mode");
        assert_eq!(desk.verdict(&job), "succeeded");
    }
    assert_eq!(
        desk.cli.run(&["queue"]).succeeds().stdout,
        "nothing waits\n"
    );
    desk.is_refused(&["builder", "auto", "b1"], REFUSED, &["enabled"]);
    desk.is_refused(
        &["builder", "drain", "b9"],
        NOT_FOUND,
        &["b9", "farmbell builders"],
    );
}

#[test]
fn a_builder_is_reset_by_hand_and_removed() {
    let mut farm = TestFarm::with_one_builder();
    let mut desk = Desk::at(&farm);
    desk.does(&["builder", "reset", "b1"], "builder.resetting");
    desk.events.next_of("builder.clean");
    desk.does(&["builder", "disable", "b1"], "builder.mode");
    for act in ["reset", "drain", "manual"] {
        let mend = ["disabled", "farmbell builder enable b1"];
        desk.is_refused(&["builder", act, "b1"], REFUSED, &mend);
    }
    desk.does(&["builder", "enable", "b1"], "builder.mode");
    desk.events.next_of("builder.clean");

    let job = farm.cli().submit_script(&[], "exec sleep 600");
    desk.events.next_of_job("job.running", &job);
    desk.is_refused(
        &["builder", "reset", "b1"],
        REFUSED,
        &["works on", "cancel"],
    );
    desk.is_refused(
        &["builder", "remove", "b1"],
        REFUSED,
        &["still has", "--abandon"],
    );
    let shown = desk.cli.run(&["builder", "show", "b1"]).succeeds();
    assert!(shown.stdout.contains(&format!("{job}.1.1\n")), "{shown:#?}");
    // It keeps its builder; only what comes after is held back.
    let said = desk.cli.run(&["job", "suspend", &job]).succeeds();
    let state = "running (to be held back)";
    assert!(said.stdout.contains(state), "{said:#?}");
    desk.does(&["job", "resume", &job], "job.resumed");
    // A drain that does not wait for ever, and says until when.
    desk.does(
        &["builder", "drain", "b1", "--within", "1h"],
        "builder.mode",
    );
    let shown = desk.cli.run(&["builder", "show", "b1"]).succeeds();
    assert!(shown.stdout.contains("drains until"), "{shown:#?}");
    desk.does(
        &["builder", "drain", "b1", "--within", "1ms"],
        "builder.mode",
    );
    desk.events.next_of_job("job.returned", &job);
    desk.does(&["job", "cancel", &job], "job.cancel_wished");
    assert_eq!(desk.verdict(&job), "cancelled");

    farm.agents[0].kill();
    desk.does(&["builder", "remove", "b1", "--abandon"], "builder.removed");
    desk.is_refused(
        &["builder", "show", "b1"],
        NOT_FOUND,
        &["b1", "farmbell builders"],
    );
    assert_eq!(desk.cli.json(&["builders"]), Value::Array(Vec::new()));
}

#[test]
fn jobs_are_ordered_held_back_ended_and_built_again_one_or_many() {
    let farm = TestFarm::with_one_builder();
    let mut desk = Desk::at(&farm);
    desk.does(&["builder", "manual", "b1"], "builder.mode");
    let one = desk.submit("one");
    let two = desk.submit("two");
    assert_eq!(desk.queue(), [one.as_str(), two.as_str()]);
    desk.does(&["job", "set-priority", "100", &two], "job.priority");
    assert_eq!(desk.queue(), [two.as_str(), one.as_str()]);
    desk.does(&["job", "suspend", &two], "job.suspended");
    assert!(
        desk.explained(&two).contains("suspended"),
        "{}",
        desk.explained(&two)
    );
    desk.is_refused(
        &["job", "retry", &one],
        REFUSED,
        &["not finished", "job show"],
    );

    // The bulk forms.
    desk.does(&["job", "suspend", "--state", "waiting"], "bulk.ended");
    assert!(
        desk.explained(&one).contains("suspended"),
        "{}",
        desk.explained(&one)
    );
    desk.does(
        &["job", "set-priority", "7", "--state", "waiting"],
        "bulk.ended",
    );
    for job in [&one, &two] {
        let shown = desk.cli.json(&["job", "show", job]);
        assert_eq!(shown["job"]["priority"], 7, "{shown:#}");
    }
    desk.does(&["job", "resume", &two], "job.resumed");
    desk.does(&["job", "cancel", "--state", "waiting"], "bulk.ended");
    for job in [&one, &two] {
        assert_eq!(
            desk.cli.verdict(job)["job"]["verdict"]["verdict"],
            "cancelled"
        );
    }
    desk.is_refused(
        &["job", "suspend", &one],
        REFUSED,
        &["has its verdict", "job retry"],
    );
    let ended = desk.does(&["job", "retry", "--state", "cancelled"], "bulk.ended");
    assert!(ended.why.starts_with("2 jobs retried"), "{ended:?}");
    desk.does(&["builder", "auto", "b1"], "builder.mode");
    for _ in 0..2 {
        desk.events.next_of("job.verdict");
    }
    for job in [&one, &two] {
        let shown = desk.cli.json(&["job", "show", job]);
        assert_eq!(shown["job"]["verdict"]["verdict"], "succeeded", "{shown:#}");
    }

    desk.is_refused(
        &["job", "cancel", "zzzzzzzz"],
        NOT_FOUND,
        &["zzzzzzzz", "farmbell jobs"],
    );
    desk.is_refused(&["job", "cancel"], USAGE, &["no job is named", "--state"]);
    desk.is_refused(
        &["job", "cancel", &one, "--state", "waiting"],
        USAGE,
        &["at once"],
    );
    let said = desk.cli.run(&["job", "set-priority", "much", &one]);
    assert_eq!(said.fails_naming(&["much"]).code, USAGE);
}

/// Jobs that nobody takes, by their names.
fn submit_many(farm: &TestFarm, names: impl Iterator<Item = String>) -> Vec<String> {
    let submit = |name: String| {
        let unwanted = [
            "--name",
            &name,
            "--tag",
            "nobody-has-it",
            "--allow-unmatched",
        ];
        farm.cli().submit_script(&unwanted, "true")
    };
    names.map(submit).collect()
}

#[test]
fn an_act_on_many_jobs_by_name_passes_over_history_and_outlives_its_reader() {
    let farm = TestFarm::start();
    let cli = farm.cli();
    // More than are on the way at once.
    let hellos = submit_many(&farm, (0..40).map(|number| format!("hello-{number}")));
    let states = |state: &str| {
        let jobs = cli.json(&["jobs", "--all", "--state", state]);
        jobs.as_array().unwrap().len()
    };
    let by_name = |act: &str, name: &str| cli.run(&["job", act, "--name", name]).succeeds();

    let said = by_name("cancel", "hello");
    assert_eq!(said.stderr, "done with 40 of 40 jobs\n");
    assert_eq!(said.stdout.lines().count(), 40);
    // Finished jobs of that name are not in the way.
    let late = &submit_many(&farm, ["hello-late".to_owned()].into_iter())[0];
    let said = by_name("cancel", "hello");
    assert_eq!(said.stderr, "done with 1 of 1 jobs\n");
    assert!(said.stdout.contains(late), "{said:#?}");
    for (act, name) in [
        ("cancel", "hello"),
        ("suspend", "hello"),
        ("wake", "hello"),
        ("retry", "other"),
    ] {
        let said = by_name(act, name);
        assert_eq!(
            (said.stdout.as_str(), said.stderr.as_str()),
            ("", "no job matches\n")
        );
    }

    // `| head` has seen enough before the first line.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let said = cli.run(&["job", "retry", "--state", "cancelled"]);
    assert_eq!(said.succeeds().stdout, "41 jobs changed\n");
    assert_eq!((states("waiting"), states("cancelled")), (41, 0));
    let mut suspend = cli.command(&["job", "suspend", "--name", "hello"]);
    suspend.stdout(writer).stderr(std::process::Stdio::piped());
    let ended = suspend.spawn().unwrap().wait_with_output().unwrap();
    let said = Said::of(ended, "job suspend").succeeds();
    assert_eq!(said.stderr, "done with 41 of 41 jobs\n");
    assert_eq!(states("suspended"), 41);

    // JSON is one value, whichever way jobs are picked.
    let ids: Vec<&str> = hellos.iter().map(String::as_str).take(2).collect();
    let scored = cli.json(&["job", "set-priority", "4", "--name", "hello"]);
    assert_eq!(scored.as_array().unwrap().len(), 41, "{scored:#}");
    let resumed = cli.json(&["job", "resume", ids[0], ids[1]]);
    assert_eq!(resumed.as_array().unwrap().len(), 2, "{resumed:#}");
    assert_eq!(text(&cli.json(&["job", "suspend", ids[0]]), "id"), ids[0]);
    assert_eq!(
        cli.json(&["job", "cancel", "--name", "other"]),
        Value::Array(Vec::new())
    );
    let lines = cli
        .run(&["--output", "ndjson", "job", "resume", "--name", "hello"])
        .succeeds();
    assert_eq!(lines.stdout.lines().count(), 40, "one goes already");
    let scored = cli.run(&["job", "set-priority", "5", ids[0]]).succeeds();
    assert!(scored.stdout.ends_with("waiting, score 5\n"), "{scored:#?}");
}

#[test]
fn an_act_on_many_jobs_ends_with_the_worst_and_what_to_do() {
    let mut farm = TestFarm::start();
    let cli = farm.cli();
    let jobs = submit_many(&farm, ["one", "two"].into_iter().map(str::to_owned));
    let shown = cli.json(&["job", "show", &jobs[0]]);
    let submission = text(&shown["job"], "submission");
    cli.run(&["job", "cancel", &jobs[0]]).succeeds();

    let said = cli.run(&["job", "suspend", &jobs[0], "zzzzzzzz", &jobs[1]]);
    assert_eq!(said.code, REFUSED, "{said:#?}");
    let (told, advice) = said.stderr.split_once("done with 1 of 3 jobs\n").unwrap();
    assert!(told.contains("zzzzzzzz"), "{said:#?}");
    assert_eq!(advice.matches("fix: ").count(), 1, "{said:#?}");
    assert!(advice.contains("job retry"), "{said:#?}");

    let pick = |submission: &str| {
        cli.run(&[
            "job",
            "suspend",
            "--name",
            "other",
            "--submission",
            submission,
        ])
    };
    assert_eq!(pick(&submission).succeeds().stderr, "no job matches\n");
    let said = pick("szzzzzzzz").fails_naming(&["szzzzzzzz", "fix"]);
    assert_eq!(said.code, NOT_FOUND, "{said:#?}");

    farm.coordinator.kill();
    let said = cli.run(&["job", "cancel", &jobs[0], &jobs[1]]);
    assert_eq!(said.code, UNREACHABLE, "{said:#?}");
    assert!(
        said.stderr.contains("done with 0 of 2 jobs\nfix: "),
        "{said:#?}"
    );
}

#[test]
fn jobs_are_found_by_each_word_that_tells_their_state() {
    let mut farm = TestFarm::with_one_builder();
    let mut desk = Desk::at(&farm);
    let found = |cli: &Cli, state: &str| -> Vec<String> {
        let list = cli.json(&["jobs", "--state", state]);
        let jobs = list.as_array().unwrap();
        jobs.iter()
            .map(|job| job["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let runs = farm.cli().submit_script(&[], "exec sleep 600");
    desk.events.next_of_job("job.running", &runs);
    let held = desk.submit("held");
    // What runs goes on; only its next attempt would be held back.
    desk.does(&["job", "suspend", &runs], "job.suspended");
    desk.does(&["job", "suspend", &held], "job.suspended");
    assert_eq!(found(&desk.cli, "suspended"), [held.as_str()]);
    assert_eq!(found(&desk.cli, "running"), [runs.as_str()]);

    // Nobody is there to answer the wish.
    farm.agents[0].kill();
    desk.does(&["job", "cancel", &runs], "job.cancel_wished");
    assert_eq!(found(&desk.cli, "cancelling"), [runs.as_str()]);
    desk.does(&["job", "cancel", &held], "job.cancel_wished");
    assert_eq!(found(&desk.cli, "suspended"), [""; 0]);
}

#[test]
fn agents_and_tokens_are_revoked_and_removed() {
    let mut farm = TestFarm::with_one_builder();
    farm.add_agent("a2", &[BuilderPlan::named("b2")]);
    let mut desk = Desk::at(&farm);
    let standing = |cli: &Cli, name: &str| {
        let agents = cli.json(&["agents"]);
        let agents = agents.as_array().unwrap().clone();
        let found = agents.into_iter().find(|agent| agent["name"] == name);
        found.map(|agent| agent["standing"].as_str().unwrap().to_owned())
    };
    desk.does(&["agent", "revoke", "a2"], "agent.revoked");
    assert_eq!(standing(&desk.cli, "a2").as_deref(), Some("revoked"));
    desk.is_refused(
        &["agent", "approve", "a2"],
        REFUSED,
        &["never comes back", "join"],
    );
    // It is told so, and does not come back with its key.
    farm.agents[1].kill();
    let builders = [BuilderPlan::named("b2")];
    let again = Agent::prepare(farm.binaries(), &farm.file("a2"), "a2", &builders);
    let token = desk.cli.token(&[]);
    again.join(&token).fails_naming(&["revoked"]);
    desk.does(&["agent", "remove", "a2"], "agent.removed");
    assert_eq!(standing(&desk.cli, "a2"), None);
    desk.is_refused(
        &["agent", "remove", "a2"],
        NOT_FOUND,
        &["a2", "farmbell agents"],
    );
    desk.does(&["agent", "approve", "a1"], "agent.approved");

    let token = desk.cli.json(&["token", "create", "--uses", "3"]);
    let number = &token["view"]["id"];
    let id = number.to_string();
    let listed = |cli: &Cli| {
        let tokens = cli.json(&["token", "list"]);
        let tokens = tokens.as_array().unwrap().clone();
        let found = tokens.into_iter().find(|one| one["id"] == *number);
        found.expect("it is listed")["revoked"].clone()
    };
    assert_eq!(listed(&desk.cli), false);
    desk.does(&["token", "revoke", &id], "token.revoked");
    assert_eq!(listed(&desk.cli), true);
    let late = Agent::prepare(farm.binaries(), &farm.file("late"), "late", &builders);
    let said: Said = late.join(token["token"].as_str().unwrap());
    said.fails_naming(&["token-revoked", "farmbell token create"]);
    let refused = desk.events.next_of("token.refused");
    assert!(
        refused.why.contains("'late': this token was revoked"),
        "{refused:?}"
    );
    desk.is_refused(&["token", "revoke", "1"], NOT_FOUND, &["token list"]);
}

/// `exit 67` is the builder's problem, which is nobody's fault the first time.
#[test]
fn jobs_that_nothing_came_of_are_retried_all_at_once() {
    let farm = TestFarm::with_one_builder();
    let mut desk = Desk::at(&farm);
    let directory = tempfile::tempdir().unwrap();
    let well = directory.path().join("well");
    let script = format!("mkdir '{}' && exit 67; exit 0", well.display());
    let once = ["--name", "innocent", "--retries", "1"];
    let job = desk.cli.submit_script(&once, &script);
    assert_eq!(desk.verdict(&job), "infrastructure");

    let retry = ["job", "retry", "--state", "infrastructure", "--reason"];
    let answer = desk
        .cli
        .json(&[&retry[..], &["the power is back"]].concat());
    assert_eq!(answer["matched"], 1, "{answer:#}");
    assert_eq!(answer["changed"], 1, "{answer:#}");
    assert_eq!(answer["finished"], true, "{answer:#}");
    let begun = desk.events.next_of("bulk.begun");
    assert_eq!(begun.why, "retried: the power is back");
    let retried = desk.events.next_of_job("job.retried", &job);
    assert_eq!(retried.why, "generation 2: the power is back");
    let ended = desk.events.next_of("bulk.ended");
    assert_eq!(ended.why, "1 jobs retried: the power is back");
    assert_eq!(ended.by, begun.by);
    assert_eq!(desk.verdict(&job), "succeeded");

    let again = desk.cli.run(&[&retry[..], &["again"]].concat()).succeeds();
    assert_eq!(again.stderr, "no job matches\n");
    desk.is_refused(
        &["job", "retry", "--state", "waiting"],
        USAGE,
        &["no verdict of a job", "infrastructure"],
    );
}
