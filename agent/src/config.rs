//! `agent.toml`: what a person says about this host and its builders. Read
//! raw, checked once, passed on as values. Without any file there is one
//! builder, named after the host, for the host's own architecture.

mod raw;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use farmbell_protocol::agent_to_coordinator::ResetScope;
use farmbell_protocol::bounded::{List, Name};

use crate::facts;
use crate::seal::SealLimits;

/// Where the configuration is looked for when nobody names a file.
pub const USUAL_FILE: &str = "/etc/farmbell/agent.toml";
/// Where the state lies when nobody names a directory.
pub const USUAL_STATE: &str = "/var/lib/farmbell/agent";
/// Attempts whose outputs may still travel before a builder takes no more.
const BACKLOG_MAX: u16 = 8;
/// What even a small build writes; whoever builds large things says more.
const DISK_LOW: u64 = 256 << 20;
const GRACE: Duration = Duration::from_secs(10);
/// Long enough for any honest build log, short enough for a small disk.
const LOG_BYTES: u64 = 1 << 30;
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(600);

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub name: Name,
    pub state: PathBuf,
    pub recipes: Vec<PathBuf>,
    /// A directory with one file per secret that jobs may declare.
    pub secrets: Option<PathBuf>,
    /// A directory with sbuild chroots, `SUITE-ARCHITECTURE.tar.zst` and the like.
    pub chroots: Option<PathBuf>,
    pub builders: Vec<BuilderConfig>,
}

/// One builder.
#[derive(Clone, Debug)]
pub struct BuilderConfig {
    pub name: Name,
    pub architectures: List<Name, 16>,
    pub open_tags: List<Name, 32>,
    pub restricted_tags: List<Name, 32>,
    pub virtualized: bool,
    pub reset_scope: ResetScope,
    pub reset: Option<Script>,
    pub probe: Option<Script>,
    pub backlog_max: u16,
    /// With fewer bytes free it takes no offers; 0 for no such limit.
    pub disk_low_bytes: u64,
    pub limits: BuilderLimits,
}

/// A script that runs between attempts: fixed arguments, a time limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    pub argv: Vec<String>,
    pub timeout: Duration,
}

/// What an attempt may use here where its job does not ask for less. 0 means
/// no limit.
#[derive(Clone, Copy, Debug)]
pub struct BuilderLimits {
    pub total_ms: u64,
    pub silence_ms: u64,
    pub grace: Duration,
    pub memory_bytes: u64,
    pub processes: u32,
    pub cpu_millis: u32,
    pub log_bytes: u64,
    pub seal: SealLimits,
}

/// Why a configuration is refused. The text names the file, what is wrong and
/// what to write instead.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path} cannot be read: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} is not understood: {source}")]
    Parse {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error("{path}: {why}")]
    Wrong { path: PathBuf, why: String },
}

impl Config {
    /// Reads `path`, or the usual file if there is one, or nothing at all.
    ///
    /// # Errors
    /// If the file cannot be read or says something that cannot be.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let file = path.unwrap_or_else(|| Path::new(USUAL_FILE));
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if path.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                String::new()
            }
            Err(source) => {
                let path = file.to_owned();
                return Err(ConfigError::Read { path, source });
            }
        };
        Self::parse(&text, file)
    }

    fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let raw: raw::File = toml::from_str(text).map_err(|error| ConfigError::Parse {
            path: file.to_owned(),
            source: Box::new(error),
        })?;
        checked(raw).map_err(|why| ConfigError::Wrong {
            path: file.to_owned(),
            why,
        })
    }
}

fn checked(raw: raw::File) -> Result<Config, String> {
    let name = name("name", raw.name.unwrap_or_else(facts::hostname))?;
    let tables = if raw.builder.is_empty() {
        vec![raw::Builder {
            name: Some(name.to_string()),
            ..raw::Builder::default()
        }]
    } else {
        raw.builder
    };
    let builders = tables
        .into_iter()
        .map(|table| builder(table, &raw.limits))
        .collect::<Result<Vec<_>, _>>()?;
    let mut seen = BTreeSet::new();
    if let Some(twice) = builders.iter().find(|b| !seen.insert(b.name.clone())) {
        return Err(format!(
            "two builders are called '{}'; give each a name of its own",
            twice.name
        ));
    }
    if builders.len() > 1 && builders.iter().any(|b| b.reset_scope == ResetScope::Host) {
        return Err("a builder with reset-scope \"host\" must be the only one of its agent".into());
    }
    Ok(Config {
        name,
        state: raw.state.unwrap_or_else(|| PathBuf::from(USUAL_STATE)),
        recipes: raw.recipes,
        secrets: raw.secrets,
        chroots: raw.chroots,
        builders,
    })
}

