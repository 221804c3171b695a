//! `farmbell-coordinator backup` and `restore`. Owns what a backup consists
//! of: the store, the blobs and logs it speaks of, and the coordinator's key.
//!
//! A backup is taken while the coordinator runs: first a snapshot of the
//! store, then the files, which are only added to meanwhile. So whatever the
//! snapshot speaks of is in the backup. A restore brings back the past and
//! gives out none of its future's numbers again; that agents know more is
//! noticed by their epochs, not here.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};

use farmbell_farm::record::{Change, Snapshot};

use crate::disk::{sync_directory, sync_file_system};
use crate::statedir::StateDir;
use crate::store::{Sqlite, SqliteReader, Store as _};

/// A backup holds the coordinator's key: for its owner only.
const MODE: u32 = 0o700;

/// What of a state directory is copied besides the store: what is there.
/// Sockets, locks and notes of a process are its own.
const FILES: [&str; 4] = ["key.pem", "cert.pem", "quic.keys", "api.token"];
const TREES: [&str; 2] = ["blobs", "logs"];
/// Half blobs are no part of a backup: agents send them again.
const LEFT_OUT: &str = "staging";

/// Takes a backup of `state` into the new directory `to`.
///
/// # Errors
/// If `to` is there already, or anything cannot be read or written.
pub fn backup(state: &StateDir, to: &Path) -> anyhow::Result<()> {
    if to.exists() {
        bail!("{} is there already; name a new directory", to.display());
    }
    let partial = to.with_extension("partial");
    DirBuilder::new()
        .mode(MODE)
        .create(&partial)
        .with_context(|| {
            format!(
                "cannot make {}; remove it if it is of an earlier backup that failed",
                partial.display()
            )
        })?;
    let copy = StateDir::at(partial.clone());
    // Files of jobs that are retired meanwhile stay until it is done.
    let lock = File::options()
        .create(true)
        .append(true)
        .open(state.files_lock())?;
    let _files_stay = Flock::lock(lock, FlockArg::LockShared).map_err(|(_, errno)| errno)?;
    SqliteReader::of(&state.store()).copy_to(&copy.store())?;
    let bytes = copy_files(state.path(), &partial)?;
    sync_file_system(&partial)?;
    fs::rename(&partial, to)?;
    sync_directory(&parent(to))?;
    let store = fs::metadata(StateDir::at(to.to_owned()).store())?.len();
    say(&format!(
        "Backed up {} into {}: {store} bytes of store, {bytes} bytes of files.\n\
         It holds the coordinator's key: keep it private.\n\
         To use it: farmbell-coordinator restore {}",
        state.path().display(),
        to.display(),
        to.display()
    ))
}

/// Makes the new state directory `state` from the backup `from`.
///
/// # Errors
/// If there is a store already, or anything cannot be read or written.
pub fn restore(from: &Path, state: &StateDir) -> anyhow::Result<()> {
    let saved = StateDir::at(from.to_owned());
    if !saved.store().exists() {
        bail!("{} is no backup: it has no farm.db", from.display());
    }
    state.make()?;
    let locked = state.clone().lock()?;
    if state.store().exists() {
        bail!(
            "{} has a store already; move the whole directory away first",
            state.path().display()
        );
    }
    copy_files(from, state.path())?;
    // Last, and under its name at once: a restore that was cut off is none.
    let staged = state.store().with_extension("restoring");
    SqliteReader::of(&saved.store()).copy_to(&staged)?;
    rise_above_what_was_lost(&staged)?;
    fs::rename(&staged, state.store())?;
    sync_file_system(state.path())?;
    Sqlite::open(&state.store())?;
    drop(locked);
    say(&format!(
        "Restored {} from {}.\n\
         Agents that went on since know more than this store. When the first of them connects,\n\
         nothing new is assigned until you have looked and accepted:\n  \
         farmbell-coordinator serve\n  farmbell events --tail 50\n  farmbell restore accept",
        state.path().display(),
        from.display()
    ))
}

/// Submits, and proofs of resets, may come before the first agent tells that a
/// backup was restored.
fn rise_above_what_was_lost(store: &Path) -> anyhow::Result<()> {
    let mut store = Sqlite::open(store)?;
    let Snapshot { meta, builders, .. } = store.load()?;
    let mut changes = Vec::new();
    if let Some(mut meta) = meta {
        meta.rise_above_a_lost_life();
        changes.push(Change::Meta(meta));
    }
    for mut builder in builders {
        builder.soil();
        changes.push(Change::Builder(Box::new(builder)));
    }
    store.commit(&changes)?;
    Ok(())
}

fn copy_files(from: &Path, to: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for name in FILES {
        let file = from.join(name);
        if file.exists() {
            bytes += copy(&file, &to.join(name))?;
        }
    }
    for name in TREES {
        bytes += copy_tree(&from.join(name), &to.join(name))?;
    }
    Ok(bytes)
}

fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<u64> {
    DirBuilder::new()
        .recursive(true)
        .mode(MODE)
        .create(to)
        .with_context(|| format!("cannot make {}", to.display()))?;
    let mut bytes = 0;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_file() {
            bytes += copy(&entry.path(), &target)?;
        } else if entry.file_name() != LEFT_OUT {
            bytes += copy_tree(&entry.path(), &target)?;
        }
    }
    Ok(bytes)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<u64> {
    fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use farmbell_farm::record::Meta;

    use super::*;
    use crate::blobs::Blobs;

    #[test]
    fn what_was_backed_up_while_the_farm_worked_is_restored() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path().join("state"));
        state.make().unwrap();
        let _serving = state.clone().lock().unwrap();
        let mut store = Sqlite::open(&state.store()).unwrap();
        let blobs = Blobs::open(&state.blobs()).unwrap();
        fs::create_dir(state.logs()).unwrap();
        let stored = blobs.put_reader(&b"artifact"[..], 100).unwrap();
        let meta = |job_floor| Meta {
            job_floor,
            ..Meta::default()
        };
        store.commit(&[Change::Meta(meta(1))]).unwrap();
        let saved = dir.path().join("saved");
        backup(&state, &saved).unwrap();
        store.commit(&[Change::Meta(meta(2))]).unwrap();
        assert!(backup(&state, &saved).is_err(), "never over an older one");

        let again = StateDir::at(dir.path().join("again"));
        restore(&saved, &again).unwrap();
        let snapshot = Sqlite::open(&again.store()).unwrap().load().unwrap();
        assert!(snapshot.meta.unwrap().job_floor > 2, "2 was given out");
        let blob = Blobs::open(&again.blobs()).unwrap().path(stored.digest);
        assert_eq!(fs::read(blob).unwrap(), b"artifact");
        assert!(restore(&saved, &again).is_err(), "never over a store");
    }
}
