//! Finished jobs grow old and are retired: their records, logs and artifacts
//! go, what is younger stays, and whoever asks for one is told why it is gone.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use farmbell_tests::harness::{BuilderPlan, CoordinatorPlan, PATIENCE, Said, TestFarm};
use nix::sys::signal::Signal;

#[test]
fn a_job_that_is_long_over_is_retired_with_its_files() {
    let mut farm = TestFarm::start_as(&CoordinatorPlan {
        settings: "[policy]\nretire_jobs_after = \"3s\"\n".to_owned(),
        ..CoordinatorPlan::default()
    });
    farm.add_agent("a1", &[BuilderPlan::named("b1")]);
    let mut events = farm.events();
    let script = "echo built; echo old > $FARMBELL_OUTPUTS/out";
    let job = farm.cli().submit_script(&[], script);
    events.next_of_job("job.verdict", &job);
    // A blob stays for a day in case somebody is about to name it.
    let blobs = farm.coordinator.state().join("blobs");
    let old = files_below(&blobs);
    assert!(!old.is_empty());
    for blob in &old {
        let long_ago = SystemTime::now() - Duration::from_secs(3 * 24 * 3600);
        File::open(blob).unwrap().set_modified(long_ago).unwrap();
    }

    let told = events.next_of("history.retired");
    assert!(told.why.contains("1 jobs"), "{told:?}");
    farm.cli()
        .run(&["job", "show", &job])
        .fails_naming(&["was retired", "retire_jobs_after"]);
    // Whatever was to be done after that event is done before this one, or
    // before the process ends.
    let next = farm.cli().submit_script(&[], "true");
    events.next_of_job("job.verdict", &next);
    farm.coordinator.daemon.signal(Signal::SIGTERM);
    farm.coordinator.daemon.wait(PATIENCE).unwrap();
    assert!(old.iter().all(|blob| !blob.exists()), "{old:?}");
    Said::by(farm.coordinator.program("check")).succeeds();
}

fn files_below(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}
