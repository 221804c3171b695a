//! A job as a submitter writes it, and its way to and from the protocol's
//! [`JobSpec`]. Owns the words; the limits are those of the protocol's types.

use std::collections::BTreeMap;

use farmbell_protocol::bounded::{List, Text};
use farmbell_protocol::spec::{
    ArchScope, FileName, Input, JobSpec, Limits, Network, Parameter, Rung, Variable,
};
use serde::{Deserialize, Serialize};

/// The jobs of one submit: accepted together or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmitRequest {
    pub jobs: Vec<Spec>,
    /// Accept jobs that no known builder could ever take.
    #[serde(default)]
    pub allow_unmatched: bool,
}

/// What became of a submit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    pub submission: String,
    pub jobs: Vec<SubmittedJob>,
    /// The idempotency key was known: these are the jobs it made before.
    pub existed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmittedJob {
    pub id: String,
    pub name: String,
    pub architecture: String,
}

/// One job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    pub name: String,
    #[serde(default)]
    pub version: String,
    pub recipe: String,
    #[serde(default)]
    pub parameters: Vec<ParameterSpec>,
    pub architecture: String,
    #[serde(default)]
    pub suite: String,
    #[serde(default)]
    pub archives: Vec<String>,
    /// `all`, `arch-only` or `indep-only`.
    #[serde(default = "all")]
    pub arch_scope: String,
    #[serde(default)]
    pub build_profiles: Vec<String>,
    #[serde(default)]
    pub inputs: Vec<InputSpec>,
    #[serde(default)]
    pub outputs: Vec<String>,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    #[serde(default)]
    pub secrets: Vec<String>,
    /// `none` or `full`.
    #[serde(default = "none")]
    pub network: String,
    #[serde(default)]
    pub limits: LimitsSpec,
    #[serde(default)]
    pub tags: Vec<String>,
    /// `process`, `sandbox`, `chroot` or `virtual`.
    #[serde(default = "process")]
    pub rung: String,
    #[serde(default)]
    pub virtualized: bool,
    /// Empty: who submits.
    #[serde(default)]
    pub owner: String,
    #[serde(default)]
    pub private: bool,
    #[serde(default)]
    pub priority: i32,
    #[serde(default)]
    pub retries: u8,
    #[serde(default)]
    pub notify: Vec<String>,
}

/// A parameter of the recipe; a key may stand more than once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParameterSpec {
    pub key: String,
    pub value: String,
}

/// A file the job needs, uploaded before as a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    pub name: String,
    pub digest: String,
    pub length: u64,
    #[serde(default)]
    pub private: bool,
}

/// What a job may use. 0 means the builder's own limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSpec {
    pub total_ms: u64,
    pub silence_ms: u64,
    pub grace_ms: u64,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub processes: u32,
    pub cpu_millis: u32,
    pub log_bytes: u64,
    pub outputs: u32,
    pub output_bytes: u64,
}

/// Why a spec is refused: which field, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct SpecError {
    pub field: String,
    pub why: String,
}

fn all() -> String {
    "all".to_owned()
}

fn none() -> String {
    "none".to_owned()
}

fn process() -> String {
    "process".to_owned()
}

impl Spec {
    /// A job with nothing but a name, a recipe and an architecture.
    #[must_use]
    pub fn new(name: &str, recipe: &str, architecture: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: String::new(),
            recipe: recipe.to_owned(),
            parameters: Vec::new(),
            architecture: architecture.to_owned(),
            suite: String::new(),
            archives: Vec::new(),
            arch_scope: all(),
            build_profiles: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            environment: BTreeMap::new(),
            secrets: Vec::new(),
            network: none(),
            limits: LimitsSpec::default(),
            tags: Vec::new(),
            rung: process(),
            virtualized: false,
            owner: String::new(),
            private: false,
            priority: 0,
            retries: 0,
            notify: Vec::new(),
        }
    }

    /// The spec as the protocol carries it.
    ///
    /// # Errors
    /// If a field is missing, too long, or not one of its words.
    pub fn to_protocol(&self) -> Result<JobSpec, SpecError> {
        Ok(JobSpec {
            name: required("name", &self.name)?,
            version: text("version", &self.version)?,
            recipe: required("recipe", &self.recipe)?,
            parameters: list("parameters", &self.parameters, |parameter| {
                Ok(Parameter {
                    key: required("parameters.key", &parameter.key)?,
                    value: text("parameters.value", &parameter.value)?,
                })
            })?,
            architecture: required("architecture", &self.architecture)?,
            suite: text("suite", &self.suite)?,
            archives: texts("archives", &self.archives)?,
            arch_scope: scope(&self.arch_scope)?,
            build_profiles: texts("build_profiles", &self.build_profiles)?,
            inputs: list("inputs", &self.inputs, input)?,
            outputs: texts("outputs", &self.outputs)?,
            environment: environment(&self.environment)?,
            secrets: texts("secrets", &self.secrets)?,
            network: network(&self.network)?,
            limits: self.limits.into(),
            tags: texts("tags", &self.tags)?,
            rung: rung(&self.rung)?,
            virtualized: self.virtualized,
            owner: required("owner", &self.owner)?,
            private: self.private,
            priority: self.priority,
            retries: self.retries,
            notify: texts("notify", &self.notify)?,
        })
    }
}

