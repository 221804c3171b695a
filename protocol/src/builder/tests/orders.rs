//! Offers, aborts, abandons and commits in every phase.

use super::*;
use crate::agent_to_coordinator::Refusal;
use crate::bounded::Reason;

fn abort(bench: &mut Bench, attempt: AttemptId) {
    let why = Reason::default();
    bench.tell(Event::Abort { attempt, why });
}

fn abandon(bench: &mut Bench, attempt: AttemptId) {
    let why = Reason::default();
    bench.tell(Event::Abandon { attempt, why });
}

fn not_started(attempt: AttemptId) -> Event {
    Event::NotStarted {
        attempt,
        refusal: Refusal::Input,
        why: Reason::default(),
    }
}

#[test]
fn an_attempt_goes_from_offer_to_release() {
    let mut b = Bench::clean(1);
    b.offer(id(1));
    assert_eq!(b.words(), [(1, "accepted")]);
    assert!(matches!(b.asked[..], [Effect::Start { .. }]));
    b.tell(Event::Started { attempt: id(1) });
    assert_eq!(b.words(), [(2, "started")]);
    b.end(id(1));
    assert_eq!(b.words(), [(3, "ended")]);
    assert_eq!(b.asked, [Effect::Seal { attempt: id(1) }]);
    assert_eq!(b.builder.occupant(), Some(id(1)));
    b.seal(id(1));
    assert_eq!(b.words(), [(4, "sealed")]);
    assert_eq!(b.builder.occupant(), None, "free while outputs travel");
    b.tell(Event::Committed { attempt: id(1) });
    assert_eq!(b.asked, [Effect::Release { attempt: id(1) }]);
    assert!(b.builder.hello(BuilderIndex(0)).1.is_empty());
}

#[test]
fn a_record_is_spooled_before_what_it_says() {
    let mut b = Bench::clean(1);
    let effects = b.builder.handle(
        Time::ZERO,
        Event::Offer {
            attempt: id(1),
            spec: Box::new(spec()),
        },
    );
    assert!(matches!(
        effects[..],
        [Effect::Spool(_), Effect::Say(_), Effect::Start { .. }]
    ));
}

#[test]
fn only_a_clean_and_free_builder_takes_an_offer() {
    let mut dirty = Bench::new();
    dirty.offer(id(1));
    assert_eq!(dirty.words(), [(1, "occupied")]);

    let mut b = Bench::clean(1);
    b.offer(id(1));
    b.offer(id(2));
    assert_eq!(b.words(), [(1, "occupied")]);
    b.tell(Event::Started { attempt: id(1) });
    b.end(id(1));
    b.seal(id(1));
    b.offer(id(3));
    assert_eq!(b.words(), [(1, "occupied")], "free, but dirty");
    b.make_clean(2);
    b.offer(id(4));
    assert_eq!(b.words(), [(1, "accepted")]);
}

#[test]
fn what_a_builder_cannot_do_it_refuses_by_name() {
    let mut b = Bench::clean(1);
    let mut other = spec();
    other.recipe = Name::cut("rpm");
    b.tell(Event::Offer {
        attempt: id(1),
        spec: Box::new(other),
    });
    let [AgentFrame::Refused(refused)] = &b.said[..] else {
        panic!("{:?}", b.said);
    };
    assert_eq!(refused.refusal, Refusal::UnknownRecipe);
    assert!(refused.why.contains("'rpm'") && refused.why.contains("command"));

    let mut other = spec();
    other.virtualized = true;
    b.tell(Event::Offer {
        attempt: id(2),
        spec: Box::new(other),
    });
    assert_eq!(b.words(), [(1, "unfit")]);
    b.offer(id(3));
    assert_eq!(b.words(), [(1, "accepted")], "a refusal leaves it clean");
}

#[test]
fn the_same_offer_again_is_answered_with_the_present_state() {
    let mut b = Bench::clean(1);
    b.offer(id(1));
    b.offer(id(1));
    assert_eq!(b.words(), [(1, "accepted")]);
    assert!(b.asked.is_empty(), "it is not started twice");
    b.tell(Event::Started { attempt: id(1) });
    b.ack(id(1), 2);
    b.offer(id(1));
    assert_eq!(b.words(), [(2, "started")]);
}

#[test]
fn a_refusal_is_kept_until_it_is_acknowledged() {
    let mut b = Bench::new();
    b.offer(id(1));
    b.tell(Event::Unlinked);
    b.link(0, &[(id(1), Standing::Continue { acked: Seq(0) })]);
    assert_eq!(b.words(), [(1, "occupied")]);
    b.ack(id(1), 1);
    assert!(b.builder.hello(BuilderIndex(0)).1.is_empty());
}

#[test]
fn beyond_the_backlog_no_offer_is_taken_and_it_says_so() {
    let mut b = Bench::clean(1);
    b.build(id(1));
    b.make_clean(2);
    b.build(id(2));
    assert_eq!(b.words().last().unwrap().1, "backlog");
    b.make_clean(3);
    b.offer(id(3));
    assert_eq!(b.words(), [(1, "backlog")]);
    b.tell(Event::Committed { attempt: id(1) });
    assert_eq!(b.words().last().unwrap().1, "fit");
    b.offer(id(4));
    assert_eq!(b.words(), [(1, "accepted")]);
}

