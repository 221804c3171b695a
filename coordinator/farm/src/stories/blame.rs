//! Who is at fault, breaches, and what an explanation knows.

use super::*;
use crate::blame::{Judgement, judge};
use crate::record::OperatorMode;
use farmbell_protocol::agent_to_coordinator::{Fitness, Refusal};

/// Runs the job offered to this host for so long, to its verdict or return.
pub(super) fn take(
    world: &mut World,
    host: &mut Host,
    attempt: AttemptId,
    seconds: u64,
    outcome: Outcome,
) {
    world.accept(host, attempt);
    world.start(host, attempt);
    world.now = world.now + Duration::from_secs(seconds);
    world.end(host, attempt, outcome);
    world.seal(host, attempt);
    let order = world.reset_order();
    world.deliver(attempt);
    if let Some(nonce) = order.filter(|nonce| world.record(host).nonce == Some(*nonce)) {
        world.prove(host, nonce);
    }
}

#[test]
fn a_tie_blames_neither_and_more_strikes_are_guilty() {
    assert_eq!(judge(1, 1), Judgement::Neither);
    assert_eq!(judge(2, 1), Judgement::Builder);
    assert_eq!(judge(1, 2), Judgement::Job);
    assert_eq!(judge(5, 5), Judgement::Neither);
}

#[test]
fn a_job_that_fails_on_every_good_builder_has_failed() {
    let mut world = World::new();
    let mut hosts: Vec<Host> = (1..=3).map(|number| world.ready(number)).collect();
    let job = world.submit(spec("poison"));
    for _ in 0..3 {
        let JobState::Live(live) = world.store.jobs[&job].state.clone() else {
            panic!("it is on some builder");
        };
        let host = hosts
            .iter_mut()
            .find(|host| host.builders[0].name == live.builder_name)
            .unwrap();
        world.run(host, live.id, builder_problem());
        world.deliver(live.id);
    }
    let Some(Verdict::Failed { why, .. }) = world.verdict(job) else {
        panic!("{:?}", world.verdict(job));
    };
    assert!(why.contains("every builder"), "{why}");
    for host in &hosts[1..] {
        assert_eq!(world.record(host).strikes, 0, "they are cleared");
    }
}

