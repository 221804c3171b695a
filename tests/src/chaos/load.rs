//! The load under chaos: jobs that write a log and an artifact which follow
//! from their number, and note outside the farm that they ran. Owns submitting
//! them so that there is always work, and judging them at the end.
//!
//! A thread of its own submits, since a submit waits for a coordinator that is
//! away. Each carries a key and is repeated until it was answered.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Dice, Report};
use crate::harness::{Cli, Entry, Events, PATIENCE, TestFarm, text};

/// Enough that builders are busy while a daemon is away.
const AHEAD: usize = 12;
/// How the command ends while nobody answers it, or only to say that it is
/// going down.
const NOT_ANSWERED: [Option<i32>; 2] = [Some(5), Some(8)];
/// The command itself tries for seconds, unless it is told at once that
/// nobody is there; an outage lasts minutes.
const TRIES: usize = 240;
const BETWEEN_TRIES: Duration = Duration::from_millis(250);
/// How long a job may take once nothing more is broken.
const PATIENCE_SPAN: &str = "90s";
/// Variables that make a job long, so that spools are rewritten now and then.
const WORDS: usize = 5;
const WORD_BYTES: usize = 4000;

/// What each job of a load does.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) log_lines: usize,
    pub(super) artifact_lines: usize,
    /// The longest pause between log and artifact.
    pub(super) pause_max_ms: u32,
}

#[derive(Debug)]
pub(super) struct Load {
    cli: Cli,
    directory: PathBuf,
    shape: Shape,
    /// Asks for one more job; without it there are no more.
    wanted: Option<mpsc::SyncSender<()>>,
    submitter: Option<JoinHandle<Vec<String>>>,
    /// Ids by number, once all are submitted.
    jobs: Vec<String>,
    /// How many verdicts each job was given.
    verdicts: BTreeMap<String, usize>,
}

impl Load {
    pub(super) fn on(farm: &TestFarm, shape: Shape, seed: u64) -> Self {
        let (wanted, wishes) = mpsc::sync_channel(AHEAD);
        let submitter = Submitter {
            cli: farm.cli(),
            shape: shape.clone(),
            tally: tally(farm.path()),
            dice: Dice::of(seed),
        };
        let load = Self {
            cli: farm.cli(),
            directory: farm.path().to_owned(),
            shape,
            wanted: Some(wanted),
            submitter: Some(std::thread::spawn(move || submitter.submit_all(&wishes))),
            jobs: Vec::new(),
            verdicts: BTreeMap::new(),
        };
        (0..AHEAD).for_each(|_| load.want_one_more());
        load
    }

    fn want_one_more(&self) {
        if let Some(wanted) = &self.wanted {
            wanted
                .send(())
                .expect("the submitter ends when nothing more is wanted");
        }
    }

    /// Takes note of an entry of the history; each verdict makes room for a job.
    pub(super) fn saw(&mut self, entry: &Entry) {
        if let (Some(job), "job.verdict") = (&entry.job, entry.kind.as_str()) {
            *self.verdicts.entry(job.clone()).or_default() += 1;
            self.want_one_more();
        }
    }

    /// Submits no more and waits for every job's verdict.
    pub(super) fn finish(&mut self, events: &mut Events) {
        self.wanted = None;
        let submitter = self.submitter.take().expect("a load is finished once");
        self.jobs = submitter.join().expect("every submit was answered");
        while self.jobs.iter().any(|job| !self.verdicts.contains_key(job)) {
            // What never comes is for the judge.
            let Some(entry) = events.next_within(PATIENCE, |_| true) else {
                return;
            };
            self.saw(&entry);
        }
    }

