//! What operators do, and refused offers.

use super::*;
use crate::effect::{Link, RefusedCode};
use crate::event::{AgentAct, BuilderAct};
use crate::record::{AttemptEnd, Cleanliness, OperatorMode};
use farmbell_protocol::agent_to_coordinator::{Condition, Fitness, Refusal};

fn act(world: &mut World, host: &Host, act: BuilderAct) -> Result<Reply, Refused> {
    let builder = world.record(host).id;
    world.ask(Command::Builder {
        builder,
        act,
        why: Text::new("maintenance").unwrap(),
    })
}

pub(crate) fn set(world: &mut World, host: &Host, mode: OperatorMode) {
    act(world, host, BuilderAct::Set(mode)).unwrap();
}

pub(super) fn refuse(world: &mut World, host: &mut Host, attempt: AttemptId, refusal: Refusal) {
    let seq = World::next_seq(host, attempt);
    world.report(
        host,
        AgentFrame::Refused(farmbell_protocol::agent_to_coordinator::Refused {
            attempt,
            seq,
            refusal,
            why: Reason::cut("no"),
        }),
    );
}

#[test]
fn disabling_a_builder_gives_its_job_back_and_blames_nobody() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    set(&mut world, &host, OperatorMode::Disabled);
    assert!(world.abandoned(attempt));
    assert!(world.waits(attempt.job));
    let record = world.record(&host);
    assert_eq!((record.strikes, record.mode), (0, OperatorMode::Disabled));
    assert_eq!(world.store.jobs[&attempt.job].strikes, 0);
    world.hello(&mut host);
    assert!(matches!(world.standing(attempt), Standing::Abandon { .. }));
    assert!(world.reset_order().is_none() && world.offers().is_empty());
    set(&mut world, &host, OperatorMode::Enabled);
    world.clean(&mut host);
    assert_eq!(world.offered(&host).number, 2);
}

#[test]
fn an_act_that_ends_one_mode_leaves_the_others_alone() {
    let mut world = World::new();
    let host = world.ready(1);
    for (mode, ends, leaves) in [
        (OperatorMode::Manual, BuilderAct::Auto, BuilderAct::Resume),
        (OperatorMode::Draining, BuilderAct::Resume, BuilderAct::Auto),
        (
            OperatorMode::Quarantined,
            BuilderAct::Resume,
            BuilderAct::Auto,
        ),
    ] {
        set(&mut world, &host, mode);
        let refused = act(&mut world, &host, leaves).unwrap_err();
        assert!(refused.cause.contains(mode.as_str()), "{refused:?}");
        assert_eq!(world.record(&host).mode, mode);
        act(&mut world, &host, ends).unwrap();
        assert_eq!(world.record(&host).mode, OperatorMode::Enabled);
    }
    set(&mut world, &host, OperatorMode::Disabled);
    for wrong in [BuilderAct::Auto, BuilderAct::Resume] {
        let refused = act(&mut world, &host, wrong).unwrap_err();
        assert!(refused.fix.contains("builder enable b1"), "{refused:?}");
    }
}

#[test]
fn a_builder_that_is_out_of_service_is_not_drained_and_not_made_manual() {
    let mut world = World::new();
    let host = world.ready(1);
    for (out, ender) in [
        (OperatorMode::Quarantined, "builder resume b1"),
        (OperatorMode::Disabled, "builder enable b1"),
    ] {
        set(&mut world, &host, out);
        for wrong in [
            BuilderAct::Set(OperatorMode::Manual),
            BuilderAct::Set(OperatorMode::Draining),
            BuilderAct::Drain { within_ms: 1000 },
        ] {
            let refused = act(&mut world, &host, wrong).unwrap_err();
            assert!(refused.fix.contains(ender), "{refused:?}");
            assert_eq!(world.record(&host).mode, out, "and what it is in stands");
        }
    }
}

