//! The tables of a TOML file, read key by key.

use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use instance_contract::{duration, nearest};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong with a fleet file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct FleetError {
    /// The file, or a built-in fleet's name.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The key and what is wrong with it.
    pub message: String,
}

/// A file and its text, to make errors from.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// What is wrong at this place.
    pub(super) fn error(&self, span: &Range<usize>, message: impl fmt::Display) -> FleetError {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        FleetError {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            message: message.to_string(),
        }
    }
}

/// A value and where it stands.
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

/// A table of the file.
pub(super) struct Section<'a> {
    pub(super) source: Source<'a>,
    pub(super) table: &'a DeTable<'a>,
    pub(super) span: Range<usize>,
    /// What is put before its keys in messages: empty, or ends with a dot.
    pub(super) name: String,
}

impl<'a> Section<'a> {
    /// Refuses every key but these.
    pub(super) fn allow(&self, known: &[&str]) -> Result<(), FleetError> {
        for key in self.keys() {
            if known.contains(&key.value) {
                continue;
            }
            let advice = match nearest(key.value, known.iter().copied()) {
                Some(nearest) => format!("did you mean {nearest}?"),
                None => format!("known are {}", known.join(", ")),
            };
            return Err(self.wrong(key.value, &key.span, format!("unknown key; {advice}")));
        }
        Ok(())
    }

    /// Its keys in the order of the file: the first mistake is the one to be told of.
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

    /// What is wrong with a key.
    pub(super) fn wrong(&self, key: &str, span: &Range<usize>, message: impl fmt::Display) -> FleetError {
        self.source.error(span, format!("{}{key}: {message}", self.name))
    }

    pub(super) fn required<T>(
        &self,
        key: &str,
        read: impl Fn(&Self, &str) -> Result<Option<Located<T>>, FleetError>,
    ) -> Result<Located<T>, FleetError> {
        read(self, key)?.ok_or_else(|| self.wrong(key, &self.span, "missing"))
    }

    /// A value that `take` takes.
    fn value<T>(
        &self,
        key: &str,
        expected: impl fmt::Display,
        take: impl Fn(&'a DeValue<'a>) -> Option<T>,
    ) -> Result<Option<Located<T>>, FleetError> {
        let Some(found) = self.get(key) else {
            return Ok(None);
        };
        match take(found.get_ref()) {
            Some(value) => Ok(Some(Located { value, span: found.span() })),
            None => Err(self.wrong(key, &found.span(), format!("expected {expected}"))),
        }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<Located<String>>, FleetError> {
        let text = |value: &DeValue<'_>| Some(value.as_str().filter(|text| !text.is_empty())?.to_owned());
        self.value(key, "a text in quotes", text)
    }

    /// A text that has to pass a check.
    pub(super) fn checked(
        &self,
        key: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Result<Option<Located<String>>, FleetError> {
        let Some(found) = self.text(key)? else {
            return Ok(None);
        };
        match check(&found.value) {
            Ok(()) => Ok(Some(found)),
            Err(message) => Err(self.wrong(key, &found.span, message)),
        }
    }

    fn items<T>(
        &self,
        key: &str,
        expected: &str,
        item: impl Fn(&'a DeValue<'a>) -> Option<T>,
    ) -> Result<Option<Located<Vec<Located<T>>>>, FleetError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let wrong = |span: &Range<usize>| self.wrong(key, span, format!("expected {expected}"));
        let items = value.get_ref().as_array().ok_or_else(|| wrong(&value.span()))?;
        let items = items.iter().map(|found| match item(found.get_ref()) {
            Some(value) => Ok(Located { value, span: found.span() }),
            None => Err(wrong(&found.span())),
        });
        Ok(Some(Located { value: items.collect::<Result<_, _>>()?, span: value.span() }))
    }

    /// A list of different texts that have to pass a check.
    pub(super) fn texts(
        &self,
        key: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Result<Option<Located<Vec<String>>>, FleetError> {
        let found = self.items(key, "a list of texts in quotes", DeValue::as_str)?;
        let Some(Located { value, span }) = found else {
            return Ok(None);
        };
        let mut texts: Vec<String> = Vec::new();
        for text in value {
            check(text.value).map_err(|message| self.wrong(key, &text.span, message))?;
            if texts.iter().any(|other| other == text.value) {
                return Err(self.wrong(key, &text.span, format!("{} is there twice", text.value)));
            }
            texts.push(text.value.to_owned());
        }
        Ok(Some(Located { value: texts, span }))
    }

    /// A list of different ports.
    pub(super) fn ports(&self, key: &str) -> Result<Option<Vec<u16>>, FleetError> {
        let port = |value: &DeValue<'_>| {
            let number = integer(value)?;
            u16::try_from(number).ok().filter(|port| *port > 0)
        };
        let found = self.items(key, "a list of ports, each from 1 to 65535", port)?;
        let mut ports = Vec::new();
        for port in found.iter().flat_map(|found| &found.value) {
            if ports.contains(&port.value) {
                return Err(self.wrong(key, &port.span, format!("{} is there twice", port.value)));
            }
            ports.push(port.value);
        }
        Ok(found.is_some().then_some(ports))
    }

    pub(super) fn integer(&self, key: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, FleetError> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        let found =
            self.value(key, expected, |value| integer(value).filter(|number| range.contains(number)))?;
        Ok(found.map(|found| found.value))
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<Located<bool>>, FleetError> {
        self.value(key, "true or false", DeValue::as_bool)
    }

    pub(super) fn duration(
        &self,
        key: &str,
        range: RangeInclusive<Duration>,
    ) -> Result<Option<Duration>, FleetError> {
        let expected =
            format!("a duration from \"{}s\" to \"{}s\"", range.start().as_secs(), range.end().as_secs());
        let found = self.value(key, expected, |value| {
            let text = match value {
                DeValue::Integer(seconds) if seconds.radix() == 10 => seconds.as_str(),
                other => other.as_str()?,
            };
            duration::parse(text).ok().filter(|duration| range.contains(duration))
        })?;
        Ok(found.map(|found| found.value))
    }

    /// A table in this one.
    pub(super) fn section(&self, key: &str) -> Result<Option<Section<'a>>, FleetError> {
        self.get(key).map(|value| self.inner(key, value, "expected a table")).transpose()
    }

    /// A list of tables, which may be missing, and where it stands.
    pub(super) fn sections(&self, key: &str) -> Result<Located<Vec<Section<'a>>>, FleetError> {
        let expected = format!("expected tables: [[{key}]]");
        let Some(value) = self.get(key) else {
            return Ok(Located { value: Vec::new(), span: self.span.clone() });
        };
        let items = value.get_ref().as_array();
        let items = items.ok_or_else(|| self.wrong(key, &value.span(), &expected))?;
        let sections = items.iter().map(|item| self.inner(key, item, &expected));
        Ok(Located { value: sections.collect::<Result<_, _>>()?, span: value.span() })
    }

    fn inner(
        &self,
        key: &str,
        value: &'a Spanned<DeValue<'a>>,
        expected: &str,
    ) -> Result<Section<'a>, FleetError> {
        let span = value.span();
        let table = value.get_ref().as_table().ok_or_else(|| self.wrong(key, &span, expected))?;
        Ok(Section { source: self.source, table, span, name: format!("{}{key}.", self.name) })
    }
}

fn integer(value: &DeValue<'_>) -> Option<u32> {
    let integer = value.as_integer()?;
    u32::from_str_radix(integer.as_str(), integer.radix()).ok()
}
