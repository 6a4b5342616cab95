//! `docs/compat/libvirt-procedures.md` is what the table of procedures says.

use std::fmt::Write;
use std::{env, fs};

use libvirt_compat::rpc::{PROCEDURES, PROGRAM_REMOTE, Standing};

fn page() -> String {
    let mut page = String::from(
        "# libvirt's procedures\n\nWritten by `UPDATE_GOLDEN=1 cargo test -p tests procedures`, \
         from the table that the daemon dispatches by. A served procedure has a handler; a refused \
         one is answered with libvirt's \"this function is not supported by the connection \
         driver\". Events are sent by the daemon.\n",
    );
    for table in PROCEDURES {
        let program = table.first().map_or(0, |row| row.program);
        let name = if program == PROGRAM_REMOTE { "remote" } else { "qemu" };
        let count = |standing| table.iter().filter(|row| row.standing == standing).count();
        _ = write!(
            page,
            "\n## Program {name}: {} served, {} refused, {} events\n\n| number | procedure | standing |\n|---|---|---|\n",
            count(Standing::Served),
            count(Standing::Refused),
            count(Standing::Event),
        );
        let mut rows = table.to_vec();
        rows.sort_by_key(|row| row.number);
        for row in rows {
            let standing = match row.standing {
                Standing::Served => "served",
                Standing::Refused => "refused",
                Standing::Event => "event",
            };
            _ = writeln!(page, "| {} | {} | {standing} |", row.number, row.name);
        }
    }
    page
}

#[test]
fn the_page_of_procedures_is_up_to_date() {
    let path = tests::workspace().join("docs/compat/libvirt-procedures.md");
    let page = page();
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "run with UPDATE_GOLDEN=1 to write {}", path.display());
}
