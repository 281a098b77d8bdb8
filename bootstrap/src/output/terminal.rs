//! Text for a terminal: no line is wider than it, no word is broken, and long lists of instances are short.
//!
//! What is to be pasted stays whole: a line that is a command, and words between backticks. Where such a one is wider
//! than the terminal, it is on a line of its own.

use std::os::fd::AsFd;

use rustix::termios::{isatty, tcgetwinsize};

/// The width of a terminal that does not say its own.
const USUAL: usize = 80;
/// Instances of a list that are shown.
const FEW: usize = 5;
/// Programs whose command lines are printed to be pasted.
const PROGRAMS: [&str; 4] = ["aws", "bootstrap", "curl", "instance-agent"];

/// Columns and lines of the terminal that this is; `None` if it is none.
pub(crate) fn size(stream: impl AsFd) -> Option<(usize, usize)> {
    if !isatty(&stream) {
        return None;
    }
    let size = tcgetwinsize(&stream).ok();
    let or_usual = |number: u16, usual| if number == 0 { usual } else { usize::from(number) };
    Some(size.map_or((USUAL, 24), |size| (or_usual(size.ws_col, USUAL), or_usual(size.ws_row, 24))))
}

/// The text with its lines broken between words, so that none is wider than this.
pub(crate) fn fold(text: &str, width: usize) -> String {
    let lines = text.split('\n').map(|line| fold_line(&few_instances(line), width));
    lines.collect::<Vec<_>>().join("\n")
}

fn fold_line(line: &str, width: usize) -> String {
    let content = line.trim_start();
    let is_command = content.split_once(' ').is_some_and(|(first, _)| {
        // Perhaps with its folder.
        PROGRAMS.contains(&first.rsplit('/').next().unwrap_or(first))
    });
    if columns(line) <= width || is_command {
        return line.to_owned();
    }
    let indent = line.len() - content.len();
    let hang = " ".repeat((indent + 2).min(width / 2));
    let mut folded = " ".repeat(indent);
    // On the line that is being filled.
    let (mut used, mut is_empty) = (indent, true);
    for (gap, word) in words(content) {
        let needed = columns(word) + if is_empty { 0 } else { gap };
        if !is_empty && used + needed > width {
            folded.push('\n');
            folded.push_str(&hang);
            used = hang.len();
        } else if !is_empty {
            folded.push_str(&" ".repeat(gap));
            used += gap;
        }
        folded.push_str(word);
        used += columns(word);
        is_empty = false;
    }
    folded
}

/// The words of a line, each with the number of spaces before it; what is between backticks is one.
fn words(line: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        let gap = rest.len() - rest.trim_start_matches(' ').len();
        rest = &rest[gap..];
        if rest.is_empty() {
            return words;
        }
        let mut quoted = false;
        let end = rest.char_indices().find(|(_, c)| {
            quoted ^= *c == '`';
            *c == ' ' && !quoted
        });
        // A backtick without its fellow is none.
        let end = match end {
            None if rest.matches('`').count() % 2 == 1 => rest.find(' '),
            end => end.map(|(at, _)| at),
        };
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        words.push((gap, word));
        rest = after;
    }
}

/// The text cut between words, with a mark where something is left out; empty if not even a word fits.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for word in text.split(' ') {
        let next = if kept.is_empty() { word.to_owned() } else { format!("{kept} {word}") };
        if columns(&next) + 1 > width {
            break;
        }
        kept = next;
    }
    if kept.is_empty() { kept } else { kept.trim_end_matches([';', ',', ':']).to_owned() + "…" }
}

/// A line in which lists of more than five instances name five, and how many more there are.
fn few_instances(line: &str) -> String {
    let is_id =
        |word: &str| word.strip_prefix("i-").is_some_and(|id| id.bytes().all(|b| b.is_ascii_hexdigit()));
    let mut kept: Vec<String> = Vec::new();
    let mut run = 0_usize;
    for part in line.split(", ") {
        // The first and the last of a list have other words around them.
        let first = part.rsplit(' ').next().is_some_and(is_id);
        let last = part.split([' ', ';', ':']).next().is_some_and(is_id);
        run = if run > 0 && last { run + 1 } else { usize::from(first) };
        if run > FEW {
            let id = part.split([' ', ';', ':']).next().unwrap_or_default();
            let after = &part[id.len()..];
            let count = run - FEW;
            let more = format!(" and {count} more{after}");
            let place = kept.len() - 1;
            let shown = kept[place].strip_suffix(&format!(" and {} more", count - 1)).unwrap_or(&kept[place]);
            kept[place] = format!("{shown}{more}");
            if !after.is_empty() {
                run = 0;
            }
        } else {
            kept.push(part.to_owned());
        }
    }
    kept.join(", ")
}

/// The columns that a text takes.
pub(super) fn columns(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_and_what_is_pasted_is_not() {
        let text = "a launch that ends early: `bootstrap destroy small --region us-east-1` removes it";
        assert_eq!(
            fold(text, 40),
            "a launch that ends early:\n  `bootstrap destroy small --region us-east-1`\n  removes it"
        );
        assert_eq!(fold("  one two three four", 12), "  one two\n    three\n    four");
        assert_eq!(fold("ok      /cluster1: 5 of 5", 80), "ok      /cluster1: 5 of 5");
        for command in [
            "  curl http://clusters-1234567890.us-east-1.elb.amazonaws.com/cluster1",
            "  /opt/bin/instance-agent status --runtime-dir /tmp/x",
        ] {
            assert_eq!(fold(command, 40), command);
        }
        assert_eq!(fold("a lone ` in a line that is long", 12), "a lone ` in\n  a line\n  that is\n  long");
    }

    #[test]
    fn what_is_cut_ends_with_a_whole_word() {
        assert_eq!(cut("7 of 9 healthy; i-1 is initial", 80), "7 of 9 healthy; i-1 is initial");
        assert_eq!(cut("7 of 9 healthy; i-1 is initial", 17), "7 of 9 healthy…");
        assert_eq!(cut("unbreakable", 5), "");
    }

    #[test]
    fn a_list_of_more_than_five_instances_names_five() {
        let ids = |count: usize| (1..=count).map(|id| format!("i-{id}")).collect::<Vec<_>>().join(", ");
        let told = |count| few_instances(&format!("terminate (surplus): {}; then, more", ids(count)));
        assert_eq!(told(5), format!("terminate (surplus): {}; then, more", ids(5)));
        assert_eq!(told(9), format!("terminate (surplus): {} and 4 more; then, more", ids(5)));
        assert_eq!(few_instances(&ids(7)), format!("{} and 2 more", ids(5)));
    }
}
