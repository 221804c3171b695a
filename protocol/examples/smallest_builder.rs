//! The smallest builder that joins a farm and runs `command` jobs:
//!
//! ```text
//! cargo run -p farmbell-protocol --features client --example smallest_builder -- "$(farmbell token create)"
//! farmbell submit --wait --follow -- echo hello
//! ```
//!
//! Shows how little a builder of another world has to do: everything that is
//! decided here is decided by the `Builder` brain; this file only performs its
//! effects. It keeps nothing (no outputs, no spool: what runs when it dies is
//! lost, and the coordinator knows), and it is trusted with whatever it runs.
#![expect(clippy::print_stdout, reason = "a person watches it")]

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use farmbell_protocol::agent_to_coordinator::{Refusal, ResetScope};
use farmbell_protocol::bounded::{List, Name, Reason};
use farmbell_protocol::builder::{
    self, Builder, Effect, EndReport, Event, ResetReport, SealReport,
};
use farmbell_protocol::client::bulk::{Bulk, BulkError, LogGrowth};
use farmbell_protocol::client::identity::Identity;
use farmbell_protocol::client::join::join;
use farmbell_protocol::client::quic::BulkTuning;
use farmbell_protocol::client::session::{
    self, BUILDER_QUEUE, Coordinator, Desk, Forgetful, LinkState, Patience,
};
use farmbell_protocol::client::token::Token;
use farmbell_protocol::digest::{ChunkList, ChunkListBuilder};
use farmbell_protocol::id::{AttemptId, BootId, Epoch, SpoolId};
use farmbell_protocol::outcome::{ExitStatus, FailureKind, Outcome, Usage};
use farmbell_protocol::spec::{JobSpec, Manifest, Rung};
use farmbell_protocol::time::Time;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let token = std::env::args()
        .nth(1)
        .ok_or("usage: smallest_builder TOKEN")?;
    let token: Token = token.parse()?;
    let name = Name::new(format!("smallest-{}", std::process::id()))?;
    let identity = Arc::new(Identity::ephemeral()?);
    let joined = join(&identity, &token, name.clone(), Name::new("smallest")?).await?;
    println!("joined as agent {} ({})", joined.agent, joined.name);

    let (builder, messages) = mpsc::channel(BUILDER_QUEUE);
    let (state, link) = watch::channel(LinkState::Dialing);
    let bulk = Bulk::start(Arc::clone(&identity), link, BulkTuning::default())?;
    tokio::spawn(run(Hands::new(settings(name), bulk)?, messages));
    let agent = session::Settings {
        identity,
        software: Name::new("smallest")?,
        boot: BootId(random()?),
        incarnation: 1,
        spool: SpoolId(random()?),
        facts: List::default(),
        patience: Patience::GiveUp,
    };
    let coordinator = Coordinator {
        address: token.address.into_string(),
        pins: vec![token.coordinator],
        epoch: Epoch::default(),
        session: None,
    };
    let stop = async { tokio::signal::ctrl_c().await.unwrap_or(()) };
    session::keep(
        agent,
        coordinator,
        Arc::new(Forgetful),
        vec![builder],
        state,
        stop,
    )
    .await?;
    Ok(())
}

fn settings(name: Name) -> builder::Settings {
    builder::Settings {
        name,
        recipes: only("command"),
        architectures: only("amd64"),
        open_tags: List::default(),
        restricted_tags: List::default(),
        virtualized: false,
        rung: Rung::Process,
        memory_bytes: 1 << 30,
        disk_bytes: 1 << 30,
        reset_scope: ResetScope::Workspace,
        spool_survives_reset: true,
        backlog_max: 4,
        grace: Duration::from_secs(10),
    }
}

fn only<const MAX: usize>(name: &str) -> List<Name, MAX> {
    List::new(vec![Name::cut(name)]).expect("one fits")
}

/// One builder's task: what the session says and what the host answers go into
/// the brain, what the brain wants is done.
async fn run(mut hands: Hands, mut messages: mpsc::Receiver<session::ToBuilder>) {
    let began = Instant::now();
    loop {
        let now = || Time::ZERO + began.elapsed();
        let effects = tokio::select! {
            Some(message) = messages.recv() => hands.desk.take(now(), message),
            Some(event) = hands.answers.recv() => hands.desk.handle(now(), event),
            else => return,
        };
        for effect in effects {
            hands.perform(effect);
        }
    }
}

struct Hands {
    desk: Desk,
    bulk: Bulk,
    directory: PathBuf,
    answer: mpsc::Sender<Event>,
    answers: mpsc::Receiver<Event>,
    running: HashMap<AttemptId, Running>,
}

struct Running {
    log: PathBuf,
    growth: watch::Sender<LogGrowth>,
    logging: Option<watch::Receiver<LogGrowth>>,
    kill: Option<oneshot::Sender<()>>,
}

