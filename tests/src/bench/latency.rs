//! How soon a job starts: on an idle farm, behind another job, and while big
//! uploads run. The moment is written by the job's own first instruction.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::chain::{Chain, monotonic_ns, read_span, read_stamp};
use super::row::{Floor, Mark, Row};
use super::sample::{Samples, ms};
use super::{Plan, architecture};
use crate::harness::{Api, BuilderPlan, Events, TestFarm};

const CHAIN: &str = "chain";

/// Submit to the first instruction of the command, idle farm.
pub(super) fn start(plan: &Plan) -> anyhow::Result<Vec<Row>> {
    let farm = plan.farm(1);
    let mut bench = StartBench::of(plan, &farm)?;
    let mut chain = Chain::default();
    for run in 0..plan.runs(200) {
        chain.run(&plan.binaries.floor(), farm.path(), run)?;
        bench.start_once(run)?;
    }
    Ok(vec![row(
        "start",
        "submit to first instruction, idle farm",
        &bench.starts,
        &chain.whole,
        CHAIN,
        Mark::FloorTimesAtMost(1.6),
    )])
}

/// Exit of a job to the first instruction of the next on the same builder.
pub(super) fn turnaround(plan: &Plan) -> anyhow::Result<Vec<Row>> {
    let farm = plan.farm(1);
    let mut api = farm.api();
    let jobs = plan.runs(200).max(3);
    let mut chain = Chain::default();
    let mut gaps = Samples::default();
    // In batches, with the chain measured between them.
    const BATCH: usize = 20;
    for batch in 0..jobs.div_ceil(BATCH) {
        for run in 0..BATCH {
            chain.run(&plan.binaries.floor(), farm.path(), batch * BATCH + run)?;
        }
        let files: Vec<_> = (0..BATCH)
            .map(|job| farm.file(&format!("span-{batch}-{job}")))
            .collect();
        let commands: Vec<_> = files.iter().map(|path| plan.span(path)).collect();
        for job in api.submit(architecture(), &commands)? {
            api.wait(&job)?;
        }
        let mut spans = files
            .iter()
            .map(|path| read_span(path))
            .collect::<anyhow::Result<Vec<(u64, u64)>>>()?;
        spans.sort_unstable();
        for pair in spans.windows(2) {
            let ((_, end), (begin, _)) = (pair[0], pair[1]);
            gaps.push(Duration::from_nanos(begin.saturating_sub(end)));
        }
    }
    Ok(vec![row(
        "turnaround",
        "last instruction of a job to the first of the next on that builder",
        &gaps,
        &chain.whole,
        CHAIN,
        Mark::FloorTimesAtMost(2.0),
    )])
}

/// `start` on one agent while another uploads without a pause.
pub(super) fn start_under_upload(plan: &Plan) -> anyhow::Result<Vec<Row>> {
    const UPLOADERS: usize = 4;
    let mut farm = plan.farm(1);
    let loaders: Vec<_> = (0..UPLOADERS)
        .map(|number| {
            BuilderPlan::named(&format!("up{number}")).with("restricted-tags = [\"load\"]")
        })
        .collect();
    farm.add_agent("loader", &loaders);
    let mut bench = StartBench::of(plan, &farm)?;
    let mut idle = Samples::default();
    let mut loaded = Samples::default();
    let runs = plan.runs(100);
    for half in 0..2 {
        for run in 0..runs / 2 {
            bench.start_once(half * runs + run)?;
        }
        idle.extend(std::mem::take(&mut bench.starts));
        let uploads = Uploads::begin(&farm)?;
        for run in runs / 2..runs {
            // Spread over the seconds that the uploads take in turn.
            std::thread::sleep(Duration::from_millis(20));
            bench.start_once(half * runs + run)?;
        }
        uploads.end(&farm)?;
        loaded.extend(std::mem::take(&mut bench.starts));
    }
    let mut row = row(
        "start-under-upload",
        "start while 4 uploads run, against idle",
        &loaded,
        &idle,
        "start, idle",
        Mark::FloorTimesAtMost(2.0),
    );
    "each of 4 builders delivers 25 MB a second, at what speed the machine gives"
        .clone_into(&mut row.note);
    Ok(vec![row])
}

/// Starts jobs one by one, each on a builder that is clean.
pub(super) struct StartBench<'a> {
    plan: &'a Plan,
    directory: &'a Path,
    api: Api,
    events: Events,
    pub(super) starts: Samples,
}

impl<'a> StartBench<'a> {
    pub(super) fn of(plan: &'a Plan, farm: &'a TestFarm) -> anyhow::Result<Self> {
        let mut bench = Self {
            plan,
            directory: farm.path(),
            api: farm.api(),
            events: farm.events(),
            starts: Samples::default(),
        };
        // The first job finds caches cold and is not counted.
        bench.start_once(usize::MAX)?;
        bench.starts = Samples::default();
        Ok(bench)
    }

    pub(super) fn start_once(&mut self, run: usize) -> anyhow::Result<()> {
        let stamp = self.directory.join(format!("start-{run}"));
        let command = self.plan.stamp(&stamp);
        let submitted = monotonic_ns()?;
        let jobs = self.api.submit(architecture(), &[command])?;
        let job = jobs.first().context("one job was submitted")?;
        self.api.wait(job)?;
        let builder = self.events.next_of_job("job.running", job).builder;
        self.events.next_that("clean builder", |entry| {
            entry.kind == "builder.clean" && entry.builder == builder
        });
        let started = read_stamp(&stamp)?;
        self.starts
            .push(Duration::from_nanos(started.saturating_sub(submitted)));
        Ok(())
    }
}

/// Jobs whose artifacts are big, one per loading builder, until told to end.
struct Uploads {
    jobs: Vec<String>,
}

impl Uploads {
    /// Jobs that last a second and deliver 25 MB that nobody has yet.
    fn begin(farm: &TestFarm) -> anyhow::Result<Self> {
        const JOBS: usize = 4 * 16;
        let load = farm.file("load");
        let mut random = File::open("/dev/urandom")?.take(25_000_000);
        std::io::copy(&mut random, &mut File::create(&load)?)?;
        let script = format!(
            "echo $FARMBELL_ATTEMPT | cat {} - > $FARMBELL_OUTPUTS/load; sleep 0.9",
            load.display()
        );
        let mut jobs = Vec::new();
        let mut events = farm.events();
        for _ in 0..JOBS {
            jobs.push(farm.cli().submit_script(&["--tag", "load"], &script));
        }
        // The first upload is under way.
        events.next_of("job.finishing");
        Ok(Self { jobs })
    }

    fn end(self, farm: &TestFarm) -> anyhow::Result<()> {
        for job in &self.jobs {
            // Those that are over already say so; that is as good.
            drop(farm.cli().run(&["job", "cancel", job]));
        }
        for job in &self.jobs {
            drop(farm.cli().run(&["job", "wait", job]));
        }
        Ok(())
    }
}

fn row(
    id: &'static str,
    what: &str,
    samples: &Samples,
    floor: &Samples,
    floor_is: &'static str,
    mark: Mark,
) -> Row {
    Row {
        id,
        what: what.to_owned(),
        unit: "ms",
        median: ms(samples.median()),
        p99: Some(ms(samples.p99())),
        runs: samples.runs(),
        floor: Some(Floor {
            what: floor_is,
            median: ms(floor.median()),
            runs: floor.runs(),
        }),
        mark,
        note: String::new(),
    }
}
