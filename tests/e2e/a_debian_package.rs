//! The mission, thin but real: a Debian source package goes in, its binary
//! package comes back, and the log is kept.

use std::path::{Path, PathBuf};
use std::process::Command;

use farmbell_tests::harness::{Said, TestFarm};

/// Packs the small source package that ships with the demo.
fn source_package(directory: &Path) -> PathBuf {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/demo/farmbell-hello");
    std::fs::create_dir_all(directory).unwrap();
    let mut copy = Command::new("cp");
    copy.arg("-r").arg(tree).arg(directory);
    Said::by(copy).succeeds();
    let mut pack = Command::new("dpkg-source");
    pack.args(["--build", "farmbell-hello"])
        .current_dir(directory);
    Said::by(pack).succeeds();
    directory.join("farmbell-hello_1.0.dsc")
}

#[test]
fn a_source_package_becomes_a_package_on_disk() {
    let farm = TestFarm::with_one_builder();
    let dsc = source_package(&farm.file("source"));
    let said = farm
        .cli()
        .run(&["submit", dsc.to_str().unwrap(), "--follow"])
        .succeeds();
    assert!(said.stdout.contains("dpkg-buildpackage"), "{said:#?}");

    let jobs = farm.cli().json(&["jobs"]);
    let job = &jobs.get("jobs").unwrap_or(&jobs)[0];
    assert_eq!(job["verdict"]["verdict"], "succeeded", "{job:#}");
    let id = job["id"].as_str().unwrap();
    assert_eq!(
        farm.cli().log(id),
        said.stdout,
        "the stored log is what was shown"
    );

    let results = farm.file("results");
    farm.cli().fetch(id, &results);
    let mut names: Vec<String> = std::fs::read_dir(&results)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let endings: Vec<_> = names
        .iter()
        .map(|name| name.rsplit('.').next().unwrap())
        .collect();
    assert_eq!(endings, ["buildinfo", "changes", "deb"], "{names:?}");
    let mut info = Command::new("dpkg-deb");
    info.arg("--info").arg(results.join(&names[2]));
    let info = Said::by(info).succeeds();
    assert!(info.stdout.contains("Package: farmbell-hello"), "{info:#?}");
}
