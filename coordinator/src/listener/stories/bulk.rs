//! Bytes through the bulk door.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use farmbell_protocol::bulk::{
    BlobOpen, BulkHello, BulkRefusal, BulkReply, BulkRequest, LOG_DATA_MAX, LogOpen,
};
use farmbell_protocol::client::bulk::{Bulk, BulkError, Cut, LogGrowth};
use farmbell_protocol::client::dial::dial;
use farmbell_protocol::client::framed::{FrameReceiver, FrameSender};
use farmbell_protocol::client::quic::{BulkTuning, Profile};
use farmbell_protocol::client::session::{LinkState, Linked};
use farmbell_protocol::client::transport::Connection;
use farmbell_protocol::digest::{CHUNK_BYTES, ChunkList, ChunkListBuilder};
use farmbell_protocol::id::SessionId;
use farmbell_protocol::version::CloseCode;
use tokio::sync::watch;

use super::{Agent, World};

fn content(chunks: usize) -> (Vec<u8>, ChunkList) {
    let chunk = usize::try_from(CHUNK_BYTES).unwrap();
    let bytes: Vec<u8> = (0..chunks * chunk + 77)
        .map(|i| u8::try_from(i * 131 % 251).unwrap())
        .collect();
    let mut list = ChunkListBuilder::new();
    for piece in bytes.chunks(chunk) {
        list.push(piece);
    }
    (bytes, list.finish())
}

struct Door {
    send: FrameSender<BulkRequest>,
    receive: FrameReceiver<BulkReply>,
}

impl Door {
    async fn stream(connection: &Connection, first: impl Into<BulkRequest>) -> Self {
        let (send, receive) = connection.open().await.unwrap();
        let mut door = Self {
            send: FrameSender::new(send),
            receive: FrameReceiver::new(receive),
        };
        door.send.send(first.into()).await.unwrap();
        door
    }

    async fn reply(&mut self) -> BulkReply {
        self.receive.expect_next().await.unwrap()
    }
}

/// A bulk connection of the agent's session.
async fn entered(world: &World, agent: &Agent) -> Connection {
    let connection = dialled(world, agent).await;
    let hello = BulkHello {
        session: agent.welcome.session,
        ticket: agent.welcome.ticket,
    };
    let mut door = Door::stream(&connection, hello).await;
    assert!(matches!(door.reply().await, BulkReply::BulkReady(_)));
    connection
}

async fn dialled(world: &World, agent: &Agent) -> Connection {
    let profile = Profile::Bulk(BulkTuning::default());
    dial(&world.bulk, &agent.identity, &[world.key], profile)
        .await
        .unwrap()
}

/// The transfers of the client, linked to the agent's session.
fn client(world: &World, agent: &Agent) -> (Bulk, watch::Sender<LinkState>) {
    let linked = Linked {
        welcome: agent.welcome.clone(),
        bulk_address: world.bulk.clone(),
        pins: vec![world.key],
    };
    let (state, link) = watch::channel(LinkState::Linked(Arc::new(linked)));
    let identity = Arc::clone(&agent.identity);
    let bulk = Bulk::start(identity, link, BulkTuning::default()).unwrap();
    (bulk, state)
}

#[tokio::test]
async fn after_a_cut_at_most_a_window_and_a_chunk_are_sent_again() {
    let world = World::start().await;
    let (mut agent, _) = Agent::linked(&world, "agent").await;
    world.submit().await;
    let attempt = agent.running().await;
    let (bytes, list) = content(6);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();

    let connection = entered(&world, &agent).await;
    let open = BlobOpen {
        attempt,
        digest: list.root(),
        length: list.length(),
    };
    let mut door = Door::stream(&connection, open).await;
    let BulkReply::BlobHave(have) = door.reply().await else {
        panic!("no BlobHave")
    };
    assert!(have.chunks == 0 && have.want_nodes);
    let cut = 3 * usize::try_from(CHUNK_BYTES).unwrap() + 4711;
    let raw = door.send.raw();
    raw.send(list.nodes().as_flattened()).await.unwrap();
    raw.send(&bytes[..cut]).await.unwrap();
    let sent = (list.nodes().len() * 32 + cut) as u64;
    while world.counters.blob_bytes.load(Relaxed) < sent {
        tokio::task::yield_now().await;
    }
    connection.close(CloseCode::Done, "cut");

    let (bulk, _link) = client(&world, &agent);
    let path = file.path().to_owned();
    bulk.send_blob(attempt, path, list.clone()).await.unwrap();
    assert_eq!(
        world.blobs.contains(list.root()).unwrap(),
        Some(list.length())
    );
    let window = u64::from(BulkTuning::default().connection_window_bytes);
    let received = world.counters.blob_bytes.load(Relaxed);
    let nodes = 2 * 32 * list.nodes().len() as u64;
    assert!(
        received <= list.length() + nodes + window + CHUNK_BYTES,
        "{received} bytes came for {}",
        list.length()
    );
}

