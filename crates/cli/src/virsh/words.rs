//! A line of commands, as virsh splits it: words with quotes and backslashes, `;` between commands,
//! `#` before a remark.

/// The commands of a line, each with its words.
pub fn commands(line: &str) -> Result<Vec<Vec<String>>, String> {
    let mut commands = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut signs = line.chars().peekable();
    while let Some(sign) = signs.next() {
        match sign {
            ';' | '\n' => {
                words.extend(word.take());
                if !words.is_empty() {
                    commands.push(std::mem::take(&mut words));
                }
            }
            ' ' | '\t' => words.extend(word.take()),
            '#' if word.is_none() => while signs.next_if(|sign| *sign != '\n').is_some() {},
            '\'' => {
                let word = word.get_or_insert_default();
                // Without its other end it goes to the end of the line.
                word.extend(signs.by_ref().take_while(|sign| *sign != '\''));
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match signs.next() {
                        Some('"') => break,
                        Some('\\') => word.push(signs.next().ok_or("dangling \\")?),
                        Some(sign) => word.push(sign),
                        None => return Err("missing \"".to_owned()),
                    }
                }
            }
            '\\' => {
                word.get_or_insert_default().push(signs.next().ok_or("dangling \\")?);
            }
            sign => word.get_or_insert_default().push(sign),
        }
    }
    words.extend(word);
    if !words.is_empty() {
        commands.push(words);
    }
    Ok(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_as_virsh_splits_them() {
        let check = |line: &str, expected: &[&[&str]]| {
            assert_eq!(commands(line).unwrap(), expected, "{line}");
        };
        check("list --all; uri", &[&["list", "--all"], &["uri"]]);
        check(" ; echo 'a ; b' \"c \\\" d\" e\\ f ;;", &[&["echo", "a ; b", "c \" d", "e f"]]);
        check("echo a'b'\"c\" '' # list", &[&["echo", "abc", ""]]);
        check("echo a#b", &[&["echo", "a#b"]]);
        check("# nothing\nuri", &[&["uri"]]);
        check("", &[]);
        check("echo 'a;", &[&["echo", "a;"]]);
        for line in ["echo \"a", "echo a\\"] {
            assert!(commands(line).is_err(), "{line}");
        }
    }
}
