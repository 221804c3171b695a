//! The score of a new job. Owns the one formula and the default numbers in it;
//! configuration replaces any of them. What an operator sets by hand takes the
//! score's place and is never computed again.
//!
//! ```text
//! score = the submitter's priority + the owner's bonus
//!       + urgency + pocket + component      (by the job's parameters of these names)
//!       + private                           (for a private job that has any of the three)
//! ```
//! Within an owner, of two jobs that a builder could take, the one with less of
//! `submitted − score × 60 s` starts first: score leads, and age catches up a
//! point a minute. Owners take turns by what they had of the farm, by weight.

use std::collections::BTreeMap;

use farmbell_protocol::spec::JobSpec;

/// What the parameters of a Debian job are worth, in points:
///
/// | what | points by default |
/// |---|---|
/// | urgency low, medium, high, emergency | 5, 10, 15, 20 |
/// | pocket backports, release, proposed, updates, security | 0, 1500, 3000, 3000, 4500 |
/// | component multiverse, universe, restricted, main, partner | 0, 250, 750, 1000, 1250 |
/// | private | 10000 |
///
/// A word that is not in its table is worth nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scores {
    pub urgency: BTreeMap<String, i32>,
    pub pocket: BTreeMap<String, i32>,
    pub component: BTreeMap<String, i32>,
    /// Private jobs are seldom many, and somebody waits for them.
    pub private: i32,
}

impl Scores {
    pub(crate) fn of(&self, spec: &JobSpec, bonus: i32) -> i32 {
        let mut is_debian = false;
        let mut points = |key: &str, table: &BTreeMap<String, i32>| {
            let parameter = spec.parameters.iter().find(|p| p.key.as_str() == key);
            is_debian |= parameter.is_some();
            parameter
                .and_then(|parameter| table.get(parameter.value.as_str()))
                .copied()
                .unwrap_or(0)
        };
        let tables = [
            points("urgency", &self.urgency),
            points("pocket", &self.pocket),
            points("component", &self.component),
        ];
        let private = if spec.private && is_debian {
            self.private
        } else {
            0
        };
        tables
            .into_iter()
            .chain([private, bonus])
            .fold(spec.priority, i32::saturating_add)
    }
}

impl Default for Scores {
    fn default() -> Self {
        let table = |points: &[(&str, i32)]| {
            let points = points.iter();
            points
                .map(|(word, worth)| ((*word).to_owned(), *worth))
                .collect()
        };
        Self {
            urgency: table(&[("low", 5), ("medium", 10), ("high", 15), ("emergency", 20)]),
            pocket: table(&[
                ("backports", 0),
                ("release", 1500),
                ("proposed", 3000),
                ("updates", 3000),
                ("security", 4500),
            ]),
            component: table(&[
                ("multiverse", 0),
                ("universe", 250),
                ("restricted", 750),
                ("main", 1000),
                ("partner", 1250),
            ]),
            private: 10_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use farmbell_protocol::bounded::{List, Name, Text};
    use farmbell_protocol::spec::Parameter;

    use super::*;
    use crate::stories::spec;

    fn with(parameters: &[(&str, &str)]) -> JobSpec {
        let parameters = parameters
            .iter()
            .map(|(key, value)| Parameter {
                key: Name::new(*key).unwrap(),
                value: Text::new(*value).unwrap(),
            })
            .collect::<Vec<_>>();
        JobSpec {
            parameters: List::new(parameters).unwrap(),
            ..spec("hello")
        }
    }

    #[test]
    fn a_low_urgency_release_of_main_has_2505_points() {
        let job = with(&[
            ("urgency", "low"),
            ("pocket", "release"),
            ("component", "main"),
        ]);
        let scores = Scores::default();
        assert_eq!(scores.of(&job, 0), 2505);
        assert_eq!(scores.of(&job, -100), 2405, "the owner's bonus");
        let private = JobSpec {
            private: true,
            priority: 7,
            ..job
        };
        assert_eq!(scores.of(&private, 0), 12_512);
        assert_eq!(scores.of(&with(&[("pocket", "unheard-of")]), 0), 0);
        let plain = JobSpec {
            private: true,
            ..with(&[])
        };
        assert_eq!(scores.of(&plain, 0), 0, "it is no Debian job");
        let huge = JobSpec {
            priority: i32::MAX,
            ..private
        };
        assert_eq!(scores.of(&huge, 0), i32::MAX);
    }
    #[test]
    fn configuration_replaces_what_a_word_is_worth() {
        let scores = Scores {
            urgency: [("low".to_owned(), -7)].into(),
            ..Scores::default()
        };
        assert_eq!(
            scores.of(&with(&[("urgency", "low"), ("component", "main")]), 0),
            993
        );
        assert_eq!(scores.of(&with(&[("urgency", "emergency")]), 0), 0);
    }
}
