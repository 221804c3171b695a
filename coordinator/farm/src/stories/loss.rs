//! Silence, loss, and the return of what was lost.

use super::*;
use crate::record::{AttemptEnd, OperatorMode};

const LOST_AFTER: Duration = Duration::from_secs(5 * 60);

fn vanish(world: &mut World, host: &Host) {
    world.handle(Event::Closed { conn: host.conn });
}

#[test]
fn a_dropped_link_costs_no_build() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    vanish(&mut world, &host);
    world.pass(LOST_AFTER - Duration::from_secs(1));
    assert_eq!(world.hello(&mut host), None);
    assert_eq!(
        world.standing(attempt),
        Standing::Continue { acked: Seq(2) }
    );
    world.pass(LOST_AFTER * 2);
    world.end(&mut host, attempt, Outcome::Succeeded);
    world.seal(&mut host, attempt);
    world.deliver(attempt);
    assert_eq!(world.verdict(attempt.job), Some(Verdict::Succeeded));
}

#[test]
fn a_silent_agents_job_waits_again_after_five_minutes() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    vanish(&mut world, &host);
    world.pass(LOST_AFTER - Duration::from_secs(1));
    assert!(!world.waits(attempt.job));
    world.pass(Duration::from_secs(1));
    assert!(world.waits(attempt.job));
    let end = world.store.attempts[&attempt].end.clone();
    assert!(matches!(end, Some(AttemptEnd::Lost { .. })), "{end:?}");
    assert_eq!(
        world.record(&host).strikes,
        0,
        "network loss is nobody's fault"
    );
}

#[test]
fn an_agent_that_does_not_hold_the_attempt_has_lost_it() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    host.held.clear();
    world.hello(&mut host);
    assert_eq!(world.standing(attempt), Standing::Lost);
    let order = world.reset_order().expect("what ran there is unknown");
    world.prove(&mut host, order);
    let next = world.offered(&host);
    assert_eq!((next.job, next.number), (attempt.job, 2));
}

#[test]
fn an_offer_that_never_arrived_costs_no_attempt() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let job = world.submit(spec("hello"));
    for number in 1..=5 {
        let attempt = world.offered(&host);
        assert_eq!(attempt.number, number, "numbers rise");
        world.hello(&mut host);
        assert_eq!(world.standing(attempt), Standing::Lost);
        world.clean(&mut host);
    }
    assert_eq!(world.verdict(job), None);
}

#[test]
fn a_reboot_ends_what_ran_and_keeps_what_was_sealed() {
    let mut world = World::new();
    let mut running = world.ready(1);
    let lost = world.running(&mut running, "one");
    let mut sealed = world.ready(2);
    let kept = world.running(&mut sealed, "two");
    world.end(&mut sealed, kept, Outcome::Succeeded);
    world.seal(&mut sealed, kept);
    for host in [&mut running, &mut sealed] {
        world.handle(Event::Closed { conn: host.conn });
        host.hello.boot = BootId([99; 16]);
        host.hello.incarnation += 1;
    }
    world.hello(&mut running);
    assert!(matches!(world.standing(lost), Standing::Abandon { .. }));
    assert!(world.waits(lost.job));
    world.hello(&mut sealed);
    assert!(matches!(world.standing(kept), Standing::Continue { .. }));
    world.deliver(kept);
    assert_eq!(world.verdict(kept.job), Some(Verdict::Succeeded));
}

#[test]
fn another_spool_has_nothing_of_the_old_one() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    vanish(&mut world, &host);
    host.hello.spool = SpoolId([99; 16]);
    host.held.clear();
    world.hello(&mut host);
    assert_eq!(world.standing(attempt), Standing::Lost);
    assert!(world.reset_order().is_some(), "its builders are dirty");
}

#[test]
fn a_lost_attempt_that_comes_back_before_the_next_runs_goes_on() {
    let mut world = World::new();
    let mut first = world.ready(1);
    let attempt = world.running(&mut first, "hello");
    let mut second = world.ready(2);
    vanish(&mut world, &first);
    world.pass(LOST_AFTER);
    let next = world.offered(&second);
    assert_eq!((next.job, next.number), (attempt.job, 2));
    world.accept(&mut second, next);
    world.hello(&mut first);
    assert_eq!(
        world.standing(attempt),
        Standing::Continue { acked: Seq(2) }
    );
    assert!(world.abandoned(next), "the later one is withdrawn");
    world.end(&mut first, attempt, Outcome::Succeeded);
    world.seal(&mut first, attempt);
    world.deliver(attempt);
    assert_eq!(world.verdict(attempt.job), Some(Verdict::Succeeded));
}

