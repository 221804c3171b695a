//! Logs of jobs that no record speaks of any more. Owns finding their files:
//! a log's name begins with its job.

use std::fs;
use std::path::Path;

use farmbell_protocol::id::JobId;

use super::{LogError, Logs};
use crate::disk::{DiskError, remove};

impl Logs {
    /// Removes the logs of jobs that are not known; says how many files. A job
    /// is known before its log begins. Blocks.
    ///
    /// # Errors
    /// If the disk fails, or `is_known` does.
    pub fn prune<E: From<LogError>>(
        &self,
        is_known: impl Fn(JobId) -> Result<bool, E>,
    ) -> Result<u64, E> {
        let mut removed = 0;
        for shard in entries(&self.directory)? {
            if !shard.is_dir() {
                continue;
            }
            for path in entries(&shard)? {
                if let Some(job) = job_of(&path)
                    && !is_known(job)?
                {
                    remove(&path).map_err(LogError::from)?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }
}

fn entries(directory: &Path) -> Result<Vec<std::path::PathBuf>, LogError> {
    let entries = fs::read_dir(directory).map_err(DiskError::at(directory))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let paths = paths.collect::<Result<_, _>>();
    Ok(paths.map_err(DiskError::at(directory))?)
}

fn job_of(path: &Path) -> Option<JobId> {
    let name = path.file_name()?.to_str()?;
    name.split_once('.')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use farmbell_protocol::id::AttemptId;

    use super::*;

    #[test]
    fn only_logs_of_unknown_jobs_go() {
        let directory = tempfile::tempdir().unwrap();
        let logs = Logs::open(directory.path()).unwrap();
        let attempt = |job| AttemptId {
            job: JobId(job),
            generation: 1,
            number: 1,
            nonce: 7,
        };
        for job in [1, 2] {
            logs.append(attempt(job), 0, b"line").unwrap();
            logs.release(attempt(job));
        }
        let known = |job| Ok::<_, LogError>(job == JobId(2));
        assert_eq!(logs.prune(known).unwrap(), 1);
        assert_eq!(logs.extent(attempt(1)).unwrap().length, 0);
        assert_eq!(logs.extent(attempt(2)).unwrap().length, 4);
    }
}
