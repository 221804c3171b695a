//! The coordinator's configuration: one TOML file, read and checked once, then
//! passed as values. Owns the keys, their defaults and what is said about a
//! wrong one. Every key may be left out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use farmbell_farm::{Limits, Scores, Settings, Share};
use farmbell_protocol::bounded::{Name, Text};
use farmbell_protocol::client::quic::{BulkTuning, Congestion};
use serde::{Deserialize, Deserializer};

use crate::cli::units;

/// Read where no other file is named, if it is there.
pub const DEFAULT_PATH: &str = "/etc/farmbell/coordinator.toml";
/// Where the state is where nothing else is said.
pub const DEFAULT_STATE: &str = "/var/lib/farmbell/coordinator";
/// Agents dial this one. Any address of the host; `[::]` for both families.
pub const DEFAULT_CONTROL: &str = "0.0.0.0:8440";
/// Agents send logs and artifacts to this one.
pub const DEFAULT_BULK: &str = "0.0.0.0:8441";
/// The API and the page: this host only, since it speaks plain HTTP.
pub const DEFAULT_HTTP: &str = "127.0.0.1:8442";

/// What an operator decided, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub state: PathBuf,
    pub control: SocketAddr,
    pub bulk: SocketAddr,
    pub http: SocketAddr,
    /// The Unix socket of the API; by default in the state directory.
    pub socket: Option<PathBuf>,
    /// The host, or `host:port`, that join tokens name.
    pub advertise: Option<String>,
    /// `host:port` that agents are told for bulk.
    pub advertise_bulk: Option<Text<256>>,
    pub bulk_tuning: BulkTuning,
    pub farm: Settings,
}

/// Why a configuration was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the configuration {path} cannot be read: {source}")]
    Read {
        path: String,
        source: std::io::Error,
    },
    #[error("the configuration {path} is wrong:\n{source}")]
    Parse {
        path: String,
        source: Box<toml::de::Error>,
    },
    #[error("the configuration {path} is wrong: {key} {why}")]
    Value {
        path: String,
        key: &'static str,
        why: String,
    },
}

impl Config {
    /// Reads the named file; without a name [`DEFAULT_PATH`], if it is there,
    /// and otherwise the defaults.
    ///
    /// # Errors
    /// If the file cannot be read or says something it may not.
    pub fn read(named: Option<&Path>) -> Result<Self, ConfigError> {
        let path = named.unwrap_or_else(|| Path::new(DEFAULT_PATH));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                String::new()
            }
            Err(source) => {
                return Err(ConfigError::Read {
                    path: path.display().to_string(),
                    source,
                });
            }
        };
        Self::parse(&text, &path.display().to_string())
    }

    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(text: &str, path: &str) -> Result<Self, ConfigError> {
        let raw: Raw = toml::from_str(text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        raw.check().map_err(|(key, why)| ConfigError::Value {
            path: path.to_owned(),
            key,
            why,
        })
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    state: PathBuf,
    control: SocketAddr,
    bulk: SocketAddr,
    http: SocketAddr,
    socket: Option<PathBuf>,
    advertise: Option<String>,
    advertise_bulk: Option<String>,
    policy: Policy,
    limits: RawLimits,
    owners: BTreeMap<String, RawShare>,
    score: RawScores,
    transfer: Transfer,
}

/// How patient the farm is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Policy {
    lost_after: Span,
    cancel_after: Span,
    reset_after: Span,
    upload_after: Span,
    accept_after: Span,
    attempts_max: u8,
    retire_jobs_after: Span,
    retire_events_after: Span,
}

/// What the farm refuses to exceed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLimits {
    queued_jobs: u64,
    tokens: u32,
    agents: u32,
    builders_per_agent: u16,
}

/// An owner's part of the farm, where it is not everybody's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawShare {
    weight: Option<u32>,
    running_max: Option<u32>,
    #[serde(default)]
    bonus: i32,
}

/// What a Debian job's parameters add to its score; a table replaces the default whole.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawScores {
    urgency: Option<BTreeMap<String, i32>>,
    pocket: Option<BTreeMap<String, i32>>,
    component: Option<BTreeMap<String, i32>>,
    private: Option<i32>,
}

/// How bulk bytes travel.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Transfer {
    stream_window_kib: u32,
    connection_window_kib: u32,
    congestion: RawCongestion,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawCongestion {
    Cubic,
    Bbr,
}

/// A span of time as people write it: `90s`, `5m`.
#[derive(Clone, Copy)]
struct Span(Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        units::milliseconds(&text)
            .map(|ms| Self(Duration::from_millis(ms)))
            .map_err(serde::de::Error::custom)
    }
}

