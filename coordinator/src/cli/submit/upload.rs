//! The upload of inputs: each blob once, only those the coordinator lacks.

use std::collections::BTreeSet;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::draft::HashedFile;
use crate::cli::Context;
use crate::cli::client::{Retries, Trouble};
use crate::cli::exit::Result;

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

/// A progress bar on standard error; invisible unless that is a terminal.
pub(in crate::cli) fn bar(name: &str, length: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(
        "{msg} {bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}",
    );
    bar.set_style(style.expect("the template is a constant that a test draws"));
    bar.set_message(crate::inert::line(name).into_owned());
    bar
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_bar_can_be_drawn() {
        super::bar("hello.dsc", 5).inc(5);
    }
}
