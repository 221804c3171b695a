//! Eight builders on two agents and two hundred jobs that end in every way
//! there is, with cancels, a failing reset and a failing probe among them. Each
//! job has one verdict, and what the farm says was executed agrees with a tally
//! that the jobs themselves kept in a file outside the farm.

use std::collections::BTreeMap;
use std::path::Path;

use farmbell_tests::harness::{BuilderPlan, Cli, Events, TestFarm};
use serde_json::Value;

/// One way to end.
struct Way {
    name: &'static str,
    script: &'static str,
    arguments: &'static [&'static str],
    verdict: &'static str,
    kind: Option<&'static str>,
    act: Act,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    Nothing,
    CancelAtOnce,
    CancelWhenItRuns,
}

const fn way(
    name: &'static str,
    script: &'static str,
    verdict: &'static str,
    kind: Option<&'static str>,
) -> Way {
    Way {
        name,
        script,
        arguments: &[],
        verdict,
        kind,
        act: Act::Nothing,
    }
}

/// `$F` is a path that only this job uses: what it makes there the first time
/// tells the second attempt that it is the second.
const WAYS: &[Way] = &[
    way("ok", "exit 0", "succeeded", None),
    way(
        "output",
        "head -c 70000 /dev/urandom > $FARMBELL_OUTPUTS/blob",
        "succeeded",
        None,
    ),
    way("fails", "exit 1", "failed", Some("build")),
    way("odd", "exit 42", "failed", Some("build")),
    way("dies", "kill -9 $$", "failed", Some("build")),
    way("outputs", "exit 64", "failed", Some("outputs")),
    way("dependency", "exit 65", "failed", Some("dependency_wait")),
    way("chroot", "exit 66", "failed", Some("chroot_problem")),
    way(
        "builder-once",
        "mkdir $F && exit 67; exit 0",
        "succeeded",
        None,
    ),
    way(
        "back-once",
        "mkdir $F && exit 68; exit 0",
        "succeeded",
        None,
    ),
    Way {
        arguments: &["--timeout", "1s"],
        ..way("too-long", "exec sleep 600", "failed", Some("limit"))
    },
    Way {
        act: Act::CancelWhenItRuns,
        ..way(
            "stopped",
            "trap '' TERM; sleep 600; sleep 600",
            "cancelled",
            None,
        )
    },
    Way {
        act: Act::CancelAtOnce,
        ..way("unwanted", "exec sleep 600", "cancelled", None)
    },
];

const JOBS: usize = 200;

#[test]
fn every_job_has_one_verdict_and_the_tally_agrees() {
    let mut farm = TestFarm::start();
    add_builders(&mut farm);
    let tally = farm.file("tally");
    std::fs::write(&tally, "").unwrap();
    let mut events = farm.events();

    let jobs = submit_all(&farm.cli(), &farm, &tally);
    let verdicts = act_until_all_ended(&farm.cli(), &mut events, &jobs);

    let counted = read_tally(&tally);
    for (id, (name, way)) in &jobs {
        let shown = farm.cli().json(&["job", "show", id]);
        assert_eq!(verdicts[id], 1, "{name} has one verdict");
        assert_eq!(
            shown["job"]["verdict"]["verdict"], way.verdict,
            "{name}: {shown:#}"
        );
        let kind = shown["job"]["verdict"]["kind"].as_str();
        assert_eq!(kind, way.kind, "{name}: {shown:#}");
        let (said, ran) = (
            executions(&shown),
            counted.get(name.as_str()).copied().unwrap_or(0),
        );
        // A cancel may end the shell before it has written its line.
        let agrees = if way.act == Act::CancelAtOnce {
            ran <= said
        } else {
            ran == said
        };
        assert!(
            agrees,
            "{name}: the farm says {said}, the tally {ran}: {shown:#}"
        );
    }
}

fn add_builders(farm: &mut TestFarm) {
    let directory = farm.path().to_owned();
    // Fails on its third and fourth run.
    let fails_for_a_while = |name: &str| {
        let count = directory.join(format!("{name}.count"));
        script(
            &directory.join(name),
            &format!(
                "echo x >> {0}\nn=$(wc -l < {0})\n[ $n -ne 3 ] && [ $n -ne 4 ]",
                count.display()
            ),
        )
    };
    let reset = fails_for_a_while("reset");
    let probe = fails_for_a_while("probe");
    let plain = |name: &str| BuilderPlan::named(name);
    farm.add_agent(
        "a1",
        &[
            plain("b1"),
            plain("b2"),
            plain("b3"),
            plain("b4").with(&format!("reset = [{reset:?}]")),
        ],
    );
    farm.add_agent(
        "a2",
        &[
            plain("b5"),
            plain("b6"),
            plain("b7"),
            plain("b8").with(&format!("probe = [{probe:?}]")),
        ],
    );
}

type Jobs = BTreeMap<String, (String, &'static Way)>;

fn submit_all(cli: &Cli, farm: &TestFarm, tally: &Path) -> Jobs {
    let mut jobs = Jobs::new();
    for number in 0..JOBS {
        let way = &WAYS[number % WAYS.len()];
        let name = format!("{}-{number}", way.name);
        let text = format!(
            "F={}; echo {name} >> {}; {}",
            farm.file(&name).display(),
            tally.display(),
            way.script
        );
        let mut arguments = vec!["--name", &name];
        arguments.extend(way.arguments);
        let id = cli.submit_script(&arguments, &text);
        if way.act == Act::CancelAtOnce {
            cli.run(&["job", "cancel", &id]).succeeds();
        }
        jobs.insert(id, (name, way));
    }
    jobs
}

/// Follows the farm until every job has ended; counts verdicts.
fn act_until_all_ended(cli: &Cli, events: &mut Events, jobs: &Jobs) -> BTreeMap<String, usize> {
    let mut verdicts: BTreeMap<String, usize> = BTreeMap::new();
    while verdicts.len() < jobs.len() {
        let entry = events.next_that("end or start of a job", |entry| {
            entry.kind == "job.verdict" || entry.kind == "job.running"
        });
        let id = entry.job.expect("both kinds name a job");
        let (_, way) = &jobs[&id];
        if entry.kind == "job.verdict" {
            *verdicts.entry(id).or_default() += 1;
        } else if way.act == Act::CancelWhenItRuns {
            cli.run(&["job", "cancel", &id]).succeeds();
        }
    }
    verdicts
}

/// How many times the farm says that the job's command was started.
fn executions(shown: &Value) -> usize {
    let attempts = shown["attempts"].as_array().expect("attempts are listed");
    attempts
        .iter()
        .filter(|attempt| !attempt["started"].is_null())
        .count()
}

fn read_tally(path: &Path) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        *counted.entry(line.to_owned()).or_default() += 1;
    }
    counted
}

/// Writes an executable script and gives its path.
fn script(path: &Path, text: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}
