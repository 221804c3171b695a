//! Power cuts. Real daemons work while a recorder notes every operation on
//! their files, in one order; then states that a cut may leave at each moment
//! are written out, opened by the daemons' own code, and asked for everything
//! that had been said by then. At some moments the daemons themselves are
//! started on what is left, and have to bring every job to its end.

mod disk;
mod facts;
mod recording;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use self::disk::{Disk, Luck};
use self::facts::Facts;
use self::recording::Recorded;
use super::load::{Load, Shape};
use super::{Dice, Report};
use crate::harness::{Around, BuilderPlan, CoordinatorPlan, Recorder, TestFarm};

const SHAPE: Shape = Shape {
    log_lines: 300,
    artifact_lines: 3000,
    pause_max_ms: 300,
};
/// How long new work comes: a recorder makes everything slow.
const WORK: Duration = Duration::from_secs(4);
/// Complaints about images that are shown; more of the same help nobody.
const SHOWN: usize = 20;

/// Cuts power at moments of a recorded run: `images` states of each host, and
/// `restarts` moments at which both hosts come up again.
///
/// # Errors
/// If the farm or an image cannot be made; what was lost stands in the report.
pub fn power(seed: u64, images: usize, restarts: usize) -> anyhow::Result<Report> {
    let mut report = Report::of("power", seed);
    let mut run = Run::recorded(seed, &mut report)?;
    super::progress(format_args!("{} operations recorded", run.acts.len()));
    let place = memory_directory()?;
    let moments = run.moments();
    anyhow::ensure!(!moments.is_empty(), "nothing was ever in doubt");
    let mut dice = Dice::of(seed);
    run.look_at_images(&moments, images, place.path(), &mut dice, &mut report)?;
    super::progress(format_args!(
        "images looked at, {} broken",
        report.broken.len()
    ));
    // Before its agent had joined there was no farm to come up again.
    let farm_is_whole = |moment: &&usize| run.acts[**moment].at >= run.facts.farm_since();
    let whole: Vec<usize> = moments.iter().filter(farm_is_whole).copied().collect();
    for number in 0..restarts {
        let moment = whole[number * whole.len() / restarts];
        super::progress(format_args!(
            "both hosts restarted after operation {moment}"
        ));
        run.restart(moment, place.path(), &mut dice, &mut report)?;
    }
    Ok(report)
}

/// In memory where there is some: thousands of images, and no disk under test.
fn memory_directory() -> anyhow::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.context("no place for images")
}

/// A run of a whole farm, and what was done to its disks.
struct Run {
    farm: TestFarm,
    load: Load,
    facts: Facts,
    acts: Vec<Recorded>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Coordinator,
    Agent,
}

impl Side {
    const BOTH: [Self; 2] = [Self::Coordinator, Self::Agent];

    /// Its directory in the farm's.
    const fn directory(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Agent => "a1",
        }
    }
}

impl Run {
    fn recorded(seed: u64, report: &mut Report) -> anyhow::Result<Self> {
        let pipes = tempfile::tempdir()?;
        let recorder = Recorder::in_directory(pipes.path());
        let mut farm = TestFarm::start_as(&CoordinatorPlan {
            around: Some(Around::Recorder(recorder.clone())),
            ..CoordinatorPlan::default()
        });
        let mut facts = Facts::default();
        facts.coordinator_is_there();
        let mut events = farm.coordinator.events_after(0);
        let builders = ["b1", "b2"].map(BuilderPlan::named);
        let around = Some(Around::Recorder(recorder.clone()));
        farm.add_agent_inside(around, Side::Agent.directory(), &builders);
        facts.agent_is_there();
        let mut load = Load::on(&farm, SHAPE, seed);
        super::go_on(&mut load, &mut events, WORK);
        load.finish(&mut events);
        load.judge(report);
        facts.learn(events.seen());
        for agent in &mut farm.agents {
            agent.kill();
            agent.around = None;
        }
        farm.coordinator.kill();
        farm.coordinator.around = None;
        let acts = recording::read(&recorder.recordings(), farm.path())?;
        Ok(Self {
            farm,
            load,
            facts,
            acts,
        })
    }

