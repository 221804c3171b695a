//! The Welcome: what each side learns of the other, and what is said again.

use super::*;
use crate::effect::{Link, Overview};
use farmbell_protocol::agent_to_coordinator::{Condition, Fact, Fitness};
use farmbell_protocol::id::SessionId;

fn linked(world: &World) -> &str {
    let mut entries = world.store.ledger.iter().rev();
    let entry = entries.find(|entry| entry.kind == LedgerKind::AgentLinked);
    entry.unwrap().why.as_str()
}

fn overview(world: &mut World) -> Overview {
    match world.ask(Command::Overview) {
        Ok(Reply::Overview(overview)) => *overview,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_hello_says_of_the_agent_is_kept() {
    let mut world = World::new();
    let mut host = world.ready(1);
    world.pass(Duration::from_secs(60));
    world.handle(Event::Closed { conn: host.conn });
    world.pass(Duration::from_secs(60));
    host.hello.boot = BootId([50; 16]);
    host.hello.spool = SpoolId([51; 16]);
    host.hello.incarnation = 7;
    host.hello.software = name("farmbell-agent 0.2");
    let fact = Fact {
        kind: 1,
        value: Blob::tail(b"6.12"),
    };
    host.hello.facts = List::new(vec![fact]).unwrap();
    host.address = Text::new("10.7.7.7").unwrap();
    // A second spool shows up where the first was: only without a session.
    let agent = world.store.agents.values().next().unwrap().clone();
    assert_eq!(world.hello(&mut host), None);
    let now = at(world.now).wall;
    let told = world.store.agents.values().next().unwrap().clone();
    assert_eq!(
        told,
        AgentRecord {
            session: SessionId(agent.session.0 + 1),
            boot: Some(host.hello.boot),
            spool: Some(host.hello.spool),
            incarnation: 7,
            software: host.hello.software.clone(),
            facts: host.hello.facts.clone(),
            address: host.address.clone(),
            last_seen: now,
            lost_at: None,
            ..agent
        }
    );
    let line = "session 2 from 10.7.7.7, 1 builders, 0 attempts, rebooted, another spool";
    assert_eq!(linked(&world), line);
    let link = &overview(&mut world).builders[0];
    assert_eq!((link.link, link.link_since_ms), (Link::Online, now.0));
    world.hello(&mut host);
    let line = "session 3 from 10.7.7.7, 1 builders, 0 attempts";
    assert_eq!(linked(&world), line);
}

#[test]
fn a_session_is_numbered_above_all_that_either_side_knows() {
    let mut world = World::new();
    let mut host = world.ready(1);
    world.ready(2);
    host.hello.previous_session = Some(SessionId(40));
    assert_eq!(world.hello(&mut host), None);
    assert_eq!(host.hello.previous_session, Some(SessionId(41)));
    host.hello.previous_session = Some(SessionId(3));
    assert_eq!(world.hello(&mut host), None);
    assert_eq!(host.hello.previous_session, Some(SessionId(42)));
}

#[test]
fn a_builder_that_its_agent_shows_no_more_is_away() {
    let mut world = World::new();
    let mut host = world.host(1);
    let second = HelloBuilder {
        index: BuilderIndex(1),
        ..builder("b2")
    };
    let links = |world: &mut World| -> Vec<Link> {
        let builders = overview(world).builders;
        builders.iter().map(|builder| builder.link).collect()
    };
    let resets = |world: &World| {
        let is = |frame: &&CoordinatorFrame| matches!(frame, CoordinatorFrame::Reset(_));
        world.sent().iter().filter(is).count()
    };
    for _ in 0..2 {
        host.builders.push(second.clone());
        world.hello(&mut host);
        assert_eq!(resets(&world), 2);
        assert_eq!(links(&mut world), [Link::Online, Link::Online]);
        host.builders.pop();
        world.hello(&mut host);
        assert_eq!(resets(&world), 1, "said again to the one that is there");
        assert_eq!(links(&mut world), [Link::Online, Link::Offline]);
    }
}

#[test]
fn an_attempt_that_another_agent_has_is_abandoned_and_goes_on_where_it_is() {
    let mut world = World::new();
    let mut owner = world.ready(1);
    let attempt = world.running(&mut owner, "hello");
    let mut thief = world.ready(2);
    thief.held.clone_from(&owner.held);
    assert_eq!(world.hello(&mut thief), None);
    let Standing::Abandon { why } = world.standing(attempt) else {
        panic!("{:?}", world.standing(attempt));
    };
    assert_eq!(why.as_str(), "another agent has it");
    world.run_on(&mut owner, attempt);
    assert_eq!(world.verdict(attempt.job), Some(Verdict::Succeeded));
}

#[test]
fn an_agent_that_has_forgotten_a_stored_report_has_lost_the_attempt() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    assert_eq!(host.held[0].last_seq, Seq(2));
    host.held[0].last_seq = Seq(1);
    world.hello(&mut host);
    assert!(matches!(world.standing(attempt), Standing::Abandon { .. }));
    assert!(world.waits(attempt.job));
}

#[test]
fn what_decided_its_job_is_committed_however_long_its_agent_holds_it() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    world.run_on(&mut host, attempt);
    let ledger = world.store.kinds();
    world.hello(&mut host);
    assert_eq!(world.standing(attempt), Standing::Committed);
    let since = world.store.kinds().split_off(ledger.len());
    assert!(!since.contains(&LedgerKind::StaleReport), "{since:?}");
}

