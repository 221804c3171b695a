//! When a builder is reset, and who says that a reset is over.

use super::*;
use crate::effect::Why;
use crate::event::BuilderAct;
use crate::record::{Cleanliness, OperatorMode, ResetRule, ResetWhen};
use farmbell_protocol::agent_to_coordinator::Refusal;

fn act(world: &mut World, host: &Host, by: &str, act: BuilderAct) -> Result<(), Refused> {
    let builder = world.record(host).id;
    world.handle(Event::Request {
        request: RequestId(1),
        by: Actor {
            name: Text::new(by).unwrap(),
        },
        command: Command::Builder {
            builder,
            act,
            why: Text::new("policy").unwrap(),
        },
    });
    let reply = world.said.iter().find_map(|effect| match effect {
        Effect::Reply { reply, .. } => Some((**reply).clone()),
        _ => None,
    });
    match reply.unwrap() {
        Reply::Refused(refused) => Err(refused),
        _ => Ok(()),
    }
}

fn rule(world: &mut World, host: &Host, when: ResetWhen, reporter: Option<&str>) {
    let reporter = reporter.map(|who| Text::new(who).unwrap());
    let rule = ResetRule { when, reporter };
    act(world, host, "root", BuilderAct::ResetRule(rule)).unwrap();
}

fn over(failed: Option<&str>, nonce: CleanNonce) -> BuilderAct {
    let failed = failed.map(|why| Text::new(why).unwrap());
    BuilderAct::ResetOver { nonce, failed }
}

fn why(world: &mut World, job: JobId) -> Vec<Why> {
    match world.ask(Command::Explain { job }) {
        Ok(Reply::Explained { explanation, .. }) => {
            explanation.expect("it waits").builders[0].2.clone()
        }
        other => panic!("{other:?}"),
    }
}

/// Runs what the host was offered; what was said last is of its seal.
fn runs(world: &mut World, host: &mut Host) {
    let attempt = world.offered(host);
    world.run(host, attempt, Outcome::Succeeded);
    let ordered = world.reset_order();
    world.deliver(attempt);
    assert_eq!(ordered, None, "nothing asks for a reset yet");
    assert_eq!(world.reset_order(), None);
}

#[test]
fn a_builder_is_reset_before_a_job_if_so_asked_and_by_the_job_that_wants_it() {
    let mut world = World::new();
    let mut host = world.ready(1);
    rule(&mut world, &host, ResetWhen::Before, None);
    world.submit(spec("first"));
    runs(&mut world, &mut host);
    world.restart();
    world.hello(&mut host);
    assert_eq!(world.reset_order(), None, "it sleeps dirty");
    let mut unfit = spec("unfit");
    unfit.architecture = name("riscv64");
    world.submit(unfit);
    assert_eq!(world.reset_order(), None);
    let second = world.submit(spec("second"));
    assert_eq!(why(&mut world, second), [Why::Resetting]);
    let nonce = world.record(&host).nonce.unwrap();
    world.prove(&mut host, nonce);
    assert_eq!(world.offered(&host).job, second);
}

#[test]
fn another_rule_leaves_a_clean_builder_clean_and_a_reset_going_on() {
    let mut world = World::new();
    let host = world.ready(1);
    rule(&mut world, &host, ResetWhen::After, Some("vm-manager"));
    assert_eq!(world.record(&host).cleanliness, Cleanliness::Clean);
    act(&mut world, &host, "kim", BuilderAct::Reset).unwrap();
    let nonce = world.reset_order().unwrap();
    rule(&mut world, &host, ResetWhen::ByHand, Some("vm-manager"));
    assert_eq!(world.record(&host).nonce, Some(nonce));
    rule(&mut world, &host, ResetWhen::ByHand, Some("kim"));
    let anew = world.reset_order().expect("the new reporter hears of it");
    assert_ne!(anew, nonce);
}

#[test]
fn a_rule_stands_in_the_history_in_words() {
    let mut world = World::new();
    let host = world.ready(1);
    for (when, reporter, words) in [
        (ResetWhen::After, None, "reset after: policy"),
        (ResetWhen::Before, None, "reset before: policy"),
        (
            ResetWhen::ByHand,
            Some("vm-manager"),
            "reset by-hand, its end reported by vm-manager: policy",
        ),
    ] {
        rule(&mut world, &host, when, reporter);
        let entry = world.store.ledger.last().unwrap();
        assert_eq!(entry.why.as_str(), words);
    }
}