#[test]
fn the_history_tells_who_was_to_blame_and_the_strikes_of_both() {
    let mut world = World::new();
    let mut first = world.ready(1);
    let mut second = world.ready(2);
    world.submit(spec("poison"));
    let attempt = world.offered(&first);
    take(&mut world, &mut first, attempt, 40, builder_problem());
    let JobState::Live(live) = world.store.jobs[&attempt.job].state.clone() else {
        panic!("the other has it at once");
    };
    take(&mut world, &mut second, live.id, 40, builder_problem());
    let innocent = world.submit(spec("innocent"));
    let attempt = world.offered(&first);
    assert_eq!(attempt.job, innocent);
    take(&mut world, &mut first, attempt, 40, builder_problem());
    let told: Vec<&str> = world
        .store
        .ledger
        .iter()
        .filter(|entry| entry.kind == LedgerKind::Blamed)
        .filter_map(|entry| entry.why.split(';').next())
        .collect();
    let expected = [
        "neither is to blame: the builder has 1 strikes, the job 1",
        "the job is to blame: the builder has 1 strikes, the job 2",
        "the builder is to blame: the builder has 2 strikes, the job 1",
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_result_that_is_not_the_builders_fault_clears_it() {
    let mut world = World::new();
    let mut host = world.ready(1);
    world.submit(spec("one"));
    let mut attempt = world.offered(&host);
    world.submit(spec("two"));
    for (outcome, strikes) in [
        (builder_problem(), 1),
        (builder_problem(), 2),
        (Outcome::Succeeded, 0),
        (builder_problem(), 1),
    ] {
        take(&mut world, &mut host, attempt, 40, outcome);
        assert_eq!(world.record(&host).strikes, strikes);
        attempt = world.offered(&host);
    }
    take(&mut world, &mut host, attempt, 40, failed());
    assert_eq!(world.record(&host).strikes, 0);
}

#[test]
fn a_builder_that_fails_job_after_job_is_quarantined_and_the_jobs_go_on() {
    let mut world = World::new();
    let mut bad = world.ready(1);
    let mut jobs = Vec::new();
    for number in 0..5 {
        world.now = world.now + Duration::from_secs(60);
        let job = world.submit(spec(&format!("innocent{number}")));
        jobs.push(job);
        let attempt = world.offered(&bad);
        let good = world.ready(10 + number);
        take(&mut world, &mut bad, attempt, 40, builder_problem());
        let JobState::Live(live) = &world.store.jobs[&job].state else {
            panic!("another builder has it");
        };
        assert_eq!(live.builder_name, good.builders[0].name);
    }
    assert_eq!(world.record(&bad).mode, OperatorMode::Quarantined);
    assert!(jobs.iter().all(|job| world.verdict(*job).is_none()));
}

#[test]
fn a_clean_builder_that_turns_out_busy_is_taken_out_at_once() {
    let mut world = World::new();
    let over = world.submit(spec("over"));
    world.cancel(over).unwrap();
    let mut host = world.ready(1);
    let stray = AttemptId {
        job: over,
        generation: 1,
        number: 1,
        nonce: 5,
    };
    host.builders[0].occupied_by = Some(stray);
    world.hold(&mut host, stray, AttemptPhase::Running);
    world.hello(&mut host);
    assert!(matches!(world.standing(stray), Standing::Abandon { .. }));
    let record = world.record(&host);
    assert_eq!(record.mode, OperatorMode::Quarantined);
    assert!(
        record.mode_why.contains("isolation breach"),
        "{}",
        record.mode_why
    );
    world.clean(&mut host);
    assert_eq!(
        world.record(&host).mode,
        OperatorMode::Quarantined,
        "a reset is no pardon"
    );
}

/// A builder whose silent attempt waits to be run elsewhere, and its host.
fn silent() -> (World, Host, AttemptId) {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    world.handle(Event::Closed { conn: host.conn });
    world.pass(Duration::from_secs(301));
    assert!(world.waits(attempt.job));
    (world, host, attempt)
}

#[test]
fn a_job_found_on_a_clean_builder_ends_with_it() {
    let (mut world, mut host, attempt) = silent();
    // The agent forgets the attempt and proves the builder clean.
    host.held.clear();
    operators::set(&mut world, &host, OperatorMode::Manual);
    world.hello(&mut host);
    world.clean(&mut host);
    host.builders[0].occupied_by = Some(attempt);
    world.hello(&mut host);
    let Some(Verdict::Infrastructure { why }) = world.verdict(attempt.job) else {
        panic!("{:?}", world.verdict(attempt.job));
    };
    assert!(why.contains("isolation breach"), "{why}");
    assert_eq!(world.record(&host).mode, OperatorMode::Quarantined);
}

#[test]
fn an_attempt_that_another_builder_had_ends_no_job() {
    let (mut world, _, attempt) = silent();
    let mut other = world.host(2);
    world.hello(&mut other);
    let nonce = world.reset_order().expect("it is new");
    operators::set(&mut world, &other, OperatorMode::Manual);
    world.prove(&mut other, nonce);
    other.builders[0].occupied_by = Some(attempt);
    world.hello(&mut other);
    assert_eq!(world.record(&other).mode, OperatorMode::Quarantined);
    assert!(world.waits(attempt.job), "it never ran there");
}

#[test]
fn another_attempt_than_the_one_it_holds_is_a_breach() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "ours");
    let other = AttemptId {
        nonce: attempt.nonce ^ 1,
        ..attempt
    };
    host.builders[0].occupied_by = Some(other);
    world.hello(&mut host);
    assert!(matches!(world.standing(attempt), Standing::Abandon { .. }));
    assert!(world.waits(attempt.job), "ours is run elsewhere");
    assert_eq!(world.record(&host).mode, OperatorMode::Quarantined);
    let kinds = world.store.kinds();
    assert!(kinds.contains(&LedgerKind::IsolationBreach));
}

