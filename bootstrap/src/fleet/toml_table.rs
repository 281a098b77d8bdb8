//! The tables of a TOML file, read key by key. A reader reports a mistake and goes on; it returns [`Reported`] for
//! a value that is wrong, and `None` for one that is not set.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use instance_contract::{duration, nearest, one_line};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistakes::{Reading, Reported};
use super::toml_syntax::expected_header;

const TEXT: &str = "a text in quotes";
const TEXTS: &str = "a list of texts in quotes";

/// A value and where it stands.
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

/// A table of the file.
pub(super) struct Section<'a> {
    pub(super) reading: &'a Reading<'a>,
    table: &'a DeTable<'a>,
    pub(super) span: Range<usize>,
    /// The lines in which its keys can stand.
    lines: Range<usize>,
    /// What is put before its keys in messages: empty, or ends with a dot.
    name: String,
    /// Known keys that unknown ones were probably meant to be.
    meant: RefCell<Vec<String>>,
}

impl<'a> Section<'a> {
    /// The keys that stand in no other table.
    pub(super) fn root(reading: &'a Reading<'a>, table: &'a DeTable<'a>) -> Self {
        Self::new(reading, table, 0..0, 0, String::new())
    }

    fn new(
        reading: &'a Reading<'a>,
        table: &'a DeTable<'a>,
        span: Range<usize>,
        line: usize,
        name: String,
    ) -> Self {
        Self { reading, table, span, lines: reading.lines_of_table(line), name, meant: RefCell::default() }
    }

    /// Reports every key that is not one of this table's; returns whether there is none. `tables` are the keys of each
    /// table, by its name and a dot.
    pub(super) fn allow(&self, tables: &[(&str, &[&str])]) -> bool {
        let of_this = tables.iter().find(|(name, _)| *name == self.name);
        let known = of_this.map_or(&[][..], |(_, keys)| keys);
        let mut all_known = true;
        for key in self.keys().iter().filter(|key| !known.contains(&key.value)) {
            let advice = if let Some((table, _)) = tables.iter().find(|(_, keys)| keys.contains(&key.value)) {
                match table.trim_end_matches('.') {
                    "" => "write it above the first [table]".to_owned(),
                    table => match known.iter().find(|known| known.starts_with(key.value)) {
                        Some(nearest) => format!("did you mean {nearest}? {} belongs to {table}", key.value),
                        None => format!("it belongs to {table}"),
                    },
                }
            } else if let Some(nearest) = nearest(key.value, known.iter().copied()) {
                self.meant.borrow_mut().push(nearest.to_owned());
                format!("did you mean {nearest}?")
            } else {
                format!("known keys: {}", known.join(", "))
            };
            // A broken header makes an unknown name.
            if !self.reading.has_mistake_in(self.reading.line(key.span.start)) {
                self.wrong(key.value, &key.span, format!("unknown key; {advice}"));
            }
            all_known = false;
        }
        all_known
    }

