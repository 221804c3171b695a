//! What the command prints. Owns the three formats and the making harmless of
//! strangers' words in tables; JSON is the API's own and escapes them itself.

use std::io::{IsTerminal, Write};

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::exit::{Failure, Result};
use crate::inert;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people; changes between versions
    #[default]
    Table,
    /// One value, as the API gives it; of what comes over time (`events`, `job wait`,
    /// `artifact get`) one per line
    Json,
    /// One value per line
    Ndjson,
}

/// Standard output and standard error, in one format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    format: Format,
}

impl Output {
    pub(super) const fn new(format: Format) -> Self {
        Self { format }
    }

    pub(super) fn is_table(self) -> bool {
        self.format == Format::Table
    }

    /// A list: a table, a JSON array, or a line each.
    pub(super) fn list<T: Serialize>(
        self,
        items: &[T],
        header: &[&str],
        row: impl Fn(&T) -> Vec<String>,
    ) -> Result<()> {
        match self.format {
            Format::Table => print(&table(header, items.iter().map(row))),
            Format::Json => print(&pretty(&items)),
            Format::Ndjson => items.iter().try_for_each(|item| print(&compact(item))),
        }
    }

    /// One value: sentences for people, else JSON.
    pub(super) fn one<T: Serialize>(
        self,
        value: &T,
        for_people: impl FnOnce(&T) -> String,
    ) -> Result<()> {
        match self.format {
            Format::Table => print(&inert::lines(for_people(value).as_bytes())),
            Format::Json => print(&pretty(value)),
            Format::Ndjson => print(&compact(value)),
        }
    }

    /// Values that an act comes to one by one.
    pub(super) fn series<T>(self) -> Series<T> {
        Series {
            output: self,
            held: Vec::new(),
            written: Ok(()),
        }
    }

    /// One of many values that come over time.
    pub(super) fn item<T: Serialize>(
        self,
        value: &T,
        for_people: impl FnOnce(&T) -> String,
    ) -> Result<()> {
        match self.format {
            Format::Table => print(&inert::lines(for_people(value).as_bytes())),
            Format::Json | Format::Ndjson => print(&compact(value)),
        }
    }
}

/// Values that an act comes to one by one: a line each as they come, but in JSON
/// the one array that they are. Where the output fails, the rest is not written
/// and the act goes on; the end tells.
#[derive(Debug)]
pub(super) struct Series<T> {
    output: Output,
    held: Vec<T>,
    written: Result<()>,
}

impl<T: Serialize> Series<T> {
    pub(super) fn tell(&mut self, value: T, for_people: impl FnOnce(&T) -> String) {
        match self.output.format {
            Format::Json => self.held.push(value),
            Format::Table | Format::Ndjson if self.written.is_ok() => {
                self.written = self.output.item(&value, for_people);
            }
            Format::Table | Format::Ndjson => {}
        }
    }

    pub(super) fn end(self) -> Result<()> {
        match self.output.format {
            Format::Json => print(&pretty(&self.held)),
            Format::Table | Format::Ndjson => self.written,
        }
    }
}

fn print(text: &str) -> Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let mut out = anstream::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(|e| Failure::output(&e))
}

/// A remark on standard error, made harmless.
pub(super) fn remark(text: &str) {
    anstream::eprintln!("{}", inert::lines(text.as_bytes()));
}

/// The failure, on standard error.
pub(super) fn complain(failure: &Failure) {
    if failure.cause.is_empty() {
        return;
    }
    anstream::eprintln!("\u{1b}[1;31merror:\u{1b}[0m {}", super::exit::text(failure));
}

/// Whether standard output is a person's terminal.
pub(super) fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// A plain table that a terminal and `awk` both read.
pub(super) fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(header.to_vec());
    let mut last = header.len().saturating_sub(1);
    for row in rows {
        last = row.len().saturating_sub(1);
        table.add_row(row.iter().map(|cell| match cell.as_str() {
            "" => "-".into(),
            text => inert::line(text).into_owned(),
        }));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if index == last { 0 } else { 2 }));
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

/// `name: value` lines, aligned; empty values are left out.
pub(super) fn facts(pairs: &[(&str, String)]) -> String {
    let width = pairs
        .iter()
        .map(|(name, _)| name.len() + 1)
        .max()
        .unwrap_or(0);
    let lines: Vec<_> = pairs
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| {
            let label = format!("{name}:");
            format!("{label:width$} {}", inert::line(value))
        })
        .collect();
    lines.join("\n")
}

/// A span of time, as coarse as people like it.
pub(super) fn span(ms: u64) -> String {
    match ms / 1000 {
        0 => format!("{ms} ms"),
        s @ 1..=119 => format!("{s} s"),
        s @ 120..=7199 => format!("{} min", s / 60),
        s @ 7200..=172_799 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        s => format!("{} days", s / 86400),
    }
}

/// A size in binary units.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut tenths, mut unit) = (bytes.saturating_mul(10) / 1024, 0);
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

fn pretty<T: Serialize>(value: &T) -> String {
    serde_json::to_string_pretty(value).expect("our shapes have string keys only")
}

fn compact<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("our shapes have string keys only")
}

/// A progress bar on standard error; invisible unless that is a terminal.
pub(super) fn bar(name: &str, length: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(
        "{msg} {bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}",
    );
    bar.set_style(style.expect("the template is a constant that a test draws"));
    bar.set_message(inert::line(name).into_owned());
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_keeps_a_hostile_name_in_its_cell() {
        let rows = [vec!["a\nb\u{1b}[2J".to_owned(), String::new()]];
        let text = table(&["NAME", "WHY"], rows.into_iter());
        assert_eq!(text, "NAME     WHY\na␊b␛[2J  -");
    }

    #[test]
    fn spans_and_sizes_read_well() {
        assert_eq!(span(999), "999 ms");
        assert_eq!(span(61_000), "61 s");
        assert_eq!(span(7_260_000), "2 h 1 min");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(5 << 30), "5.0 GiB");
    }

    #[test]
    fn the_bar_can_be_drawn() {
        bar("hello.dsc", 5).inc(5);
    }
}
