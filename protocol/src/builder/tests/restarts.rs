//! The agent dies, the host reboots: what the spool says goes on.

use super::*;
use crate::agent_to_coordinator::AttemptPhase;
use crate::bounded::Reason;

fn found(attempt: AttemptId, running: bool, end: Option<EndReport>) -> HostView {
    HostView {
        boot: BOOT,
        survivors: vec![Survivor {
            attempt,
            phase: AttemptPhase::Running,
            running,
            end,
        }],
    }
}

fn rebooted() -> HostView {
    HostView {
        boot: OTHER_BOOT,
        survivors: Vec::new(),
    }
}

fn level(bench: &mut Bench, attempt: AttemptId, acked: u64) -> Vec<(u64, &'static str)> {
    let standing = Standing::Continue { acked: Seq(acked) };
    bench.link(2, &[(attempt, standing)]);
    bench.words()
}

/// At every step of an attempt: a restart, with the spool as it was written
/// or as it was rewritten, repeats the same reports under the same numbers.
#[test]
fn a_restored_builder_repeats_the_same_reports_under_the_same_numbers() {
    let steps = [
        Event::Offer {
            attempt: id(1),
            spec: Box::new(spec()),
        },
        Event::Started { attempt: id(1) },
        Event::Abort {
            attempt: id(1),
            why: Reason::default(),
        },
        Event::Ended {
            attempt: id(1),
            report: succeeded(),
        },
        Event::Sealed {
            attempt: id(1),
            report: seal(),
        },
        Event::OutputsLost {
            attempt: id(1),
            why: Reason::default(),
        },
    ];
    let mut b = Bench::clean(1);
    let mut running = false;
    for step in steps {
        running |= matches!(step, Event::Started { .. });
        running &= !matches!(step, Event::Ended { .. });
        b.tell(step);
        let before = level(&mut b, id(1), 0);
        let host = if running {
            found(id(1), true, None)
        } else {
            same_boot()
        };
        b.spool = b.builder.records();
        b.restart(&host);
        assert_eq!(level(&mut b, id(1), 0), before);
        b.restart(&host);
        assert_eq!(level(&mut b, id(1), 0), before);
    }
    assert_eq!(b.words().len(), 5);
}

#[test]
fn a_running_attempt_is_adopted() {
    let mut b = Bench::clean(1);
    b.offer(id(1));
    b.tell(Event::Started { attempt: id(1) });
    b.restart(&found(id(1), true, None));
    assert_eq!(b.asked, [Effect::Upload { attempt: id(1) }]);
    assert_eq!(b.builder.occupant(), Some(id(1)));
    b.end(id(1));
    assert_eq!(level(&mut b, id(1), 2), [(3, "ended")]);
}

#[test]
fn an_end_while_the_agent_was_away_is_found() {
    let mut b = Bench::clean(1);
    b.offer(id(1));
    b.restart(&found(id(1), false, Some(succeeded())));
    assert_eq!(b.asked, [Effect::Seal { attempt: id(1) }]);
    assert_eq!(level(&mut b, id(1), 1), [(2, "started"), (3, "ended")]);
}

#[test]
fn what_never_ran_is_started_and_what_died_is_not_started_again() {
    let mut b = Bench::clean(1);
    b.offer(id(1));
    b.restart(&same_boot());
    assert!(matches!(b.asked[..], [Effect::Start { .. }]));
    b.restart(&rebooted());
    assert!(b.asked.is_empty(), "the host is not the clean one it was");
    assert_eq!(level(&mut b, id(1), 1), [(2, "occupied")]);

    let mut b = Bench::clean(1);
    b.offer(id(1));
    b.restart(&found(id(1), false, None));
    assert_eq!(b.asked, [Effect::Seal { attempt: id(1) }]);
    assert_eq!(level(&mut b, id(1), 1), [(2, "started"), (3, "ended:lost")]);
}

#[test]
fn a_reboot_ends_what_ran_and_unproves_what_was_clean() {
    let mut b = Bench::clean(1);
    b.restart(&rebooted());
    b.link(2, &[]);
    b.offer(id(1));
    assert_eq!(b.words(), [(1, "occupied")]);

    let mut b = Bench::clean(1);
    b.offer(id(1));
    b.tell(Event::Started { attempt: id(1) });
    b.restart(&rebooted());
    assert_eq!(level(&mut b, id(1), 2), [(3, "ended:lost")]);
}