#[test]
fn a_builder_that_says_occupied_to_an_offer_is_taken_out_and_the_job_goes_on() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let job = world.submit(spec("hello"));
    let attempt = world.offered(&host);
    let seq = World::next_seq(&mut host, attempt);
    world.report(
        &host,
        AgentFrame::Refused(farmbell_protocol::agent_to_coordinator::Refused {
            attempt,
            seq,
            refusal: Refusal::Occupied,
            why: Reason::cut("somebody is here"),
        }),
    );
    assert_eq!(world.record(&host).mode, OperatorMode::Quarantined);
    assert!(world.waits(job));
    assert_eq!(world.store.jobs[&job].refunded, 1, "it cost no attempt");
    assert!(world.reset_order().is_some(), "and is reset");
}

#[test]
fn an_explanation_says_when_a_builder_may_come_free() {
    let mut world = World::new();
    let mut host = world.ready(1);
    world.submit(spec("hello"));
    let attempt = world.offered(&host);
    take(&mut world, &mut host, attempt, 600, Outcome::Succeeded);
    let again = world.submit(spec("hello"));
    let attempt = world.offered(&host);
    assert_eq!(attempt.job, again);
    world.accept(&mut host, attempt);
    world.start(&mut host, attempt);
    world.now = world.now + Duration::from_secs(360);
    let waiting = world.submit(spec("other"));
    let Ok(Reply::Explained { explanation, .. }) = world.ask(Command::Explain { job: waiting })
    else {
        panic!("refused");
    };
    let summary = explanation.unwrap().summary;
    assert_eq!(summary, "1 builder matches; 1 busy (first free in ~4 min)");
}

#[test]
fn a_builders_next_word_ends_its_refusals_and_not_its_failures() {
    let mut world = World::new();
    let mut first = world.ready(1);
    let mut second = world.ready(2);
    let job = world.submit(spec("hello"));
    let attempt = world.offered(&first);
    operators::refuse(&mut world, &mut first, attempt, Refusal::Input);
    let attempt = world.offered(&second);
    operators::refuse(&mut world, &mut second, attempt, Refusal::Input);
    world.clean(&mut second);
    assert!(world.waits(job), "both have refused it");
    reasons::fitness(&mut world, &mut second, Fitness::Fit);
    let attempt = world.offered(&second);
    assert_eq!(attempt.number, 3, "the other's refusal stands");
    take(&mut world, &mut second, attempt, 1, builder_problem());
    reasons::fitness(&mut world, &mut second, Fitness::Fit);
    assert!(world.offers().is_empty(), "it has failed the job");
}

#[test]
fn a_builders_next_word_ends_no_other_builders_refusal() {
    let mut world = World::new();
    let mut hosts = [world.ready(1), world.ready(2)];
    let job = world.submit(spec("hello"));
    for host in &mut hosts {
        let attempt = world.offered(host);
        operators::refuse(&mut world, host, attempt, Refusal::Input);
    }
    // The first is clean again, and does not say that anything has changed.
    let [first, second] = &mut hosts;
    let nonce = world.record(first).nonce.expect("it is being reset");
    world.prove(first, nonce);
    reasons::fitness(&mut world, second, Fitness::Fit);
    assert!(
        world.waits(job),
        "the first has refused it, the second is dirty"
    );
}

