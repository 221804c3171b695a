//! Resets: what proves a builder clean, and what a failing one leads to.

use super::*;
use crate::record::{Cleanliness, OperatorMode};

#[test]
fn a_builder_gets_no_offer_before_it_is_proved_clean() {
    let mut world = World::new();
    let mut host = world.host(1);
    world.submit(spec("hello"));
    world.hello(&mut host);
    assert!(world.offers().is_empty());
    world.clean(&mut host);
    assert_eq!(world.offers().len(), 1);
}

#[test]
fn a_late_proof_proves_nothing() {
    let mut world = World::new();
    let mut host = world.host(1);
    world.hello(&mut host);
    let old = world.reset_order().unwrap();
    world.pass(Duration::from_secs(11 * 60));
    let newer = world.record(&host).nonce;
    assert_ne!(newer, Some(old));
    world.submit(spec("hello"));
    world.prove(&mut host, old);
    assert!(world.offers().is_empty());
    assert_ne!(world.record(&host).cleanliness, Cleanliness::Clean);
    assert_eq!(world.store.kinds().last(), Some(&LedgerKind::StaleReport));
}

#[test]
fn a_proof_is_used_once() {
    let mut world = World::new();
    let mut host = world.host(1);
    world.hello(&mut host);
    let nonce = world.reset_order().unwrap();
    world.prove(&mut host, nonce);
    world.submit(spec("one"));
    assert_eq!(world.offers().len(), 1);
    world.prove(&mut host, nonce);
    assert_eq!(world.record(&host).cleanliness, Cleanliness::Dirty);
}

#[test]
fn a_failed_reset_is_tried_again_and_keeps_what_the_script_said() {
    let mut world = World::new();
    let mut host = world.host(1);
    world.hello(&mut host);
    let nonce = world.reset_order().unwrap();
    world.fail_reset(&mut host, nonce);
    let record = world.record(&host);
    assert_eq!(record.strikes, 1);
    assert_eq!(record.cleanliness, Cleanliness::Dirty);
    let trouble = record.trouble.clone().unwrap();
    assert!(
        trouble.contains("out") && trouble.contains("err"),
        "{trouble}"
    );
    assert!(world.reset_order().is_none(), "not at once");
    world.pass(Duration::from_secs(30));
    let retried = world.record(&host).nonce;
    assert!(retried.is_some() && retried != Some(nonce));
}

#[test]
fn a_builders_trouble_tells_how_the_script_ended() {
    let code = ScriptFailure::Exit(ExitStatus::Code(3));
    let signal = ScriptFailure::Exit(ExitStatus::Signal(9));
    let timeout = ScriptFailure::TimedOut { after_ms: 600_000 };
    let why = Reason::cut("no such file");
    for (stage, failure, words) in [
        (ResetStage::Reset, code, "the reset script exited with 3"),
        (ResetStage::Probe, signal, "the probe died of signal 9"),
        (
            ResetStage::Reset,
            timeout,
            "the reset script was killed after 600 s",
        ),
        (
            ResetStage::Probe,
            ScriptFailure::NotRun { why },
            "the probe did not run to its end: no such file",
        ),
    ] {
        let mut world = World::new();
        let mut host = world.host(1);
        world.hello(&mut host);
        let failed = ResetFailed {
            builder: BuilderIndex(0),
            seq: Seq(1),
            nonce: world.reset_order().unwrap(),
            stage,
            failure,
            stdout: Blob::tail(b""),
            stderr: Blob::tail(b""),
        };
        world.report(&host, AgentFrame::ResetFailed(failed));
        let trouble = world.record(&host).trouble.clone().unwrap();
        assert_eq!(trouble.lines().next(), Some(words));
    }
}

#[test]
fn five_failed_resets_take_a_builder_out_and_enabling_takes_it_back() {
    let mut world = World::new();
    let mut host = world.host(1);
    world.hello(&mut host);
    for wait in [10, 20, 40, 80].map(Duration::from_secs) {
        let nonce = world.record(&host).nonce.unwrap();
        world.fail_reset(&mut host, nonce);
        let again = world.farm.clock.now() + wait;
        assert_eq!(world.record(&host).reset_retry, Some(again));
        world.pass(wait);
    }
    let nonce = world.record(&host).nonce.unwrap();
    world.fail_reset(&mut host, nonce);
    let record = world.record(&host);
    assert_eq!(record.reset_retry, None);
    assert_eq!(record.mode, OperatorMode::Quarantined);
    let last = world.store.ledger.iter().rev();
    let mut failed = last.filter(|entry| entry.kind == LedgerKind::BuilderResetFailed);
    let [fifth, fourth] = [failed.next(), failed.next()].map(|entry| entry.unwrap().why.as_str());
    assert!(fourth.ends_with("again in 80 s"), "{fourth}");
    assert!(!fifth.contains("again"), "{fifth}");
    assert!(record.trouble.is_some(), "the script's output is kept");
    operators::set(&mut world, &host, OperatorMode::Enabled);
    assert_eq!(world.record(&host).strikes, 0);
    assert!(world.reset_order().is_some());
}

#[test]
fn a_reset_that_hangs_is_a_failed_one() {
    let mut world = World::new();
    let mut host = world.host(1);
    world.hello(&mut host);
    world.pass(Duration::from_secs(10 * 60 + 1));
    assert_eq!(world.record(&host).strikes, 1);
    world.restart();
    assert_eq!(world.record(&host).strikes, 1);
}

