//! `farmbell-coordinator serve`: wires the parts and runs them until a signal.
//! Owns the order of starting and stopping; no part knows another but by what
//! it is given here.
//!
//! ```text
//!  lock ─▶ store, blobs, logs ─▶ doors and HTTP bound ─▶ driver, first commit
//!       ─▶ doors and HTTP open ─▶ READY ─▶ SIGTERM ─▶ doors and HTTP shut ─▶ driver
//! ```

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use farmbell_farm::{SealKey, Settings};
use farmbell_protocol::client::identity::Identity;
use farmbell_protocol::client::quic::ServerKeys;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::blobs::Blobs;
use crate::bulk::Delivered;
use crate::config::Config;
use crate::driver::{self, FarmHandle, Guard, Parts, Running};
use crate::http::{self, Api, JoinPoint};
use crate::listener::{Addresses, Depots, Doors};
use crate::logs::Logs;
use crate::retire::{self, Archive};
use crate::search;
use crate::specs::Specs;
use crate::statedir::{Locked, StateDir};
use crate::store::{Queries, Sqlite};

/// Threads for sessions and HTTP: the farm, the store and bulk have their own.
const WORKERS_MAX: usize = 8;

/// # Errors
/// If a part cannot start, or the driver ends: then nothing more may be said.
pub fn run(config: Config) -> anyhow::Result<()> {
    let locked = StateDir::at(config.state.clone()).lock()?;
    raise_file_limit();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers.min(WORKERS_MAX))
        .enable_all()
        .build()
        .context("the runtime could not be started")?
        .block_on(serve(config, locked))
}

/// What the farm's seals are made with; another text would break them all.
const SEALS: &str = "farmbell 2026 seals of epochs and attempts";

async fn serve(config: Config, locked: Locked) -> anyhow::Result<()> {
    let mut signals = Signals::catch()?;
    let state = locked.directory().clone();
    let identity = Identity::load_or_create(state.path())?;
    let keys = ServerKeys::load_or_create(&state.quic_keys())?;
    let store = Sqlite::open(&state.store())?;
    let queries: Arc<dyn Queries> = Arc::new(store.reader());
    let depots = Depots {
        specs: Specs::new(queries.clone()),
        blobs: Blobs::open(&state.blobs())?,
        logs: Logs::open(&state.logs())?,
        delivered: Delivered::open(&state.delivered())?,
    };
    let doors = Doors::bind(&addresses(&config), &identity, &keys)?;
    let unix = http::bind_unix(&config.socket.clone().unwrap_or_else(|| state.socket()))
        .context("the API's socket")?;
    let tcp = TcpListener::bind(config.http)
        .await
        .with_context(|| format!("cannot listen on {}/tcp", config.http))?;
    let listening = Listening {
        control: doors.control_address()?,
        bulk: doors.bulk_address()?,
        http: tcp.local_addr()?,
    };

    let (retiring, to_retire) = retire::orders();
    let (searches, to_search) = search::orders();
    let archive = Archive::of(&state, &depots, queries.clone());
    let (farm, lanes) = driver::lanes();
    let mut running = driver::start(
        lanes,
        Parts {
            settings: Settings {
                seal: SealKey::new(identity.derive(SEALS)),
                ..config.farm.clone()
            },
            store,
            outbox: doors.outbox(depots.logs.clone(), retiring, searches),
            specs: depots.specs.clone(),
            guard: Guard::open(&state.in_hand())?,
        },
    )?;
    running.ready().await;

    let (stop, stopping) = watch::channel(());
    let api = Api {
        farm: farm.clone(),
        queries: queries.clone(),
        blobs: depots.blobs.clone(),
        logs: depots.logs.clone(),
        api_token: locked.api_token()?.into(),
        join: Arc::new(JoinPoint {
            address: advertised(&config, listening.control),
            key: identity.key_hash(),
        }),
        moved: doors.counters(),
    };
    let mut parts = JoinSet::new();
    let stops = || stopped(stopping.clone());
    let opened = doors.open(farm.clone(), depots, stops());
    parts.spawn(async move { Ok(opened.await?) });
    parts.spawn(retire::run(to_retire, archive, farm.clone(), stops()));
    parts.spawn(search::run(to_search, queries, farm.clone(), stops()));
    let served = http::serve(api, unix, tcp, stops());
    parts.spawn(async move { Ok(served.await?) });
    listening.announce(&locked)?;

    let ended = until_something_ends(&mut signals, &mut running, &mut parts).await;
    notify(&[NotifyState::Stopping]);
    // From here on agents are told to dial again; what they reported before is
    // still taken, committed and acknowledged.
    drop(stop);
    let stopped = all_of(parts).await;
    end(running, farm, ended).await.and(stopped)
}