#[tokio::test]
async fn a_new_session_is_not_kept_waiting_by_the_old_one_s_dead_address() {
    let world = World::start().await;
    let (mut agent, _) = Agent::linked(&world, "agent").await;
    world.submit().await;
    let attempt = agent.running().await;
    let (bytes, list) = content(1);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    // As a host whose coordinator is gone: it hears and never answers.
    let dead = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (bulk, link) = client(&world, &agent);
    let LinkState::Linked(here) = link.borrow().clone() else {
        panic!("it is linked")
    };
    let mut before = (*here).clone();
    before.bulk_address = dead.local_addr().unwrap().to_string();
    before.welcome.session = SessionId(before.welcome.session.0 - 1);
    link.send_replace(LinkState::Linked(Arc::new(before)));

    let path = file.path().to_owned();
    let sending = bulk.send_blob(attempt, path, list.clone());
    let mut datagram = [0; 2048];
    let dialled = async {
        dead.recv(&mut datagram).await.unwrap();
        link.send_replace(LinkState::Linked(here));
    };
    let (sent, ()) = tokio::join!(sending, dialled);
    sent.unwrap();
    // A farewell may come, or one repeat; who goes on dialling to the end of
    // its patience asks twice as often at least.
    let mut asked_again = 0;
    while dead.try_recv(&mut datagram).is_ok() {
        asked_again += 1;
    }
    assert!(asked_again < 4, "asked {asked_again} times more");
}

#[tokio::test]
async fn a_corrupt_chunk_is_refused_and_nothing_of_it_is_kept() {
    let world = World::start().await;
    let (mut agent, _) = Agent::linked(&world, "agent").await;
    world.submit().await;
    let attempt = agent.running().await;
    let (mut bytes, list) = content(2);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    let (bulk, _link) = client(&world, &agent);
    let path = file.path().to_owned();
    let refused = bulk.send_blob(attempt, path, list.clone()).await;
    let corrupt = BulkRefusal::Corrupt;
    assert!(
        matches!(&refused, Err(BulkError::Refused { refusal, .. }) if *refusal == corrupt),
        "{refused:?}"
    );
    assert_eq!(world.blobs.contains(list.root()).unwrap(), None);
}

#[tokio::test]
async fn a_blob_is_sent_once_by_each_who_wants_it_counted() {
    let world = World::start().await;
    let (bytes, list) = content(2);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    let whole = list.length() + 32 * list.nodes().len() as u64;
    for (named, wanted) in [("first", whole), ("second", 2 * whole)] {
        let (mut agent, _) = Agent::linked(&world, named).await;
        world.submit().await;
        let attempt = agent.running().await;
        let (bulk, _link) = client(&world, &agent);
        for _ in 0..2 {
            let path = file.path().to_owned();
            bulk.send_blob(attempt, path, list.clone()).await.unwrap();
        }
        let received = world.counters.blob_bytes.load(Relaxed);
        assert_eq!(received, wanted, "after the {named} agent");
    }
}

