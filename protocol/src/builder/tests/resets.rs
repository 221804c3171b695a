//! Resets, proofs and fitness.

use super::*;
use crate::agent_to_coordinator::{ResetStage, ScriptFailure};
use crate::bounded::{Blob, Reason};
use crate::outcome::ExitStatus;

fn failed() -> ResetReport {
    ResetReport::Failed {
        stage: ResetStage::Reset,
        failure: ScriptFailure::Exit(ExitStatus::Code(1)),
        stdout: Blob::tail(b"out"),
        stderr: Blob::tail(b"err"),
    }
}

fn order(bench: &mut Bench, nonce: u64) {
    bench.tell(Event::ResetOrdered {
        nonce: CleanNonce(nonce),
    });
}

#[test]
fn a_repeated_order_is_the_same_run() {
    let mut b = Bench::new();
    order(&mut b, 5);
    assert_eq!(
        b.asked,
        [Effect::Reset {
            nonce: CleanNonce(5)
        }]
    );
    order(&mut b, 5);
    assert!(b.asked.is_empty());
}

#[test]
fn the_newest_order_wins_and_an_old_answer_proves_nothing() {
    let mut b = Bench::new();
    order(&mut b, 5);
    order(&mut b, 6);
    assert!(b.asked.is_empty(), "one reset at a time");
    let report = ResetReport::Clean {
        reset: Duration::ZERO,
        probe: Duration::ZERO,
    };
    b.tell(Event::ResetEnded {
        nonce: CleanNonce(5),
        report: report.clone(),
    });
    assert_eq!(
        b.asked,
        [Effect::Reset {
            nonce: CleanNonce(6)
        }]
    );
    b.tell(Event::ResetEnded {
        nonce: CleanNonce(5),
        report,
    });
    b.offer(id(1));
    assert_eq!(b.words(), [(1, "occupied")]);
}

#[test]
fn no_reset_runs_beside_an_attempt() {
    let mut b = Bench::clean(1);
    b.offer(id(1));
    order(&mut b, 2);
    assert!(b.asked.is_empty());
    b.tell(Event::Started { attempt: id(1) });
    b.end(id(1));
    b.seal(id(1));
    assert_eq!(
        b.asked,
        [
            Effect::Upload { attempt: id(1) },
            Effect::Reset {
                nonce: CleanNonce(2)
            }
        ]
    );
}

#[test]
fn a_reset_that_would_destroy_the_spool_waits_for_the_outputs() {
    let mut b = Bench::with(Settings {
        spool_survives_reset: false,
        ..settings()
    });
    b.make_clean(1);
    b.build(id(1));
    order(&mut b, 2);
    assert!(b.asked.is_empty());
    b.tell(Event::Committed { attempt: id(1) });
    assert_eq!(
        b.asked,
        [
            Effect::Release { attempt: id(1) },
            Effect::Reset {
                nonce: CleanNonce(2)
            }
        ]
    );
}

#[test]
fn a_failed_reset_is_reported_with_both_streams_and_leaves_it_dirty() {
    let mut b = Bench::new();
    order(&mut b, 5);
    b.tell(Event::ResetEnded {
        nonce: CleanNonce(5),
        report: failed(),
    });
    let [AgentFrame::ResetFailed(frame)] = &b.said[..] else {
        panic!("{:?}", b.said);
    };
    assert_eq!((&*frame.stdout, &*frame.stderr), (&b"out"[..], &b"err"[..]));
    b.offer(id(1));
    assert_eq!(b.words(), [(1, "occupied")]);
    order(&mut b, 5);
    assert!(b.asked.is_empty(), "answered already");
    order(&mut b, 6);
    assert_eq!(
        b.asked,
        [Effect::Reset {
            nonce: CleanNonce(6)
        }]
    );
}

#[test]
fn what_cannot_be_killed_puts_the_builder_out_of_service_until_a_reboot() {
    let mut b = Bench::clean(1);
    b.offer(id(1));
    b.tell(Event::Started { attempt: id(1) });
    let why = Reason::cut("a process in state D");
    b.tell(Event::Unkillable {
        attempt: id(1),
        why,
    });
    assert_eq!(b.words(), [(3, "unkillable")]);
    order(&mut b, 2);
    assert!(b.asked.is_empty());

    b.restart(&same_boot());
    b.restart(&HostView {
        boot: OTHER_BOOT,
        survivors: Vec::new(),
    });
    b.link(3, &[(id(1), Standing::Continue { acked: Seq(2) })]);
    assert_eq!(b.words(), [(4, "fit"), (3, "ended:lost")]);
}

#[test]
fn reports_of_a_new_spool_are_numbered_above_what_the_coordinator_has() {
    let mut b = Bench::new();
    b.tell(Event::Unlinked);
    order(&mut b, 1);
    b.link(40, &[]);
    // Nor does it know what was said of its fitness.
    let said = [(41, "reset-started"), (42, "fit")];
    assert_eq!(b.words(), said);
    b.restart(&same_boot());
    b.link(40, &[]);
    assert_eq!(b.words(), said);
    b.tell(Event::BuilderAcked { seq: Seq(42) });
    b.tell(Event::Unlinked);
    b.link(42, &[]);
    assert!(b.words().is_empty());
}
