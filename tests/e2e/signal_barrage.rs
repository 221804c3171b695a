//! Signals that mean nothing to anybody rain on every daemon while jobs and
//! resets run: nobody notices. `chaos signals` is the same at its whole size.

use farmbell_tests::chaos::signals::{Size, signals};

#[test]
fn exit_statuses_are_right_and_nothing_stays_under_a_barrage_of_signals() {
    let size = Size {
        jobs: 100,
        builders: 10,
    };
    let report = signals(1, &size).unwrap();
    assert!(report.broken.is_empty(), "{report:#?}");
    let rained: u32 = report.faults.values().sum();
    assert!(rained > 1000, "{report:#?}");
}