impl Default for Raw {
    fn default() -> Self {
        let address = |text: &str| text.parse().expect("the defaults are addresses");
        Self {
            state: DEFAULT_STATE.into(),
            control: address(DEFAULT_CONTROL),
            bulk: address(DEFAULT_BULK),
            http: address(DEFAULT_HTTP),
            socket: None,
            advertise: None,
            advertise_bulk: None,
            policy: Policy::default(),
            limits: RawLimits::default(),
            owners: BTreeMap::new(),
            score: RawScores::default(),
            transfer: Transfer::default(),
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        let settings = Settings::default();
        Self {
            lost_after: Span(settings.lost_after),
            cancel_after: Span(settings.cancel_after),
            reset_after: Span(settings.reset_after),
            upload_after: Span(settings.upload_after),
            accept_after: Span(settings.accept_after),
            attempts_max: settings.attempts_max,
            retire_jobs_after: Span(settings.retire_jobs_after.unwrap_or_default()),
            retire_events_after: Span(settings.retire_events_after.unwrap_or_default()),
        }
    }
}

impl Default for RawLimits {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            queued_jobs: limits.queued_jobs,
            tokens: limits.tokens,
            agents: limits.agents,
            builders_per_agent: limits.builders_per_agent,
        }
    }
}

impl Default for Transfer {
    fn default() -> Self {
        let tuning = BulkTuning::default();
        Self {
            stream_window_kib: tuning.stream_window_bytes >> 10,
            connection_window_kib: tuning.connection_window_bytes >> 10,
            congestion: RawCongestion::Cubic,
        }
    }
}

