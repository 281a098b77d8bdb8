//! Settings: from flags, environment, file and instance tags to one validated [`Settings`].
//!
//! Every setting is a row of [`SETTINGS`], which gives its flag, environment variable, key in the file
//! and help. [`Layers`] holds the texts with their origin; everything that leaves this module is typed
//! and validated.

mod layers;
mod shown;
mod table;
mod values;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use instance_contract::tags::{CLUSTER, ROOT, TARGET_GROUP};
use instance_contract::{ClusterName, InvalidValue, Root};

use crate::lifecycle::OnRebalance;
use crate::target_group::TargetGroupRef;
use instance_server::limits::Limits;
use layers::SettingsReader;
pub(crate) use layers::{ConfigError, Layers};
pub use table::{SETTINGS, Setting};
use values::{
    ANY, ATLEAST_1S, POSITIVE, bytes, duration_in, instance_id, large_bytes, log_level, number_in,
    on_rebalance, seconds, socket_address,
};

/// The agent's settings, without the values from instance tags (see [`Self::role`]).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    /// `None`: the tag decides.
    pub(crate) root: Option<Root>,
    /// `None`: the tag decides.
    pub(crate) cluster: Option<ClusterName>,
    /// `None`: the tag decides.
    pub(crate) target_groups: Option<Vec<TargetGroupRef>>,
    pub(crate) state_dir: PathBuf,
    pub(crate) runtime_dir: PathBuf,
    /// `None`: from IMDS.
    pub(crate) instance_id: Option<String>,
    /// `None`: the port of `listen`.
    pub(crate) register_port: Option<u16>,
    pub(crate) drain_quiet: Duration,
    /// `None`: the deregistration delay of the target groups.
    pub(crate) drain_timeout: Option<Duration>,
    pub(crate) on_rebalance: OnRebalance,
    pub(crate) reload_wait: Duration,
    pub(crate) reconcile_interval: Duration,
    pub(crate) limits: Limits,
    pub(crate) threads: usize,
    pub(crate) log_level: tracing::Level,
}

/// The settings that instance tags can give.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Role {
    pub(crate) root: Root,
    pub(crate) cluster: Option<ClusterName>,
    pub(crate) target_groups: Vec<TargetGroupRef>,
}

/// An ignored tag: its value is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("instance tag {key}: {error}; tag ignored, the previous value stays in effect")]
pub(crate) struct IgnoredTag {
    key: &'static str,
    error: InvalidValue,
}

impl Layers {
    pub(crate) fn settings(&self) -> Result<Settings, ConfigError> {
        let mut read = SettingsReader::of(self);
        let default = Limits::default();
        let limits = Limits {
            max_body: read.value("max-body", bytes).unwrap_or(default.max_body),
            max_buffered: read.value("max-buffered", large_bytes).unwrap_or(default.max_buffered),
            max_connections: read
                .value("max-connections", |text| number_in(text, 1..=1_000_000, "a number from 1 to 1000000"))
                .map_or(default.max_connections, |count| count as usize),
            header_timeout: read
                .value("header-timeout", duration_in(POSITIVE))
                .unwrap_or(default.header_timeout),
            body_timeout: read.value("body-timeout", duration_in(POSITIVE)).unwrap_or(default.body_timeout),
            keep_alive: read.value("keep-alive", duration_in(POSITIVE)).unwrap_or(default.keep_alive),
            write_timeout: read
                .value("write-timeout", duration_in(POSITIVE))
                .unwrap_or(default.write_timeout),
            park_after: default.park_after,
        };
        let settings = Settings {
            listen: read.value("listen", socket_address).unwrap_or(([0, 0, 0, 0], 80).into()),
            root: read.value("root", Root::from_str),
            cluster: read.value("cluster", ClusterName::from_str),
            target_groups: read.value("target-group", TargetGroupRef::parse_list),
            state_dir: read.directory("state-dir", "STATE_DIRECTORY", "/var/lib/instance-agent"),
            runtime_dir: runtime_dir(&mut read),
            instance_id: read.value("instance-id", instance_id),
            register_port: read
                .value("register-port", |text| number_in(text, 1..=65535, "a port from 1 to 65535"))
                .map(|port| port as u16),
            drain_quiet: read.value("drain-quiet", duration_in(ANY)).unwrap_or(seconds(20)),
            drain_timeout: read.value("drain-timeout", duration_in(ANY)),
            on_rebalance: read.value("on-rebalance", on_rebalance).unwrap_or_default(),
            reload_wait: read.value("reload-wait", duration_in(ANY)).unwrap_or(seconds(2)),
            reconcile_interval: read
                .value("reconcile-interval", duration_in(ATLEAST_1S))
                .unwrap_or(seconds(600)),
            limits,
            threads: read
                .value("threads", |text| number_in(text, 1..=256, "a number from 1 to 256"))
                .map_or_else(
                    || std::thread::available_parallelism().map_or(1, usize::from),
                    |count| count as usize,
                ),
            log_level: read.value("log-level", log_level).unwrap_or(tracing::Level::INFO),
        };
        read.mistakes().map_or(Ok(settings), Err)
    }