#[test]
fn a_builder_that_has_forgotten_its_reports_is_reset() {
    let mut world = World::new();
    let mut host = world.ready(1);
    world.hello(&mut host);
    assert_eq!(world.reset_order(), None, "it remembers all");
    let acked = host.builders[0].last_seq;
    host.builders[0].last_seq = Seq(0);
    world.hello(&mut host);
    assert!(world.reset_order().is_some());
    assert_eq!(host.builders[0].last_seq, acked, "it counts on above them");
}

#[test]
fn only_a_new_spool_forgets_what_was_said_of_a_hosts_health() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let seq = host.builders[0].last_seq.next();
    host.builders[0].last_seq = seq;
    let condition = Condition {
        builder: BuilderIndex(0),
        seq,
        fitness: Fitness::DiskLow,
        why: Text::new("1 MB left").unwrap(),
    };
    world.report(&host, AgentFrame::Condition(condition));
    world.hello(&mut host);
    assert_eq!(world.record(&host).fitness, Fitness::DiskLow);
    world.handle(Event::Closed { conn: host.conn });
    host.hello.spool = SpoolId([51; 16]);
    world.hello(&mut host);
    let record = world.record(&host);
    assert_eq!(record.fitness, Fitness::Fit);
    assert!(record.fitness_why.is_empty());
    assert!(world.reset_order().is_some(), "and nothing proves it clean");
}

#[test]
fn an_offer_that_arrived_has_all_its_time_again_after_a_hello() {
    let accept_after = Settings::default().accept_after;
    let mut world = World::new();
    let mut host = world.ready(1);
    let job = world.submit(spec("hello"));
    let attempt = world.offered(&host);
    world.pass(accept_after - Duration::from_secs(1));
    World::next_seq(&mut host, attempt);
    world.hold(&mut host, attempt, AttemptPhase::Accepted);
    world.hello(&mut host);
    let continues = Standing::Continue { acked: Seq(0) };
    assert_eq!(world.standing(attempt), continues);
    let admitted = |effect: &Effect| matches!(effect, Effect::Admit { attempt: admitted, .. } if *admitted == attempt);
    assert!(world.said.iter().any(admitted), "its log may come");
    world.pass(accept_after - Duration::from_secs(1));
    assert!(!world.waits(job));
    world.pass(Duration::from_secs(1));
    assert!(world.waits(job), "and no longer");
}

#[test]
fn an_attempt_that_has_ended_is_not_aborted_at_the_welcome() {
    for ended in [false, true] {
        let mut world = World::new();
        let mut host = world.ready(1);
        let attempt = world.running(&mut host, "hello");
        if ended {
            world.end(&mut host, attempt, Outcome::Succeeded);
        }
        world.cancel(attempt.job).unwrap();
        world.hello(&mut host);
        assert_eq!(world.aborts(), usize::from(!ended));
    }
}
