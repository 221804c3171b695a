//! Planted faults. Owns the list of switches that each take away what protects
//! one invariant, so that the simulation can show that it would notice. In a
//! build without the feature `planted` there is nothing here to switch.

/// A protection taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutation {
    /// I1: reports are fenced by job only, and a lost attempt's are applied.
    FenceByJobOnly,
    /// I1: a returning lost attempt is adopted though a later one runs.
    AdoptTooLate,
    /// I2: the next attempt takes the number of the one before.
    ReuseNumber,
    /// I3: a late report may decide a decided generation again.
    OverwriteVerdict,
    /// I4: a submit is answered before its changes are handed over.
    ReplyBeforeCommit,
    /// I5: a report is acknowledged without being stored.
    AckBeforeCommit,
    /// I6: a verdict does not wait for the log.
    LogClosedEarly,
    /// I7: a verdict does not wait for verified outputs.
    CollectedUnverified,
    /// I8: an assignment leaves the builder's proof standing.
    ProofNotConsumed,
    /// I8: a clean proof is taken whatever it answers.
    LateNonceAccepted,
    /// I9: a lost attempt's job is not queued again.
    LostRequeueDropped,
    /// I9: a wish to cancel has no deadline and is not repeated.
    CancelForgotten,
}

impl Mutation {
    pub const ALL: &[Self] = &[
        Self::FenceByJobOnly,
        Self::AdoptTooLate,
        Self::ReuseNumber,
        Self::OverwriteVerdict,
        Self::ReplyBeforeCommit,
        Self::AckBeforeCommit,
        Self::LogClosedEarly,
        Self::CollectedUnverified,
        Self::ProofNotConsumed,
        Self::LateNonceAccepted,
        Self::LostRequeueDropped,
        Self::CancelForgotten,
    ];
}

/// Which protections are taken away: none, outside the simulation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Planted {
    #[cfg(any(test, feature = "planted"))]
    mutation: Option<Mutation>,
}

impl Planted {
    #[cfg(any(test, feature = "planted"))]
    pub(crate) fn plant(&mut self, mutation: Mutation) {
        self.mutation = Some(mutation);
    }

    /// Whether the farm is whole, so that it may assert its invariants.
    pub(crate) fn is_none(self) -> bool {
        #[cfg(any(test, feature = "planted"))]
        return self.mutation.is_none();
        #[cfg(not(any(test, feature = "planted")))]
        true
    }

    #[cfg(any(test, feature = "planted"))]
    pub(crate) fn is(self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    #[cfg(not(any(test, feature = "planted")))]
    #[expect(
        clippy::unused_self,
        reason = "the switch exists in the simulation only"
    )]
    pub(crate) fn is(self, _mutation: Mutation) -> bool {
        false
    }
}
