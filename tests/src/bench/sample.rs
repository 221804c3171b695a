//! Many measurements of one thing, and what is said of them.

use std::time::{Duration, Instant};

/// Durations of one thing, measured several times.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    pub fn push(&mut self, span: Duration) {
        self.0.push(span);
    }

    /// Measures one run of `work`.
    ///
    /// # Errors
    /// As `work`.
    pub fn time<T>(&mut self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let start = Instant::now();
        let value = work()?;
        self.push(start.elapsed());
        Ok(value)
    }

    /// Takes the runs of another measurement of the same thing.
    pub fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    #[must_use]
    pub fn runs(&self) -> usize {
        self.0.len()
    }

    /// The value below which a share of the runs lies; zero without runs.
    #[must_use]
    pub fn quantile(&self, per_mille: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        sorted
            .get((last * per_mille).div_ceil(1000))
            .copied()
            .unwrap_or_default()
    }

    #[must_use]
    pub fn median(&self) -> Duration {
        self.quantile(500)
    }

    #[must_use]
    pub fn p99(&self) -> Duration {
        self.quantile(990)
    }
}

impl FromIterator<Duration> for Samples {
    fn from_iter<I: IntoIterator<Item = Duration>>(spans: I) -> Self {
        Self(spans.into_iter().collect())
    }
}

/// Milliseconds, the unit of most rows.
#[must_use]
pub fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_and_a_p99_is_near_the_end() {
        let samples: Samples = (1..=101).map(Duration::from_millis).collect();
        assert_eq!(samples.median(), Duration::from_millis(51));
        assert_eq!(samples.p99(), Duration::from_millis(100));
        assert_eq!(Samples::default().median(), Duration::ZERO);
    }
}
