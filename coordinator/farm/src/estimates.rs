//! Estimates. Owns how long jobs have taken, by name and architecture, and so
//! when a busy builder may come free. Says "unknown" where it is unknown, and
//! decides nothing: no job waits because of an estimate.

use std::collections::BTreeMap;
use std::time::Duration;

use farmbell_protocol::bounded::Name;

/// Names and architectures remembered: the packages of a few distributions.
const KNOWN_MAX: usize = 1 << 17;
/// What is taken to be left of an attempt that has passed its estimate.
const OVERDUE: Duration = Duration::from_secs(120);

#[derive(Clone, Debug, Default)]
pub(crate) struct Estimates {
    seconds: BTreeMap<(Box<str>, Name), u32>,
}

impl Estimates {
    /// A job of this name took this long; the newest weighs as much as all
    /// before it.
    pub(crate) fn learn(&mut self, name: &str, architecture: &Name, took: Duration) {
        let took = u32::try_from(took.as_secs()).unwrap_or(u32::MAX);
        let full = self.seconds.len() >= KNOWN_MAX;
        let key = (name.into(), architecture.clone());
        match self.seconds.get_mut(&key) {
            Some(known) => *known = known.midpoint(took),
            None if full => {}
            None => {
                self.seconds.insert(key, took);
            }
        }
    }

    pub(crate) fn of(&self, name: &str, architecture: &Name) -> Option<Duration> {
        let seconds = self.seconds.get(&(name.into(), architecture.clone()))?;
        Some(Duration::from_secs(u64::from(*seconds)))
    }

    /// What is left of an attempt that began so long ago.
    pub(crate) fn left(&self, name: &str, architecture: &Name, ran: Duration) -> Option<Duration> {
        let whole = self.of(name, architecture)?;
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

    #[test]
    fn what_is_unknown_is_said_to_be() {
        let amd64 = Name::new("amd64").unwrap();
        let mut estimates = Estimates::default();
        assert_eq!(estimates.left("hello", &amd64, Duration::ZERO), None);
        estimates.learn("hello", &amd64, Duration::from_secs(100));
        estimates.learn("hello", &amd64, Duration::from_secs(300));
        assert_eq!(
            estimates.of("hello", &amd64),
            Some(Duration::from_secs(200))
        );
        let left = estimates.left("hello", &amd64, Duration::from_secs(150));
        assert_eq!(left, Some(Duration::from_secs(50)));
        let overdue = estimates.left("hello", &amd64, Duration::from_secs(500));
        assert_eq!(overdue, Some(OVERDUE));
        assert_eq!(span_words(Duration::from_secs(230)), "~4 min");
    }
}
