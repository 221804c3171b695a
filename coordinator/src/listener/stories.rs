//! Stories at the doors: real QUIC on loopback, the real farm on a real
//! store. Agents are played frame by frame.

mod bulk;
mod refusals;

use std::sync::Arc;

use farmbell_farm::Settings;
use farmbell_farm::effect::Reply;
use farmbell_farm::event::{Actor, AgentAct, Command, Submit};
use farmbell_farm::record::Envelope;
use farmbell_protocol::agent_to_coordinator::{
    Accepted, AgentFrame, Clean, Hello, HelloBuilder, HelloEnd, ResetScope, Started,
};
use farmbell_protocol::bounded::{List, Name, Text};
use farmbell_protocol::client::dial::dial;
use farmbell_protocol::client::framed::{FrameReceiver, FrameSender};
use farmbell_protocol::client::identity::Identity;
use farmbell_protocol::client::join::{JoinError, join};
use farmbell_protocol::client::quic::{BulkTuning, Profile, ServerKeys};
use farmbell_protocol::client::token::Token;
use farmbell_protocol::client::transport::{Closed, Connection};
use farmbell_protocol::coordinator_to_agent::{CoordinatorFrame, Welcome};
use farmbell_protocol::id::{
    AgentId, AttemptId, BootId, BuilderIndex, Epoch, KeyHash, Seq, SpoolId,
};
use farmbell_protocol::spec::{ArchScope, JobSpec, Limits, Network, Rung};
use farmbell_protocol::version::{self, CloseCode, Features};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::{Addresses, Depots, Doors};
use crate::blobs::Blobs;
use crate::bulk::{Counters, Delivered};
use crate::driver::{self, FarmHandle, Guard, Parts};
use crate::logs::Logs;
use crate::retire;
use crate::search;
use crate::specs::Specs;
use crate::store::Sqlite;
use crate::tokens::Secret;

/// A coordinator with its doors open.
struct World {
    farm: FarmHandle,
    key: KeyHash,
    control: String,
    bulk: String,
    counters: Arc<Counters>,
    blobs: Blobs,
    logs: Logs,
    _stop: oneshot::Sender<()>,
    _serving: JoinSet<()>,
    _driver: driver::Running,
    _directory: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let store = Sqlite::open(&path("farm.db")).unwrap();
        let specs = Specs::new(Arc::new(store.reader()));
        let (blobs, logs) = (
            Blobs::open(&path("blobs")).unwrap(),
            Logs::open(&path("logs")).unwrap(),
        );
        let delivered = Delivered::open(&path("delivered")).unwrap();
        let identity = Identity::ephemeral().unwrap();
        let loopback = "127.0.0.1:0".parse().unwrap();
        let addresses = Addresses {
            control: loopback,
            bulk: loopback,
            bulk_public: None,
            tuning: BulkTuning::default(),
        };
        let doors = Doors::bind(&addresses, &identity, &ServerKeys::ephemeral()).unwrap();
        let (farm, lanes) = driver::lanes();
        let parts = Parts {
            settings: Settings::default(),
            store,
            outbox: doors.outbox(logs.clone(), retire::orders().0, search::orders().0),
            specs: specs.clone(),
            guard: Guard::open(&path("guard")).unwrap(),
        };
        let mut running = driver::start(lanes, parts).unwrap();
        running.ready().await;
        let (stop, stopped) = oneshot::channel();
        let mut world = Self {
            farm: farm.clone(),
            key: identity.key_hash(),
            control: doors.control_address().unwrap().to_string(),
            bulk: doors.bulk_address().unwrap().to_string(),
            counters: doors.counters(),
            blobs: blobs.clone(),
            logs: logs.clone(),
            _stop: stop,
            _serving: JoinSet::new(),
            _driver: running,
            _directory: directory,
        };
        let depots = Depots {
            specs,
            blobs,
            logs,
            delivered,
        };
        world._serving.spawn(async move {
            let stop = async { stopped.await.unwrap_or(()) };
            doors.open(farm, depots, stop).await.unwrap();
        });
        world
    }

    async fn ask(&self, command: Command) -> Reply {
        let name = Text::new("story").unwrap();
        self.farm.request(Actor { name }, command).await.unwrap()
    }

    async fn token(&self, uses: u32, ttl_ms: u64, envelope: Envelope) -> Token {
        let secret = Secret::random();
        let reply = self
            .ask(Command::TokenCreate {
                uses,
                ttl_ms,
                envelope,
                secret_hash: secret.hash(),
            })
            .await;
        let Reply::Token(record) = reply else {
            panic!("{reply:?}")
        };
        secret
            .into_token(record.id, &self.control, self.key)
            .unwrap()
    }

    async fn join(&self, identity: &Identity, name: &str) -> AgentId {
        let token = self.token(1, 60_000, Envelope::default()).await;
        self.join_with(&token, identity, name).await.unwrap()
    }

    async fn join_with(
        &self,
        token: &Token,
        identity: &Identity,
        named: &str,
    ) -> Result<AgentId, JoinError> {
        let joined = join(identity, token, name(named), name("story")).await?;
        Ok(joined.agent)
    }

    async fn dial(&self, identity: &Identity) -> Connection {
        dial(&self.control, identity, &[self.key], Profile::Control)
            .await
            .unwrap()
    }

    /// Says these frames on a new connection and waits for its end.
    async fn refused(&self, identity: &Identity, frames: &[AgentFrame]) -> Option<CloseCode> {
        let connection = self.dial(identity).await;
        let (send, _receive) = connection.open().await.unwrap();
        let mut send = FrameSender::new(send);
        for frame in frames {
            send.queue(frame);
        }
        send.flush().await.unwrap();
        connection.closed().await.code()
    }

    async fn revoke(&self, agent: AgentId) {
        let act = AgentAct::Revoke;
        let why = Text::new("a story").unwrap();
        let reply = self.ask(Command::Agent { agent, act, why }).await;
        assert!(!matches!(reply, Reply::Refused(_)), "{reply:?}");
    }

    async fn submit(&self) {
        let submit = Submit {
            key: None,
            jobs: List::new(vec![spec()]).unwrap(),
            allow_unmatched: false,
        };
        let reply = self.ask(Command::Submit(submit)).await;
        assert!(matches!(reply, Reply::Submitted { .. }), "{reply:?}");
    }
}