#[test]
fn draining_again_keeps_the_time_and_says_it() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "long");
    act(&mut world, &host, BuilderAct::Drain { within_ms: 600_000 }).unwrap();
    assert!(world.record(&host).mode_why.starts_with("within 600 s: "));
    set(&mut world, &host, OperatorMode::Draining);
    world.pass(Duration::from_secs(601));
    assert!(world.waits(attempt.job), "ten minutes were given");
    set(&mut world, &host, OperatorMode::Enabled);
    set(&mut world, &host, OperatorMode::Draining);
    assert_eq!(world.record(&host).drain_deadline, None);
}

#[test]
fn a_builder_taken_out_by_its_resets_is_reset_once_whenever_somebody_asks() {
    let mut world = World::new();
    let mut host = world.host(1);
    world.hello(&mut host);
    for _ in 0..5 {
        world.pass(Duration::from_secs(200));
        let nonce = world.record(&host).nonce.expect("it is tried again");
        world.fail_reset(&mut host, nonce);
    }
    assert_eq!(world.record(&host).mode, OperatorMode::Quarantined);
    for _ in 0..2 {
        world.pass(Duration::from_secs(3600));
        assert_eq!(world.record(&host).cleanliness, Cleanliness::Dirty);
        act(&mut world, &host, BuilderAct::Reset).unwrap();
        let nonce = world.reset_order().expect("somebody has mended it");
        world.fail_reset(&mut host, nonce);
        assert_eq!(world.record(&host).strikes, 5, "it is out already");
    }
    act(&mut world, &host, BuilderAct::Reset).unwrap();
    world.clean(&mut host);
    let record = world.record(&host);
    assert_eq!(
        (record.trouble.is_none(), record.mode),
        (true, OperatorMode::Quarantined)
    );
}

#[test]
fn a_builder_that_nothing_is_done_with_is_not_reset_and_says_why() {
    let mut world = World::new();
    let host = world.ready(1);
    set(&mut world, &host, OperatorMode::Disabled);
    let refused = act(&mut world, &host, BuilderAct::Reset).unwrap_err();
    assert!(refused.fix.contains("builder enable b1"), "{refused:?}");
    set(&mut world, &host, OperatorMode::Enabled);
    let agent = world.record(&host).agent;
    let (act_of, why) = (AgentAct::Revoke, Text::default());
    let asked = world.ask(Command::Agent {
        agent,
        act: act_of,
        why,
    });
    asked.unwrap();
    let refused = act(&mut world, &host, BuilderAct::Reset).unwrap_err();
    assert!(refused.cause.contains("revoked"), "{refused:?}");
}

#[test]
fn a_manual_builder_is_cleaned_and_given_nothing() {
    let mut world = World::new();
    let mut host = world.host(1);
    world.hello(&mut host);
    let order = world.reset_order().unwrap();
    set(&mut world, &host, OperatorMode::Manual);
    world.submit(spec("hello"));
    world.prove(&mut host, order);
    assert!(world.offers().is_empty());
    set(&mut world, &host, OperatorMode::Enabled);
    assert_eq!(world.offers().len(), 1);
}

#[test]
fn a_draining_builder_finishes_and_takes_nothing_new() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "one");
    world.submit(spec("two"));
    set(&mut world, &host, OperatorMode::Draining);
    world.end(&mut host, attempt, Outcome::Succeeded);
    world.seal(&mut host, attempt);
    world.clean(&mut host);
    assert!(world.offers().is_empty());
    world.deliver(attempt);
    assert_eq!(world.verdict(attempt.job), Some(Verdict::Succeeded));
}

#[test]
fn a_held_builder_is_removed_only_when_told_to_abandon() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    assert!(act(&mut world, &host, BuilderAct::Remove { abandon: false }).is_err());
    act(&mut world, &host, BuilderAct::Remove { abandon: true }).unwrap();
    assert!(world.abandoned(attempt) && world.waits(attempt.job));
    assert!(world.store.builders.is_empty());
}

