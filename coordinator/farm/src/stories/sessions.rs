//! Sessions: who may open one, and what two of the same identity mean.

use super::*;
use crate::event::{AgentAct, BuilderAct};
use crate::record::AgentStanding;

#[test]
fn an_unknown_key_may_only_join() {
    let mut world = World::new();
    let mut host = world.host(1);
    host.key = KeyHash([9; 32]);
    assert_eq!(world.hello(&mut host), Some(CloseCode::UnknownKey));
}

#[test]
fn no_common_version_ends_the_conversation() {
    let mut world = World::new();
    let mut host = world.host(1);
    host.hello.version_min = 9;
    host.hello.version_max = 9;
    assert_eq!(world.hello(&mut host), Some(CloseCode::Version));
}

#[test]
fn a_hello_may_not_widen_what_was_granted() {
    let mut world = World::new();
    let token = world.token(
        1,
        Envelope {
            names: List::new(vec![name("b*")]).unwrap(),
            architectures: List::new(vec![name("amd64")]).unwrap(),
            tags: List::new(vec![name("ssd")]).unwrap(),
            virtualized: Some(false),
        },
    );
    let mut host = world.host(2);
    assert_eq!(world.join(token, 1, SECRET), CloseCode::Done);
    host.key = KeyHash([1; 32]);
    host.builders = vec![builder("b1")];
    let widened: [fn(&mut HelloBuilder); 4] = [
        |b| b.name = name("c1"),
        |b| b.architectures = List::new(vec![name("riscv64")]).unwrap(),
        |b| b.open_tags = List::new(vec![name("gpu")]).unwrap(),
        |b| b.virtualized = true,
    ];
    for widen in widened {
        let mut wide = host.clone();
        widen(&mut wide.builders[0]);
        assert_eq!(world.hello(&mut wide), Some(CloseCode::Envelope));
    }
    assert_eq!(world.hello(&mut host), None);
}

#[test]
fn a_token_for_one_name_grants_just_that_name() {
    let mut world = World::new();
    let names = List::new(vec![name("b1")]).unwrap();
    let token = world.token(
        1,
        Envelope {
            names,
            ..Envelope::default()
        },
    );
    let mut host = world.host(2);
    assert_eq!(world.join(token, 1, SECRET), CloseCode::Done);
    host.key = KeyHash([1; 32]);
    host.builders = vec![builder("b12")];
    assert_eq!(world.hello(&mut host), Some(CloseCode::Envelope));
    host.builders = vec![builder("b1")];
    assert_eq!(world.hello(&mut host), None);
}

#[test]
fn a_hello_that_contradicts_itself_is_refused() {
    let mut world = World::new();
    let mut host = world.host(1);
    host.builders.push(builder("b1"));
    for wrong in ["b1", ""] {
        host.builders[1].index = BuilderIndex(1);
        host.builders[1].name = name(wrong);
        assert_eq!(world.hello(&mut host), Some(CloseCode::BadHello), "a name");
    }
    host.builders[1] = builder("b2");
    assert_eq!(
        world.hello(&mut host),
        Some(CloseCode::BadHello),
        "one index twice"
    );
    host.builders[1].index = BuilderIndex(1);
    host.builders[1].reset_scope = ResetScope::Host;
    assert_eq!(
        world.hello(&mut host),
        Some(CloseCode::BadHello),
        "not alone"
    );
    host.builders[1].reset_scope = ResetScope::Guest;
    for (builders, attempts) in [(1, 0), (2, 1)] {
        let mut hello = host.hello.clone();
        (hello.builders, hello.attempts) = (builders, attempts);
        let conn = world.conn();
        world.handle(Event::Hello {
            conn,
            key: host.key,
            address: host.address.clone(),
            hello: Box::new(hello),
            builders: host.builders.clone(),
            attempts: Vec::new(),
        });
        assert_eq!(world.close_code(), Some(CloseCode::BadHello), "a count");
    }
    assert_eq!(world.hello(&mut host), None);
}

