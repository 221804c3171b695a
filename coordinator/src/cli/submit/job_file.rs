//! Job files: a whole job in TOML, for everything that options would make too
//! long. Unknown keys are refused with their line. The commented example is
//! `packaging/examples/job.toml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::draft::{Draft, DraftInput};
use crate::cli::exit::{Failure, Result};
use crate::cli::units;
use crate::http::wire::{LimitsSpec, ParameterSpec, Spec};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct JobFile {
    name: Option<String>,
    version: Option<String>,
    recipe: Option<String>,
    /// The `command` recipe's program and arguments.
    command: Option<Vec<String>>,
    #[serde(default)]
    parameters: BTreeMap<String, OneOrMore>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    suite: String,
    #[serde(default)]
    archives: Vec<String>,
    arch_scope: Option<String>,
    #[serde(default)]
    build_profiles: Vec<String>,
    #[serde(default)]
    inputs: Vec<InputLine>,
    #[serde(default)]
    outputs: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    secrets: Vec<String>,
    network: Option<String>,
    #[serde(default)]
    limits: LimitLines,
    #[serde(default)]
    tags: Vec<String>,
    rung: Option<String>,
    #[serde(default)]
    virtualized: bool,
    owner: Option<String>,
    #[serde(default)]
    private: bool,
    #[serde(default)]
    priority: i32,
    #[serde(default)]
    retries: u8,
    #[serde(default)]
    notify: Vec<String>,
    idempotency_key: Option<String>,
}

