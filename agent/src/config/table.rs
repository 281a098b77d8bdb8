//! The table of settings: one row each, for flags, environment, file, tags and the manual.

/// The settings file if none is named.
pub(crate) const DEFAULT_FILE: &str = "/etc/instance-agent/agent.toml";

/// The prefix of every setting's environment variable.
pub(super) const ENVIRONMENT: &str = "INSTANCE_AGENT_";

/// One setting, for all its sources.
#[derive(Debug)]
pub struct Setting {
    /// The key in the file; `--key` on the command line; `INSTANCE_AGENT_KEY` in the environment.
    pub key: &'static str,
    /// The name of its value in help texts.
    pub value: &'static str,
    /// Its meaning and default.
    pub help: &'static str,
}

const fn setting(key: &'static str, value: &'static str, help: &'static str) -> Setting {
    Setting { key, value, help }
}

/// Every setting.
pub const SETTINGS: &[Setting] = &[
    setting("listen", "ADDRESS:PORT", "Address and port to serve HTTP on [default: 0.0.0.0:80]"),
    setting(
        "root",
        "ANSWER",
        "Answer of GET /: health is the text Healthy!, seed is the number that a POST stored [default: the instance's tag, else health]",
    ),
    setting(
        "cluster",
        "NAME",
        "Name of this instance's cluster; GET /NAME is answered [default: the instance's tag, else both cluster1 and cluster2]",
    ),
    setting(
        "target-group",
        "NAMES",
        "Target groups to register with, names or ARNs, separated by spaces [default: the instance's tag, else none]",
    ),
    setting(
        "state-dir",
        "DIR",
        "Folder of the stored number and of the drained state [default: $STATE_DIRECTORY, else /var/lib/instance-agent]",
    ),
    setting(
        "runtime-dir",
        "DIR",
        "Folder of the admin socket [default: $RUNTIME_DIRECTORY, else /run/instance-agent]",
    ),
    setting("instance-id", "ID", "Id of this instance [default: from instance metadata]"),
    setting("register-port", "PORT", "Port to register with the target groups [default: the port of listen]"),
    setting(
        "drain-quiet",
        "DURATION",
        "End a drain once no request has come for this long since deregistration [default: 20s]",
    ),
    setting(
        "drain-timeout",
        "DURATION",
        "End a drain after this long at the latest [default: the group's deregistration delay, 300s if unknown]",
    ),
    setting(
        "on-rebalance",
        "ACTION",
        "Action on a rebalance recommendation: ignore or drain [default: ignore]",
    ),
    setting(
        "reload-wait",
        "DURATION",
        "In a reload, wait at most this long for requests that are still arriving [default: 2s]",
    ),
    setting(
        "reconcile-interval",
        "DURATION",
        "Interval of health queries to AWS while the target is healthy [default: 10m]",
    ),
    setting("max-body", "BYTES", "Largest request body, in bytes or with KiB or MiB [default: 64KiB]"),
    setting(
        "max-buffered",
        "BYTES",
        "Memory for incomplete requests, all connections together [default: 64MiB]",
    ),
    setting(
        "max-connections",
        "COUNT",
        "Open connections at most; beyond it, a new one closes an idle one or waits [default: 10000]",
    ),
    setting(
        "header-timeout",
        "DURATION",
        "Time limit for a request's head, from its first byte [default: 10s]",
    ),
    setting(
        "body-timeout",
        "DURATION",
        "Time limit for a request's body, from the end of its head [default: 30s]",
    ),
    setting("keep-alive", "DURATION", "Close a connection that is idle for this long [default: 75s]"),
    setting(
        "write-timeout",
        "DURATION",
        "Close a connection whose client reads nothing for this long [default: 30s]",
    ),
    setting("threads", "COUNT", "Server threads [default: one per processor]"),
    setting(
        "log-level",
        "LEVEL",
        "Least severe level to log: error, warn, info, debug or trace [default: info]",
    ),
];
