//! What snapshots and checkpoints have in common: dates, a tree of names, and how they are described.

use libvirt_compat::xml::Element;

use super::syntax::Given;

/// One of them in a list.
pub struct Moment {
    pub name: String,
    pub parent: Option<String>,
    pub seconds: i64,
    /// Of the machine, where that is known.
    pub state: String,
}

/// The document of a new one, with the name and description that were given.
pub fn described(kind: &str, given: &Given) -> Element {
    let mut document = Element::new(kind);
    for name in ["name", "description"] {
        if let Some(text) = given.text(name) {
            document.push(Element::with_text(name, text));
        }
    }
    document
}

/// Seconds since 1970 as a date, in universal time.
pub fn date(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years that begin in March have their odd day at the end.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} +0000",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// Draws them as trees; one whose parent is not among them is a root.
pub fn tree(moments: &[Moment]) -> String {
    let is_root = |moment: &&Moment| {
        !moments.iter().any(|other| moment.parent.as_deref() == Some(other.name.as_str()))
    };
    let mut text = String::new();
    for root in moments.iter().filter(is_root) {
        draw(moments, root, true, true, "", &mut text);
    }
    text
}

fn draw(
    moments: &[Moment],
    moment: &Moment,
    is_root: bool,
    is_last: bool,
    indent: &str,
    text: &mut String,
) {
    text.push_str(&format!("{indent}{}{}\n", if is_root { "" } else { "+- " }, moment.name));
    let indent = match (is_root, is_last) {
        (true, _) => indent.to_owned(),
        (false, true) => format!("{indent}  "),
        (false, false) => format!("{indent}| "),
    };
    let children: Vec<&Moment> = moments
        .iter()
        .filter(|child| child.parent.as_deref() == Some(moment.name.as_str()))
        .collect();
    if !children.is_empty() {
        text.push_str(&format!("{indent}  |\n"));
    }
    let inner = format!("{indent}  ");
    for (place, child) in children.iter().enumerate() {
        draw(moments, child, false, place + 1 == children.len(), &inner, text);
    }
    if children.is_empty() && is_last {
        text.push_str(&format!("{indent}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 +0000"),
            (951_782_399, "2000-02-28 23:59:59 +0000"),
            (951_782_400, "2000-02-29 00:00:00 +0000"),
            (1_795_284_377, "2026-11-21 18:06:17 +0000"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }

    #[test]
    fn trees_look_like_virshs() {
        let moment = |name: &str, parent: Option<&str>| Moment {
            name: name.to_owned(),
            parent: parent.map(str::to_owned),
            seconds: 0,
            state: String::new(),
        };
        let moments = [moment("a", None), moment("b", Some("a")), moment("c", Some("b"))];
        assert_eq!(tree(&moments), "a\n  |\n  +- b\n      |\n      +- c\n        \n");
    }
}
