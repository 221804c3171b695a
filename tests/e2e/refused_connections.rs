//! Strangers and broken peers: each is refused by name on both sides, within a
//! deadline, and the farm goes on.

use std::time::Duration;

use farmbell_protocol::agent_to_coordinator::{
    AgentFrame, Hello, HelloBuilder, HelloEnd, ResetScope,
};
use farmbell_protocol::bounded::{List, Name, Text};
use farmbell_protocol::client::dial::dial;
use farmbell_protocol::client::framed::FrameSender;
use farmbell_protocol::client::identity::Identity;
use farmbell_protocol::client::join::join;
use farmbell_protocol::client::quic::Profile;
use farmbell_protocol::client::token::Token;
use farmbell_protocol::client::transport::{Closed, Connection};
use farmbell_protocol::codec::{FLAG_CRITICAL, Header};
use farmbell_protocol::id::{BootId, BuilderIndex, Epoch, Seq, SpoolId};
use farmbell_protocol::spec::Rung;
use farmbell_protocol::version::{CURRENT, CloseCode, Features, MIN};
use farmbell_tests::harness::{Agent, BuilderPlan, TestFarm};

/// Nobody may hold a connection open for longer than this without a word.
const REFUSED_WITHIN: Duration = Duration::from_secs(45);

const KIND_OF_HELLO: u16 = 0x0102;

/// A peer that can say anything.
struct Stranger {
    runtime: tokio::runtime::Runtime,
    identity: Identity,
    token: Token,
}

impl Stranger {
    fn at(farm: &TestFarm) -> Self {
        Self::with(&farm.cli().token(&[]))
    }

    fn with(token: &str) -> Self {
        Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            identity: Identity::ephemeral().unwrap(),
            token: token.parse().unwrap(),
        }
    }

    /// Joins properly, to misbehave afterwards.
    fn joined(self, name: &str) -> Self {
        let word = |text| Name::new(text).unwrap();
        let answer = join(&self.identity, &self.token, word(name), word("stranger"));
        self.runtime.block_on(answer).unwrap();
        self
    }

    /// Connects, does something, and tells how the coordinator ended it.
    fn is_refused(&self, act: impl AsyncFnOnce(&Connection)) -> CloseCode {
        let pins = [self.token.coordinator];
        self.runtime.block_on(async {
            let dialled = dial(&self.token.address, &self.identity, &pins, Profile::Control);
            let connection = dialled.await.unwrap();
            act(&connection).await;
            let closed = tokio::time::timeout(REFUSED_WITHIN, connection.closed()).await;
            let closed = closed.expect("it is refused within the deadline");
            let Closed::ByPeer { code, .. } = closed else {
                panic!("not refused by name: {closed}")
            };
            code
        })
    }

    fn says(&self, bytes: &[u8]) -> CloseCode {
        self.is_refused(async |connection| {
            let (mut send, _receive) = connection.open().await.unwrap();
            send.send(bytes).await.unwrap();
            // Kept open: the coordinator has to find the fault, not the end.
            connection.closed().await;
        })
    }

    fn says_frames(&self, frames: &[AgentFrame]) -> CloseCode {
        self.is_refused(async |connection| {
            let (send, _receive) = connection.open().await.unwrap();
            let mut send = FrameSender::<AgentFrame>::new(send);
            for frame in frames {
                send.queue(frame);
            }
            send.flush().await.unwrap();
            connection.closed().await;
        })
    }
}

fn hello(builders: u16) -> Hello {
    Hello {
        version_min: MIN,
        version_max: CURRENT,
        features: Features::default(),
        software: Name::new("stranger").unwrap(),
        boot: BootId([1; 16]),
        incarnation: 1,
        spool: SpoolId([2; 16]),
        epoch: Epoch::default(),
        previous_session: None,
        builders,
        attempts: 0,
        facts: List::default(),
    }
}

fn builder(architecture: &str) -> HelloBuilder {
    let name = |text| Name::new(text).unwrap();
    HelloBuilder {
        index: BuilderIndex(0),
        name: Name::new("wide").unwrap(),
        recipes: List::new(vec![name("command")]).unwrap(),
        architectures: List::new(vec![name(architecture)]).unwrap(),
        open_tags: List::default(),
        restricted_tags: List::default(),
        virtualized: false,
        rung: Rung::Process,
        memory_bytes: 1 << 30,
        disk_bytes: 1 << 30,
        reset_scope: ResetScope::Workspace,
        spool_survives_reset: false,
        last_seq: Seq(0),
        occupied_by: None,
    }
}

/// The refusal has a name in the coordinator's log, and the farm goes on.
fn the_farm_goes_on(farm: &TestFarm, refusals: &[CloseCode]) {
    let log = farm.coordinator.daemon.log();
    for code in refusals {
        assert!(
            log.contains(code.name()),
            "{code} is not in the log:\n{log}"
        );
    }
    let job = farm.cli().submit_script(&[], "true");
    let shown = farm.cli().verdict(&job);
    assert_eq!(shown["job"]["verdict"]["verdict"], "succeeded", "{shown:#}");
}

