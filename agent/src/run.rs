//! `farmbell-agent run`: puts the parts together, serves until told to stop,
//! and leaves in the way it was told to. Owns the daemon's life; what happens
//! in it is the builders' and the session's.
//!
//! TERM drains: what runs is finished and delivered. QUIT, and TERM past its
//! deadline, end what runs and give it back. USR1 leaves at once, and builds
//! go on under their supervisors.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use farmbell_protocol::agent_to_coordinator::ResetScope;
use farmbell_protocol::bounded::{List, Name};
use farmbell_protocol::builder::Settings;
use farmbell_protocol::client::bulk::Bulk;
use farmbell_protocol::client::identity::Identity;
use farmbell_protocol::client::quic::BulkTuning;
use farmbell_protocol::client::session::{self, BUILDER_QUEUE, LinkState, Patience, ToBuilder};
use farmbell_protocol::spec::Rung;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::canary::Canary;
use crate::chain::{Chain, Plan};
use crate::cli::Places;
use crate::config::{BuilderConfig, Config};
use crate::doctor::{self, Finding};
use crate::driver::Leaving;
use crate::facts;
use crate::groups::Place;
use crate::host::BuilderHost;
use crate::join::{CoordinatorFile, SOFTWARE, identity_directory};
use crate::launcher::unit::Unit;
use crate::launcher::{InProcess, Launcher, Scripts};
use crate::recipes::Recipes;
use crate::spool::{self, Damage};
use crate::state::State;
use crate::tidy::Tidy;

/// Threads for work that may block: seals and resets of a few builders at a
/// time; more would only compete for the same disk.
const BLOCKING_THREADS: usize = 8;
/// An idle thread of these goes soon: memory on small boards.
const THREAD_IDLE: Duration = Duration::from_secs(5);

/// Other agents of this host may be starting attempts; none takes this long
/// from making its groups to entering them.
const GROUP_AGE_MIN: Duration = Duration::from_secs(60);

/// Serve the coordinator.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    farmbell-agent run                     serve until TERM, then finish what runs and leave\n  \
    farmbell-agent run --deadline 600      the same; give back what still runs after ten minutes\n  \
    farmbell-agent run --once              take one attempt, deliver it, and leave: for machines\n  \
                                           that are thrown away after each build\n\n\
    Signals: TERM finishes what runs and leaves; QUIT cancels it and leaves; USR1 leaves at\n\
    once, builds go on under their supervisors and are taken up again at the next start.")]
pub struct Run {
    #[command(flatten)]
    places: Places,
    /// Take one attempt, deliver it, and leave.
    #[arg(long)]
    once: bool,
    /// After TERM, give back what still runs when this many seconds are over.
    #[arg(long, value_name = "SECONDS")]
    deadline: Option<u64>,
}

impl Run {
    /// # Errors
    /// If the agent cannot serve; the text says what to do.
    pub fn perform(self) -> anyhow::Result<ExitCode> {
        crate::failpoint::arm_from_environment()?;
        start_log();
        let config = self.places.config()?;
        let unit = self.places.launcher()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_keep_alive(THREAD_IDLE)
            .build()?;
        let left = runtime.block_on(serve(&config, unit, self.once, self.deadline));
        // Threads that still work on the disk are cut off like any crash.
        runtime.shutdown_background();
        left
    }
}

/// `FARMBELL_LOG` is a level, or levels by target: `info,quinn=debug`. What
/// stands there is not worth more than the agent's start: nonsense means `info`.
pub(crate) fn start_log() {
    let wanted = std::env::var("FARMBELL_LOG").ok();
    let filter = wanted
        .and_then(|text| text.parse::<Targets>().ok())
        .unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .finish()
        .with(filter)
        .init();
}

