//! The faults that made this project, each beside the same farm without it: a
//! reset of 30 s on one builder, a big upload from another, a stopped agent,
//! a builder's task and a session's task that panic again and again, a store
//! that stalls. What is judged is how the *others* fare: how soon a job
//! starts, and how soon a line of its log is seen.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::Signal;
use serde_json::json;

use super::chain::{monotonic_ns, read_stamp};
use super::row::{Floor, Mark, Row};
use super::sample::{Samples, ms};
use super::{Plan, architecture, stall};
use crate::harness::{Api, BuilderPlan, Cli, CoordinatorPlan, Events, TestFarm};

/// Arms the failpoints of both daemons.
const VARIABLE: &str = "FARMBELL_FAILPOINT";

/// What is done to the farm while others are watched.
struct Fault {
    start: &'static str,
    log: &'static str,
    note: &'static str,
    mark: f64,
    begin: fn(&mut TestFarm) -> anyhow::Result<()>,
    end: fn(&mut TestFarm) -> anyhow::Result<()>,
}

const FAULTS: &[Fault] = &[
    Fault {
        start: "start beside a reset",
        log: "log beside a reset",
        note: "another builder of the same agent runs a reset script of 30 s",
        mark: 1.2,
        begin: begin_reset,
        end: end_reset,
    },
    Fault {
        start: "start beside an upload",
        log: "log beside an upload",
        note: "another agent uploads 1 GiB",
        mark: 2.0,
        begin: begin_upload,
        end: end_upload,
    },
    Fault {
        start: "start beside a stopped agent",
        log: "log beside a stopped agent",
        note: "another agent got SIGSTOP while a job ran there",
        mark: 1.2,
        begin: begin_stop,
        end: end_stop,
    },
    Fault {
        start: "start beside a panicking builder",
        log: "log beside a panicking builder",
        note: "another builder's task of the same agent panics whenever it is started",
        mark: 1.2,
        begin: begin_builder_panics,
        end: end_builder_panics,
    },
    Fault {
        start: "start beside a panicking session",
        log: "log beside a panicking session",
        note: "another agent's session panics whenever it is opened",
        mark: 1.2,
        begin: begin_session_panics,
        end: end_session_panics,
    },
];

/// Places of the agents in the farm.
const OTHERS: usize = 0;
const STOPPED: usize = 2;
const PANICKING: usize = 3;

pub(super) fn measure(plan: &Plan) -> anyhow::Result<Vec<Row>> {
    let mut farm = farm_with_victims()?;
    let mut others = Others::of(plan, &farm)?;
    let mut rows = Vec::new();
    for fault in FAULTS {
        let mut with = Delays::default();
        let mut without = Delays::default();
        for _ in 0..2 {
            others.watch(plan.runs(40), &mut without)?;
            (fault.begin)(&mut farm)?;
            others.watch(plan.runs(40), &mut with)?;
            (fault.end)(&mut farm)?;
            // What the mending itself costs is not the fault's.
            others.watch(1, &mut Delays::default())?;
        }
        rows.push(row(fault.start, fault, &with.start, &without.start));
        rows.push(row(fault.log, fault, &with.log, &without.log));
    }
    rows.push(stall::measure(plan, &farm)?);
    Ok(rows)
}

