//! Just enough XML to read what moto answers, change it, and write it again.

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
        Reader { rest: document }.document()
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
            for c in self.text.chars() {
                match c {
                    '&' => *into += "&amp;",
                    '<' => *into += "&lt;",
                    '>' => *into += "&gt;",
                    '\r' => *into += "&#13;",
                    c => into.push(c),
                }
            }
        }
        for child in &self.children {
            child.write(into);
        }
        *into += &format!("</{}>", self.name);
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn document(mut self) -> Option<Element> {
        self.rest = self.rest.trim_start();
        while self.rest.starts_with("<?") || self.rest.starts_with("<!") {
            self.rest = self.rest.split_once('>')?.1.trim_start();
        }
        self.element()
    }

    /// The element that begins here.
    fn element(&mut self) -> Option<Element> {
        let (tag, rest) = self.rest.strip_prefix('<')?.split_once('>')?;
        self.rest = rest;
        let (tag, empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let tag = tag.trim_end();
        let end = tag.find(char::is_whitespace).unwrap_or(tag.len());
        let (name, attributes) = tag.split_at(end);
        let mut element =
            Element { name: name.to_owned(), attributes: attributes.to_owned(), ..Element::default() };
        if empty {
            return Some(element);
        }
        let mut text = String::new();
        loop {
            let (before, _) = self.rest.split_once('<')?;
            text += &unescaped(before)?;
            self.rest = &self.rest[before.len()..];
            if let Some(rest) = self.rest.strip_prefix("</") {
                let (closed, rest) = rest.split_once('>')?;
                self.rest = rest;
                if closed.trim_end() != name {
                    return None;
                }
                if element.children.is_empty() {
                    element.text = text;
                }
                return Some(element);
            }
            element.children.push(self.element()?);
        }
    }
}

fn unescaped(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        plain += before;
        let (name, after) = after.split_once(';')?;
        plain.push(match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            name => {
                let number = name.strip_prefix('#')?;
                let code = match number.strip_prefix('x') {
                    Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                    None => number.parse().ok()?,
                };
                char::from_u32(code)?
            }
        });
        rest = after;
    }
    plain += rest;
    Some(plain)
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
