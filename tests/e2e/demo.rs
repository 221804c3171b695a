//! The README's first command, less the building of Farmbell itself.

use std::process::Command;

use farmbell_tests::harness::{Binaries, Said};

#[test]
fn the_demo_leaves_a_package_and_its_log() {
    let directory = tempfile::tempdir().unwrap();
    let mut demo = Command::new(Binaries::built().cli());
    demo.args(["demo", "--once", "--dir"]).arg(directory.path());
    let said = Said::by(demo).succeeds();

    let results = directory.path().join("results");
    let log = std::fs::read_to_string(results.join("build.log")).unwrap();
    assert!(log.contains("dpkg-buildpackage"), "{said:#?}");
    let package = std::fs::read_dir(&results)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|ending| ending == "deb"))
        .unwrap_or_else(|| panic!("no package came of it: {said:#?}"));
    let mut info = Command::new("dpkg-deb");
    info.arg("--info").arg(package);
    Said::by(info).succeeds();
}
