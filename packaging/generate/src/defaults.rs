//! `/etc/instance-agent/agent.toml`: every setting, explained, its default commented out.

use anyhow::{Result, bail};
use instance_agent::Setting;

use crate::text::wrap;

const HEAD: &str = "\
# Settings of instance-agent; see instance-agent.toml(5). Each commented line
# shows the default, or an example if the default depends on the instance.
#
# Flags and the environment (INSTANCE_AGENT_...) override this file; this file
# overrides instance tags. After a change: systemctl reload instance-agent
#
# A duration is a whole number with ms, s, m or h; a bare number is seconds.
";

/// Examples for the settings without a fixed default.
const EXAMPLES: &[(&str, &str)] = &[
    ("cluster", "\"cluster1\""),
    ("drain-timeout", "\"300s\""),
    ("instance-id", "\"i-0123456789abcdef0\""),
    ("register-port", "80"),
    ("root", "\"health\""),
    ("runtime-dir", "\"/run/instance-agent\""),
    ("state-dir", "\"/var/lib/instance-agent\""),
    ("target-group", "[\"cluster1\"]"),
    ("threads", "2"),
];

/// The file's text.
pub(crate) fn file(settings: &[Setting]) -> Result<String> {
    let mut text = HEAD.to_owned();
    for setting in settings {
        text.push('\n');
        text.push_str(&wrap(setting.help, "# ", "# "));
        text.push_str(&format!("#{} = {}\n", setting.key, value(setting)?));
    }
    Ok(text)
}

/// The default as TOML, or an example.
fn value(setting: &Setting) -> Result<String> {
    if let Some((_, example)) = EXAMPLES.iter().find(|(key, _)| *key == setting.key) {
        return Ok((*example).to_owned());
    }
    let default = setting
        .help
        .split_once("[default: ")
        .and_then(|(_, rest)| rest.strip_suffix(']'))
        .filter(|default| !default.is_empty() && !default.contains([' ', ',', '$', '"', '\\']));
    match default {
        Some(number) if number.bytes().all(|b| b.is_ascii_digit()) => Ok(number.to_owned()),
        Some(default) => Ok(format!("\"{default}\"")),
        None => bail!("{}: its help names no fixed default, and there is no example for it", setting.key),
    }
}