#[test]
fn a_reset_by_hand_is_refused_while_the_builder_works() {
    let mut world = World::new();
    let mut host = world.ready(1);
    act(&mut world, &host, BuilderAct::Reset).unwrap();
    world.clean(&mut host);
    world.running(&mut host, "hello");
    assert!(act(&mut world, &host, BuilderAct::Reset).is_err());
}

#[test]
fn a_revoked_agents_work_is_fenced_at_once() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    let agent = world.record(&host).agent;
    let act = |act| Command::Agent {
        agent,
        act,
        why: Text::default(),
    };
    assert!(world.ask(act(AgentAct::Remove)).is_err(), "it still works");
    world.ask(act(AgentAct::Revoke)).unwrap();
    assert_eq!(world.close_code(), Some(CloseCode::Revoked));
    assert!(world.waits(attempt.job));
    let cost = world.store.jobs[&attempt.job].refunded;
    assert_eq!(cost, 1, "an operator's word costs no attempt");
    assert_eq!(world.hello(&mut host), Some(CloseCode::Revoked));
    assert!(world.ask(act(AgentAct::Approve)).is_err());
    world.ask(act(AgentAct::Remove)).unwrap();
    assert_eq!(world.hello(&mut host), Some(CloseCode::UnknownKey));
    assert!(world.store.builders.is_empty() && world.store.agents.is_empty());
}

#[test]
fn a_refused_offer_costs_no_attempt_and_is_not_repeated_at_once() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let job = world.submit(spec("hello"));
    for number in 1..=5 {
        let attempt = world.offered(&host);
        assert_eq!(attempt.number, number);
        refuse(&mut world, &mut host, attempt, Refusal::NoSpace);
        assert!(world.waits(job));
        world.clean(&mut host);
        assert!(world.offers().is_empty(), "it has just refused");
        world.pass(Duration::from_secs(59));
        assert!(world.offers().is_empty());
        world.now = world.now + Duration::from_secs(2);
        world.handle(Event::Wake);
    }
    assert_eq!(world.verdict(job), None);
}

#[test]
fn a_job_that_nobody_can_start_ends_after_its_attempts() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let job = world.submit(spec("hello"));
    for _ in 1..=3 {
        let attempt = world.offered(&host);
        refuse(&mut world, &mut host, attempt, Refusal::Input);
        world.clean(&mut host);
        world.pass(Duration::from_secs(59));
        world.now = world.now + Duration::from_secs(2);
        world.handle(Event::Wake);
    }
    assert!(matches!(
        world.verdict(job),
        Some(Verdict::Infrastructure { .. })
    ));
}

#[test]
fn a_refusal_ends_with_the_builders_next_word_about_itself() {
    let mut world = World::new();
    let mut host = world.ready(1);
    world.submit(spec("hello"));
    let attempt = world.offered(&host);
    refuse(&mut world, &mut host, attempt, Refusal::Backlog);
    world.clean(&mut host);
    assert!(world.offers().is_empty());
    let seq = host.builders[0].last_seq.next();
    host.builders[0].last_seq = seq;
    world.report(
        &host,
        AgentFrame::Condition(Condition {
            builder: BuilderIndex(0),
            seq,
            fitness: Fitness::Fit,
            why: Text::default(),
        }),
    );
    assert_eq!(world.offered(&host).number, 2);
}

#[test]
fn an_offer_that_is_not_answered_goes_elsewhere() {
    let mut world = World::new();
    let host = world.ready(1);
    let job = world.submit(spec("hello"));
    let attempt = world.offered(&host);
    let other = world.ready(2);
    world.pass(Duration::from_secs(119));
    assert!(!world.waits(job), "it may still be answered");
    world.now = world.now + Duration::from_secs(2);
    world.handle(Event::Wake);
    assert!(world.abandoned(attempt));
    assert_eq!(world.offered(&other).job, job);
    assert_eq!(world.record(&host).strikes, 1);
}