fn builder(table: raw::Builder, common: &raw::Limits) -> Result<BuilderConfig, String> {
    let Some(text) = table.name else {
        return Err("a [[builder]] has no name; add: name = \"…\"".into());
    };
    let name = name("a builder's name", text)?;
    let what = |key: &str| format!("builder '{name}': {key}");
    let architectures = table
        .architectures
        .unwrap_or_else(|| vec![facts::architecture().to_owned()]);
    if architectures.is_empty() {
        return Err(format!(
            "{} is empty; name at least one, for example [\"{}\"]",
            what("architectures"),
            facts::architecture()
        ));
    }
    let timeout = |seconds: Option<u64>| seconds.map_or(SCRIPT_TIMEOUT, Duration::from_secs);
    let reset = script(table.reset, timeout(table.reset_timeout_s), &what("reset"))?;
    let probe = script(table.probe, timeout(table.probe_timeout_s), &what("probe"))?;
    if table.virtualized && reset.is_none() {
        return Err(format!(
            "{} is missing: a virtual builder is only clean after its machine was reset; add reset = [\"/path/to/script\"], or virtualized = false",
            what("reset")
        ));
    }
    Ok(BuilderConfig {
        architectures: names(architectures, &what("architectures"))?,
        open_tags: names(table.tags, &what("tags"))?,
        restricted_tags: names(table.restricted_tags, &what("restricted-tags"))?,
        virtualized: table.virtualized,
        reset_scope: scope(table.reset_scope),
        reset,
        probe,
        backlog_max: table.backlog.unwrap_or(BACKLOG_MAX),
        disk_low_bytes: table.disk_low_bytes.unwrap_or(DISK_LOW),
        limits: limits(&table.limits, common),
        name,
    })
}

fn scope(raw: raw::Scope) -> ResetScope {
    match raw {
        raw::Scope::Workspace => ResetScope::Workspace,
        raw::Scope::Guest => ResetScope::Guest,
        raw::Scope::Host => ResetScope::Host,
    }
}

fn limits(own: &raw::Limits, common: &raw::Limits) -> BuilderLimits {
    let ms = |own: Option<u64>, common: Option<u64>| own.or(common).unwrap_or(0) * 1000;
    let grace = own.grace_s.or(common.grace_s);
    let whole = SealLimits::default();
    BuilderLimits {
        total_ms: ms(own.total_s, common.total_s),
        silence_ms: ms(own.silence_s, common.silence_s),
        grace: grace.map_or(GRACE, Duration::from_secs),
        memory_bytes: own.memory_bytes.or(common.memory_bytes).unwrap_or(0),
        processes: own.processes.or(common.processes).unwrap_or(0),
        cpu_millis: own.cpu_millis.or(common.cpu_millis).unwrap_or(0),
        log_bytes: own.log_bytes.or(common.log_bytes).unwrap_or(LOG_BYTES),
        seal: SealLimits {
            outputs: own.outputs.or(common.outputs).unwrap_or(whole.outputs),
            output_bytes: own
                .output_bytes
                .or(common.output_bytes)
                .unwrap_or(whole.output_bytes),
        },
    }
}

fn script(
    argv: Option<Vec<String>>,
    timeout: Duration,
    what: &str,
) -> Result<Option<Script>, String> {
    let Some(argv) = argv else { return Ok(None) };
    match argv.first() {
        Some(program) if program.starts_with('/') => Ok(Some(Script { argv, timeout })),
        Some(_) | None => Err(format!(
            "{what} must begin with an absolute path, for example [\"/usr/local/lib/farmbell/reset\"]"
        )),
    }
}

fn names<const MAX: usize>(texts: Vec<String>, what: &str) -> Result<List<Name, MAX>, String> {
    let names = texts
        .into_iter()
        .map(|text| name(what, text))
        .collect::<Result<Vec<_>, _>>()?;
    List::new(names).map_err(|error| format!("{what} has too many items: {error}"))
}

/// Names are also file names and words of a command line.
fn name(what: &str, text: String) -> Result<Name, String> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-+".contains(letter);
    if text.is_empty() || text.starts_with('.') || !text.chars().all(plain) {
        return Err(format!(
            "{what} is '{text}'; use letters, digits and . _ - + (not beginning with a dot)"
        ));
    }
    Name::new(text).map_err(|error| format!("{what} is too long: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("agent.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn without_a_word_there_is_one_builder_for_this_host() {
        let config = parse("").unwrap();
        let [builder] = config.builders.as_slice() else {
            panic!("one builder");
        };
        assert_eq!(builder.name, config.name);
        assert_eq!(builder.architectures[0].as_str(), facts::architecture());
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let refused = parse("name = \"a\"\n\n[[builder]]\nnane = \"b\"\n").unwrap_err();
        assert!(refused.contains("line 4"), "{refused}");
        assert!(refused.contains("nane"), "{refused}");
    }

    #[test]
    fn a_virtual_builder_needs_a_reset() {
        let refused = parse("[[builder]]\nname = \"vm\"\nvirtualized = true\n").unwrap_err();
        assert!(refused.contains("reset"), "{refused}");
        let text = "[[builder]]\nname = \"vm\"\nvirtualized = true\nreset = [\"/r\", \"vm\"]\n";
        let config = parse(text).unwrap();
        assert_eq!(
            config.builders[0].reset.as_ref().unwrap().argv,
            ["/r", "vm"]
        );
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_way_out() {
        for (text, word) in [
            ("[[builder]]\nname = \"a/b\"", "letters"),
            (
                "[[builder]]\nname=\"a\"\n[[builder]]\nname=\"a\"",
                "two builders",
            ),
            ("[[builder]]\nname=\"a\"\nreset=[\"r\"]", "absolute path"),
            ("[[builder]]\nname=\"a\"\narchitectures=[]", "at least one"),
        ] {
            let refused = parse(text).unwrap_err();
            assert!(refused.contains(word), "{refused}");
        }
    }

    #[test]
    fn the_example_is_understood() {
        let text = include_str!("../../packaging/examples/agent.toml");
        let shown: String = text
            .lines()
            .filter_map(|line| line.strip_prefix("#="))
            .map(|line| format!("{line}\n"))
            .collect();
        let config = parse(&shown).unwrap();
        assert_eq!(config.builders.len(), 2);
    }
}