#[test]
fn of_two_lost_attempts_the_first_to_come_back_goes_on() {
    let mut world = World::new();
    let mut first = world.ready(1);
    let attempt = world.running(&mut first, "hello");
    let mut second = world.ready(2);
    vanish(&mut world, &first);
    world.pass(LOST_AFTER);
    let next = world.offered(&second);
    world.accept(&mut second, next);
    vanish(&mut world, &second);
    world.pass(LOST_AFTER);
    assert!(world.waits(attempt.job));
    world.hello(&mut first);
    assert!(matches!(world.standing(attempt), Standing::Continue { .. }));
    world.hello(&mut second);
    assert!(matches!(world.standing(next), Standing::Abandon { .. }));
    world.run_on(&mut first, attempt);
    assert_eq!(world.verdict(attempt.job), Some(Verdict::Succeeded));
}

#[test]
fn a_lost_attempt_is_adopted_across_a_restart_too() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    vanish(&mut world, &host);
    world.pass(LOST_AFTER);
    world.restart();
    world.hello(&mut host);
    assert_eq!(
        world.standing(attempt),
        Standing::Continue { acked: Seq(2) }
    );
}

#[test]
fn a_lost_attempt_that_comes_back_after_the_next_ran_is_superseded() {
    let mut world = World::new();
    let mut first = world.ready(1);
    let attempt = world.running(&mut first, "hello");
    let mut second = world.ready(2);
    vanish(&mut world, &first);
    world.pass(LOST_AFTER);
    let next = world.offered(&second);
    world.accept(&mut second, next);
    world.start(&mut second, next);
    world.hello(&mut first);
    assert!(matches!(world.standing(attempt), Standing::Abandon { .. }));
    assert!(world.store.kinds().contains(&LedgerKind::StaleReport));
    world.end(&mut first, attempt, Outcome::Succeeded);
    assert!(world.abandoned(attempt), "a late report is never applied");
    world.end(&mut second, next, failed());
    world.seal(&mut second, next);
    world.deliver(next);
    assert!(matches!(
        world.verdict(attempt.job),
        Some(Verdict::Failed { .. })
    ));
}

#[test]
fn an_attempt_that_was_overtaken_does_not_come_back_when_the_later_one_is_lost_too() {
    let mut world = World::new();
    let mut first = world.ready(1);
    let attempt = world.running(&mut first, "hello");
    let mut second = world.ready(2);
    vanish(&mut world, &first);
    world.pass(LOST_AFTER);
    let next = world.offered(&second);
    world.accept(&mut second, next);
    world.start(&mut second, next);
    vanish(&mut world, &second);
    world.pass(LOST_AFTER);
    assert!(world.waits(attempt.job));
    world.hello(&mut first);
    assert!(matches!(world.standing(attempt), Standing::Abandon { .. }));
    world.hello(&mut second);
    assert!(matches!(world.standing(next), Standing::Continue { .. }));
}

#[test]
fn a_lost_attempt_comes_back_from_its_own_agent_only_and_with_all_it_had_said() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    vanish(&mut world, &host);
    world.pass(LOST_AFTER);
    let mut thief = world.host(2);
    thief.held = host.held.clone();
    world.hello(&mut thief);
    assert!(matches!(world.standing(attempt), Standing::Abandon { .. }));
    assert!(world.waits(attempt.job));
    host.held[0].last_seq = Seq(1);
    world.hello(&mut host);
    assert!(matches!(world.standing(attempt), Standing::Abandon { .. }));
    assert!(world.waits(attempt.job));
    assert!(!world.store.kinds().contains(&LedgerKind::AttemptAdopted));
}

#[test]
fn a_lost_attempt_does_not_come_back_to_a_builder_that_works_on_another() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    vanish(&mut world, &host);
    world.pass(LOST_AFTER);
    let held = std::mem::take(&mut host.held);
    world.hello(&mut host);
    world.clean(&mut host);
    let next = world.offered(&host);
    assert_eq!((next.job, next.number), (attempt.job, 2));
    world.accept(&mut host, next);
    host.held.extend(held);
    world.hello(&mut host);
    assert!(matches!(world.standing(attempt), Standing::Abandon { .. }));
    assert!(matches!(world.standing(next), Standing::Continue { .. }));
}