/// What a build wrote no disk has promised before it is sealed.
#[test]
fn a_reboot_loses_the_outputs_of_a_success_that_was_not_sealed() {
    let after_reboot = |end: Option<EndReport>| HostView {
        boot: OTHER_BOOT,
        ..found(id(1), false, end)
    };
    // The spool knows of the end, or the exit record alone.
    for known in [true, false] {
        let mut b = Bench::clean(1);
        b.offer(id(1));
        b.tell(Event::Started { attempt: id(1) });
        if known {
            let (attempt, report) = (id(1), succeeded());
            b.tell(Event::Ended { attempt, report });
        }
        b.restart(&after_reboot(Some(succeeded())));
        assert!(!b.asked.contains(&Effect::Seal { attempt: id(1) }));
        let told = level(&mut b, id(1), 2);
        assert_eq!(told, [(3, "ended"), (4, "outputs-lost")], "{known}");
    }
    // Of a failure nothing but the log is kept.
    let mut b = Bench::clean(1);
    b.offer(id(1));
    let failed = EndReport::unseen(Outcome::Aborted);
    b.restart(&after_reboot(Some(failed)));
    assert_eq!(b.asked, [Effect::Seal { attempt: id(1) }]);
}

#[test]
fn a_reboot_is_not_forgotten_by_a_crash_amid_the_restart() {
    let mut b = Bench::clean(1);
    let before = b.spool.clone();
    b.restart(&rebooted());
    // The agent dies when the first of the restart's records is durable.
    let first = b.spool[before.len()].clone();
    b.spool = [before, vec![first]].concat();
    b.restart(&rebooted());
    b.link(2, &[]);
    b.offer(id(1));
    assert_eq!(b.words(), [(1, "occupied")]);
}

#[test]
fn a_restart_of_the_agent_alone_leaves_a_clean_builder_clean() {
    let mut b = Bench::clean(1);
    b.restart(&same_boot());
    b.link(2, &[]);
    b.offer(id(1));
    assert_eq!(b.words(), [(1, "accepted")]);
}

#[test]
fn stops_are_asked_for_again() {
    let mut b = Bench::clean(1);
    b.offer(id(1));
    b.tell(Event::Started { attempt: id(1) });
    b.tell(Event::Abandon {
        attempt: id(1),
        why: Reason::default(),
    });
    b.restart(&found(id(1), true, None));
    let grace = Duration::ZERO;
    assert!(b.asked.contains(&Effect::Stop {
        attempt: id(1),
        grace
    }));
    b.restart(&rebooted());
    assert_eq!(b.asked, [Effect::Release { attempt: id(1) }]);
}

#[test]
fn an_interrupted_reset_is_run_again_unless_the_reboot_was_it() {
    let mut b = Bench::new();
    let nonce = CleanNonce(5);
    b.tell(Event::ResetOrdered { nonce });
    b.restart(&same_boot());
    assert_eq!(b.asked, [Effect::Reset { nonce }]);

    let inside = Settings {
        reset_scope: ResetScope::Host,
        ..settings()
    };
    let (_, effects) = Builder::restore(inside, b.spool, &rebooted(), Time::ZERO);
    assert!(effects.contains(&Effect::Probe { nonce }));
}

#[test]
fn what_no_record_knows_is_stopped_before_anything_else_happens() {
    let mut b = Bench::clean(1);
    b.restart(&found(id(9), true, None));
    let grace = Duration::ZERO;
    assert_eq!(
        b.asked,
        [Effect::Stop {
            attempt: id(9),
            grace
        }]
    );
    b.link(2, &[]);
    b.offer(id(1));
    assert_eq!(b.words(), [(1, "occupied")]);
    b.end(id(9));
    assert_eq!(b.asked, [Effect::Release { attempt: id(9) }]);
    b.offer(id(2));
    assert_eq!(b.words(), [(1, "accepted")]);
}

#[test]
fn a_changed_fitness_survives_a_restart_and_is_taken_back() {
    let mut b = Bench::new();
    b.tell(Event::Drain);
    b.tell(Event::BuilderAcked { seq: Seq(1) });
    b.spool = b.builder.records();
    b.restart(&same_boot());
    b.link(1, &[]);
    assert_eq!(b.words(), [(2, "fit")]);
}
