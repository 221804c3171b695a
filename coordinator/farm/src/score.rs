//! The score of a new job. Owns the default for Debian jobs, from what their
//! parameters say: urgency, pocket, component, private. A priority that the
//! submitter gave is added to it; what an operator sets later replaces it.
//!
//! | what | points |
//! |---|---|
//! | urgency low, medium, high, emergency | 5, 10, 15, 20 |
//! | pocket backports, release, proposed, updates, security | 0, 1500, 3000, 3000, 4500 |
//! | component multiverse, universe, restricted, main, partner | 0, 250, 750, 1000, 1250 |
//! | private | 10000 |

use farmbell_protocol::spec::JobSpec;

/// Private jobs are seldom many, and somebody waits for them.
const PRIVATE: i32 = 10_000;

pub(crate) fn of(spec: &JobSpec) -> i32 {
    let parameter = |key: &str| {
        spec.parameters
            .iter()
            .find(|parameter| parameter.key.as_str() == key)
            .map(|parameter| parameter.value.as_str())
    };
    let debian = points(parameter("urgency"), URGENCIES)
        + points(parameter("pocket"), POCKETS)
        + points(parameter("component"), COMPONENTS);
    let private = if spec.private && debian > 0 {
        PRIVATE
    } else {
        0
    };
    spec.priority.saturating_add(debian + private)
}

const URGENCIES: &[(&str, i32)] = &[("low", 5), ("medium", 10), ("high", 15), ("emergency", 20)];
const POCKETS: &[(&str, i32)] = &[
    ("backports", 0),
    ("release", 1500),
    ("proposed", 3000),
    ("updates", 3000),
    ("security", 4500),
];
const COMPONENTS: &[(&str, i32)] = &[
    ("multiverse", 0),
    ("universe", 250),
    ("restricted", 750),
    ("main", 1000),
    ("partner", 1250),
];

fn points(value: Option<&str>, table: &[(&str, i32)]) -> i32 {
    value
        .and_then(|value| table.iter().find(|(name, _)| *name == value))
        .map_or(0, |(_, points)| *points)
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
        assert_eq!(of(&job), 2505);
        let private = JobSpec {
            private: true,
            priority: 7,
            ..job
        };
        assert_eq!(of(&private), 12_512);
        assert_eq!(of(&with(&[("pocket", "unheard-of")])), 0);
    }
}