#[test]
fn an_agent_may_have_as_many_builders_as_the_farm_allows() {
    let mut settings = Settings::default();
    settings.limits.builders_per_agent = 2;
    let mut world = World::with(settings);
    let mut host = world.host(1);
    for (index, allowed) in [(1, true), (2, false), (3, false)] {
        host.builders.push(HelloBuilder {
            index: BuilderIndex(index),
            ..builder(&format!("more-{index}"))
        });
        let refused = (!allowed).then_some(CloseCode::BadHello);
        assert_eq!(world.hello(&mut host), refused, "{} builders", index + 1);
    }
}

#[test]
fn a_builders_name_belongs_to_one_agent() {
    let mut world = World::new();
    world.ready(1);
    let mut other = world.host(2);
    other.builders = vec![builder("b1")];
    assert_eq!(world.hello(&mut other), Some(CloseCode::NameTaken));
}

/// An agent with two builders, both proved clean.
fn with_two_builders(world: &mut World) -> Host {
    let mut host = world.host(1);
    let second = HelloBuilder {
        index: BuilderIndex(1),
        ..builder("b2")
    };
    host.builders.push(second);
    world.hello(&mut host);
    for frame in world.sent() {
        let CoordinatorFrame::Reset(order) = frame else {
            continue;
        };
        let clean = Clean {
            builder: order.builder,
            seq: Seq(1),
            nonce: order.nonce,
            reset_ms: 1,
            probe_ms: 1,
        };
        world.report(&host, AgentFrame::Clean(clean));
    }
    for builder in &mut host.builders {
        builder.last_seq = Seq(1);
    }
    host
}

#[test]
fn a_builder_that_its_agent_shows_no_more_is_away() {
    let mut world = World::new();
    let mut host = with_two_builders(&mut world);
    host.builders.pop();
    world.hello(&mut host);
    world.submit(spec("one"));
    assert_eq!(world.offers().len(), 1, "the other is there");
    let job = world.submit(spec("two"));
    let Ok(Reply::Explained { explanation, .. }) = world.ask(Command::Explain { job }) else {
        panic!("refused");
    };
    let summary = explanation.unwrap().summary;
    assert!(summary.contains("1 offline"), "{summary}");
}

#[test]
fn the_other_builders_of_an_agent_outlive_a_removal() {
    let mut world = World::new();
    let mut host = with_two_builders(&mut world);
    let gone = world.record(&host).id;
    let act = BuilderAct::Remove { abandon: false };
    let why = Text::default();
    let builder = gone;
    world.ask(Command::Builder { builder, act, why }).unwrap();
    let job = world.submit(spec("hello"));
    let attempt = world.offered(&host);
    assert_eq!(attempt.job, job);
    world.run(&mut host, attempt, Outcome::Succeeded);
    let order = world.reset_order().unwrap();
    let mut clean = Clean {
        builder: BuilderIndex(1),
        seq: Seq(2),
        nonce: order,
        reset_ms: 1,
        probe_ms: 1,
    };
    world.report(&host, AgentFrame::Clean(clean.clone()));
    world.submit(spec("next"));
    assert_eq!(world.offers().len(), 1);
    clean.builder = BuilderIndex(0);
    world.report(&host, AgentFrame::Clean(clean));
    assert_eq!(world.store.kinds().last(), Some(&LedgerKind::StaleReport));
}

#[test]
fn a_reconnect_replaces_the_old_session() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let old = host.conn;
    assert_eq!(world.hello(&mut host), None);
    assert!(world.said.iter().any(|effect| matches!(
        effect,
        Effect::Close { conn, code: CloseCode::Replaced, .. } if *conn == old
    )));
    world.handle(Event::Closed { conn: old });
    world.submit(spec("hello"));
    assert_eq!(
        world.offered(&host).number,
        1,
        "the old end is not the new one's"
    );
}