    /// Its keys in the order of the file.
    pub(super) fn keys(&self) -> Vec<Located<&'a str>> {
        let keys = self.table.keys();
        let mut keys: Vec<_> =
            keys.map(|key| Located { value: key.get_ref().as_ref(), span: key.span() }).collect();
        keys.sort_by_key(|key| key.span.start);
        keys
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.get(key)
    }

    /// Where a key's value stands; the table's header where the key is not set.
    pub(super) fn span_of(&self, key: &str) -> Range<usize> {
        self.get(key).map_or(self.span.clone(), Spanned::span)
    }

    /// A value, unless it is not set. Where its line could not be read, or its key was misspelt, that is reported already.
    fn find(&self, key: &str) -> Result<Option<&'a Spanned<DeValue<'a>>>, Reported> {
        let found = self.get(key);
        let is_meant = || self.meant.borrow().iter().any(|meant| meant == key);
        if found.is_none() && (is_meant() || self.reading.is_unreadable(key, &self.lines)) {
            return Err(Reported);
        }
        Ok(found)
    }

    /// Reports a mistake of a key.
    pub(super) fn wrong(&self, key: &str, span: &Range<usize>, message: impl fmt::Display) -> Reported {
        let line = self.reading.line(span.start);
        self.reading.report(line, format!("{}{}: {message}", self.name, one_line(key, 130)))
    }

    /// A value that has to be set, as in the example.
    pub(super) fn required<T>(
        &self,
        key: &str,
        example: &str,
        read: impl Fn(&Self, &str) -> Result<Option<Located<T>>, Reported>,
    ) -> Result<Located<T>, Reported> {
        read(self, key)?
            .ok_or_else(|| self.wrong(key, &self.span, format!("missing; write {key} = {example}")))
    }

    /// A value that `take` takes.
    fn value<T>(
        &self,
        key: &str,
        expected: &str,
        take: impl Fn(&'a DeValue<'a>) -> Option<T>,
    ) -> Result<Option<Located<T>>, Reported> {
        let Some(found) = self.find(key)? else {
            return Ok(None);
        };
        match take(found.get_ref()) {
            Some(value) => Ok(Some(Located { value, span: found.span() })),
            None => Err(self.unexpected(key, expected, found, false)),
        }
    }

    /// Reports a value of another kind, with the cure where that is one of quotes and brackets.
    fn unexpected(&self, key: &str, expected: &str, found: &Spanned<DeValue<'_>>, is_item: bool) -> Reported {
        let value = found.get_ref();
        let is_bare = |text: &str| text.parse::<i64>().is_ok() || text.parse::<bool>().is_ok();
        let takes_text = expected == TEXT || expected == TEXTS || expected.starts_with("a duration");
        let cure = match value {
            DeValue::String(text) if expected == TEXTS && !text.is_empty() && !is_item => {
                format!(": write [\"{}\"]", one_line(text, 60))
            }
            DeValue::Integer(number) if expected.starts_with("a list of ports") && !is_item => {
                format!(": write [{}]", one_line(number.as_str(), 60))
            }
            DeValue::Integer(number) if expected == TEXT || (expected == TEXTS && is_item) => {
                format!(": write \"{}\"", one_line(number.as_str(), 60))
            }
            DeValue::String(text) if !takes_text && is_bare(text) => ": delete the quotes".to_owned(),
            _ => String::new(),
        };
        self.wrong(key, &found.span(), format!("expected {expected}, found {}{cure}", describe(value)))
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<Located<String>>, Reported> {
        let text = |value: &DeValue<'_>| Some(value.as_str().filter(|text| !text.is_empty())?.to_owned());
        self.value(key, TEXT, text)
    }

    /// A text that has to pass a check.
    pub(super) fn checked(
        &self,
        key: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Result<Option<Located<String>>, Reported> {
        let Some(found) = self.text(key)? else {
            return Ok(None);
        };
        match check(&found.value) {
            Ok(()) => Ok(Some(found)),
            Err(message) => Err(self.wrong(key, &found.span, message)),
        }
    }

    /// A text, which may be empty, that has to pass a check.
    pub(super) fn any_text(
        &self,
        key: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Result<Option<String>, Reported> {
        let Some(found) = self.value(key, TEXT, |value| value.as_str().map(str::to_owned))? else {
            return Ok(None);
        };
        check(&found.value).map_err(|message| self.wrong(key, &found.span, message))?;
        Ok(Some(found.value))
    }

    /// Reported where one of these keys is set, but could not be read.
    pub(super) fn any_of(&self, keys: &[&str]) -> Result<(), Reported> {
        keys.iter().try_for_each(|key| self.find(key).map(|_| ()))
    }

    /// The items of a list that are as expected, and whether all are.
    fn items<T>(
        &self,
        key: &str,
        expected: &str,
        item: impl Fn(&'a DeValue<'a>) -> Option<T>,
    ) -> Result<Option<Items<T>>, Reported> {
        let Some(value) = self.find(key)? else {
            return Ok(None);
        };
        let items = value.get_ref().as_array().ok_or_else(|| self.unexpected(key, expected, value, false))?;
        let mut right = Vec::new();
        let mut all = Ok(());
        for found in items.iter() {
            match item(found.get_ref()) {
                Some(value) => right.push(Located { value, span: found.span() }),
                None => all = Err(self.unexpected(key, expected, found, true)),
            }
        }
        Ok(Some(Items { right, all, span: value.span() }))
    }

    /// A list of different texts that have to pass a check.
    pub(super) fn texts(
        &self,
        key: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Result<Option<Located<Vec<String>>>, Reported> {
        let Some(mut items) = self.items(key, TEXTS, DeValue::as_str)? else {
            return Ok(None);
        };
        let mut texts: Vec<String> = Vec::new();
        for text in items.right {
            if let Err(message) = check(text.value) {
                items.all = Err(self.wrong(key, &text.span, message));
            } else if texts.iter().any(|other| other == text.value) {
                items.all = Err(self.twice(key, &text.span, text.value));
            } else {
                texts.push(text.value.to_owned());
            }
        }
        items.all.map(|()| Some(Located { value: texts, span: items.span }))
    }

    /// A list of different ports.
    pub(super) fn ports(&self, key: &str) -> Result<Option<Vec<u16>>, Reported> {
        let port = |value: &DeValue<'_>| {
            let number = integer(value)?;
            u16::try_from(number).ok().filter(|port| *port > 0)
        };
        let expected = "a list of ports, each from 1 to 65535";
        let Some(mut items) = self.items(key, expected, port)? else {
            return Ok(None);
        };
        let mut ports = Vec::new();
        for port in items.right {
            if ports.contains(&port.value) {
                items.all = Err(self.twice(key, &port.span, port.value));
            } else {
                ports.push(port.value);
            }
        }
        items.all.map(|()| Some(ports))
    }

    fn twice(&self, key: &str, span: &Range<usize>, item: impl fmt::Display) -> Reported {
        self.wrong(key, span, format!("{item} is in the list twice: delete one"))
    }

    pub(super) fn integer(&self, key: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, Reported> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        let found =
            self.value(key, &expected, |value| integer(value).filter(|number| range.contains(number)))?;
        Ok(found.map(|found| found.value))
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<Located<bool>>, Reported> {
        self.value(key, "true or false", DeValue::as_bool)
    }

    pub(super) fn duration(
        &self,
        key: &str,
        range: RangeInclusive<Duration>,
    ) -> Result<Option<Duration>, Reported> {
        let expected =
            format!("a duration from \"{}s\" to \"{}s\"", range.start().as_secs(), range.end().as_secs());
        let found = self.value(key, &expected, |value| {
            let text = match value {
                DeValue::Integer(seconds) if seconds.radix() == 10 => seconds.as_str(),
                other => other.as_str()?,
            };
            duration::parse(text).ok().filter(|duration| range.contains(duration))
        })?;
        Ok(found.map(|found| found.value))
    }

    /// A table in this one.
    pub(super) fn section(&self, key: &str) -> Result<Option<Section<'a>>, Reported> {
        let Some(value) = self.find(key)? else {
            return Ok(None);
        };
        let table = value.get_ref().as_table();
        let table = table
            .ok_or_else(|| self.wrong(key, &value.span(), format!("expected a table: write [{key}]")))?;
        Ok(Some(self.inner(key, table, value.span())))
    }

    /// A list of tables, which may be missing, and where it stands.
    pub(super) fn sections(&self, key: &str) -> Result<Located<Vec<Section<'a>>>, Reported> {
        let Some(value) = self.find(key)? else {
            return Ok(Located { value: Vec::new(), span: self.span.clone() });
        };
        let wrong = |span: &Range<usize>| {
            self.wrong(key, span, format!("expected {}: write [[{key}]]", expected_header(true)))
        };
        let mut sections = Vec::new();
        match value.get_ref() {
            DeValue::Array(items) => {
                for item in items.iter() {
                    match item.get_ref().as_table() {
                        Some(table) => sections.push(self.inner(key, table, item.span())),
                        None => return Err(wrong(&item.span())),
                    }
                }
            }
            // One table is taken for the list, so that its mistakes are reported too.
            DeValue::Table(table) => {
                wrong(&value.span());
                sections.push(self.inner(key, table, value.span()));
            }
            _ => return Err(wrong(&value.span())),
        }
        Ok(Located { value: sections, span: value.span() })
    }

    /// A table in this one that is not set.
    pub(super) fn without_keys(&self, key: &str, table: &'a DeTable<'a>) -> Section<'a> {
        Section { lines: 0..0, ..self.inner(key, table, self.span.clone()) }
    }

    fn inner(&self, key: &str, table: &'a DeTable<'a>, span: Range<usize>) -> Section<'a> {
        let line = self.reading.line(span.start);
        Section::new(self.reading, table, span, line, format!("{}{key}.", self.name))
    }
}