/// A key and what is wrong with its value.
type Wrong = (&'static str, String);

/// Windows one peer may fill: more is memory that many peers could take.
const WINDOW_KIB: std::ops::RangeInclusive<u32> = 64..=64 << 10;

impl Raw {
    fn check(self) -> Result<Config, Wrong> {
        let advertise_bulk = self
            .advertise_bulk
            .map(|text| Text::new(text).map_err(|error| ("advertise_bulk", error.to_string())))
            .transpose()?;
        if !self.http.ip().is_loopback() {
            let why = "must be a loopback address: the API speaks plain HTTP; \
                       put a TLS proxy before it"
                .to_owned();
            return Err(("http", why));
        }
        Ok(Config {
            state: self.state,
            control: self.control,
            bulk: self.bulk,
            http: self.http,
            socket: self.socket,
            advertise: self.advertise,
            advertise_bulk,
            bulk_tuning: self.transfer.check()?,
            farm: Settings {
                limits: self.limits.into(),
                shares: shares(self.owners)?,
                scores: self.score.into(),
                ..self.policy.check()?
            },
        })
    }
}

impl Policy {
    fn check(self) -> Result<Settings, Wrong> {
        let positive = |key, Span(span): Span| {
            if span.is_zero() {
                Err((key, "must be more than nothing".to_owned()))
            } else {
                Ok(span)
            }
        };
        if self.attempts_max == 0 {
            return Err(("policy.attempts_max", "must be at least 1".to_owned()));
        }
        Ok(Settings {
            limits: Limits::default(),
            lost_after: positive("policy.lost_after", self.lost_after)?,
            cancel_after: positive("policy.cancel_after", self.cancel_after)?,
            reset_after: positive("policy.reset_after", self.reset_after)?,
            upload_after: positive("policy.upload_after", self.upload_after)?,
            accept_after: positive("policy.accept_after", self.accept_after)?,
            attempts_max: self.attempts_max,
            retire_jobs_after: unless_never(self.retire_jobs_after),
            retire_events_after: unless_never(self.retire_events_after),
            ..Settings::default()
        })
    }
}

/// Nothing means never.
fn unless_never(Span(span): Span) -> Option<Duration> {
    (!span.is_zero()).then_some(span)
}

fn shares(owners: BTreeMap<String, RawShare>) -> Result<BTreeMap<Name, Share>, Wrong> {
    let mut shares = BTreeMap::new();
    for (owner, raw) in owners {
        if raw.weight == Some(0) || raw.running_max == Some(0) {
            let why = format!("owner '{owner}': 0 would never start a job; leave the line out");
            return Err(("owners", why));
        }
        let name = Name::new(owner).map_err(|error| ("owners", error.to_string()))?;
        let share = Share {
            weight: raw.weight.unwrap_or(1),
            running_max: raw.running_max,
            bonus: raw.bonus,
        };
        shares.insert(name, share);
    }
    Ok(shares)
}

impl From<RawScores> for Scores {
    fn from(raw: RawScores) -> Self {
        let usual = Self::default();
        Self {
            urgency: raw.urgency.unwrap_or(usual.urgency),
            pocket: raw.pocket.unwrap_or(usual.pocket),
            component: raw.component.unwrap_or(usual.component),
            private: raw.private.unwrap_or(usual.private),
        }
    }
}

impl From<RawLimits> for Limits {
    fn from(raw: RawLimits) -> Self {
        Self {
            queued_jobs: raw.queued_jobs,
            tokens: raw.tokens,
            agents: raw.agents,
            builders_per_agent: raw.builders_per_agent,
        }
    }
}

impl Transfer {
    fn check(self) -> Result<BulkTuning, Wrong> {
        let window = |key, kib: u32| {
            if WINDOW_KIB.contains(&kib) {
                Ok(kib << 10)
            } else {
                let (min, max) = (WINDOW_KIB.start(), WINDOW_KIB.end());
                Err((key, format!("must be from {min} to {max} KiB")))
            }
        };
        Ok(BulkTuning {
            stream_window_bytes: window("transfer.stream_window_kib", self.stream_window_kib)?,
            connection_window_bytes: window(
                "transfer.connection_window_kib",
                self.connection_window_kib,
            )?,
            congestion: match self.congestion {
                RawCongestion::Cubic => Congestion::Cubic,
                RawCongestion::Bbr => Congestion::Bbr,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        Config::parse(text, "coordinator.toml")
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn an_empty_file_is_a_whole_configuration() {
        let config = Config::parse("", "x").unwrap();
        assert_eq!(config.state, Path::new(DEFAULT_STATE));
        assert_eq!(config.control.port(), 8440);
        assert_eq!(config.farm.lost_after, Duration::from_secs(300));
        assert_eq!(config.bulk_tuning, BulkTuning::default());
        let days = |days: u64| Some(Duration::from_secs(days * 86_400));
        assert_eq!(config.farm.retire_jobs_after, days(90));
        assert_eq!(config.farm.retire_events_after, days(365));
    }

    #[test]
    fn the_shipped_example_is_read() {
        let text = include_str!("../../packaging/examples/coordinator.toml");
        Config::parse(text, "example").unwrap();
        // With every shown setting lifted it is still a configuration.
        let lifted = text
            .lines()
            .map(|line| line.strip_prefix("#= ").unwrap_or(line))
            .collect::<Vec<_>>()
            .join("\n");
        let config = Config::parse(&lifted, "example").unwrap();
        assert_eq!(config.farm.lost_after, Duration::from_secs(300));
    }

    #[test]
    fn every_section_may_be_set() {
        let config = Config::parse(
            "state = \"/srv/farm\"\ncontrol = \"[::]:9440\"\n\
             [policy]\nlost_after = \"1h30m\"\nretire_jobs_after = \"0s\"\n[limits]\nagents = 3\n\
             [owners.kim]\nweight = 2\nbonus = -10\n\
             [score]\nprivate = 7\nurgency = { low = 1 }\n\
             [transfer]\ncongestion = \"bbr\"\nstream_window_kib = 3072\n",
            "x",
        )
        .unwrap();
        assert_eq!(config.control.port(), 9440);
        assert_eq!(config.farm.lost_after, Duration::from_secs(5400));
        assert_eq!(config.farm.retire_jobs_after, None);
        assert_eq!(config.farm.limits.agents, 3);
        let share = config.farm.shares.values().next().unwrap();
        assert_eq!((share.weight, share.bonus), (2, -10));
        assert_eq!(config.farm.scores.private, 7);
        assert_eq!(
            config.farm.scores.urgency.len(),
            1,
            "a table is replaced whole"
        );
        assert_eq!(config.farm.scores.pocket["security"], 4500);
        assert_eq!(config.bulk_tuning.stream_window_bytes, 3 << 20);
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        assert!(wrong("\ncontroll = \"0.0.0.0:1\"\n").contains("line 2"));
        assert!(wrong("[policy]\nlost_after = \"soon\"").contains("'soon' is not a span"));
        assert!(wrong("[policy]\nlost_after = \"0s\"").contains("policy.lost_after"));
        assert!(wrong("http = \"0.0.0.0:80\"").contains("loopback"));
        assert!(wrong("[transfer]\nstream_window_kib = 1").contains("from 64"));
        assert!(wrong("[owners.kim]\nrunning_max = 0").contains("owner 'kim'"));
    }
}
