//! The places of an attempt on the disk: made before the recipe starts,
//! cleared by the reset, removed at the release. Blocking; runs on threads
//! that may. Never follows a symlink that a build left.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use farmbell_protocol::agent_to_coordinator::Refusal;
use farmbell_protocol::bounded::{Name, Reason};
use farmbell_protocol::id::AttemptId;
use farmbell_protocol::spec::{ArchScope, JobSpec, Rung};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use crate::attempt::{AttemptDir, Bounds, Found, Request, attempts_in, directory_name, emptied};
use crate::config::BuilderLimits;
use crate::facts;
use crate::groups::Place;
use crate::recipes::Recipes;

/// What every attempt gets to write, whatever its job says.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How the directory is called that the next attempt gets: like no attempt's.
const SPARE: &str = "next-";
/// Less than this, and not even a log fits.
const DISK_MIN: u64 = 64 << 20;

/// Why an attempt is not started.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) refusal: Refusal,
    pub(crate) why: Reason,
}

/// What an attempt's places are made from.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) builder: &'a Name,
    pub(crate) attempt: AttemptId,
    pub(crate) spec: &'a JobSpec,
    pub(crate) limits: &'a BuilderLimits,
    pub(crate) recipes: &'a Recipes,
    pub(crate) secrets: Option<&'a Path>,
    pub(crate) chroots: Option<&'a Path>,
    pub(crate) place: &'a Place,
}

/// Asks for a part of the disk of its own for each of a builder's attempts.
/// Where many files were just deleted ext4 searches long for the place of a
/// new one, and an attempt is many small files; other file systems need nothing.
pub(crate) fn spread(builder: &Path) {
    let asked = File::open(builder).and_then(|directory| {
        let flags = ioctl_getflags(&directory)?;
        Ok(ioctl_setflags(&directory, flags | IFlags::TOPDIR)?)
    });
    if let Err(error) = asked {
        tracing::debug!(%error, "attempts lie together");
    }
}

/// The directories and the empty files of an attempt that nobody has asked for
/// yet, so that it need not wait for them when it comes. Removed when dropped.
#[derive(Debug)]
pub(crate) struct Spare {
    dir: AttemptDir,
}

impl Spare {
    /// The number is its own: its place on the disk comes from its name.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) fn make(builder: &Path, number: u32) -> io::Result<Self> {
        let root = builder.join(format!("{SPARE}{number}"));
        remove_tree(&root)?;
        let spare = Self {
            dir: AttemptDir::at(root),
        };
        lay_out(&spare.dir)?;
        Ok(spare)
    }

    /// Becomes the attempt's; `false` where it was taken away meanwhile.
    fn become_the(&self, dir: &AttemptDir) -> bool {
        fs::rename(self.dir.root(), dir.root()).is_ok()
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(self.dir.root()) {
            tracing::warn!(place = %self.dir.root().display(), %error, "a spare directory stays");
        }
    }
}

