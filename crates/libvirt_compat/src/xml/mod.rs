//! XML documents as trees: names with their prefixes, attributes in order, nothing expanded.

#![expect(
    clippy::needless_pass_by_value,
    reason = "values of any type read better without a reference"
)]

mod parse;
mod write;

pub use parse::parse;

/// An element and all below it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Element {
    /// With its prefix, as written.
    pub name: String,
    /// In the order they were written.
    pub attributes: Vec<(String, String)>,
    /// In the order they were written.
    pub children: Vec<Node>,
}

/// What stands inside an element.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Node {
    /// Another element.
    Element(Element),
    /// Text, with entities resolved.
    Text(String),
}

impl Element {
    /// An element with nothing in it.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// An element that holds this text.
    pub fn with_text(name: impl Into<String>, text: impl ToString) -> Self {
        let mut element = Self::new(name);
        element.children.push(Node::Text(text.to_string()));
        element
    }

    /// The same with one more attribute.
    pub fn with(mut self, attribute: &str, value: impl ToString) -> Self {
        self.set(attribute, value);
        self
    }

    /// The same with one more child.
    pub fn with_child(mut self, child: Self) -> Self {
        self.push(child);
        self
    }

    /// An attribute's value.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether an attribute has this value.
    pub fn is(&self, attribute: &str, value: &str) -> bool {
        self.attribute(attribute) == Some(value)
    }

    /// Sets an attribute, in its place if it was there.
    pub fn set(&mut self, name: &str, value: impl ToString) {
        match self.attributes.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => *old = value.to_string(),
            None => self.attributes.push((name.to_owned(), value.to_string())),
        }
    }

    /// Sets an attribute that is not there yet.
    pub fn set_default(&mut self, name: &str, value: impl ToString) {
        if self.attribute(name).is_none() {
            self.set(name, value);
        }
    }

    /// Takes an attribute away.
    pub fn unset(&mut self, name: &str) {
        self.attributes.retain(|(key, _)| key != name);
    }

    /// The text directly inside, joined.
    pub fn text(&self) -> String {
        let texts = self.children.iter().filter_map(|node| match node {
            Node::Text(text) => Some(text.as_str()),
            Node::Element(_) => None,
        });
        texts.collect()
    }

    /// Replaces everything inside by a text.
    pub fn set_text(&mut self, text: impl ToString) {
        self.children = vec![Node::Text(text.to_string())];
    }

    /// The elements directly inside.
    pub fn elements(&self) -> impl DoubleEndedIterator<Item = &Self> {
        self.children.iter().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    /// The elements directly inside, to change them.
    pub fn elements_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut Self> {
        self.children.iter_mut().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    /// The elements of one name directly inside.
    pub fn all<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a Self> {
        self.elements().filter(move |element| element.name == name)
    }

    /// The same, to change them.
    pub fn all_mut<'a>(&'a mut self, name: &'a str) -> impl Iterator<Item = &'a mut Self> {
        self.elements_mut().filter(move |element| element.name == name)
    }

    /// The first element of this name.
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.elements().find(|element| element.name == name)
    }

    /// The same, to change it.
    pub fn child_mut(&mut self, name: &str) -> Option<&mut Self> {
        self.elements_mut().find(|element| element.name == name)
    }

    /// The first element of this name, made if it is missing.
    pub fn ensure(&mut self, name: &str) -> &mut Self {
        let found = self
            .children
            .iter()
            .position(|node| matches!(node, Node::Element(element) if element.name == name));
        let place = found.unwrap_or_else(|| {
            self.push(Self::new(name));
            self.children.len() - 1
        });
        match &mut self.children[place] {
            Node::Element(element) => element,
            Node::Text(_) => unreachable!("the place holds an element"),
        }
    }

    /// The element at the end of a path such as `os/type`.
    pub fn at(&self, path: &str) -> Option<&Self> {
        path.split('/').try_fold(self, |element, name| element.child(name))
    }

    /// The text at the end of a path, without blanks around it.
    pub fn text_at(&self, path: &str) -> Option<String> {
        self.at(path).map(|element| element.text().trim().to_owned())
    }

    /// The attribute of the element at the end of a path.
    pub fn attribute_at(&self, path: &str, attribute: &str) -> Option<&str> {
        self.at(path).and_then(|element| element.attribute(attribute))
    }

    /// Adds an element at the end.
    pub fn push(&mut self, element: Self) {
        self.children.push(Node::Element(element));
    }

    /// Takes away the elements that a test accepts, and says how many.
    pub fn remove(&mut self, mut test: impl FnMut(&Self) -> bool) -> usize {
        let before = self.children.len();
        self.children.retain(|node| match node {
            Node::Element(element) => !test(element),
            Node::Text(_) => true,
        });
        before - self.children.len()
    }

    /// The document's text, laid out as libvirt does.
    pub fn to_xml(&self) -> String {
        write::document(self)
    }
}
