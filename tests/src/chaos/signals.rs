//! A barrage of signals: at the agent, its supervisors and the coordinator,
//! while many short jobs run and many resets run at once. Every exit status
//! must be the job's own, nothing may stay a zombie, and no call that a signal
//! cut short may show anywhere.
//!
//! Half of the builders are on a host without pidfds, so that both ways of
//! waiting for children are under fire. Owns the barrage and the judgement.

mod barrage;
mod processes;

use std::fs;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::Value;

use super::{Dice, Report};
use crate::harness::{Agent, Around, BuilderPlan, Events, TestFarm};
use barrage::Barrage;

/// Jobs of one submission at most.
const SUBMISSION_MAX: usize = 256;
/// How a call that a signal cut short looks where it is not handled.
const CUT_SHORT: [&str; 3] = ["EINTR", "Interrupted system call", "os error 4)"];

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub jobs: usize,
    /// Their resets all run at one moment, at least once.
    pub builders: usize,
}

impl Size {
    #[must_use]
    pub fn whole() -> Self {
        Self {
            jobs: 1000,
            builders: 50,
        }
    }
}

/// How a job ends, told beforehand.
#[derive(Clone, Copy, Debug)]
enum End {
    Code(u32),
    Signal(u32),
}

impl End {
    /// Mostly failures: a fleet that does well takes out builders that fail.
    fn roll(dice: &mut Dice) -> Self {
        // Signals that end a process, and have no meaning for a supervisor.
        const SIGNALS: [u32; 4] = [1, 9, 10, 15];
        match dice.roll(8) {
            0 => Self::Signal(SIGNALS[usize::try_from(dice.roll(4)).expect("a handful")]),
            // Codes from 64 on have meanings of their own.
            _ => Self::Code(dice.roll(64)),
        }
    }

    fn command(self) -> Vec<String> {
        let script = match self {
            Self::Code(code) => format!("/bin/true; exit {code}"),
            Self::Signal(signal) => format!("/bin/true; kill -{signal} $$"),
        };
        ["sh", "-c", &script].map(str::to_owned).to_vec()
    }

    fn shown(self) -> String {
        match self {
            Self::Code(code) => format!("code {code}"),
            Self::Signal(signal) => format!("signal {signal}"),
        }
    }
}

/// Runs jobs under fire.
///
/// # Errors
/// If the farm cannot be asked; what broke stands in the report.
pub fn signals(seed: u64, size: &Size) -> anyhow::Result<Report> {
    let mut dice = Dice::of(seed);
    let mut report = Report {
        what: "signals",
        seed,
        ..Report::default()
    };
    let mut farm = TestFarm::start();
    let mut events = farm.events();
    let barrage = Barrage::begin(farm.path());
    add_agents(&mut farm, size.builders);
    report.fault("resets at one moment");

    let ends: Vec<End> = (0..size.jobs).map(|_| End::roll(&mut dice)).collect();
    let jobs = submit(&farm, &ends)?;
    for _ in &jobs {
        events.next_of("job.verdict");
    }
    let fired = barrage.end();
    report.faults.extend(fired.signals);
    report.broken.extend(fired.cut_short);
    judge(&farm, &jobs, &ends, &mut report)?;
    zombies(&farm, &mut events, &mut report);
    Ok(report)
}

/// Two agents with half of the builders each, all reset at one moment.
fn add_agents(farm: &mut TestFarm, builders: usize) {
    let gate = Gate::shut(farm.path(), builders);
    let reset = format!("reset = [{:?}]", gate.script);
    let without = Around::WithoutPidfds(farm.binaries().without());
    let mut agents = Vec::new();
    for (name, around) in [("a1", None), ("a2", Some(without))] {
        let plans: Vec<_> = (0..builders)
            .filter(|number| (number % 2 == 0) == (name == "a1"))
            .map(|number| BuilderPlan::named(&format!("b{number}")).with(&reset))
            .collect();
        let directory = farm.file(name);
        let mut agent = Agent::prepare(farm.binaries(), &directory, name, &plans);
        agent.around = around;
        agent.join(&farm.cli().token(&[])).succeeds();
        agents.push(agent);
    }
    let mut events = farm.events();
    for agent in &mut agents {
        agent.start();
    }
    gate.open_when_all_are_there();
    for _ in 0..builders {
        events.next_of("builder.clean");
    }
    farm.agents.extend(agents);
}

/// A lock that every reset waits for.
struct Gate {
    lock: Flock<fs::File>,
    script: String,
    arrivals: std::path::PathBuf,
    arrived: Inotify,
    wanted: usize,
}