impl From<&JobSpec> for Spec {
    fn from(spec: &JobSpec) -> Self {
        Self {
            name: spec.name.to_string(),
            version: spec.version.to_string(),
            recipe: spec.recipe.to_string(),
            parameters: spec.parameters.iter().map(ParameterSpec::from).collect(),
            architecture: spec.architecture.to_string(),
            suite: spec.suite.to_string(),
            archives: strings(&spec.archives),
            arch_scope: scope_word(spec.arch_scope).to_owned(),
            build_profiles: strings(&spec.build_profiles),
            inputs: spec.inputs.iter().map(InputSpec::from).collect(),
            outputs: strings(&spec.outputs),
            environment: spec
                .environment
                .iter()
                .map(|variable| (variable.name.to_string(), variable.value.to_string()))
                .collect(),
            secrets: strings(&spec.secrets),
            network: network_word(spec.network).to_owned(),
            limits: spec.limits.into(),
            tags: strings(&spec.tags),
            rung: spec.rung.as_str().to_owned(),
            virtualized: spec.virtualized,
            owner: spec.owner.to_string(),
            private: spec.private,
            priority: spec.priority,
            retries: spec.retries,
            notify: strings(&spec.notify),
        }
    }
}

impl From<&Parameter> for ParameterSpec {
    fn from(parameter: &Parameter) -> Self {
        Self {
            key: parameter.key.to_string(),
            value: parameter.value.to_string(),
        }
    }
}

impl From<&Input> for InputSpec {
    fn from(input: &Input) -> Self {
        Self {
            name: input.name.to_string(),
            digest: input.digest.to_string(),
            length: input.length,
            private: input.private,
        }
    }
}

macro_rules! same_fields {
    ($from:ident, $to:ident: $($field:ident)*) => {
        impl From<$from> for $to {
            fn from(limits: $from) -> Self {
                Self { $($field: limits.$field,)* }
            }
        }
    };
}
same_fields!(LimitsSpec, Limits: total_ms silence_ms grace_ms memory_bytes disk_bytes processes cpu_millis log_bytes outputs output_bytes);
same_fields!(Limits, LimitsSpec: total_ms silence_ms grace_ms memory_bytes disk_bytes processes cpu_millis log_bytes outputs output_bytes);

fn strings<const MAX: usize, const COUNT: usize>(list: &List<Text<MAX>, COUNT>) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn wrong(field: &str, why: impl ToString) -> SpecError {
    SpecError {
        field: field.to_owned(),
        why: why.to_string(),
    }
}

fn text<const MAX: usize>(field: &str, value: &str) -> Result<Text<MAX>, SpecError> {
    if value.contains('\0') {
        return Err(wrong(field, "it contains a NUL byte"));
    }
    Text::new(value).map_err(|e| {
        wrong(
            field,
            format!("{} bytes are more than the {} allowed", e.length, e.max),
        )
    })
}

fn required<const MAX: usize>(field: &str, value: &str) -> Result<Text<MAX>, SpecError> {
    if value.trim().is_empty() {
        return Err(wrong(field, "it is empty"));
    }
    text(field, value)
}

fn list<T, U, const COUNT: usize>(
    field: &str,
    items: &[T],
    one: impl FnMut(&T) -> Result<U, SpecError>,
) -> Result<List<U, COUNT>, SpecError> {
    let items = items.iter().map(one).collect::<Result<Vec<_>, _>>()?;
    List::new(items).map_err(|e| {
        wrong(
            field,
            format!("{} entries are more than the {} allowed", e.length, e.max),
        )
    })
}