async fn serve(
    config: &Config,
    unit: Option<Unit>,
    once: bool,
    deadline: Option<u64>,
) -> anyhow::Result<ExitCode> {
    let memory = CoordinatorFile::at(&config.state);
    let coordinator = memory.read()?;
    let state = State::open(&config.state)?;
    let identity = Arc::new(Identity::load_or_create(&identity_directory(
        &config.state,
    ))?);
    let place = Place::of(unit.as_ref());
    place.sweep(GROUP_AGE_MIN);
    let mut degraded = lines_of(&doctor::lacking(config, unit.as_ref(), &place));
    let (link_state, link) = watch::channel(LinkState::Dialing);
    let bulk = Bulk::start(identity.clone(), link.clone(), BulkTuning::default())
        .context("no thread for transfers")?;
    let builders = Builders {
        config,
        state: &state,
        place: &place,
        unit: &unit,
        bulk: &bulk,
        link: &link,
        once,
    };
    let opened = builders.open(&mut degraded).await?;
    let settings = session_settings(&config.state, &state, identity, &degraded);
    let (leave, leaving) = watch::channel(Leaving::No);
    let mut tasks = JoinSet::new();
    let mut sessions = Vec::new();
    let (busy, idle) = mpsc::channel(1);
    for chain in opened {
        let (to_builder, session) = mpsc::channel::<ToBuilder>(BUILDER_QUEUE);
        sessions.push(to_builder);
        tasks.spawn(chain.run(session, leaving.clone(), busy.clone()));
    }
    drop(busy);
    tell_ready();
    let (all_left, mut left) = mpsc::channel::<Infallible>(1);
    let stopped = async move {
        // Told by the sender's end.
        while left.recv().await.is_some() {}
    };
    let keep = session::keep(
        settings,
        coordinator,
        Arc::new(memory),
        sessions,
        link_state,
        stopped,
    );
    let deadline = deadline.map(Duration::from_secs);
    let watch_over = watch_over(tasks, idle, leave, deadline);
    tokio::pin!(keep);
    tokio::select! {
        how = watch_over => match how? {
            Left::AtOnce => Ok(ExitCode::SUCCESS),
            Left::Done(_builders) => {
                // Ends the session in order; its builders answer to the last.
                drop(all_left);
                keep.await?;
                Ok(ExitCode::SUCCESS)
            }
        },
        kept = &mut keep => {
            kept?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What the host lacks, for whoever reads the log and for the coordinator.
fn lines_of(lacking: &[Finding]) -> Vec<String> {
    let lines: Vec<String> = lacking.iter().map(Finding::to_string).collect();
    for line in &lines {
        tracing::warn!(lacks = line, "the agent works with less");
    }
    lines
}

fn session_settings(
    directory: &Path,
    state: &State,
    identity: Arc<Identity>,
    degraded: &[String],
) -> session::Settings {
    session::Settings {
        identity,
        software: Name::cut(SOFTWARE),
        boot: state.life.boot,
        incarnation: state.life.incarnation,
        spool: state.life.spool,
        facts: facts::told(directory, degraded),
        patience: Patience::KeepAsking,
    }
}

/// How the builders' time came to its end.
enum Left {
    /// Builds may go on under their supervisors.
    AtOnce,
    /// The builders hold nothing any more.
    Done(JoinSet<()>),
}

/// Waits for signals and for the builders.
async fn watch_over(
    mut builders: JoinSet<()>,
    mut idle: mpsc::Receiver<Infallible>,
    leave: watch::Sender<Leaving>,
    deadline: Option<Duration>,
) -> anyhow::Result<Left> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut usr1 = signal(SignalKind::user_defined1())?;
    let mut give_back_at: Option<Instant> = None;
    loop {
        let how = tokio::select! {
            _ = term.recv() => Leaving::Drain,
            _ = int.recv() => Leaving::Drain,
            _ = quit.recv() => Leaving::Cancel,
            _ = usr1.recv() => {
                tracing::info!("leaving at once; builds go on under their supervisors");
                return Ok(Left::AtOnce);
            }
            () = until(give_back_at) => Leaving::Cancel,
            Some(ended) = builders.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a builder's task ended by itself");
                }
                continue;
            }
            none = idle.recv() => match none {
                Some(never) => match never {},
                None => return Ok(Left::Done(builders)),
            },
        };
        give_back_at = match how {
            Leaving::Drain => deadline.map(|wait| Instant::now() + wait),
            Leaving::No | Leaving::Cancel => None,
        };
        tracing::info!(?how, "leaving");
        leave.send_if_modified(|now| {
            let more = how > *now;
            *now = how.max(*now);
            more
        });
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

pub(crate) fn tell_ready() {
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::debug!(%error, "nobody to tell of the readiness");
    }
}

/// What builders are made of.
struct Builders<'a> {
    config: &'a Config,
    state: &'a State,
    place: &'a Place,
    unit: &'a Option<Unit>,
    bulk: &'a Bulk,
    link: &'a watch::Receiver<LinkState>,
    once: bool,
}

