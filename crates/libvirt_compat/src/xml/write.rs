//! Tree in, text out: two blanks a level, single quotes, an empty element closes itself. What lies
//! below `<metadata>` belongs to applications and is written with double quotes, as libvirt does.

use super::{Element, Node};

/// What libvirt opens and closes even when nothing is inside.
const SPREAD: [&str; 2] = ["devices", "redirdev"];

pub(super) fn document(root: &Element) -> String {
    let mut out = String::with_capacity(4096);
    element(root, 0, '\'', &mut out);
    out
}

fn element(element_: &Element, depth: usize, quote: char, out: &mut String) {
    indent(depth, out);
    out.push('<');
    out.push_str(&element_.name);
    for (name, value) in &element_.attributes {
        out.push(' ');
        out.push_str(name);
        out.push('=');
        out.push(quote);
        escape(value, out);
        out.push(quote);
    }
    if element_.children.is_empty() && SPREAD.contains(&element_.name.as_str()) {
        out.push_str(">\n");
        indent(depth, out);
        out.push_str("</");
        out.push_str(&element_.name);
        out.push_str(">\n");
        return;
    }
    if element_.children.is_empty() {
        out.push_str("/>\n");
        return;
    }
    out.push('>');
    let quote = if element_.name == "metadata" { '"' } else { quote };
    let has_elements = element_.elements().next().is_some();
    if has_elements {
        out.push('\n');
    }
    for node in &element_.children {
        match node {
            Node::Element(child) => element(child, depth + 1, quote, out),
            Node::Text(text) if has_elements => {
                indent(depth + 1, out);
                escape(text.trim(), out);
                out.push('\n');
            }
            Node::Text(text) => escape(text, out),
        }
    }
    if has_elements {
        indent(depth, out);
    }
    out.push_str("</");
    out.push_str(&element_.name);
    out.push_str(">\n");
}

fn indent(depth: usize, out: &mut String) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

fn escape(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\'' => out.push_str("&apos;"),
            '"' => out.push_str("&quot;"),
            // Control characters cannot stand in XML 1.0 at all.
            character if (character as u32) < 0x20 && !matches!(character, '\n' | '\t') => {}
            character => out.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    #[test]
    fn a_document_comes_back_in_libvirts_layout() {
        let text = "<domain type='kvm'>\n  <name>a&amp;b</name>\n  <metadata>\n    \
                    <x:y xmlns:x=\"u\"/>\n  </metadata>\n  <acpi/>\n</domain>\n";
        let squeezed = text.replace("\n", "").replace("  ", "");
        for input in [text, &squeezed] {
            assert_eq!(parse(input, "t").unwrap().to_xml(), text);
        }
    }
}
