//! `kill -9` of the coordinator: while a build runs, while its artifact
//! travels, and between the commit of a submit and its reply. The agent owns
//! the attempt, so the build does not notice; what was accepted is there.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::Stdio;

use farmbell_tests::harness::{BuilderPlan, Cli, CoordinatorPlan, PATIENCE, Relay, Said, TestFarm};
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
    const CHUNK: u64 = 1 << 20;
    const SIZE: u64 = 24 * CHUNK;
    // What `transfer.connection_window_kib` is when nobody sets it.
    const WINDOW: u64 = 2 << 20;
    // The list of outputs, a small blob of its own.
    const MANIFEST: u64 = 1 << 10;
    let relay = Relay::open();
    let mut farm = TestFarm::start_as(&CoordinatorPlan {
        settings: format!("advertise_bulk = \"{}\"", relay.address()),
        ..CoordinatorPlan::default()
    });
    relay.lead_to(farm.coordinator.address("bulk"));
    farm.add_agent("a1", &[BuilderPlan::named("b1")]);
    // What such an upload takes on the wire when nothing happens.
    let undisturbed = Artifact::random(&farm, "undisturbed", SIZE);
    let before = relay.carried();
    let job = undisturbed.submit(&farm);
    undisturbed.came_once(&farm, &job);
    let usual = relay.carried() - before;
    assert!(usual >= SIZE, "{usual} bytes came past the door");

    let artifact = Artifact::random(&farm, "artifact", SIZE);
    let before = relay.carried();
    let job = artifact.submit(&farm);
    relay.wait_for(before + SIZE / 2);
    farm.coordinator.kill();
    farm.coordinator.restart();
    artifact.came_once(&farm, &job);
    let came = relay.carried() - before;
    assert!(
        came <= usual + WINDOW + CHUNK,
        "{came} bytes came to the coordinator, {usual} when nothing happens"
    );

    // What was on disk and verified is not sent again at all.
    let kept = CHUNK * resumed_at(&farm.coordinator.daemon.log());
    let received = |what| {
        let name = format!("farmbell_bulk_bytes_total{{what=\"{what}\"}}");
        farm.api().metric(&name).unwrap()
    };
    let verified = received("artifacts_verified");
    let expected = SIZE - kept..SIZE - kept + MANIFEST;
    assert!(expected.contains(&verified), "{verified} of {expected:?}");
    let again = received("artifacts_received") - verified;
    assert!(again <= 32 * SIZE / CHUNK, "{again} bytes more than chunks");
}

/// At which chunk the coordinator says that it went on.
fn resumed_at(log: &str) -> u64 {
    let (_, said) = log.rsplit_once("verified_chunks=").unwrap();
    let end = said.find(|letter: char| !letter.is_ascii_digit()).unwrap();
    said[..end].parse().unwrap()
}

/// What a job leaves behind, made by the story.
struct Artifact {
    path: PathBuf,
}

impl Artifact {
    fn random(farm: &TestFarm, name: &str, bytes: u64) -> Self {
        let path = farm.file(name);
        let mut source = File::open("/dev/urandom").unwrap().take(bytes);
        std::io::copy(&mut source, &mut File::create(&path).unwrap()).unwrap();
        Self { path }
    }

    fn submit(&self, farm: &TestFarm) -> String {
        let script = format!("cp {} $FARMBELL_OUTPUTS/artifact", self.path.display());
        farm.cli().submit_script(&[], &script)
    }

    /// One attempt brought it, byte for byte.
    fn came_once(&self, farm: &TestFarm, job: &str) {
        let shown = farm.cli().verdict(job);
        assert_eq!(shown["job"]["verdict"]["verdict"], "succeeded", "{shown:#}");
        assert_eq!(shown["attempts"].as_array().unwrap().len(), 1, "{shown:#}");
        let results = farm.file(&format!("results-{job}"));
        farm.cli().fetch(job, &results);
        let (sent, got) = (
            std::fs::read(&self.path).unwrap(),
            std::fs::read(results.join("artifact")).unwrap(),
        );
        assert!(sent == got, "the artifact is byte-equal");
    }
}
