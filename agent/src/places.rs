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

use crate::attempt::{AttemptDir, Bounds, Found, Request, attempts_in, directory_name};
use crate::config::BuilderLimits;
use crate::facts;
use crate::groups::Place;
use crate::recipes::Recipes;

/// What every attempt gets to write, whatever its job says.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
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

/// Makes the directories, anew where an earlier start did not get far.
///
/// # Errors
/// If there is no space, or the disk fails.
pub(crate) fn make(dir: &AttemptDir, spec: &JobSpec) -> Result<(), Refused> {
    if dir.root().exists() {
        remove_tree(dir.root()).map_err(disk)?;
    }
    let places = [
        dir.root().to_owned(),
        dir.workspace(),
        dir.inputs(),
        dir.outputs(),
        dir.parameters(),
    ];
    for place in places {
        DirBuilder::new().mode(0o755).create(place).map_err(disk)?;
    }
    let wanted = spec.limits.disk_bytes.max(DISK_MIN);
    let free = facts::free_bytes(dir.root());
    if free < wanted {
        return Err(Refused {
            refusal: Refusal::NoSpace,
            why: Reason::cut(format!("{free} bytes are free, {wanted} are needed")),
        });
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
    fs::write(dir.archives(), archives).map_err(disk)?;
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
        if dir.look()? == Found::Running {
            continue;
        }
        let writable = [
            dir.workspace(),
            dir.inputs(),
            dir.parameters(),
            dir.secrets(),
        ];
        for place in writable.iter().filter(|place| place.exists()) {
            remove_tree(place)?;
        }
    }
    Ok(())
}

/// Removes a directory that a build wrote, also where it took rights away.
///
/// # Errors
/// If something stays.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            allow_all(path)?;
            fs::remove_dir_all(path)
        }
        other => other,
    }
}

/// Gives the owner every right on the directories of a tree. Only the tree's
/// own directories are opened: a symlink is never followed.
fn allow_all(path: &Path) -> io::Result<()> {
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