fn texts<const MAX: usize, const COUNT: usize>(
    field: &str,
    items: &[String],
) -> Result<List<Text<MAX>, COUNT>, SpecError> {
    list(field, items, |item| required(field, item))
}

fn input(input: &InputSpec) -> Result<Input, SpecError> {
    Ok(Input {
        name: FileName::new(input.name.as_str()).map_err(|e| wrong("inputs.name", e))?,
        digest: input
            .digest
            .parse()
            .map_err(|e| wrong("inputs.digest", e))?,
        length: input.length,
        private: input.private,
    })
}

fn environment(map: &BTreeMap<String, String>) -> Result<List<Variable, 64>, SpecError> {
    let pairs: Vec<_> = map.iter().collect();
    list("environment", &pairs, |(name, value)| {
        if name.contains('=') {
            return Err(wrong(
                "environment",
                format!("the name '{name}' contains '='"),
            ));
        }
        Ok(Variable {
            name: required("environment", name)?,
            value: text("environment", value)?,
        })
    })
}

fn scope(word: &str) -> Result<ArchScope, SpecError> {
    match word {
        "all" => Ok(ArchScope::All),
        "arch-only" => Ok(ArchScope::ArchOnly),
        "indep-only" => Ok(ArchScope::IndepOnly),
        other => Err(not_a_word(
            "arch_scope",
            other,
            "all, arch-only or indep-only",
        )),
    }
}

const fn scope_word(scope: ArchScope) -> &'static str {
    match scope {
        ArchScope::All => "all",
        ArchScope::ArchOnly => "arch-only",
        ArchScope::IndepOnly => "indep-only",
    }
}

fn network(word: &str) -> Result<Network, SpecError> {
    match word {
        "none" => Ok(Network::None),
        "full" => Ok(Network::Full),
        other => Err(not_a_word("network", other, "none or full")),
    }
}

const fn network_word(network: Network) -> &'static str {
    match network {
        Network::None => "none",
        Network::Full => "full",
    }
}

fn rung(word: &str) -> Result<Rung, SpecError> {
    [Rung::Process, Rung::Sandbox, Rung::Chroot, Rung::Virtual]
        .into_iter()
        .find(|rung| rung.as_str() == word)
        .ok_or_else(|| not_a_word("rung", word, "process, sandbox, chroot or virtual"))
}

fn not_a_word(field: &str, word: &str, words: &str) -> SpecError {
    let word: String = word.chars().take(40).collect();
    wrong(field, format!("'{word}' is not one of {words}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        Spec {
            owner: "kim".to_owned(),
            ..Spec::new("hello", "command", "amd64")
        }
    }

    #[test]
    fn a_spec_survives_the_way_to_the_protocol_and_back() {
        let mut spec = spec();
        spec.parameters.push(ParameterSpec {
            key: "argv".into(),
            value: "true".into(),
        });
        spec.inputs.push(InputSpec {
            name: "a/b".into(),
            digest: "ab".repeat(32),
            length: 3,
            private: true,
        });
        spec.environment.insert("LANG".into(), "C".into());
        spec.arch_scope = "indep-only".into();
        spec.network = "full".into();
        spec.rung = "chroot".into();
        spec.limits.total_ms = 5;
        let protocol = spec.to_protocol().unwrap();
        assert_eq!(Spec::from(&protocol), spec);
    }

    #[test]
    fn a_wrong_field_is_named() {
        for (change, field) in [
            (
                Spec {
                    name: " ".into(),
                    ..spec()
                },
                "name",
            ),
            (
                Spec {
                    rung: "moon".into(),
                    ..spec()
                },
                "rung",
            ),
            (
                Spec {
                    tags: vec!["x".repeat(65)],
                    ..spec()
                },
                "tags",
            ),
            (
                Spec {
                    suite: "a\0".into(),
                    ..spec()
                },
                "suite",
            ),
        ] {
            assert_eq!(change.to_protocol().unwrap_err().field, field);
        }
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let json = r#"{"name":"a","recipe":"command","architecture":"amd64","colour":"red"}"#;
        assert!(serde_json::from_str::<Spec>(json).is_err());
    }
}
