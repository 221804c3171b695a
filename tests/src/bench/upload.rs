//! An artifact of 1 GiB from a builder's disk to the coordinator's, verified,
//! against raw quinn doing the same work, and nginx beside it.
//!
//! All three write a new file in each round, on memory that has had time to
//! cool. Writing over the file of the round before, or just after a gigabyte was
//! given free, is other work: the kernel has the pages at hand, and where they
//! have to come from a host beneath first, that is three times as fast.

use std::fs::File;
use std::io::{Read as _, copy};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Context as _;

use super::nginx::Nginx;
use super::row::{Floor, Mark, Row};
use super::sample::Samples;
use super::{Plan, quic};
use crate::harness::TestFarm;

pub(super) fn measure(plan: &Plan) -> anyhow::Result<Vec<Row>> {
    let bytes: u64 = if plan.short { 128 << 20 } else { 1 << 30 };
    let farm = plan.farm(1);
    let source = farm.file("source");
    fill(&source, bytes)?;
    let mut ours = Samples::default();
    let mut raw = Samples::default();
    let mut known = Samples::default();
    let nginx = Nginx::start(&farm.file("nginx"))?;
    for round in 0..plan.runs(5) {
        let name = format!("target{round}");
        raw.push(quic::transfer(&source, &farm.file(&name))?);
        ours.push(upload(&farm, &source)?);
        sleep(COOLING);
        known.push(nginx.put(&source, &name)?);
    }
    let rate = |span: Duration| megabytes(bytes) / span.as_secs_f64();
    let floor = || Floor {
        what: "raw quinn, file and BLAKE3",
        median: rate(raw.median()),
        runs: raw.runs(),
    };
    let row = Row {
        id: "upload",
        what: "one artifact to disk, verified".to_owned(),
        unit: "MB/s",
        median: rate(ours.median()),
        p99: None,
        runs: ours.runs(),
        floor: Some(floor()),
        mark: Mark::FloorTimesAtLeast(0.8),
        note: format!(
            "{} MiB, from sealed to the verdict as the history tells it",
            bytes >> 20
        ),
    };
    let beside = Row {
        id: "upload of nginx",
        what: "the same file by PUT over TLS 1.3, from curl".to_owned(),
        median: rate(known.median()),
        runs: known.runs(),
        floor: Some(floor()),
        mark: Mark::Information,
        note: "neither hashed nor synced".to_owned(),
        ..row
    };
    Ok(vec![row, beside])
}

/// A host beneath takes back what is free for so long.
const COOLING: Duration = Duration::from_secs(3);

/// Random, so that nothing on the way can make it shorter.
fn fill(path: &Path, bytes: u64) -> anyhow::Result<()> {
    let mut random = File::open("/dev/urandom")?.take(bytes);
    let mut file = File::create(path)?;
    copy(&mut random, &mut file)?;
    Ok(file.sync_all()?)
}

/// The time from sealed outputs to the verdict.
fn upload(farm: &TestFarm, source: &Path) -> anyhow::Result<Duration> {
    let mut events = farm.events();
    // One more byte each time: the same bytes would not travel again.
    let script = format!(
        "cp {} $FARMBELL_OUTPUTS/artifact; echo $$ $FARMBELL_WORKSPACE >> $FARMBELL_OUTPUTS/artifact",
        source.display()
    );
    let job = farm.cli().submit_script(&[], &script);
    let sealed = events.next_of_job("job.finishing", &job);
    let verdict = events.next_of_job("job.verdict", &job);
    let span = verdict.seen.checked_duration_since(sealed.seen);
    span.context("a verdict comes after the sealing")
}

fn megabytes(bytes: u64) -> f64 {
    u32::try_from(bytes / 1_000_000).map_or(f64::INFINITY, f64::from)
}