/// So many idle builders that sleep until a job wants them.
fn asleep(world: &mut World, many: u8) -> Vec<Host> {
    let hosts: Vec<Host> = (1..=many).map(|number| world.ready(number)).collect();
    for host in &hosts {
        rule(world, host, ResetWhen::Before, None);
        operators::set(world, host, OperatorMode::Disabled);
        operators::set(world, host, OperatorMode::Enabled);
    }
    hosts
}

/// Those that are being reset, by their place.
fn resetting(world: &World, hosts: &[Host]) -> Vec<usize> {
    let is = |at: &usize| {
        let cleanliness = world.record(&hosts[*at]).cleanliness;
        matches!(cleanliness, Cleanliness::Resetting { .. })
    };
    (0..hosts.len()).filter(is).collect()
}

#[test]
fn only_as_many_builders_are_made_ready_as_jobs_wait() {
    let mut world = World::new();
    let mut hosts = asleep(&mut world, 4);
    world.submit(spec("one"));
    assert_eq!(resetting(&world, &hosts), [0]);
    let two = world.submit(spec("two"));
    assert_eq!(resetting(&world, &hosts), [0, 1], "the first is on its way");
    world.cancel(two).unwrap();
    world.submit(spec("three"));
    assert_eq!(resetting(&world, &hosts), [0, 1], "both find a job");
    for host in &mut hosts[..2] {
        let nonce = world.record(host).nonce.unwrap();
        world.prove(host, nonce);
        assert_eq!(world.offers().len(), 1);
    }
    assert!(resetting(&world, &hosts).is_empty());
    world.submit(spec("four"));
    assert_eq!(resetting(&world, &hosts), [2]);
}

#[test]
fn where_the_builder_that_was_woken_fails_another_is_woken() {
    for how in 0..4 {
        let mut world = World::new();
        let mut hosts = asleep(&mut world, 2);
        let job = world.submit(spec("waits"));
        let nonce = world.record(&hosts[0]).nonce.unwrap();
        let conn = hosts[0].conn;
        match how {
            0 => world.handle(Event::Closed { conn }),
            1 => world.fail_reset(&mut hosts[0], nonce),
            2 => operators::set(&mut world, &hosts[0], OperatorMode::Disabled),
            _ => {
                hosts[0].builders[0].architectures = List::new(vec![name("s390x")]).unwrap();
                world.hello(&mut hosts[0]);
            }
        }
        let nonce = world.record(&hosts[1]).nonce.expect("it is woken instead");
        world.prove(&mut hosts[1], nonce);
        assert_eq!(world.offered(&hosts[1]).job, job);
    }
}

#[test]
fn a_builder_that_the_job_passes_over_is_not_woken_in_the_place_of_another() {
    let mut world = World::new();
    let mut hosts = asleep(&mut world, 2);
    let job = world.submit(spec("picky"));
    world.clean(&mut hosts[0]);
    let attempt = world.offered(&hosts[0]);
    operators::refuse(&mut world, &mut hosts[0], attempt, Refusal::Input);
    assert_eq!(resetting(&world, &hosts), [1]);
    world.clean(&mut hosts[1]);
    assert_eq!(world.offered(&hosts[1]).job, job);
}

#[test]
fn a_builder_that_works_keeps_none_asleep_that_could_be_made_ready() {
    let mut world = World::new();
    let [busy, mut asleep] = [1, 2].map(|number| world.ready(number));
    rule(&mut world, &busy, ResetWhen::Before, None);
    rule(&mut world, &asleep, ResetWhen::Before, None);
    world.submit(spec("short"));
    world.submit(spec("long"));
    let JobState::Live(live) = world.store.jobs[&JobId(1)].state.clone() else {
        panic!("both are clean");
    };
    assert_eq!(live.builder, world.record(&busy).id);
    let attempt = world.offered(&asleep);
    world.run(&mut asleep, attempt, Outcome::Succeeded);
    world.deliver(attempt);
    assert_eq!(world.reset_order(), None, "nothing waits");
    world.submit(spec("next"));
    let nonce = world.reset_order().expect("it is woken");
    world.prove(&mut asleep, nonce);
    assert_eq!(world.offered(&asleep).job, JobId(3));
}

