//! Where a fleet file violates TOML's grammar.
//!
//! toml's parser recovers from few mistakes: after a list that is not closed it takes the rest of the file for
//! the list. So this module repairs each mistake in a copy of the text, or empties its line, and parses the copy
//! again, until only doubled keys are left, from which the parser recovers well. Lines keep their numbers.

use std::ops::Range;

use instance_contract::one_line;
use toml::de::{DeTable, Error};

/// A file with more violations is not TOML at all.
const MOST: usize = 40;
/// The message of toml's parser about a key or table that exists already.
const DOUBLED: &str = "duplicate key";

/// A violation of TOML's grammar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slip {
    /// The line, from 1.
    pub(super) line: usize,
    /// The key, the mistake and the cure.
    pub(super) message: String,
}

/// A key whose value is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    /// The line, from 1.
    pub(super) line: usize,
    /// The key, without its table's name, or the name of a table.
    pub(super) key: String,
    /// Whether its table is lost: then the key may belong anywhere.
    pub(super) is_table: bool,
}

/// A file without violations of TOML's grammar but doubled keys.
#[derive(Debug)]
pub(super) struct Repaired {
    /// The text, line for line that of the file.
    pub(super) text: String,
    pub(super) slips: Vec<Slip>,
    pub(super) unreadable: Vec<Unreadable>,
    /// Whether the text can be interpreted: there were not too many slips.
    pub(super) is_toml: bool,
}

/// Finds every violation of TOML's grammar, doubled keys aside. `lists` are the tables whose headers have two brackets.
pub(super) fn repair(text: &str, lists: &[&str]) -> Repaired {
    let mut repair = Repair {
        lines: text.split('\n').map(str::to_owned).collect(),
        slips: Vec::new(),
        unreadable: Vec::new(),
    };
    let is_toml = DeTable::parse(text).is_ok() || repair.all(lists);
    repair.slips.sort_by_key(|slip| slip.line);
    let Repair { lines, slips, unreadable } = repair;
    Repaired { text: lines.join("\n"), slips, unreadable, is_toml }
}

/// The doubled keys among the parser's errors: the place of the second.
pub(super) fn doubled(errors: &[Error]) -> impl Iterator<Item = Range<usize>> {
    errors.iter().filter(|error| error.message() == DOUBLED).filter_map(Error::span)
}

/// Where this line is a header: the first line, from 1, that has a header or key of the same name before it.
pub(super) fn first_header(text: &str, name: &str, line: usize) -> Option<usize> {
    header(text.split('\n').nth(line.checked_sub(1)?)?)?;
    let mut is_in_table = false;
    let mut before = text.split('\n').take(line - 1);
    let first = before.position(|line| match header(line) {
        Some(table) => {
            is_in_table = true;
            table == name
        }
        None => !is_in_table && leading_key(line) == Some(name),
    });
    first.map(|index| index + 1)
}

/// The key in this line, from 1, with its table's name; a header with its brackets.
pub(super) fn whole_key(text: &str, name: &str, line: usize) -> String {
    let mut lines: Vec<_> = text.split('\n').take(line).collect();
    let is_header = lines.pop().is_some_and(|line| header(line).is_some());
    match lines.iter().rev().find_map(|above| header(above)) {
        _ if is_header => format!("[{name}]"),
        Some(table) => format!("{table}.{name}"),
        None => name.to_owned(),
    }
}

/// The name in a table's header, which may lack brackets; `None` where the line is none.
pub(super) fn header(line: &str) -> Option<&str> {
    let code = line.split('#').next().unwrap_or_default().trim();
    let has_bracket = code.starts_with('[') || code.ends_with(']') || code.contains('[');
    if !has_bracket || code.contains(['=', '"', '\'', ',']) {
        return None;
    }
    let name = &code[code.find(|c: char| c.is_ascii_alphabetic())?..];
    let end = name.find(|c: char| !is_key(c) && c != '.').unwrap_or(name.len());
    Some(&name[..end])
}

/// The key that a line sets, which may be malformed.
pub(super) fn leading_key(line: &str) -> Option<&str> {
    let line = line.trim_start().trim_start_matches(['"', '\'']);
    let end = line.find(|c: char| !is_key(c)).unwrap_or(line.len());
    (end > 0).then_some(&line[..end])
}

fn is_key(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// Whether a line sets a key or is a header: a list that is open before it lacks its end.
fn begins_statement(line: &str) -> bool {
    let rest = line.trim_start().trim_start_matches(|c| is_key(c) || ['.', '"', '\''].contains(&c));
    header(line).is_some() || (leading_key(line).is_some() && rest.trim_start().starts_with('='))
}

/// How many brackets a line opens more than it closes, and where its comment begins; `None` where a quote is not
/// closed, as then nothing is certain.
fn brackets(line: &str) -> Option<(isize, usize)> {
    depth(line, ['[', ']'])
}

fn depth(line: &str, [opening, closing]: [char; 2]) -> Option<(isize, usize)> {
    let mut depth = 0;
    let mut quote = None;
    let mut escaped = false;
    for (index, c) in line.char_indices() {
        match (quote, c) {
            (Some('"'), _) if escaped => escaped = false,
            (Some('"'), '\\') => escaped = true,
            (Some(open), c) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '#') => return Some((depth, index)),
            (None, c) if c == opening => depth += 1,
            (None, c) if c == closing => depth -= 1,
            (None, _) => {}
        }
    }
    quote.is_none().then_some((depth, line.len()))
}