#[test]
fn an_abort_in_every_phase() {
    // Starting: the driver says it never ran.
    let mut b = Bench::clean(1);
    b.offer(id(1));
    abort(&mut b, id(1));
    let grace = Duration::from_secs(10);
    assert_eq!(
        b.asked,
        [Effect::Stop {
            attempt: id(1),
            grace
        }]
    );
    b.tell(not_started(id(1)));
    assert_eq!(b.words(), [(2, "ended:aborted")]);
    assert_eq!(b.asked, [Effect::Seal { attempt: id(1) }]);

    // Running, twice: one stop. Whatever it ends with, it was aborted.
    let mut b = Bench::clean(1);
    b.offer(id(1));
    b.tell(Event::Started { attempt: id(1) });
    abort(&mut b, id(1));
    assert_eq!(
        b.asked,
        [Effect::Stop {
            attempt: id(1),
            grace
        }]
    );
    abort(&mut b, id(1));
    assert!(b.asked.is_empty());
    b.end(id(1));
    assert_eq!(b.words(), [(3, "ended:aborted")]);

    // Ended and sealed: the result stands, and is said again.
    let mut b = Bench::clean(1);
    b.offer(id(1));
    b.tell(Event::Started { attempt: id(1) });
    b.end(id(1));
    b.ack(id(1), 3);
    abort(&mut b, id(1));
    assert_eq!((b.words(), b.asked.len()), (vec![(3, "ended")], 0));
    b.seal(id(1));
    abort(&mut b, id(1));
    assert_eq!(b.words(), [(4, "sealed")]);
}

#[test]
fn an_abandoned_attempt_is_stopped_at_once_and_never_heard_of_again() {
    let kill = Effect::Stop {
        attempt: id(1),
        grace: Duration::ZERO,
    };
    let gone = [Effect::Release { attempt: id(1) }];

    let mut b = Bench::clean(1);
    b.offer(id(1));
    abandon(&mut b, id(1));
    assert_eq!(b.asked, std::slice::from_ref(&kill));
    b.tell(not_started(id(1)));
    assert_eq!((b.said.len(), &b.asked[..]), (0, &gone[..]));

    let mut b = Bench::clean(1);
    b.offer(id(1));
    b.tell(Event::Started { attempt: id(1) });
    abort(&mut b, id(1));
    abandon(&mut b, id(1));
    assert_eq!(b.asked, [kill], "it escalates");
    b.end(id(1));
    assert_eq!((b.said.len(), &b.asked[..]), (0, &gone[..]));

    // While its outputs are gathered the directory is in use.
    let mut b = Bench::clean(1);
    b.offer(id(1));
    b.tell(Event::Started { attempt: id(1) });
    b.end(id(1));
    abandon(&mut b, id(1));
    assert!(b.asked.is_empty());
    b.seal(id(1));
    assert_eq!((b.said.len(), &b.asked[..]), (0, &gone[..]));

    let mut b = Bench::clean(1);
    b.build(id(1));
    abandon(&mut b, id(1));
    assert_eq!(b.asked, gone);
}

#[test]
fn after_a_welcome_everything_unacknowledged_is_repeated_in_order() {
    let mut b = Bench::clean(1);
    b.offer(id(1));
    b.tell(Event::Unlinked);
    b.tell(Event::Started { attempt: id(1) });
    b.end(id(1));
    b.seal(id(1));
    assert!(b.said.is_empty(), "nothing is said without a session");
    b.link(2, &[(id(1), Standing::Continue { acked: Seq(1) })]);
    assert_eq!(b.words(), [(2, "started"), (3, "ended"), (4, "sealed")]);
}

#[test]
fn each_standing_of_a_welcome_is_followed() {
    let why = Reason::default();
    for standing in [
        Standing::Committed,
        Standing::Abandon { why },
        Standing::Lost,
    ] {
        let mut b = Bench::clean(1);
        b.build(id(1));
        b.tell(Event::Unlinked);
        b.link(2, &[(id(1), standing)]);
        assert_eq!(b.asked, [Effect::Release { attempt: id(1) }]);
        assert!(b.said.is_empty());
    }
}

#[test]
fn lost_outputs_are_reported_and_then_forgotten() {
    let mut b = Bench::clean(1);
    b.build(id(1));
    let why = Reason::cut("disk");
    b.tell(Event::OutputsLost {
        attempt: id(1),
        why,
    });
    assert_eq!(b.words(), [(5, "outputs-lost")]);
    b.ack(id(1), 4);
    assert!(b.asked.is_empty());
    b.ack(id(1), 5);
    assert_eq!(b.asked, [Effect::Release { attempt: id(1) }]);
}

#[test]
fn an_agent_that_leaves_takes_nothing_new() {
    let mut b = Bench::clean(1);
    b.tell(Event::Drain);
    assert_eq!(b.words(), [(3, "draining")]);
    b.offer(id(1));
    assert_eq!(b.words(), [(1, "draining")]);
}

#[test]
fn answers_out_of_turn_change_nothing() {
    let mut b = Bench::clean(1);
    for event in [
        Event::Started { attempt: id(9) },
        not_started(id(9)),
        Event::Ended {
            attempt: id(9),
            report: succeeded(),
        },
        Event::Sealed {
            attempt: id(9),
            report: seal(),
        },
        Event::Committed { attempt: id(9) },
        Event::Unkillable {
            attempt: id(9),
            why: Reason::default(),
        },
    ] {
        b.tell(event);
        assert!(b.asked.is_empty() && b.said.is_empty());
    }
}
