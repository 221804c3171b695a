//! An agent of an ordinary user, without systemd, launcher, control groups and
//! namespaces: it works, and says what is missing, what that costs and what
//! mends it, in its log, to its doctor and to who looks at its builder.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use farmbell_tests::harness::{Around, BuilderPlan, Ordinary, PATIENCE, Said, TestFarm, text};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

/// What such a host lacks, a word of what that costs, and of what mends it.
const LACKS: [[&str; 3]; 5] = [
    [
        "root",
        "reset scripts may do what that user may",
        "sudo systemctl",
    ],
    [
        "launcher",
        "builds belong to whatever started the agent",
        "farmbell-launcher",
    ],
    [
        "control groups",
        "puts its builder out of service",
        "farmbell-launcher",
    ],
    ["namespaces", "no sandbox", "sysctl -w"],
    [
        "isolation",
        "for trusted submitters only",
        "farmbell-agent run --once",
    ],
];
/// Of hosts that are not run by it; a test does not choose its host.
const LACKS_SYSTEMD: [&str; 3] = ["systemd", "nobody starts the agent again", "inittab"];

fn poor_farm() -> (TestFarm, Ordinary) {
    let mut farm = TestFarm::start();
    let user = Ordinary::in_directory_of(&farm);
    let around = Some(Around::Ordinary(user.clone()));
    farm.add_agent_inside(around, "a1", &[BuilderPlan::named("b1")]);
    (farm, user)
}

fn lacks() -> Vec<[&'static str; 3]> {
    let mut all = LACKS.to_vec();
    if !Path::new("/run/systemd/system").is_dir() {
        all.push(LACKS_SYSTEMD);
    }
    all
}

/// A pipe of which everything that a build starts holds the writing end: it
/// ends when all of them have.
fn pipe(farm: &TestFarm, user: &Ordinary) -> PathBuf {
    let pipe = farm.file("pipe");
    nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    user.owns(&pipe);
    pipe
}

#[test]
fn without_root_systemd_groups_and_namespaces_a_job_runs_and_all_that_is_missing_is_told() {
    let (farm, user) = poor_farm();
    let script = "id -u; echo whole > $FARMBELL_OUTPUTS/artifact";
    let job = farm.cli().submit_script(&[], script);
    let shown = farm.cli().verdict(&job);
    assert_eq!(
        text(&shown["job"]["verdict"], "verdict"),
        "succeeded",
        "{shown:#}"
    );
    assert_eq!(farm.cli().log(&job), format!("{}\n", user.number()));
    let fetched = farm.file("fetched");
    farm.cli().fetch(&job, &fetched);
    let artifact = std::fs::read_to_string(fetched.join("artifact")).unwrap();
    assert_eq!(artifact, "whole\n");

    let agent = &farm.agents[0];
    let mut doctor = agent.program("doctor");
    doctor.args(["--output", "json"]);
    let found = Said::by(doctor).succeeds().json();
    let found = found.as_array().unwrap();
    let builder = farm.cli().run(&["builder", "show", "b1"]).succeeds().stdout;
    let log = agent.daemon.log();
    for [what, cost, fix] in lacks() {
        let finding = found.iter().find(|one| one["check"] == what);
        let finding = finding.unwrap_or_else(|| panic!("no {what} in {found:#?}"));
        assert_eq!(text(finding, "health"), "degraded", "{finding:#}");
        assert!(text(finding, "found").contains(cost), "{finding:#}");
        assert!(text(finding, "fix").contains(fix), "{finding:#}");
        for said in [&builder, &log] {
            let told = |line: &str| {
                line.contains(&format!("{what}: ")) && line.contains(cost) && line.contains(fix)
            };
            assert!(said.lines().any(told), "{what}, {cost}, {fix}:\n{said}");
        }
    }
}

#[test]
fn a_cancel_ends_a_whole_tree_that_no_group_holds() {
    let (farm, user) = poor_farm();
    let pipe = pipe(&farm, &user);
    // Deaf to TERM, in sessions of their own, and children of nobody's.
    let script = format!(
        "exec 9>{}; trap '' TERM; for n in 1 2 3; do (setsid sleep 600 &) ; done; echo up >&9; \
         exec sleep 600",
        pipe.display()
    );
    let job = farm.cli().submit_script(&[], &script);
    let mut lines = BufReader::new(std::fs::File::open(&pipe).unwrap());
    lines.read_line(&mut String::new()).unwrap();
    farm.cli().run(&["job", "cancel", &job]).succeeds();
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || ended.send(lines.read_to_string(&mut String::new())));
    // Nobody writes any more: all of them are gone.
    let end = end.recv_timeout(PATIENCE);
    end.expect("all of the tree is ended").unwrap();
    let shown = farm.cli().verdict(&job);
    assert_eq!(
        text(&shown["job"]["verdict"], "verdict"),
        "cancelled",
        "{shown:#}"
    );
    let next = farm.cli().submit_script(&[], "true");
    let shown = farm.cli().verdict(&next);
    assert_eq!(
        text(&shown["job"]["verdict"], "verdict"),
        "succeeded",
        "{shown:#}"
    );
}

#[test]
fn where_nothing_proves_a_build_ended_its_builder_says_so_and_takes_nothing() {
    let (farm, user) = poor_farm();
    let pipe = pipe(&farm, &user);
    let mut events = farm.events();
    let script = format!("echo $PPID >{}; exec sleep 600", pipe.display());
    let job = farm.cli().submit_script(&[], &script);
    let supervisor = std::fs::read_to_string(&pipe).unwrap();
    let supervisor = Pid::from_raw(supervisor.trim().parse().unwrap());
    kill(supervisor, Signal::SIGKILL).unwrap();
    events.next_of("builder.fitness");
    let builder = farm.cli().json(&["builder", "show", "b1"]);
    assert_eq!(text(&builder, "fitness"), "unkillable process");
    let why = text(&builder, "fitness_why");
    assert!(
        why.contains("nothing proves its build ended; restart the host"),
        "{why}"
    );
    farm.cli().run(&["job", "cancel", &job]).succeeds();
}
