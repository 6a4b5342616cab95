//! The commands of qemu-img with their options: what 10.0 has, and the long names of later ones.

use super::arguments::{Flag, flag, with_value};

/// A command.
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// One line for the overview.
    pub summary: &'static str,
    /// What stands behind the options.
    pub operands: &'static str,
    /// Its options, besides `-h` and `--object`.
    pub flags: &'static [Flag],
}

const FORMAT: Flag = with_value('f', "format");
const IMAGE_OPTS: Flag = flag('\0', "image-opts");
const QUIET: Flag = flag('q', "quiet");
const PROGRESS: Flag = flag('p', "progress");
const SHARE: Flag = flag('U', "force-share");
const OUTPUT: Flag = with_value('\0', "output");
const OBJECT: Flag = with_value('\0', "object");
const HELP: Flag = flag('h', "help");
const CACHE: Flag = with_value('t', "cache");

/// Every command, in the order of the overview.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "amend",
        summary: "Change creation options of an image",
        operands: "-o OPTIONS FILE",
        flags: &[
            HELP,
            OBJECT,
            QUIET,
            PROGRESS,
            FORMAT,
            IMAGE_OPTS,
            CACHE,
            with_value('o', "options"),
            flag('\0', "force"),
        ],
    },
    Command {
        name: "bench",
        summary: "Measure how fast an image is read or written",
        operands: "FILE",
        flags: &[
            HELP,
            OBJECT,
            QUIET,
            FORMAT,
            IMAGE_OPTS,
            CACHE,
            SHARE,
            with_value('c', "count"),
            with_value('d', "depth"),
            with_value('o', "offset"),
            with_value('s', "buffer-size"),
            with_value('S', "step-size"),
            with_value('i', "aio"),
            flag('n', "native"),
            flag('w', "write"),
            with_value('\0', "pattern"),
            with_value('\0', "flush-interval"),
            flag('\0', "no-drain"),
        ],
    },
    Command {
        name: "bitmap",
        summary: "Change persistent dirty bitmaps of an image",
        operands: "FILE BITMAP",
        flags: &[
            HELP,
            OBJECT,
            FORMAT,
            IMAGE_OPTS,
            flag('\0', "add"),
            flag('\0', "remove"),
            flag('\0', "remove-all"),
            flag('\0', "clear"),
            flag('\0', "enable"),
            flag('\0', "disable"),
            with_value('\0', "merge"),
            with_value('g', "granularity"),
            with_value('b', "source-file"),
            with_value('F', "source-format"),
        ],
    },
    Command {
        name: "check",
        summary: "Check an image and repair it",
        operands: "FILE",
        flags: &[
            HELP,
            OBJECT,
            QUIET,
            FORMAT,
            IMAGE_OPTS,
            SHARE,
            OUTPUT,
            with_value('r', "repair"),
            with_value('T', "cache"),
        ],
    },
    Command {
        name: "commit",
        summary: "Write an image's contents into its backing file",
        operands: "FILE",
        flags: &[
            HELP,
            OBJECT,
            QUIET,
            PROGRESS,
            FORMAT,
            IMAGE_OPTS,
            CACHE,
            with_value('b', "base"),
            flag('d', "drop"),
            with_value('r', "rate-limit"),
        ],
    },
    Command {
        name: "compare",
        summary: "Say whether two images have the same contents",
        operands: "FILE1 FILE2",
        flags: &[
            HELP,
            OBJECT,
            QUIET,
            PROGRESS,
            with_value('f', "a-format"),
            with_value('F', "b-format"),
            IMAGE_OPTS,
            flag('s', "strict"),
            with_value('T', "cache"),
            SHARE,
        ],
    },
    Command {
        name: "convert",
        summary: "Copy images into a new one, of another format if wanted",
        operands: "SOURCE... TARGET",
        flags: &[
            HELP,
            OBJECT,
            QUIET,
            PROGRESS,
            SHARE,
            with_value('f', "source-format"),
            flag('\0', "image-opts"),
            flag('\0', "source-image-opts"),
            with_value('l', "snapshot"),
            with_value('\0', "source-snapshot"),
            with_value('T', "source-cache"),
            with_value('O', "target-format"),
            flag('\0', "target-image-opts"),
            with_value('o', "target-format-options"),
            with_value('\0', "target-options"),
            flag('c', "compress"),
            with_value('t', "target-cache"),
            with_value('b', "backing"),
            with_value('B', "Backing"),
            with_value('F', "backing-format"),
            flag('n', "no-create"),
            flag('\0', "target-is-zero"),
            with_value('S', "sparse-size"),
            flag('\0', "bitmaps"),
            flag('\0', "skip-broken-bitmaps"),
            with_value('r', "rate-limit"),
            with_value('m', "parallel"),
            flag('C', "copy-range-offloading"),
            flag('\0', "salvage"),
            flag('W', "oob-writes"),
        ],
    },
    Command {
        name: "create",
        summary: "Make a new image",
        operands: "FILE [SIZE]",
        flags: &[
            HELP,
            OBJECT,
            QUIET,
            FORMAT,
            with_value('o', "options"),
            with_value('b', "backing"),
            with_value('F', "backing-format"),
            with_value('B', "backing-fmt"),
            flag('u', "backing-unsafe"),
        ],
    },
    Command {
        name: "dd",
        summary: "Copy blocks from one image to a new one",
        operands: "if=INPUT of=OUTPUT [bs=SIZE] [count=BLOCKS] [skip=BLOCKS]",
        flags: &[HELP, OBJECT, FORMAT, IMAGE_OPTS, with_value('O', "output-format"), SHARE],
    },
    Command {
        name: "info",
        summary: "Show what an image says about itself",
        operands: "FILE",
        flags: &[
            HELP,
            OBJECT,
            FORMAT,
            IMAGE_OPTS,
            flag('b', "backing-chain"),
            SHARE,
            OUTPUT,
            flag('\0', "limits"),
        ],
    },
    Command {
        name: "map",
        summary: "Show where an image's contents lie",
        operands: "FILE",
        flags: &[
            HELP,
            OBJECT,
            FORMAT,
            IMAGE_OPTS,
            with_value('s', "start-offset"),
            with_value('l', "max-length"),
            OUTPUT,
            SHARE,
        ],
    },
    Command {
        name: "measure",
        summary: "Say how large a new image would become",
        operands: "--size SIZE | FILE",
        flags: &[
            HELP,
            OBJECT,
            FORMAT,
            IMAGE_OPTS,
            with_value('O', "target-format"),
            with_value('s', "size"),
            with_value('l', "snapshot"),
            with_value('o', "options"),
            OUTPUT,
            SHARE,
        ],
    },
    Command {
        name: "rebase",
        summary: "Give an image another backing file",
        operands: "-b BACKING FILE",
        flags: &[
            HELP,
            OBJECT,
            QUIET,
            PROGRESS,
            FORMAT,
            IMAGE_OPTS,
            CACHE,
            SHARE,
            with_value('b', "backing"),
            with_value('F', "backing-format"),
            with_value('B', "backing-fmt"),
            with_value('T', "backing-cache"),
            flag('u', "backing-unsafe"),
            flag('c', "compress"),
        ],
    },
    Command {
        name: "resize",
        summary: "Change the size of an image's disk",
        operands: "FILE [+-]SIZE",
        flags: &[
            HELP,
            OBJECT,
            QUIET,
            FORMAT,
            IMAGE_OPTS,
            flag('\0', "shrink"),
            with_value('\0', "preallocation"),
        ],
    },
    Command {
        name: "snapshot",
        summary: "List, take, apply or delete snapshots inside an image",
        operands: "FILE",
        flags: &[
            HELP,
            OBJECT,
            QUIET,
            FORMAT,
            IMAGE_OPTS,
            SHARE,
            flag('l', "list"),
            with_value('c', "create"),
            with_value('a', "apply"),
            with_value('d', "delete"),
        ],
    },
];