#[tokio::test]
async fn a_log_arrives_whole_with_its_cuts_in_their_places() {
    let world = World::start().await;
    let (mut agent, _) = Agent::linked(&world, "agent").await;
    world.submit().await;
    let attempt = agent.running().await;
    let text = b"line of a log\n".repeat(3 * LOG_DATA_MAX / 10);
    let length = text.len() as u64;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &text).unwrap();
    let cuts = vec![
        // Told only when the bytes behind it have gone already.
        Cut {
            offset: 20,
            dropped: 5,
        },
        Cut {
            offset: 100,
            dropped: 7,
        },
        Cut {
            offset: length,
            dropped: 9,
        },
    ];
    let (grow, growth) = watch::channel(LogGrowth {
        length: 50,
        ..LogGrowth::default()
    });
    let (bulk, _link) = client(&world, &agent);
    let path = file.path().to_owned();
    let sending = bulk.send_log(attempt, path, growth);
    let growing = async {
        let mut follow = world.logs.follow(attempt, 0).unwrap();
        assert_eq!(follow.next().await.unwrap().unwrap(), text[..50]);
        grow.send_replace(LogGrowth {
            length,
            cuts: cuts.clone(),
            ended: true,
        });
    };
    let (sent, ()) = tokio::join!(sending, growing);
    sent.unwrap();
    let extent = world.logs.extent(attempt).unwrap();
    assert_eq!((extent.length, extent.closed), (length, true));
    assert_eq!(world.logs.read_range(attempt, 0, text.len()).unwrap(), text);
    let stored = world.logs.cuts(attempt).unwrap();
    let stored: Vec<_> = stored.iter().map(|cut| (cut.offset, cut.dropped)).collect();
    assert_eq!(stored, [(20, 5), (100, 7), (length, 9)]);
}

#[tokio::test]
async fn a_log_that_a_power_cut_shortened_or_took_is_closed_as_it_arrived() {
    let world = World::start().await;
    let (mut agent, _) = Agent::linked(&world, "agent").await;
    world.submit().await;
    let attempt = agent.running().await;
    world.logs.append(attempt, 0, b"arrived before").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let shorter = directory.path().join("shorter");
    std::fs::write(&shorter, b"arrived").unwrap();
    let (bulk, _link) = client(&world, &agent);
    for (path, length) in [(shorter, 7), (directory.path().join("none"), 0)] {
        let (_grow, growth) = watch::channel(LogGrowth {
            length,
            cuts: Vec::new(),
            ended: true,
        });
        bulk.send_log(attempt, path, growth).await.unwrap();
        let extent = world.logs.extent(attempt).unwrap();
        assert_eq!((extent.length, extent.closed), (14, true));
    }
}

#[tokio::test]
async fn without_the_ticket_of_a_live_session_nobody_enters() {
    let world = World::start().await;
    let (agent, _) = Agent::linked(&world, "agent").await;
    let connection = dialled(&world, &agent).await;
    let hello = BulkHello {
        session: agent.welcome.session,
        ticket: [0; 16],
    };
    let _door = Door::stream(&connection, hello).await;
    let code = connection.closed().await.code();
    assert_eq!(code, Some(CloseCode::BadTicket));
}

#[tokio::test]
async fn a_newer_bulk_connection_takes_the_older_ones_place() {
    let world = World::start().await;
    let (agent, _) = Agent::linked(&world, "agent").await;
    let older = entered(&world, &agent).await;
    let _newer = entered(&world, &agent).await;
    assert_eq!(older.closed().await.code(), Some(CloseCode::Replaced));
}

#[tokio::test]
async fn anothers_attempt_is_not_served() {
    let world = World::start().await;
    let (mut owner, _) = Agent::linked(&world, "owner").await;
    world.submit().await;
    let attempt = owner.running().await;
    let (stranger, _) = Agent::linked(&world, "stranger").await;
    let connection = entered(&world, &stranger).await;
    let mut door = Door::stream(&connection, LogOpen { attempt }).await;
    let BulkReply::BulkRefused(refused) = door.reply().await else {
        panic!("served")
    };
    assert_eq!(refused.refusal, BulkRefusal::NotYours);
}

#[tokio::test]
async fn a_revoked_agents_bulk_connection_ends_too() {
    let world = World::start().await;
    let (agent, id) = Agent::linked(&world, "agent").await;
    let connection = entered(&world, &agent).await;
    world.revoke(id).await;
    assert_eq!(connection.closed().await.code(), Some(CloseCode::Revoked));
}
