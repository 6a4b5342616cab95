//! What the verbs tell programs, beside `docs/answers.md`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, wherever it is")]

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::user::{User, has_mirror};

/// A row of the page: the verb, the list's name, and the members with their kinds.
struct Row {
    verb: String,
    list: String,
    members: Vec<(String, String)>,
}

fn rows() -> Vec<Row> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/answers.md");
    let page = fs::read_to_string(page).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let members = cells[2].split(", ").map(|member| {
            let (name, kind) = member.split_once(": ").unwrap();
            (name.to_owned(), kind.to_owned())
        });
        Row {
            verb: cells[0].trim_end_matches('`').to_owned(),
            list: cells[1].to_owned(),
            members: members.collect(),
        }
    })
    .collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "yes-no",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

fn check(row: &Row, answer: &str) {
    let verb = &row.verb;
    let answer: Value = serde_json::from_str(answer).unwrap_or_else(|_| panic!("{verb}: {answer}"));
    assert_eq!(answer["schema"], 1, "{verb}");
    let things = answer[&row.list].as_array().unwrap_or_else(|| panic!("{verb}: {answer}"));
    assert_eq!(answer.as_object().unwrap().len(), 2, "{verb}");
    // An image that was pulled needs a network, which is not to be had everywhere.
    assert!(!things.is_empty() || verb == "image list", "{verb}: nothing to look at");
    for thing in things {
        let thing = thing.as_object().unwrap();
        for (name, expected) in &row.members {
            let (name, is_optional) =
                name.strip_suffix('?').map_or((name.as_str(), false), |name| (name, true));
            match thing.get(name) {
                None | Some(Value::Null) if is_optional => {}
                Some(_) if expected == "any" => {}
                None => panic!("{verb}: '{name}' is missing in {thing:?}"),
                Some(value) => assert_eq!(kind(value), expected, "{verb}: {name}"),
            }
        }
        let is_known =
            |name: &str| row.members.iter().any(|(known, _)| known.trim_end_matches('?') == name);
        let unknown: Vec<&String> = thing.keys().filter(|name| !is_known(name)).collect();
        assert!(unknown.is_empty(), "{verb}: {unknown:?} are not in docs/answers.md");
    }
}

#[test]
fn answers_are_as_the_page_says() {
    if !has_mirror() {
        tests::skip!("there is no Debian package source");
    }
    let user = User::new("answers");
    let rows = rows();
    assert_eq!(rows.len(), 12);
    let launched = ["launch", "--name", "a", "--port", "auto", "--format", "json"];
    let launched = user.good(&launched);
    check(rows.iter().find(|row| row.verb == "launch").unwrap(), &launched);
    user.good(&["snapshot", "a", "--comment", "as it was"]);
    user.good(&["alias", "a:ls"]);
    user.good(&["port", "a", &format!("{}:80", crate::user::free_port())]);
    for stops in [false, true] {
        if stops {
            user.good(&["stop", "--force", "a"]);
        }
        for row in rows.iter().filter(|row| row.verb != "launch") {
            // Of what is off there are no figures.
            if stops && row.verb.starts_with("top") {
                continue;
            }
            let verb = row.verb.replace("NAME", "a");
            let words: Vec<&str> = verb.split(' ').chain(["--format", "json"]).collect();
            let output = user.run(&words);
            check(row, &String::from_utf8_lossy(&output.stdout));
        }
    }
    user.good(&["delete", "--all", "--purge"]);
}