#[test]
fn a_bad_token_is_refused_by_name() {
    let farm = TestFarm::with_one_builder();
    let joins = |name: &str, token: &str| {
        let builders = [BuilderPlan::named(name)];
        Agent::prepare(farm.binaries(), &farm.file(name), name, &builders).join(token)
    };
    let token = farm.cli().token(&["--uses", "2"]);

    let mut wrong: Token = token.parse().unwrap();
    wrong.secret[0] ^= 1;
    joins("wrong", &wrong.to_string()).fails_naming(&["token-wrong", "farmbell token create"]);
    joins("torn", &token[..token.len() - 1]).fails_naming(&["torn"]);
    joins("first", &token).succeeds();
    joins("second", &token).succeeds();
    joins("third", &token).fails_naming(&["token-used", "farmbell token create"]);
    let late = farm.cli().token(&["--ttl", "1ms"]);
    joins("late", &late).fails_naming(&["token-expired", "farmbell token create"]);
    let lost: Token = farm.cli().token(&[]).parse().unwrap();
    farm.cli()
        .run(&["token", "revoke", &lost.id.to_string()])
        .succeeds();
    joins("finder", &lost.to_string()).fails_naming(&["token-revoked", "farmbell token create"]);
    let another = farm.cli().token(&[]);
    joins("first-again", &another).succeeds();

    the_farm_goes_on(
        &farm,
        &[
            CloseCode::TokenWrong,
            CloseCode::TokenUsed,
            CloseCode::TokenExpired,
            CloseCode::TokenRevoked,
        ],
    );
}

#[test]
fn a_stranger_is_refused_by_name() {
    let farm = TestFarm::with_one_builder();
    let stranger = Stranger::at(&farm);
    let frames = [hello(0).into(), HelloEnd {}.into()];
    assert_eq!(stranger.says_frames(&frames), CloseCode::UnknownKey);
    the_farm_goes_on(&farm, &[CloseCode::UnknownKey]);
}

#[test]
fn a_version_of_the_future_is_refused_by_name() {
    let farm = TestFarm::with_one_builder();
    let stranger = Stranger::at(&farm).joined("future");
    let mut hello = hello(0);
    (hello.version_min, hello.version_max) = (CURRENT + 1, CURRENT + 9);
    let frames = [hello.into(), HelloEnd {}.into()];
    assert_eq!(stranger.says_frames(&frames), CloseCode::Version);
    the_farm_goes_on(&farm, &[CloseCode::Version]);
}

#[test]
fn a_hello_that_widens_its_envelope_is_refused_by_name() {
    let farm = TestFarm::with_one_builder();
    let token = farm.cli().token(&["--arch", "arm64"]);
    let stranger = Stranger::with(&token).joined("wide");
    let frames = [
        hello(1).into(),
        builder("riscv64").into(),
        HelloEnd {}.into(),
    ];
    assert_eq!(stranger.says_frames(&frames), CloseCode::Envelope);
    the_farm_goes_on(&farm, &[CloseCode::Envelope]);
}

#[test]
fn frames_that_are_none_are_refused_by_name() {
    let farm = TestFarm::with_one_builder();
    let stranger = Stranger::at(&farm).joined("broken");

    let header = |length| Header {
        length,
        kind: KIND_OF_HELLO,
        flags: FLAG_CRITICAL,
    };
    let mut garbage = header(600).write().to_vec();
    garbage.extend([0xff; 600]);
    assert_eq!(stranger.says(&garbage), CloseCode::Malformed);
    assert_eq!(stranger.says(&header(u32::MAX).write()), CloseCode::TooLong);
    let unknown = Header {
        length: 0,
        kind: 0x7777,
        flags: FLAG_CRITICAL,
    };
    assert_eq!(stranger.says(&unknown.write()), CloseCode::UnknownCritical);
    let out_of_place = [HelloEnd {}.into()];
    assert_eq!(stranger.says_frames(&out_of_place), CloseCode::OutOfPlace);

    the_farm_goes_on(
        &farm,
        &[
            CloseCode::Malformed,
            CloseCode::TooLong,
            CloseCode::UnknownCritical,
        ],
    );
}

#[test]
fn a_connection_that_says_nothing_is_refused_by_name() {
    let farm = TestFarm::with_one_builder();
    let stranger = Stranger::at(&farm);
    assert_eq!(stranger.is_refused(async |_| {}), CloseCode::Silent);
    // A header that never gets its body is as silent.
    let half = Header {
        length: 100,
        kind: KIND_OF_HELLO,
        flags: FLAG_CRITICAL,
    };
    let code = stranger.says(&half.write());
    assert_eq!(code, CloseCode::Silent);
    the_farm_goes_on(&farm, &[CloseCode::Silent]);
}

/// A text that is no token at all is told from a wrong one before dialling.
#[test]
fn a_text_that_is_no_token_is_refused_here() {
    let directory = tempfile::tempdir().unwrap();
    let binaries = farmbell_tests::harness::Binaries::built();
    let agent = Agent::prepare(&binaries, directory.path(), "a", &[BuilderPlan::named("b")]);
    agent.join("hello").fails_naming(&["farmbell token create"]);
    let address: Text<256> = Text::new("127.0.0.1:1").unwrap();
    let nobody = Token {
        id: 1,
        secret: [0; 16],
        coordinator: farmbell_protocol::id::KeyHash([0; 32]),
        address,
    };
    agent
        .join(&nobody.to_string())
        .fails_naming(&["nothing listens", "127.0.0.1:1"]);
}