impl Gate {
    fn shut(directory: &Path, wanted: usize) -> Self {
        let (gate, arrivals) = (directory.join("gate"), directory.join("arrivals"));
        let file = fs::File::create(&gate).expect("a file can be made");
        let lock = Flock::lock(file, FlockArg::LockExclusive).expect("nobody else has it");
        fs::write(&arrivals, "").expect("a file can be made");
        let script = directory.join("reset");
        // Children of its own, and one that waits.
        let text = format!(
            "#!/bin/sh\n/bin/true; /bin/true; echo here >> {}\nflock --shared {} /bin/true\n",
            arrivals.display(),
            gate.display(),
        );
        crate::harness::write_script(&script, &text);
        let arrived = Inotify::init(InitFlags::IN_CLOEXEC).expect("the kernel has inotify");
        arrived
            .add_watch(&arrivals, AddWatchFlags::IN_MODIFY)
            .expect("the file is there");
        Self {
            lock,
            script: script.display().to_string(),
            arrivals,
            arrived,
            wanted,
        }
    }

    fn open_when_all_are_there(self) {
        let arrived = || {
            let text = fs::read_to_string(&self.arrivals).expect("the file is there");
            text.lines().count()
        };
        while arrived() < self.wanted {
            // Our own handlers, if any, do not matter: it is looked again.
            drop(self.arrived.read_events());
        }
        drop(self.lock);
    }
}

fn submit(farm: &TestFarm, ends: &[End]) -> anyhow::Result<Vec<String>> {
    let mut api = farm.api();
    let mut jobs = Vec::new();
    for some in ends.chunks(SUBMISSION_MAX) {
        let commands: Vec<_> = some.iter().map(|end| end.command()).collect();
        let builders = api.get("/api/v1/builders")?;
        let architecture = builders[0]["architectures"][0].as_str().unwrap_or("amd64");
        jobs.extend(api.submit(architecture, &commands)?);
    }
    Ok(jobs)
}

fn judge(
    farm: &TestFarm,
    jobs: &[String],
    ends: &[End],
    report: &mut Report,
) -> anyhow::Result<()> {
    report.jobs = jobs.len();
    let mut api = farm.api();
    for (job, end) in jobs.iter().zip(ends) {
        let shown = api.get(&format!("/api/v1/jobs/{job}"))?;
        let attempts = shown["attempts"].as_array().into_iter().flatten();
        let mut exits: Vec<&Value> = Vec::new();
        for attempt in attempts {
            if attempt["started"].is_null() {
                // Refused or withdrawn: nothing ran that could have ended.
                report.fault(&format!("offer {}", attempt["end"]));
            } else {
                exits.push(&attempt["exit"]);
            }
        }
        if exits != [&Value::from(end.shown())] {
            let fault = format!("job {job} ended with {end:?}, the farm says {exits:?}");
            report.broken.push(fault);
        }
        cut_short_in(&shown.to_string(), &format!("job {job}"), report);
    }
    let history = farm
        .cli()
        .run(&["--output", "ndjson", "events", "--tail", "1000000"])
        .succeeds();
    cut_short_in(&history.stdout, "the history", report);
    let failed = history.stdout.matches("builder.reset_failed").count();
    if failed > 0 {
        report.broken.push(format!("{failed} resets failed"));
    }
    cut_short_in(
        &farm.coordinator.daemon.log(),
        "the coordinator's log",
        report,
    );
    for agent in &farm.agents {
        cut_short_in(&agent.daemon.log(), "an agent's log", report);
    }
    Ok(())
}

fn cut_short_in(text: &str, place: &str, report: &mut Report) {
    report.broken.extend(
        text.lines()
            .filter(|line| is_cut_short(line))
            .map(|line| format!("{place}: {line}")),
    );
}

fn is_cut_short(line: &str) -> bool {
    CUT_SHORT.iter().any(|word| line.contains(word))
}

/// One that is there before and after another round of work stays for ever.
fn zombies(farm: &TestFarm, events: &mut Events, report: &mut Report) {
    let before = processes::zombies_below(farm);
    for _ in 0..2 {
        let job = farm.cli().submit_script(&[], "/bin/true");
        events.next_of_job("job.verdict", &job);
    }
    let after = processes::zombies_below(farm);
    let stay = before.iter().filter(|pid| after.contains(pid));
    report
        .broken
        .extend(stay.map(|pid| format!("process {pid} stays a zombie")));
}