#[test]
fn two_machines_with_one_key_get_nothing_new() {
    let mut world = World::new();
    let mut original = world.ready(1);
    let attempt = world.running(&mut original, "hello");
    let mut clone = original.clone();
    clone.hello.boot = BootId([77; 16]);
    clone.hello.previous_session = None;
    clone.held.clear();
    clone.address = Text::new("10.9.9.9").unwrap();
    assert_eq!(world.hello(&mut clone), Some(CloseCode::Clone));
    let entry = world.store.ledger.last().unwrap();
    assert_eq!(entry.kind, LedgerKind::AgentFrozen);
    assert!(
        entry.why.contains("10.0.0.1") && entry.why.contains("10.9.9.9"),
        "{entry:?}"
    );
    world.submit(spec("more"));
    world.end(&mut original, attempt, Outcome::Succeeded);
    world.seal(&mut original, attempt);
    let order = world.reset_order().unwrap();
    world.deliver(attempt);
    assert_eq!(
        world.verdict(attempt.job),
        Some(Verdict::Succeeded),
        "it finishes"
    );
    world.prove(&mut original, order);
    assert!(world.offers().is_empty(), "and gets nothing new");
    let agent = world.store.agents.values().next().unwrap();
    assert_eq!(agent.standing, AgentStanding::Frozen);
    let id = agent.id;
    world
        .ask(Command::Agent {
            agent: id,
            act: AgentAct::Approve,
            why: Text::default(),
        })
        .unwrap();
    assert_eq!(
        world.close_code(),
        Some(CloseCode::Done),
        "what was passed over is said again at the next Welcome"
    );
    world.hello(&mut original);
    assert_eq!(world.offers().len(), 1);
}

#[test]
fn a_machine_that_rebooted_quickly_is_no_clone_and_its_double_is() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let mut double = host.clone();
    host.hello.boot = BootId([55; 16]);
    host.hello.incarnation += 1;
    assert_eq!(world.hello(&mut host), None, "it continues its own session");
    assert_eq!(world.hello(&mut double), Some(CloseCode::Clone));
}

#[test]
fn another_boot_that_does_not_go_on_from_the_session_is_another_machine() {
    let odd: [fn(&mut Hello); 2] = [
        |hello| hello.previous_session = None,
        |hello| hello.incarnation -= 1,
    ];
    for make_odd in odd {
        let mut world = World::new();
        let mut host = world.ready(1);
        host.hello.boot = BootId([55; 16]);
        host.hello.incarnation += 1;
        make_odd(&mut host.hello);
        assert_eq!(world.hello(&mut host), Some(CloseCode::Clone));
    }
}

#[test]
fn another_spool_at_one_boot_is_a_second_agent_on_that_machine() {
    let mut world = World::new();
    let mut host = world.ready(1);
    host.hello.spool = SpoolId([88; 16]);
    assert_eq!(world.hello(&mut host), Some(CloseCode::Clone));
}

#[test]
fn a_host_that_its_reset_brings_back_without_a_memory_is_no_clone() {
    let mut world = World::new();
    let mut host = world.host(1);
    host.builders[0].reset_scope = ResetScope::Host;
    let image = host.hello.clone();
    world.hello(&mut host);
    assert!(world.reset_order().is_some());
    host.hello = Hello {
        boot: BootId([50; 16]),
        spool: SpoolId([88; 16]),
        ..image
    };
    assert_eq!(world.hello(&mut host), None);
}

#[test]
fn a_parked_event_freezes_its_agent() {
    let mut world = World::new();
    let host = world.ready(1);
    world.handle(Event::Parked {
        key: host.key,
        what: Text::new("report 7").unwrap(),
    });
    world.submit(spec("hello"));
    assert!(world.offers().is_empty());
    assert!(world.store.kinds().contains(&LedgerKind::EventParked));
}

#[test]
fn reports_on_a_replaced_connection_are_not_taken() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    let old = host.clone();
    world.hello(&mut host);
    let mut late = old;
    world.end(&mut late, attempt, failed());
    assert_eq!(world.close_code(), Some(CloseCode::Replaced));
    assert_eq!(world.farm.jobs[&attempt.job].live().unwrap().acked, Seq(2));
}