    /// What should not be.
    pub(super) fn judge(&self, report: &mut Report) {
        report.jobs = self.jobs.len();
        let ran = self.read_tally();
        for (number, id) in self.jobs.iter().enumerate() {
            for fault in self.faults_of(id, number, ran.get(&number).copied().unwrap_or(0)) {
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
        if faults.is_empty() {
            faults.extend(self.faults_of_bytes(id, number));
        }
        faults
    }

    /// What is wrong with a job once it has ended, however often it ran.
    pub(super) fn faults_in_the_end(&self, id: &str) -> Vec<String> {
        let Some(number) = self.jobs.iter().position(|job| job == id) else {
            return vec!["nobody submitted it".to_owned()];
        };
        // Without a verdict by then it is lost, which the record shows.
        drop(
            self.cli
                .run(&["job", "wait", "--timeout", PATIENCE_SPAN, id]),
        );
        let shown = self.cli.json(&["job", "show", id]);
        if shown["job"]["verdict"]["verdict"] != "succeeded" {
            return vec![format!("its verdict is {}", shown["job"]["verdict"])];
        }
        self.faults_of_bytes(id, number)
    }

    fn faults_of_bytes(&self, id: &str, number: usize) -> Vec<String> {
        let mut faults = Vec::new();
        if self.cli.log(id) != self.shape.log_of(number) {
            faults.push("its log is not what it wrote".to_owned());
        }
        let results = self.directory.join(format!("results-{number}"));
        self.cli.fetch(id, &results);
        match std::fs::read(results.join("artifact")) {
            Ok(bytes) if bytes == self.shape.artifact_of(number) => {}
            Ok(_) => faults.push("its artifact is not what it wrote".to_owned()),
            Err(error) => faults.push(format!("its artifact: {error}")),
        }
        faults
    }

    fn read_tally(&self) -> BTreeMap<usize, usize> {
        let text = match std::fs::read_to_string(tally(&self.directory)) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => panic!("the tally cannot be read: {error}"),
        };
        let mut ran = BTreeMap::new();
        for line in text.lines() {
            let number = line.parse().expect("a tally holds numbers");
            *ran.entry(number).or_default() += 1;
        }
        ran
    }
}

fn tally(directory: &Path) -> PathBuf {
    directory.join("tally")
}

/// The thread that submits.
struct Submitter {
    cli: Cli,
    shape: Shape,
    tally: PathBuf,
    dice: Dice,
}

impl Submitter {
    fn submit_all(mut self, wishes: &mpsc::Receiver<()>) -> Vec<String> {
        let mut ids = Vec::new();
        while wishes.recv().is_ok() {
            ids.push(self.submit(ids.len()));
        }
        ids
    }

    fn submit(&mut self, number: usize) -> String {
        let script =
            self.shape
                .script(number, self.dice.roll(self.shape.pause_max_ms), &self.tally);
        let key = format!("load-{number}");
        let words: Vec<String> = (0..WORDS)
            .map(|word| format!("WORD_{word}={}", "w".repeat(WORD_BYTES)))
            .collect();
        let mut arguments = vec!["--output", "json", "submit", "--idempotency-key", &key];
        arguments.extend(words.iter().flat_map(|word| ["--env", word.as_str()]));
        arguments.extend(["--", "sh", "-c", &script]);
        let said = (0..TRIES)
            .map(|_| self.cli.run(&arguments))
            .find(|said| {
                let answered = !NOT_ANSWERED.contains(&said.code);
                if !answered {
                    std::thread::sleep(BETWEEN_TRIES);
                }
                answered
            })
            .expect("the coordinator comes back");
        text(&said.succeeds().json()["jobs"][0], "id")
    }
}

impl Shape {
    fn script(&self, number: usize, pause_ms: u32, tally: &Path) -> String {
        format!(
            "echo {number} >> {tally}; {says}; sleep {seconds}.{rest:03}; \
             {made} > $FARMBELL_OUTPUTS/artifact; echo \"{number} ends\"",
            says = counting(number, "says", self.log_lines),
            made = counting(number, "made", self.artifact_lines),
            seconds = pause_ms / 1000,
            rest = pause_ms % 1000,
            tally = tally.display(),
        )
    }

    fn log_of(&self, number: usize) -> String {
        let mut log = lines(number, "says", self.log_lines);
        writeln!(log, "{number} ends").expect("a string takes any text");
        log
    }

    fn artifact_of(&self, number: usize) -> Vec<u8> {
        lines(number, "made", self.artifact_lines).into_bytes()
    }
}

/// A command that writes what [`lines`] gives.
fn counting(number: usize, verb: &str, count: usize) -> String {
    format!(
        "seq -f '{number} {verb} %.0f' 0 {}",
        count.saturating_sub(1)
    )
}

fn lines(number: usize, verb: &str, count: usize) -> String {
    let mut text = String::new();
    for line in 0..count {
        writeln!(text, "{number} {verb} {line}").expect("a string takes any text");
    }
    text
}
