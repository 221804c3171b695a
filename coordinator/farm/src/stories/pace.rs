//! Black holes: builders that fail jobs faster than jobs take, and who is none.

use super::*;
use crate::record::{Cleanliness, OperatorMode};
use blame::take;

#[test]
fn a_black_hole_is_taken_out_after_three_jobs() {
    let mut world = World::new();
    let mut good = world.ready(1);
    for number in 0..4 {
        world.submit(spec(&format!("fine{number}")));
        let attempt = world.offered(&good);
        take(&mut world, &mut good, attempt, 300, Outcome::Succeeded);
    }
    operators::set(&mut world, &good, OperatorMode::Manual);
    let mut hole = world.ready(2);
    for number in 0..3 {
        assert_eq!(world.record(&hole).mode, OperatorMode::Enabled);
        world.submit(spec(&format!("eaten{number}")));
        let attempt = world.offered(&hole);
        take(&mut world, &mut hole, attempt, 2, failed());
    }
    let record = world.record(&hole);
    assert_eq!(record.mode, OperatorMode::Quarantined);
    assert_eq!(record.mode_why.as_str(), "3 fast failures");
    world.clean(&mut hole);
    assert_eq!(world.record(&hole).cleanliness, Cleanliness::Clean);
    let numbers = "3 fast failures in a row, the last after 2 s, while 1 of the 1 others that";
    let judged = |entry: &LedgerEntry| entry.why.contains(numbers);
    assert!(world.store.ledger.iter().any(judged));
    let waiting = world.submit(spec("waiting"));
    let Ok(Reply::Explained { explanation, .. }) = world.ask(Command::Explain { job: waiting })
    else {
        panic!("refused");
    };
    let summary = explanation.unwrap().summary;
    let since = "2 builders match; 1 manual, 1 quarantined (3 fast failures since 00:20 UTC)";
    assert_eq!(summary, since);
}

/// Four jobs of one name take so long on a builder that then takes no more, and
/// another one is all there is.
fn after_four_of(text: &str, seconds: u64) -> (World, Host) {
    let mut world = World::new();
    let mut good = world.ready(1);
    for _ in 0..4 {
        world.submit(spec(text));
        let attempt = world.offered(&good);
        take(&mut world, &mut good, attempt, seconds, Outcome::Succeeded);
    }
    operators::set(&mut world, &good, OperatorMode::Manual);
    let host = world.ready(2);
    (world, host)
}

fn runs(world: &mut World, host: &mut Host, text: &str, seconds: u64, outcome: Outcome) {
    world.submit(spec(text));
    let attempt = world.offered(host);
    take(world, host, attempt, seconds, outcome);
}

#[test]
fn a_failure_is_fast_within_half_a_minute_or_a_tenth_of_what_is_usual() {
    for (text, seconds, is_fast) in [
        ("unknown", 29, true),
        ("unknown", 30, false),
        ("big", 99, true),
        ("big", 100, false),
    ] {
        let (mut world, mut host) = after_four_of("big", 1000);
        for _ in 0..3 {
            runs(&mut world, &mut host, text, seconds, failed());
        }
        let taken_out = world.record(&host).mode == OperatorMode::Quarantined;
        assert_eq!(taken_out, is_fast, "{text} after {seconds} s");
    }
}

#[test]
fn fast_failures_count_in_a_row_and_each_job_once() {
    let (mut world, mut host) = after_four_of("fine", 300);
    for (seconds, outcome) in [
        (2, failed()),
        (2, failed()),
        (2, Outcome::Succeeded),
        (2, failed()),
        (2, failed()),
        (300, failed()),
        (2, failed()),
        (2, failed()),
    ] {
        runs(&mut world, &mut host, "eaten", seconds, outcome);
        assert_eq!(world.record(&host).mode, OperatorMode::Enabled);
    }
    let (mut world, mut host) = after_four_of("fine", 300);
    world.submit(spec("poison"));
    for _ in 0..3 {
        let attempt = world.offered(&host);
        take(&mut world, &mut host, attempt, 2, builder_problem());
    }
    assert_eq!(world.record(&host).mode, OperatorMode::Enabled);
}

#[test]
fn what_lies_in_the_jobs_makes_no_black_hole_however_fast_it_is_found() {
    for kind in [
        FailureKind::Outputs,
        FailureKind::DependencyWait,
        FailureKind::Limit,
    ] {
        let (mut world, mut host) = after_four_of("fine", 300);
        for number in 0..4 {
            let why = Reason::cut("baz (>= 1.0.1)");
            let outcome = Outcome::Failed { kind, why };
            runs(&mut world, &mut host, &format!("job{number}"), 2, outcome);
        }
        assert_eq!(world.record(&host).mode, OperatorMode::Enabled, "{kind:?}");
    }
}

#[test]
fn jobs_that_take_seconds_may_fail_in_seconds() {
    for (seconds, is_fast) in [(2, false), (0, true)] {
        let (mut world, mut host) = after_four_of("quick", 4);
        for _ in 0..3 {
            runs(&mut world, &mut host, "quick", seconds, failed());
        }
        let taken_out = world.record(&host).mode == OperatorMode::Quarantined;
        assert_eq!(taken_out, is_fast, "after {seconds} s");
    }
}

#[test]
fn a_builder_alone_is_never_compared_with_itself() {
    let mut world = World::new();
    let mut host = world.ready(1);
    for number in 0..9 {
        let outcome = if number < 3 {
            Outcome::Succeeded
        } else {
            failed()
        };
        runs(&mut world, &mut host, &format!("job{number}"), 2, outcome);
    }
    assert_eq!(world.record(&host).mode, OperatorMode::Enabled);
    let next = world.submit(spec("next"));
    assert!(!world.waits(next), "nor does it rest");
}

#[test]
fn where_nobody_can_tell_yet_a_suspect_rests_until_the_others_have_shown_what_is_usual() {
    let mut world = World::new();
    let mut good: Vec<Host> = (1..=3).map(|number| world.ready(number)).collect();
    let mut hole = world.ready(4);
    for (number, host) in good.iter_mut().enumerate() {
        world.submit(spec(&format!("long{number}")));
        let attempt = world.offered(host);
        world.accept(host, attempt);
        world.start(host, attempt);
    }
    for number in 0..3 {
        runs(
            &mut world,
            &mut hole,
            &format!("eaten{number}"),
            2,
            failed(),
        );
    }
    let saved = world.submit(spec("saved"));
    assert!(world.waits(saved), "it rests");
    assert_eq!(world.record(&hole).mode, OperatorMode::Enabled);
    world.pass(Duration::from_secs(61));
    assert_eq!(world.record(&hole).mode, OperatorMode::Quarantined);
    assert!(
        world.waits(saved),
        "the three have run for a minute meanwhile"
    );
}

#[test]
fn jobs_that_fail_everywhere_make_no_black_hole() {
    let mut world = World::new();
    let mut hosts = [world.ready(1), world.ready(2)];
    for number in 0..20 {
        world.submit(spec(&format!("broken{number}")));
        // They did well before, both of them.
        let outcome = if number < 8 {
            Outcome::Succeeded
        } else {
            failed()
        };
        let offers = world.offers();
        let host = hosts
            .iter_mut()
            .find(|host| offers.iter().any(|(conn, _)| *conn == host.conn))
            .unwrap();
        take(&mut world, host, offers[0].1, 2, outcome);
    }
    for host in &hosts {
        assert_eq!(world.record(host).mode, OperatorMode::Enabled);
    }
}
