//! The floor of an attempt: what any farm that keeps its promise has to do.
//! Accept durably, start a supervisor process, start a recipe, start the
//! command; and at the end, write the exit record durably.
//!
//! The program `floor` plays the parts; its `stamp` writes the moment of its
//! first instruction, and real jobs run the very same command; `span` adds its
//! last, and `note` adds a line to a file.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use nix::time::{ClockId, clock_gettime};

use super::sample::Samples;

/// Nanoseconds of the clock that all processes of a host share.
///
/// # Errors
/// If the host has no monotonic clock.
pub fn monotonic_ns() -> anyhow::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(now.tv_sec())? * 1_000_000_000 + u64::try_from(now.tv_nsec())?)
}

/// What one run of the chain took.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    /// From before the acceptance to the command's first instruction.
    pub start: Samples,
    /// From before the acceptance to the durable exit record.
    pub whole: Samples,
}

impl Chain {
    /// Runs the chain once below `dir` with the program `floor`.
    ///
    /// # Errors
    /// If a part fails.
    pub fn run(&mut self, floor: &Path, dir: &Path, number: usize) -> anyhow::Result<()> {
        let attempt = dir.join(format!("chain-{number}"));
        fs::create_dir(&attempt)?;
        let began = monotonic_ns()?;
        write_durably(&attempt.join("accepted"), b"accepted")?;
        let mut supervisor = Command::new(floor).arg("supervise").arg(&attempt).spawn()?;
        let status = supervisor.wait()?;
        let ended = monotonic_ns()?;
        anyhow::ensure!(status.success(), "the floor's supervisor failed: {status}");
        let stamp = read_stamp(&attempt.join("stamp"))?;
        self.start
            .push(Duration::from_nanos(stamp.saturating_sub(began)));
        self.whole
            .push(Duration::from_nanos(ended.saturating_sub(began)));
        fs::remove_dir_all(attempt)?;
        Ok(())
    }
}

/// The moment a `floor stamp FILE` wrote.
///
/// # Errors
/// If the file is not there or holds no number.
pub fn read_stamp(path: &Path) -> anyhow::Result<u64> {
    let text =
        fs::read_to_string(path).with_context(|| format!("no stamp at {}", path.display()))?;
    Ok(text.trim().parse()?)
}

/// The first and the last moment that a `floor span FILE` wrote.
///
/// # Errors
/// If the file is not there or holds anything else.
pub fn read_span(path: &Path) -> anyhow::Result<(u64, u64)> {
    let text =
        fs::read_to_string(path).with_context(|| format!("no span at {}", path.display()))?;
    let mut lines = text.lines().map(str::parse);
    match (lines.next(), lines.next()) {
        (Some(begin), Some(end)) => Ok((begin?, end?)),
        _ => anyhow::bail!("half a span at {}", path.display()),
    }
}

/// Writes a file, its bytes and its name durable.
fn write_durably(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    let parent = path.parent().context("a file has a directory")?;
    Ok(File::open(parent)?.sync_all()?)
}

/// The parts that the program `floor` plays.
///
/// # Errors
/// If a part fails.
pub fn play(arguments: &[String]) -> anyhow::Result<()> {
    let own = std::env::current_exe()?;
    if arguments == ["say"] {
        return say();
    }
    let [part, path] = arguments else {
        anyhow::bail!("usage: floor supervise|recipe DIR, floor stamp|span|note FILE, floor say");
    };
    let path = PathBuf::from(path);
    match part.as_str() {
        "stamp" => {
            let now = monotonic_ns()?;
            Ok(fs::write(path, now.to_string())?)
        }
        "span" => {
            let begin = monotonic_ns()?;
            let mut file = File::create(path)?;
            file.write_all(format!("{begin}\n").as_bytes())?;
            Ok(file.write_all(format!("{}\n", monotonic_ns()?).as_bytes())?)
        }
        "note" => {
            let mut notes = fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)?;
            let line = format!("{}\n", monotonic_ns()?);
            Ok(notes.write_all(line.as_bytes())?)
        }
        "recipe" => run(Command::new(own).arg("stamp").arg(path.join("stamp"))),
        "supervise" => {
            let log = File::create(path.join("log"))?;
            run(Command::new(own).arg("recipe").arg(&path).stdout(log))?;
            write_durably(&path.join("exit"), b"exit 0")
        }
        other => anyhow::bail!("no part is called {other}"),
    }
}

/// Says the moment on standard output: a log line that knows when it was written.
fn say() -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{}", monotonic_ns()?)?)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status()?;
    anyhow::ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}