#[test]
fn a_job_that_failed_everywhere_goes_to_the_last_builder_again() {
    let mut world = World::new();
    let mut first = world.ready(1);
    let mut second = world.ready(2);
    let job = world.submit(spec("hello"));
    let attempt = world.offered(&first);
    take(&mut world, &mut first, attempt, 40, builder_problem());
    let live = |world: &World| match world.store.jobs[&job].state.clone() {
        JobState::Live(live) => (live.id, live.builder_name),
        other => panic!("{other:?}"),
    };
    let (attempt, on) = live(&world);
    assert_eq!(on, second.builders[0].name);
    take(&mut world, &mut second, attempt, 40, builder_problem());
    let (attempt, on) = live(&world);
    assert_eq!((attempt.number, on), (3, second.builders[0].name.clone()));
}

#[test]
fn a_job_passes_over_all_that_refused_it() {
    let mut world = World::new();
    let mut first = world.ready(1);
    let mut second = world.ready(2);
    let job = world.submit(spec("hello"));
    let attempt = world.offered(&first);
    operators::refuse(&mut world, &mut first, attempt, Refusal::Input);
    let attempt = world.offered(&second);
    world.clean(&mut first);
    operators::refuse(&mut world, &mut second, attempt, Refusal::Input);
    world.clean(&mut second);
    assert!(world.waits(job), "two stand free and have refused it");
    let third = world.ready(3);
    assert_eq!(world.offered(&third).job, job);
}

#[test]
fn a_builder_that_failed_a_job_is_passed_over_for_ten_minutes() {
    let mut world = World::new();
    let mut first = world.ready(1);
    let mut second = world.ready(2);
    let job = world.submit(spec("hello"));
    let attempt = world.offered(&first);
    world.submit(spec("other"));
    let other = world.offered(&second);
    world.accept(&mut second, other);
    world.start(&mut second, other);
    take(&mut world, &mut first, attempt, 1, builder_problem());
    world.pass(Duration::from_secs(9 * 60));
    assert!(world.waits(job), "nobody else is free");
    world.pass(Duration::from_secs(61));
    assert!(!world.waits(job), "it is asked again");
}

#[test]
fn a_restart_does_not_give_a_job_back_to_the_builder_that_failed_it() {
    let mut world = World::new();
    let mut first = world.ready(1);
    let mut second = world.ready(2);
    let job = world.submit(spec("hello"));
    let attempt = world.offered(&first);
    world.running(&mut second, "other");
    take(&mut world, &mut first, attempt, 1, builder_problem());
    world.restart();
    world.hello(&mut second);
    world.hello(&mut first);
    assert!(world.offers().is_empty() && world.waits(job));
    world.pass(Duration::from_secs(119));
    assert!(world.waits(job), "it has failed the job");
    world.pass(Duration::from_secs(2));
    assert!(
        !world.waits(job),
        "what is left of the time is not known: grace is"
    );
}

#[test]
fn restarts_do_not_keep_a_job_from_a_builder_for_ever() {
    let mut world = World::new();
    let mut first = world.ready(1);
    let mut second = world.ready(2);
    let job = world.submit(spec("hello"));
    let attempt = world.offered(&first);
    world.running(&mut second, "other");
    take(&mut world, &mut first, attempt, 1, builder_problem());
    for _ in 0..40 {
        world.restart();
        world.hello(&mut second);
        world.hello(&mut first);
        world.clean_if_ordered(&mut first);
        world.pass(Duration::from_secs(60));
        if !world.waits(job) {
            return;
        }
    }
    panic!("every restart begins the time anew");
}

#[test]
fn a_builder_that_is_away_or_unfit_is_no_other_one_that_could_take_the_job() {
    for how in 0..3 {
        let mut world = World::new();
        let mut first = world.ready(1);
        let mut second = world.ready(2);
        match how {
            0 => world.handle(Event::Closed { conn: second.conn }),
            1 => reasons::fitness(&mut world, &mut second, Fitness::DiskLow),
            _ => {
                let act = crate::event::AgentAct::Revoke;
                let agent = world.record(&second).agent;
                let why = Text::default();
                let asked = world.ask(Command::Agent { agent, act, why });
                asked.unwrap();
            }
        }
        world.submit(spec("hello"));
        let attempt = world.offered(&first);
        world.run(&mut first, attempt, builder_problem());
        world.clean_if_ordered(&mut first);
        world.deliver(attempt);
        world.clean_if_ordered(&mut first);
        assert!(
            !world.waits(attempt.job),
            "{how}: nobody else could take it"
        );
    }
}

