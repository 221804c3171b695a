//! The agent's side of a session against a coordinator that says what a story
//! wants it to say, over real connections.

use std::net::Ipv4Addr;

use super::*;
use crate::agent_to_coordinator::{AttemptPhase, Hello, ResetScope};
use crate::bounded::Text;
use crate::client::quic::{Listener, ServerKeys};
use crate::coordinator_to_agent::{Standing, WelcomeAttempt, WelcomeEnd};
use crate::id::{AgentId, AttemptId, JobId, Seq};
use crate::spec::Rung;
use crate::version::{CURRENT, Features};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Of a coordinator's lives the third; `random` as a restore may have it.
const SEEN: Epoch = Epoch {
    counter: 3,
    random: 9,
};

/// The coordinator.
struct Coordinating {
    listener: Listener,
}

/// One connection as the coordinator has it, after the agent's Hello.
struct Called {
    hello: Hello,
    attempts: Vec<HelloAttempt>,
    send: FrameSender<CoordinatorFrame>,
    connection: Connection,
}

impl Coordinating {
    fn with(identity: &Identity) -> Self {
        let (here, keys) = ((Ipv4Addr::LOCALHOST, 0).into(), ServerKeys::ephemeral());
        let listener = Listener::bind(here, identity, Profile::Control, &keys).unwrap();
        Self { listener }
    }

    async fn called(&self) -> Called {
        let incoming = self.listener.accept().await.unwrap();
        let connection = incoming.accept().await.unwrap();
        let (send, receive) = connection.accept().await.unwrap();
        let mut receive = FrameReceiver::<AgentFrame>::new(receive);
        let (mut hello, mut attempts) = (None, Vec::new());
        loop {
            let frame = receive.expect_next().await.unwrap();
            if let AgentFrame::Hello(said) = frame {
                hello = Some(said);
            } else if let AgentFrame::HelloAttempt(held) = frame {
                attempts.push(held);
            } else if matches!(frame, AgentFrame::HelloEnd(_)) {
                break;
            }
        }
        Called {
            hello: hello.unwrap(),
            attempts,
            send: FrameSender::new(send),
            connection,
        }
    }
}

impl Called {
    async fn welcome(&mut self, epoch: Epoch) {
        self.send.queue(
            &Welcome {
                version: CURRENT,
                features: Features::ALL,
                agent: AgentId(1),
                session: SessionId(7),
                epoch,
                bulk: Text::default(),
                ticket: [0; 16],
                successors: List::default(),
            }
            .into(),
        );
        for held in &self.attempts {
            let (attempt, acked) = (held.attempt, held.last_seq);
            let standing = Standing::Continue { acked };
            self.send
                .queue(&WelcomeAttempt { attempt, standing }.into());
        }
        self.send.queue(&WelcomeEnd {}.into());
        self.send.flush().await.unwrap();
    }
}

fn running() -> HelloAttempt {
    HelloAttempt {
        builder: BuilderIndex(0),
        attempt: AttemptId {
            job: JobId(1),
            generation: 1,
            number: 1,
            nonce: 5,
        },
        phase: AttemptPhase::Running,
        last_seq: Seq(2),
    }
}

fn builder(index: BuilderIndex) -> HelloBuilder {
    HelloBuilder {
        index,
        name: Name::cut("b1"),
        recipes: List::default(),
        architectures: List::default(),
        open_tags: List::default(),
        restricted_tags: List::default(),
        virtualized: false,
        rung: Rung::Process,
        memory_bytes: 0,
        disk_bytes: 0,
        reset_scope: ResetScope::Workspace,
        spool_survives_reset: false,
        last_seq: Seq(2),
        occupied_by: Some(running().attempt),
    }
}

/// A builder that runs something: all that is said to it but Hellos' questions.
async fn build(mut said: mpsc::Receiver<ToBuilder>, heard: mpsc::Sender<ToBuilder>) {
    while let Some(message) = said.recv().await {
        if let ToBuilder::Hello { index, answer } = message {
            answer.send((builder(index), vec![running()])).unwrap();
        } else {
            heard.send(message).await.unwrap();
        }
    }
}

fn settings() -> Settings {
    Settings {
        identity: Arc::new(Identity::ephemeral().unwrap()),
        software: Name::cut("story"),
        boot: BootId([1; 16]),
        incarnation: 1,
        spool: SpoolId([1; 16]),
        facts: List::default(),
        patience: Patience::KeepAsking,
    }
}

#[tokio::test]
async fn a_lower_epoch_is_refused_by_name_and_the_build_goes_on() {
    let identity = Identity::ephemeral().unwrap();
    let coordinating = Coordinating::with(&identity);
    let coordinator = Coordinator {
        address: coordinating.listener.local_address().unwrap().to_string(),
        pins: vec![identity.key_hash()],
        epoch: SEEN,
        session: None,
    };
    let (to_builder, said) = mpsc::channel(BUILDER_QUEUE);
    let (heard, mut hears) = mpsc::channel(BUILDER_QUEUE);
    let (state, mut link) = watch::channel(LinkState::Dialing);
    tokio::spawn(build(said, heard));
    let never = std::future::pending();
    let memory = Arc::new(Forgetful);
    tokio::spawn(keep(
        settings(),
        coordinator,
        memory,
        vec![to_builder],
        state,
        never,
    ));

    let older = Epoch { counter: 2, ..SEEN };
    let mut called = coordinating.called().await;
    called.welcome(older).await;
    let closed = tokio::time::timeout(PATIENCE, called.connection.closed()).await;
    let Ok(Closed::ByPeer { code, reason }) = closed else {
        panic!("it is not refused by name: {closed:?}")
    };
    assert_eq!(code, CloseCode::LowerEpoch);
    for part in [
        SEEN.to_string(),
        older.to_string(),
        "builds go on".to_owned(),
    ] {
        assert!(reason.contains(&part), "{reason}");
    }
    link.wait_for(|link| {
        matches!(link, LinkState::Waiting { code: Some(code), .. } if *code == CloseCode::LowerEpoch)
    })
    .await
    .unwrap();

    // It dials again with all it had: nothing was told to its builder, nothing
    // of the lower epoch was remembered.
    let mut called = coordinating.called().await;
    assert_eq!(called.hello.epoch, SEEN);
    assert_eq!(called.hello.previous_session, None);
    assert_eq!(called.attempts, [running()]);
    assert!(hears.try_recv().is_err(), "the builder was told something");
    called.welcome(Epoch { counter: 4, ..SEEN }).await;
    let told = hears.recv().await;
    assert!(matches!(told, Some(ToBuilder::Linked { .. })), "{told:?}");
}
