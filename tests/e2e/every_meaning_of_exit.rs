//! Eight builders on two agents and two hundred jobs that end in every way
//! there is, with cancels, a failing reset and a failing probe among them. Each
//! job has one verdict, and what the farm says was executed is what was
//! executed: by a tally that the jobs keep in a file outside the farm, and for
//! jobs that may be killed before their first instruction by the kernel, which
//! tells who opened their program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use farmbell_tests::harness::{BuilderPlan, Events, TestFarm, write_script};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::Mode;
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
    /// Nobody can take it, so that it surely still waits.
    CancelWhileItWaits,
    /// Its agent has it: the order meets it anywhere before or behind its
    /// first instruction.
    CancelWhenAssigned,
    /// Its line stands in the tally.
    CancelWhenItRan,
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
        act: Act::CancelWhenItRan,
        ..way(
            "stopped",
            "trap '' TERM; echo began > $F; sleep 600; sleep 600",
            "cancelled",
            None,
        )
    },
    Way {
        act: Act::CancelWhenAssigned,
        ..way("raced", "", "cancelled", None)
    },
    Way {
        arguments: &["--tag", "nobody-has-it", "--allow-unmatched"],
        act: Act::CancelWhileItWaits,
        ..way("unwanted", "exit 0", "cancelled", None)
    },
];

const JOBS: usize = 200;

#[test]
fn every_job_has_one_verdict_and_the_tally_agrees() {
    let mut farm = TestFarm::start();
    add_builders(&mut farm);
    let tally = Tally::in_a_file_of(&farm);
    let mut events = farm.events();

    let jobs = submit_all(&farm, &tally);
    let verdicts = act_until_all_ended(&farm, &mut events, &jobs);

    let counted = tally.read();
    for (id, (name, way)) in &jobs {
        let shown = farm.cli().json(&["job", "show", id]);
        assert_eq!(verdicts[id], 1, "{name} has one verdict");
        assert_eq!(
            shown["job"]["verdict"]["verdict"], way.verdict,
            "{name}: {shown:#}"
        );
        let kind = shown["job"]["verdict"]["kind"].as_str();
        assert_eq!(kind, way.kind, "{name}: {shown:#}");
        let ran = counted.get(name).copied().unwrap_or(0);
        assert_eq!(executions(&shown), ran, "{name}: {shown:#}");
        match way.act {
            Act::CancelWhileItWaits => assert_eq!(ran, 0, "{name}: {shown:#}"),
            Act::CancelWhenItRan => assert_eq!(ran, 1, "{name}: {shown:#}"),
            Act::CancelWhenAssigned | Act::Nothing => {}
        }
    }
}

/// Executions, counted without the farm.
struct Tally {
    /// One line per execution, written by the jobs.
    file: PathBuf,
    /// A program per job that may be killed before it writes one.
    programs: PathBuf,
    /// Tells each opening of a program, which is its execution.
    openings: Inotify,
}

impl Tally {
    fn in_a_file_of(farm: &TestFarm) -> Self {
        let (file, programs) = (farm.file("tally"), farm.file("programs"));
        std::fs::write(&file, "").unwrap();
        std::fs::create_dir(&programs).unwrap();
        for number in (0..JOBS).filter(|number| way_of(*number).act == Act::CancelWhenAssigned) {
            std::fs::copy("/bin/sleep", programs.join(name_of(number))).unwrap();
        }
        let openings = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).unwrap();
        openings
            .add_watch(&programs, AddWatchFlags::IN_OPEN)
            .unwrap();
        Self {
            file,
            programs,
            openings,
        }
    }

    /// The line of a script that counts its execution.
    fn line(&self, name: &str) -> String {
        format!("echo {name} >> {}", self.file.display())
    }

    fn read(&self) -> BTreeMap<String, usize> {
        let mut counted = BTreeMap::new();
        for line in std::fs::read_to_string(&self.file).unwrap().lines() {
            *counted.entry(line.to_owned()).or_default() += 1;
        }
        loop {
            let opened = match self.openings.read_events() {
                Err(Errno::EAGAIN) => return counted,
                opened => opened.unwrap(),
            };
            for opening in opened {
                // The directory's own opening has no name.
                if let Some(name) = opening.name {
                    *counted.entry(name.into_string().unwrap()).or_default() += 1;
                }
            }
        }
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

fn way_of(number: usize) -> &'static Way {
    &WAYS[number % WAYS.len()]
}

fn name_of(number: usize) -> String {
    format!("{}-{number}", way_of(number).name)
}

fn submit_all(farm: &TestFarm, tally: &Tally) -> Jobs {
    let cli = farm.cli();
    let mut jobs = Jobs::new();
    for number in 0..JOBS {
        let (way, name) = (way_of(number), name_of(number));
        let file = farm.file(&name);
        let mut arguments = vec!["--name", &name];
        arguments.extend(way.arguments);
        let script = format!(
            "F={}; {}; {}",
            file.display(),
            tally.line(&name),
            way.script
        );
        let id = match way.act {
            Act::CancelWhenAssigned => {
                let program = tally.programs.join(&name);
                cli.submit(&arguments, &[program.to_str().unwrap(), "600"])
            }
            Act::CancelWhenItRan => {
                nix::unistd::mkfifo(&file, Mode::S_IRWXU).unwrap();
                cli.submit_script(&arguments, &script)
            }
            Act::CancelWhileItWaits | Act::Nothing => cli.submit_script(&arguments, &script),
        };
        if way.act == Act::CancelWhileItWaits {
            cli.run(&["job", "cancel", &id]).succeeds();
        }
        jobs.insert(id, (name, way));
    }
    jobs
}

/// Follows the farm until every job has ended; counts verdicts.
fn act_until_all_ended(
    farm: &TestFarm,
    events: &mut Events,
    jobs: &Jobs,
) -> BTreeMap<String, usize> {
    let mut verdicts: BTreeMap<String, usize> = BTreeMap::new();
    while verdicts.len() < jobs.len() {
        let entry = events.next_that("step of a job", |entry| entry.kind.starts_with("job."));
        let Some((id, (name, way))) = entry.job.and_then(|id| jobs.get_key_value(&id)) else {
            continue;
        };
        match (entry.kind.as_str(), way.act) {
            ("job.verdict", _) => *verdicts.entry(id.clone()).or_default() += 1,
            ("job.assigned", Act::CancelWhenAssigned) => {
                farm.cli().run(&["job", "cancel", id]).succeeds();
            }
            ("job.running", Act::CancelWhenItRan) => {
                // It writes into its pipe once it has written into the tally.
                std::fs::read(farm.file(name)).unwrap();
                farm.cli().run(&["job", "cancel", id]).succeeds();
            }
            _ => {}
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

/// Writes an executable script and gives its path.
fn script(path: &Path, text: &str) -> String {
    write_script(path, &format!("#!/bin/sh\n{text}\n"));
    path.to_str().unwrap().to_owned()
}
