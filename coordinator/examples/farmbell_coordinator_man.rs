//! Writes the manual pages of `farmbell` and `farmbell-coordinator` to
//! directories of their names below the one named as the only argument, made
//! from their command lines. Run by the packaging.

use std::path::Path;

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    let directory = std::env::args_os()
        .nth(1)
        .context("usage: farmbell_coordinator_man DIRECTORY")?;
    let directory = Path::new(&directory);
    for command in [
        farmbell_coordinator::cli::command(),
        farmbell_coordinator::service::command(),
    ] {
        let pages = directory.join(command.get_name());
        std::fs::create_dir_all(&pages)?;
        clap_mangen::generate_to(command, pages)?;
    }
    // `farmbell agent …` has pages of its own; this one would be taken for the
    // program `farmbell-agent`'s.
    std::fs::remove_file(directory.join("farmbell/farmbell-agent.1"))?;
    Ok(())
}
