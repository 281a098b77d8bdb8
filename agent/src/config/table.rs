//! The table of settings: one row each, for flags, environment, file, tags and the manual.

/// Where the settings file is looked for when none is named.
pub(crate) const DEFAULT_FILE: &str = "/etc/instance-agent/agent.toml";

/// The prefix of every setting's environment variable.
pub(super) const ENVIRONMENT: &str = "INSTANCE_AGENT_";

/// One setting, whatever it is set by.
#[derive(Debug)]
pub struct Setting {
    /// The key in the file; `--key` on the command line; `INSTANCE_AGENT_KEY` in the environment.
    pub key: &'static str,
    /// What its value is called in help texts.
    pub value: &'static str,
    /// What it means, with its default.
    pub help: &'static str,
}

const fn setting(key: &'static str, value: &'static str, help: &'static str) -> Setting {
    Setting { key, value, help }
}

/// Every setting there is.
pub const SETTINGS: &[Setting] = &[
    setting("listen", "ADDRESS:PORT", "Where to serve HTTP [default: 0.0.0.0:80]"),
    setting(
        "root",
        "MEANING",
        "What GET / answers: health or seed [default: the instance's tag, else health]",
    ),
    setting("cluster", "NAME", "The cluster whose path is answered [default: the instance's tag, else none]"),
    setting(
        "target-group",
        "NAMES",
        "Target groups to register with, names or ARNs separated by spaces [default: the instance's tag, else none]",
    ),
    setting(
        "state-dir",
        "DIR",
        "Where the seed is kept [default: $STATE_DIRECTORY, else /var/lib/instance-agent]",
    ),
    setting(
        "runtime-dir",
        "DIR",
        "Where the admin socket is [default: $RUNTIME_DIRECTORY, else /run/instance-agent]",
    ),
    setting("instance-id", "ID", "The instance's id [default: from instance metadata]"),
    setting("register-port", "PORT", "The port to register [default: the port it listens on]"),
    setting("drain-quiet", "DURATION", "Silence after deregistration that ends a drain [default: 20s]"),
    setting(
        "drain-timeout",
        "DURATION",
        "When a drain ends at the latest [default: the group's deregistration delay, 300s if unknown]",
    ),
    setting("on-rebalance", "ACTION", "On a rebalance recommendation: ignore or drain [default: ignore]"),
    setting("reload-wait", "DURATION", "How long a reload waits for requests' bodies [default: 2s]"),
    setting(
        "reconcile-interval",
        "DURATION",
        "How often a healthy target asks for its health [default: 10m]",
    ),
    setting("max-body", "BYTES", "Largest request body, such as 64KiB [default: 64KiB]"),
    setting(
        "max-buffered",
        "BYTES",
        "Most memory for requests that have not all come, over all connections [default: 64MiB]",
    ),
    setting(
        "max-connections",
        "COUNT",
        "Connections served at a time; for more, idle ones are closed [default: 10000]",
    ),
    setting("header-timeout", "DURATION", "From a request's first byte to its last header [default: 10s]"),
    setting("body-timeout", "DURATION", "From a request's last header to the end of its body [default: 30s]"),
    setting("keep-alive", "DURATION", "How long an idle connection stays open [default: 75s]"),
    setting("write-timeout", "DURATION", "How long a client may take nothing of its answer [default: 30s]"),
    setting("threads", "COUNT", "Server threads [default: one per processor]"),
    setting("log-level", "LEVEL", "error, warn, info, debug or trace [default: info]"),
];
