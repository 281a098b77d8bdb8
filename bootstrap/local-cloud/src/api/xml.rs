//! Writing the XML of the query protocol. Nothing here reads XML.

/// An XML document in the making.
#[derive(Debug, Default)]
pub(crate) struct Xml(String);

impl Xml {
    /// A document whose root element has a namespace.
    pub(crate) fn document(root: &str, namespace: &str, inside: impl FnOnce(&mut Self)) -> String {
        let mut xml = Self(format!("<{root} xmlns=\"{namespace}\">"));
        inside(&mut xml);
        xml.0 += &format!("</{root}>");
        xml.0
    }

    /// The document as it is.
    pub(crate) fn into_string(self) -> String {
        self.0
    }

    /// An element with children.
    pub(crate) fn element(&mut self, name: &str, inside: impl FnOnce(&mut Self)) {
        self.0 += &format!("<{name}>");
        inside(self);
        self.0 += &format!("</{name}>");
    }

    /// An element with text.
    pub(crate) fn text(&mut self, name: &str, text: impl ToString) {
        let escaped = escape(&text.to_string());
        self.0 += &format!("<{name}>{escaped}</{name}>");
    }

    /// A list: `name` around one `item` for each value.
    pub(crate) fn list<T>(
        &mut self,
        name: &str,
        item: &str,
        values: impl IntoIterator<Item = T>,
        mut inside: impl FnMut(&mut Self, T),
    ) {
        self.element(name, |xml| {
            for value in values {
                xml.element(item, |xml| inside(xml, value));
            }
        });
    }

    /// A list of plain texts, each a `member`.
    pub(crate) fn texts<T: ToString>(&mut self, name: &str, values: impl IntoIterator<Item = T>) {
        self.element(name, |xml| {
            for value in values {
                xml.text("member", value);
            }
        });
    }
}

/// Escapes text for an element's content; control characters that XML 1.0 cannot hold become `?`.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\r' => escaped += "&#13;",
            c if c.is_control() && c != '\n' && c != '\t' => escaped.push('?'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_lists_nest() {
        let xml = Xml::document("R", "urn:x", |xml| {
            xml.text("k", "a<b>&\"\u{1}");
            xml.list("set", "item", [1, 2], |xml, n| xml.text("n", n));
            xml.texts("names", ["x"]);
        });
        assert_eq!(
            xml,
            "<R xmlns=\"urn:x\"><k>a&lt;b&gt;&amp;&quot;?</k>\
             <set><item><n>1</n></item><item><n>2</n></item></set>\
             <names><member>x</member></names></R>"
        );
    }
}
