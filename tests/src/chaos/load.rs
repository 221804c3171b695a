//! The load under chaos: jobs that write a log and an artifact which follow
//! from their number, and note outside the farm that they ran. Owns submitting
//! them so that there is always work, and judging them at the end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{Dice, Report};
use crate::harness::{Cli, Events, TestFarm};

/// Enough that builders are busy while a daemon is away.
const AHEAD: usize = 12;

#[derive(Debug)]
pub(super) struct Load {
    cli: Cli,
    directory: PathBuf,
    tally: PathBuf,
    /// Number by id.
    jobs: BTreeMap<String, usize>,
    /// How many verdicts each job was given.
    verdicts: BTreeMap<String, usize>,
}

impl Load {
    pub(super) fn on(farm: &TestFarm) -> Self {
        Self {
            cli: farm.cli(),
            directory: farm.path().to_owned(),
            tally: farm.file("tally"),
            jobs: BTreeMap::new(),
            verdicts: BTreeMap::new(),
        }
    }

    /// Submits until the farm has work ahead. Each submit carries a key, and is
    /// repeated by the command itself while the coordinator is away.
    pub(super) fn top_up(&mut self, dice: &mut Dice) {
        while self.jobs.len() < self.verdicts.len() + AHEAD {
            let number = self.jobs.len();
            let pause = 50 + dice.roll(750);
            let script = self.script(number, pause);
            let key = format!("load-{number}");
            let id = self
                .cli
                .submit_script(&["--idempotency-key", &key], &script);
            self.jobs.insert(id, number);
        }
    }

    /// Takes note of an entry of the history.
    pub(super) fn saw(&mut self, kind: &str, job: Option<&str>) {
        if let (Some(job), "job.verdict") = (job, kind)
            && self.jobs.contains_key(job)
        {
            *self.verdicts.entry(job.to_owned()).or_default() += 1;
        }
    }

    /// Waits for every job's verdict.
    pub(super) fn finish(&mut self, events: &mut Events) {
        while self.verdicts.len() < self.jobs.len() {
            let entry = events.next_that("verdict", |entry| entry.kind == "job.verdict");
            self.saw(&entry.kind, entry.job.as_deref());
        }
    }

    /// What should not be.
    pub(super) fn judge(&self, report: &mut Report) {
        report.jobs = self.jobs.len();
        let ran = self.read_tally();
        for (id, number) in &self.jobs {
            for fault in self.faults_of(id, *number, ran.get(number).copied().unwrap_or(0)) {
                report.broken.push(format!("job {id} ({number}): {fault}"));
            }
        }
    }

    fn faults_of(&self, id: &str, number: usize, ran: usize) -> Vec<String> {
        let mut faults = Vec::new();
        let shown = self.cli.json(&["job", "show", id]);
        if shown["job"]["verdict"]["verdict"] != "succeeded" {
            faults.push(format!("its verdict is {}", shown["job"]["verdict"]));
        }
        if self.verdicts.get(id) != Some(&1) {
            faults.push(format!("it had {:?} verdicts", self.verdicts.get(id)));
        }
        let attempts = shown["attempts"].as_array().map_or(0, Vec::len);
        if ran != 1 {
            faults.push(format!("it ran {ran} times in {attempts} attempts"));
        }
        if self.cli.log(id) != log_of(number) {
            faults.push("its log is not what it wrote".to_owned());
        }
        let results = self.directory.join(format!("results-{number}"));
        self.cli.fetch(id, &results);
        match std::fs::read(results.join("artifact")) {
            Ok(bytes) if bytes == artifact_of(number) => {}
            Ok(_) => faults.push("its artifact is not what it wrote".to_owned()),
            Err(error) => faults.push(format!("its artifact: {error}")),
        }
        faults
    }

    fn script(&self, number: usize, pause_ms: u32) -> String {
        format!(
            "echo {number} >> {tally}; \
             i=0; while [ $i -lt 200 ]; do echo \"{number} says $i\"; i=$((i+1)); done; \
             sleep {}.{:03}; \
             i=0; while [ $i -lt 2000 ]; do echo \"{number} made $i\"; i=$((i+1)); done > $FARMBELL_OUTPUTS/artifact; \
             echo \"{number} ends\"",
            pause_ms / 1000,
            pause_ms % 1000,
            tally = self.tally.display(),
        )
    }

    fn read_tally(&self) -> BTreeMap<usize, usize> {
        let mut ran = BTreeMap::new();
        for line in read(&self.tally).lines() {
            let number = line.parse().expect("a tally holds numbers");
            *ran.entry(number).or_default() += 1;
        }
        ran
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("the tally can be read")
}

fn log_of(number: usize) -> String {
    let mut log = lines(number, "says", 200);
    writeln!(log, "{number} ends").expect("a string takes any text");
    log
}

fn artifact_of(number: usize) -> Vec<u8> {
    lines(number, "made", 2000).into_bytes()
}

fn lines(number: usize, verb: &str, count: usize) -> String {
    let mut text = String::new();
    for line in 0..count {
        writeln!(text, "{number} {verb} {line}").expect("a string takes any text");
    }
    text
}
