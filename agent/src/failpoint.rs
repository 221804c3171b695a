//! The agent's failpoints (`farmbell_protocol::failpoint`).

pub use farmbell_protocol::failpoint::VARIABLE;

farmbell_protocol::failpoints! {
    SpoolWritten "spool.written"
    SpoolSynced "spool.synced"
    SpoolRewritten "spool.rewritten"
    BetweenEffects "driver.between-effects"
    Prepared "launcher.prepared"
    SupervisorStarted "launcher.supervisor-started"
    EndSeen "launcher.end-seen"
    OutputsSealed "seal.sealed"
    ManifestKept "seal.manifest-kept"
    ResetDone "reset.done"
    Released "release.removed"
    PanicInBuilder "driver.panic-in-stop"
}

impl Failpoint {
    /// Whether the process is gone after it: a builder's panic ends that
    /// builder's driver only.
    #[must_use]
    pub fn ends_process(self) -> bool {
        self != Self::PanicInBuilder
    }
}
