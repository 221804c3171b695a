//! `kill -9` of the coordinator: while a build runs, while its artifact
//! travels, and between the commit of a submit and its reply. The agent owns
//! the attempt, so the build does not notice; what was accepted is there.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use farmbell_tests::harness::{Cli, PATIENCE, Said, TestFarm};
use nix::sys::stat::Mode;
use serde_json::Value;

/// A build that writes to its log what the story writes into a pipe, so that
/// the story decides when it goes on; at the end of the pipe it ends.
struct PacedBuild {
    pipe: PathBuf,
    writer: Option<File>,
    said: String,
}

impl PacedBuild {
    fn submit(farm: &TestFarm, at_the_end: &str) -> (Self, String) {
        let pipe = farm.file("pipe");
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        let script = format!(
            "while read -r line; do echo \"$line\"; done < {}; {at_the_end}",
            pipe.display()
        );
        let job = farm.cli().submit_script(&[], &script);
        let build = Self {
            pipe,
            writer: None,
            said: String::new(),
        };
        (build, job)
    }

    fn say(&mut self, line: &str) {
        let pipe = &self.pipe;
        let writer = self
            .writer
            .get_or_insert_with(|| File::options().write(true).open(pipe).unwrap());
        writeln!(writer, "{line}").unwrap();
        self.said.push_str(line);
        self.said.push('\n');
    }

    fn end(&mut self) {
        self.writer = None;
    }
}

/// Follows a log until a line of it has come.
fn wait_for_log_line(cli: &Cli, job: &str, wanted: &str) {
    let mut follower = cli
        .command(&["logs", "-f", job])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let came = lines.any(|line| line.unwrap() == wanted);
    follower.kill().unwrap();
    follower.wait().unwrap();
    assert!(came, "the log never showed {wanted:?}");
}

#[test]
fn a_build_goes_on_and_its_log_has_no_hole() {
    let mut farm = TestFarm::with_one_builder();
    let (mut build, job) = PacedBuild::submit(
        &farm,
        "head -c 3000000 /dev/zero > $FARMBELL_OUTPUTS/artifact",
    );
    for number in 0..100 {
        build.say(&format!("before {number}"));
    }
    wait_for_log_line(&farm.cli(), &job, "before 99");
    let attempt_before = live_attempt(&farm.cli(), &job);

    farm.coordinator.kill();
    for number in 0..1000 {
        build.say(&format!("while it is away {number}"));
    }
    farm.coordinator.restart();
    build.say("after");
    build.end();

    let shown = farm.cli().verdict(&job);
    assert_eq!(shown["job"]["verdict"]["verdict"], "succeeded", "{shown:#}");
    assert_eq!(shown["attempts"].as_array().unwrap().len(), 1, "{shown:#}");
    assert_eq!(shown["attempts"][0]["attempt"], attempt_before, "{shown:#}");
    assert_eq!(shown["artifacts"].as_array().unwrap().len(), 1, "{shown:#}");
    assert_eq!(shown["artifacts"][0]["length"], 3_000_000);
    assert_eq!(farm.cli().log(&job), build.said);
}

#[test]
fn a_coordinator_killed_between_commit_and_reply_has_the_job() {
    // The commit of the submit is one of the first after the start; which one
    // depends on what else is written then, so each of them is cut once.
    let mut cut_submits = 0;
    for passing in 1..=2 {
        let mut farm = TestFarm::start();
        farm.coordinator.kill();
        let failpoint = format!("driver.after-commit:{passing}");
        if !restart_with_failpoint(&mut farm, &failpoint) {
            continue;
        }
        let key = "the-same-key";
        let submit = [
            "--output",
            "json",
            "submit",
            "--allow-unmatched",
            "--idempotency-key",
            key,
            "--",
            "true",
        ];
        let first = farm
            .cli()
            .command(&submit)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        if farm
            .coordinator
            .daemon
            .wait_at_most(PATIENCE / 10)
            .is_some()
        {
            cut_submits += 1;
            farm.coordinator.restart();
        }
        // The command tries again by itself until the coordinator is back.
        let first = Said::of(first.wait_with_output().unwrap(), "submit").succeeds();
        let again = farm.cli().run(&submit).succeeds();
        assert_eq!(job_of(&first.json()), job_of(&again.json()));
        assert_eq!(again.json()["existed"], true, "{again:#?}");
        let jobs = farm.cli().json(&["jobs"]);
        let jobs = jobs.get("jobs").unwrap_or(&jobs).as_array().unwrap().len();
        assert_eq!(jobs, 1, "the repeated submit made no second job");
    }
    assert!(cut_submits > 0, "no failpoint was hit by a submit");
}

fn restart_with_failpoint(farm: &mut TestFarm, failpoint: &str) -> bool {
    farm.coordinator
        .try_restart_with(&[("FARMBELL_FAILPOINT", failpoint)])
}

fn job_of(submitted: &Value) -> String {
    submitted["jobs"][0]["id"].as_str().unwrap().to_owned()
}

fn live_attempt(cli: &Cli, job: &str) -> String {
    let shown = cli.json(&["job", "show", job]);
    let attempts = shown["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 1, "{shown:#}");
    attempts[0]["attempt"].as_str().unwrap().to_owned()
}

#[test]
fn an_upload_resumes_where_it_was() {
    const CHUNKS: usize = 48;
    const CHUNKS_BEFORE: u64 = 30;
    let mut farm = TestFarm::with_one_builder();
    let artifact = farm.file("artifact");
    random_file(&artifact, CHUNKS);
    farm.coordinator.kill();
    // Dies when a good part of the chunks is on disk.
    farm.coordinator.restart_with(&[(
        "FARMBELL_FAILPOINT",
        &format!("blobs.chunk:{CHUNKS_BEFORE}"),
    )]);
    let job = farm.cli().submit_script(
        &[],
        &format!("cp {} $FARMBELL_OUTPUTS/artifact", artifact.display()),
    );
    farm.coordinator.daemon.wait(PATIENCE);
    farm.coordinator.restart();

    let shown = farm.cli().verdict(&job);
    assert_eq!(shown["job"]["verdict"]["verdict"], "succeeded", "{shown:#}");
    assert_eq!(shown["attempts"].as_array().unwrap().len(), 1, "{shown:#}");
    let results = farm.file("results");
    farm.cli().fetch(&job, &results);
    let (sent, got) = (
        std::fs::read(&artifact).unwrap(),
        std::fs::read(results.join("artifact")).unwrap(),
    );
    assert!(sent == got, "the artifact is byte-equal");
    // Each chunk that was on disk is not sent again, but the one in hand may be.
    let resumed = resumed_at(&farm.coordinator.daemon.log());
    assert!(
        resumed + 1 >= CHUNKS_BEFORE,
        "only {resumed} chunks were kept"
    );
}

/// At which chunk the coordinator says that it went on.
fn resumed_at(log: &str) -> u64 {
    let (_, said) = log.rsplit_once("verified_chunks=").unwrap();
    let end = said.find(|letter: char| !letter.is_ascii_digit()).unwrap();
    said[..end].parse().unwrap()
}

fn random_file(path: &Path, mebibytes: usize) {
    let mut source = File::open("/dev/urandom").unwrap();
    let mut file = File::create(path).unwrap();
    let bytes = u64::try_from(mebibytes << 20).unwrap();
    std::io::copy(&mut std::io::Read::take(&mut source, bytes), &mut file).unwrap();
}