/// Removes the spares of an earlier life of the agent.
///
/// # Errors
/// If one stays.
pub(crate) fn remove_spares(builder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(builder)? {
        let entry = entry?;
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(SPARE.as_bytes())
        {
            remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

/// Makes the directories, anew where an earlier start did not get far: of the
/// spare, if there is one.
///
/// # Errors
/// If there is no space, or the disk fails.
pub(crate) fn make(dir: &AttemptDir, spare: Option<Spare>, disk_bytes: u64) -> Result<(), Refused> {
    if dir.root().exists() {
        remove_tree(dir.root()).map_err(disk)?;
    }
    if !spare.is_some_and(|spare| spare.become_the(dir)) {
        lay_out(dir).map_err(disk)?;
    }
    let wanted = disk_bytes.max(DISK_MIN);
    let free = facts::free_bytes(dir.root());
    if free < wanted {
        return Err(Refused {
            refusal: Refusal::NoSpace,
            why: Reason::cut(format!("{free} bytes are free, {wanted} are needed")),
        });
    }
    Ok(())
}

fn lay_out(dir: &AttemptDir) -> io::Result<()> {
    let places = [
        dir.root().to_owned(),
        dir.workspace(),
        dir.inputs(),
        dir.outputs(),
        dir.parameters(),
    ];
    for place in places {
        DirBuilder::new().mode(0o755).create(place)?;
    }
    // Empty they say nothing, as if they were not there.
    let files = [
        dir.archives(),
        dir.request(),
        dir.log(),
        dir.supervisor_log(),
    ];
    for file in files {
        File::create(file)?;
    }
    Ok(())
}

/// Writes what the recipe reads, and the supervisor's request.
///
/// # Errors
/// If the recipe or a secret is not here, or the disk fails.
pub(crate) fn furnish(dir: &AttemptDir, plan: &Plan<'_>) -> Result<(), Refused> {
    let spec = plan.spec;
    if spec.rung > Rung::Process {
        let why = format!("this builder offers no '{}'", spec.rung.as_str());
        return Err(unfit(why));
    }
    let recipe = plan.recipes.find(&spec.recipe).ok_or_else(|| Refused {
        refusal: Refusal::UnknownRecipe,
        why: Reason::cut(format!("there is no recipe '{}' here", spec.recipe)),
    })?;
    let copied = recipe.copy_to(&dir.recipe()).map_err(disk)?;
    write_parameters(dir, spec).map_err(disk)?;
    let archives: String = spec
        .archives
        .iter()
        .map(|line| format!("{line}\n"))
        .collect();
    emptied(&dir.archives())
        .and_then(|mut file| file.write_all(archives.as_bytes()))
        .map_err(disk)?;
    let secrets = copy_secrets(dir, plan)?;
    let argv = if copied {
        vec![text(&dir.recipe())?]
    } else {
        let argv = spec
            .parameters
            .iter()
            .filter(|one| one.key.as_str() == "argv");
        argv.map(|one| one.value.to_string()).collect()
    };
    let request = Request {
        attempt: plan.attempt,
        argv,
        argv_is_the_jobs: !copied,
        environment: environment(dir, plan)?,
        bounds: bounds(spec, plan.limits),
        secrets,
        group: (!plan.place.is_none()).then(|| plan.place.clone()),
    };
    dir.keep_request(&request).map_err(disk)
}

fn write_parameters(dir: &AttemptDir, spec: &JobSpec) -> io::Result<()> {
    let mut files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for parameter in spec.parameters.iter() {
        files
            .entry(parameter.key.as_str())
            .or_default()
            .push(parameter.value.as_str());
    }
    for (key, values) in files {
        // A key that is no plain file name is for nobody to read.
        if !key.starts_with('.') && !key.contains('/') {
            fs::write(dir.parameters().join(key), values.join("\n"))?;
        }
    }
    Ok(())
}

fn copy_secrets(dir: &AttemptDir, plan: &Plan<'_>) -> Result<Vec<PathBuf>, Refused> {
    let names = &plan.spec.secrets;
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let Some(from) = plan.secrets else {
        let why = "this agent keeps no secrets; set secrets = \"/directory\" in agent.toml";
        return Err(unfit(why));
    };
    DirBuilder::new()
        .mode(0o700)
        .create(dir.secrets())
        .map_err(disk)?;
    let mut copies = Vec::new();
    for name in names.iter() {
        let plain = !name.is_empty() && !name.starts_with('.') && !name.contains('/');
        let value = plain.then(|| fs::read(from.join(name.as_str())));
        let Some(Ok(value)) = value else {
            return Err(unfit(format!("this agent has no secret '{name}'")));
        };
        let copy = dir.secrets().join(name.as_str());
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let written = options
            .open(&copy)
            .and_then(|mut file| file.write_all(&value));
        written.map_err(disk)?;
        copies.push(copy);
    }
    Ok(copies)
}

fn environment(dir: &AttemptDir, plan: &Plan<'_>) -> Result<Vec<(String, String)>, Refused> {
    let spec = plan.spec;
    let scope = match spec.arch_scope {
        ArchScope::All => "all",
        ArchScope::ArchOnly => "arch",
        ArchScope::IndepOnly => "indep",
    };
    let profiles: Vec<&str> = spec.build_profiles.iter().map(Name::as_str).collect();
    let workspace = text(&dir.workspace())?;
    let ours = [
        ("PATH", PATH.to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("HOME", workspace.clone()),
        ("FARMBELL_WORKSPACE", workspace),
        ("FARMBELL_INPUTS", text(&dir.inputs())?),
        ("FARMBELL_OUTPUTS", text(&dir.outputs())?),
        ("FARMBELL_PARAMETERS", text(&dir.parameters())?),
        ("FARMBELL_SECRETS", text(&dir.secrets())?),
        ("FARMBELL_ARCHIVES", text(&dir.archives())?),
        (
            "FARMBELL_CHROOTS",
            plan.chroots.map_or_else(|| Ok(String::new()), text)?,
        ),
        ("FARMBELL_REASON", text(&dir.reason())?),
        ("FARMBELL_ATTEMPT", directory_name(plan.attempt)),
        ("FARMBELL_JOB", plan.attempt.job.to_string()),
        ("FARMBELL_BUILDER", plan.builder.to_string()),
        ("FARMBELL_ARCHITECTURE", spec.architecture.to_string()),
        ("FARMBELL_SUITE", spec.suite.to_string()),
        ("FARMBELL_PROFILES", profiles.join(" ")),
        ("FARMBELL_ARCH_SCOPE", scope.to_owned()),
    ];
    let mut all: BTreeMap<String, String> = spec
        .environment
        .iter()
        .map(|one| (one.name.to_string(), one.value.to_string()))
        .collect();
    // What the agent says stands, but for the words a job may well choose.
    for (name, value) in ours {
        if name.starts_with("FARMBELL_") {
            all.insert(name.to_owned(), value);
        } else {
            all.entry(name.to_owned()).or_insert(value);
        }
    }
    Ok(all.into_iter().collect())
}

/// The stricter of what the job asks for and what the builder allows.
fn bounds(spec: &JobSpec, builder: &BuilderLimits) -> Bounds {
    let asked = &spec.limits;
    let grace = u64::try_from(builder.grace.as_millis()).unwrap_or(u64::MAX);
    Bounds {
        total_ms: stricter(asked.total_ms, builder.total_ms),
        silence_ms: stricter(asked.silence_ms, builder.silence_ms),
        grace_ms: if asked.grace_ms == 0 {
            grace
        } else {
            asked.grace_ms
        },
        log_bytes: stricter(asked.log_bytes, builder.log_bytes),
        memory_bytes: stricter(asked.memory_bytes, builder.memory_bytes),
        processes: stricter(asked.processes, builder.processes),
        cpu_millis: stricter(asked.cpu_millis, builder.cpu_millis),
    }
}

/// The smaller of two limits of which 0 means none.
pub(crate) fn stricter<T: Ord + Default + Copy>(one: T, two: T) -> T {
    let none = T::default();
    if one == none || (two != none && two < one) {
        two
    } else {
        one
    }
}

fn text(path: &Path) -> Result<String, Refused> {
    match path.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(unfit(
            "the agent's state directory has a name that is not UTF-8",
        )),
    }
}

fn unfit(why: impl Into<String>) -> Refused {
    let (refusal, why) = (Refusal::Unfit, Reason::cut(why));
    Refused { refusal, why }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err")]
fn disk(error: io::Error) -> Refused {
    Refused {
        refusal: Refusal::NoSpace,
        why: Reason::cut(format!("the attempt's directory cannot be made: {error}")),
    }
}

/// Clears what attempts that are over left where a build could write.
///
/// # Errors
/// If something stays.
pub(crate) fn clear_workspaces(builder: &Path) -> io::Result<()> {
    if !builder.exists() {
        return Ok(());
    }
    for attempt in attempts_in(builder)? {
        let dir = AttemptDir::of(builder, attempt);
        // Released ones have nothing left and need no look: there may be many.
        if writable(&dir).iter().any(|place| place.exists()) && dir.look()? != Found::Running {
            clear(&dir)?;
        }
    }
    Ok(())
}

/// Clears what one attempt that is over left where a build could write. Two
/// may do so at once: what either says is gone is gone.
///
/// # Errors
/// If something stays.
pub(crate) fn clear(dir: &AttemptDir) -> io::Result<()> {
    writable(dir)
        .iter()
        .try_for_each(|place| remove_tree(place))
}

/// Where a build may write that leaves no result.
fn writable(dir: &AttemptDir) -> [PathBuf; 4] {
    [
        dir.workspace(),
        dir.inputs(),
        dir.parameters(),
        dir.secrets(),
    ]
}

/// Removes a directory that a build wrote, also where it took rights away.
/// Somebody else may be removing it as well.
///
/// # Errors
/// If something stays.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let removed = match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            allow_all(path)?;
            fs::remove_dir_all(path)
        }
        other => other,
    };
    removed.or_else(unless_gone)
}

/// Gives the owner every right on the directories of a tree. Only the tree's
/// own directories are opened: a symlink is never followed.
fn allow_all(path: &Path) -> io::Result<()> {
    allow(path).or_else(unless_gone)
}

fn allow(path: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    if !meta.is_dir() {
        return Ok(());
    }
    let handle = File::open(path).or_else(|_| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        File::open(path)
    })?;
    handle.set_permissions(fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        allow_all(&entry?.path())?;
    }
    Ok(())
}

