//! The effective settings as the text of a settings file, for `serve --check --show`.

use std::path::Path;

use instance_contract::duration;

use super::layers::Layers;
use super::table::SETTINGS;
use super::{ConfigError, Settings};

impl Layers {
    /// A settings file that means the same as all sources together: each setting with its value and where it comes from.
    ///
    /// # Errors
    /// All mistakes of the settings.
    pub(crate) fn effective(&self) -> Result<String, ConfigError> {
        let settings = self.settings()?;
        let lines = SETTINGS.iter().map(|setting| {
            let key = setting.key;
            let source = self.source(key).unwrap_or_else(|| "default".to_owned());
            match value(&settings, key) {
                Some(value) => format!("{key} = {}  # {source}\n", toml::Value::from(value)),
                None => format!("# {key}: {}\n", default(setting.help)),
            }
        });
        Ok(lines.collect())
    }
}

/// The default in a help text.
fn default(help: &str) -> &str {
    help.rsplit_once("[default: ").map_or("not set", |(_, default)| default.trim_end_matches(']'))
}

/// The value as text; `None` if something outside the settings decides.
fn value(settings: &Settings, key: &str) -> Option<String> {
    let time = |time| Some(duration::format(time));
    let path = |path: &Path| Some(path.display().to_string());
    let limits = &settings.limits;
    match key {
        "listen" => Some(settings.listen.to_string()),
        "root" => settings.root.map(|root| root.to_string()),
        "cluster" => settings.cluster.as_ref().map(ToString::to_string),
        "target-group" => settings.target_groups.as_ref().map(|groups| {
            let names: Vec<_> = groups.iter().map(ToString::to_string).collect();
            names.join(" ")
        }),
        "state-dir" => path(&settings.state_dir),
        "runtime-dir" => path(&settings.runtime_dir),
        "instance-id" => settings.instance_id.clone(),
        "register-port" => settings.register_port.map(|port| port.to_string()),
        "drain-quiet" => time(settings.drain_quiet),
        "drain-timeout" => settings.drain_timeout.and_then(time),
        "on-rebalance" => Some(settings.on_rebalance.to_string()),
        "reload-wait" => time(settings.reload_wait),
        "reconcile-interval" => time(settings.reconcile_interval),
        "max-body" => Some(limits.max_body.to_string()),
        "max-buffered" => Some(limits.max_buffered.to_string()),
        "max-connections" => Some(limits.max_connections.to_string()),
        "header-timeout" => time(limits.header_timeout),
        "body-timeout" => time(limits.body_timeout),
        "keep-alive" => time(limits.keep_alive),
        "write-timeout" => time(limits.write_timeout),
        "threads" => Some(settings.threads.to_string()),
        "log-level" => Some(settings.log_level.to_string().to_ascii_lowercase()),
        _ => None,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn layers(flags: &[(&'static str, &str)], file: &str) -> Layers {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        std::fs::write(&path, file).unwrap();
        let flags = flags.iter().map(|(key, value)| (*key, (*value).to_owned()));
        Layers::read(flags, [], Some(&path))
    }

    #[test]
    fn what_is_shown_is_a_file_that_means_the_same_and_names_each_source() {
        let given = layers(
            &[("listen", "127.0.0.1:8080"), ("target-group", "a b")],
            "drain-quiet = '1500ms'\nroot = 'seed'\nthreads = 2\n",
        );
        let text = given.effective().unwrap();
        assert_eq!(layers(&[], &text).settings().unwrap(), given.settings().unwrap(), "{text}");
        assert!(text.contains("listen = \"127.0.0.1:8080\"  # --listen\n"), "{text}");
        assert!(
            text.contains("agent.toml:1\n") && text.contains("keep-alive = \"75s\"  # default\n"),
            "{text}"
        );
        assert!(text.contains("# cluster: the instance's tag, else both cluster1"), "{text}");
        for setting in SETTINGS {
            assert!(
                text.contains(&format!("{} = ", setting.key))
                    || text.contains(&format!("# {}: ", setting.key))
            );
        }
    }

    #[test]
    fn every_setting_with_a_value_is_shown_with_it() {
        let given = layers(
            &[
                ("cluster", "c1"),
                ("drain-timeout", "1m"),
                ("instance-id", "i-1"),
                ("register-port", "81"),
                ("root", "seed"),
                ("target-group", "a"),
            ],
            "",
        );
        let settings = given.settings().unwrap();
        for setting in SETTINGS {
            assert!(value(&settings, setting.key).is_some(), "{}", setting.key);
        }
    }
}