#[test]
fn a_builder_that_would_not_take_the_job_is_not_woken_in_the_place_of_one_that_would() {
    let mut world = World::new();
    let mut hosts: Vec<Host> = (1..=4).map(|number| world.ready(number)).collect();
    for (host, when) in hosts.iter().zip([
        ResetWhen::Before,
        ResetWhen::ByHand,
        ResetWhen::Before,
        ResetWhen::Before,
    ]) {
        rule(&mut world, host, when, None);
    }
    world.running(&mut hosts[0], "works");
    for idle in &hosts[1..] {
        operators::set(&mut world, idle, OperatorMode::Disabled);
        operators::set(&mut world, idle, OperatorMode::Enabled);
        assert_eq!(world.record(idle).cleanliness, Cleanliness::Dirty);
    }
    operators::set(&mut world, &hosts[2], OperatorMode::Draining);
    let job = world.submit(spec("waits"));
    assert!(world.reset_order().is_some(), "one is woken");
    world.clean(&mut hosts[3]);
    assert_eq!(world.offered(&hosts[3]).job, job);
}

#[test]
fn a_builder_reset_by_hand_waits_for_the_hand_and_says_so() {
    let mut world = World::new();
    let mut host = world.ready(1);
    rule(&mut world, &host, ResetWhen::ByHand, None);
    world.submit(spec("first"));
    runs(&mut world, &mut host);
    let second = world.submit(spec("second"));
    assert_eq!(why(&mut world, second), [Why::AwaitsHand]);
    act(&mut world, &host, "kim", BuilderAct::Reset).unwrap();
    let nonce = world.reset_order().unwrap();
    world.fail_reset(&mut host, nonce);
    world.pass(Duration::from_secs(30));
    let again = world
        .record(&host)
        .nonce
        .expect("a failed one is tried again");
    world.prove(&mut host, again);
    assert_eq!(world.offered(&host).job, second);
}

#[test]
fn a_named_reporter_and_the_agent_both_have_to_say_that_a_reset_is_over() {
    for agent_first in [true, false] {
        let mut world = World::new();
        let mut host = world.ready(1);
        rule(&mut world, &host, ResetWhen::After, Some("vm-manager"));
        act(&mut world, &host, "kim", BuilderAct::Reset).unwrap();
        let nonce = world.reset_order().unwrap();
        let resetting = |entry: &LedgerEntry| entry.why.contains(&nonce.to_string());
        assert!(
            world.store.ledger.iter().any(resetting),
            "the reporter is told the challenge"
        );
        let job = world.submit(spec("hello"));
        let stranger = act(&mut world, &host, "kim", over(None, nonce)).unwrap_err();
        assert!(stranger.cause.contains("vm-manager"), "{stranger}");
        let stale = act(&mut world, &host, "vm-manager", over(None, CleanNonce(7)));
        assert!(stale.is_err(), "another challenge");
        if agent_first {
            world.prove(&mut host, nonce);
            assert!(world.offers().is_empty());
            act(&mut world, &host, "vm-manager", over(None, nonce)).unwrap();
        } else {
            act(&mut world, &host, "vm-manager", over(None, nonce)).unwrap();
            assert!(world.offers().is_empty());
            world.restart();
            world.hello(&mut host);
            world.prove(&mut host, nonce);
        }
        assert_eq!(world.offered(&host).job, job);
    }
}

#[test]
fn a_reporter_that_says_nothing_is_named_when_the_time_is_over_and_may_report_a_failure() {
    let mut world = World::new();
    let mut host = world.ready(1);
    rule(&mut world, &host, ResetWhen::After, Some("vm-manager"));
    act(&mut world, &host, "kim", BuilderAct::Reset).unwrap();
    let nonce = world.reset_order().unwrap();
    world.prove(&mut host, nonce);
    world.pass(Duration::from_secs(10 * 60 + 1));
    let trouble = world.record(&host).trouble.clone().unwrap();
    assert!(
        trouble.contains("vm-manager has reported none"),
        "{trouble}"
    );
    world.pass(Duration::from_secs(30));
    let again = world.record(&host).nonce.unwrap();
    act(
        &mut world,
        &host,
        "vm-manager",
        over(Some("no such image"), again),
    )
    .unwrap();
    let record = world.record(&host);
    assert_eq!(record.strikes, 2);
    assert_eq!(record.trouble.as_ref().unwrap().as_str(), "no such image");
}
#[test]
fn a_reporter_that_says_nothing_has_failed_also_while_the_agent_is_away() {
    let mut world = World::new();
    let host = world.ready(1);
    rule(&mut world, &host, ResetWhen::After, Some("vm-manager"));
    act(&mut world, &host, "kim", BuilderAct::Reset).unwrap();
    world.handle(Event::Closed { conn: host.conn });
    world.pass(Duration::from_secs(10 * 60 + 1));
    let record = world.record(&host);
    assert_eq!(record.strikes, 1);
    let trouble = record.trouble.clone().unwrap();
    assert!(
        trouble.contains("vm-manager has reported none"),
        "{trouble}"
    );
}
