//! Text in, tree out. No entity is expanded but the five of XML and character numbers, and depth,
//! size and number of nodes are bounded, so that no document costs more than a few times its size.

use quick_xml::Reader;
use quick_xml::events::{BytesRef, BytesStart, Event};

use super::{Element, Node};
use crate::{Code, Error, Origin, Result};

/// Larger than any document a client has a reason to send.
const DOCUMENT_BYTES_MAX: usize = 4 << 20;
/// libxml2 stops at 256 too.
const DEPTH_MAX: usize = 256;
/// Elements and attributes in one document.
const NODES_MAX: usize = 100_000;

/// Parses a document. `what` is libvirt's name for it in messages, such as `domain_definition`.
pub fn parse(text: &str, what: &str) -> Result<Element> {
    if text.len() > DOCUMENT_BYTES_MAX {
        return Err(refuse(what, 1, "the document is too large"));
    }
    if text.trim().is_empty() {
        return Err(refuse(what, 1, "Document is empty"));
    }
    let mut parser = Parser { open: Vec::new(), root: None, nodes: 0 };
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    loop {
        let event = reader.read_event();
        let position = reader.buffer_position() as usize;
        let at = || line_of(text, position);
        match event {
            Ok(Event::Eof) => break,
            Ok(event) => parser.take(event).map_err(|problem| refuse(what, at(), &problem))?,
            Err(error) => return Err(refuse(what, at(), &error.to_string())),
        }
    }
    if let Some(open) = parser.open.last() {
        let problem = format!("Premature end of data in tag {}", open.name);
        return Err(refuse(what, line_of(text, text.len()), &problem));
    }
    parser.root.ok_or_else(|| refuse(what, 1, "Start tag expected, '<' not found"))
}

fn refuse(what: &str, line: usize, problem: &str) -> Error {
    Error::new(Code::XmlDetail, format!("({what}):{line}: {problem}")).from(Origin::Xml)
}

fn line_of(text: &str, position: usize) -> usize {
    let before = &text.as_bytes()[..position.min(text.len())];
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

struct Parser {
    /// From the root to the innermost element that has not ended.
    open: Vec<Element>,
    root: Option<Element>,
    nodes: usize,
}

impl Parser {
    fn take(&mut self, event: Event<'_>) -> std::result::Result<(), String> {
        match event {
            Event::Start(start) => self.start(&start),
            Event::End(_) => {
                let element = self.open.pop().ok_or("unexpected end tag")?;
                match self.open.last_mut() {
                    Some(parent) => parent.push(element),
                    None => self.root = Some(element),
                }
                Ok(())
            }
            Event::Text(text) => self.text(&text.decode().map_err(|error| error.to_string())?),
            Event::CData(data) => self.text(&data.decode().map_err(|error| error.to_string())?),
            Event::GeneralRef(reference) => {
                let text = resolve(&reference)?;
                self.text(&text)
            }
            Event::DocType(_) => Err("a document type declaration is not accepted".into()),
            _ => Ok(()),
        }
    }

    fn count(&mut self) -> std::result::Result<(), String> {
        self.nodes += 1;
        if self.nodes > NODES_MAX { Err("too many nodes".into()) } else { Ok(()) }
    }

    fn start(&mut self, start: &BytesStart<'_>) -> std::result::Result<(), String> {
        self.count()?;
        if self.open.len() >= DEPTH_MAX {
            return Err(format!("Excessive depth in document: {DEPTH_MAX}"));
        }
        if self.root.is_some() {
            return Err("Extra content at the end of the document".into());
        }
        let name = std::str::from_utf8(start.name().into_inner()).map_err(|e| e.to_string())?;
        let mut element = Element::new(name);
        for attribute in start.attributes() {
            self.count()?;
            let attribute = attribute.map_err(|error| error.to_string())?;
            let key = std::str::from_utf8(attribute.key.into_inner()).map_err(|e| e.to_string())?;
            let value = attribute.unescape_value().map_err(|error| error.to_string())?;
            element.attributes.push((key.to_owned(), value.into_owned()));
        }
        self.open.push(element);
        Ok(())
    }

    fn text(&mut self, text: &str) -> std::result::Result<(), String> {
        let Some(element) = self.open.last_mut() else {
            let blank = text.trim_matches(['\u{feff}', ' ', '\t', '\r', '\n']).is_empty();
            let problem = if self.root.is_some() {
                "Extra content at the end of the document"
            } else {
                "Start tag expected, '<' not found"
            };
            return if blank { Ok(()) } else { Err(problem.into()) };
        };
        match element.children.last_mut() {
            Some(Node::Text(before)) => before.push_str(text),
            _ if text.trim().is_empty() => {}
            _ => {
                element.children.push(Node::Text(text.to_owned()));
                self.count()?;
            }
        }
        Ok(())
    }
}

fn resolve(reference: &BytesRef<'_>) -> std::result::Result<String, String> {
    if let Some(character) = reference.resolve_char_ref().map_err(|error| error.to_string())? {
        return Ok(character.to_string());
    }
    let name = reference.decode().map_err(|error| error.to_string())?;
    let text = match &*name {
        "lt" => "<",
        "gt" => ">",
        "amp" => "&",
        "apos" => "'",
        "quot" => "\"",
        other => return Err(format!("Entity '{other}' not defined")),
    };
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_prefixes_and_texts_lose_entities() {
        let document = parse(
            "<?xml version='1.0'?>\n<!-- x --><a b='1 &lt;'><q:c>x &amp; y&#33;</q:c>\n<d/></a>",
            "t",
        );
        let document = document.unwrap();
        assert_eq!(document.attribute("b"), Some("1 <"));
        assert_eq!(document.text_at("q:c").as_deref(), Some("x & y!"));
        assert_eq!(document.elements().count(), 2);
    }

    #[test]
    fn bad_documents_are_refused_with_a_line() {
        let deep = "<a>".repeat(DEPTH_MAX + 1);
        let many = format!("<a>{}</a>", "<b/>".repeat(NODES_MAX));
        for (text, message) in [
            ("", "(t):1: Document is empty"),
            ("hello", "(t):1: Start tag expected, '<' not found"),
            ("<a>\n<b></a>", "(t):2: "),
            ("<a/><b/>", "(t):1: Extra content at the end of the document"),
            ("<a>\n\n&bomb;</a>", "(t):3: Entity 'bomb' not defined"),
            ("<!DOCTYPE a [<!ENTITY x 'y'>]><a/>", "(t):1: a document type declaration"),
            ("<a x=1/>", "(t):1: "),
            ("<a>\n", "(t):2: Premature end of data in tag a"),
            (&deep, "(t):1: Excessive depth in document: 256"),
            (&many, "(t):1: too many nodes"),
        ] {
            let error = parse(text, "t").unwrap_err();
            assert_eq!(error.code, Code::XmlDetail);
            assert!(error.message().starts_with(message), "{}", error.message());
        }
    }
}