#[test]
fn a_removed_builder_that_its_agent_shows_again_is_heard() {
    let mut world = World::new();
    let mut host = world.ready(1);
    world.submit(spec("hello"));
    act(&mut world, &host, BuilderAct::Remove { abandon: true }).unwrap();
    let told = host.builders[0].last_seq;
    assert!(told > Seq(0), "it has reported before");
    world.hello(&mut host);
    // The row knows nothing of the builder, so it has to say everything anew.
    assert!(host.builders[0].last_seq > told);
    world.clean(&mut host);
    assert_eq!(world.offered(&host).number, 2);
}

#[test]
fn a_refused_attempt_outlives_its_builder_that_is_removed() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let job = world.submit(spec("hello"));
    let attempt = world.offered(&host);
    refuse(&mut world, &mut host, attempt, Refusal::NoSpace);
    act(&mut world, &host, BuilderAct::Remove { abandon: false }).unwrap();
    assert!(world.waits(job) && world.store.builders.is_empty());
    let end = world.store.attempts[&attempt].end.clone();
    assert!(matches!(end, Some(AttemptEnd::Refused { .. })), "{end:?}");
    world.restart();
    let other = world.ready(2);
    let next = world.offered(&other);
    assert_eq!((next.job, next.number), (job, 2));
}

#[test]
fn the_overview_shows_builders_queue_and_running_jobs() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "one");
    let waiting = world.submit(spec("two"));
    world.submit(spec("three"));
    world.pass(Duration::from_secs(60));
    let Ok(Reply::Overview(overview)) = world.ask(Command::Overview) else {
        panic!("refused");
    };
    assert_eq!(overview.builders.len(), 1);
    let shown = &overview.builders[0];
    assert_eq!(&shown.record, world.record(&host));
    assert_eq!((shown.agent.as_str(), shown.link), ("host1", Link::Online));
    assert_eq!(overview.running.len(), 1);
    assert_eq!(overview.running[0], world.store.jobs[&attempt.job]);
    assert_eq!(overview.queue.len(), 2);
    assert_eq!(overview.queue[0], world.store.jobs[&waiting]);
    assert_eq!((overview.waiting, overview.dependents), (2, 0));
    assert_eq!(overview.oldest_waiting_ms, 60_000);
    assert_eq!(
        (overview.epoch, overview.suspect),
        (world.farm.epoch(), false)
    );
}

#[test]
fn agents_are_listed_with_whether_they_are_connected() {
    let mut world = World::new();
    let gone = world.ready(1);
    world.ready(2);
    world.handle(Event::Closed { conn: gone.conn });
    let Ok(Reply::Agents(agents)) = world.ask(Command::Agents) else {
        panic!("refused");
    };
    let told: Vec<(&str, bool)> = agents
        .iter()
        .map(|(record, connected)| (record.name.as_str(), *connected))
        .collect();
    assert_eq!(told, [("host1", false), ("host2", true)]);
}

#[test]
fn what_does_not_exist_cannot_be_operated() {
    let mut world = World::new();
    let why = Text::<256>::default;
    let nothing = [
        Command::Builder {
            builder: farmbell_protocol::id::BuilderId(9),
            act: BuilderAct::Reset,
            why: why(),
        },
        Command::Agent {
            agent: farmbell_protocol::id::AgentId(9),
            act: AgentAct::Approve,
            why: why(),
        },
        Command::Cancel {
            job: JobId(9),
            why: why(),
        },
        Command::Explain { job: JobId(0) },
        Command::TokenRevoke {
            token: 9,
            why: why(),
        },
    ];
    for command in nothing {
        let refused = world.ask(command).unwrap_err();
        assert_eq!(refused.code, RefusedCode::NotFound, "{refused:?}");
    }
    let why = why();
    let refused = world.ask(Command::AcceptRestore { why }).unwrap_err();
    assert_eq!(refused.code, RefusedCode::Conflict, "nothing to accept");
}