/// An agent with one builder, played by hand.
struct Agent {
    identity: Arc<Identity>,
    connection: Connection,
    send: FrameSender<AgentFrame>,
    receive: FrameReceiver<CoordinatorFrame>,
    welcome: Welcome,
}

impl Agent {
    async fn linked(world: &World, named: &str) -> (Self, AgentId) {
        let identity = Arc::new(Identity::ephemeral().unwrap());
        let id = world.join(&identity, named).await;
        let connection = world.dial(&identity).await;
        let (send, receive) = connection.open().await.unwrap();
        let (mut send, mut receive) = (FrameSender::new(send), FrameReceiver::new(receive));
        for frame in [hello(1), builder(named).into(), HelloEnd {}.into()] {
            send.queue(&frame);
        }
        send.flush().await.unwrap();
        let CoordinatorFrame::Welcome(welcome) = receive.expect_next().await.unwrap() else {
            panic!("no Welcome")
        };
        while !matches!(
            receive.expect_next().await.unwrap(),
            CoordinatorFrame::WelcomeEnd(_)
        ) {}
        let agent = Self {
            identity,
            connection,
            send,
            receive,
            welcome,
        };
        (agent, id)
    }

    /// Proves the builder clean, takes the first offer and starts it.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the story has no other")]
    async fn running(&mut self) -> AttemptId {
        loop {
            match self.receive.expect_next().await.unwrap() {
                CoordinatorFrame::Reset(reset) => {
                    let clean = Clean {
                        builder: BuilderIndex(0),
                        seq: Seq(1),
                        nonce: reset.nonce,
                        reset_ms: 1,
                        probe_ms: 1,
                    };
                    self.send.send(clean).await.unwrap();
                }
                CoordinatorFrame::Offer(offer) => {
                    let attempt = offer.attempt;
                    let accepted = Accepted {
                        attempt,
                        seq: Seq(1),
                    };
                    let started = Started {
                        attempt,
                        seq: Seq(2),
                    };
                    self.send.queue(&accepted.into());
                    self.send.queue(&started.into());
                    self.send.flush().await.unwrap();
                    return attempt;
                }
                CoordinatorFrame::Ack(_) | CoordinatorFrame::BuilderAck(_) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// Reads until the connection is over.
    async fn ends(&mut self) -> Closed {
        self.connection.closed().await
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn hello(builders: u16) -> AgentFrame {
    Hello {
        version_min: version::MIN,
        version_max: version::CURRENT,
        features: Features::ALL,
        software: name("story"),
        boot: BootId([1; 16]),
        incarnation: 1,
        spool: SpoolId([2; 16]),
        epoch: Epoch::default(),
        previous_session: None,
        builders,
        attempts: 0,
        facts: List::default(),
    }
    .into()
}

fn builder(named: &str) -> HelloBuilder {
    HelloBuilder {
        index: BuilderIndex(0),
        name: name(named),
        recipes: List::new(vec![name("command")]).unwrap(),
        architectures: List::new(vec![name("amd64")]).unwrap(),
        open_tags: List::default(),
        restricted_tags: List::default(),
        virtualized: false,
        rung: Rung::Process,
        memory_bytes: 1 << 30,
        disk_bytes: 1 << 30,
        reset_scope: ResetScope::Workspace,
        spool_survives_reset: true,
        last_seq: Seq(0),
        occupied_by: None,
    }
}

fn spec() -> JobSpec {
    JobSpec {
        name: Text::new("hello").unwrap(),
        version: Text::default(),
        recipe: name("command"),
        parameters: List::default(),
        architecture: name("amd64"),
        suite: Text::default(),
        archives: List::default(),
        arch_scope: ArchScope::All,
        build_profiles: List::default(),
        inputs: List::default(),
        outputs: List::default(),
        environment: List::default(),
        secrets: List::default(),
        network: Network::None,
        limits: Limits::default(),
        tags: List::default(),
        rung: Rung::Process,
        virtualized: false,
        owner: name("kim"),
        private: false,
        priority: 0,
        retries: 0,
        notify: List::default(),
    }
}