#[test]
fn what_comes_late_is_told_what_took_its_place() {
    let mut world = World::new();
    let mut first = world.ready(1);
    let late = world.running(&mut first, "hello");
    let mut second = world.ready(2);
    operators::set(&mut world, &first, OperatorMode::Disabled);
    let next = world.offered(&second);
    world.accept(&mut second, next);
    let told = |world: &World| world.store.ledger.last().unwrap().why.to_string();
    world.end(&mut first, late, failed());
    assert!(told(&world).ends_with("attempt 2 took its place"));
    world.cancel(late.job).unwrap();
    world.end(&mut second, next, Outcome::Aborted);
    world.seal(&mut second, next);
    world.clean(&mut second);
    world.deliver(next);
    world.end(&mut first, late, failed());
    assert!(told(&world).ends_with("its job has its verdict"));
    let job = Box::new(world.store.jobs[&late.job].clone());
    let why = Text::default();
    world.ask(Command::Retry { job, why }).unwrap();
    assert_eq!(world.offered(&second).generation, 2);
    world.end(&mut first, late, failed());
    assert!(told(&world).ends_with("generation 2 took its place"));
}

#[test]
fn three_hosts_lost_under_a_job_end_it_as_infrastructure() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let job = world.submit(spec("killer"));
    for _ in 0..3 {
        let attempt = world.offered(&host);
        world.accept(&mut host, attempt);
        world.start(&mut host, attempt);
        host.held.clear();
        world.hello(&mut host);
        if world.reset_order().is_some() {
            world.clean(&mut host);
        }
    }
    assert!(matches!(
        world.verdict(job),
        Some(Verdict::Infrastructure { .. })
    ));
}

/// Silence until it is lost, wherever it runs; gives the host that it ran on.
fn lose_under(world: &mut World, number: u8, job: JobId) -> Host {
    let mut host = world.ready(number);
    let attempt = world.offered(&host);
    assert_eq!(attempt.job, job);
    world.accept(&mut host, attempt);
    world.start(&mut host, attempt);
    vanish(world, &host);
    world.pass(LOST_AFTER);
    host
}

#[test]
fn three_hosts_lost_under_an_innocent_job_end_in_infrastructure_and_bulk_retry_brings_it_back() {
    let mut world = World::new();
    let innocent: Vec<JobId> = ["one", "two"]
        .into_iter()
        .enumerate()
        .map(|(place, text)| {
            let job = world.submit(spec(text));
            for number in 1..=3 {
                assert_eq!(world.verdict(job), None);
                let host = lose_under(&mut world, u8::try_from(place).unwrap() * 3 + number, job);
                assert_eq!(world.record(&host).strikes, 0);
            }
            job
        })
        .collect();
    for job in &innocent {
        let verdict = world.verdict(*job);
        let ended = matches!(verdict, Some(Verdict::Infrastructure { .. }));
        assert!(ended, "{verdict:?}");
    }
    let mut host = world.ready(7);
    let all: Vec<JobRecord> = world.store.jobs.values().cloned().collect();
    let mut offers = Vec::new();
    for job in all {
        let (job, why) = (Box::new(job), Text::cut("the power is back"));
        world.ask(Command::Retry { job, why }).unwrap();
        offers.extend(world.offers());
    }
    for job in innocent {
        let (_, attempt) = offers.pop().expect("it is offered again");
        let told = (attempt.job, attempt.generation, attempt.number);
        assert_eq!(told, (job, 2, 1));
        world.run(&mut host, attempt, Outcome::Succeeded);
        world.clean(&mut host);
        offers = world.offers();
        world.deliver(attempt);
        assert_eq!(world.verdict(job), Some(Verdict::Succeeded));
    }
}

#[test]
fn a_crash_of_the_coordinator_costs_no_build() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    for _ in 0..20 {
        world.restart();
        world.pass(Duration::from_secs(2));
        world.hello(&mut host);
        assert!(matches!(world.standing(attempt), Standing::Continue { .. }));
    }
    world.end(&mut host, attempt, Outcome::Succeeded);
    world.seal(&mut host, attempt);
    world.restart();
    world.hello(&mut host);
    let expects = world
        .said
        .iter()
        .any(|e| matches!(e, Effect::Expect { .. }));
    assert!(expects, "the bulk layer is told again what to wait for");
    world.deliver(attempt);
    assert_eq!(world.verdict(attempt.job), Some(Verdict::Succeeded));
}

#[test]
fn a_disabled_builders_lost_attempt_is_not_adopted() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    vanish(&mut world, &host);
    world.pass(LOST_AFTER);
    operators::set(&mut world, &host, OperatorMode::Disabled);
    world.hello(&mut host);
    assert!(matches!(world.standing(attempt), Standing::Abandon { .. }));
}