#[test]
fn a_reset_order_is_repeated_at_the_welcome() {
    let mut world = World::new();
    let mut host = world.host(1);
    world.hello(&mut host);
    let nonce = world.reset_order();
    world.handle(Event::Closed { conn: host.conn });
    world.hello(&mut host);
    assert_eq!(world.reset_order(), nonce);
    world.restart();
    world.hello(&mut host);
    assert_eq!(world.reset_order(), nonce, "a restart keeps the challenge");
    world.clean(&mut host);
    assert_eq!(world.record(&host).cleanliness, Cleanliness::Clean);
}

#[test]
fn a_host_that_reboots_for_its_reset_proves_it_clean_afterwards() {
    let mut world = World::new();
    let mut host = world.host(1);
    host.builders[0].reset_scope = ResetScope::Host;
    world.hello(&mut host);
    let nonce = world.reset_order().unwrap();
    host.hello.boot = BootId([50; 16]);
    host.hello.incarnation += 1;
    assert_eq!(
        world.hello(&mut host),
        None,
        "before the old link was seen to end"
    );
    assert_eq!(world.reset_order(), Some(nonce));
    world.prove(&mut host, nonce);
    assert_eq!(world.record(&host).cleanliness, Cleanliness::Clean);
}

#[test]
fn a_reset_that_sets_the_agents_own_state_back_is_no_loop_and_says_what_to_do() {
    for new_spool in [false, true] {
        let mut world = World::new();
        let mut host = world.host(1);
        host.builders[0].reset_scope = ResetScope::Host;
        world.hello(&mut host);
        world.clean(&mut host);
        world.running(&mut host, "hello");
        let builder = world.record(&host).id;
        operators::set(&mut world, &host, OperatorMode::Disabled);
        operators::set(&mut world, &host, OperatorMode::Enabled);
        host.held.clear();
        let kept = host.builders[0].last_seq;
        for boots in 1..=5 {
            world.pass(Duration::from_secs(400));
            assert!(world.record(&host).nonce.is_some(), "ordered, time {boots}");
            world.handle(Event::Closed { conn: host.conn });
            host.hello.boot = BootId([100 + boots; 16]);
            host.hello.incarnation += 1;
            host.builders[0].last_seq = if new_spool { kept } else { Seq(0) };
            if new_spool {
                host.hello.spool = SpoolId([100 + boots; 16]);
            }
            world.hello(&mut host);
            assert_eq!(world.record(&host).strikes, u16::from(boots));
            assert_eq!(world.record(&host).nonce, None, "not at once");
        }
        let record = world.store.builders[&builder.0].clone();
        assert_eq!(record.mode, OperatorMode::Quarantined);
        assert!(
            record.mode_why.contains("lie outside"),
            "{}",
            record.mode_why
        );
    }
}

#[test]
fn a_reboot_nobody_asked_for_voids_the_proof() {
    let mut world = World::new();
    let mut host = world.ready(1);
    world.handle(Event::Closed { conn: host.conn });
    host.hello.boot = BootId([50; 16]);
    host.hello.incarnation += 1;
    world.hello(&mut host);
    assert!(world.reset_order().is_some());
}

#[test]
fn a_quarantine_amid_a_reset_lets_it_end_and_gives_nothing_out() {
    let mut world = World::new();
    let mut host = world.host(1);
    world.hello(&mut host);
    let nonce = world.reset_order().unwrap();
    world.submit(spec("hello"));
    operators::set(&mut world, &host, OperatorMode::Quarantined);
    assert!(world.reset_order().is_none());
    world.prove(&mut host, nonce);
    let record = world.record(&host);
    assert_eq!(
        (record.cleanliness, record.mode, record.strikes),
        (Cleanliness::Clean, OperatorMode::Quarantined, 0)
    );
    assert!(world.offers().is_empty());
    // Whatever was done to it meanwhile, that proof is worth nothing.
    operators::set(&mut world, &host, OperatorMode::Enabled);
    assert!(world.offers().is_empty());
    world.clean(&mut host);
    assert_eq!(world.offered(&host).number, 1);
}

#[test]
fn a_reset_that_would_take_the_outputs_along_waits_for_the_verdict() {
    let mut world = World::new();
    let mut host = world.host(1);
    host.builders[0].spool_survives_reset = false;
    world.hello(&mut host);
    world.clean(&mut host);
    let attempt = world.running(&mut host, "hello");
    world.end(&mut host, attempt, Outcome::Succeeded);
    world.seal(&mut host, attempt);
    assert!(world.reset_order().is_none());
    world.deliver(attempt);
    assert!(world.reset_order().is_some());
}

#[test]
fn reports_of_a_builder_are_applied_once_and_in_order() {
    let mut world = World::new();
    let mut host = world.host(1);
    world.hello(&mut host);
    let nonce = world.reset_order().unwrap();
    host.builders[0].last_seq = Seq(1);
    world.prove(&mut host, nonce);
    assert!(world.said.is_empty(), "a gap is not answered");
    host.builders[0].last_seq = Seq(0);
    world.prove(&mut host, nonce);
    let ack = |world: &World| {
        world
            .sent()
            .iter()
            .any(|frame| matches!(frame, CoordinatorFrame::BuilderAck(ack) if ack.seq == Seq(1)))
    };
    assert!(ack(&world));
    host.builders[0].last_seq = Seq(0);
    world.prove(&mut host, nonce);
    assert!(ack(&world), "a repetition is acknowledged again");
}

#[test]
fn a_hello_that_comes_late_does_not_set_a_builders_reports_back() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let told = host.builders[0].last_seq;
    let mut late = host.clone();
    late.builders[0].last_seq = Seq(0);
    world.hello(&mut late);
    assert_eq!(late.builders[0].last_seq, told);
    // The agent has long given that connection up and counts on.
    world.hello(&mut host);
    world.clean(&mut host);
    world.submit(spec("hello"));
    assert_eq!(world.offered(&host).number, 1);
}