struct Repair {
    lines: Vec<String>,
    slips: Vec<Slip>,
    unreadable: Vec<Unreadable>,
}

impl Repair {
    /// Repairs or empties line after line; `false` where there are more than [`MOST`] mistakes.
    fn all(&mut self, lists: &[&str]) -> bool {
        self.close_quotes();
        self.close_braces();
        self.close_brackets(lists);
        for _ in 0..MOST {
            let text = self.lines.join("\n");
            let (_, errors) = DeTable::parse_recoverable(&text);
            let errors = errors.iter().filter(|error| error.message() != DOUBLED);
            let first = errors.min_by_key(|error| error.span().map_or(0, |span| span.start));
            let Some(first) = first else {
                return true;
            };
            if !self.take_out(first, &text) {
                return false;
            }
        }
        false
    }

    /// Reports a parser's error and empties its line, or all lines of its list.
    fn take_out(&mut self, error: &Error, text: &str) -> bool {
        let span = error.span().unwrap_or(0..0);
        let line = text.get(..span.start).unwrap_or(text).matches('\n').count();
        // The parser misses a value at the end of its line, or at an empty line after it.
        let Some(line) = (0..=line).rev().find(|index| !self.lines[*index].trim().is_empty()) else {
            return false;
        };
        let start = self.statement(line);
        let end = if start < line { self.next(line + 1, begins_statement) } else { line + 1 };
        let found = text.get(span).unwrap_or_default();
        self.report(line, explain(error.message(), found, &self.lines[line]));
        self.empty(start..end);
        true
    }

    /// The first line of the list that is open in this line; the line itself where none is.
    fn statement(&self, line: usize) -> usize {
        let start = (0..=line).rev().find(|index| begins_statement(&self.lines[*index])).unwrap_or(line);
        let open = self.lines[start..line].iter().filter_map(|line| brackets(line)).map(|(depth, _)| depth);
        if open.sum::<isize>() > 0 { start } else { line }
    }

    fn next(&self, from: usize, is_end: impl Fn(&str) -> bool) -> usize {
        (from..self.lines.len()).find(|index| is_end(&self.lines[*index])).unwrap_or(self.lines.len())
    }

    /// Empties the line in which a text of several lines begins that does not end.
    fn close_quotes(&mut self) {
        for quotes in ["\"\"\"", "'''"] {
            let mut open = None;
            for (index, line) in self.lines.iter().enumerate() {
                if line.matches(quotes).count() % 2 == 1 {
                    open = open.map_or(Some(index), |_| None);
                }
            }
            if let Some(index) = open {
                self.report(
                    index,
                    format!("the closing {quotes} is missing: write the text in one line, in \"quotes\""),
                );
                self.empty(index..index + 1);
            }
        }
    }

    /// Empties a line with an opening brace that is not closed before the next header.
    fn close_braces(&mut self) {
        for index in 0..self.lines.len() {
            let mut open = 0;
            let is_open = |line: &String| {
                open += depth(line, ['{', '}']).map_or(0, |(depth, _)| depth);
                open > 0
            };
            let until = self.next(index, |line| header(line).is_some());
            if self.lines[index].contains('{') && self.lines[index..until].iter().all(is_open) {
                self.report(index, "the brace is not closed: write } at its end, or delete {");
                self.empty(index..index + 1);
            }
        }
    }

    /// Closes lists and headers.
    fn close_brackets(&mut self, lists: &[&str]) {
        // The first line of the list that is open, its last one, and how many brackets are open.
        let mut open: Option<(usize, usize, isize)> = None;
        for index in 0..=self.lines.len() {
            let line = self.lines.get(index).cloned();
            if let Some((first, last, depth)) = open
                && line.as_deref().is_none_or(begins_statement)
            {
                let close = "]".repeat(usize::try_from(depth).unwrap_or(0));
                let end = brackets(&self.lines[last]).map_or(0, |(_, end)| end);
                self.lines[last].insert_str(end, &close);
                self.report(first, format!("the list is not closed: write {close} at its end"));
                open = None;
            }
            let Some(line) = line else { break };
            if open.is_none() && header(&line).is_some() {
                self.close_header(index, &line, lists);
                continue;
            }
            let is_list = open.is_some() || begins_statement(&line);
            open = match brackets(&line).filter(|_| is_list) {
                None => None,
                Some((more, end)) => {
                    let (first, last, depth) = open.unwrap_or((index, index, 0));
                    let last = if line[..end].trim().is_empty() { last } else { index };
                    (depth + more > 0).then_some((first, last, depth + more))
                }
            };
        }
    }

