//! The JSON of the API. The only place where serde is derived for HTTP; the
//! service and the command both use these shapes, so they cannot drift apart.
//! Owns shapes and their words; never decides anything.
//!
//! Invariants: times are RFC 3339 in UTC, sizes are bytes, durations are
//! milliseconds and say so in their names; fields are only added.

mod act;
mod builder;
mod event;
mod health;
mod job;
mod problem;
mod spec;
mod token;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use act::{
    BrakeRequest, BrakeView, BulkRequest, BulkView, FilterSpec, JobActRequest, JobActSpec,
    PackageRequest, SetBrake,
};
pub use builder::{
    Act, ActQuery, AgentView, BuilderView, EnvelopeView, Occupant, OverviewView, ResetView,
};
pub use event::EventView;
pub use health::HealthView;
pub use job::{
    ArtifactView, AttemptView, BuilderReasons, CancelView, CutView, EndView, ExplainView,
    JobDetail, JobList, JobView, OutcomeView, PlanView, QueueView, QueuedView, UsageView,
    VerdictView, WaitView,
};
pub use problem::{Code, Problem};
pub use spec::{
    InputSpec, LimitsSpec, ParameterSpec, Spec, SpecError, SubmitRequest, Submitted, SubmittedJob,
};
pub use token::{TokenCreate, TokenCreated, TokenView};

/// A moment, in milliseconds since 1970; RFC 3339 in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(pub u64);

impl Stamp {
    #[must_use]
    pub fn now() -> Self {
        let now = jiff::Timestamp::now().as_millisecond();
        Self(u64::try_from(now).unwrap_or(0))
    }

    /// From this moment to `later`, in whole milliseconds.
    #[must_use]
    pub const fn until_ms(self, later: Self) -> u64 {
        later.0.saturating_sub(self.0)
    }
}

impl From<farmbell_protocol::time::Wall> for Stamp {
    fn from(wall: farmbell_protocol::time::Wall) -> Self {
        Self(wall.0)
    }
}

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = i64::try_from(self.0)
            .ok()
            .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
            .unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{time:.3}")
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(Self(u64::try_from(time.as_millisecond()).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_back() {
        let stamp = Stamp(1_795_000_000_123);
        let json = serde_json::to_string(&stamp).unwrap();
        assert!(json.ends_with("Z\""), "{json}");
        assert_eq!(serde_json::from_str::<Stamp>(&json).unwrap(), stamp);
    }
}
