//! The list of cuts beside a log: one line `OFFSET DROPPED` each, so that a
//! person can read what is missing. There is no file where nothing is.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::{Cut, LogError};
use crate::disk::DiskError;

pub(super) const EXTENSION: &str = "cuts";

pub(super) fn read(path: &Path) -> Result<Vec<Cut>, LogError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(DiskError::at(path)(error).into()),
    };
    // A line without its end was being written when the process died; the
    // agent sends that cut again.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .enumerate()
        .map(|(number, line)| {
            parse(line).ok_or_else(|| LogError::Cuts {
                path: path.display().to_string(),
                line: number + 1,
            })
        })
        .collect()
}

/// Writes the list anew: cuts are few, and a torn line must not stay.
pub(super) fn write(path: &Path, cuts: &[Cut]) -> Result<File, LogError> {
    let mut file = File::create(path).map_err(DiskError::at(path))?;
    let lines: String = cuts
        .iter()
        .map(|cut| format!("{} {}\n", cut.offset, cut.dropped))
        .collect();
    file.write_all(lines.as_bytes())
        .map_err(DiskError::at(path))?;
    Ok(file)
}

fn parse(line: &str) -> Option<Cut> {
    let (offset, dropped) = line.split_once(' ')?;
    Some(Cut {
        offset: offset.parse().ok()?,
        dropped: dropped.parse().ok()?,
    })
}
