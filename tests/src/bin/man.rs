//! Writes the manual pages of the three programs, made from their command
//! lines, to the directory named as the only argument. Run by the packaging.

use std::path::Path;

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    let directory = std::env::args_os().nth(1).context("usage: man DIRECTORY")?;
    let directory = Path::new(&directory);
    std::fs::create_dir_all(directory)?;
    for command in [
        farmbell_coordinator::cli::command(),
        farmbell_coordinator::service::command(),
        farmbell_agent::cli::command(),
    ] {
        clap_mangen::generate_to(command, directory)?;
    }
    Ok(())
}
