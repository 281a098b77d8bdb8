//! Manual pages: one for each command, and one for the settings file.

use std::fs;
use std::path::Path;

use anyhow::Result;
use clap::Command;
use clap_mangen::Man;
use instance_agent::Setting;
use roff::{Roff, bold, italic, roman};

use crate::{Program, write};

/// A section beside those of clap: its heading, and terms with their meanings.
type Section = (&'static str, &'static [(&'static str, &'static str)]);

const AGENT: &[Section] = &[
    (
        "ENVIRONMENT",
        &[
            (
                "INSTANCE_AGENT_CONFIG",
                "Settings file, like --config. Each setting also has its own variable: see instance-agent.toml(5).",
            ),
            (
                "AWS_REGION, AWS_ENDPOINT_URL_EC2, AWS_ENDPOINT_URL_ELASTIC_LOAD_BALANCING_V2, \
                 AWS_EC2_METADATA_SERVICE_ENDPOINT, AWS_EC2_METADATA_DISABLED",
                "The standard variables of the AWS SDKs. Without them, the agent uses the instance's region and role.",
            ),
        ],
    ),
    (
        "FILES",
        &[
            ("/etc/instance-agent/agent.toml", "The settings; see instance-agent.toml(5)."),
            ("/var/lib/instance-agent", "The seed, and a drain that is remembered across restarts."),
            (
                "/run/instance-agent",
                "The admin socket, through which the other commands reach the running agent.",
            ),
        ],
    ),
    (
        "EXIT STATUS",
        &[("0", "Done."), ("1", "Failed; the reason is on stderr."), ("2", "Wrong usage or settings.")],
    ),
];

const LAUNCHER: &[Section] = &[
    (
        "DURATIONS",
        &[("TIME", "A whole number with ms, s, m or h, such as 90s or 15m; a bare number is seconds.")],
    ),
    (
        "EXIT STATUS",
        &[
            ("0", "Done, or nothing to do."),
            ("1", "Failed; the reason is on stderr."),
            ("2", "Wrong usage."),
            ("3", "The fleet did not become healthy in time."),
        ],
    ),
];

/// Writes a page for the program and one for each of its commands.
pub(crate) fn write_commands(program: &Program, folder: &Path, day: &str) -> Result<()> {
    fs::create_dir_all(folder)?;
    // `help` repeats what the pages say.
    let mut command = program.command.clone().disable_help_subcommand(true);
    command.build();
    let mut names = Vec::new();
    collect_names(&command, &mut names);
    write_page(program, &command, &names, folder, day)
}

fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set())
}

fn collect_names(command: &Command, names: &mut Vec<String>) {
    names.push(name(command));
    for command in shown(command) {
        collect_names(command, names);
    }
}

fn write_page(
    program: &Program,
    command: &Command,
    names: &[String],
    folder: &Path,
    day: &str,
) -> Result<()> {
    for command in shown(command) {
        write_page(program, command, names, folder, day)?;
    }
    let name = name(command);
    let man = Man::new(command.clone())
        .title(&name)
        .date(day)
        .source(source(program.package))
        .manual(program.package);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if shown(command).next().is_some() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut roff = Roff::new();
    if name == program.binary {
        let agent = program.package == "instance-agent";
        for section in if agent { AGENT } else { LAUNCHER } {
            add(&mut roff, section);
        }
    }
    let mut others: Vec<String> =
        names.iter().filter(|other| **other != name).map(|name| format!("{name}(1)")).collect();
    if program.package == "instance-agent" {
        others.push("instance-agent.toml(5)".to_owned());
    }
    see_also(&mut roff, &others);
    roff.to_writer(&mut page)?;
    // One blank line, in the one way that formatters agree on.
    let page = String::from_utf8(page)?.replace("\n.br\n\n.br\n", "\n.sp\n");
    write(&folder.join(man.get_filename()), &page)
}

/// Writes the page of the settings file.
pub(crate) fn write_settings(settings: &[Setting], folder: &Path, day: &str) -> Result<()> {
    let mut roff = Roff::new();
    roff.control("TH", ["instance-agent.toml", "5", day, &source("instance-agent"), "instance-agent"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("instance-agent.toml - the settings of instance-agent")]);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([italic("/etc/instance-agent/agent.toml")]);
    roff.control("SH", ["DESCRIPTION"]);
    paragraphs(
        &mut roff,
        &[
            "A TOML file with one line for each setting that differs from its default. Each setting is also a \
             flag of instance-agent(1), --KEY, and an environment variable, INSTANCE_AGENT_KEY in capitals \
             with underscores for hyphens. Flags override the environment, then come this file, the \
             instance's tags and the default.",
            "A duration is a whole number with ms, s, m or h, such as 20s; a bare number is seconds. A size is a \
             number of bytes, or a number with KiB or MiB. Unknown keys and invalid values are errors that \
             name the line.",
            "systemctl reload instance-agent reads the file again. If it has errors, the reload is refused and \
             the agent keeps its settings.",
        ],
    );
    roff.control("SH", ["SETTINGS"]);
    for setting in settings {
        roff.control("TP", []);
        roff.text([bold(setting.key), roman(" = "), italic(setting.value)]);
        roff.text([roman(setting.help)]);
    }
    roff.control("SH", ["INSTANCE TAGS"]);
    for (tag, meaning) in [
        ("instance-agent:fleet", "The fleet that the instance belongs to."),
        ("instance-agent:cluster", "As cluster."),
        ("instance-agent:target-group", "As target-group, separated by spaces."),
        ("instance-agent:root", "As root."),
    ] {
        term(&mut roff, tag, meaning);
    }
    roff.control("SH", ["EXAMPLE"]);
    roff.control("nf", []);
    for line in ["root = \"seed\"", "target-group = [\"seed\"]", "drain-timeout = \"60s\""] {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    see_also(&mut roff, &["instance-agent(1)".to_owned(), "systemctl(1)".to_owned()]);
    write(&folder.join("instance-agent.toml.5"), &roff.to_roff())
}

fn source(package: &str) -> String {
    format!("{package} {}", env!("CARGO_PKG_VERSION"))
}

fn add(roff: &mut Roff, (heading, terms): &Section) {
    roff.control("SH", [*heading]);
    for (name, meaning) in *terms {
        term(roff, name, meaning);
    }
}

fn term(roff: &mut Roff, name: &str, meaning: &str) {
    roff.control("TP", []);
    roff.text([bold(name)]);
    roff.text([roman(meaning)]);
}

fn paragraphs(roff: &mut Roff, texts: &[&str]) {
    for (index, text) in texts.iter().enumerate() {
        if index > 0 {
            roff.control("PP", []);
        }
        roff.text([roman(*text)]);
    }
}

fn see_also(roff: &mut Roff, pages: &[String]) {
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(pages.join(", "))]);
}
