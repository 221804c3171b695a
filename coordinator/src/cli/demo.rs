//! `farmbell demo`: a whole farm on this machine, building one real Debian
//! package. Owns the show and its directory. It has no way of its own into the
//! farm: it types the same commands as a person, and prints them.

mod daemon;
mod source;
mod tools;

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use anstream::println;
use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use self::daemon::Daemon;
use self::source::Source;

#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Stop after the build, with the build's exit code.
    #[arg(long)]
    once: bool,
    /// Where the farm and its results live [default: ~/farmbell-demo].
    #[arg(long, value_name = "D")]
    dir: Option<PathBuf>,
    /// The Debian source package to build.
    #[arg(long, value_name = "NAME", default_value = "hello")]
    package: String,
}

/// As a shell reports a command that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// # Errors
/// If something that the demo needs is missing or fails; the message says what
/// and how to mend it.
pub(crate) async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let demo = Demo::prepare(&args)?;
    let mut farm = Farm::default();
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let shown = tokio::select! {
        code = demo.show(&mut farm, args.once) => code,
        _ = interrupt.recv() => Ok(if farm.shown { 0 } else { INTERRUPTED }),
        _ = terminate.recv() => Ok(if farm.shown { 0 } else { INTERRUPTED }),
    };
    farm.stop().await?;
    Ok(ExitCode::from(shown?))
}

/// The two daemons, as far as they run.
#[derive(Debug, Default)]
struct Farm {
    coordinator: Option<Daemon>,
    agent: Option<Daemon>,
    shown: bool,
}

impl Farm {
    async fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(agent) = self.agent.take() {
            // It gives back what is being built: nothing goes on behind the demo.
            agent.stop(Signal::SIGQUIT).await?;
        }
        if let Some(coordinator) = self.coordinator.take() {
            coordinator.stop(Signal::SIGTERM).await?;
        }
        Ok(())
    }
}

/// Where things are.
#[derive(Debug)]
struct Demo {
    package: String,
    directory: PathBuf,
    results: PathBuf,
    socket: PathBuf,
    programs: PathBuf,
}

impl Demo {
    fn prepare(args: &DemoArgs) -> anyhow::Result<Self> {
        let directory = match &args.dir {
            Some(directory) => std::path::absolute(directory)?,
            None => PathBuf::from(
                std::env::var_os("HOME").context("HOME is not set: name a directory with --dir")?,
            )
            .join("farmbell-demo"),
        };
        let results = directory.join("results");
        std::fs::create_dir_all(&results).with_context(|| {
            format!(
                "cannot make {}: choose another with --dir",
                results.display()
            )
        })?;
        let own = std::env::current_exe().context("cannot find this program's own file")?;
        let programs = own
            .parent()
            .context("this program lies nowhere")?
            .to_owned();
        for program in ["farmbell-coordinator", "farmbell-agent"] {
            if !programs.join(program).exists() {
                bail!(
                    "{program} is not beside {}: build it with `cargo build --workspace --bins`, or install its package",
                    own.display()
                );
            }
        }
        Ok(Self {
            package: args.package.clone(),
            socket: directory.join("coordinator/farmbell.sock"),
            directory,
            results,
            programs,
        })
    }

    async fn show(&self, farm: &mut Farm, once: bool) -> anyhow::Result<u8> {
        tools::install(tools::FOR_BUILDING).await?;
        let source = source::fetch(&self.package, &self.directory.join("source")).await?;
        tools::install_build_dependencies(&source).await?;

        self.start_coordinator(farm).await?;
        self.start_agent(farm).await?;
        let (job, code) = self.build(&source).await?;
        if code == 0 {
            self.collect(&job).await?;
        }
        self.tell_where_everything_is(&job, code);
        farm.shown = true;
        if !once {
            self.keep_running(farm).await?;
        }
        Ok(code)
    }

    async fn start_coordinator(&self, farm: &mut Farm) -> anyhow::Result<()> {
        let state = self.directory.join("coordinator");
        let configuration = self.directory.join("coordinator.toml");
        // The agent remembers where it joined: a later run listens there too.
        let control = self.address("control");
        let bulk = self.address("bulk");
        let http = usual_port_if_free();
        write(
            &configuration,
            &format!(
                "state = {state:?}\ncontrol = {control:?}\nbulk = {bulk:?}\nhttp = \"127.0.0.1:{http}\"\n"
            ),
        )?;
        let program = |subcommand| {
            let mut command = self.program("farmbell-coordinator");
            command.arg(subcommand).arg("--config").arg(&configuration);
            command
        };
        if !state.join("key.pem").exists() {
            succeed(&mut program("init")).await?;
        }
        farm.coordinator =
            Some(Daemon::start("coordinator", program("serve"), &self.directory).await?);
        Ok(())
    }

    async fn start_agent(&self, farm: &mut Farm) -> anyhow::Result<()> {
        let state = self.directory.join("agent");
        let configuration = self.directory.join("agent.toml");
        write(
            &configuration,
            &format!("name = \"demo\"\nstate = {state:?}\n\n[[builder]]\nname = \"demo\"\n"),
        )?;
        let program = |subcommand| {
            let mut command = self.program("farmbell-agent");
            command.arg(subcommand).arg("--config").arg(&configuration);
            command
        };
        if !state.join("coordinator.toml").exists() {
            let made = self.ask(&["token", "create"]).await?;
            let token = field(&made, "token")?;
            succeed(program("join").arg(token)).await?;
        }
        farm.agent = Some(Daemon::start("agent", program("run"), &self.directory).await?);
        Ok(())
    }