#[test]
fn a_builder_that_can_start_nothing_is_taken_out_and_costs_no_job_its_attempts() {
    let mut world = World::new();
    let mut broken = world.ready(1);
    let jobs: Vec<JobId> = (0..8)
        .map(|number| world.submit(spec(&format!("job{number}"))))
        .collect();
    for refusals in 1..=5 {
        assert_eq!(world.record(&broken).mode, OperatorMode::Enabled);
        let JobState::Live(live) = world
            .store
            .jobs
            .values()
            .map(|job| job.state.clone())
            .find(|state| matches!(state, JobState::Live(_)))
            .expect("it is given one after the other")
        else {
            unreachable!()
        };
        operators::refuse(&mut world, &mut broken, live.id, Refusal::Unfit);
        assert_eq!(world.record(&broken).strikes, refusals);
        world.clean_if_ordered(&mut broken);
    }
    let record = world.record(&broken);
    assert_eq!(record.mode, OperatorMode::Quarantined);
    assert!(record.mode_why.contains("refused"), "{}", record.mode_why);
    let used = |job: &JobId| {
        let job = &world.store.jobs[job];
        job.attempt_number - job.refunded
    };
    let used: u16 = jobs.iter().map(used).sum();
    assert_eq!(used, 1, "only the tie counts");
}

#[test]
fn a_host_that_loses_its_builds_is_passed_over_and_then_taken_out() {
    let mut world = World::new();
    let mut busy = world.ready(1);
    world.running(&mut busy, "long");
    let mut flaky = world.ready(2);
    let mut lost = Vec::new();
    for reboots in 1..=5_u8 {
        world.submit(spec(&format!("job{reboots}")));
        let live = world.offered(&flaky);
        world.accept(&mut flaky, live);
        world.start(&mut flaky, live);
        world.handle(Event::Closed { conn: flaky.conn });
        flaky.hello.boot = BootId([100 + reboots; 16]);
        world.hello(&mut flaky);
        assert!(matches!(world.standing(live), Standing::Abandon { .. }));
        assert_eq!(world.record(&flaky).strikes, u16::from(reboots));
        flaky.held.clear();
        lost.push(live.job);
        world.clean_if_ordered(&mut flaky);
        let again = world.offers();
        assert!(
            again.iter().all(|(_, offer)| !lost.contains(&offer.job)),
            "what it lost goes elsewhere"
        );
    }
    assert_eq!(world.record(&flaky).mode, OperatorMode::Quarantined);
}

#[test]
fn a_result_that_is_given_back_pauses_where_it_goes_to_the_same_builder_again() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let job = world.submit(spec("later"));
    let attempt = world.offered(&host);
    let why = Reason::cut("the mirror is away");
    take(
        &mut world,
        &mut host,
        attempt,
        1,
        Outcome::GivenBack { why },
    );
    assert!(world.waits(job));
    world.pass(Duration::from_secs(59));
    assert!(world.waits(job));
    world.pass(Duration::from_secs(2));
    assert!(!world.waits(job));
}

#[test]
fn a_builder_that_is_occupied_by_its_own_attempt_breaks_nothing() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    host.builders[0].occupied_by = Some(attempt);
    world.hello(&mut host);
    assert_eq!(world.record(&host).mode, OperatorMode::Enabled);
    assert!(!world.store.kinds().contains(&LedgerKind::IsolationBreach));
    world.end(&mut host, attempt, Outcome::Succeeded);
    world.seal(&mut host, attempt);
    world.deliver(attempt);
    assert_eq!(world.verdict(attempt.job), Some(Verdict::Succeeded));
}