    /// Only the folder of the admin socket, for the commands that ask a running agent, and the mistakes in the other
    /// settings.
    pub(crate) fn runtime_dir(&self) -> (PathBuf, Option<ConfigError>) {
        let mut read = SettingsReader::of(self);
        (runtime_dir(&mut read), read.mistakes())
    }
}

fn runtime_dir(read: &mut SettingsReader<'_>) -> PathBuf {
    read.directory("runtime-dir", "RUNTIME_DIRECTORY", "/run/instance-agent")
}

impl Settings {
    /// Adds the values of the instance's tags where the settings give none. An invalid tag keeps the
    /// value in `before`, so that a mistake in a tag takes no instance out of its group. Returns the
    /// invalid tags too, for the log.
    pub(crate) fn role(&self, tags: &BTreeMap<String, String>, before: &Role) -> (Role, Vec<IgnoredTag>) {
        let mut tags = TagReader { tags, ignored: Vec::new() };
        let role = Role {
            root: match self.root {
                Some(root) => root,
                None => tags.parse(ROOT, Root::from_str, &before.root),
            },
            cluster: match &self.cluster {
                Some(cluster) => Some(cluster.clone()),
                None => tags.parse(CLUSTER, |name| name.parse().map(Some), &before.cluster),
            },
            target_groups: match &self.target_groups {
                Some(groups) => groups.clone(),
                None => tags.parse(TARGET_GROUP, TargetGroupRef::parse_list, &before.target_groups),
            },
        };
        (role, tags.ignored)
    }
}

struct TagReader<'a> {
    tags: &'a BTreeMap<String, String>,
    ignored: Vec<IgnoredTag>,
}

