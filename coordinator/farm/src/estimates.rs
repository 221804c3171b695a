//! Estimates. Owns how long jobs have taken, by name and architecture, and so
//! what a job will take: as its like did, as its like did elsewhere, or as
//! long as its inputs are large. Says "unknown" where it is unknown, and
//! decides nothing: no job waits because of an estimate.

use std::collections::BTreeMap;
use std::time::Duration;

use farmbell_protocol::bounded::{Name, Text};

use crate::record::DurationRecord;

/// Names and architectures remembered: the packages of a few distributions.
const KNOWN_MAX: usize = 1 << 17;
/// What is taken to be left of an attempt that has passed its estimate.
const OVERDUE: Duration = Duration::from_secs(120);
/// Names that must be known before sizes are compared with them.
const COMPARED_MIN: u64 = 9;

#[derive(Clone, Debug, Default)]
pub(crate) struct Estimates {
    known: BTreeMap<(Text<128>, Name), Known>,
    /// All that is known of an architecture, added up.
    sums: BTreeMap<Name, Sum>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    seconds: u32,
    input_bytes: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    names: u64,
    seconds: u64,
    input_bytes: u64,
}

/// A job as estimates look at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Like<'a> {
    pub(crate) name: &'a str,
    pub(crate) architecture: &'a Name,
    pub(crate) input_bytes: u64,
}

impl Estimates {
    pub(crate) fn restore(records: impl IntoIterator<Item = DurationRecord>) -> Self {
        let mut estimates = Self::default();
        for record in records {
            estimates.put(record);
        }
        estimates
    }

    /// A job took this long; the newest weighs as much as all before it.
    /// What is to be stored, if it says anything new.
    pub(crate) fn learn(&mut self, like: Like<'_>, took: Duration) -> Option<DurationRecord> {
        let took = u32::try_from(took.as_secs()).unwrap_or(u32::MAX);
        let before = self.known_of(like.name, like.architecture);
        let seconds = match before {
            Some(known) => known.seconds.midpoint(took),
            None if self.known.len() >= KNOWN_MAX => return None,
            None => took,
        };
        if before.is_some_and(|known| known.seconds == seconds) {
            return None;
        }
        let record = DurationRecord {
            name: Text::cut(like.name),
            architecture: like.architecture.clone(),
            seconds,
            input_bytes: like.input_bytes,
        };
        self.put(record.clone());
        Some(record)
    }

    fn put(&mut self, record: DurationRecord) {
        let known = Known {
            seconds: record.seconds,
            input_bytes: record.input_bytes,
        };
        let sum = self.sums.entry(record.architecture.clone()).or_default();
        let key = (record.name, record.architecture);
        if let Some(before) = self.known.insert(key, known) {
            sum.names -= 1;
            sum.seconds -= u64::from(before.seconds);
            sum.input_bytes -= before.input_bytes;
        }
        sum.names += 1;
        sum.seconds += u64::from(known.seconds);
        sum.input_bytes = sum.input_bytes.saturating_add(known.input_bytes);
    }

    fn known_of(&self, name: &str, architecture: &Name) -> Option<Known> {
        let key = (Text::cut(name), architecture.clone());
        self.known.get(&key).copied()
    }

    /// What jobs of this very name took on this architecture.
    pub(crate) fn usual(&self, name: &str, architecture: &Name) -> Option<Duration> {
        let known = self.known_of(name, architecture)?;
        Some(Duration::from_secs(u64::from(known.seconds)))
    }

    /// What the job will take.
    pub(crate) fn of(&self, like: Like<'_>) -> Option<Duration> {
        self.usual(like.name, like.architecture)
            .or_else(|| self.elsewhere(like.name))
            .or_else(|| self.by_size(like))
    }

    /// What jobs of this name took on the other architectures, on average.
    fn elsewhere(&self, name: &str) -> Option<Duration> {
        let name = Text::cut(name);
        let first = (name.clone(), Name::default());
        let same = self.known.range(first..);
        let same = same.take_while(|((other, _), _)| *other == name);
        let (count, sum) = same.fold((0_u64, 0_u64), |(count, sum), (_, known)| {
            (count + 1, sum + u64::from(known.seconds))
        });
        Some(Duration::from_secs(sum.checked_div(count)?))
    }

    fn by_size(&self, like: Like<'_>) -> Option<Duration> {
        let sum = self.sums.get(like.architecture)?;
        if sum.names < COMPARED_MIN || like.input_bytes == 0 {
            return None;
        }
        let share = u128::from(sum.seconds) * u128::from(like.input_bytes);
        let seconds = share.checked_div(u128::from(sum.input_bytes))?;
        Some(Duration::from_secs(u64::try_from(seconds).ok()?))
    }

    /// What a job takes on this architecture, whatever it is.
    pub(crate) fn mean(&self, architecture: &Name) -> Option<Duration> {
        let sum = self.sums.get(architecture)?;
        Some(Duration::from_secs(sum.seconds.checked_div(sum.names)?))
    }