fn unless_gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound {
        return Ok(());
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_in(builder: &Path) -> Vec<String> {
        let entries = fs::read_dir(builder).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn an_attempt_takes_the_spare_and_nothing_of_it_stays() {
        let builder = tempfile::tempdir().unwrap();
        let spare = Spare::make(builder.path(), 1).unwrap();
        fs::write(spare.dir.workspace().join("mark"), "").unwrap();
        let dir = AttemptDir::at(builder.path().join("attempt"));
        make(&dir, Some(spare), 0).unwrap();
        assert!(dir.workspace().join("mark").exists(), "it is the spare");
        assert_eq!(names_in(builder.path()), ["attempt"]);
    }

    #[test]
    fn without_a_spare_or_with_one_that_a_reset_took_away_the_places_are_made() {
        let builder = tempfile::tempdir().unwrap();
        let gone = Spare::make(builder.path(), 1).unwrap();
        fs::remove_dir_all(gone.dir.root()).unwrap();
        for (name, spare) in [("one", None), ("two", Some(gone))] {
            let dir = AttemptDir::at(builder.path().join(name));
            make(&dir, spare, 0).unwrap();
            assert!(dir.workspace().is_dir() && dir.log().is_file());
        }
    }

    #[test]
    fn a_spare_that_nobody_takes_goes_with_its_owner_or_at_the_next_start() {
        let builder = tempfile::tempdir().unwrap();
        drop(Spare::make(builder.path(), 1).unwrap());
        assert!(names_in(builder.path()).is_empty());
        std::mem::forget(Spare::make(builder.path(), 2).unwrap());
        fs::create_dir(builder.path().join("4-1.1.1-0000000000000001")).unwrap();
        remove_spares(builder.path()).unwrap();
        assert_eq!(names_in(builder.path()), ["4-1.1.1-0000000000000001"]);
    }

    #[test]
    fn two_may_clear_one_attempt_and_both_find_it_clear() {
        let builder = tempfile::tempdir().unwrap();
        let dir = AttemptDir::at(builder.path().join("attempt"));
        lay_out(&dir).unwrap();
        for number in 0..200 {
            let deep = dir.workspace().join(format!("{}/{number}", number % 20));
            fs::create_dir_all(&deep).unwrap();
            fs::write(deep.join("file"), "").unwrap();
        }
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    clear(&dir).unwrap();
                    assert!(writable(&dir).iter().all(|place| !place.exists()));
                });
            }
        });
        // Where a build took rights away, a tree is walked that may be gone.
        allow_all(&dir.workspace()).unwrap();
    }

    #[test]
    fn a_clearing_leaves_what_is_a_result_and_what_runs() {
        let builder = tempfile::tempdir().unwrap();
        let attempt = |number| AttemptId {
            job: farmbell_protocol::id::JobId(number),
            generation: 1,
            number: 1,
            nonce: 1,
        };
        let [over, runs] = [1, 2].map(|number| {
            let dir = AttemptDir::of(builder.path(), attempt(number));
            lay_out(&dir).unwrap();
            dir
        });
        let held = runs.open().unwrap();
        held.lock().unwrap();
        clear_workspaces(builder.path()).unwrap();
        assert!(writable(&over).iter().all(|place| !place.exists()));
        assert!(over.outputs().exists() && over.log().exists());
        assert!(runs.workspace().exists());
    }
}
