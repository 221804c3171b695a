//! One figure, and the table of them.

use std::fmt::Write as _;

use serde::Serialize;

use super::machine::Machine;

/// What a figure must reach.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// At most this many times the floor.
    FloorTimesAtMost(f64),
    /// At least this many times the floor.
    FloorTimesAtLeast(f64),
    AtMost(f64),
    AtLeast(f64),
    /// Shown, not judged.
    Information,
}

/// A reference program's result in the same run.
#[derive(Clone, Debug, Serialize)]
pub struct Floor {
    pub what: &'static str,
    pub median: f64,
    pub runs: usize,
}

/// One figure of the list.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// As in the list of figures, for example `start`.
    pub id: &'static str,
    pub what: String,
    pub unit: &'static str,
    pub median: f64,
    pub p99: Option<f64>,
    pub runs: usize,
    pub floor: Option<Floor>,
    pub mark: Mark,
    /// What a reader has to know about this value.
    pub note: String,
}

impl Row {
    /// The median as a multiple of the floor's.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        let floor = self.floor.as_ref()?;
        (floor.median > 0.0).then(|| self.median / floor.median)
    }

    /// Whether the mark is reached; `None` where nothing is judged.
    #[must_use]
    pub fn held(&self) -> Option<bool> {
        match self.mark {
            Mark::FloorTimesAtMost(times) => Some(self.ratio()? <= times),
            Mark::FloorTimesAtLeast(times) => Some(self.ratio()? >= times),
            Mark::AtMost(most) => Some(self.median <= most),
            Mark::AtLeast(least) => Some(self.median >= least),
            Mark::Information => None,
        }
    }

    /// For whoever waits for the table, and where it never comes.
    #[must_use]
    pub fn to_line(&self) -> String {
        let cells = cells_of(self);
        let cells = cells.iter().filter(|cell| !cell.is_empty());
        let cells: Vec<&str> = cells.map(String::as_str).collect();
        format!("{}; {}", cells.join("  "), self.said())
    }

    fn said(&self) -> String {
        match self.note.as_str() {
            "" => self.what.clone(),
            note => format!("{}; {note}", self.what),
        }
    }
}

/// All rows of one run on one machine.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    pub machine: Machine,
    pub rows: Vec<Row>,
}

impl Table {
    /// Every judged row is at its mark.
    #[must_use]
    pub fn all_held(&self) -> bool {
        self.rows.iter().all(|row| row.held() != Some(false))
    }

    /// For people: one line a figure.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("{}\n", self.machine);
        let header = [
            "figure", "median", "p99", "runs", "floor", "ratio", "mark", "",
        ];
        let mut cells: Vec<[String; 8]> = vec![header.map(str::to_owned)];
        cells.extend(self.rows.iter().map(cells_of));
        let widths: Vec<usize> = (0..8)
            .map(|column| {
                cells
                    .iter()
                    .map(|row| row[column].chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        for row in &cells {
            for (cell, width) in row.iter().zip(&widths) {
                // Writing to a string cannot fail.
                write!(text, "{cell:<width$}  ").expect("a string takes any text");
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        for row in &self.rows {
            writeln!(text, "  {}: {}", row.id, row.said()).expect("a string takes any text");
        }
        text
    }
}

fn cells_of(row: &Row) -> [String; 8] {
    let number = |value: f64| format!("{value:.*} {}", digits(value), row.unit);
    [
        row.id.to_owned(),
        number(row.median),
        row.p99.map(number).unwrap_or_default(),
        row.runs.to_string(),
        row.floor
            .as_ref()
            .map(|floor| format!("{} ({})", number(floor.median), floor.what))
            .unwrap_or_default(),
        row.ratio()
            .map(|ratio| format!("{ratio:.2} ×"))
            .unwrap_or_default(),
        match row.mark {
            Mark::FloorTimesAtMost(times) => format!("≤ {times} × floor"),
            Mark::FloorTimesAtLeast(times) => format!("≥ {times} × floor"),
            Mark::AtMost(most) => format!("≤ {most} {}", row.unit),
            Mark::AtLeast(least) => format!("≥ {least} {}", row.unit),
            Mark::Information => String::new(),
        },
        match row.held() {
            Some(true) => "held".to_owned(),
            Some(false) => "MISSED".to_owned(),
            None => String::new(),
        },
    ]
}

fn digits(value: f64) -> usize {
    if value.abs() >= 100.0 {
        0
    } else if value.abs() >= 10.0 {
        1
    } else {
        2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(median: f64, mark: Mark) -> Row {
        Row {
            id: "start",
            what: "submit to first instruction".to_owned(),
            unit: "ms",
            median,
            p99: None,
            runs: 1,
            floor: Some(Floor {
                what: "chain",
                median: 4.0,
                runs: 1,
            }),
            mark,
            note: String::new(),
        }
    }

    #[test]
    fn a_mark_is_a_ratio_to_the_floor_of_the_same_run() {
        assert_eq!(row(6.0, Mark::FloorTimesAtMost(1.6)).held(), Some(true));
        assert_eq!(row(7.0, Mark::FloorTimesAtMost(1.6)).held(), Some(false));
        assert_eq!(row(7.0, Mark::FloorTimesAtLeast(1.6)).held(), Some(true));
        assert_eq!(row(7.0, Mark::Information).held(), None);
    }
}
