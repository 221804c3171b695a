//! The short form of `chaos`, which breaks a real farm under load: the full one
//! is a command of its own.

use farmbell_tests::chaos::net::{self, Pace};
use farmbell_tests::chaos::{Report, kill, power};

fn held(report: &Report) {
    assert!(report.broken.is_empty(), "{report:#?}");
    for side in &report.coverage {
        assert_eq!(side.hit, side.points, "{report:#?}");
    }
}

#[test]
fn thirty_kills_of_each_daemon_lose_nothing() {
    held(&kill::kill(1, 30).unwrap());
}

#[test]
fn a_bad_network_loses_nothing() {
    held(&net::net(1, Pace::Short).unwrap());
}

#[test]
fn a_power_cut_loses_nothing_that_was_said() {
    held(&power::power(1, 300, 3).unwrap());
}