    /// What is left of an attempt that began so long ago.
    pub(crate) fn left(&self, like: Like<'_>, ran: Duration) -> Option<Duration> {
        let whole = self.of(like)?;
        Some(whole.checked_sub(ran).unwrap_or(OVERDUE))
    }
}

/// A span for people: "40 s", "~4 min", "~3 h".
pub(crate) fn span_words(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..=89 => format!("{seconds} s"),
        90..=5399 => format!("~{} min", (seconds + 30) / 60),
        _ => format!("~{} h", (seconds + 1800) / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn like<'a>(name: &'a str, architecture: &'a Name, input_bytes: u64) -> Like<'a> {
        Like {
            name,
            architecture,
            input_bytes,
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_unknown_is_said_to_be() {
        let amd64 = name("amd64");
        let hello = like("hello", &amd64, 0);
        let mut estimates = Estimates::default();
        assert_eq!(estimates.left(hello, Duration::ZERO), None);
        assert!(estimates.learn(hello, 100 * SECOND).is_some());
        assert!(estimates.learn(hello, 300 * SECOND).is_some());
        assert_eq!(estimates.of(hello), Some(200 * SECOND));
        assert_eq!(estimates.learn(hello, 200 * SECOND), None, "nothing new");
        let left = estimates.left(hello, 150 * SECOND);
        assert_eq!(left, Some(50 * SECOND));
        assert_eq!(estimates.left(hello, 500 * SECOND), Some(OVERDUE));
        assert_eq!(estimates.mean(&amd64), Some(200 * SECOND), "one name");
    }

    #[test]
    fn spans_are_told_as_exactly_as_people_care() {
        for (seconds, words) in [
            (0, "0 s"),
            (89, "89 s"),
            (90, "~2 min"),
            (230, "~4 min"),
            (5399, "~90 min"),
            (5400, "~2 h"),
            (36_000, "~10 h"),
        ] {
            assert_eq!(span_words(seconds * SECOND), words);
        }
    }

    #[test]
    fn there_is_room_for_so_many_names_and_known_ones_go_on_learning() {
        let amd64 = name("amd64");
        let record = |number: usize| DurationRecord {
            name: Text::cut(format!("package-{number}")),
            architecture: name("amd64"),
            seconds: 10,
            input_bytes: 0,
        };
        let mut estimates = Estimates::restore((1..KNOWN_MAX).map(record));
        let last = like("last", &amd64, 0);
        assert!(estimates.learn(last, SECOND).is_some());
        assert_eq!(estimates.learn(like("more", &amd64, 0), SECOND), None);
        assert!(estimates.learn(last, 3 * SECOND).is_some());
    }

    #[test]
    fn the_newest_of_a_name_is_what_sizes_are_compared_with() {
        let amd64 = name("amd64");
        let mut estimates = Estimates::default();
        for number in 1..COMPARED_MIN {
            let package = format!("package-{number}");
            estimates.learn(like(&package, &amd64, 1000), 10 * SECOND);
        }
        let new = like("new", &amd64, 3600);
        assert_eq!(estimates.of(new), None, "too few to compare with");
        estimates.learn(like("grows", &amd64, 0), Duration::ZERO);
        assert_eq!(estimates.of(new), Some(36 * SECOND));
        estimates.learn(like("grows", &amd64, 1000), 40 * SECOND);
        assert_eq!(estimates.of(new), Some(40 * SECOND));
        estimates.learn(like("grows", &amd64, 10_000), 180 * SECOND);
        assert_eq!(estimates.of(new), Some(36 * SECOND));
        assert_eq!(estimates.mean(&amd64), Some(20 * SECOND));
    }

    #[test]
    fn its_like_elsewhere_and_then_its_size_say_what_a_new_job_takes() {
        let (amd64, arm64, riscv64) = (name("amd64"), name("arm64"), name("riscv64"));
        let mut estimates = Estimates::default();
        let mut stored = Vec::new();
        for number in 0..COMPARED_MIN {
            let package = format!("package-{number}");
            let took = 10 * SECOND;
            stored.extend(estimates.learn(like(&package, &amd64, 1000), took));
        }
        assert_eq!(estimates.of(like("new", &amd64, 3000)), Some(30 * SECOND));
        assert_eq!(estimates.of(like("new", &amd64, 0)), None, "no size");
        assert_eq!(estimates.of(like("new", &arm64, 3000)), None, "no history");
        stored.extend(estimates.learn(like("new", &arm64, 3000), 50 * SECOND));
        stored.extend(estimates.learn(like("new", &riscv64, 3000), 70 * SECOND));
        let elsewhere = Some(60 * SECOND);
        assert_eq!(estimates.of(like("new", &amd64, 3000)), elsewhere);
        let restored = Estimates::restore(stored);
        assert_eq!(restored.of(like("new", &amd64, 3000)), elsewhere);
        assert_eq!(restored.mean(&amd64), Some(10 * SECOND));
        assert_eq!(restored.mean(&name("s390x")), None);
    }
}