/// Why the service stops.
enum End {
    /// It was asked to.
    Signal,
    /// The driver ended; there is nothing to stop.
    Driver(anyhow::Error),
    /// A part that should run for ever did not.
    Part(anyhow::Error),
}

async fn until_something_ends(
    signals: &mut Signals,
    running: &mut Running,
    parts: &mut JoinSet<anyhow::Result<()>>,
) -> End {
    tokio::select! {
        name = signals.next() => {
            tracing::info!(signal = name, "stopping; builds go on without this process");
            End::Signal
        }
        ended = running.ended() => End::Driver(match ended {
            Ok(()) => anyhow::anyhow!("the driver ended without a reason"),
            Err(error) => error.into(),
        }),
        Some(part) = parts.join_next() => End::Part(match part {
            Ok(Ok(())) => anyhow::anyhow!("a listener ended without a reason"),
            Ok(Err(error)) => error,
            Err(panicked) => panicked.into(),
        }),
    }
}

async fn end(running: Running, farm: FarmHandle, why: End) -> anyhow::Result<()> {
    // The driver ends when it is told to; handles may live on in tasks.
    drop(farm);
    match why {
        End::Signal => Ok(running.stop().await?),
        End::Driver(error) => Err(error),
        End::Part(error) => {
            running.stop().await?;
            Err(error)
        }
    }
}

async fn all_of(mut parts: JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut result = Ok(());
    while let Some(part) = parts.join_next().await {
        let ended = part.map_err(Into::into).and_then(|part| part);
        // The first to fail is the cause; what follows follows from it.
        if result.is_ok() {
            result = ended;
        }
    }
    result
}

/// Ends when the sender is dropped.
async fn stopped(mut stopping: watch::Receiver<()>) {
    while stopping.changed().await.is_ok() {}
}

/// The addresses that were really bound: port 0 in the configuration means
/// "any".
struct Listening {
    control: SocketAddr,
    bulk: SocketAddr,
    http: SocketAddr,
}

impl Listening {
    fn announce(&self, locked: &Locked) -> anyhow::Result<()> {
        let Self {
            control,
            bulk,
            http,
        } = self;
        let json = serde_json::json!({ "control": control, "bulk": bulk, "http": http });
        locked.write_addresses(&format!("{json}\n"))?;
        tracing::info!(%control, %bulk, page = %format!("http://{http}/"), "listening");
        notify(&[
            NotifyState::Ready,
            NotifyState::Status(&format!("control {control}, bulk {bulk}, http://{http}/")),
        ]);
        Ok(())
    }
}

fn addresses(config: &Config) -> Addresses {
    Addresses {
        control: config.control,
        bulk: config.bulk,
        bulk_public: config.advertise_bulk.clone(),
        tuning: config.bulk_tuning,
    }
}

/// `host:port` that join tokens name: what the operator says, else the address
/// that is listened on, else this host's name.
fn advertised(config: &Config, control: SocketAddr) -> String {
    let port = control.port();
    match &config.advertise {
        Some(host) if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) => {
            format!("[{host}]:{port}")
        }
        Some(host) if host.contains(':') => host.clone(),
        Some(host) => format!("{host}:{port}"),
        None if !control.ip().is_unspecified() => control.to_string(),
        None => match nix::unistd::gethostname() {
            Ok(name) => format!("{}:{port}", name.to_string_lossy()),
            Err(errno) => {
                tracing::warn!(%errno, "this host has no name; set `advertise` for join tokens");
                format!("localhost:{port}")
            }
        },
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Every log that grows and every TCP or Unix connection is an open file.
fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(errno) = raised {
        tracing::warn!(%errno, "the limit of open files stays as it is");
    }
}

/// Tells systemd, where it started this process.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}
