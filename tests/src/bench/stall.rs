//! A store that stalls. Nothing can start beside it, since a start has to be
//! durable; what runs already must be heard as before.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::Plan;
use super::chain::monotonic_ns;
use super::row::{Floor, Mark, Row};
use super::sample::{Samples, ms};
use crate::harness::TestFarm;

/// Between two lines, as a build writes them.
const PAUSE: Duration = Duration::from_millis(20);

/// How soon a line of a running job is seen while no commit works.
pub(super) fn measure(plan: &Plan, farm: &TestFarm) -> anyhow::Result<Row> {
    let mut job = Talker::start(plan, farm)?;
    let mut with = Samples::default();
    let mut without = Samples::default();
    for _ in 0..2 {
        job.talk(plan.runs(40), &mut without)?;
        let stalled = farm.coordinator.hold_store();
        job.talk(plan.runs(40), &mut with)?;
        drop(stalled);
    }
    job.end(farm)?;
    Ok(Row {
        id: "log beside a stalled store",
        what: "no commit works for a while; nothing starts then, and what runs is heard".to_owned(),
        unit: "ms",
        median: ms(with.median()),
        p99: Some(ms(with.p99())),
        runs: with.runs(),
        floor: Some(Floor {
            what: "without",
            median: ms(without.median()),
            runs: without.runs(),
        }),
        mark: Mark::FloorTimesAtMost(1.2),
        note: String::new(),
    })
}

/// A job that says a line whenever it is asked to, and who hears it.
struct Talker {
    job: String,
    ask: File,
    follower: Child,
    heard: BufReader<ChildStdout>,
}

impl Talker {
    fn start(plan: &Plan, farm: &TestFarm) -> anyhow::Result<Self> {
        let pipe = farm.file("talk");
        mkfifo(&pipe, Mode::S_IRWXU)?;
        let (floor, shown) = (plan.floor_program(), pipe.display());
        let script = format!("while read -r ask; do {floor} say; done < {shown}");
        let job = farm.cli().submit_script(&[], &script);
        // Opening waits for the job's own opening.
        let ask = File::options().write(true).open(&pipe)?;
        let mut follower = farm
            .cli()
            .command(&["logs", "-f", &job])
            .stdout(Stdio::piped())
            .spawn()?;
        let heard = follower.stdout.take().context("its output is piped")?;
        let mut talker = Self {
            job,
            ask,
            follower,
            heard: BufReader::new(heard),
        };
        // The first line finds nobody listening yet and is not counted.
        talker.talk(1, &mut Samples::default())?;
        Ok(talker)
    }

    fn talk(&mut self, lines: usize, delays: &mut Samples) -> anyhow::Result<()> {
        for _ in 0..lines {
            std::thread::sleep(PAUSE);
            self.ask.write_all(b"say\n")?;
            let mut line = String::new();
            self.heard.read_line(&mut line)?;
            let seen = monotonic_ns()?;
            let said: u64 = line.trim().parse().context("a job says when it spoke")?;
            delays.push(Duration::from_nanos(seen.saturating_sub(said)));
        }
        Ok(())
    }

    fn end(mut self, farm: &TestFarm) -> anyhow::Result<()> {
        drop(self.ask);
        farm.cli().run(&["job", "wait", &self.job]).succeeds();
        self.follower.wait()?;
        Ok(())
    }
}
