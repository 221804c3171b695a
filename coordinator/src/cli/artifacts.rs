//! `farmbell artifacts` and `farmbell artifact get`: what jobs built. Owns the
//! last check: a file gets its name only after its BLAKE3 was found right.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use farmbell_protocol::digest::Digest;
use farmbell_protocol::spec::FileName;

use super::client::{Retries, Trouble, segment};
use super::exit::{Exit, Failure, Result};
use super::output::bar;
use super::{Context, words};
use crate::http::wire::ArtifactView;

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  farmbell artifacts k3v9")]
pub(super) struct ArtifactsArgs {
    /// The job's id, or the beginning of it
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    job: String,
}

#[derive(Debug, Subcommand)]
pub(super) enum ArtifactCommand {
    /// Fetch a job's artifacts, or some of them by name
    #[command(after_help = "Examples:
  farmbell artifact get k3v9
  farmbell artifact get k3v9 -d results
  farmbell artifact get k3v9/hello_2.10-3_amd64.deb")]
    Get {
        /// JOB, or JOB/NAME for one of them
        #[arg(value_name = "JOB[/NAME]", value_parser = NonEmptyStringValueParser::new())]
        id: String,
        /// Only these names
        names: Vec<String>,
        /// Where they go
        #[arg(short, long, value_name = "DIR", default_value = ".")]
        directory: PathBuf,
    },
}

pub(super) async fn list(context: &Context, args: &ArtifactsArgs) -> Result<Exit> {
    let artifacts = of_job(context, &args.job).await?;
    context
        .output
        .list(&artifacts, &words::ARTIFACT_HEADER, words::artifact_row)?;
    Ok(Exit::Ok)
}

pub(super) async fn run(context: &Context, command: ArtifactCommand) -> Result<Exit> {
    let ArtifactCommand::Get {
        id,
        mut names,
        directory,
    } = command;
    let job = match id.split_once('/') {
        Some((job, name)) => {
            names.push(name.to_owned());
            job
        }
        None => &id,
    };
    let artifacts = of_job(context, job).await?;
    let wanted = choose(job, artifacts, &names)?;
    std::fs::create_dir_all(&directory).map_err(|e| Failure::file(&directory, &e))?;
    for artifact in &wanted {
        let path = fetch(context, artifact, &directory).await?;
        context
            .output
            .item(artifact, |_| path.display().to_string())?;
    }
    Ok(Exit::Ok)
}

async fn of_job(context: &Context, job: &str) -> Result<Vec<ArtifactView>> {
    let path = format!("/api/v1/jobs/{}/artifacts", segment(job));
    context.client.get(&path).await
}

fn choose(job: &str, all: Vec<ArtifactView>, names: &[String]) -> Result<Vec<ArtifactView>> {
    if names.is_empty() {
        if all.is_empty() {
            return Err(Failure::new(
                Exit::NotFound,
                format!("job {job} has no artifacts"),
                "See what became of it.",
            )
            .try_this(format!("farmbell job show {job}")));
        }
        return Ok(all);
    }
    if let Some(missing) = names
        .iter()
        .find(|name| all.iter().all(|a| a.name != **name))
    {
        return Err(Failure::new(
            Exit::NotFound,
            format!("job {job} has no artifact '{missing}'"),
            "See which there are.",
        )
        .try_this(format!("farmbell artifacts {job}")));
    }
    Ok(all
        .into_iter()
        .filter(|a| names.contains(&a.name))
        .collect())
}

/// Fetches one artifact into the directory; the file appears whole or not at all.
async fn fetch(context: &Context, artifact: &ArtifactView, directory: &Path) -> Result<PathBuf> {
    let name = FileName::new(artifact.name.as_str()).map_err(|e| {
        Failure::new(
            Exit::Infrastructure,
            format!("the coordinator names a file that may not be written: {e}"),
            "Tell the coordinator's operator.",
        )
    })?;
    let path = directory.join(name.as_str());
    let parent = path.parent().unwrap_or(directory);
    std::fs::create_dir_all(parent).map_err(|e| Failure::file(parent, &e))?;
    let part = parent.join(format!(
        ".{}.part",
        &artifact.digest[..artifact.digest.len().min(16)]
    ));
    let mut retries = Retries::default();
    loop {
        match download(context, artifact, &part).await {
            Ok(()) => break,
            Err(Trouble::Answer(failure)) => {
                discard(&part)?;
                return Err(failure);
            }
            Err(Trouble::Cut(failure)) => {
                discard(&part)?;
                retries.pause(failure).await?;
            }
        }
    }
    std::fs::rename(&part, &path).map_err(|e| Failure::file(&path, &e))?;
    Ok(path)
}

async fn download(
    context: &Context,
    artifact: &ArtifactView,
    part: &Path,
) -> std::result::Result<(), Trouble> {
    let wrong = |e: &std::io::Error| Trouble::Answer(Failure::file(part, e));
    let path = format!(
        "/api/v1/artifacts/{}/{}",
        segment(&artifact.job),
        segment(&artifact.name)
    );
    let mut answer = context.client.stream(&path).await?;
    let mut file = create(part, artifact.executable).map_err(|e| wrong(&e))?;
    let bar = bar(&artifact.name, artifact.length);
    let mut hasher = blake3::Hasher::new();
    while let Some(piece) = answer.piece().await? {
        hasher.update(&piece);
        file.write_all(&piece).map_err(|e| wrong(&e))?;
        bar.inc(piece.len() as u64);
    }
    bar.finish_and_clear();
    let found = Digest(*hasher.finalize().as_bytes());
    if found.to_string() == artifact.digest {
        return Ok(());
    }
    Err(Trouble::Answer(Failure::new(
        Exit::Infrastructure,
        format!(
            "{} arrived with BLAKE3 {found} instead of {}; it was not kept",
            artifact.name, artifact.digest
        ),
        "Try again; if it stays so, the coordinator's blobs are damaged.",
    )))
}

fn create(path: &Path, executable: bool) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(if executable { 0o777 } else { 0o666 })
        .open(path)
}

fn discard(part: &Path) -> Result<()> {
    match std::fs::remove_file(part) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Failure::file(part, &e)),
        Ok(()) | Err(_) => Ok(()),
    }
}
