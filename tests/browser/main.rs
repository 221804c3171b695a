//! What a browser and a monitoring system make of a real farm: Chromium shows
//! the builders page, `promtool` reads the metrics. Both are installed by
//! `packaging/test browser`, which runs this.
#![expect(
    clippy::unwrap_used,
    reason = "what these stories are told with is test code too"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use farmbell_tests::harness::{BuilderPlan, PATIENCE, Said, TestFarm};

/// Where the pictures of the page are put, for people to look at.
const PICTURES: &str = "FARMBELL_SCREENSHOTS";

#[test]
fn the_page_changes_live_and_reads_without_javascript() {
    let mut farm = TestFarm::start();
    farm.add_agent(
        "a1",
        &[BuilderPlan::named("atlas-1"), BuilderPlan::named("atlas-2")],
    );
    farm.add_agent("a2", &[BuilderPlan::named("board-1")]);
    // Its page is one of trouble: a builder that went away is among it.
    farm.agents[1]
        .daemon
        .signal(nix::sys::signal::Signal::SIGTERM);
    farm.agents[1].daemon.wait(PATIENCE);
    let pictures = std::env::var_os(PICTURES)
        .map_or_else(|| farm.file("screenshots"), std::path::PathBuf::from);
    let page = format!("http://{}/", farm.coordinator.address("http"));
    let mut story = Command::new("node");
    story
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("browser/page.mjs"))
        .arg(page)
        .arg(farm.binaries().cli())
        .arg(pictures)
        .env("FARMBELL_SOCKET", farm.coordinator.socket());
    let said = Said::by(story).succeeds();
    assert!(!said.stdout.contains("FAIL"), "{said:#?}");
}

#[test]
fn prometheus_finds_nothing_to_say_about_the_metrics() {
    let farm = TestFarm::with_one_builder();
    drop(farm.cli().verdict(&farm.cli().submit_script(&[], "true")));
    let metrics = fetch(farm.coordinator.address("http"), "/metrics");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(metrics.as_bytes())
        .unwrap();
    let said = Said::of(
        promtool.wait_with_output().unwrap(),
        "promtool check metrics",
    )
    .succeeds();
    assert_eq!(
        (said.stdout.as_str(), said.stderr.as_str()),
        ("", ""),
        "{metrics}"
    );
}

fn fetch(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("200 OK"), "{head}");
    body.to_owned()
}