/// A parameter's value; a list is the same key several times.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// A path, or a path with more to say.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum InputLine {
    Path(PathBuf),
    Table(InputTable),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputTable {
    file: PathBuf,
    /// What the recipe sees; the file's own name otherwise.
    name: Option<String>,
    #[serde(default)]
    private: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitLines {
    total: Span,
    silence: Span,
    grace: Span,
    memory: Size,
    disk: Size,
    processes: u32,
    cpus: Cpus,
    log: Size,
    outputs: u32,
    output_size: Size,
}

#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "String")]
struct Span(u64);

impl TryFrom<String> for Span {
    type Error = String;
    fn try_from(text: String) -> std::result::Result<Self, String> {
        units::milliseconds(&text).map(Self)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "String")]
struct Size(u64);

impl TryFrom<String> for Size {
    type Error = String;
    fn try_from(text: String) -> std::result::Result<Self, String> {
        units::bytes(&text).map(Self)
    }
}

/// Thousandths of a processor, written as `"1.5"`.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "String")]
struct Cpus(u32);

impl TryFrom<String> for Cpus {
    type Error = String;
    fn try_from(text: String) -> std::result::Result<Self, String> {
        let wrong = || format!("'{text}' is not a number of processors such as \"2\" or \"1.5\"");
        let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
        if part.len() > 3 || !part.chars().all(|c| c.is_ascii_digit()) {
            return Err(wrong());
        }
        let whole: u32 = whole.parse().map_err(|_| wrong())?;
        let millis: u32 = format!("{part:0<3}").parse().map_err(|_| wrong())?;
        whole
            .checked_mul(1000)
            .and_then(|n| n.checked_add(millis))
            .map(Self)
            .ok_or_else(wrong)
    }
}

/// Reads a job file. Paths in it are relative to the file itself.
pub(super) fn read(path: &Path) -> Result<Draft> {
    let text = std::fs::read_to_string(path).map_err(|e| Failure::file(path, &e))?;
    let directory = path.parent().unwrap_or_else(|| Path::new(""));
    parse(&text, directory).map_err(|why| {
        Failure::usage(
            format!("{} is no job file:\n{}", path.display(), why.trim_end()),
            "Mend the line named above; every key is explained in the example job.toml.",
        )
    })
}

pub(super) fn parse(text: &str, directory: &Path) -> std::result::Result<Draft, String> {
    let file: JobFile = toml::from_str(text).map_err(|e| e.to_string())?;
    let recipe = match (&file.recipe, &file.command) {
        (Some(recipe), _) => recipe.clone(),
        (None, Some(_)) => "command".to_owned(),
        (None, None) => return Err("it names neither a 'recipe' nor a 'command'".to_owned()),
    };
    let mut spec = Spec::new(file.name.as_deref().unwrap_or(&recipe), &recipe, "");
    spec.parameters = parameters(file.command, file.parameters);
    spec.version = file.version.unwrap_or_default();
    spec.suite = file.suite;
    spec.archives = file.archives;
    spec.build_profiles = file.build_profiles;
    spec.outputs = file.outputs;
    spec.environment = file.environment;
    spec.secrets = file.secrets;
    spec.limits = file.limits.into();
    spec.tags = file.tags;
    spec.virtualized = file.virtualized;
    spec.owner = file.owner.unwrap_or_default();
    spec.private = file.private;
    spec.priority = file.priority;
    spec.retries = file.retries;
    spec.notify = file.notify;
    for (place, word) in [
        (&mut spec.arch_scope, file.arch_scope),
        (&mut spec.network, file.network),
        (&mut spec.rung, file.rung),
    ] {
        if let Some(word) = word {
            *place = word;
        }
    }
    Ok(Draft {
        spec,
        architectures: file.architectures,
        independent: false,
        inputs: file
            .inputs
            .into_iter()
            .map(|line| line.at(directory))
            .collect(),
        key: file.idempotency_key,
        builds_for: None,
    })
}

fn parameters(
    command: Option<Vec<String>>,
    others: BTreeMap<String, OneOrMore>,
) -> Vec<ParameterSpec> {
    let argv = command
        .into_iter()
        .map(|argv| ("argv".to_owned(), OneOrMore::More(argv)));
    argv.chain(others)
        .flat_map(|(key, values)| {
            let values = match values {
                OneOrMore::One(value) => vec![value],
                OneOrMore::More(values) => values,
            };
            values.into_iter().map(move |value| ParameterSpec {
                key: key.clone(),
                value,
            })
        })
        .collect()
}

impl InputLine {
    fn at(self, directory: &Path) -> DraftInput {
        let table = match self {
            Self::Path(file) => InputTable {
                file,
                name: None,
                private: false,
            },
            Self::Table(table) => table,
        };
        DraftInput {
            path: directory.join(table.file),
            name: table.name,
            private: table.private,
        }
    }
}

impl From<LimitLines> for LimitsSpec {
    fn from(lines: LimitLines) -> Self {
        Self {
            total_ms: lines.total.0,
            silence_ms: lines.silence.0,
            grace_ms: lines.grace.0,
            memory_bytes: lines.memory.0,
            disk_bytes: lines.disk.0,
            processes: lines.processes,
            cpu_millis: lines.cpus.0,
            log_bytes: lines.log.0,
            outputs: lines.outputs,
            output_bytes: lines.output_size.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../packaging/examples/job.toml"
    );

    #[test]
    fn the_shipped_example_is_a_job() {
        let text = std::fs::read_to_string(EXAMPLE).unwrap();
        let mut draft = parse(&text, Path::new("/src")).unwrap();
        draft.spec.architecture = draft.architectures.remove(0);
        draft.spec.owner = "kim".into();
        draft.spec.to_protocol().unwrap();
        assert_eq!(draft.inputs[0].path, Path::new("/src/hello.c"));
        assert_eq!(draft.spec.limits.cpu_millis, 1500);
    }

    #[test]
    fn the_shipped_example_shows_every_key() {
        let text = std::fs::read_to_string(EXAMPLE).unwrap();
        let known = parse("nonsense = 1", Path::new("")).unwrap_err();
        for key in known
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|key| *key != "nonsense")
        {
            assert!(text.contains(key), "the example lacks {key}");
        }
        assert!(known.contains("`idempotency_key`"), "{known}");
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let why = parse("recipe = \"command\"\n\ncolour = \"red\"\n", Path::new("")).unwrap_err();
        assert!(why.contains("line 3") && why.contains("colour"), "{why}");
        let why = parse(
            "command = [\"true\"]\n[limits]\ntotal = \"soon\"\n",
            Path::new(""),
        );
        let why = why.unwrap_err();
        assert!(why.contains("line 3") && why.contains("soon"), "{why}");
    }

    #[test]
    fn a_list_is_the_same_parameter_several_times() {
        let draft = parse("command = [\"echo\", \"hi\"]", Path::new("")).unwrap();
        assert_eq!(draft.spec.recipe, "command");
        let values: Vec<_> = draft
            .spec
            .parameters
            .iter()
            .map(|p| p.value.as_str())
            .collect();
        assert_eq!(values, ["echo", "hi"]);
    }
}