    fn disks(&self) -> BTreeMap<&'static str, Disk> {
        let disk = |side: Side| Disk::below(&self.farm.file(side.directory()));
        Side::BOTH
            .iter()
            .map(|side| (side.directory(), disk(*side)))
            .collect()
    }

    /// After which operations a cut may leave more than one state.
    fn moments(&self) -> Vec<usize> {
        let mut disks = self.disks();
        let mut moments = Vec::new();
        for (number, recorded) in self.acts.iter().enumerate() {
            disks
                .values_mut()
                .for_each(|disk| disk.perform(&recorded.act));
            let in_doubt = disks.values().any(Disk::is_in_doubt);
            if in_doubt && recorded.at >= self.facts.begin() {
                moments.push(number);
            }
        }
        moments
    }

    fn look_at_images(
        &mut self,
        moments: &[usize],
        images: usize,
        place: &Path,
        dice: &mut Dice,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let mut disks = self.disks();
        let mut done = 0;
        for (number, recorded) in self.acts.iter().enumerate() {
            disks
                .values_mut()
                .for_each(|disk| disk.perform(&recorded.act));
            let Ok(moment) = moments.binary_search(&number) else {
                continue;
            };
            // Spread evenly over all moments, however many there are.
            let due = (moment + 1) * images / moments.len();
            while done < due {
                for side in Side::BOTH {
                    let image = place.join("image");
                    let disk = &disks[side.directory()];
                    disk.leave(&image, &mut luck(done, dice))?;
                    let looked = match side {
                        Side::Coordinator => self.facts.of_coordinator(&image, disk, recorded.at),
                        Side::Agent => self.facts.of_agent(&image, disk, recorded.at),
                    };
                    report.fault(&format!("image of the {side:?}"));
                    if let Err(error) = looked
                        && report.broken.len() < SHOWN
                    {
                        let after = cut(&format!("{:?}", recorded.act));
                        report.broken.push(format!(
                            "{side:?} cut after operation {number}, luck {}: {error:#} [{after}]",
                            done % 4
                        ));
                    }
                    fs::remove_dir_all(&image)?;
                }
                done += 1;
            }
        }
        Ok(())
    }

    /// Brings both hosts up again on what a cut at this moment left.
    fn restart(
        &mut self,
        moment: usize,
        place: &Path,
        dice: &mut Dice,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let mut disks = self.disks();
        for recorded in &self.acts[..=moment] {
            disks
                .values_mut()
                .for_each(|disk| disk.perform(&recorded.act));
        }
        for side in Side::BOTH {
            let state = self.farm.file(side.directory()).join("state");
            fs::remove_dir_all(&state)?;
            let image = place.join("image");
            disks[side.directory()].leave(&image, &mut Luck::Dice(dice))?;
            copy(&image.join("state"), &state)?;
            fs::remove_dir_all(&image)?;
        }
        let boot = self.farm.file("boot-id");
        fs::write(
            &boot,
            format!("{:08x}-0000-4000-8000-000000000000\n", dice.roll(u32::MAX)),
        )?;
        self.farm.coordinator.restart();
        let agent = &mut self.farm.agents[0];
        agent.around = Some(Around::Boot(boot));
        if !agent.try_start_with(&[]) {
            let broken = format!("restarted after operation {moment}: the agent does not start");
            report.broken.push(broken);
            self.farm.coordinator.kill();
            return Ok(());
        }
        for job in self.facts.jobs_by(self.acts[moment].at) {
            for fault in self.load.faults_in_the_end(job) {
                let broken = format!("restarted after operation {moment}: job {job}: {fault}");
                report.broken.push(broken);
            }
        }
        report.fault("restart of both hosts");
        self.farm.agents[0].kill();
        self.farm.coordinator.kill();
        Ok(())
    }
}

fn luck(number: usize, dice: &mut Dice) -> Luck<'_> {
    match number % 4 {
        0 => Luck::None,
        1 => Luck::All,
        _ => Luck::Dice(dice),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(160).collect()
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target: PathBuf = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
