//! The share of builder time that is lost: neither building nor resetting
//! while a job waits. Eight builders, jobs of half a second with an 8 MiB
//! artifact, reset scripts of 0.2 s. Jobs and scripts write the moments
//! themselves; what a shell needs to start counts as lost.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use nix::sys::stat::Mode;

use super::chain::read_stamp;
use super::row::{Mark, Row};
use super::{Plan, architecture};
use crate::harness::{BuilderPlan, TestFarm, text};

const BUILDERS: usize = 8;
/// About a minute of work for each builder.
const JOBS_PER_BUILDER: usize = 80;
const SUBMISSION: usize = 256;

/// When something began and ended, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Span {
    begin: u64,
    end: u64,
}

pub(super) fn measure(plan: &Plan) -> anyhow::Result<Vec<Row>> {
    let mut farm = TestFarm::start();
    let directory = farm.path().to_owned();
    let artifact = farm.file("artifact");
    std::fs::write(&artifact, vec![7; 8 << 20])?;
    let floor = plan.floor_program();
    let plans = (0..BUILDERS)
        .map(|number| {
            let name = format!("b{number}");
            let script = reset_script(&directory, &name, &floor)?;
            Ok(BuilderPlan::named(&name).with(&format!("reset = [{script:?}]")))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    farm.add_agent("a", &plans);

    let jobs = plan.runs(JOBS_PER_BUILDER) * BUILDERS;
    let commands: Vec<_> = (0..jobs)
        .map(|job| {
            let script = format!(
                "{floor} stamp {0}/begin-{job}; sleep 0.5; cp {1} $FARMBELL_OUTPUTS/; {floor} stamp {0}/end-{job}",
                directory.display(),
                artifact.display()
            );
            vec!["/bin/sh".to_owned(), "-c".to_owned(), script]
        })
        .collect();
    let busy = run_jobs(&farm, &directory, &commands)?;

    let (mut idle, mut whole) = (0, 0);
    for (builder, spans) in &busy {
        let resets = read_notes(&directory.join(format!("reset-{builder}.notes")))?;
        let (lost, window) = lost_time(spans, &resets);
        idle += lost;
        whole += window;
    }
    Ok(vec![Row {
        id: "idle-with-work",
        what: "builder time neither building nor resetting while jobs wait".to_owned(),
        unit: "%",
        median: share(idle, whole),
        p99: None,
        runs: jobs,
        floor: None,
        mark: Mark::AtMost(4.0),
        note: "the start of each shell, of sleep and of the stamps counts as idle".to_owned(),
    }])
}

fn reset_script(directory: &Path, builder: &str, floor: &str) -> anyhow::Result<String> {
    let path = directory.join(format!("reset-{builder}"));
    let notes = directory.join(format!("reset-{builder}.notes"));
    let note = format!("{floor} note {}", notes.display());
    std::fs::write(&path, format!("#!/bin/sh\n{note}\nsleep 0.2\n{note}\n"))?;
    let executable = Mode::S_IRWXU | Mode::S_IRGRP | Mode::S_IXGRP | Mode::S_IROTH | Mode::S_IXOTH;
    let handle = std::fs::File::open(&path)?;
    nix::sys::stat::fchmod(&handle, executable)?;
    Ok(path.display().to_string())
}

/// Runs the jobs, and tells for each builder when it was building.
fn run_jobs(
    farm: &TestFarm,
    directory: &Path,
    commands: &[Vec<String>],
) -> anyhow::Result<BTreeMap<String, Vec<Span>>> {
    let mut api = farm.api();
    let mut ids = Vec::new();
    for some in commands.chunks(SUBMISSION) {
        ids.extend(api.submit(architecture(), some)?);
    }
    let mut busy: BTreeMap<String, Vec<Span>> = BTreeMap::new();
    for (number, id) in ids.iter().enumerate() {
        api.wait(id)?;
        let shown = api.get(&format!("/api/v1/jobs/{id}"))?;
        let builder = text(&shown["attempts"][0], "builder");
        busy.entry(builder).or_default().push(Span {
            begin: read_stamp(&directory.join(format!("begin-{number}")))?,
            end: read_stamp(&directory.join(format!("end-{number}")))?,
        });
    }
    Ok(busy)
}

fn read_notes(path: &Path) -> anyhow::Result<Vec<Span>> {
    let text = std::fs::read_to_string(path)?;
    let moments = text
        .lines()
        .map(|line| line.parse().context("a note is a number"))
        .collect::<anyhow::Result<Vec<u64>>>()?;
    let pairs = moments.chunks_exact(2);
    Ok(pairs
        .map(|pair| Span {
            begin: pair[0],
            end: pair[1],
        })
        .collect())
}

/// From a builder's first job to the beginning of its last, while work waited
/// all the time: how much was lost, and how much time that was.
fn lost_time(jobs: &[Span], resets: &[Span]) -> (u64, u64) {
    let begin = jobs.iter().map(|span| span.begin).min().unwrap_or(0);
    let end = jobs.iter().map(|span| span.begin).max().unwrap_or(0);
    let used: u64 = jobs
        .iter()
        .chain(resets)
        .filter(|span| span.begin >= begin && span.end <= end)
        .map(|span| span.end - span.begin)
        .sum();
    let window = end - begin;
    (window.saturating_sub(used), window)
}

fn share(part: u64, whole: u64) -> f64 {
    // Microseconds of a minute fit easily.
    let of = |nanoseconds: u64| u32::try_from(nanoseconds / 1000).map_or(f64::INFINITY, f64::from);
    if whole == 0 {
        0.0
    } else {
        of(part) / of(whole) * 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_between_spans_is_lost() {
        let span = |begin, end| Span { begin, end };
        let jobs = [span(100, 200), span(260, 300), span(400, 500)];
        let resets = [span(210, 250), span(310, 390)];
        // 200–210, 250–260, 300–310, 390–400 of 100–400.
        assert_eq!(lost_time(&jobs, &resets), (40, 300));
    }
}
