//! Builds that a launcher of its own starts: they are its children and not the
//! agent's, and the agent's end and next life do not touch them.

use farmbell_tests::harness::{Daemon, TestFarm, text};

#[test]
fn builds_belong_to_the_launcher_and_not_to_the_agent() {
    let mut farm = TestFarm::with_one_builder();
    let socket = farm.file("launcher.socket");
    let mut launcher = Daemon::new("launcher", farm.path());
    let mut command = std::process::Command::new(farm.binaries().agent());
    command.args(["launcher", "--socket"]).arg(&socket);
    launcher.start(command);
    let variables = [("FARMBELL_LAUNCHER", socket.to_str().unwrap())];
    farm.agents[0].kill();
    farm.agents[0].start_with(&variables);

    let pipe = farm.file("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // A build's parent is its supervisor, and that one's parent started it.
    let script = format!(
        "echo started by $(sed 's/.*) . //; s/ .*//' /proc/$PPID/stat); cat {} >/dev/null; echo end",
        pipe.display()
    );
    let mut events = farm.events();
    let job = farm.cli().submit_script(&[], &script);
    events.next_of_job("job.running", &job);
    farm.agents[0].kill();
    // Opening the pipe waits for the build's own opening; closing lets it go on.
    drop(std::fs::File::options().write(true).open(&pipe).unwrap());
    farm.agents[0].start_with(&variables);

    let shown = farm.cli().verdict(&job);
    assert_eq!(text(&shown["job"]["verdict"], "verdict"), "succeeded");
    let launcher_pid = launcher.pid().unwrap();
    let wanted = format!("started by {launcher_pid}\nend\n");
    assert_eq!(farm.cli().log(&job), wanted);
    launcher.kill();
}

#[test]
fn without_its_launcher_an_agent_does_not_start() {
    let mut farm = TestFarm::with_one_builder();
    let socket = farm.file("no-launcher").display().to_string();
    farm.agents[0].kill();
    let mut run = farm.agents[0].program("run");
    run.env("FARMBELL_LAUNCHER", socket);
    assert!(!farm.agents[0].daemon.try_start(run));
    let log = farm.agents[0].daemon.log();
    assert!(log.contains("systemctl restart farmbell-launcher"), "{log}");
}
