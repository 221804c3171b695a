//! Reads for retiring, in bounded steps. Owns finding what has grown old, and
//! saying which files records speak of; decides nothing.

use farmbell_farm::effect::Look;
use farmbell_farm::event::{Aged, AgedSubmission};
use farmbell_farm::record::{AttemptRecord, JobRecord, JobState, LedgerEntry, SubmissionRecord};
use farmbell_protocol::digest::Digest;
use farmbell_protocol::id::SubmissionId;
use farmbell_protocol::spec::{JobSpec, Output};
use farmbell_protocol::time::Wall;
use rusqlite::{Connection, params};
use serde::de::DeserializeOwned;

use super::live::LiveRow;
use super::{SqliteReader, bits};
use crate::store::record::decode;
use crate::store::{Mentions, Queries as _, QueryError};

impl SqliteReader {
    pub(super) fn find_aged(&self, look: &Look) -> Result<Aged, QueryError> {
        let mut aged = Aged {
            round: look.round,
            ..Aged::default()
        };
        if let Some(before) = look.jobs_before {
            self.find_submissions(look, before, &mut aged)?;
        }
        if let Some(before) = look.entries_before {
            self.find_entries(look, before, &mut aged)?;
        }
        Ok(aged)
    }

    /// Submissions are numbered as they came: behind one that is too young
    /// there is none old enough.
    fn find_submissions(
        &self,
        look: &Look,
        before: Wall,
        aged: &mut Aged,
    ) -> Result<(), QueryError> {
        let mut after = look.after;
        let mut jobs = 0;
        while jobs < look.most {
            let next: Option<SubmissionRecord> = self.one(
                "submission",
                "SELECT record FROM submission WHERE id > ?1 ORDER BY id LIMIT 1",
                params![bits(after.0)],
            )?;
            let Some(submission) = next.filter(|next| next.submitted < before) else {
                return Ok(());
            };
            after = submission.id;
            jobs += u32::try_from(submission.jobs.len())
                .unwrap_or(u32::MAX)
                .max(1);
            aged.submissions.extend(self.all_over(&submission, before)?);
        }
        aged.next = Some(after);
        Ok(())
    }

    fn all_over(
        &self,
        submission: &SubmissionRecord,
        before: Wall,
    ) -> Result<Option<AgedSubmission>, QueryError> {
        let mut jobs = Vec::new();
        for id in submission.jobs.iter() {
            let Some(job) = self.job(*id)? else { continue };
            match &job.state {
                JobState::Done(verdict) if verdict.at < before => {
                    jobs.push((job.id, job.generation));
                }
                JobState::Done(_) | JobState::Waiting { .. } | JobState::Live(_) => {
                    return Ok(None);
                }
            }
        }
        let id = submission.id;
        Ok(Some(AgedSubmission { id, jobs }))
    }

    fn find_entries(&self, look: &Look, before: Wall, aged: &mut Aged) -> Result<(), QueryError> {
        // One more than a step tells whether there is more.
        let entries: Vec<LedgerEntry> = self.many(
            "ledger",
            "SELECT record FROM ledger ORDER BY seq LIMIT ?1",
            params![look.most + 1],
        )?;
        let old = entries.iter().take_while(|entry| entry.at < before);
        let old: Vec<u64> = old.map(|entry| entry.seq).collect();
        let most = usize::try_from(look.most).unwrap_or(usize::MAX);
        if old.len() > most {
            // Where submissions end too, the next look finds none and is cheap.
            aged.next.get_or_insert(SubmissionId(u64::MAX >> 1));
        }
        let step = &old[..old.len().min(most)];
        aged.entries = step.len() as u64;
        aged.entries_up_to = step.last().copied().unwrap_or_default();
        Ok(())
    }

    pub(super) fn find_mentions(&self) -> Result<Mentions, QueryError> {
        let mut mentions = Mentions::default();
        self.with(|from| {
            // What is under way comes first: what arrives while the rest is
            // read belongs to it, or to something younger.
            let sql = "SELECT record FROM live";
            each(from, "live", sql, &mut |(_, attempt): LiveRow| {
                mentions.under_way(&attempt);
            })
        })??;
        self.with(|from| {
            let sql = "SELECT record FROM job WHERE standing < 2";
            each(from, "job", sql, &mut |job: JobRecord| {
                // Of an attempt in both rows this may be an older state of it,
                // which speaks of nothing that the newer one does not.
                let live = match &job.state {
                    JobState::Live(live) => Some(live.as_ref()),
                    JobState::Waiting { .. } | JobState::Done(_) => None,
                };
                for attempt in job.lost.iter().chain(live) {
                    mentions.under_way(attempt);
                }
            })
        })??;
        self.with(|from| {
            each(
                from,
                "spec",
                "SELECT record FROM spec",
                &mut |spec: JobSpec| {
                    let inputs = spec.inputs.iter().map(|input| input.digest);
                    mentions.blobs.extend(inputs);
                },
            )
        })??;
        self.with(|from| {
            let sql = "SELECT record FROM artifacts";
            each(from, "artifacts", sql, &mut |outputs: Vec<Output>| {
                mentions
                    .blobs
                    .extend(outputs.iter().map(|output| output.digest));
            })
        })??;
        self.with(|from| {
            let sql = "SELECT record FROM attempt";
            each(from, "attempt", sql, &mut |attempt: AttemptRecord| {
                mentions.blobs.extend(manifest(&attempt));
            })
        })??;
        Ok(mentions)
    }
}

impl Mentions {
    fn under_way(&mut self, attempt: &AttemptRecord) {
        let began = attempt.assigned;
        self.oldest_attempt = Some(
            self.oldest_attempt
                .map_or(began, |oldest| oldest.min(began)),
        );
        self.blobs.extend(manifest(attempt));
    }
}

fn manifest(attempt: &AttemptRecord) -> Option<Digest> {
    attempt.sealed.as_ref().map(|sealed| sealed.manifest)
}

/// Every record of a table; a damaged one stops, so that nothing is thrown
/// away for it.
fn each<T: DeserializeOwned>(
    from: &Connection,
    record: &'static str,
    sql: &str,
    see: &mut dyn FnMut(T),
) -> rusqlite::Result<Result<(), QueryError>> {
    let mut statement = from.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        match decode(record, row.get_ref(0)?.as_blob()?) {
            Ok(value) => see(value),
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(()))
}
