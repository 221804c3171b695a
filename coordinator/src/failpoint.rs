//! The coordinator's failpoints (`farmbell_protocol::failpoint`).

pub use farmbell_protocol::failpoint::VARIABLE;

farmbell_protocol::failpoints! {
    PanicInHandle "driver.panic-in-handle"
    BeforeCommit "driver.before-commit"
    AfterCommit "driver.after-commit"
    BetweenEffects "driver.between-effects"
    AfterHandle "driver.after-handle"
    CommitOpen "store.transaction-open"
    BlobChunk "blobs.chunk"
    BlobStaged "blobs.staged"
    BlobSynced "blobs.synced"
    BlobRenamed "blobs.renamed"
    BlobStored "blobs.stored"
    LogAppended "logs.appended"
    LogSynced "logs.synced"
    LogClosed "logs.closed"
    PanicInSession "session.panic-in-report"
    PanicInRefusal "session.panic-in-refusal"
    WelcomeUnsaid "session.welcome-unsaid"
    BlobUnsaid "bulk.blob-unsaid"
    LogUnsaid "bulk.log-unsaid"
}

impl Failpoint {
    /// Whether the process is gone after it: a session's panic ends that
    /// session only.
    #[must_use]
    pub fn ends_process(self) -> bool {
        !matches!(self, Self::PanicInSession | Self::PanicInRefusal)
    }
}
