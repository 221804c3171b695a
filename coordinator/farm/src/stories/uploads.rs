//! Logs and outputs on their way: what counts as all of it, and how long it may
//! take.

use super::*;
use farmbell_protocol::agent_to_coordinator::Fitness;

use crate::record::{Cleanliness, Occupation, OperatorMode};

const LOST_AFTER: Duration = Duration::from_secs(5 * 60);

/// An attempt whose outputs travel since now.
fn travelling() -> (World, Host, AttemptId) {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    world.end(&mut host, attempt, Outcome::Succeeded);
    world.seal(&mut host, attempt);
    (world, host, attempt)
}

#[test]
fn a_log_of_which_a_power_cut_took_the_end_from_its_agent_is_whole_here() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    world.end(&mut host, attempt, failed());
    // Its agent still has a hundred bytes; more had arrived.
    world.seal(&mut host, attempt);
    world.handle(Event::LogClosed { attempt, bytes: 99 });
    world.handle(Event::Collected {
        attempt,
        outputs: Vec::new().into(),
    });
    assert_eq!(world.verdict(attempt.job), None, "less is not whole");
    world.handle(Event::LogClosed {
        attempt,
        bytes: 130,
    });
    assert!(world.verdict(attempt.job).is_some());
}

#[test]
fn outputs_that_were_given_up_with_their_silent_agent_count_when_it_comes_back() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    world.end(&mut host, attempt, Outcome::Succeeded);
    world.seal(&mut host, attempt);
    world.clean(&mut host);
    world.handle(Event::Closed { conn: host.conn });
    world.pass(LOST_AFTER);
    assert!(world.waits(attempt.job));
    operators::set(&mut world, &host, OperatorMode::Manual);
    world.hello(&mut host);
    assert_eq!(
        world.standing(attempt),
        Standing::Continue { acked: Seq(4) }
    );
    assert_eq!(world.record(&host).occupation, Occupation::Free);
    assert_eq!(world.record(&host).cleanliness, Cleanliness::Clean);
    world.deliver(attempt);
    assert_eq!(world.verdict(attempt.job), Some(Verdict::Succeeded));
}

#[test]
fn outputs_that_are_lost_after_all_lose_the_attempt() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    world.end(&mut host, attempt, Outcome::Succeeded);
    world.seal(&mut host, attempt);
    let seq = World::next_seq(&mut host, attempt);
    world.report(
        &host,
        AgentFrame::OutputsLost(farmbell_protocol::agent_to_coordinator::OutputsLost {
            attempt,
            seq,
            why: Reason::cut("the disk died"),
        }),
    );
    assert!(world.waits(attempt.job));
    world.deliver(attempt);
    assert_eq!(
        world.verdict(attempt.job),
        None,
        "what arrives late decides nothing"
    );
}

#[test]
fn sealed_outputs_that_stop_travelling_are_given_up() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    world.end(&mut host, attempt, Outcome::Succeeded);
    world.seal(&mut host, attempt);
    for _ in 0..5 {
        world.pass(Duration::from_secs(9 * 60));
        world.handle(Event::Progress { attempt });
    }
    assert!(
        !world.waits(attempt.job),
        "as long as bytes arrive it goes on"
    );
    world.pass(Duration::from_secs(11 * 60));
    assert!(world.waits(attempt.job));
}

#[test]
fn an_attempt_that_does_not_come_to_its_start_or_its_seal_is_given_up() {
    for (ended, minutes, strikes) in [(false, 10, 0), (true, 60, 1)] {
        let mut world = World::new();
        let mut host = world.ready(1);
        let job = world.submit(spec("hello"));
        let attempt = world.offered(&host);
        world.accept(&mut host, attempt);
        if ended {
            world.start(&mut host, attempt);
            world.pass(Duration::from_secs(24 * 3600));
            assert!(!world.waits(job), "a build takes what it takes");
            world.end(&mut host, attempt, Outcome::Succeeded);
        }
        world.pass(Duration::from_secs(minutes * 60 - 1));
        world.handle(Event::Progress { attempt });
        world.pass(Duration::from_secs(minutes * 60 - 1));
        assert_eq!(world.store.jobs[&job].attempt_number, 1, "bytes travelled");
        world.restart();
        world.hello(&mut host);
        world.pass(Duration::from_secs(119));
        assert_eq!(world.store.jobs[&job].attempt_number, 1, "grace");
        world.now = world.now + Duration::from_secs(2);
        world.handle(Event::Wake);
        assert!(world.abandoned(attempt));
        assert_eq!(world.record(&host).strikes, strikes);
        assert!(world.waits(job), "its builder is dirty");
    }
}