    /// Rewrites a header with too few brackets, or with single ones where double ones are right.
    fn close_header(&mut self, index: usize, line: &str, lists: &[&str]) {
        let (Some(name), Some((_, end))) = (header(line), brackets(line)) else { return };
        let code: String = line[..end].chars().filter(|c| !c.is_whitespace()).collect();
        let Some((open, close)) = code.split_once(name) else { return };
        let is_list = lists.contains(&name);
        let right = if is_list { format!("[[{name}]]") } else { format!("[{name}]") };
        if !close.chars().all(|c| c == ']') || (open.len() == close.len() && (open == "[[" || !is_list)) {
            return;
        }
        let slip = Slip {
            line: index + 1,
            message: format!("{name}: expected {}: write {right}", expected_header(is_list)),
        };
        self.slips.push(slip);
        right.clone_into(&mut self.lines[index]);
    }

    /// Reports a mistake of the key in a line.
    fn report(&mut self, index: usize, message: impl std::fmt::Display) {
        let table = (0..index).rev().find_map(|above| header(&self.lines[above]));
        let of_header = header(&self.lines[index]);
        let key = match (of_header, table, leading_key(&self.lines[self.statement(index)])) {
            (Some(name), _, _) => format!("{name}: "),
            (None, Some(table), Some(key)) => format!("{table}.{key}: "),
            (None, None, Some(key)) => format!("{key}: "),
            (None, _, None) => String::new(),
        };
        self.slips.push(Slip { line: index + 1, message: format!("{key}{message}") });
    }

    /// Empties lines; where the first one is, or was probably meant to be, a header, all lines of its table.
    fn empty(&mut self, mut lines: Range<usize>) {
        let first = &self.lines[lines.start];
        let has_bracket = first.contains(['[', ']']) && first.contains(|c: char| c.is_ascii_alphabetic());
        let next = self.next(lines.end, |line| !line.trim().is_empty());
        let keys_follow = self.lines.get(next).is_some_and(|line| begins_statement(line));
        let is_table = header(first).is_some() || (has_bracket && !begins_statement(first) && keys_follow);
        if is_table {
            lines.end = self.next(lines.end, |line| header(line).is_some());
        }
        for index in lines {
            let line = std::mem::take(&mut self.lines[index]);
            let key = header(&line).or_else(|| leading_key(&line)).map(str::to_owned);
            self.unreadable.extend(key.map(|key| Unreadable { line: index + 1, key, is_table }));
        }
    }
}

/// The brackets that a header needs.
pub(super) fn expected_header(is_list: bool) -> &'static str {
    if is_list { "two brackets on each side" } else { "one bracket on each side" }
}

/// The mistake of a line and its cure, for a message of toml's parser.
fn explain(message: &str, found: &str, line: &str) -> String {
    let found = one_line(found.trim().trim_matches(['“', '”', '„', '‘', '’', '"', '\'']), 60);
    let value = line.split_once('=').map_or("", |(_, value)| value.trim());
    let line = line.trim();
    let is_word = ["boolean", "float", "integer", "string values must be quoted", "number", "date", "time"];
    if ["<<<<<<<", "=======", ">>>>>>>", "|||||||"].iter().any(|mark| line.starts_with(mark)) {
        "this line was left by a merge: delete it, and one of the two versions".to_owned()
    } else if ["//", "--", "/*", ";"].iter().any(|mark| line.starts_with(mark)) {
        "a comment begins with #: write # before it".to_owned()
    } else if line.contains('=') && value.is_empty() {
        "the value is missing: write it after =, or delete the line".to_owned()
    } else if brackets(line).is_none() {
        "a quote is missing: write one before and one after each text".to_owned()
    } else if message.starts_with("key with no value") || message.starts_with("invalid unquoted key") {
        "no = after the key: write KEY = VALUE".to_owned()
    } else if found.eq_ignore_ascii_case("true") || found.eq_ignore_ascii_case("false") {
        format!("expected lower case: write {}", found.to_ascii_lowercase())
    } else if is_word.iter().any(|word| message.contains(word)) && is_bare_text(&found) {
        format!("a text needs quotes: write \"{found}\"")
    } else if message.starts_with("missing comma between array elements") {
        "the list lacks a comma: write one between every two values".to_owned()
    } else if message.starts_with("unexpected key or value") {
        "more follows the value: delete it, or write several values as a list, [\"a\", \"b\"]".to_owned()
    } else if message.contains("escape") || message.contains("unicode") {
        "a backslash begins an escape: write \\\\ for a backslash".to_owned()
    } else {
        format!("not TOML ({message}): correct the line as https://toml.io describes")
    }
}

/// Whether this looks like a text without quotes, such as `debian-13` or `10s`, not like a number with more after it.
fn is_bare_text(found: &str) -> bool {
    found.starts_with(char::is_alphabetic) || found.contains(char::is_alphabetic) && !found.contains(' ')
}
