//! XML that moto answers, as a tree that can be changed and written again.

use quick_xml::Reader;
use quick_xml::escape::{partial_escape, resolve_predefined_entity};
use quick_xml::events::Event;

/// An element: its name, its attributes as they were written, and either text or children.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// The name, with its prefix if it has one.
    pub name: String,
    attributes: String,
    /// What it says, where it has no children.
    pub text: String,
    /// The elements in it.
    pub children: Vec<Element>,
}

impl Element {
    /// An element with text.
    pub fn text(name: &str, text: impl Into<String>) -> Self {
        Self { name: name.to_owned(), text: text.into(), ..Self::default() }
    }

    /// An element with children.
    pub fn of(name: &str, children: Vec<Element>) -> Self {
        Self { name: name.to_owned(), children, ..Self::default() }
    }

    /// Reads a document; `None` if it is none.
    pub fn parse(document: &str) -> Option<Self> {
        let mut reader = Reader::from_str(document);
        reader.config_mut().expand_empty_elements = true;
        // The elements that are open, in one that holds the document's own.
        let mut open = vec![Self::default()];
        loop {
            let inner = open.last_mut()?;
            match reader.read_event().ok()? {
                Event::Start(tag) => open.push(Self {
                    name: tag.name().as_ref().to_owned(),
                    attributes: tag.attributes_raw().to_owned(),
                    ..Self::default()
                }),
                Event::End(_) => {
                    let mut element = open.pop()?;
                    if !element.children.is_empty() {
                        element.text.clear();
                    }
                    open.last_mut()?.children.push(element);
                }
                Event::Text(text) => inner.text += &text.xml10_content(),
                Event::CData(text) => inner.text += &text.xml10_content(),
                Event::GeneralRef(entity) => match entity.resolve_char_ref().ok()? {
                    Some(c) => inner.text.push(c),
                    None => inner.text += resolve_predefined_entity(&entity.into_inner())?,
                },
                Event::Eof if open.len() == 1 => return open.pop()?.children.pop(),
                Event::Eof => return None,
                _ => {}
            }
        }
    }

    /// The document.
    pub fn document(&self) -> String {
        let mut text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>".to_owned();
        self.write(&mut text);
        text
    }

    /// The first child of this name.
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The first child of this name.
    pub fn child_mut(&mut self, name: &str) -> Option<&mut Element> {
        self.children.iter_mut().find(|child| child.name == name)
    }

    /// The descendant by this path of names, separated by slashes.
    pub fn at(&self, path: &str) -> Option<&Element> {
        path.split('/').try_fold(self, |element, name| element.child(name))
    }

    /// The descendant by this path of names, separated by slashes.
    pub fn at_mut(&mut self, path: &str) -> Option<&mut Element> {
        path.split('/').try_fold(self, |element, name| element.child_mut(name))
    }

    /// What the descendant by this path says; empty if there is none.
    pub fn say(&self, path: &str) -> &str {
        self.at(path).map_or("", |element| element.text.as_str())
    }

    /// The children of the descendant by this path.
    pub fn list(&self, path: &str) -> &[Element] {
        self.at(path).map_or(&[], |element| &element.children)
    }

    /// The first descendant of this name, at any depth.
    pub fn find(&self, name: &str) -> Option<&Element> {
        self.children.iter().find_map(|child| if child.name == name { Some(child) } else { child.find(name) })
    }

    /// Puts a child in place of one of the same name, or adds it.
    pub fn set(&mut self, child: Element) {
        match self.child_mut(&child.name) {
            Some(found) => *found = child,
            None => self.children.push(child),
        }
    }

    /// The pairs of a list of tags: `key` and `value`, or `Key` and `Value`.
    pub fn tags(&self, path: &str) -> Vec<(String, String)> {
        let pair = |tag: &Element| {
            let either = |lower: &str, upper: &str| match tag.say(lower) {
                "" => tag.say(upper).to_owned(),
                text => text.to_owned(),
            };
            (either("key", "Key"), either("value", "Value"))
        };
        self.list(path).iter().map(pair).collect()
    }

    fn write(&self, into: &mut String) {
        *into += &format!("<{}{}>", self.name, self.attributes);
        if self.children.is_empty() {
            *into += &partial_escape(self.text.as_str());
        }
        for child in &self.children {
            child.write(into);
        }
        *into += &format!("</{}>", self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_written_again_and_can_be_changed() {
        let text = "<?xml version=\"1.0\"?>\n<a xmlns=\"urn:x\">\n <b><item><key>k&amp;&#x41;</key><value/></item></b><c>1</c></a>";
        let mut read = Element::parse(text).unwrap();
        assert_eq!(read.tags("b"), [("k&A".to_owned(), String::new())]);
        assert_eq!(read.say("c"), "1");
        read.set(Element::text("c", "<2>"));
        assert_eq!(Element::parse(&read.document()).unwrap(), read);
        assert!(read.document().contains("<a xmlns=\"urn:x\">"));
        assert!(Element::parse("<a><b></a>").is_none());
    }
}