fn farm_with_victims() -> anyhow::Result<TestFarm> {
    // Armed from the start, and harmless until somebody refuses a job.
    let mut farm = TestFarm::start_as(&CoordinatorPlan {
        environment: vec![(
            VARIABLE.to_owned(),
            "session.panic-in-refusal:always".to_owned(),
        )],
        ..CoordinatorPlan::default()
    });
    let reset = farm.file("slow-reset");
    let first = farm.file("slow-reset.first");
    // Quick the first time, when the farm takes the builder in.
    let script = format!(
        "#!/bin/sh\nmkdir {} 2>/dev/null || exec sleep 30\n",
        first.display()
    );
    std::fs::write(&reset, script)?;
    std::fs::set_permissions(&reset, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let victim =
        |name: &str| BuilderPlan::named(name).with(&format!("restricted-tags = [{name:?}]"));
    farm.add_agent(
        "a1",
        &[
            BuilderPlan::named("other"),
            victim("resetting").with(&format!("reset = [{:?}]", reset.display().to_string())),
            victim("panicking"),
        ],
    );
    farm.add_agent("a2", &[victim("uploading")]);
    farm.add_agent("a3", &[victim("stopped")]);
    farm.add_agent("a4", &[victim("refusing")]);
    Ok(farm)
}

fn begin_reset(farm: &mut TestFarm) -> anyhow::Result<()> {
    let mut events = farm.events();
    let job = farm.cli().submit_script(&["--tag", "resetting"], "true");
    events.next_of_job("job.running", &job);
    events.next_of("builder.resetting");
    Ok(())
}

fn end_reset(farm: &mut TestFarm) -> anyhow::Result<()> {
    // A job of its own proves that the builder is back.
    let job = farm.cli().submit_script(&["--tag", "resetting"], "true");
    farm.cli().run(&["job", "wait", &job]).succeeds();
    Ok(())
}

fn begin_upload(farm: &mut TestFarm) -> anyhow::Result<()> {
    let mut events = farm.events();
    let script = "head -c 1073741824 /dev/urandom > $FARMBELL_OUTPUTS/load";
    let job = farm.cli().submit_script(&["--tag", "uploading"], script);
    events.next_of_job("job.finishing", &job);
    Ok(())
}

fn end_upload(farm: &mut TestFarm) -> anyhow::Result<()> {
    let job = farm.cli().submit_script(&["--tag", "uploading"], "true");
    farm.cli().run(&["job", "wait", &job]).succeeds();
    Ok(())
}

fn begin_stop(farm: &mut TestFarm) -> anyhow::Result<()> {
    let mut events = farm.events();
    let job = farm.cli().submit_script(&["--tag", "stopped"], "true");
    events.next_of_job("job.running", &job);
    farm.agents[STOPPED].daemon.signal(Signal::SIGSTOP);
    Ok(())
}

fn end_stop(farm: &mut TestFarm) -> anyhow::Result<()> {
    farm.agents[STOPPED].daemon.signal(Signal::SIGCONT);
    let job = farm.cli().submit_script(&["--tag", "stopped"], "true");
    farm.cli().run(&["job", "wait", &job]).succeeds();
    Ok(())
}

/// A stop that is repeated at each Welcome is the last thing its task hears.
fn begin_builder_panics(farm: &mut TestFarm) -> anyhow::Result<()> {
    let armed = [(VARIABLE, "driver.panic-in-stop:always")];
    farm.agents[OTHERS].kill();
    farm.agents[OTHERS].start_with(&armed);
    let mut events = farm.events();
    let job = farm
        .cli()
        .submit_script(&["--tag", "panicking"], "exec sleep 600");
    events.next_of_job("job.running", &job);
    farm.cli().run(&["job", "cancel", &job]).succeeds();
    Ok(())
}

fn end_builder_panics(farm: &mut TestFarm) -> anyhow::Result<()> {
    let panics = farm.agents[OTHERS].daemon.log();
    let panics = panics.matches("a builder's task panicked").count();
    anyhow::ensure!(
        panics > 1,
        "the builder's task panicked {panics} times only"
    );
    farm.agents[OTHERS].kill();
    farm.agents[OTHERS].start();
    let job = farm.cli().submit_script(&["--tag", "panicking"], "true");
    farm.cli().run(&["job", "wait", &job]).succeeds();
    Ok(())
}

/// A refusal that nobody can acknowledge is repeated at each Welcome.
fn begin_session_panics(farm: &mut TestFarm) -> anyhow::Result<()> {
    if farm.agents[PANICKING].daemon.pid().is_some() {
        let refused = json!({ "jobs": [{
            "name": "refused", "recipe": "command", "architecture": architecture(),
            "parameters": [{ "key": "argv", "value": "/bin/true" }],
            "tags": ["refusing"], "secrets": ["nobody-has-it"],
        }]});
        farm.api().post("/api/v1/submissions", &refused)?;
    } else {
        farm.agents[PANICKING].start();
    }
    Ok(())
}

fn end_session_panics(farm: &mut TestFarm) -> anyhow::Result<()> {
    let panics = farm.coordinator.daemon.log();
    let panics = panics.matches("injected: a panic in a session").count();
    anyhow::ensure!(panics > 1, "a session panicked {panics} times only");
    farm.agents[PANICKING].kill();
    Ok(())
}

#[derive(Debug, Default)]
struct Delays {
    start: Samples,
    log: Samples,
}

/// The builder that nothing is done to.
struct Others {
    floor: String,
    cli: Cli,
    directory: PathBuf,
    api: Api,
    events: Events,
    runs: usize,
}

impl Others {
    fn of(plan: &Plan, farm: &TestFarm) -> anyhow::Result<Self> {
        let mut others = Self {
            floor: plan.floor_program(),
            cli: farm.cli(),
            directory: farm.path().to_owned(),
            api: farm.api(),
            events: farm.events(),
            runs: 0,
        };
        // The first job finds caches cold and is not counted.
        others.watch(1, &mut Delays::default())?;
        Ok(others)
    }

    fn watch(&mut self, runs: usize, delays: &mut Delays) -> anyhow::Result<()> {
        for _ in 0..runs {
            self.watch_once(delays)?;
        }
        Ok(())
    }

    /// One job that stamps its start, then says the moment in its log.
    fn watch_once(&mut self, delays: &mut Delays) -> anyhow::Result<()> {
        self.runs += 1;
        let stamp = self.directory.join(format!("other-{}", self.runs));
        // The pause lets the follower be there before the line is.
        let script = format!(
            "{floor} stamp {stamp}; sleep 0.1; {floor} say",
            floor = self.floor,
            stamp = stamp.display()
        );
        let command = vec!["/bin/sh".to_owned(), "-c".to_owned(), script];
        let submitted = monotonic_ns()?;
        let jobs = self.api.submit(architecture(), &[command])?;
        let job = jobs.first().context("one job was submitted")?;
        let (said, seen) = self.first_log_line(job)?;
        delays
            .log
            .push(Duration::from_nanos(seen.saturating_sub(said)));
        let started = read_stamp(&stamp)?;
        delays
            .start
            .push(Duration::from_nanos(started.saturating_sub(submitted)));
        self.api.wait(job)?;
        let builder = self.events.next_of_job("job.running", job).builder;
        self.events.next_that("clean builder", |entry| {
            entry.kind == "builder.clean" && entry.builder == builder
        });
        Ok(())
    }

    fn first_log_line(&self, job: &str) -> anyhow::Result<(u64, u64)> {
        let mut follower = self
            .cli
            .command(&["logs", "-f", job])
            .stdout(Stdio::piped())
            .spawn()?;
        let output = follower.stdout.take().context("its output is piped")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let seen = monotonic_ns()?;
        follower.kill()?;
        follower.wait()?;
        Ok((
            line.trim().parse().context("a job says when it spoke")?,
            seen,
        ))
    }
}

fn row(id: &'static str, fault: &Fault, with: &Samples, without: &Samples) -> Row {
    Row {
        id,
        what: fault.note.to_owned(),
        unit: "ms",
        median: ms(with.median()),
        p99: Some(ms(with.p99())),
        runs: with.runs(),
        floor: Some(Floor {
            what: "without",
            median: ms(without.median()),
            runs: without.runs(),
        }),
        mark: Mark::FloorTimesAtMost(fault.mark),
        note: String::new(),
    }
}