impl Builders<'_> {
    async fn open(&self, degraded: &mut Vec<String>) -> anyhow::Result<Vec<Chain>> {
        let config = self.config;
        let recipes = Recipes::new(config.recipes.clone());
        let launcher = self.launcher();
        let tidy = Tidy::start().context("the thread that tidies cannot be started")?;
        let paths: Vec<PathBuf> = config
            .builders
            .iter()
            .map(|builder| self.state.spool(&builder.name))
            .collect();
        let spools = spool::start(&paths).context("the spool cannot be opened")?;
        let mut opened = Vec::new();
        for (builder, spool) in config.builders.iter().zip(spools) {
            let host = self.host(builder, &recipes, &launcher, &tidy);
            let plan = Plan {
                settings: self.settings(builder, &host)?,
                host,
                spool,
                boot: self.state.life.boot,
                once: self.once,
            };
            let chain = Chain::new(plan)
                .await
                .with_context(|| format!("builder '{}' cannot be taken up", builder.name))?;
            if let Some(Damage { places, kept_at }) = &chain.damage {
                let kept = kept_at.display();
                let line = format!(
                    "spool of {}: {places} damaged places, kept at {kept}",
                    builder.name
                );
                degraded.push(line);
            }
            opened.push(chain);
        }
        Ok(opened)
    }

    fn launcher(&self) -> Arc<dyn Launcher> {
        let scripts: BTreeMap<Name, Scripts> = self
            .config
            .builders
            .iter()
            .map(|builder| {
                let scripts = Scripts {
                    reset: builder.reset.clone(),
                    probe: builder.probe.clone(),
                };
                (builder.name.clone(), scripts)
            })
            .collect();
        Arc::new(InProcess::new(
            self.state.work(),
            scripts,
            self.place.clone(),
            self.unit.clone(),
        ))
    }

    fn host(
        &self,
        builder: &BuilderConfig,
        recipes: &Recipes,
        launcher: &Arc<dyn Launcher>,
        tidy: &Tidy,
    ) -> BuilderHost {
        BuilderHost {
            name: builder.name.clone(),
            directory: self.state.work().join(builder.name.as_str()),
            limits: builder.limits,
            disk_low_bytes: builder.disk_low_bytes,
            reset: builder.reset.clone(),
            reset_scope: builder.reset_scope,
            recipes: recipes.clone(),
            secrets: self.config.secrets.clone(),
            chroots: self.config.chroots.clone(),
            place: self.place.clone(),
            launcher: launcher.clone(),
            tidy: tidy.clone(),
            bulk: self.bulk.clone(),
            link: self.link.clone(),
            // Each driver gets one of its own.
            _life: mpsc::channel(1).0,
        }
    }

    fn settings(&self, builder: &BuilderConfig, host: &BuilderHost) -> anyhow::Result<Settings> {
        let recipes: Vec<Name> = host.recipes.names().into_iter().map(Name::cut).collect();
        let limits = &builder.limits;
        let memory = facts::memory_bytes();
        Ok(Settings {
            name: builder.name.clone(),
            recipes: List::new(recipes).context("more recipes than a builder may have")?,
            architectures: builder.architectures.clone(),
            open_tags: builder.open_tags.clone(),
            restricted_tags: builder.restricted_tags.clone(),
            virtualized: builder.virtualized,
            rung: Rung::Process,
            memory_bytes: crate::places::stricter(limits.memory_bytes, memory),
            disk_bytes: facts::free_bytes(&self.config.state),
            reset_scope: builder.reset_scope,
            spool_survives_reset: spool_survives_reset(host),
            backlog_max: builder.backlog_max,
            grace: host.grace(),
        })
    }
}

/// As far as earlier resets have shown it.
fn spool_survives_reset(host: &BuilderHost) -> bool {
    if host.reset_scope == ResetScope::Host {
        return false;
    }
    let Some(script) = &host.reset else {
        return true;
    };
    let proved = Canary::of(&host.directory, script).and_then(|canary| canary.is_proved());
    proved.unwrap_or_else(|error| {
        tracing::debug!(builder = %host.name, %error, "no canary tells of its reset");
        false
    })
}
