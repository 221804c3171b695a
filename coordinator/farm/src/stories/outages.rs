//! The network is away for hours: the farm and a builder's brain, each by
//! itself, and then together again.

use farmbell_protocol::builder::{
    self, Builder, Effect as Wanted, EndReport, Event as Told, ResetReport, SealReport,
};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn brain() -> Builder {
    let offers = builder("b1");
    Builder::new(builder::Settings {
        name: offers.name,
        recipes: offers.recipes,
        architectures: offers.architectures,
        open_tags: offers.open_tags,
        restricted_tags: offers.restricted_tags,
        virtualized: offers.virtualized,
        rung: offers.rung,
        memory_bytes: offers.memory_bytes,
        disk_bytes: offers.disk_bytes,
        reset_scope: offers.reset_scope,
        spool_survives_reset: offers.spool_survives_reset,
        backlog_max: 2,
        grace: Duration::from_secs(10),
    })
}

/// What the brain says of it.
fn told(world: &World, brain: &mut Builder, event: Told) -> Vec<AgentFrame> {
    let effects = brain.handle(world.now, event);
    effects
        .into_iter()
        .filter_map(|effect| match effect {
            Wanted::Say(frame) => Some(frame),
            _ => None,
        })
        .collect()
}

fn tell(world: &mut World, host: &Host, brain: &mut Builder, event: Told) {
    for frame in told(world, brain, event) {
        world.report(host, frame);
    }
}

/// A session: the farm and the brain learn what the other has. Says what the
/// brain repeats.
fn link(world: &mut World, host: &mut Host, brain: &mut Builder) -> Vec<AgentFrame> {
    let (offers, held) = brain.hello(BuilderIndex(0));
    let attempts: Vec<AttemptId> = held.iter().map(|held| held.attempt).collect();
    (host.builders, host.held) = (vec![offers], held);
    assert_eq!(world.hello(host), None);
    let standings = attempts.into_iter();
    let event = Told::Linked {
        index: BuilderIndex(0),
        acked: host.builders[0].last_seq,
        standings: standings.map(|id| (id, world.standing(id))).collect(),
    };
    told(world, brain, event)
}

fn ended(attempt: AttemptId) -> Told {
    let report = EndReport {
        outcome: Outcome::Succeeded,
        exit: None,
        usage: Usage::default(),
    };
    Told::Ended { attempt, report }
}

fn sealed(attempt: AttemptId) -> Told {
    let report = SealReport {
        manifest: Digest::of(b"manifest"),
        manifest_bytes: 8,
        outputs: 0,
        output_bytes: 0,
        log_bytes: 100,
        outcome: None,
    };
    Told::Sealed { attempt, report }
}

#[test]
fn an_outage_of_hours_delivers_everything_afterwards() {
    let mut world = World::new();
    let (mut host, mut brain) = (world.host(1), brain());
    assert!(link(&mut world, &mut host, &mut brain).is_empty());
    let nonce = world.reset_order().unwrap();
    tell(&mut world, &host, &mut brain, Told::ResetOrdered { nonce });
    let report = ResetReport::Clean {
        reset: Duration::ZERO,
        probe: Duration::ZERO,
    };
    let cleaned = Told::ResetEnded { nonce, report };
    tell(&mut world, &host, &mut brain, cleaned);
    let job = world.submit(spec("hello"));
    let attempt = world.offered(&host);
    let offer = Told::Offer {
        attempt,
        spec: Box::new(spec("hello")),
    };
    tell(&mut world, &host, &mut brain, offer);
    tell(&mut world, &host, &mut brain, Told::Started { attempt });

    world.handle(Event::Closed { conn: host.conn });
    assert!(told(&world, &mut brain, Told::Unlinked).is_empty());
    world.pass(2 * HOUR);
    assert!(world.waits(job), "the farm has given the attempt up");
    assert!(told(&world, &mut brain, ended(attempt)).is_empty());
    assert!(told(&world, &mut brain, sealed(attempt)).is_empty());
    world.pass(3 * HOUR);

    let said = link(&mut world, &mut host, &mut brain);
    assert_eq!(
        world.standing(attempt),
        Standing::Continue { acked: Seq(2) }
    );
    let mut acked = Vec::new();
    let mut expected = Vec::new();
    for frame in said {
        match &frame {
            AgentFrame::Ended(ended) => expected.push(ended.seq),
            AgentFrame::Sealed(sealed) => expected.push(sealed.seq),
            _ => {}
        }
        world.report(&host, frame);
        acked.extend(world.sent().iter().filter_map(|frame| match frame {
            CoordinatorFrame::Ack(ack) => Some(ack.seq),
            _ => None,
        }));
    }
    assert_eq!(
        expected,
        [Seq(3), Seq(4)],
        "what was acknowledged is not repeated"
    );
    assert_eq!(acked, expected);
    world.deliver(attempt);
    assert_eq!(world.verdict(job), Some(Verdict::Succeeded));
    assert_eq!(world.store.attempts.len(), 1, "it was built once");
    let committed = world.sent().iter().any(
        |frame| matches!(frame, CoordinatorFrame::Committed(order) if order.attempt == attempt),
    );
    assert!(committed);
}
