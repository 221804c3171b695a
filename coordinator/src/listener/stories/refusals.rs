//! Who is turned away, under which name, and that the farm goes on.

use farmbell_farm::record::Envelope;
use farmbell_protocol::agent_to_coordinator::{AgentFrame, Hello, HelloEnd, Started};
use farmbell_protocol::bounded::List;
use farmbell_protocol::client::dial::{DialError, dial};
use farmbell_protocol::client::identity::Identity;
use farmbell_protocol::client::join::JoinError;
use farmbell_protocol::client::quic::Profile;
use farmbell_protocol::client::token::Token;
use farmbell_protocol::codec::FrameSet;
use farmbell_protocol::id::{AttemptId, JobId, KeyHash, Seq};
use farmbell_protocol::version::CloseCode;

use super::{Agent, World, builder, hello, name};

fn new_key() -> Identity {
    Identity::ephemeral().unwrap()
}

async fn join_code(world: &World, token: &Token) -> CloseCode {
    let refused = world.join_with(token, &new_key(), "late").await;
    let Err(JoinError::Refused { code, .. }) = refused else {
        panic!("{refused:?}")
    };
    code
}

#[tokio::test]
async fn a_bad_token_is_refused_by_name() {
    let world = World::start().await;
    let good = world.token(1, 60_000, Envelope::default()).await;
    let forged = Token {
        secret: [0; 16],
        ..good.clone()
    };
    assert_eq!(join_code(&world, &forged).await, CloseCode::TokenWrong);
    world.join_with(&good, &new_key(), "first").await.unwrap();
    assert_eq!(join_code(&world, &good).await, CloseCode::TokenUsed);
    let counted = world.token(2, 60_000, Envelope::default()).await;
    for agent in ["second", "third"] {
        world.join_with(&counted, &new_key(), agent).await.unwrap();
    }
    assert_eq!(join_code(&world, &counted).await, CloseCode::TokenUsed);
    let expired = world.token(1, 1, Envelope::default()).await;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    assert_eq!(join_code(&world, &expired).await, CloseCode::TokenExpired);
}

#[tokio::test]
async fn the_same_key_may_ask_again_with_its_token() {
    let world = World::start().await;
    let token = world.token(1, 60_000, Envelope::default()).await;
    let key = new_key();
    let first = world.join_with(&token, &key, "agent").await.unwrap();
    let again = world.join_with(&token, &key, "agent").await.unwrap();
    assert_eq!(first, again);
}

#[tokio::test]
async fn what_is_not_a_conversation_is_refused_by_name() {
    let world = World::start().await;
    let key = new_key();
    world.join(&key, "agent").await;
    let envelope = Envelope {
        architectures: List::new(vec![name("riscv64")]).unwrap(),
        ..Envelope::default()
    };
    let narrow = new_key();
    let token = world.token(1, 60_000, envelope).await;
    world.join_with(&token, &narrow, "narrow").await.unwrap();

    let whole = || vec![hello(1), builder("b").into(), HelloEnd {}.into()];
    let report = AgentFrame::from(Started {
        attempt: AttemptId {
            job: JobId(1),
            generation: 1,
            number: 1,
            nonce: 1,
        },
        seq: Seq(1),
    });
    let mut future = hello(0);
    if let AgentFrame::Hello(Hello {
        version_min,
        version_max,
        ..
    }) = &mut future
    {
        (*version_min, *version_max) = (900, 901);
    }
    let table = [
        (new_key(), whole(), CloseCode::UnknownKey),
        (narrow, whole(), CloseCode::Envelope),
        (
            new_key(),
            vec![future, HelloEnd {}.into()],
            CloseCode::Version,
        ),
        (
            new_key(),
            vec![hello(2), builder("b").into(), HelloEnd {}.into()],
            CloseCode::BadHello,
        ),
        (
            new_key(),
            vec![hello(0), builder("b").into()],
            CloseCode::BadHello,
        ),
        (new_key(), vec![report.clone()], CloseCode::OutOfPlace),
        (key, vec![hello(1), report], CloseCode::OutOfPlace),
    ];
    for (key, frames, wanted) in table {
        let kinds: Vec<_> = frames.iter().map(FrameSet::kind).collect();
        let code = world.refused(&key, &frames).await;
        assert_eq!(code, Some(wanted), "{kinds:04x?}");
    }
    Agent::linked(&world, "after-all-that").await;
}

#[tokio::test]
async fn bytes_that_are_no_frames_are_refused_by_name() {
    let world = World::start().await;
    let garbage: &[u8] = &[3, 0, 0, 0, 0x02, 0x01, 1, 0xff, 0xff, 0xff];
    let four_gib: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0x02, 0x01, 1];
    let critical: &[u8] = &[0, 0, 0, 0, 0xee, 0xee, 1];
    for (bytes, wanted) in [
        (garbage, CloseCode::Malformed),
        (four_gib, CloseCode::TooLong),
        (critical, CloseCode::UnknownCritical),
    ] {
        let connection = world.dial(&new_key()).await;
        let (mut send, _receive) = connection.open().await.unwrap();
        send.send(bytes).await.unwrap();
        assert_eq!(connection.closed().await.code(), Some(wanted));
    }
    Agent::linked(&world, "after-all-that").await;
}

#[tokio::test]
async fn a_kind_of_the_future_is_passed_over() {
    let world = World::start().await;
    let connection = world.dial(&new_key()).await;
    let (mut send, _receive) = connection.open().await.unwrap();
    let mut bytes = vec![2, 0, 0, 0, 0xee, 0xee, 0, 7, 7];
    hello(0).encode_into(&mut bytes);
    AgentFrame::from(HelloEnd {}).encode_into(&mut bytes);
    send.send(&bytes).await.unwrap();
    let code = connection.closed().await.code();
    assert_eq!(
        code,
        Some(CloseCode::UnknownKey),
        "it got as far as the farm"
    );
}

#[tokio::test]
async fn another_coordinator_is_not_believed() {
    let world = World::start().await;
    let pins = [KeyHash([9; 32])];
    let refused = dial(&world.control, &new_key(), &pins, Profile::Control).await;
    assert!(
        matches!(refused, Err(DialError::OtherKey { got, .. }) if got == world.key),
        "{refused:?}"
    );
}

#[tokio::test]
async fn where_nothing_listens_is_said_at_once() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    drop(socket);
    let refused = dial(&address, &new_key(), &[], Profile::Control).await;
    assert!(
        matches!(refused, Err(DialError::NothingListens { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_revoked_agent_is_cut_off_at_once() {
    let world = World::start().await;
    let (mut agent, id) = Agent::linked(&world, "agent").await;
    world.revoke(id).await;
    assert_eq!(agent.ends().await.code(), Some(CloseCode::Revoked));
    let again = world
        .refused(
            &agent.identity,
            &[hello(1), builder("agent").into(), HelloEnd {}.into()],
        )
        .await;
    assert_eq!(again, Some(CloseCode::Revoked));
}