#[test]
fn a_job_whose_build_cannot_be_killed_does_not_wait_for_the_reboot() {
    let mut world = World::new();
    let mut stuck = world.ready(1);
    let attempt = world.running(&mut stuck, "hello");
    let other = world.ready(2);
    reasons::fitness(&mut world, &mut stuck, Fitness::Unkillable);
    assert!(world.abandoned(attempt));
    assert_eq!(world.offered(&other).job, attempt.job);
}

#[test]
fn a_job_whose_outputs_did_not_travel_goes_elsewhere_and_nobody_is_struck() {
    let mut world = World::new();
    let mut other = world.ready(1);
    world.running(&mut other, "long");
    let mut host = world.ready(2);
    let attempt = world.running(&mut host, "hello");
    world.end(&mut host, attempt, Outcome::Succeeded);
    world.seal(&mut host, attempt);
    world.clean(&mut host);
    world.pass(Duration::from_secs(10 * 60 + 1));
    assert!(
        world.waits(attempt.job),
        "its builder is free, and not asked"
    );
    let record = world.record(&host);
    assert_eq!(
        (record.strikes, record.cleanliness),
        (0, Cleanliness::Clean)
    );
}

#[test]
fn outputs_that_nobody_has_announced_are_no_result() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    world.end(&mut host, attempt, Outcome::Succeeded);
    world.deliver(attempt);
    world.seal(&mut host, attempt);
    world.handle(Event::LogClosed {
        attempt,
        bytes: 100,
    });
    assert_eq!(world.verdict(attempt.job), None, "of what manifest?");
    world.deliver(attempt);
    assert_eq!(world.verdict(attempt.job), Some(Verdict::Succeeded));
}

#[test]
fn bytes_that_come_too_late_stand_in_the_history_and_repetitions_do_not() {
    let (mut world, _host, attempt) = travelling();
    world.deliver(attempt);
    assert_eq!(world.verdict(attempt.job), Some(Verdict::Succeeded));
    let entries = world.store.ledger.len();
    world.deliver(attempt);
    assert_eq!(world.store.ledger.len(), entries);
    let (mut world, _host, attempt) = travelling();
    world.pass(Duration::from_secs(600));
    assert!(world.waits(attempt.job), "given up");
    world.deliver(attempt);
    let entry = world.store.ledger.last().unwrap();
    assert_eq!(entry.kind, LedgerKind::StaleReport);
    assert_eq!(entry.attempt, Some(attempt));
}

#[test]
fn an_agent_that_comes_back_has_time_to_open_its_way_for_outputs() {
    let (mut world, mut host, attempt) = travelling();
    world.pass(Duration::from_secs(599));
    world.handle(Event::Closed { conn: host.conn });
    world.hello(&mut host);
    world.pass(Duration::from_secs(119));
    assert!(!world.waits(attempt.job));
    world.pass(Duration::from_secs(1));
    assert!(world.waits(attempt.job));
}

#[test]
fn crashes_do_not_let_outputs_travel_for_ever() {
    let (mut world, mut host, attempt) = travelling();
    let mut lives = 0;
    while !world.waits(attempt.job) {
        world.pass(Duration::from_secs(5));
        world.restart();
        world.hello(&mut host);
        lives += 1;
        assert!(lives < 400, "they are never given up");
    }
    assert!(lives > 100, "{lives}");
}

#[test]
fn how_far_outputs_have_come_is_written_down_in_quarters_of_their_time() {
    let (mut world, _host, attempt) = travelling();
    let stored = |world: &World| match &world.store.jobs[&attempt.job].state {
        JobState::Live(live) => live.progress_deadline.unwrap(),
        other => panic!("{other:?}"),
    };
    let first = stored(&world);
    for (seconds, moved) in [(149, 0), (1, 150), (10, 150), (139, 150), (1, 300)] {
        world.now = world.now + Duration::from_secs(seconds);
        world.handle(Event::Progress { attempt });
        let since = stored(&world).since(first);
        assert_eq!(since, Duration::from_secs(moved));
    }
}