/// The items of a list that are as expected.
struct Items<T> {
    right: Vec<Located<T>>,
    /// Whether the others are none.
    all: Result<(), Reported>,
    span: Range<usize>,
}

/// The key of a table that stands nearest before this place, and has the same name: where a key is set twice, the first.
pub(super) fn key_before(table: &DeTable<'_>, name: &str, place: usize) -> Option<usize> {
    let mut found = None;
    for (key, value) in table {
        let start = key.span().start;
        found = found.max((key.get_ref() == name && start < place).then_some(start));
        match value.get_ref() {
            DeValue::Table(inner) => found = found.max(key_before(inner, name, place)),
            DeValue::Array(items) => {
                for inner in items.iter().filter_map(|item| item.get_ref().as_table()) {
                    found = found.max(key_before(inner, name, place));
                }
            }
            _ => {}
        }
    }
    found
}

/// The words for a value in a message.
fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.is_empty() => "an empty text".to_owned(),
        DeValue::String(text) => format!("the text \"{}\"", one_line(text, 60)),
        DeValue::Integer(number) if number.radix() != 10 => "a number with a prefix".to_owned(),
        DeValue::Integer(number) => format!("the number {}", one_line(number.as_str(), 60)),
        DeValue::Float(number) => format!("the number {}", one_line(number.as_str(), 60)),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

fn integer(value: &DeValue<'_>) -> Option<u32> {
    let integer = value.as_integer()?;
    u32::from_str_radix(integer.as_str(), integer.radix()).ok()
}