    /// Submits the source, shows the log as it is written, and gives the job
    /// with the exit code of waiting for it.
    async fn build(&self, source: &Source) -> anyhow::Result<(String, u8)> {
        let dsc = text(&source.dsc)?;
        let submitted = self.ask(&["submit", dsc]).await?;
        let job = field(&submitted["jobs"][0], "id")?.to_owned();
        self.type_out(&["logs", "-f", &job]).await?;
        let code = self.type_out(&["job", "wait", &job]).await?;
        Ok((job, code))
    }

    async fn collect(&self, job: &str) -> anyhow::Result<()> {
        let code = self
            .type_out(&["artifact", "get", job, "-d", text(&self.results)?])
            .await?;
        if code != 0 {
            bail!("the artifacts were built but not fetched");
        }
        let log = self
            .farmbell(&["logs", job])
            .stderr(Stdio::inherit())
            .output()
            .await?;
        std::fs::write(self.results.join("build.log"), log.stdout)?;
        for package in debs_in(&self.results)? {
            succeed(Command::new("dpkg-deb").arg("--info").arg(&package)).await?;
        }
        Ok(())
    }

    fn tell_where_everything_is(&self, job: &str, code: u8) {
        let built = debs_in(&self.results).unwrap_or_default();
        println!();
        if code == 0 {
            println!("Built by the farm, fetched and checked:");
            for package in &built {
                println!("    {}", package.display());
            }
            println!("    {}", self.results.join("build.log").display());
        } else {
            println!("The build did not succeed: farmbell job show {job}");
        }
        println!("The farm's directory: {}", self.directory.display());
    }

    async fn keep_running(&self, farm: &mut Farm) -> anyhow::Result<()> {
        let (Some(coordinator), Some(agent)) = (&mut farm.coordinator, &mut farm.agent) else {
            return Ok(());
        };
        println!("\nThe farm goes on until Ctrl-C. Open its page, or ask it:");
        println!("    http://{}/", self.address("http"));
        println!("    export FARMBELL_SOCKET={}", self.socket.display());
        println!("    {} builders", self.programs.join("farmbell").display());
        tokio::select! {
            ended = coordinator.ended() => bail!("the coordinator ended by itself: {}", ended?),
            ended = agent.ended() => bail!("the agent ended by itself: {}", ended?),
        }
    }

    /// Where the coordinator listens or has listened; any port before that.
    fn address(&self, name: &str) -> String {
        self.said_address(name)
            .unwrap_or_else(|| "127.0.0.1:0".to_owned())
    }

    fn said_address(&self, name: &str) -> Option<String> {
        let addresses = std::fs::read(self.directory.join("coordinator/addresses.json")).ok()?;
        let addresses: serde_json::Value = serde_json::from_slice(&addresses).ok()?;
        Some(addresses[name].as_str()?.to_owned())
    }

    /// Types a command, shows what it says, and gives its exit code.
    async fn type_out(&self, arguments: &[&str]) -> anyhow::Result<u8> {
        println!("\n$ farmbell {}", arguments.join(" "));
        let status = self.farmbell(arguments).status().await?;
        Ok(status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(INTERRUPTED))
    }

    /// Types a command and reads its JSON.
    async fn ask(&self, arguments: &[&str]) -> anyhow::Result<serde_json::Value> {
        println!("\n$ farmbell {}", arguments.join(" "));
        let mut command = self.farmbell(&["--output", "json"]);
        let output = command
            .args(arguments)
            .stderr(Stdio::inherit())
            .output()
            .await?;
        if !output.status.success() {
            bail!("`farmbell {}` failed", arguments.join(" "));
        }
        serde_json::from_slice(&output.stdout).context("the command printed no JSON")
    }

    fn farmbell(&self, arguments: &[&str]) -> Command {
        let mut command = self.program("farmbell");
        command
            .arg("--socket")
            .arg(&self.socket)
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    fn program(&self, name: &str) -> Command {
        Command::new(self.programs.join(name))
    }
}

/// The page's usual port, or 0 (any) when another program has it.
fn usual_port_if_free() -> u16 {
    const USUAL: u16 = 8442;
    match std::net::TcpListener::bind(("127.0.0.1", USUAL)) {
        Ok(_free) => USUAL,
        Err(_taken) => 0,
    }
}

fn debs_in(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn field<'v>(value: &'v serde_json::Value, name: &str) -> anyhow::Result<&'v str> {
    value[name]
        .as_str()
        .with_context(|| format!("the answer has no {name:?}: {value}"))
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| {
        format!(
            "{} is not plain text: choose another with --dir",
            path.display()
        )
    })
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Runs a command that must succeed; what it printed is shown only if not.
async fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot start {:?}", command.as_std().get_program()))?;
    if !output.status.success() {
        bail!(
            "{:?} failed ({}):\n{}{}",
            command.as_std(),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
