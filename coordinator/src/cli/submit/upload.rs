//! The upload of inputs: each blob once, only those the coordinator lacks.

use std::collections::BTreeSet;

use super::draft::HashedFile;
use crate::cli::Context;
use crate::cli::client::{Retries, Trouble};
use crate::cli::exit::Result;
use crate::cli::output::bar;

/// Uploads what the coordinator does not have yet.
pub(super) async fn missing(context: &Context, files: &[HashedFile]) -> Result<()> {
    let mut seen = BTreeSet::new();
    for file in files.iter().filter(|file| seen.insert(file.digest)) {
        let mut retries = Retries::default();
        loop {
            match one(context, file).await {
                Ok(()) => break,
                Err(Trouble::Answer(failure)) => return Err(failure),
                Err(Trouble::Cut(failure)) => retries.pause(failure).await?,
            }
        }
    }
    Ok(())
}

async fn one(context: &Context, file: &HashedFile) -> std::result::Result<(), Trouble> {
    if context.client.has_blob(file.digest).await? {
        return Ok(());
    }
    let name = file.path.file_name().unwrap_or_default().to_string_lossy();
    let bar = bar(&name, file.length);
    let told = bar.clone();
    let sent = context
        .client
        .put_blob(file.digest, &file.path, move |bytes| told.inc(bytes))
        .await;
    bar.finish_and_clear();
    sent
}