impl TagReader<'_> {
    /// The value of a tag: the default if the tag is missing, `before` if its value is invalid.
    fn parse<T: Clone + Default>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, InvalidValue>,
        before: &T,
    ) -> T {
        match self.tags.get(key).map(|text| parse(text)) {
            None => T::default(),
            Some(Ok(value)) => value,
            Some(Err(error)) => {
                self.ignored.push(IgnoredTag { key, error });
                before.clone()
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::ffi::OsString;
    use std::path::Path;

    use super::*;

    fn layers(flags: &[(&'static str, &str)], environment: &[(&str, &str)], file: &str) -> Layers {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        std::fs::write(&path, file).unwrap();
        Layers::read(
            flags.iter().map(|(key, value)| (*key, (*value).to_owned())),
            environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))),
            Some(&path),
        )
    }

    fn refused(flags: &[(&'static str, &str)], environment: &[(&str, &str)], file: &str) -> String {
        match layers(flags, environment, file).settings() {
            Ok(settings) => panic!("accepted: {settings:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let settings = layers(&[], &[], "").settings().unwrap();
        assert_eq!(settings.listen.to_string(), "0.0.0.0:80");
        assert_eq!(settings.register_port, None);
        assert_eq!(settings.drain_quiet, seconds(20));
        assert_eq!(settings.drain_timeout, None);
        assert_eq!(settings.reconcile_interval, seconds(600));
        assert_eq!(settings.on_rebalance, OnRebalance::Ignore);
        assert_eq!(settings.limits.max_body, 65536);
        assert_eq!(settings.limits.keep_alive, seconds(75));
        assert_eq!(settings.limits.header_timeout, seconds(10));
    }

    #[test]
    fn flags_win_over_environment_over_file_over_tags_over_defaults() {
        let tags =
            BTreeMap::from([(CLUSTER.to_owned(), "tagged".to_owned()), (ROOT.to_owned(), "seed".to_owned())]);
        let cluster = |flags: &[(&'static str, &str)], environment: &[(&str, &str)], file: &str| {
            let settings = layers(flags, environment, file).settings().unwrap();
            settings.role(&tags, &Role::default()).0.cluster.unwrap().to_string()
        };
        let flag = [("cluster", "flag")];
        let environment = [("INSTANCE_AGENT_CLUSTER", "env")];
        assert_eq!(cluster(&flag, &environment, "cluster = 'file'"), "flag");
        assert_eq!(cluster(&[], &environment, "cluster = 'file'"), "env");
        assert_eq!(cluster(&[], &[], "cluster = 'file'"), "file");
        assert_eq!(cluster(&[], &[], ""), "tagged");
        let settings = layers(&[], &[], "").settings().unwrap();
        assert_eq!(settings.role(&tags, &Role::default()).0.root, Root::Seed);
        assert_eq!(settings.role(&BTreeMap::new(), &Role::default()), (Role::default(), vec![]));
    }

    #[test]
    fn an_unknown_key_names_its_place_and_the_nearest_known_key() {
        let message = refused(&[], &[], "# comment\nlistn = '0.0.0.0:80'\n");
        assert!(
            message.contains("agent.toml:2: listn") && message.contains("did you mean listen?"),
            "{message}"
        );
        let message = refused(&[], &[("INSTANCE_AGENT_DRAIN_QUITE", "1s")], "");
        assert!(message.contains("did you mean INSTANCE_AGENT_DRAIN_QUIET?"), "{message}");
        let message = refused(&[], &[], "zzz = 1");
        assert!(!message.contains("did you mean"), "{message}");
    }

    #[test]
    fn a_value_that_does_not_fit_names_where_it_stands_and_what_would() {
        for (key, value) in [
            ("listen", "80"),
            ("root", "number"),
            ("cluster", "health"),
            ("cluster", "Cluster1"),
            ("target-group", "a_b"),
            ("instance-id", "i 1"),
            ("register-port", "0"),
            ("register-port", "65536"),
            ("drain-quiet", "20 s"),
            ("drain-quiet", "-1s"),
            ("drain-timeout", "8000h"),
            ("on-rebalance", "yes"),
            ("reconcile-interval", "100ms"),
            ("max-body", "64kB"),
            ("max-body", "0"),
            ("max-connections", "0"),
            ("header-timeout", "0s"),
            ("threads", "0"),
            ("log-level", "loud"),
            ("state-dir", ""),
        ] {
            let message = refused(&[(key, value)], &[], "");
            assert!(message.starts_with(&format!("--{key}: ")) && message.contains("expected"), "{message}");
            let message = refused(&[], &[], &format!("\n{key} = '{value}'"));
            assert!(message.contains(&format!("agent.toml:2: {key}: ")), "{message}");
        }
    }

    #[test]
    fn the_file_takes_numbers_and_lists_where_they_make_sense() {
        let file = "drain-quiet = 5\nmax-body = 100\ntarget-group = ['a', 'b']\nregister-port = 8080";
        let settings = layers(&[], &[], file).settings().unwrap();
        assert_eq!(settings.drain_quiet, seconds(5));
        assert_eq!(settings.limits.max_body, 100);
        assert_eq!(settings.register_port, Some(8080));
        assert_eq!(settings.target_groups.unwrap().len(), 2);
        assert!(
            refused(&[], &[], "listen = true")
                .contains("expected a string or a decimal integer, found boolean")
        );
        assert!(
            refused(&[], &[], "listen = ['a']")
                .contains("expected a string or a decimal integer, found array")
        );
        assert!(refused(&[], &[], "target-group = [1]").contains("list of strings"));
        assert!(refused(&[], &[], "a = 1\na = 2").contains(":2"));
    }

    #[test]
    fn a_duration_is_written_alike_in_flags_environment_and_file() {
        let quiet = |layers: Layers| layers.settings().unwrap().drain_quiet;
        for (text, expected) in [("5", 5_000), ("5s", 5_000), ("500ms", 500), ("2m", 120_000), ("0", 0)] {
            let expected = Duration::from_millis(expected);
            assert_eq!(quiet(layers(&[("drain-quiet", text)], &[], "")), expected);
            assert_eq!(quiet(layers(&[], &[("INSTANCE_AGENT_DRAIN_QUIET", text)], "")), expected);
            assert_eq!(quiet(layers(&[], &[], &format!("drain-quiet = '{text}'"))), expected);
        }
        for (integer, expected) in [("5", 5), ("1_0", 10), ("0", 0)] {
            assert_eq!(quiet(layers(&[], &[], &format!("drain-quiet = {integer}"))), seconds(expected));
        }
        for wrong in ["-5", "0x5", "5.0", "true", "[5]", "'5 s'", "'-5'", "'5d'", "''"] {
            let message = refused(&[], &[], &format!("drain-quiet = {wrong}"));
            assert!(message.contains("agent.toml:1: drain-quiet: "), "{message}");
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once_each_with_its_place() {
        let file =
            "listn = 'x'\nroot = 'both'\ndrain-quiet = 'soon'\nmax-body = true\nruntime-dir = '/run/other'\n";
        let layers = layers(&[("threads", "0")], &[("INSTANCE_AGENT_LOGLEVEL", "info")], file);
        let error = layers.settings().unwrap_err().to_string();
        let lines: Vec<&str> = error.lines().collect();
        for (line, part) in lines.iter().zip([
            "--threads: ",
            "INSTANCE_AGENT_LOGLEVEL: ",
            "agent.toml:1: listn: ",
            "agent.toml:2: root: ",
            "agent.toml:3: drain-quiet: ",
            "agent.toml:4: max-body: ",
        ]) {
            assert!(line.contains(part), "{part} in {error}");
        }
        assert_eq!(lines.len(), 6, "{error}");
        let (runtime_dir, mistakes) = layers.runtime_dir();
        assert_eq!(runtime_dir, PathBuf::from("/run/other"), "what can be read is used");
        assert_eq!(mistakes.unwrap().to_string().lines().count(), 3, "those of reading");
    }

    #[test]
    fn a_value_that_a_stronger_source_overrides_is_named_with_it() {
        let layers = layers(
            &[("listen", "127.0.0.1:8080")],
            &[("INSTANCE_AGENT_LISTEN", "127.0.0.1:8081"), ("INSTANCE_AGENT_THREADS", "2")],
            "root = 'seed'\nthreads = 3\n",
        );
        assert_eq!(layers.settings().unwrap().threads, 2);
        let sentences = layers.overridden();
        assert_eq!(sentences.len(), 2, "{sentences:?}");
        assert_eq!(sentences[0], "INSTANCE_AGENT_LISTEN has no effect: --listen overrides it");
        assert!(
            sentences[1]
                .ends_with("agent.toml:2: threads has no effect: INSTANCE_AGENT_THREADS overrides it"),
            "{sentences:?}"
        );
    }

    #[test]
    fn a_line_that_is_not_toml_is_told_with_its_key() {
        for (line, expected) in [
            (
                "log-level = debug # all",
                "agent.toml:2: log-level: put the value in quotes: log-level = \"debug\"",
            ),
            ("listen =", "agent.toml:2: listen: the value is missing"),
            ("listen = 0.0.0.0:80", "agent.toml:2: listen: put the value in quotes: listen = \"0.0.0.0:80\""),
            ("listen = \"0.0.0.0:80", "agent.toml:2: listen: "),
            ("listen", "agent.toml:2: "),
        ] {
            let message = refused(&[], &[], &format!("root = 'seed'\n{line}\n"));
            assert!(message.contains(expected) && message.lines().count() == 1, "{message}");
        }
    }

    #[test]
    fn a_log_level_is_a_name() {
        assert!(refused(&[], &[], "log-level = 3").contains("expected error, warn, info, debug or trace"));
        assert_eq!(
            layers(&[], &[], "log-level = 'WARN'").settings().unwrap().log_level,
            tracing::Level::WARN
        );
    }

    #[test]
    fn a_named_file_has_to_exist() {
        let error = Layers::read([], [], Some(Path::new("/nonexistent/agent.toml"))).settings().unwrap_err();
        assert!(error.to_string().contains("/nonexistent/agent.toml: cannot be read"), "{error}");
    }

    #[test]
    fn a_tag_that_does_not_fit_is_named_and_ignored() {
        let settings = layers(&[], &[], "").settings().unwrap();
        let tags = BTreeMap::from([(CLUSTER.to_owned(), "status".to_owned())]);
        let (role, ignored) = settings.role(&tags, &Role::default());
        assert_eq!(role.cluster, None);
        assert!(ignored[0].to_string().contains("instance-agent:cluster"), "{}", ignored[0]);

        let tag = |text: &str| BTreeMap::from([(TARGET_GROUP.to_owned(), text.to_owned())]);
        let (before, _) = settings.role(&tag("cluster1"), &Role::default());
        assert_eq!(settings.role(&tag("cluster1,cluster2"), &before).0, before, "a slip changes nothing");
        assert_eq!(settings.role(&tag(""), &before).0.target_groups, []);
        assert_eq!(settings.role(&BTreeMap::new(), &before).0.target_groups, []);
    }
}