/// The command of this name.
pub fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

/// `qemu-img COMMAND --help`.
pub fn help(command: &Command) -> String {
    let mut text = format!("{}.  Usage:\n\n", command.summary);
    text.push_str(&format!(
        "  qemu-img {} [OPTION...] {}\n\nOptions:\n",
        command.name, command.operands
    ));
    for flag in command.flags {
        let letter = flag.short.map(|letter| format!("-{letter}, ")).unwrap_or_default();
        let value = if flag.value { " VALUE" } else { "" };
        text.push_str(&format!("  {letter}--{}{value}\n", flag.long));
    }
    text
}

/// `qemu-img --help`.
pub fn overview(version: &str, drivers: &[&str]) -> String {
    let mut text = format!("{version}Disk images.  Usage:\n\n");
    text.push_str("  qemu-img [standard options] COMMAND [--help | command options]\n\n");
    text.push_str("Standard options:\n  -h, --help\n     show this page\n");
    text.push_str("  -V, --version\n     show the version\n");
    text.push_str(
        "\nRecognized commands (run qemu-img COMMAND --help for command-specific help):\n\n",
    );
    for command in COMMANDS {
        text.push_str(&format!("  {} - {}\n", command.name, command.summary));
    }
    text.push_str("\nSupported image formats:\n");
    let mut line = String::from("\n ");
    for driver in drivers {
        if line.len() + driver.len() > 76 {
            text.push_str(&line);
            line = String::from("\n ");
        }
        line.push(' ');
        line.push_str(driver);
    }
    text.push_str(&line);
    text.push('\n');
    text
}