impl Hands {
    fn new(settings: builder::Settings, bulk: Bulk) -> Result<Self, Error> {
        let (answer, answers) = mpsc::channel(16);
        let directory = std::env::temp_dir().join(settings.name.as_str());
        std::fs::create_dir_all(&directory)?;
        Ok(Self {
            desk: Desk::new(Builder::new(settings)),
            bulk,
            directory,
            answer,
            answers,
            running: HashMap::new(),
        })
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            // A real agent makes it durable here. This one forgets it all.
            Effect::Spool(_) => {}
            Effect::Say(frame) => self.desk.say(frame),
            Effect::Start { attempt, spec } => self.start(attempt, &spec),
            Effect::Stop { attempt, .. } => {
                let kill = self.running.get_mut(&attempt).and_then(|r| r.kill.take());
                if kill.is_some_and(|kill| kill.send(()).is_err()) {
                    println!("{attempt} ended before it was stopped");
                }
            }
            Effect::Seal { attempt } => self.seal(attempt),
            Effect::Upload { attempt } => self.upload(attempt),
            Effect::Release { attempt } => drop(self.running.remove(&attempt)),
            Effect::Reset { nonce } | Effect::Probe { nonce } => {
                let (reset, probe) = (Duration::ZERO, Duration::ZERO);
                let report = ResetReport::Clean { reset, probe };
                self.answer_with(async move { Event::ResetEnded { nonce, report } });
            }
        }
    }

    /// The answer comes later, as an event.
    fn answer_with(&self, event: impl Future<Output = Event> + Send + 'static) {
        let answer = self.answer.clone();
        tokio::spawn(async move {
            if answer.send(event.await).await.is_err() {
                println!("nobody waits for an answer any more");
            }
        });
    }

    fn start(&mut self, attempt: AttemptId, spec: &JobSpec) {
        let log = self.directory.join(format!("{attempt}.log"));
        let child = match spawn(spec, &log) {
            Ok(child) => child,
            Err(error) => {
                let (refusal, why) = (Refusal::Unfit, Reason::cut(error.to_string()));
                return self.answer_with(async move {
                    Event::NotStarted {
                        attempt,
                        refusal,
                        why,
                    }
                });
            }
        };
        println!("{attempt} runs {}", spec.name);
        let (kill, killed) = oneshot::channel();
        let (growth, logging) = watch::channel(LogGrowth::default());
        self.running.insert(
            attempt,
            Running {
                log,
                growth,
                logging: Some(logging),
                kill: Some(kill),
            },
        );
        self.answer_with(async move { Event::Started { attempt } });
        self.answer_with(async move {
            let report = wait(child, killed).await;
            Event::Ended { attempt, report }
        });
    }

    /// No outputs: an empty manifest. The log has its final length.
    fn seal(&mut self, attempt: AttemptId) {
        let manifest = self.manifest();
        let length = self.running.get(&attempt).map_or(0, |running| {
            let length = std::fs::metadata(&running.log).map_or(0, |log| log.len());
            running.growth.send_modify(|growth| {
                growth.length = length;
                growth.ended = true;
            });
            length
        });
        self.answer_with(async move {
            let report = SealReport {
                manifest: manifest.1.root(),
                manifest_bytes: manifest.1.length(),
                outputs: 0,
                output_bytes: 0,
                log_bytes: length,
                outcome: None,
            };
            Event::Sealed { attempt, report }
        });
    }

    fn manifest(&self) -> (PathBuf, ChunkList) {
        let bytes = postcard::to_stdvec(&Manifest::default()).expect("a manifest encodes");
        let path = self.directory.join("manifest");
        std::fs::write(&path, &bytes).expect("the own directory can be written");
        let mut list = ChunkListBuilder::new();
        list.push(&bytes);
        (path, list.finish())
    }

    /// Asked for when the recipe starts, for the log, and again when all is
    /// sealed. Either goes on until it is durable at the coordinator.
    fn upload(&mut self, attempt: AttemptId) {
        let manifest = self.manifest();
        let Some(running) = self.running.get_mut(&attempt) else {
            return;
        };
        if let Some(growth) = running.logging.take() {
            let (bulk, log) = (self.bulk.clone(), running.log.clone());
            tokio::spawn(async move {
                told(attempt, "log", bulk.send_log(attempt, log, growth).await);
            });
        }
        if running.growth.borrow().ended {
            let (bulk, (path, list)) = (self.bulk.clone(), manifest);
            tokio::spawn(async move {
                told(
                    attempt,
                    "manifest",
                    bulk.send_blob(attempt, path, list).await,
                );
            });
        }
    }
}

/// Where the coordinator wants no more of it, an order says why.
fn told(attempt: AttemptId, what: &str, sent: Result<(), BulkError>) {
    match sent {
        Ok(()) => println!("{attempt}: {what} delivered"),
        Err(error) => println!("{attempt}: {what} not delivered: {error}"),
    }
}

fn spawn(spec: &JobSpec, log: &Path) -> Result<Child, Error> {
    let mut argv = spec.parameters.iter().filter(|p| p.key.as_str() == "argv");
    let program = argv.next().ok_or("the job has no argv")?;
    let out = File::create(log)?;
    let child = Command::new(program.value.as_str())
        .args(argv.map(|argument| argument.value.as_str()))
        .stdin(Stdio::null())
        .stderr(out.try_clone()?)
        .stdout(out)
        .kill_on_drop(true)
        .spawn()?;
    Ok(child)
}

async fn wait(mut child: Child, mut killed: oneshot::Receiver<()>) -> EndReport {
    let status = tokio::select! {
        status = child.wait() => status,
        Ok(()) = &mut killed => {
            if let Err(error) = child.kill().await {
                println!("{error}");
            }
            return EndReport::aborted();
        }
    };
    let code = status.ok().and_then(|status| status.code());
    let failed = |why: String| Outcome::Failed {
        kind: FailureKind::Build,
        why: Reason::cut(why),
    };
    EndReport {
        outcome: match code {
            Some(0) => Outcome::Succeeded,
            Some(code) => failed(format!("the command ended with {code}")),
            None => failed("the command was killed".to_owned()),
        },
        exit: code
            .and_then(|code| u8::try_from(code).ok())
            .map(ExitStatus::Code),
        usage: Usage::default(),
    }
}

fn random() -> Result<[u8; 16], Error> {
    let mut bytes = [0; 16];
    std::io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes)
}
